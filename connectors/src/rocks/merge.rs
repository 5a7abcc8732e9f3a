//! Merges consecutive batches of a store into one: the newest write of each key, sorted by key.
//!
//! The batches are consecutive and whole, so the result ends at a transaction boundary too, and its
//! progress is that of the last batch.

use bytes::Bytes;
use tidewire_engine::port::{StoreBatch, StoreWrite};

/// Bytes of a batch in memory.
pub(super) fn size(batch: &StoreBatch) -> usize {
    let write = |w: &StoreWrite| {
        size_of::<StoreWrite>() + w.key.len() + w.value.as_ref().map_or(0, Bytes::len)
    };
    batch.progress.len() + batch.writes.iter().map(write).sum::<usize>()
}

/// Merges batches, oldest first. There is at least one.
pub(super) fn merge(batches: impl IntoIterator<Item = StoreBatch>) -> StoreBatch {
    let mut writes = Vec::new();
    let mut progress = Bytes::new();
    for batch in batches {
        writes.extend(batch.writes);
        progress = batch.progress;
    }
    // The sort is stable, so the newest of equal keys is last; `dedup` keeps the first of a run.
    writes.sort_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
    writes.reverse();
    writes.dedup_by(|older, newer| older.table == newer.table && older.key == newer.key);
    writes.reverse();
    StoreBatch { writes, progress }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use tidewire_engine::port::Table;

    use super::*;

    proptest! {
        #[test]
        fn merged_batches_write_the_same_as_one_after_the_other(
            given in proptest::collection::vec(
                proptest::collection::btree_map((0u8..2, 0u8..6), any::<Option<u8>>(), 0..6),
                1..6,
            ),
        ) {
            let batches = given.iter().enumerate().map(|(at, writes)| StoreBatch {
                writes: writes
                    .iter()
                    .map(|((table, key), value)| StoreWrite {
                        table: Table(*table),
                        key: vec![*key].into(),
                        value: value.map(|value| vec![value].into()),
                    })
                    .collect(),
                progress: vec![at as u8].into(),
            });
            let merged = merge(batches);
            let mut expected = BTreeMap::new();
            for writes in &given {
                expected.extend(writes.clone());
            }
            let found: Vec<_> = merged
                .writes
                .iter()
                .map(|w| ((w.table.0, w.key[0]), w.value.as_ref().map(|value| value[0])))
                .collect();
            prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(merged.progress[0] as usize, given.len() - 1);
        }
    }
}
