//! What the log repeatedly does not answer: partitions, and the list of topics. For `/readyz`.
//!
//! Subscriptions that start in the past wait for such a partition; all others are served. While the
//! topics can't be listed, nobody notices that they were deleted or created again.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::port::LogError;
use crate::record::{Partition, TopicPartition};
use crate::telemetry;

/// What the log does not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum UnansweredCall {
    /// It does not tell bounds or the offset of a time.
    Lookup,
    /// It does not return records.
    Sweep,
}

impl UnansweredCall {
    /// Its name in metrics.
    fn name(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Sweep => "sweep",
        }
    }

    /// The sentence for `/readyz`.
    pub(super) fn sentence(self, at: &TopicPartition, error: &LogError) -> String {
        let failed = match self {
            Self::Lookup => "start and end of",
            Self::Sweep => "older records of",
        };
        let cause = match error {
            LogError::Retry(cause) => cause.to_string(),
            other => other.to_string(),
        };
        format!("{failed} {at} can't be read, so subscriptions to its past wait: {cause}")
    }
}

/// The partitions, by call.
#[derive(Debug, Default)]
pub(super) struct UnansweredPartitions {
    listed: Mutex<BTreeMap<UnansweredCall, BTreeMap<Partition, String>>>,
    topics: Mutex<Option<String>>,
}

impl UnansweredPartitions {
    /// One sentence for each: partition and cause.
    pub(super) fn sentences(&self) -> Vec<String> {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let partitions = listed.values().flat_map(|of_call| of_call.values().cloned());
        topics.into_iter().chain(partitions).collect()
    }

    /// Says that the topics can't be listed, or that they can.
    pub(super) fn set_topics(&self, problem: Option<String>) {
        *self.topics.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    /// Replaces the partitions of a call. One that is new is logged.
    pub(super) fn set(&self, call: UnansweredCall, now: BTreeMap<Partition, String>) {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let before = listed.entry(call).or_default();
        if *before == now {
            return;
        }
        for (_, sentence) in now.iter().filter(|(partition, _)| !before.contains_key(partition)) {
            telemetry::partition_unanswered(sentence);
        }
        telemetry::partitions_unanswered(call.name(), now.len());
        *before = now;
    }
}
