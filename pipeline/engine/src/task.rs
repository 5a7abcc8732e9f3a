//! The life of a task, the one owner of a partition's state.
//!
//! ```text
//!            changelogs replayed            partitions revoked
//! Restoring ────────────────────▶ Running ────────────────────▶ Draining ──▶ Closed
//!     ▲  │                           │                              ▲   all written
//!     │  └───────────────────────────┼──────────────────────────────┘
//!     └──────────────────────────────┘  partitions revoked before it ever ran
//!        outcome of a commit unknown
//! ```
//!
//! Only a running task takes records; a draining one only waits for its store to be written; a
//! closed one is gone. A step that is not drawn here is a bug and stops the thread, before it can
//! write anything.

/// Where a task is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskStage {
    /// Replays its changelogs' tails.
    Restoring,
    /// Takes records.
    Running,
    /// Writes what is committed to its store.
    Draining,
    /// Has let go of its store.
    Closed,
}

/// Every step there is.
const TRANSITIONS: [(TaskStage, TaskStage); 5] = [
    (TaskStage::Restoring, TaskStage::Running),
    (TaskStage::Restoring, TaskStage::Draining),
    (TaskStage::Running, TaskStage::Restoring),
    (TaskStage::Running, TaskStage::Draining),
    (TaskStage::Draining, TaskStage::Closed),
];

/// A task's stage, changed along the table only.
#[derive(Debug)]
pub struct Lifecycle(TaskStage);

impl Default for Lifecycle {
    fn default() -> Self {
        Self(TaskStage::Restoring)
    }
}

impl Lifecycle {
    /// The stage it is in.
    pub fn stage(&self) -> TaskStage {
        self.0
    }

    /// Takes a step of the table.
    pub fn transition(&mut self, to: TaskStage) {
        let from = self.0;
        assert!(TRANSITIONS.contains(&(from, to)), "a task never goes from {from:?} to {to:?}");
        self.0 = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_goes_its_way_and_back_to_restoring() {
        let mut lifecycle = Lifecycle::default();
        for stage in [
            TaskStage::Running,
            TaskStage::Restoring,
            TaskStage::Running,
            TaskStage::Draining,
            TaskStage::Closed,
        ] {
            lifecycle.transition(stage);
            assert_eq!(lifecycle.stage(), stage);
        }
    }

    #[test]
    #[should_panic(expected = "never goes from Closed to Running")]
    fn a_closed_task_stays_closed() {
        let mut lifecycle = Lifecycle(TaskStage::Closed);
        lifecycle.transition(TaskStage::Running);
    }
}
