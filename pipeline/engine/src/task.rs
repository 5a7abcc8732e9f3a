//! The life cycle of a task, the owner of one partition's state, as a table of allowed transitions.
//!
//! ```text
//!            changelogs replayed            partitions revoked
//! Restoring ────────────────────▶ Running ────────────────────▶ Draining ──▶ Closed
//!     ▲  │                           │                              ▲   all written
//!     │  └───────────────────────────┼──────────────────────────────┘
//!     └──────────────────────────────┘  partitions revoked before it ran
//!        outcome of a commit unknown
//! ```
//!
//! Only a running task processes records, and a draining one only waits for its store to be
//! written. Any other transition is a bug and panics, so that the thread stops before the task can
//! write.

/// The stage of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskStage {
    /// It replays the tails of its changelogs.
    Restoring,
    /// It processes records.
    Running,
    /// It waits until what is committed is written to its store.
    Draining,
    /// Its store is closed.
    Closed,
}

/// Every allowed transition.
const TRANSITIONS: [(TaskStage, TaskStage); 5] = [
    (TaskStage::Restoring, TaskStage::Running),
    (TaskStage::Restoring, TaskStage::Draining),
    (TaskStage::Running, TaskStage::Restoring),
    (TaskStage::Running, TaskStage::Draining),
    (TaskStage::Draining, TaskStage::Closed),
];

/// A task's stage; [`Lifecycle::transition`] is the only way to change it.
#[derive(Debug)]
pub struct Lifecycle(TaskStage);

impl Default for Lifecycle {
    fn default() -> Self {
        Self(TaskStage::Restoring)
    }
}

impl Lifecycle {
    /// The current stage.
    pub fn stage(&self) -> TaskStage {
        self.0
    }

    /// Changes the stage; panics if the table does not allow it.
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
    fn a_task_may_restore_again_after_it_ran() {
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
