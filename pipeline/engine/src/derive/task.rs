//! One partition's task inside a DERIVE loop: its assignment, its phase and the data of that phase.
//!
//! [`Lifecycle`] checks every change of phase: a transition that it does not list panics before the
//! task can write anything.

use crate::derive::restore::RestoringTask;
use crate::derive::running::RunningTask;
use crate::record::Millis;
use crate::task::{Lifecycle, TaskStage};
use crate::task_state::TaskState;
use crate::topology::Lane;

/// The phase of a task with its data; [`Lifecycle`] says which transitions are allowed.
pub(super) enum TaskPhase {
    Restoring(Box<RestoringTask>),
    Running(Box<RunningTask>),
    Draining(Box<TaskState>),
    Closed,
}

impl TaskPhase {
    fn stage(&self) -> TaskStage {
        match self {
            Self::Restoring(_) => TaskStage::Restoring,
            Self::Running(_) => TaskStage::Running,
            Self::Draining(_) => TaskStage::Draining,
            Self::Closed => TaskStage::Closed,
        }
    }
}

/// A partition's assignment so far; the lanes may arrive one by one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Assigned {
    /// Which of its lanes are assigned, by [`Lane::index`]; a task needs all.
    lanes: [bool; Lane::COUNT],
    /// When the last of them was assigned.
    at: Millis,
}

impl Assigned {
    /// Notes a lane assigned at `at`.
    pub(super) fn add(&mut self, lane: Lane, at: Millis) {
        self.lanes[lane.index()] = true;
        self.at = at;
    }

    /// When the last lane was assigned.
    pub(super) fn at(&self) -> Millis {
        self.at
    }

    /// Whether every lane is assigned.
    pub(super) fn is_whole(&self) -> bool {
        self.lanes == [true; Lane::COUNT]
    }
}

/// One partition's task.
pub(super) struct Task {
    lifecycle: Lifecycle,
    pub(super) phase: TaskPhase,
    /// When its state was last handed over.
    pub(super) handed: Millis,
}

impl Task {
    pub(super) fn new(restoring: RestoringTask) -> Self {
        Self {
            lifecycle: Lifecycle::default(),
            phase: TaskPhase::Restoring(Box::new(restoring)),
            handed: Millis(0),
        }
    }

    /// Takes the phase out; the caller sets the next one by [`Task::enter`].
    pub(super) fn leave(&mut self) -> TaskPhase {
        std::mem::replace(&mut self.phase, TaskPhase::Closed)
    }

    pub(super) fn enter(&mut self, phase: TaskPhase) {
        self.lifecycle.transition(phase.stage());
        self.phase = phase;
    }

    pub(super) fn running(&mut self) -> Option<&mut RunningTask> {
        match &mut self.phase {
            TaskPhase::Running(running) => Some(running),
            _ => None,
        }
    }
}
