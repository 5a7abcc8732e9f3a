//! What the registry answered, remembered within bounds.
//!
//! An id stands for one schema for ever, so that forgetting one costs only a question. Schemas live
//! in two generations: one that is used moves to the younger; when that is full it becomes the
//! older, and what nobody used since is gone. What was refused is remembered for a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tidewire_schemas::codec::{RegistryFault, WriterSchema};

use super::config::QueryPolicy;

/// Ids of one generation: ten thousand in both are more than any registry we know of holds in use.
const GENERATION_IDS_MAX: usize = 5_000;
/// Bytes of schemas' texts in one generation. Compiled they take several times as much.
const GENERATION_BYTES_MAX: usize = 16 << 20;
/// Ids that are remembered as refused.
const FAULTS_MAX: usize = 10_000;

/// A schema and the bytes of its text.
#[derive(Clone, Debug)]
struct CachedSchema {
    schema: Arc<WriterSchema>,
    bytes: usize,
}

/// Answers by id.
#[derive(Debug, Default)]
pub(super) struct SchemaCache {
    young: HashMap<u32, CachedSchema>,
    young_bytes: usize,
    old: HashMap<u32, CachedSchema>,
    faults: HashMap<u32, (RegistryFault, Instant)>,
    /// Why nothing is asked, and until when.
    pause: Option<(RegistryFault, Instant)>,
}

impl SchemaCache {
    /// The remembered answer, if there is one.
    pub(super) fn answer(
        &mut self,
        id: u32,
        now: Instant,
    ) -> Option<Result<Arc<WriterSchema>, RegistryFault>> {
        if let Some(cached) = self.young.get(&id) {
            return Some(Ok(cached.schema.clone()));
        }
        if let Some(cached) = self.old.remove(&id) {
            let schema = cached.schema.clone();
            self.insert(id, cached);
            return Some(Ok(schema));
        }
        let refused = self.faults.get(&id).filter(|(_, until)| now < *until);
        let paused = self.pause.as_ref().filter(|(_, until)| now < *until);
        refused.or(paused).map(|(fault, _)| Err(fault.clone()))
    }

    /// Remembers a schema made of so many bytes of text.
    pub(super) fn store(&mut self, id: u32, schema: Arc<WriterSchema>, bytes: usize) {
        self.faults.remove(&id);
        self.pause = None;
        self.insert(id, CachedSchema { schema, bytes });
    }

    fn insert(&mut self, id: u32, cached: CachedSchema) {
        let full = self.young.len() >= GENERATION_IDS_MAX
            || self.young_bytes + cached.bytes > GENERATION_BYTES_MAX;
        if full {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += cached.bytes;
        if let Some(before) = self.young.insert(id, cached) {
            self.young_bytes -= before.bytes;
        }
    }

    /// Remembers for a while that there is no schema.
    pub(super) fn store_fault(
        &mut self,
        id: u32,
        fault: &RegistryFault,
        now: Instant,
        policy: &QueryPolicy,
    ) {
        if matches!(fault, RegistryFault::Unavailable(_)) {
            self.pause = Some((fault.clone(), now + policy.unavailable_pause));
            return;
        }
        if self.faults.len() >= FAULTS_MAX {
            self.faults.retain(|_, (_, until)| now < *until);
        }
        // Ten thousand wrong ids within a pause: asking again is all that is lost.
        if self.faults.len() >= FAULTS_MAX {
            self.faults.clear();
        }
        self.faults.insert(id, (fault.clone(), now + policy.unknown_pause));
    }

    /// How many schemas it holds.
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    fn schema() -> Arc<WriterSchema> {
        Arc::new(WriterSchema::json())
    }

    #[test]
    fn what_is_used_stays_and_what_nobody_uses_goes() {
        let mut cache = SchemaCache::default();
        let now = clock::now();
        for id in 0..4 * GENERATION_IDS_MAX as u32 {
            cache.store(id, schema(), 10);
            assert!(matches!(cache.answer(0, now), Some(Ok(_))), "used at {id}");
            assert!(cache.len() <= 2 * GENERATION_IDS_MAX);
        }
        assert!(cache.answer(1, now).is_none());
    }

    #[test]
    fn a_generation_is_full_by_bytes_too() {
        let mut cache = SchemaCache::default();
        for id in 0..100 {
            cache.store(id, schema(), GENERATION_BYTES_MAX / 10);
            assert!(cache.len() <= 20 && cache.young_bytes <= GENERATION_BYTES_MAX);
        }
    }

    #[test]
    fn a_refused_id_is_refused_for_a_while_and_silence_refuses_every_id() {
        let (mut cache, now, policy) =
            (SchemaCache::default(), clock::now(), QueryPolicy::default());
        let later = |seconds| now + Duration::from_secs(seconds);
        cache.store_fault(1, &RegistryFault::Unknown("no".into()), now, &policy);
        assert!(matches!(cache.answer(1, later(29)), Some(Err(RegistryFault::Unknown(_)))));
        assert!(cache.answer(1, later(30)).is_none() && cache.answer(2, now).is_none());
        cache.store(3, schema(), 1);
        cache.store_fault(2, &RegistryFault::Unavailable("?".into()), now, &policy);
        assert!(matches!(cache.answer(9, later(4)), Some(Err(RegistryFault::Unavailable(_)))));
        assert!(matches!(cache.answer(3, later(4)), Some(Ok(_))), "what is known needs nobody");
        assert!(cache.answer(9, later(5)).is_none());
    }

    #[test]
    fn wrong_ids_without_end_take_no_memory_without_end() {
        let (mut cache, now, policy) =
            (SchemaCache::default(), clock::now(), QueryPolicy::default());
        for id in 0..3 * FAULTS_MAX as u32 {
            cache.store_fault(id, &RegistryFault::Unknown(String::new()), now, &policy);
            assert!(cache.faults.len() <= FAULTS_MAX);
        }
    }
}
