//! The filter of accepted ids: rules out in memory that a store holds an id.
//!
//! Nearly every event has a new id, which the state would look for in all its layers and then in
//! the store. The filter answers without them. It may be wrong only in one way: an id that it does
//! not rule out may be new, which costs a read of the state.
//!
//! ```text
//! bucket    ids kept since times within six hours; dropped once all of them have expired
//! segment   a part of a bucket: a Bloom filter, whose size is fixed when it is created
//! block     256 bits, of which an id sets one in each of eight words; its hash chooses the block
//! ```
//!
//! A segment that is full is followed by a larger one, up to the bucket's share of the limit. Then
//! its last segment takes more ids than it was made for, and rules out fewer new ones.
//!
//! An id is added when it is accepted or replayed, and is never removed, not even if its
//! transaction is aborted. The ids that the store already holds are read from it in small steps
//! while the task runs; until then the filter rules out nothing.

use std::ops::ControlFlow;

use crate::derive::accepted_id::{AcceptedId, IDS, WINDOW_MS};
use crate::port::{KeyRange, Store, StoreError};
use crate::record::Millis;

/// The memory for the filters of all partitions, unless it is configured: 16 bits for each of 64
/// million ids, or 10 for each of 100 million.
pub const DEDUP_FILTER_BYTES: usize = 128 << 20;

/// The least that may be configured: 256 KiB for each of 64 partitions, which is the smallest
/// segment for each bucket.
pub const DEDUP_FILTER_BYTES_MIN: usize = 64 * BUCKETS_MAX * SEGMENT_BLOCKS_MIN * BLOCK_BYTES;

/// The span of a bucket. Memory is released a quarter of the window late at most, and an id is
/// looked for in five buckets.
const BUCKET_MS: i64 = WINDOW_MS / 4;

/// The buckets that a window touches; each gets the same share of the limit.
const WINDOW_BUCKETS: usize = 5;

/// More buckets than this exist only while a lane is days behind. Further ids go to the newest.
const BUCKETS_MAX: usize = 16;

/// Bits per id in a full segment: it does not rule out one new id in some 700.
const ID_BITS: usize = 16;

const BLOCK_BYTES: usize = 32;

/// The smallest segment, 16 KiB, which is full with 8,192 ids.
const SEGMENT_BLOCKS_MIN: usize = 512;

/// How much larger than all it has the next segment of a bucket is, if nothing else is known.
const GROWTH: usize = 8;

/// Rows of the store read per step: some milliseconds, during which the thread's tasks wait.
const LOAD_ROWS: usize = 2_048;

/// Odd constants that choose a bit in each word of a block. Those of Apache Parquet's split block
/// Bloom filter (`BloomFilter.md` of its format specification).
const SALTS: [u32; 8] = [
    0x47b6_137b,
    0x4497_4d91,
    0x8824_ad5b,
    0xa2b7_289d,
    0x7054_95c7,
    0x2df1_424b,
    0x9efc_4947,
    0x5c6b_fb31,
];

/// The filter of one task.
pub(super) struct IdFilter {
    /// By number.
    buckets: Vec<IdBucket>,
    /// Blocks of all segments.
    blocks: usize,
    blocks_max: usize,
    /// The next key of the store's table to read; `None` once all are read.
    unread: Option<Vec<u8>>,
    /// The first half of the last id read from the store, which is read in the order of ids.
    read_to: u64,
}

struct IdBucket {
    /// The time since which its ids are kept, in spans of [`BUCKET_MS`].
    number: i64,
    /// The latest time since which one of its ids is kept.
    latest: Millis,
    ids: usize,
    /// Oldest first.
    segments: Vec<IdSegment>,
}

struct IdSegment {
    blocks: Vec<IdBlock>,
    ids: usize,
}

#[derive(Clone, Copy)]
#[repr(align(32))]
struct IdBlock([u32; 8]);

impl IdFilter {
    /// The filter of a task whose store has not been read, within this limit.
    pub(super) fn new(limit_bytes: usize) -> Self {
        let blocks_max = (limit_bytes / BLOCK_BYTES).max(BUCKETS_MAX * SEGMENT_BLOCKS_MIN);
        Self { buckets: Vec::new(), blocks: 0, blocks_max, unread: Some(Vec::new()), read_to: 0 }
    }

    /// Whether the state may hold an id. `false`: it does not, or the id has expired.
    pub(super) fn may_contain(&self, id: &[u8; 16]) -> bool {
        if !self.is_complete() {
            return true;
        }
        let hash = hash_of(id);
        let bits = bits(hash);
        self.buckets.iter().flat_map(|bucket| &bucket.segments).any(|part| part.has(hash, &bits))
    }

    /// Whether it has all ids that the store held at the start.
    fn is_complete(&self) -> bool {
        self.unread.is_none()
    }

    /// Adds an id that is kept since this time.
    pub(super) fn insert(&mut self, id: &[u8; 16], since: Millis) {
        let at = self.bucket(since);
        if self.buckets[at].is_full()
            && let Some(blocks) = self.next_segment(at)
        {
            self.blocks += blocks;
            self.buckets[at].segments.push(IdSegment::new(blocks));
        }
        let bucket = &mut self.buckets[at];
        bucket.latest = bucket.latest.max(since);
        bucket.ids += 1;
        let segment = bucket.segments.last_mut().expect("a first segment is never refused");
        segment.insert(hash_of(id));
    }

