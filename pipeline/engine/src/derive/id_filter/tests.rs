//! The filter never rules out an id that is kept, stays within its limit, and rules out new ids.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::derive::memory_store::MemoryStore;
use crate::port::{StoreBatch, StoreWrite};

const HOUR_MS: i64 = 3_600_000;

/// An id whose bits are as good as those of a hash (the finalizer of SplitMix64).
fn id(n: usize) -> [u8; 16] {
    let half = |seed: u64| {
        let mut bits = (n as u64 + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    };
    ((u128::from(half(1)) << 64) | u128::from(half(1 << 40))).to_be_bytes()
}

/// A filter whose store has nothing.
fn empty(limit_bytes: usize) -> IdFilter {
    let mut filter = IdFilter::new(limit_bytes);
    assert!(filter.may_contain(&id(0)), "nothing is ruled out before the store was read");
    assert!(filter.load(&mut MemoryStore::default(), Millis(0)).expect("it never fails"));
    assert!(!filter.load(&mut MemoryStore::default(), Millis(0)).expect("it never fails"));
    filter
}

fn bytes(filter: &IdFilter) -> usize {
    let blocks: usize = filter.buckets.iter().map(IdBucket::blocks).sum();
    assert_eq!(blocks, filter.blocks);
    blocks * BLOCK_BYTES
}

/// The share of new ids that are not ruled out.
fn false_positives(filter: &IdFilter) -> f64 {
    let new = 1_000_000_000..1_000_020_000;
    let passed = new.clone().filter(|n| filter.may_contain(&id(*n))).count();
    passed as f64 / new.len() as f64
}

fn store_with(ids: impl Iterator<Item = (usize, Millis)>) -> MemoryStore {
    let row = |(n, since): (usize, Millis)| {
        let value = AcceptedId { since, at: since }.encode();
        let (key, value) = (Bytes::copy_from_slice(&id(n)), Bytes::copy_from_slice(&value));
        StoreWrite { table: IDS, key, value: Some(value) }
    };
    let mut store = MemoryStore::default();
    let batch = StoreBatch { writes: ids.map(row).collect(), progress: Bytes::new() };
    store.hand_over(batch).expect("it never fails");
    store
}

proptest! {
    /// Whatever the times: the ids of the store, those added meanwhile, and what has expired.
    #[test]
    fn a_kept_id_is_never_ruled_out(
        stored in proptest::collection::btree_map(0usize..9_000, -90i64..90, 0..2_500),
        steps in proptest::collection::vec((9_000usize..12_000, -90i64..90, 0i64..3), 0..150),
    ) {
        let hours = |hours: i64| Millis(hours * HOUR_MS);
        let mut store = store_with(stored.iter().map(|(n, at)| (*n, hours(*at))));
        let mut kept: BTreeMap<usize, Millis> =
            stored.into_iter().map(|(n, at)| (n, hours(at))).collect();
        let mut filter = IdFilter::new(0);
        let mut settled = Millis(-100 * HOUR_MS);
        for (n, at, passes) in steps {
            filter.load(&mut store, settled).expect("it never fails");
            filter.insert(&id(n), hours(at));
            let before = kept.insert(n, hours(at));
            if let Some(before) = before.filter(|before| *before > hours(at)) {
                kept.insert(n, before);
            }
            settled.0 += passes * HOUR_MS;
            filter.expire(settled);
            for (n, since) in kept.iter().take(50) {
                prop_assert!(!is_kept(*since, settled) || filter.may_contain(&id(*n)));
            }
        }
        while filter.load(&mut store, settled).expect("it never fails") {}
        for (n, since) in &kept {
            prop_assert!(!is_kept(*since, settled) || filter.may_contain(&id(*n)), "{n}");
        }
        prop_assert!(filter.buckets.len() <= BUCKETS_MAX);
        prop_assert!(bytes(&filter) <= BUCKETS_MAX * SEGMENT_BLOCKS_MIN * BLOCK_BYTES);
    }
}

#[test]
fn new_ids_are_ruled_out_and_memory_follows_their_number() {
    let mut filter = empty(16 << 20);
    let mut used = Vec::new();
    for n in 0..400_000 {
        filter.insert(&id(n), Millis(n as i64 * 24 * HOUR_MS / 400_000));
        if [1, 100_000, 399_999].contains(&n) {
            used.push(bytes(&filter));
        }
    }
    let passed = false_positives(&filter);
    assert!(passed < 0.01, "{passed}");
    assert!(used[0] == 16 << 10 && used[2] < 2 << 20, "{used:?}");
    assert!(filter.buckets.iter().all(|bucket| bucket.segments.len() <= 3));
}

#[test]
fn beyond_the_limit_fewer_ids_are_ruled_out_and_the_rest_still_is() {
    // Four fifths of the limit are 16 bits for each of 400,000 ids. Twice as many are accepted.
    let mut filter = empty(1 << 20);
    for n in 0..800_000 {
        filter.insert(&id(n), Millis(n as i64 * 24 * HOUR_MS / 800_000));
    }
    assert!(bytes(&filter) <= 1 << 20);
    let passed = false_positives(&filter);
    assert!((0.02..0.4).contains(&passed), "{passed}");
    assert!((0..800_000).step_by(7).all(|n| filter.may_contain(&id(n))));
}

#[test]
fn memory_is_released_once_the_ids_have_expired() {
    let mut filter = empty(16 << 20);
    for n in 0..200_000 {
        filter.insert(&id(n), Millis(n as i64 % 24 * HOUR_MS));
    }
    let full = bytes(&filter);
    filter.expire(Millis(36 * HOUR_MS));
    assert!(bytes(&filter) <= full * 6 / 10, "{} of {full}", bytes(&filter));
    assert!(filter.may_contain(&id(23)));
    filter.expire(Millis(48 * HOUR_MS));
    assert_eq!((bytes(&filter), filter.may_contain(&id(23))), (0, false));
}

#[test]
fn the_ids_of_a_store_are_read_in_steps_and_fill_few_segments() {
    let since = |n: usize| Millis((n as i64 % 48) * HOUR_MS);
    let mut store = store_with((0..120_000).map(|n| (n, since(n))));
    let mut filter = IdFilter::new(16 << 20);
    let mut steps = 0;
    while filter.load(&mut store, Millis(47 * HOUR_MS)).expect("it never fails") {
        steps += 1;
        assert!(steps < 70, "each step reads {LOAD_ROWS} rows");
    }
    let kept = (0..120_000).filter(|n| is_kept(since(*n), Millis(47 * HOUR_MS)));
    assert!(kept.clone().all(|n| filter.may_contain(&id(n))));
    let ids: usize = filter.buckets.iter().map(|bucket| bucket.ids).sum();
    assert_eq!(ids, kept.count(), "expired ids need no room");
    assert!(filter.buckets.iter().all(|bucket| bucket.segments.len() <= 2));
    let passed = false_positives(&filter);
    assert!(passed < 0.01, "{passed}");
}
