//! How far ADMIT is behind in each partition of its input, for metrics; no decision depends on it.
//!
//! The numbers are what the client knows from its last fetch, so that a sample asks no broker.
//! While ADMIT is stopped at the poison limit, they are those of the stop, and the waits grow.

use std::collections::BTreeMap;
use std::time::Duration;

use tidewire_engine::port::{Clock, UnreadRecords};
use tidewire_engine::record::TopicPartition;

use crate::runtime::clock::{Stopwatch, SystemClock};
use crate::runtime::telemetry::{self, PartitionLag};

/// How often a loop is sampled.
const SAMPLE_EVERY: Duration = Duration::from_secs(2);

/// How long a partition waits for an open transaction before that is logged.
const LOG_TRANSACTION_AFTER: Duration = Duration::from_secs(10);

/// A partition as it was sampled.
struct InputSample {
    unread: UnreadRecords,
    /// Since when the next record is the next.
    since: Stopwatch,
    logged: bool,
}

/// The samples of a loop of ADMIT. They are kept when the loop is created again, so that the waits
/// go on and the values of partitions that another process reads by then are reset.
pub struct InputLag {
    sampled: Stopwatch,
    samples: BTreeMap<TopicPartition, InputSample>,
}

impl Default for InputLag {
    fn default() -> Self {
        Self { sampled: Stopwatch::start(), samples: BTreeMap::new() }
    }
}

impl InputLag {
    /// Whether a sample is due.
    pub fn is_due(&self) -> bool {
        self.sampled.elapsed() >= SAMPLE_EVERY
    }

    /// Records a sample of all partitions that are assigned to the loop. Where the backlog is not
    /// known, the last one counts.
    pub fn record(&mut self, backlogs: &[(TopicPartition, Option<UnreadRecords>)]) {
        self.sampled = Stopwatch::start();
        self.samples.retain(|at, _| {
            let assigned = backlogs.iter().any(|(of, _)| of == at);
            if !assigned {
                telemetry::input_lag(at, PartitionLag::default());
            }
            assigned
        });
        for (at, backlog) in backlogs {
            let last = self.samples.get(at).map(|sample| sample.unread);
            if let Some(backlog) = backlog.or(last) {
                let lag = self.lag_of(at, &backlog);
                telemetry::input_lag(at, lag);
            }
        }
    }

    /// The loop ended: another process may read its partitions now.
    pub fn reset(&self) {
        self.samples.keys().for_each(|at| telemetry::input_lag(at, PartitionLag::default()));
    }

    fn lag_of(&mut self, at: &TopicPartition, backlog: &UnreadRecords) -> PartitionLag {
        let fresh = || InputSample { unread: *backlog, since: Stopwatch::start(), logged: false };
        let sample = self.samples.entry(at.clone()).or_insert_with(fresh);
        if sample.unread.next != backlog.next || backlog.records == 0 {
            *sample = fresh();
        }
        sample.unread = *backlog;
        if backlog.records == 0 {
            return PartitionLag::default();
        }
        let stands = sample.since.elapsed();
        let since = |oldest| SystemClock.now().0.saturating_sub(oldest);
        let known = backlog.oldest.map(|oldest| u64::try_from(since(oldest.0)).unwrap_or(0));
        let transaction = if backlog.open_transaction { stands } else { Duration::ZERO };
        if transaction >= LOG_TRANSACTION_AFTER && !sample.logged {
            sample.logged = true;
            tracing::warn!(
                records = backlog.records,
                "{at} waits at offset {} for an open transaction of a producer",
                backlog.next.0
            );
        }
        let wait = known.map_or(stands, |ms| stands.max(Duration::from_millis(ms)));
        PartitionLag { records: backlog.records, wait, transaction }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;
    use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
    use tidewire_engine::record::{Millis, Offset, Partition, Topic};

    fn backlog(next: u64, records: u64, open_transaction: bool) -> UnreadRecords {
        UnreadRecords { next: Offset(next), records, open_transaction, oldest: None }
    }

    #[test]
    fn a_wait_grows_while_the_next_record_is_the_same_and_ends_with_it() {
        let at = TopicPartition::new(&Topic::new("tw.in"), Partition(0));
        let mut lag = InputLag::default();
        lag.lag_of(&at, &backlog(5, 3, true));
        clock::pause(Duration::from_millis(20));
        let waits = lag.lag_of(&at, &backlog(5, 4, true));
        assert!(waits.records == 4 && waits.wait >= Duration::from_millis(20), "{waits:?}");
        assert_eq!(waits.wait, waits.transaction);
        assert_eq!(lag.lag_of(&at, &backlog(9, 0, false)), PartitionLag::default());
    }

    #[test]
    fn the_time_of_the_next_record_counts_if_it_is_known() {
        let at = TopicPartition::new(&Topic::new("tw.in"), Partition(0));
        let oldest = Some(Millis(SystemClock.now().0 - 60_000));
        let known = UnreadRecords { oldest, ..backlog(5, 3, false) };
        let waits = InputLag::default().lag_of(&at, &known);
        assert!(waits.wait >= Duration::from_secs(60), "{waits:?}");
        assert_eq!(waits.transaction, Duration::ZERO);
    }

    /// The records and the wait that are exported of a partition.
    fn exported(metrics: &PrometheusHandle, partition: u32) -> (f64, f64) {
        let rendered = metrics.render();
        let value = |name: &str| {
            let line = format!("{name}{{topic=\"tw.in\",partition=\"{partition}\"}} ");
            let value = rendered.lines().find_map(|rendered| rendered.strip_prefix(&line));
            value.map_or(f64::NAN, |value| value.parse().expect("a number"))
        };
        (value("admit_input_lag_records"), value("admit_input_oldest_wait_seconds"))
    }

    #[test]
    fn a_loop_that_ended_exports_nothing_and_the_next_goes_on_with_its_waits() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let at = |p| TopicPartition::new(&Topic::new("tw.in"), Partition(p));
            let mut lag = InputLag::default();
            lag.record(&[0, 1].map(|p| (at(p), Some(backlog(5, 3, false)))));
            lag.reset();
            assert_eq!(exported(&metrics, 0), (0.0, 0.0));
            clock::pause(Duration::from_millis(20));
            // Partition 1 is assigned to another process.
            lag.record(&[(at(0), Some(backlog(5, 4, false)))]);
            let (records, wait) = exported(&metrics, 0);
            assert!(records == 4.0 && wait >= 0.02, "{records} {wait}");
            assert_eq!(exported(&metrics, 1), (0.0, 0.0));
        });
    }

    #[test]
    fn where_the_backlog_is_not_known_the_last_one_counts_and_its_wait_grows() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let at = TopicPartition::new(&Topic::new("tw.in"), Partition(0));
            let mut lag = InputLag::default();
            lag.record(&[(at.clone(), None)]);
            assert!(exported(&metrics, 0).0.is_nan());
            lag.record(&[(at.clone(), Some(backlog(5, 3, false)))]);
            clock::pause(Duration::from_millis(20));
            lag.record(&[(at, None)]);
            let (records, wait) = exported(&metrics, 0);
            assert!(records == 3.0 && wait >= 0.02, "{records} {wait}");
        });
    }
}
