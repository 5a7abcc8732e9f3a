//! Where a reader stands in one partition: the next offset of each output topic, and how two such
//! places compare. Order is per topic, so places are only partly ordered; joining takes the later
//! offset of each topic.

use tidewire_schemas::position::{PartitionPosition, Position};

/// Topics served so far, by index from 0: urgent, stream. The state topic's slot is carried along
/// unread.
pub(super) const SERVED_TOPICS: usize = 2;

/// The next offsets to read: urgent, stream, state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PartitionOffsets(pub(super) [u64; 3]);

impl PartitionOffsets {
    /// Whether this place is at or behind `other` in every served topic: whoever holds all records
    /// from `other` on holds all this reader still needs.
    pub(super) fn reaches(&self, other: &Self) -> bool {
        (0..SERVED_TOPICS).all(|t| self.0[t] >= other.0[t])
    }

    /// The later offset of each topic.
    pub(super) fn join(&mut self, other: &Self) {
        for (mine, other) in self.0.iter_mut().zip(other.0) {
            *mine = (*mine).max(other);
        }
    }

    /// The earlier offset of each topic.
    pub(super) fn meet(&mut self, other: &Self) {
        for (mine, other) in self.0.iter_mut().zip(other.0) {
            *mine = (*mine).min(other);
        }
    }

    /// The same place with another next offset in one topic.
    pub(super) fn with(mut self, topic: usize, next: u64) -> Self {
        self.0[topic] = next;
        self
    }

    /// Records between this place and a later one, over the served topics.
    pub(super) fn depth(&self, to: &Self) -> u64 {
        (0..SERVED_TOPICS).map(|t| to.0[t].saturating_sub(self.0[t])).sum()
    }
}

/// The token of a place in one partition.
pub(super) fn token(epoch: u32, partition: u32, offsets: &PartitionOffsets) -> String {
    Position { epoch, partitions: vec![PartitionPosition { partition, next: offsets.0 }] }.encode()
}

/// The token of places in several partitions, ascending.
pub(super) fn token_of(epoch: u32, cuts: &[(u32, PartitionOffsets)]) -> String {
    let cuts =
        cuts.iter().map(|(partition, p)| PartitionPosition { partition: *partition, next: p.0 });
    Position { epoch, partitions: cuts.collect() }.encode()
}
