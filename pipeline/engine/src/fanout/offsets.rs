//! The next offsets of a reader in one partition, one per output topic, and their position tokens.
//!
//! Records are ordered within a topic only, so two sets of offsets are only partly ordered. `join`
//! keeps the later offset of each topic, `meet` the earlier one.
//!
//! The state topic is in no comparison and in no token. A subscription to state begins with a
//! snapshot, so it is never read again from the log, and no stream waits for it.

use tidewire_schemas::position::{PartitionPosition, Position};

use crate::record::Partition;

/// The output topics, by index from 0: urgent, stream, state.
pub(super) const TOPICS: usize = 3;

/// The topics whose records are read again from the log, by index from 0: urgent, stream.
pub(super) const LOG_TOPICS: usize = 2;

/// The index of the state topic.
pub(super) const STATE_TOPIC: usize = 2;

/// The next offsets to read: urgent, stream, state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PartitionOffsets(pub(super) [u64; TOPICS]);

impl PartitionOffsets {
    /// Whether these are at or after `other` in every log topic: what holds all records from
    /// `other` on has everything that a reader at these offsets still needs.
    pub(super) fn reaches(&self, other: &Self) -> bool {
        (0..LOG_TOPICS).all(|t| self.0[t] >= other.0[t])
    }

    /// Whether these and `other` are one position: equal in every log topic.
    pub(super) fn is_same_position(&self, other: &Self) -> bool {
        self.0[..LOG_TOPICS] == other.0[..LOG_TOPICS]
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

    /// The same offsets with another one in `topic`.
    pub(super) fn with(mut self, topic: usize, next: u64) -> Self {
        self.0[topic] = next;
        self
    }

    /// Records between these offsets and later ones, over the log topics.
    pub(super) fn depth(&self, to: &Self) -> u64 {
        (0..LOG_TOPICS).map(|t| to.0[t].saturating_sub(self.0[t])).sum()
    }
}

/// The position token of offsets in one partition.
pub(super) fn token(epoch: u32, partition: Partition, offsets: &PartitionOffsets) -> String {
    Position { epoch, partitions: vec![position(partition, offsets)] }.encode()
}

/// The position token of offsets in several partitions, ascending.
pub(super) fn token_of(epoch: u32, all: &[(Partition, PartitionOffsets)]) -> String {
    let partitions = all.iter().map(|(partition, offsets)| position(*partition, offsets));
    Position { epoch, partitions: partitions.collect() }.encode()
}

/// An entry of a token. It does not name the state topic.
fn position(partition: Partition, offsets: &PartitionOffsets) -> PartitionPosition {
    PartitionPosition { partition: partition.0, next: offsets.with(STATE_TOPIC, 0).0 }
}
