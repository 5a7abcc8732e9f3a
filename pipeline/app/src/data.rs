//! The data of a process: the embedded log, the stores of its tasks, and the topics in it.
//!
//! Two folders inside the data folder, `log` and `state`. What is asked of the log's topics is
//! answered here for every verb, whether it runs inside the serving process or opens the folder
//! itself.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidewire_connectors::embedded::{self, EmbeddedLog};
use tidewire_connectors::rocks::{self, RocksStores};
use tidewire_engine::port::{Cleanup, Clock, Isolation, Log, LogError, Stores};
use tidewire_engine::record::{Partition, TopicPartition};
use tidewire_engine::topology::Topology;

use crate::clock::WallClock;
use crate::config::{Config, DataConfig, Durability};
use crate::ending::Ending;

/// The log and the stores of a process.
#[derive(Clone)]
pub struct Data {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The stores of tasks.
    pub stores: Arc<dyn Stores>,
    /// The topics' names.
    pub topology: Topology,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
}

/// A topic as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicReport {
    /// Its name.
    pub topic: String,
    /// What it keeps, in words.
    pub keeps: String,
    /// By partition: the oldest offset still there, and the end.
    pub offsets: Vec<(u64, u64)>,
}

impl Data {
    /// Opens the log, makes the folder if it is not there, and creates the topics that are missing.
    pub fn open(config: &Config) -> Result<Self, Ending> {
        let log = open_log(&config.data)?;
        let topology = topology(config);
        create_topics(&*log, &topology)?;
        let stores = RocksStores::new(rocks::Config::new(config.data.dir.join("state")));
        Ok(Self { log, stores, topology, clock: Arc::new(WallClock) })
    }
}

/// The topics of a configuration.
pub fn topology(config: &Config) -> Topology {
    Topology::new(&config.topics.prefix, config.topics.partitions)
}

/// Opens the log of a data folder.
pub fn open_log(config: &DataConfig) -> Result<Arc<EmbeddedLog>, Ending> {
    let mut settings = embedded::Config::new(config.dir.join("log"));
    settings.durability = match config.durability {
        Durability::Process => embedded::Durability::Process,
        Durability::Host => embedded::Durability::Host,
    };
    let doing = format!("could not open the data in {}", config.dir.display());
    EmbeddedLog::open(settings, Arc::new(WallClock)).map_err(|error| Ending::of_log(doing, error))
}

/// Creates what is missing; says how many.
pub fn create_topics(log: &dyn Log, topology: &Topology) -> Result<usize, Ending> {
    let mut created = 0;
    for spec in topology.specs() {
        let new = log
            .create(&spec)
            .map_err(|error| Ending::of_log(format!("could not create {}", spec.topic), error))?;
        created += usize::from(new);
    }
    Ok(created)
}

/// Every topic with its offsets, by name.
pub fn report(log: &dyn Log) -> Result<Vec<TopicReport>, LogError> {
    let mut reports = Vec::new();
    for info in log.topics()? {
        let mut offsets = Vec::new();
        for partition in 0..info.spec.partitions {
            let at = TopicPartition::new(&info.spec.topic, Partition(partition));
            let bounds = log.bounds(&at, Isolation::Committed)?;
            offsets.push((bounds.start.0, bounds.end.0));
        }
        let keeps = in_words(info.spec.cleanup);
        reports.push(TopicReport { topic: info.spec.topic.to_string(), keeps, offsets });
    }
    Ok(reports)
}

fn in_words(cleanup: Cleanup) -> String {
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
    fn what_a_topic_keeps_is_said_in_the_unit_a_person_would_use() {
        let delete = |ms| Cleanup::Delete { retention_ms: ms, retention_bytes: None };
        assert_eq!(in_words(delete(Some(7 * 86_400_000))), "7 d");
        assert_eq!(in_words(delete(Some(60_000))), "1 min");
        assert_eq!(in_words(delete(Some(1_500))), "1500 ms");
        assert_eq!(in_words(delete(None)), "everything");
        assert_eq!(in_words(Cleanup::Compact { delete_retention_ms: 1 }), "latest per key");
    }
}
