//! What the Kafka log and everything made from it share: clients that ask questions, and answers.
//!
//! Bounds have a client for each of the two isolations, because the end of a partition differs
//! between them. Committed offsets have a client per group. These clients never fetch, so that no
//! question waits behind a fetch. A question without an answer fails with the newest error of its
//! client as the cause.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::metadata::MetadataTopic;
use rdkafka::types::RDKafkaErrorCode as Code;
use tidewire_engine::port::{Bounds, Isolation, LogError, TopicSpec};
use tidewire_engine::record::{Offset, Topic, TopicPartition};
use tidewire_engine::topology::misfit_sentence;

use super::admin::Admin;
use super::bootstrap_refresh::BootstrapRefresh;
use super::config::{Config, invalid_properties};
use super::context::{KafkaContext, lock};
use super::log_error;
use super::native::{self, SharedConsumer};
use super::partition_list::partition_number;
use super::read_retry::UnreadablePartitions;
use crate::clock;

/// How long a question may take before it fails.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(10);

/// How long a new topic may take until all partitions have leaders.
const LEADERS_LIMIT: Duration = Duration::from_secs(20);

/// The pause between two checks of a topic that is being created.
const LEADERS_GRAIN: Duration = Duration::from_millis(10);

/// Events that are served at most before a question: log lines and errors, a few per second.
const EVENTS_MAX: usize = 1_000;

/// Shared by the log and everything made from it.
pub(super) struct KafkaCore {
    pub(super) config: Config,
    pub(super) admin: Admin,
    /// Sees the last stable offset as the end.
    pub(super) stable: SharedConsumer,
    /// Sees the high watermark as the end.
    pub(super) latest: BaseConsumer<KafkaContext>,
    /// The client that asks for a group's offsets, by group.
    observers: Mutex<BTreeMap<String, Arc<BaseConsumer<KafkaContext>>>>,
    /// Partition counts of topics that were seen. They never change while a topic exists.
    counts: Mutex<BTreeMap<Topic, u32>>,
    /// Of all readers.
    pub(super) unreadable: Arc<UnreadablePartitions>,
}

/// A consumer of this configuration.
pub(super) fn make_consumer(config: &ClientConfig) -> Result<BaseConsumer<KafkaContext>, LogError> {
    config.create_with_context(KafkaContext::default()).map_err(|error| invalid_properties(&error))
}

impl KafkaCore {
    /// Creates the clients. The first call asks a broker, not this one.
    pub(super) fn open(config: Config) -> Result<Self, LogError> {
        if let Some(problem) = config.problems().into_iter().next() {
            return Err(LogError::Invalid(format!("kafka.properties: {problem}")));
        }
        let make = |isolation| make_consumer(&config.reader(isolation, None));
        let stable = Arc::new(make(Isolation::Committed)?);
        let latest = make(Isolation::Uncommitted)?;
        let settings = config.admin();
        let client = settings.create_with_context(KafkaContext::default());
        let admin = Admin::new(client.map_err(|error| invalid_properties(&error))?, config.clone());
        let (observers, counts) = (Mutex::default(), Mutex::default());
        let unreadable = Arc::default();
        Ok(Self { config, admin, stable, latest, observers, counts, unreadable })
    }

    /// Serves a client's events: its log lines and errors reach its context.
    pub(super) fn serve(&self, client: &BaseConsumer<KafkaContext>) {
        let mut left = EVENTS_MAX;
        while left > 0 && native::has_events(client) {
            // It returns an error, which its context has recorded.
            let _ = client.poll(Duration::ZERO);
            left -= 1;
        }
    }

    /// The error for a code, with the context of the stable client.
    pub(super) fn failed(&self, doing: impl fmt::Display, code: Code) -> LogError {
        log_error::from_code(doing, code, self.stable.context())
    }

    /// The same without a probe of the broker: never waits.
    pub(super) fn failed_now(&self, doing: impl fmt::Display, code: Code) -> LogError {
        log_error::from_code_now(doing, code, self.stable.context())
    }

    /// Asks a question. If it fails, serves the client, so that its newest error is the cause.
    pub(super) fn ask<T>(
        &self,
        client: &BaseConsumer<KafkaContext>,
        doing: impl fmt::Display,
        question: impl FnOnce(&BaseConsumer<KafkaContext>) -> Result<T, KafkaError>,
    ) -> Result<T, LogError> {
        self.serve(client);
        match question(client) {
            Ok(answer) => {
                client.context().answered();
                Ok(answer)
            }
            Err(error) => {
                self.serve(client);
                BootstrapRefresh::default().check(&self.config, client.client());
                Err(log_error::from_error(doing, &error, client.context()))
            }
        }
    }

