//! Repeats failed reads of a partition with growing waits, and lists the partitions that keep
//! failing.
//!
//! librdkafka fetches the same batch again every 100 ms when it cannot unpack or parse it. Here a
//! failed partition is stopped until its wait is over. A failure that repeats at one offset is
//! logged, counted and listed, so that the process can report it. A single failure is not: a
//! partition whose leader moves fails once.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaErrorCode as Code;
use tidewire_engine::record::{Offset, TopicPartition};

use super::context::lock;
use crate::{clock, telemetry};

/// The wait after the second failure in a row; after the first there is none.
const WAIT_FIRST: Duration = Duration::from_millis(100);

/// The longest wait.
const WAIT_LONGEST: Duration = Duration::from_secs(10);

/// Failures in a row after which a partition is listed: about 1.5 s after the first.
const FAILURES_LISTED: u32 = 5;

/// How often the failure of one partition is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// The partitions that can't be read, of all readers of a log.
#[derive(Debug, Default)]
pub(super) struct UnreadablePartitions {
    next_id: AtomicU64,
    listed: Mutex<BTreeMap<u64, String>>,
}

impl UnreadablePartitions {
    /// One sentence for each: partition, offset and cause.
    pub(super) fn sentences(&self) -> Vec<String> {
        lock(&self.listed).values().cloned().collect()
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<u64, String>)) {
        let mut listed = lock(&self.listed);
        change(&mut listed);
        telemetry::kafka_unreadable_partitions(listed.len());
    }
}

/// A failed read.
#[derive(Clone)]
pub(super) struct FailedRead {
    pub(super) code: Code,
    /// What librdkafka says about it.
    pub(super) text: String,
}

impl FailedRead {
    /// The failure, and what can be done about it where that is known.
    fn cause(&self) -> String {
        let text = if self.text.is_empty() { self.code.to_string() } else { self.text.clone() };
        match self.code {
            Code::BadCompression => format!(
                "{text}; the batch is damaged, or unpacked it is larger than \
                 receive.message.max.bytes allows: raise that property in kafka.properties"
            ),
            Code::BadMessage => format!("{text}; the batch is damaged on the broker"),
            Code::MessageSizeTooLarge | Code::InvalidMessageSize => {
                format!("{text}; raise receive.message.max.bytes in kafka.properties")
            }
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
                format!("{text}; the topic was deleted")
            }
            _ => text,
        }
    }
}

/// The failures in a row of one partition of one reader.
pub(super) struct ReadRetries {
    list: Arc<UnreadablePartitions>,
    id: u64,
    failures: u32,
    retry_at: Option<Instant>,
    logged_at: Option<Instant>,
}

impl ReadRetries {
    /// No failure so far.
    pub(super) fn new(list: &Arc<UnreadablePartitions>) -> Self {
        let id = list.next_id.fetch_add(1, Ordering::Relaxed);
        Self { list: Arc::clone(list), id, failures: 0, retry_at: None, logged_at: None }
    }

    /// Counts a failure at this offset and sets the time of the next attempt.
    pub(super) fn failed(&mut self, at: &TopicPartition, offset: Offset, why: &FailedRead) {
        self.failures = self.failures.saturating_add(1);
        telemetry::kafka_read_failed(&at.topic, why.code);
        let now = clock::now();
        self.retry_at = Some(now + wait_after(self.failures));
        if self.failures < FAILURES_LISTED {
            return;
        }
        let sentence = unreadable_sentence(at, offset, why.cause());
        if self.logged_at.is_none_or(|at| now.duration_since(at) >= LOG_EVERY) {
            self.logged_at = Some(now);
            tracing::warn!(attempts = self.failures, "{sentence}");
        }
        self.list.change(|listed| {
            listed.insert(self.id, sentence);
        });
    }

    /// Whether the wait after the last failure is over.
    pub(super) fn may_start(&self) -> bool {
        self.retry_at.is_none_or(|at| at <= clock::now())
    }

    /// Something was read.
    pub(super) fn succeeded(&mut self) {
        if self.failures > 0 {
            self.failures = 0;
            self.logged_at = None;
            self.unlist();
        }
    }

    fn unlist(&self) {
        self.list.change(|listed| {
            listed.remove(&self.id);
        });
    }
}

impl Drop for ReadRetries {
    fn drop(&mut self) {
        if self.failures >= FAILURES_LISTED {
            self.unlist();
        }
    }
}

fn unreadable_sentence(at: &TopicPartition, offset: Offset, cause: impl Display) -> String {
    format!("{at} can't be read at offset {}: {cause}", offset.0)
}

fn wait_after(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        more => WAIT_FIRST.saturating_mul(1 << (more - 2).min(16)).min(WAIT_LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidewire_engine::record::{Partition, Topic};

    fn at() -> TopicPartition {
        TopicPartition::new(&Topic::new("tw.in"), Partition(3))
    }

    fn damaged() -> FailedRead {
        FailedRead { code: Code::BadCompression, text: "unpacking failed".to_owned() }
    }

    #[test]
    fn a_failure_that_repeats_is_listed_with_place_and_cause_until_a_read_succeeds() {
        let list = Arc::new(UnreadablePartitions::default());
        let mut retries = ReadRetries::new(&list);
        for _ in 1..FAILURES_LISTED {
            retries.failed(&at(), Offset(7), &damaged());
            assert_eq!(list.sentences(), [""; 0]);
        }
        retries.failed(&at(), Offset(7), &damaged());
        let [sentence] = &list.sentences()[..] else { panic!("one is listed") };
        let begins = "tw.in/3 can't be read at offset 7: unpacking failed; ";
        assert!(sentence.starts_with(begins), "{sentence}");
        assert!(sentence.contains("receive.message.max.bytes"), "{sentence}");
        retries.succeeded();
        assert_eq!(list.sentences(), [""; 0]);
    }

    #[test]
    fn a_reader_that_is_dropped_lists_nothing() {
        let list = Arc::new(UnreadablePartitions::default());
        let mut retries = ReadRetries::new(&list);
        (0..FAILURES_LISTED).for_each(|_| retries.failed(&at(), Offset(7), &damaged()));
        assert_eq!(list.sentences().len(), 1);
        drop(retries);
        assert_eq!(list.sentences(), [""; 0]);
    }

    #[test]
    fn the_first_attempt_is_immediate_and_waits_grow_to_a_limit() {
        assert_eq!(wait_after(1), Duration::ZERO);
        assert_eq!(wait_after(2), WAIT_FIRST);
        assert_eq!(wait_after(4), WAIT_FIRST * 4);
        assert_eq!(wait_after(u32::MAX), WAIT_LONGEST);
    }
}
