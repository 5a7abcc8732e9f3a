//! A bounded cache of schemas and of failed requests, by schema id or GUID.
//!
//! An id never changes its schema, so evicting an entry costs only another request. Schemas
//! are in two generations: one that is used moves to the younger, and when that is full it becomes
//! the older and what nobody used since is dropped. A fault of one key is remembered for a while
//! and concerns no other; while the registry is away, nothing is asked between two tries.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tidewire_schemas::codec::{RegistryFault, SchemaKey, WriterSchema};

use super::config::QueryPolicy;
use super::outage::Outage;

/// Ids of one generation: ten thousand in both is more than registries have in use.
const GENERATION_IDS_MAX: usize = 5_000;
/// Bytes of schema texts in one generation. A compiled schema takes several times as much.
const GENERATION_BYTES_MAX: usize = 16 << 20;
/// Ids whose fault is remembered.
const FAULTS_MAX: usize = 10_000;

/// A schema and the bytes of its text.
#[derive(Clone, Debug)]
struct CachedSchema {
    schema: Arc<WriterSchema>,
    bytes: usize,
}

/// Schemas and faults by key.
#[derive(Debug, Default)]
pub(super) struct SchemaCache {
    young: HashMap<SchemaKey, CachedSchema>,
    young_bytes: usize,
    old: HashMap<SchemaKey, CachedSchema>,
    faults: HashMap<SchemaKey, (RegistryFault, Instant)>,
    /// The registry is away.
    outage: Option<Outage>,
}

/// What the cache knows about a key.
#[derive(Debug)]
pub(super) enum CacheAnswer {
    /// Its schema, or why there is none for now.
    Known(Result<Arc<WriterSchema>, RegistryFault>),
    /// Ask the registry.
    Ask,
    /// The registry was away when it was asked last: ask whether it is back, without repeating.
    AskOnce,
}

impl SchemaCache {
    /// What is cached for a key.
    pub(super) fn answer(
        &mut self,
        key: SchemaKey,
        now: Instant,
        policy: &QueryPolicy,
    ) -> CacheAnswer {
        if let Some(cached) = self.young.get(&key) {
            return CacheAnswer::Known(Ok(cached.schema.clone()));
        }
        if let Some(cached) = self.old.remove(&key) {
            let schema = cached.schema.clone();
            self.insert(key, cached);
            return CacheAnswer::Known(Ok(schema));
        }
        if let Some((fault, _)) = self.faults.get(&key).filter(|(_, until)| now < *until) {
            return CacheAnswer::Known(Err(fault.clone()));
        }
        let Some(outage) = &mut self.outage else { return CacheAnswer::Ask };
        if outage.begin_asking(now, policy) {
            return CacheAnswer::AskOnce;
        }
        CacheAnswer::Known(Err(RegistryFault::Unavailable(outage.why.clone())))
    }

    /// The registry could not be asked by a thread that began at `asked`. Returns whether it is
    /// away since now.
    pub(super) fn store_outage(
        &mut self,
        why: &str,
        asked: Instant,
        now: Instant,
        policy: &QueryPolicy,
    ) -> bool {
        match &mut self.outage {
            Some(outage) => outage.repeat(why.to_owned(), asked, now, policy),
            None => {
                self.outage = Some(Outage::new(why.to_owned(), asked, now, policy));
                return true;
            }
        }
        false
    }

    /// The registry answered. Returns the outage that this ends.
    pub(super) fn end_outage(&mut self) -> Option<Outage> {
        self.outage.take()
    }

    /// Stores a schema that was compiled from `bytes` bytes of text.
    pub(super) fn store(&mut self, key: SchemaKey, schema: Arc<WriterSchema>, bytes: usize) {
        self.faults.remove(&key);
        self.insert(key, CachedSchema { schema, bytes });
    }