    /// Start and end of a partition.
    pub(super) fn bounds(
        &self,
        at: &TopicPartition,
        isolation: Isolation,
    ) -> Result<Bounds, LogError> {
        self.check(at)?;
        let client = match isolation {
            Isolation::Committed => &*self.stable,
            Isolation::Uncommitted => &self.latest,
        };
        let partition = partition_number(at);
        let (start, end) = self.ask(client, format_args!("reading the bounds of {at}"), |c| {
            c.fetch_watermarks(at.topic.as_str(), partition, CALL_LIMIT)
        })?;
        let offset = |raw: i64| Offset(u64::try_from(raw).unwrap_or(0));
        Ok(Bounds { start: offset(start), end: offset(end) })
    }

    /// Fails if the topic or partition does not exist.
    pub(super) fn check(&self, at: &TopicPartition) -> Result<(), LogError> {
        match self.count(&at.topic)? {
            None => Err(LogError::Invalid(format!(
                "topic {} does not exist; create the topics with `tidewire topics create`",
                at.topic
            ))),
            Some(count) if at.partition.0 >= count => Err(LogError::Invalid(format!(
                "{at}: the topic has {count} partitions, numbered from 0"
            ))),
            Some(_) => Ok(()),
        }
    }

    /// How many partitions a topic has; `None` if it does not exist.
    pub(super) fn count(&self, topic: &Topic) -> Result<Option<u32>, LogError> {
        if let Some(count) = lock(&self.counts).get(topic) {
            return Ok(Some(*count));
        }
        let found = self.find_topic(topic, |found| found.partitions().len())?;
        let count = found.map(|partitions| u32::try_from(partitions).unwrap_or(u32::MAX));
        if let Some(count) = count {
            lock(&self.counts).insert(topic.clone(), count);
        }
        Ok(count)
    }

    /// Reads the metadata of a topic; `None` if it does not exist.
    pub(super) fn find_topic<T>(
        &self,
        topic: &Topic,
        read: impl FnOnce(&MetadataTopic) -> T,
    ) -> Result<Option<T>, LogError> {
        let doing = format!("looking up the topic {topic}");
        let metadata = self.ask(&self.latest, &doing, |client| {
            client.fetch_metadata(Some(topic.as_str()), CALL_LIMIT)
        })?;
        let found = metadata.topics().iter().find(|found| found.name() == topic.as_str());
        let Some(found) = found else { return Ok(None) };
        match found.error().map(Code::from) {
            None => Ok(Some(read(found))),
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Ok(None),
            Some(code) => Err(self.failed(doing, code)),
        }
    }

    /// Waits until every partition of a new topic has a leader.
    pub(super) fn await_leaders(&self, spec: &TopicSpec) -> Result<(), LogError> {
        let begun = clock::now();
        loop {
            let led = |found: &MetadataTopic| {
                let led =
                    found.partitions().iter().filter(|p| p.leader() >= 0 && p.error().is_none());
                led.count()
            };
            if self.find_topic(&spec.topic, led)? == Some(spec.partitions as usize) {
                return Ok(());
            }
            if begun.elapsed() > LEADERS_LIMIT {
                return Err(LogError::Retry(
                    format!("some partitions of {} have no leader yet", spec.topic).into(),
                ));
            }
            clock::pause(LEADERS_GRAIN);
        }
    }

    /// Fails if a topic exists with other partitions, replicas or settings.
    pub(super) fn compare(&self, spec: &TopicSpec, found: TopicShape) -> Result<(), LogError> {
        let TopicShape { partitions, replicas } = found;
        if partitions != spec.partitions as usize {
            let partitions = u32::try_from(partitions).unwrap_or(u32::MAX);
            let text = misfit_sentence(&spec.topic, partitions, spec.partitions);
            return Err(LogError::Invalid(text));
        }
        let wanted = self.config.replication.map_or(replicas, usize::from);
        if replicas < wanted {
            return Err(LogError::Invalid(format!(
                "the topic {} has {replicas} replicas of each partition and kafka.replication is \
                 {wanted}; add replicas with `kafka-reassign-partitions.sh`, or lower \
                 kafka.replication",
                spec.topic
            )));
        }
        let described = self.admin.describe(&[spec.topic.as_str()])?;
        described.iter().try_for_each(|found| self.admin.compare(spec, found))
    }

    pub(super) fn observer(
        &self,
        group: &str,
    ) -> Result<Arc<BaseConsumer<KafkaContext>>, LogError> {
        if let Some(observer) = lock(&self.observers).get(group) {
            return Ok(Arc::clone(observer));
        }
        let observer = Arc::new(make_consumer(&self.config.observer(group))?);
        lock(&self.observers).insert(group.to_owned(), Arc::clone(&observer));
        Ok(observer)
    }
}

/// The partitions of a topic on the broker, and the fewest replicas one of them has.
pub(super) struct TopicShape {
    partitions: usize,
    replicas: usize,
}

impl TopicShape {
    pub(super) fn of(topic: &MetadataTopic) -> Self {
        let replicas = topic.partitions().iter().map(|p| p.replicas().len()).min();
        Self { partitions: topic.partitions().len(), replicas: replicas.unwrap_or(0) }
    }
}
