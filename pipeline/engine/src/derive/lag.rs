//! The lag of the lanes, sampled for metrics; no decision of the loop depends on it.
//!
//! Each sample costs a call to the log, so one lane of one running task is sampled at a time.

use std::collections::BTreeMap;

use crate::derive::task::{Task, TaskPhase};
use crate::port::{Isolation, Log};
use crate::record::{Millis, Partition};
use crate::telemetry;
use crate::topology::Lane;

/// Milliseconds between two samples: with eight tasks, each lane is sampled every ten seconds.
const SAMPLE_EVERY_MS: i64 = 250;

/// The last sample of one lane of one task.
#[derive(Clone, Copy, Default)]
struct LaneLag {
    records: u64,
    wait_ms: i64,
}

/// The last samples of all lanes of all running tasks.
#[derive(Default)]
pub(super) struct Lag {
    next: usize,
    sampled_at: Millis,
    seen: BTreeMap<(Lane, Partition), LaneLag>,
}

impl Lag {
    /// Samples one lane of one task if a sample is due. A failed call is ignored; the lane's next
    /// sample replaces it.
    pub(super) fn sample(&mut self, log: &dyn Log, now: Millis, tasks: &BTreeMap<Partition, Task>) {
        self.sampled_at = self.sampled_at.min(now);
        if now.0.saturating_sub(self.sampled_at.0) < SAMPLE_EVERY_MS {
            return;
        }
        self.sampled_at = now;
        let runs = |partition: &Partition| {
            matches!(tasks.get(partition).map(|task| &task.phase), Some(TaskPhase::Running(_)))
        };
        self.seen.retain(|(_, partition), _| runs(partition));
        let running = tasks.values().filter_map(|task| match &task.phase {
            TaskPhase::Running(running) => Some(running),
            _ => None,
        });
        let lanes: Vec<_> = running.flat_map(|task| Lane::ALL.map(|lane| (lane, task))).collect();
        let Some((lane, task)) = lanes.get(self.next % lanes.len().max(1)) else { return };
        self.next += 1;
        let bounds = log.bounds(task.lane(*lane), Isolation::Committed);
        if let (Ok(bounds), Some(at)) = (bounds, task.progress.lanes[lane.index()]) {
            let records = bounds.end.0.saturating_sub(at.0);
            let wait_ms = task.oldest(*lane).map_or(0, |oldest| now.0.saturating_sub(oldest.0));
            self.seen.insert((*lane, task.partition), LaneLag { records, wait_ms });
        }
        let whole = (*lane, Partition(0))..=(*lane, Partition(u32::MAX));
        let (records, wait_ms) = self
            .seen
            .range(whole)
            .fold((0, 0), |(sum, max), (_, seen)| (sum + seen.records, max.max(seen.wait_ms)));
        telemetry::lane_lag(*lane, records, wait_ms);
    }
}
