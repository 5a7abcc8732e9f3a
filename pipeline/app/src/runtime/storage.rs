//! Opens the log of a process, creates and checks its topics, and reports their offsets.
//!
//! The embedded log and the state are two folders in the data folder, `log` and `state`; on Kafka
//! there is only `state`. Commands and the running process share these functions, so that both
//! report topics alike.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidewire_connectors::embedded::{self, EmbeddedLog};
use tidewire_connectors::kafka::KafkaLog;
use tidewire_engine::port::{Cleanup, Clock, Isolation, Log, LogError, Stores};
use tidewire_engine::record::{Partition, TopicPartition};
use tidewire_engine::topology::Topology;
use tidewire_schemas::codec::Registry;

use crate::config::{AckDurability, Config, DataConfig, KafkaConfig, LogConfig};
use crate::process_exit::ProcessExit;
use crate::runtime::clock::SystemClock;
use crate::runtime::retry::AttemptError;

/// The ports of a process: its log and what belongs to it.
#[derive(Clone)]
pub struct ProcessPorts {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The task stores, in a process with tasks.
    pub stores: Option<Arc<dyn Stores>>,
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

/// Creates missing topics and checks existing ones; returns how many are new.
pub fn create_topics(config: &Config, log: &dyn Log) -> Result<usize, AttemptError> {
    let mut created = 0;
    for spec in config.topology().specs() {
        let doing = format!("the topic {} is not as Tidewire needs it", spec.topic);
        let new = log.create(&spec);
        let new =
            new.map_err(|error| AttemptError::of_log(doing, &unreachable_message(config), error))?;
        created += usize::from(new);
    }
    Ok(created)
}

/// Checks that every topic exists as it must be, and creates none: a mistyped prefix in one of
/// several processes must not create a second set of topics. A missing topic may be retried:
/// another process may be creating it.
pub fn require_topics(config: &Config, log: &dyn Log) -> Result<(), AttemptError> {
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
    create_topics(config, log).map(drop)
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
