//! The next offsets of a reader in one partition, one per output topic, and their position tokens.
//!
//! Records are ordered within a topic only, so two sets of offsets are only partly ordered. `join`
//! keeps the later offset of each topic, `meet` the earlier one. The state topic is not served
//! yet: its offset is carried along, never compared.

use tidewire_schemas::position::{PartitionPosition, Position};

use crate::record::Partition;

/// Topics served so far, by index from 0: urgent, stream.
pub(super) const SERVED_TOPICS: usize = 2;

/// The next offsets to read: urgent, stream, state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PartitionOffsets(pub(super) [u64; 3]);

impl PartitionOffsets {
    /// Whether these are at or after `other` in every served topic: what holds all records from
    /// `other` on has everything that a reader at these offsets still needs.
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

    /// The same offsets with another one in `topic`.
    pub(super) fn with(mut self, topic: usize, next: u64) -> Self {
        self.0[topic] = next;
        self
    }

    /// Records between these offsets and later ones, over the served topics.
    pub(super) fn depth(&self, to: &Self) -> u64 {
        (0..SERVED_TOPICS).map(|t| to.0[t].saturating_sub(self.0[t])).sum()
    }
}

/// The position token of offsets in one partition.
pub(super) fn token(epoch: u32, partition: Partition, offsets: &PartitionOffsets) -> String {
    let partitions = vec![PartitionPosition { partition: partition.0, next: offsets.0 }];
    Position { epoch, partitions }.encode()
}

/// The position token of offsets in several partitions, ascending.
pub(super) fn token_of(epoch: u32, all: &[(Partition, PartitionOffsets)]) -> String {
    let partitions = all
        .iter()
        .map(|(partition, offsets)| PartitionPosition { partition: partition.0, next: offsets.0 });
    Position { epoch, partitions: partitions.collect() }.encode()
}