    fn insert(&mut self, key: SchemaKey, cached: CachedSchema) {
        let full = self.young.len() >= GENERATION_IDS_MAX
            || self.young_bytes + cached.bytes > GENERATION_BYTES_MAX;
        if full {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += cached.bytes;
        if let Some(before) = self.young.insert(key, cached) {
            self.young_bytes -= before.bytes;
        }
    }

    /// Stores for a while why there is no schema for this key.
    pub(super) fn store_fault(
        &mut self,
        key: SchemaKey,
        fault: &RegistryFault,
        now: Instant,
        policy: &QueryPolicy,
    ) {
        let pause = match fault {
            RegistryFault::Unavailable(_) => policy.unavailable_pause,
            RegistryFault::Unknown(_) | RegistryFault::Unusable(_) => policy.unknown_pause,
        };
        if self.faults.len() >= FAULTS_MAX {
            self.faults.retain(|_, (_, until)| now < *until);
        }
        // Ten thousand wrong ids within a pause: forgetting them costs only more requests.
        if self.faults.len() >= FAULTS_MAX {
            self.faults.clear();
        }
        self.faults.insert(key, (fault.clone(), now + pause));
    }

    /// The number of schemas in the cache.
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::CacheAnswer::{Ask, AskOnce, Known};
    use super::SchemaKey::{Guid, Id};
    use super::*;
    use crate::clock;

    fn schema() -> Arc<WriterSchema> {
        Arc::new(WriterSchema::json())
    }

    #[test]
    fn used_schemas_stay_and_unused_ones_are_evicted() {
        let mut cache = SchemaCache::default();
        let (now, policy) = (clock::now(), QueryPolicy::default());
        for id in 0..4 * GENERATION_IDS_MAX as u32 {
            cache.store(Id(id), schema(), 10);
            assert!(matches!(cache.answer(Id(0), now, &policy), Known(Ok(_))), "used at {id}");
            assert!(cache.len() <= 2 * GENERATION_IDS_MAX);
        }
        assert!(matches!(cache.answer(Id(1), now, &policy), Ask));
    }

    #[test]
    fn a_guid_is_another_key_than_the_number_it_contains() {
        let (mut cache, policy) = (SchemaCache::default(), QueryPolicy::default());
        cache.store(Id(7), schema(), 10);
        assert!(matches!(cache.answer(Guid(7), clock::now(), &policy), Ask));
        assert_eq!(Guid(7).to_string(), "00000000-0000-0000-0000-000000000007");
    }

    #[test]
    fn a_generation_is_limited_in_bytes() {
        let mut cache = SchemaCache::default();
        for id in 0..100 {
            cache.store(Id(id), schema(), GENERATION_BYTES_MAX / 10);
            assert!(cache.len() <= 20 && cache.young_bytes <= GENERATION_BYTES_MAX);
        }
    }

    #[test]
    fn a_fault_of_one_key_ends_after_a_while_and_concerns_no_other() {
        let (mut cache, now, policy) =
            (SchemaCache::default(), clock::now(), QueryPolicy::default());
        let later = |seconds| now + Duration::from_secs(seconds);
        let unknown = RegistryFault::Unknown("no".into());
        cache.store_fault(Id(1), &unknown, now, &policy);
        cache.store_fault(Guid(1), &RegistryFault::Unavailable("not you".into()), now, &policy);
        for key in [Id(1), Guid(1)] {
            assert!(matches!(cache.answer(key, later(3), &policy), Known(Err(_))));
        }
        assert!(matches!(cache.answer(Id(3), now, &policy), Ask));
        assert!(matches!(cache.answer(Guid(1), later(5), &policy), Ask));
        let Known(Err(fault)) = cache.answer(Id(1), later(29), &policy) else {
            panic!("it is known")
        };
        assert_eq!(fault, unknown);
        assert!(matches!(cache.answer(Id(1), later(30), &policy), Ask));
    }

    #[test]
    fn an_outage_fails_every_key_without_a_schema_and_one_caller_asks_at_a_time() {
        let (mut cache, now, policy) =
            (SchemaCache::default(), clock::now(), QueryPolicy::default());
        let later = |seconds| now + Duration::from_secs(seconds);
        cache.store(Id(3), schema(), 1);
        assert!(cache.store_outage("away", now, now, &policy));
        for key in [Id(9), Guid(3)] {
            let Known(Err(fault)) = cache.answer(key, now, &policy) else { panic!("not asked") };
            assert_eq!(fault, RegistryFault::Unavailable("away".into()));
        }
        assert!(matches!(cache.answer(Id(3), now, &policy), Known(Ok(_))));
        assert!(matches!(cache.answer(Guid(9), later(2), &policy), AskOnce));
        assert!(matches!(cache.answer(Id(8), later(2), &policy), Known(Err(_))));
        assert!(!cache.store_outage("still away", later(2), later(3), &policy));
        assert!(matches!(cache.answer(Id(8), later(4), &policy), Known(Err(_))));
        assert!(matches!(cache.answer(Id(8), later(6), &policy), AskOnce));
        assert!(cache.end_outage().is_some() && cache.end_outage().is_none());
        assert!(matches!(cache.answer(Id(9), later(6), &policy), Ask));
    }

    #[test]
    fn memory_for_unknown_ids_is_bounded() {
        let (mut cache, now, policy) =
            (SchemaCache::default(), clock::now(), QueryPolicy::default());
        for id in 0..3 * FAULTS_MAX as u32 {
            cache.store_fault(Id(id), &RegistryFault::Unknown(String::new()), now, &policy);
            assert!(cache.faults.len() <= FAULTS_MAX);
        }
    }
}
