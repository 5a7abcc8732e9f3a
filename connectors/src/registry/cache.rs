//! A bounded cache of schemas and of failed requests, by schema id or GUID.
//!
//! An id never changes its schema, so evicting an entry costs only another request. Schemas
//! are in two generations: one that is used moves to the younger, and when that is full it becomes
//! the older and what nobody used since is dropped. An unknown or unusable id is remembered for a
//! while; an unavailable registry pauses all requests for a while.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use tidewire_schemas::codec::{RegistryFault, WriterSchema, guid_text};

use super::config::QueryPolicy;

/// Ids of one generation: ten thousand in both is more than registries have in use.
const GENERATION_IDS_MAX: usize = 5_000;
/// Bytes of schema texts in one generation. A compiled schema takes several times as much.
const GENERATION_BYTES_MAX: usize = 16 << 20;
/// Ids whose fault is remembered.
const FAULTS_MAX: usize = 10_000;

/// How a record names its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum SchemaKey {
    /// The number in Confluent's framing.
    Id(u32),
    /// The GUID in a header, big-endian.
    Guid(u128),
}

impl fmt::Display for SchemaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Guid(guid) => f.write_str(&guid_text(*guid)),
        }
    }
}

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
    /// Why the registry is not asked at all, and until when.
    pause: Option<(RegistryFault, Instant)>,
}

impl SchemaCache {
    /// The cached schema or fault, if there is one.
    pub(super) fn answer(
        &mut self,
        key: SchemaKey,
        now: Instant,
    ) -> Option<Result<Arc<WriterSchema>, RegistryFault>> {
        if let Some(cached) = self.young.get(&key) {
            return Some(Ok(cached.schema.clone()));
        }
        if let Some(cached) = self.old.remove(&key) {
            let schema = cached.schema.clone();
            self.insert(key, cached);
            return Some(Ok(schema));
        }
        let refused = self.faults.get(&key).filter(|(_, until)| now < *until);
        let paused = self.pause.as_ref().filter(|(_, until)| now < *until);
        refused.or(paused).map(|(fault, _)| Err(fault.clone()))
    }

    /// Stores a schema that was compiled from `bytes` bytes of text.
    pub(super) fn store(&mut self, key: SchemaKey, schema: Arc<WriterSchema>, bytes: usize) {
        self.faults.remove(&key);
        self.pause = None;
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

    /// Stores for a while why there is no schema.
    pub(super) fn store_fault(
        &mut self,
        key: SchemaKey,
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
        // Ten thousand wrong ids within a pause: forgetting them costs only more requests.
        if self.faults.len() >= FAULTS_MAX {
            self.faults.clear();
        }
        self.faults.insert(key, (fault.clone(), now + policy.unknown_pause));
    }

    /// The number of schemas in the cache.
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::SchemaKey::{Guid, Id};
    use super::*;
    use crate::clock;

    fn schema() -> Arc<WriterSchema> {
        Arc::new(WriterSchema::json())
    }

    #[test]
    fn used_schemas_stay_and_unused_ones_are_evicted() {
        let mut cache = SchemaCache::default();
        let now = clock::now();
        for id in 0..4 * GENERATION_IDS_MAX as u32 {
            cache.store(Id(id), schema(), 10);
            assert!(matches!(cache.answer(Id(0), now), Some(Ok(_))), "used at {id}");
            assert!(cache.len() <= 2 * GENERATION_IDS_MAX);
        }
        assert!(cache.answer(Id(1), now).is_none());
    }

    #[test]
    fn a_guid_is_another_key_than_the_number_it_contains() {
        let mut cache = SchemaCache::default();
        cache.store(Id(7), schema(), 10);
        assert!(cache.answer(Guid(7), clock::now()).is_none());
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
    fn an_unknown_id_fails_for_a_while_and_an_unavailable_registry_fails_every_id() {
        let (mut cache, now, policy) =
            (SchemaCache::default(), clock::now(), QueryPolicy::default());
        let later = |seconds| now + Duration::from_secs(seconds);
        cache.store_fault(Id(1), &RegistryFault::Unknown("no".into()), now, &policy);
        assert!(matches!(cache.answer(Id(1), later(29)), Some(Err(RegistryFault::Unknown(_)))));
        assert!(cache.answer(Id(1), later(30)).is_none() && cache.answer(Id(2), now).is_none());
        cache.store(Id(3), schema(), 1);
        cache.store_fault(Id(2), &RegistryFault::Unavailable("?".into()), now, &policy);
        assert!(matches!(cache.answer(Id(9), later(4)), Some(Err(RegistryFault::Unavailable(_)))));
        assert!(
            matches!(cache.answer(Id(3), later(4)), Some(Ok(_))),
            "a cached schema needs no request"
        );
        assert!(cache.answer(Id(9), later(5)).is_none());
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
