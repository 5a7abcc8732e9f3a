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

use super::admin::Admin;
use super::bootstrap_refresh::BootstrapRefresh;
use super::config::{Config, invalid_properties};
use super::context::{KafkaContext, lock};
use super::log_error;
use super::native;
use super::partition_list::partition_number;
use crate::clock;

/// How long a question may take before the caller is told that there was no answer.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(10);

/// How long a new topic's leaders may take to be known.
const LEADERS_LIMIT: Duration = Duration::from_secs(20);

/// The rest between two looks at a topic that is being made.
const LEADERS_GRAIN: Duration = Duration::from_millis(10);

/// Events a question serves at most before it is asked: logs and errors, some a second at worst.
const EVENTS_MAX: usize = 1_000;

/// What the log and all that was made from it share.
pub(super) struct KafkaCore {
    pub(super) config: Config,
    pub(super) admin: Admin,
    /// Sees the last stable offset as the end.
    pub(super) stable: BaseConsumer<KafkaContext>,
    /// Sees the high watermark as the end.
    pub(super) latest: BaseConsumer<KafkaContext>,
    /// By group: who asks for its offsets.
    observers: Mutex<BTreeMap<String, Arc<BaseConsumer<KafkaContext>>>>,
    /// Partition counts of topics that were seen; fixed for a topic's life.
    counts: Mutex<BTreeMap<Topic, u32>>,
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
        let (stable, latest) = (make(Isolation::Committed)?, make(Isolation::Uncommitted)?);
        let client = config.admin().create_with_context(KafkaContext::default());
        let admin = Admin::new(client.map_err(|error| invalid_properties(&error))?, config.clone());
        let (observers, counts) = (Mutex::default(), Mutex::default());
        Ok(Self { config, admin, stable, latest, observers, counts })
    }

    /// Serves what a client has to say: its log lines and errors reach its context.
    pub(super) fn serve(&self, client: &BaseConsumer<KafkaContext>) {
        let mut left = EVENTS_MAX;
        while left > 0 && native::has_events(client) {
            // What it returns is an error that its context has noted.
            let _ = client.poll(Duration::ZERO);
            left -= 1;
        }
    }

    /// A code that a client without a context at hand came up with.
    pub(super) fn failed(&self, doing: impl fmt::Display, code: Code) -> LogError {
        log_error::from_code(doing, code, self.stable.context())
    }

    /// Asks and, if there is no answer, serves the client so that its newest error says why.
    pub(super) fn ask<T>(
        &self,
        client: &BaseConsumer<KafkaContext>,
        doing: impl fmt::Display,
        question: impl FnOnce(&BaseConsumer<KafkaContext>) -> Result<T, KafkaError>,
    ) -> Result<T, LogError> {
        self.serve(client);
        question(client).map_err(|error| {
            self.serve(client);
            BootstrapRefresh::default().check(&self.config, client.client());
            log_error::from_error(doing, &error, client.context())
        })
    }

    /// Start and end of a partition.
    pub(super) fn bounds(
        &self,
        at: &TopicPartition,
        isolation: Isolation,
    ) -> Result<Bounds, LogError> {
        self.check(at)?;
        let client = match isolation {
            Isolation::Committed => &self.stable,
            Isolation::Uncommitted => &self.latest,
        };
        let partition = partition_number(at);
        let (start, end) =
            self.ask(client, format_args!("asking for the bounds of {at}"), |c| {
                c.fetch_watermarks(at.topic.as_str(), partition, CALL_LIMIT)
            })?;
        let offset = |raw: i64| Offset(u64::try_from(raw).unwrap_or(0));
        Ok(Bounds { start: offset(start), end: offset(end) })
    }

    /// Refuses a topic or partition that is not there.
    pub(super) fn check(&self, at: &TopicPartition) -> Result<(), LogError> {
        match self.count(&at.topic)? {
            None => Err(LogError::Invalid(format!(
                "there is no topic {}; `tidewire topics create` makes the topics",
                at.topic
            ))),
            Some(count) if at.partition.0 >= count => Err(LogError::Invalid(format!(
                "{at}: the topic has {count} partitions, counted from 0"
            ))),
            Some(_) => Ok(()),
        }
    }

    /// How many partitions a topic has; `None` if it is not there.
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

    /// Looks at what the brokers know of a topic; `None` if it is not there.
    pub(super) fn find_topic<T>(
        &self,
        topic: &Topic,
        read: impl FnOnce(&MetadataTopic) -> T,
    ) -> Result<Option<T>, LogError> {
        let doing = format!("looking for the topic {topic}");
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
                    format!("the partitions of {} have no leaders yet", spec.topic).into(),
                ));
            }
            clock::pause(LEADERS_GRAIN);
        }
    }

    /// Refuses a topic that is there otherwise.
    pub(super) fn compare(&self, spec: &TopicSpec, found: TopicShape) -> Result<(), LogError> {
        let TopicShape { partitions, copies } = found;
        if partitions != spec.partitions as usize {
            return Err(LogError::Invalid(format!(
                "the topic {} has {partitions} partitions and must have {}; give \
                 topics.partitions = {partitions}, or another topics.prefix for a new generation \
                 of topics (which partition a key belongs to depends on their number)",
                spec.topic, spec.partitions
            )));
        }
        let wanted = self.config.replication.map_or(copies, usize::from);
        if copies < wanted {
            return Err(LogError::Invalid(format!(
                "the topic {} has {copies} copies of each partition and kafka.replication asks for \
                 {wanted}; add copies with `kafka-reassign-partitions.sh`, or lower \
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

/// A topic as it was found: its partitions, and the fewest copies one of them has.
pub(super) struct TopicShape {
    partitions: usize,
    copies: usize,
}

impl TopicShape {
    pub(super) fn of(topic: &MetadataTopic) -> Self {
        let copies = topic.partitions().iter().map(|p| p.replicas().len()).min();
        Self { partitions: topic.partitions().len(), copies: copies.unwrap_or(0) }
    }
}
