//! Moves the progress of quiet tasks past the control records behind it.
//!
//! A commit returns the offset after a task's last record. On Kafka a control record follows, so
//! the progress of a store never reaches the end of its changelogs by itself. Once a task has been
//! quiet for [`QUIET_MS`], the ends are fetched and become its progress. Its store then counts as
//! complete after any time, even if retention has emptied `order` meanwhile.
//!
//! This needs a proof that no other process has written up to those ends: the task commits its
//! offsets once more, after it has fetched them. The group accepts that only from the owner.

use crate::derive::derive_loop::Derive;
use crate::derive::running::RunningTask;
use crate::derive::task::Task;
use crate::port::{Committed, Isolation, LogError};
use crate::record::{Millis, Offset, Partition, TopicPartition};
use crate::topology::Lane;

/// Milliseconds without a commit after which a task is quiet: long enough that a busy task makes
/// no further calls, and short beside the retention of `order`.
pub const QUIET_MS: i64 = 60_000;

/// The ends of a task's changelogs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ChangelogEnds {
    state: Offset,
    windows: Offset,
    order: Offset,
}

impl Derive {
    /// Handles at most one task per turn, since it asks the log four questions. They wait for the
    /// log, so after one that failed none is asked for [`QUIET_MS`], for any task.
    pub(super) fn pass_control_records(&mut self) {
        let now = self.shared.now();
        // If the clock was set back, the next question must not wait until it has caught up.
        self.quiet_failed_at = self.quiet_failed_at.map(|at| at.min(now));
        if self.quiet_failed_at.is_some_and(|at| now.0 - at.0 < QUIET_MS) {
            return;
        }
        let running = self.tasks.values_mut().filter_map(Task::running);
        let quiet = running.filter_map(|running| running.is_quiet(now).then_some(running));
        // The one that waits longest, so that a task whose calls fail does not hold up the others.
        let Some(running) = quiet.min_by_key(|running| running.committed_at) else { return };
        let partition = running.partition;
        running.committed_at = Some(now);
        let passed = self.pass_control_records_of(partition);
        self.quiet_failed_at = passed.is_err().then(|| self.shared.now());
    }

    fn pass_control_records_of(&mut self, partition: Partition) -> Result<(), LogError> {
        let ends = self.changelog_ends(partition)?;
        let Some(running) = self.tasks.get_mut(&partition).and_then(Task::running) else {
            return Ok(());
        };
        if !ends.cover(running) {
            return Ok(());
        }
        if ends.are_of(running) {
            running.committed_at = None;
            return Ok(());
        }
        let offsets = consumed(running, &self.shared.owner);
        self.member.commit(&offsets)?;
        running.pass_control_records(ends);
        Ok(())
    }

    fn changelog_ends(&self, partition: Partition) -> Result<ChangelogEnds, LogError> {
        let topology = &self.shared.config.topology;
        let end = |topic| {
            let at = TopicPartition::new(topic, partition);
            Ok(self.shared.ports.log.bounds(&at, Isolation::Committed)?.end)
        };
        Ok(ChangelogEnds {
            state: end(topology.state())?,
            windows: end(topology.windows())?,
            order: end(topology.order())?,
        })
    }
}

/// The positions of a task's lanes, under its owner's name.
fn consumed(running: &RunningTask, owner: &str) -> Vec<(TopicPartition, Committed)> {
    let consumed = Lane::ALL.into_iter().filter_map(|lane| {
        let offset = running.progress.lanes[lane.index()]?;
        Some((running.lane(lane).clone(), Committed { offset, metadata: owner.to_owned() }))
    });
    consumed.collect()
}

impl ChangelogEnds {
    /// Whether all that a task has written is visible.
    fn cover(self, running: &RunningTask) -> bool {
        let at = &running.progress;
        self.state >= at.state && self.windows >= at.windows && self.order >= at.order
    }

    /// Whether a task's progress is there already.
    fn are_of(self, running: &RunningTask) -> bool {
        let at = &running.progress;
        self == Self { state: at.state, windows: at.windows, order: at.order }
    }
}

impl RunningTask {
    fn is_quiet(&mut self, now: Millis) -> bool {
        // If the clock was set back, the task must not wait until it has caught up.
        self.committed_at = self.committed_at.map(|at| at.min(now));
        self.committed_at.is_some_and(|at| now.0 - at.0 >= QUIET_MS)
    }

    fn pass_control_records(&mut self, ends: ChangelogEnds) {
        self.progress.state = ends.state;
        self.progress.windows = ends.windows;
        self.progress.order = ends.order;
        self.progress_moved = true;
        self.committed_at = None;
    }
}
