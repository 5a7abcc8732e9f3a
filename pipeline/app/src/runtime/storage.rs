//! Opens the log of a process, creates and checks its topics, and reports their offsets.
//!
//! The embedded log, the state of tasks and the state of channels are three folders in the data
//! folder: `log`, `state` and `fold`; on Kafka there is no `log`. Commands and the running process
//! share these functions, so that both report topics alike.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidewire_connectors::embedded::{self, EmbeddedLog};
use tidewire_connectors::kafka::KafkaLog;
use tidewire_engine::derive::highest_level;
use tidewire_engine::operators::OPERATORS;
use tidewire_engine::port::{Cleanup, Clock, Isolation, Log, LogError, Stores};
use tidewire_engine::record::{Partition, TopicPartition};
use tidewire_engine::topics_layout::{
    self, CreateTopicsError, FoundLayout, LayoutNumber, LayoutRefusal, LogPlace, find_layout,
};
use tidewire_engine::topology::Topology;
use tidewire_engine::value_level::level_in_force;
use tidewire_schemas::codec::Registry;

use crate::config::{AckDurability, Config, DataConfig, KafkaConfig, LogConfig};
use crate::process_exit::ProcessExit;
use crate::runtime::clock::SystemClock;
use crate::runtime::retry::{AttemptError, with_retries};
use crate::runtime::stop_signal::StopSignal;

/// The ports of a process: its log and what belongs to it.
#[derive(Clone)]
pub struct ProcessPorts {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The task stores, in a process with tasks.
    pub stores: Option<Arc<dyn Stores>>,
    /// The stores of channels' state, in a process that serves clients.
    pub channel_stores: Option<Arc<dyn Stores>>,
    /// The topics' names.
    pub topology: Topology,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// The schema registry, if one is configured.
    pub registry: Option<Arc<dyn Registry>>,
}

/// A topic in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicReport {
    /// Its name.
    pub topic: String,
    /// Its retention, in words.
    pub keeps: String,
    /// By partition: the oldest offset that is kept, and the end.
    pub offsets: Vec<(u64, u64)>,
}

/// Opens the configured log. No broker is contacted before the log's first use.
pub fn open_log(config: &Config) -> Result<Arc<dyn Log>, ProcessExit> {
    match &config.log {
        LogConfig::Embedded => open_embedded(&config.data),
        LogConfig::Kafka(kafka) => open_kafka(config, kafka),
    }
}

fn open_embedded(config: &DataConfig) -> Result<Arc<dyn Log>, ProcessExit> {
    let mut settings = embedded::Config::new(config.dir.join("log"));
    settings.durability = match config.durability {
        AckDurability::Process => embedded::Durability::Process,
        AckDurability::Host => embedded::Durability::Host,
    };
    let doing = format!("could not open the embedded log in {}", config.dir.display());
    match EmbeddedLog::open(settings, Arc::new(SystemClock)) {
        Ok(log) => Ok(log),
        Err(error) => Err(ProcessExit::of_log(doing, error)),
    }
}

fn open_kafka(config: &Config, kafka: &KafkaConfig) -> Result<Arc<dyn Log>, ProcessExit> {
    match KafkaLog::open(kafka.connector(config)) {
        Ok(log) => Ok(log),
        Err(error) => Err(ProcessExit::of_log("could not create a Kafka client".into(), error)),
    }
}

/// The message when the log does not answer, with what to do about it.
pub fn unreachable_message(config: &Config) -> String {
    match &config.log {
        LogConfig::Embedded => format!("the log in {} did not answer", config.data.dir.display()),
        LogConfig::Kafka(kafka) => format!(
            "Kafka at {} does not answer; check that it runs and can be reached from here: \
             `tidewire doctor` with the same settings finds the cause",
            kafka.bootstrap
        ),
    }
}

/// Where the topics are, for the command of a refusal.
fn log_place(config: &Config) -> LogPlace {
    match &config.log {
        LogConfig::Embedded => LogPlace::Folder(config.data.dir.display().to_string()),
        LogConfig::Kafka(kafka) => LogPlace::Kafka(kafka.bootstrap.clone()),
    }
}

fn refused(config: &Config, refusal: &LayoutRefusal) -> AttemptError {
    AttemptError::Permanent(ProcessExit::Usage(refusal.sentence(&log_place(config))))
}

/// Creates missing topics and checks existing ones; returns how many are new. Topics in another
/// layout are refused.
pub fn create_topics(config: &Config, log: &dyn Log) -> Result<usize, AttemptError> {
    let level = highest_level(OPERATORS);
    topics_layout::create_topics(log, &config.topology(), LayoutNumber::CURRENT, level)
        .map_err(|error| not_created(config, error))
}

