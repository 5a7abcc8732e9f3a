//! The journal: everything irrevocable that happened, in order, for the model to check.

use tidewire_engine::port::{Committed, StoreBatch};
use tidewire_engine::record::{Millis, Offset, TopicPartition};

/// Something that can't be undone.
#[derive(Debug)]
pub(crate) enum Fact {
    /// A record outside transactions.
    Appended(TopicPartition, Offset),
    /// The transaction of this number was committed.
    Committed(usize),
    /// Committed offsets of a group, outside transactions.
    OffsetCommitted(String, TopicPartition, Committed),
    /// Ends were requested at this time of the machines' clocks; those of the log then, open
    /// transactions included.
    EndsRequested(Millis, Vec<(TopicPartition, Offset)>),
    /// A batch was written to a store.
    Written(DiskId, StoreBatch),
    /// A store was removed.
    Destroyed(DiskId),
}

/// A machine, and a task's store on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DiskId {
    pub(crate) machine: usize,
    pub(crate) partition: u32,
}
