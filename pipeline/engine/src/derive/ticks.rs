//! When to tick: one request for the ends of the critical lanes serves all tasks that are due.
//!
//! A tick carries a time into a task, so every critical record that waited at that time must be
//! processed first. The answer to a request gives ends that are no older than the request, so a
//! task whose critical lane is processed up to there can tick with the *time of the request*. The
//! loop never waits for an answer, and has at most one request in [`TICK_MS`].
//!
//! A task that is not there yet when the answer comes is asked about again with the next request.

use std::collections::BTreeMap;

use crate::port::{EndsRequest, Log, LogError};
use crate::record::{Millis, Offset, Partition, TopicPartition};
use crate::turn::repeat;

/// Milliseconds between two ticks of a task at least.
pub const TICK_MS: i64 = 100;

/// Requests without an answer in a row after which the loop is rebuilt.
const MAX_FAILURES: u32 = 3;

/// The request for the critical lanes' ends of a loop's tasks.
#[derive(Default)]
pub(super) struct Ticks {
    /// When the last request was made.
    requested: Millis,
    pending: Option<PendingTicks>,
    /// Failed requests in a row.
    failures: u32,
}

struct PendingTicks {
    /// When the request was made.
    at: Millis,
    partitions: Vec<Partition>,
    request: Box<dyn EndsRequest>,
}

/// The answer to a request.
pub(super) struct TicksDue {
    /// When the request was made: the time to tick with.
    pub(super) at: Millis,
    /// The end of each requested critical lane.
    pub(super) ends: BTreeMap<Partition, Offset>,
}

impl Ticks {
    /// When a task whose first timer is due at `first` can be asked about, milliseconds since the
    /// epoch.
    pub(super) fn wanted_at(&self, first: Millis) -> i64 {
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

    /// Requests the ends of these critical lanes.
    pub(super) fn request(
        &mut self,
        log: &dyn Log,
        critical: &[TopicPartition],
        now: Millis,
    ) -> Result<(), LogError> {
        self.requested = now;
        let request = repeat(|| log.request_ends(critical))?;
        let partitions = critical.iter().map(|at| at.partition).collect();
        self.pending = Some(PendingTicks { at: now, partitions, request });
        Ok(())
    }

    /// The answer, once. A request that failed is made again, a few times.
    pub(super) fn poll(&mut self) -> Result<Option<TicksDue>, LogError> {
        let Some(mut pending) = self.pending.take() else { return Ok(None) };
        match pending.request.poll() {
            Ok(Some(ends)) => {
                self.failures = 0;
                let ends = pending.partitions.into_iter().zip(ends).collect();
                Ok(Some(TicksDue { at: pending.at, ends }))
            }
            Ok(None) => {
                self.pending = Some(pending);
                Ok(None)
            }
            Err(LogError::Retry(_)) if self.failures + 1 < MAX_FAILURES => {
                self.failures += 1;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