fn not_created(config: &Config, error: CreateTopicsError) -> AttemptError {
    let unanswered = unreachable_message(config);
    match error {
        CreateTopicsError::Refused(refusal) => refused(config, &refusal),
        CreateTopicsError::Topic { topic, source } => {
            let doing = format!("the topic {topic} is not as Tidewire needs it");
            AttemptError::of_log(doing, &unanswered, source)
        }
        CreateTopicsError::Layout(source) => {
            let doing = "could not read or write the layout of the topics".into();
            AttemptError::of_log(doing, &unanswered, source)
        }
    }
}

/// Refuses topics in another layout, for a command that makes one attempt.
pub fn refuse_other_layout(config: &Config, log: &dyn Log) -> Result<(), ProcessExit> {
    with_retries(Duration::ZERO, &StopSignal::default(), || find_known_layout(config, log))
        .map(drop)
}

/// Refuses topics in another layout. Returns whether there is a layout record: topics that nothing
/// was written to may have none yet.
fn find_known_layout(config: &Config, log: &dyn Log) -> Result<bool, AttemptError> {
    let topology = config.topology();
    let found = find_layout(log, &topology).map_err(|error| {
        let doing = "could not read the layout of the topics".into();
        AttemptError::of_log(doing, &unreachable_message(config), error)
    })?;
    match LayoutRefusal::of(&topology, &found, LayoutNumber::CURRENT) {
        Some(refusal) => Err(refused(config, &refusal)),
        None => Ok(found != FoundLayout::Empty),
    }
}

/// Refuses topics at a value level that this build can't read.
pub fn check_value_level(config: &Config, log: &dyn Log) -> Result<(), AttemptError> {
    level_in_force(log, &config.topology(), highest_level(OPERATORS)).map(drop).map_err(|error| {
        let doing = "could not read the value level".into();
        AttemptError::of_log(doing, &unreachable_message(config), error)
    })
}

/// Checks that every topic exists as it must be, and creates none: a mistyped prefix in one of
/// several processes must not create a second set of topics. A missing topic may be retried:
/// another process may be creating it.
pub fn require_topics(config: &Config, log: &dyn Log) -> Result<(), AttemptError> {
    let has_record = find_known_layout(config, log)?;
    let topology = config.topology();
    let asking = |error| {
        AttemptError::of_log(
            "could not list the topics".into(),
            &unreachable_message(config),
            error,
        )
    };
    let there = log.topics().map_err(asking)?;
    let specs = topology.specs();
    let mut missing =
        specs.iter().filter(|spec| !there.iter().any(|info| info.spec.topic == spec.topic));
    if let Some(first) = missing.next() {
        return Err(AttemptError::Transient(ProcessExit::Usage(format!(
            "{} of {} topics are missing, such as {}; check topics.prefix, or create them with \
             `tidewire topics create` and these settings",
            1 + missing.count(),
            specs.len(),
            first.topic
        ))));
    }
    if !has_record {
        return Err(AttemptError::Transient(ProcessExit::Usage(format!(
            "the topics are empty and {} has no layout record; write it with `tidewire topics \
             create` and these settings",
            topology.catalogues()
        ))));
    }
    // All exist, so this compares them.
    topics_layout::create_missing(log, &topology)
        .map(drop)
        .map_err(|error| not_created(config, error))
}

/// Every topic with its offsets, by name.
pub fn topic_reports(log: &dyn Log) -> Result<Vec<TopicReport>, LogError> {
    let mut reports = Vec::new();
    for info in log.topics()? {
        let mut offsets = Vec::new();
        for partition in 0..info.spec.partitions {
            let at = TopicPartition::new(&info.spec.topic, Partition(partition));
            let bounds = log.bounds(&at, Isolation::Committed)?;
            offsets.push((bounds.start.0, bounds.end.0));
        }
        let keeps = retention_text(info.spec.cleanup);
        reports.push(TopicReport { topic: info.spec.topic.to_string(), keeps, offsets });
    }
    Ok(reports)
}

fn retention_text(cleanup: Cleanup) -> String {
    match cleanup {
        Cleanup::Delete { retention_ms: None, .. } => "everything".into(),
        Cleanup::Delete { retention_ms: Some(ms), .. } => time_text(ms),
        Cleanup::Compact { .. } => "latest per key".into(),
        Cleanup::CompactDelete { retention_ms, .. } => {
            format!("latest per key, {}", time_text(retention_ms))
        }
    }
}

fn time_text(ms: u64) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)];
    match units.iter().find(|(_, size)| ms >= *size && ms.is_multiple_of(*size)) {
        Some((unit, size)) => format!("{} {unit}", ms / size),
        None => format!("{ms} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_is_shown_in_the_largest_unit_that_divides_it() {
        let delete = |ms| Cleanup::Delete { retention_ms: ms, retention_bytes: None };
        assert_eq!(retention_text(delete(Some(7 * 86_400_000))), "7 d");
        assert_eq!(retention_text(delete(Some(60_000))), "1 min");
        assert_eq!(retention_text(delete(Some(1_500))), "1500 ms");
        assert_eq!(retention_text(delete(None)), "everything");
        assert_eq!(retention_text(Cleanup::Compact { delete_retention_ms: 1 }), "latest per key");
    }
}
