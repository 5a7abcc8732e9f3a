//! What has become a fact, in the order it did, for whoever checks histories step by step.

use tidewire_engine::port::{Committed, StoreBatch};
use tidewire_engine::record::{Offset, TopicPartition};

/// Something that can't be taken back.
#[derive(Debug)]
pub(crate) enum Fact {
    /// A record outside transactions.
    Appended(TopicPartition, Offset),
    /// The transaction of this number was committed.
    Committed(usize),
    /// A group's progress outside transactions.
    OffsetCommitted(String, TopicPartition, Committed),
    /// A member reads a partition from here on, which ends there.
    ReadFrom(TopicPartition, Offset, u64),
    /// A batch was written to a store.
    Written(DiskId, StoreBatch),
    /// A store was removed.
    Destroyed(DiskId),
}

/// Whose disk, and which task's store on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DiskId {
    pub(crate) machine: usize,
    pub(crate) partition: u32,
}
