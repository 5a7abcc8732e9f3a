//! How far ADMIT is behind in each partition of its input, for metrics; no decision depends on it.
//!
//! The numbers are what the client knows from its last fetch, so that a sample asks no broker.

use std::collections::BTreeMap;
use std::time::Duration;

use tidewire_engine::port::{Clock, UnreadRecords};
use tidewire_engine::record::{Offset, TopicPartition};

use crate::runtime::clock::{Stopwatch, SystemClock};
use crate::runtime::telemetry::{self, PartitionLag};

/// How often a loop is sampled.
const SAMPLE_EVERY: Duration = Duration::from_secs(2);

/// How long a partition waits for an open transaction before that is logged.
const LOG_TRANSACTION_AFTER: Duration = Duration::from_secs(10);

/// A partition as it was sampled.
struct InputSample {
    /// The next record, and since when it is the next.
    next: Offset,
    since: Stopwatch,
    logged: bool,
}

/// The samples of one loop of ADMIT.
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

    /// Records a sample of all partitions that the loop reads.
    pub fn record(&mut self, backlogs: &[(TopicPartition, UnreadRecords)]) {
        self.sampled = Stopwatch::start();
        self.samples.retain(|at, _| {
            let read = backlogs.iter().any(|(of, _)| of == at);
            if !read {
                telemetry::input_lag(at, PartitionLag::default());
            }
            read
        });
        for (at, backlog) in backlogs {
            let lag = self.lag_of(at, backlog);
            telemetry::input_lag(at, lag);
        }
    }

    fn lag_of(&mut self, at: &TopicPartition, backlog: &UnreadRecords) -> PartitionLag {
        let fresh = || InputSample { next: backlog.next, since: Stopwatch::start(), logged: false };
        let sample = self.samples.entry(at.clone()).or_insert_with(fresh);
        if sample.next != backlog.next || backlog.records == 0 {
            *sample = fresh();
        }
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
    use tidewire_engine::record::{Millis, Partition, Topic};

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
}
