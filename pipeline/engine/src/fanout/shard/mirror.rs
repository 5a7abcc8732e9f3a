//! A shard's copy of one partition's ring, and references to entries in it.
//!
//! The segments are shared with the hub. A mirror lets go of a segment only when its shard has
//! moved every follower that still needed it behind, so a listed reference always resolves.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::fanout::offsets::PartitionOffsets;
use crate::fanout::segment::{Segment, SegmentEntry};

/// An entry of a ring: segment number and index in the segment. Orders as the hub does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::fanout) struct EntryRef(u64);

impl EntryRef {
    const INDEX_BITS: u32 = 24;

    pub(in crate::fanout) fn new(seq: u64, index: usize) -> Self {
        Self(seq << Self::INDEX_BITS | index as u64)
    }

    pub(in crate::fanout) fn seq(self) -> u64 {
        self.0 >> Self::INDEX_BITS
    }

    pub(in crate::fanout) fn index(self) -> usize {
        (self.0 & ((1 << Self::INDEX_BITS) - 1)) as usize
    }
}

/// A shard's copy of one partition's ring.
#[derive(Default)]
pub(super) struct RingMirror {
    pub(super) segments: VecDeque<Arc<Segment>>,
    pub(super) front_seq: u64,
    pub(super) next_seq: u64,
    /// How often the hub had reset the ring.
    pub(super) resets: u64,
    /// The hub reader's offsets after the newest segment.
    pub(super) head: PartitionOffsets,
}

impl RingMirror {
    pub(super) fn segment(&self, seq: u64) -> Option<&Arc<Segment>> {
        self.segments.get(seq.checked_sub(self.front_seq)? as usize)
    }

    /// The offsets from which on it has everything.
    pub(super) fn floor(&self) -> PartitionOffsets {
        self.segments.front().map_or(self.head, |segment| segment.before)
    }

    pub(super) fn entry(&self, reference: EntryRef) -> Option<&SegmentEntry> {
        self.segment(reference.seq())?.entries.get(reference.index())
    }
}
