//! The read cache of one task: what its store answered, bounded in bytes.
//!
//! Every entry repeats what the store holds, missing keys included, so evicting one costs a later
//! read and never data. Eviction is second chance: the oldest entry leaves unless it was read since
//! it was last considered.
//!
//! Unwritten values never live here alone: a key is cached only while the store agrees with it or a
//! layer above overrides it.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::port::Table;

/// Overhead of an entry beyond its key and value: map slot, queue slot and reference counts.
const ENTRY_BYTES: usize = 160;

/// Hashes keys the same way in every run. The map is never iterated, so its order has no effect.
#[derive(Default)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_usize(&mut self, value: usize) {
        self.0 = self.0.wrapping_add(value as u64);
    }
}

type CachedKeys = HashMap<Bytes, ReadCacheEntry, BuildHasherDefault<KeyHasher>>;

#[derive(Debug)]
struct ReadCacheEntry {
    /// `None`: the store has no such key.
    value: Option<Bytes>,
    /// Read since eviction last considered it.
    referenced: bool,
}

/// The cache of one task.
pub(crate) struct ReadCache {
    tables: Vec<CachedKeys>,
    /// Every entry once, oldest first.
    queue: VecDeque<(Table, Bytes)>,
    bytes: usize,
    limit_bytes: usize,
}

impl ReadCache {
    /// A cache of at most `limit_bytes`.
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Self { tables: Vec::new(), queue: VecDeque::new(), bytes: 0, limit_bytes }
    }

    /// The store's answer for a key, if it is cached.
    pub(crate) fn find(&mut self, table: Table, key: &[u8]) -> Option<Option<Bytes>> {
        let entry = self.tables.get_mut(usize::from(table.0))?.get_mut(key)?;
        entry.referenced = true;
        Some(entry.value.clone())
    }

    /// Caches the store's answer for a key.
    pub(crate) fn insert(&mut self, table: Table, key: Bytes, value: Option<Bytes>) {
        let at = usize::from(table.0);
        if self.tables.len() <= at {
            self.tables.resize_with(at + 1, HashMap::default);
        }
        let len = value.as_ref().map_or(0, Bytes::len);
        match self.tables[at].get_mut(&key) {
            Some(entry) => {
                self.bytes -= entry.value.as_ref().map_or(0, Bytes::len);
                entry.value = value;
            }
            None => {
                self.bytes += ENTRY_BYTES + key.len();
                self.queue.push_back((table, key.clone()));
                self.tables[at].insert(key, ReadCacheEntry { value, referenced: false });
            }
        }
        self.bytes += len;
        self.evict();
    }

    fn evict(&mut self) {
        while self.bytes > self.limit_bytes
            && let Some((table, key)) = self.queue.pop_front()
        {
            let keys = &mut self.tables[usize::from(table.0)];
            let entry = keys.get_mut(&key).expect("the queue holds every entry once");
            if std::mem::take(&mut entry.referenced) {
                self.queue.push_back((table, key));
                continue;
            }
            self.bytes -= ENTRY_BYTES + key.len() + entry.value.as_ref().map_or(0, Bytes::len);
            keys.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Table = Table(3);

    fn key(n: usize) -> Bytes {
        n.to_be_bytes().to_vec().into()
    }

    #[test]
    fn the_cache_stays_within_its_limit_and_keeps_what_is_read() {
        let mut cache = ReadCache::new(100 * (ENTRY_BYTES + 16));
        for n in 0..1_000 {
            cache.insert(TABLE, key(n), Some(key(n)));
            assert_eq!(cache.find(TABLE, &key(0)), Some(Some(key(0))));
            assert!(cache.bytes <= cache.limit_bytes);
        }
        assert_eq!(cache.queue.len(), 100);
        assert_eq!(cache.find(TABLE, &key(1)), None);
    }

    #[test]
    fn a_missing_key_is_cached_and_a_write_replaces_it() {
        let mut cache = ReadCache::new(1 << 20);
        cache.insert(TABLE, key(1), None);
        assert_eq!(cache.find(TABLE, &key(1)), Some(None));
        cache.insert(TABLE, key(1), Some(key(9)));
        assert_eq!(cache.find(TABLE, &key(1)), Some(Some(key(9))));
        assert_eq!(cache.queue.len(), 1);
    }
}
