//! What a store answered lately, bounded in bytes: the clean layer under a task's state.
//!
//! The one idea: an entry here says what the store says, a miss included, so forgetting it costs a
//! read and nothing else. Second chance decides what leaves: the oldest entry, unless it was asked
//! for since it was last considered.
//!
//! A key lives here only while the store agrees or a layer above overrides it; nothing unwritten is
//! ever kept here alone.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::port::Table;

/// Bytes an entry costs beside its key's and value's length: map slot, queue slot, share counts.
const ENTRY_BYTES: usize = 160;

/// Hashes keys the same way in every run; the map is never walked, so its order shows nowhere.
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
    /// Asked for since it was last considered for leaving.
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

    /// What the store says about a key, if it is known here.
    pub(crate) fn find(&mut self, table: Table, key: &[u8]) -> Option<Option<Bytes>> {
        let entry = self.tables.get_mut(usize::from(table.0))?.get_mut(key)?;
        entry.referenced = true;
        Some(entry.value.clone())
    }

    /// Notes what the store says about a key.
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
    fn the_cache_stays_within_its_bytes_and_keeps_what_is_asked_for() {
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
    fn a_miss_is_remembered_and_a_write_replaces_it() {
        let mut cache = ReadCache::new(1 << 20);
        cache.insert(TABLE, key(1), None);
        assert_eq!(cache.find(TABLE, &key(1)), Some(None));
        cache.insert(TABLE, key(1), Some(key(9)));
        assert_eq!(cache.find(TABLE, &key(1)), Some(Some(key(9))));
        assert_eq!(cache.queue.len(), 1);
    }
}
