//! The task to replay, and the build and settings that replay it.

use tidewire_schemas::catalogue::Catalogue;

use crate::derive::Operators;
use crate::record::{Partition, TopicPartition};
use crate::topology::Topology;

/// A task to replay, and what executes it.
#[derive(Clone)]
pub struct TaskSpec {
    /// The topics.
    pub topology: Topology,
    /// The catalogue in force.
    pub catalogue: &'static Catalogue,
    /// The task.
    pub partition: Partition,
    /// This build's name.
    pub build: String,
    /// The hash of the settings.
    pub settings_hash: u64,
    /// The operators.
    pub operators: Operators,
}

impl TaskSpec {
    /// The task's partition of `order`.
    pub fn order(&self) -> TopicPartition {
        TopicPartition::new(self.topology.order(), self.partition)
    }
}
