//! Which task to replay, and the build and settings that replay it.

use crate::derive::Operators;
use crate::record::{Partition, TopicPartition};
use crate::topology::Topology;

/// Whose history it is, and what executes it again.
#[derive(Clone)]
pub struct TaskSpec {
    /// The topics.
    pub topology: Topology,
    /// The task.
    pub partition: Partition,
    /// This build's name.
    pub build: String,
    /// What the settings in force hash to.
    pub settings_hash: u64,
    /// The operators.
    pub operators: Operators,
}

impl TaskSpec {
    /// The task's `order`.
    pub fn order(&self) -> TopicPartition {
        TopicPartition::new(self.topology.order(), self.partition)
    }
}
