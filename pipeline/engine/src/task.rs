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
pub enum Stage {
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
const STEPS: [(Stage, Stage); 5] = [
    (Stage::Restoring, Stage::Running),
    (Stage::Restoring, Stage::Draining),
    (Stage::Running, Stage::Restoring),
    (Stage::Running, Stage::Draining),
    (Stage::Draining, Stage::Closed),
];

/// A task's stage, changed along the table only.
#[derive(Debug)]
pub struct Life(Stage);

impl Default for Life {
    fn default() -> Self {
        Self(Stage::Restoring)
    }
}

impl Life {
    /// The stage it is in.
    pub fn stage(&self) -> Stage {
        self.0
    }

    /// Takes a step of the table.
    pub fn go(&mut self, to: Stage) {
        let from = self.0;
        assert!(STEPS.contains(&(from, to)), "a task never goes from {from:?} to {to:?}");
        self.0 = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_goes_its_way_and_back_to_restoring() {
        let mut life = Life::default();
        for stage in
            [Stage::Running, Stage::Restoring, Stage::Running, Stage::Draining, Stage::Closed]
        {
            life.go(stage);
            assert_eq!(life.stage(), stage);
        }
    }

    #[test]
    #[should_panic(expected = "never goes from Closed to Running")]
    fn a_closed_task_stays_closed() {
        let mut life = Life(Stage::Closed);
        life.go(Stage::Running);
    }
}