    /// Drops buckets whose ids have all expired at a settled time that is committed.
    pub(super) fn expire(&mut self, settled: Millis) {
        self.buckets.retain(|bucket| is_kept(bucket.latest, settled));
        self.blocks = self.buckets.iter().map(IdBucket::blocks).sum();
    }

    /// Says that the store holds no ids: without de-duplication it has no table of them.
    pub(super) fn without_stored(&mut self) {
        self.unread = None;
    }

    /// Reads the next ids that the store holds. Returns whether there was something to read.
    pub(super) fn load(
        &mut self,
        store: &mut dyn Store,
        settled: Millis,
    ) -> Result<bool, StoreError> {
        let Some(from) = self.unread.clone() else { return Ok(false) };
        let (mut next, mut rows) = (Vec::new(), 0);
        store.scan(IDS, KeyRange { from: &from, to: None }, &mut |key, value| {
            rows += 1;
            // A value that can't be decoded is reported once its id comes again.
            let since = AcceptedId::decode(value).map_or(settled, |accepted| accepted.since);
            if let Ok(id) = key.try_into()
                && is_kept(since, settled)
            {
                self.read_to = halves(id).0;
                self.insert(id, since);
            }
            if rows < LOAD_ROWS {
                return ControlFlow::Continue(());
            }
            next.extend_from_slice(key);
            next.push(0);
            ControlFlow::Break(())
        })?;
        self.unread = (rows == LOAD_ROWS).then_some(next);
        Ok(true)
    }

    /// The index of the bucket for an id that is kept since this time.
    fn bucket(&mut self, since: Millis) -> usize {
        let number = since.0.div_euclid(BUCKET_MS);
        match self.buckets.binary_search_by_key(&number, |bucket| bucket.number) {
            Ok(at) => at,
            Err(_) if self.buckets.len() == BUCKETS_MAX => BUCKETS_MAX - 1,
            Err(at) => {
                let bucket = IdBucket { number, latest: since, ids: 0, segments: Vec::new() };
                self.buckets.insert(at, bucket);
                at
            }
        }
    }

    /// The blocks of the next segment of a bucket; `None` if there is no room for one.
    fn next_segment(&self, at: usize) -> Option<usize> {
        let bucket = &self.buckets[at];
        let reserved = (BUCKETS_MAX - self.buckets.len()) * SEGMENT_BLOCKS_MIN;
        let free = self.blocks_max.saturating_sub(self.blocks + reserved);
        let share = (self.blocks_max / WINDOW_BUCKETS).saturating_sub(bucket.blocks());
        let more = self.expected_ids(bucket).saturating_sub(bucket.ids);
        let wanted = (more * ID_BITS).div_ceil(BLOCK_BYTES * 8).max(SEGMENT_BLOCKS_MIN);
        let blocks = wanted.min(free).min(share);
        (blocks >= SEGMENT_BLOCKS_MIN).then_some(blocks)
    }

    /// How many ids a bucket will have: as many as the largest one, or a multiple of what it has.
    /// While the store is read, the part of it that was read says how many it holds.
    fn expected_ids(&self, bucket: &IdBucket) -> usize {
        if !self.is_complete() && self.read_to > 0 {
            let share = self.read_to as f64 / u64::MAX as f64;
            return (bucket.ids as f64 * 1.1 / share) as usize;
        }
        let largest = self.buckets.iter().map(|bucket| bucket.ids).max();
        largest.unwrap_or(0).max(bucket.ids * GROWTH)
    }
}

/// Whether an id that is kept since `since` has not expired.
fn is_kept(since: Millis, settled: Millis) -> bool {
    settled.0.saturating_sub(since.0) < WINDOW_MS
}

/// An id is a hash itself, so half of it is as good as another hash. It is the second half: a
/// segment that is filled from the store gets ids of a part of the first halves only.
fn hash_of(id: &[u8; 16]) -> u64 {
    halves(id).1
}

fn halves(id: &[u8; 16]) -> (u64, u64) {
    let id = u128::from_be_bytes(*id);
    ((id >> 64) as u64, id as u64)
}

impl IdBucket {
    fn is_full(&self) -> bool {
        self.segments.last().is_none_or(IdSegment::is_full)
    }

    fn blocks(&self) -> usize {
        self.segments.iter().map(|segment| segment.blocks.len()).sum()
    }
}

impl IdSegment {
    fn new(blocks: usize) -> Self {
        Self { blocks: vec![IdBlock([0; 8]); blocks], ids: 0 }
    }

    fn is_full(&self) -> bool {
        self.ids * ID_BITS >= self.blocks.len() * BLOCK_BYTES * 8
    }

    fn has(&self, hash: u64, bits: &[u32; 8]) -> bool {
        let IdBlock(words) = &self.blocks[self.block(hash)];
        // Without a branch per word, the blocks of several segments are read at the same time.
        words.iter().zip(bits).fold(0, |missing, (word, bit)| missing | (!word & bit)) == 0
    }

    fn insert(&mut self, hash: u64) {
        let at = self.block(hash);
        let IdBlock(words) = &mut self.blocks[at];
        words.iter_mut().zip(bits(hash)).for_each(|(word, bit)| *word |= bit);
        self.ids += 1;
    }

    /// The block that the upper half of a hash chooses.
    fn block(&self, hash: u64) -> usize {
        (((hash >> 32) * self.blocks.len() as u64) >> 32) as usize
    }
}

/// The bits that the lower half of a hash chooses, one for each word of a block.
fn bits(hash: u64) -> [u32; 8] {
    SALTS.map(|salt| 1 << ((hash as u32).wrapping_mul(salt) >> 27))
}

#[cfg(test)]
mod tests;
