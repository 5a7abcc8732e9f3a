//! The newest records of a partition in memory, so that readers that keep up never read RocksDB.
//!
//! There is one chunk per append. Its bodies are shared with the readers, not copied. A tail is
//! contiguous and ends at the end of its partition. The oldest chunk of all partitions is evicted
//! first, within one byte limit for the process (see `writer`).

use std::collections::VecDeque;
use std::sync::Arc;

use tidewire_engine::record::{Body, Millis, Offset, Record};

/// Records appended together: one append time, offsets from `first` on.
pub(super) struct Chunk {
    /// Offset of the first.
    pub(super) first: u64,
    /// When the log appended them.
    pub(super) time: Millis,
    /// The bodies: the buffers that the producer filled.
    pub(super) bodies: Vec<Body>,
    /// Bytes in memory.
    pub(super) bytes: usize,
}

impl Chunk {
    /// A chunk of these bodies.
    pub(super) fn new(first: u64, time: Millis, bodies: Vec<Body>) -> Self {
        let bytes = size_of::<Self>()
            + bodies.iter().map(|b| b.as_bytes().len() + size_of::<Body>()).sum::<usize>();
        Self { first, time, bodies, bytes }
    }

    /// One past the last offset.
    pub(super) fn end(&self) -> u64 {
        self.first + self.bodies.len() as u64
    }

    /// The records from this offset on.
    pub(super) fn records(&self, from: u64) -> impl Iterator<Item = Record> {
        let skip = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.bodies.iter().enumerate().skip(skip).map(|(at, body)| Record {
            offset: Offset(self.first + at as u64),
            timestamp: self.time,
            body: body.clone(),
        })
    }
}

/// The chunks of one partition, oldest first.
#[derive(Default)]
pub(super) struct LogTail(VecDeque<Arc<Chunk>>);

/// Chunks a reader gets while it holds the lock once.
const CHUNKS_AT_ONCE: usize = 64;

impl LogTail {
    /// Adds the newest chunk.
    pub(super) fn push(&mut self, chunk: Arc<Chunk>) {
        if let Some(last) = self.0.back() {
            assert_eq!(last.end(), chunk.first, "a tail is contiguous");
        }
        self.0.push_back(chunk);
    }

    /// Evicts the oldest chunk; returns its bytes.
    pub(super) fn evict(&mut self) -> usize {
        self.0.pop_front().map_or(0, |chunk| chunk.bytes)
    }

    /// Chunks from this offset on; none if the tail does not contain it.
    pub(super) fn from(&self, offset: u64, out: &mut Vec<Arc<Chunk>>) {
        let at = self.0.partition_point(|chunk| chunk.end() <= offset);
        if self.0.get(at).is_some_and(|chunk| chunk.first <= offset) {
            out.extend(self.0.range(at..).take(CHUNKS_AT_ONCE).cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(first: u64, count: usize) -> Arc<Chunk> {
        let body = |n| Body::new(None, Some(format!("{n}").as_bytes()), &[]);
        Arc::new(Chunk::new(first, Millis(1), (0..count).map(body).collect()))
    }

    fn check(from: u64, expected: &[u64]) {
        let mut tail = LogTail::default();
        tail.push(chunk(10, 2));
        tail.push(chunk(12, 3));
        let mut chunks = Vec::new();
        tail.from(from, &mut chunks);
        let offsets: Vec<u64> =
            chunks.iter().flat_map(|c| c.records(from)).map(|r| r.offset.0).collect();
        assert_eq!(offsets, expected);
    }

    #[test]
    fn a_tail_returns_the_records_from_an_offset_it_contains() {
        check(10, &[10, 11, 12, 13, 14]);
        check(11, &[11, 12, 13, 14]);
        check(14, &[14]);
    }

    #[test]
    fn a_tail_returns_nothing_for_an_offset_it_does_not_contain() {
        check(9, &[]);
        check(15, &[]);
    }
}
