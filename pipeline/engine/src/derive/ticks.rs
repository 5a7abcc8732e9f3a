//! When to tick: one request for the ends of the lanes serves all tasks that are due.
//!
//! A tick carries a time into a task, so every record that waited at that time must be processed
//! first. The answer to a request gives ends that are no older than the request, so a lane that is
//! processed up to there can move to the *time of the request*. The loop never waits for an answer,
//! and has at most one request in [`TICK_MS`].
//!
//! These are the ends with open transactions included. A transaction of another task may hold facts
//! of earlier times, and a task reads nothing behind its start until it has ended. With the
//! committed end the lane would count as consumed, and these facts would come late. The same rule
//! holds for ADMIT's lanes: they have no transactions, so their two ends are the same.
//!
//! A tick fires a limited number of timers. The rest needs no answer: its time has come already, so
//! another tick that moves no lane follows in the next transaction.
//!
//! A task of which no timer is due then, or a lane whose end is not in the answer, is asked about
//! again with the next request. Without an answer no task ticks, and nothing else changes.

use std::collections::BTreeMap;

use crate::derive::commit_group::{COMMIT_GROUPS, CommitGroup};
use crate::port::{EndsRequest, Isolation, Log, LogError};
use crate::record::{Millis, Offset, Partition, TopicPartition};
use crate::telemetry;
use crate::topology::Lane;

/// Milliseconds between two ticks of a task at least.
pub const TICK_MS: i64 = 100;

/// Milliseconds without a complete answer after which that is logged.
const WARN_AFTER_MS: i64 = 5_000;

/// The request for the ends of the lanes of a loop's tasks.
#[derive(Default)]
pub(super) struct Ticks {
    /// When the last request was made.
    requested: Millis,
    pending: Option<PendingTicks>,
    /// The answer that came in this turn, for each commit group.
    answer: [Option<TicksDue>; COMMIT_GROUPS],
    incomplete: Option<Incomplete>,
}

struct PendingTicks {
    /// When the request was made.
    at: Millis,
    partitions: Vec<Partition>,
    request: Box<dyn EndsRequest>,
}

/// Answers in a row that were incomplete or missing.
struct Incomplete {
    /// When the first of these requests was made.
    since: Millis,
    logged: bool,
}

/// The answer to a request, for one commit group.
pub(super) struct TicksDue {
    /// When the request was made: the time to tick with.
    pub(super) at: Millis,
    /// The ends of the lanes of each task, as far as they are known, open transactions included.
    pub(super) ends: BTreeMap<Partition, LaneEnds>,
}

/// The ends of a task's lanes, by [`Lane::index`].
pub(super) type LaneEnds = [Option<Offset>; Lane::COUNT];

impl TicksDue {
    /// The time to tick a task with, and the ends of its lanes; `None` if it was not asked about.
    pub(super) fn of(&self, partition: Partition) -> Option<(Millis, &LaneEnds)> {
        Some((self.at, self.ends.get(&partition)?))
    }
}

impl Ticks {
    /// When a task that needs a tick at `first` can be asked about, milliseconds since the
    /// epoch; while an answer is to come, nobody knows.
    pub(super) fn wanted_at(&self, first: Millis) -> i64 {
        if self.is_pending() {
            return i64::MAX;
        }
        first.0.max(self.requested.0.saturating_add(TICK_MS))
    }

    /// Whether an answer is to come.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether a request may be made now.
    pub(super) fn may_request(&mut self, now: Millis) -> bool {
        // If the clock was set back, the next request must not wait until it has caught up.
        self.requested = self.requested.min(now);
        self.pending.is_none() && now.0.saturating_sub(self.requested.0) >= TICK_MS
    }

    /// Requests the ends of the lanes of tasks: all lanes of the first, of the second and so on.
    pub(super) fn request(
        &mut self,
        log: &dyn Log,
        lanes: &[TopicPartition],
        now: Millis,
    ) -> Result<(), LogError> {
        self.requested = now;
        match log.request_ends(lanes, Isolation::Uncommitted) {
            Ok(request) => {
                let tasks = lanes.chunks(Lane::ALL.len());
                let partitions = tasks.map(|lanes| lanes[0].partition).collect();
                self.pending = Some(PendingTicks { at: now, partitions, request });
                Ok(())
            }
            Err(error) => self.failed(now, lanes.len(), error),
        }
    }

    /// Takes the answer, if it is there.
    pub(super) fn poll(&mut self) -> Result<(), LogError> {
        self.answer = Default::default();
        let Some(mut pending) = self.pending.take() else { return Ok(()) };
        match pending.request.poll() {
            Ok(Some(ends)) => self.answered(&pending, ends),
            Ok(None) => self.pending = Some(pending),
            Err(error) => {
                return self.failed(pending.at, pending.partitions.len() * Lane::ALL.len(), error);
            }
        }
        Ok(())
    }

    /// A commit group's part of the answer, once.
    pub(super) fn take(&mut self, group: usize) -> Option<TicksDue> {
        self.answer[group].take()
    }

    fn answered(&mut self, pending: &PendingTicks, ends: Vec<Option<Offset>>) {
        let mut missing = 0;
        for (partition, ends) in pending.partitions.iter().zip(ends.chunks(Lane::ALL.len())) {
            let mut lanes = LaneEnds::default();
            lanes.iter_mut().zip(ends).for_each(|(lane, end)| *lane = *end);
            missing += lanes.iter().filter(|end| end.is_none()).count();
            let due = &mut self.answer[CommitGroup::of(*partition)];
            let due = due.get_or_insert_with(|| TicksDue { at: pending.at, ends: BTreeMap::new() });
            due.ends.insert(*partition, lanes);
        }
        if missing == 0 {
            self.incomplete = None;
        } else {
            self.note_missing(pending.at, missing, None);
        }
    }

    /// A failure that may pass leaves all of these lanes unknown.
    fn failed(&mut self, at: Millis, missing: usize, error: LogError) -> Result<(), LogError> {
        match error {
            LogError::Retry(_) => {
                self.note_missing(at, missing, Some(&error));
                Ok(())
            }
            error => Err(error),
        }
    }

    /// Logs once that ends have been missing for some time.
    fn note_missing(&mut self, at: Millis, missing: usize, why: Option<&LogError>) {
        let now = Incomplete { since: at, logged: false };
        let incomplete = self.incomplete.get_or_insert(now);
        incomplete.since = incomplete.since.min(at);
        if !incomplete.logged && at.0.saturating_sub(incomplete.since.0) >= WARN_AFTER_MS {
            incomplete.logged = true;
            telemetry::ticks_wait(missing, why);
        }
    }
}
