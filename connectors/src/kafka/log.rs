//! The log on Kafka: topics, bounds and committed offsets, and the makers of what reads and writes.
//!
//! Questions go through clients of their own, two for the two isolations (the end of a partition is
//! another for each) and one per group that is asked about, so that none ever waits behind a fetch.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::metadata::MetadataTopic;
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode as Code;
use tidewire_engine::port::{
    Appender, Bounds, Committed, Isolation, Log, LogError, Member, MemberSpec, Reader, TopicInfo,
    TopicSpec, Transactor,
};
use tidewire_engine::record::{Millis, Offset, Topic, TopicPartition};

use super::admin::Admin;
use super::append::KafkaAppender;
use super::bootstrap_refresh::BootstrapRefresh;
use super::config::{Config, invalid_properties};
use super::context::KafkaContext;
use super::log_error;
use super::member::KafkaMember;
use super::native;
use super::read::KafkaReader;
use super::transact::KafkaTransactor;
use crate::clock;

/// How long a question may take before the caller is told that there was no answer.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(10);

/// How long a new topic's leaders may take to be known.
const LEADERS_LIMIT: Duration = Duration::from_secs(20);

/// The rest between two looks at a topic that is being made.
const LEADERS_GRAIN: Duration = Duration::from_millis(10);

/// Events a question serves at most before it is asked: logs and errors, some a second at worst.
const EVENTS_MAX: usize = 1_000;

/// The log on Kafka. Cheap to clone; what is made from it keeps what it needs.
#[derive(Clone)]
pub struct KafkaLog {
    core: Arc<KafkaCore>,
}

/// What the log and all that was made from it share.
pub(super) struct KafkaCore {
    pub(super) config: Config,
    admin: Admin,
    /// Sees the last stable offset as the end.
    stable: BaseConsumer<KafkaContext>,
    /// Sees the high watermark as the end.
    latest: BaseConsumer<KafkaContext>,
    /// By group: who asks for its offsets.
    observers: Mutex<BTreeMap<String, Arc<BaseConsumer<KafkaContext>>>>,
    /// Partition counts of topics that were seen; fixed for a topic's life.
    counts: Mutex<BTreeMap<Topic, u32>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KafkaLog {
    /// Makes the clients. The broker is asked by the first call, not here.
    pub fn open(config: Config) -> Result<Arc<Self>, LogError> {
        if let Some(problem) = config.problems().into_iter().next() {
            return Err(LogError::Invalid(format!("kafka.properties: {problem}")));
        }
        let make = |isolation| make_consumer(&config.reader(isolation, None));
        let (stable, latest) = (make(Isolation::Committed)?, make(Isolation::Uncommitted)?);
        let client = config.admin().create_with_context(KafkaContext::default());
        let admin = Admin::new(client.map_err(|error| invalid_properties(&error))?, config.clone());
        let (observers, counts) = (Mutex::default(), Mutex::default());
        let core = KafkaCore { config, admin, stable, latest, observers, counts };
        Ok(Arc::new(Self { core: Arc::new(core) }))
    }
}

/// A consumer of this configuration.
pub(super) fn make_consumer(config: &ClientConfig) -> Result<BaseConsumer<KafkaContext>, LogError> {
    config.create_with_context(KafkaContext::default()).map_err(|error| invalid_properties(&error))
}

impl KafkaCore {
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
    fn ask<T>(
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
    fn find_topic<T>(
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
    fn await_leaders(&self, spec: &TopicSpec) -> Result<(), LogError> {
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
    fn compare(&self, spec: &TopicSpec, found: TopicShape) -> Result<(), LogError> {
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

    fn observer(&self, group: &str) -> Result<Arc<BaseConsumer<KafkaContext>>, LogError> {
        if let Some(observer) = lock(&self.observers).get(group) {
            return Ok(Arc::clone(observer));
        }
        let observer = Arc::new(make_consumer(&self.config.observer(group))?);
        lock(&self.observers).insert(group.to_owned(), Arc::clone(&observer));
        Ok(observer)
    }
}

/// A topic as it was found: its partitions, and the fewest copies one of them has.
struct TopicShape {
    partitions: usize,
    copies: usize,
}

impl TopicShape {
    fn of(topic: &MetadataTopic) -> Self {
        let copies = topic.partitions().iter().map(|p| p.replicas().len()).min();
        Self { partitions: topic.partitions().len(), copies: copies.unwrap_or(0) }
    }
}

/// A partition's number as Kafka counts.
pub(super) fn partition_number(at: &TopicPartition) -> i32 {
    i32::try_from(at.partition.0).unwrap_or(i32::MAX)
}

/// Offsets with their metadata as librdkafka lists them.
pub(super) fn offset_list(
    offsets: &[(TopicPartition, Committed)],
) -> Result<TopicPartitionList, LogError> {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for (at, committed) in offsets {
        let offset = i64::try_from(committed.offset.0).unwrap_or(i64::MAX);
        let mut element = list.add_partition(at.topic.as_str(), partition_number(at));
        let set = element.set_offset(KafkaOffset::Offset(offset));
        set.map_err(|error| LogError::Invalid(format!("{at}: {error}")))?;
        element.set_metadata(&committed.metadata);
    }
    Ok(list)
}

impl Log for KafkaLog {
    fn create(&self, spec: &TopicSpec) -> Result<bool, LogError> {
        if let Some(found) = self.core.find_topic(&spec.topic, TopicShape::of)? {
            return self.core.compare(spec, found).map(|()| false);
        }
        if !self.core.admin.create(spec)? {
            // Another process was faster; what it made is looked at like any other.
            self.core.await_leaders(spec)?;
            return self.create(spec);
        }
        self.core.await_leaders(spec)?;
        Ok(true)
    }

    fn topics(&self) -> Result<Vec<TopicInfo>, LogError> {
        let core = &self.core;
        let doing = "listing the topics";
        let metadata = core.ask(&core.latest, doing, |c| c.fetch_metadata(None, CALL_LIMIT))?;
        let ours = metadata.topics().iter().filter(|t| t.name().starts_with(&core.config.prefix));
        let mut topics: Vec<(&str, u32)> =
            ours.map(|t| (t.name(), u32::try_from(t.partitions().len()).unwrap_or(0))).collect();
        topics.sort_unstable();
        if topics.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<&str> = topics.iter().map(|(name, _)| *name).collect();
        let ids = native::topic_ids(&core.latest, &names, CALL_LIMIT);
        let ids = ids.map_err(|code| core.failed("asking for the ids of the topics", code))?;
        let described = core.admin.describe(&names)?;
        let mut infos = Vec::new();
        for ((name, partitions), described) in topics.into_iter().zip(described) {
            let id = ids.iter().find(|(of, _)| of == name).map(|(_, id)| *id);
            let id = id.unwrap_or(Err(Code::UnknownTopicOrPartition));
            let id =
                id.map_err(|code| core.failed(format!("asking for the id of {name}"), code))?;
            let spec =
                TopicSpec { topic: Topic::new(name), partitions, cleanup: described.cleanup };
            infos.push(TopicInfo { spec, id });
        }
        Ok(infos)
    }

    fn bounds(&self, at: &TopicPartition, isolation: Isolation) -> Result<Bounds, LogError> {
        self.core.bounds(at, isolation)
    }

    fn offset_at(&self, at: &TopicPartition, time: Millis) -> Result<Option<Offset>, LogError> {
        self.core.check(at)?;
        let mut ask = TopicPartitionList::with_capacity(1);
        let time = KafkaOffset::Offset(time.0.max(0));
        ask.add_partition_offset(at.topic.as_str(), partition_number(at), time)
            .map_err(|error| LogError::Invalid(format!("{at}: {error}")))?;
        let doing = format!("asking for the offset of a time in {at}");
        let found = self.core.ask(&self.core.stable, &doing, |client| {
            let found = client.offsets_for_times(ask, CALL_LIMIT)?;
            let element = found.find_partition(at.topic.as_str(), partition_number(at));
            element.map(|e| e.error().map(|()| e.offset())).transpose()
        })?;
        match found {
            Some(KafkaOffset::Offset(offset)) => Ok(u64::try_from(offset).ok().map(Offset)),
            _ => Ok(None),
        }
    }

    fn committed(
        &self,
        group: &str,
        of: &[TopicPartition],
    ) -> Result<Vec<Option<Committed>>, LogError> {
        let mut ask = TopicPartitionList::with_capacity(of.len());
        for at in of {
            ask.add_partition(at.topic.as_str(), partition_number(at));
        }
        let observer = self.core.observer(group)?;
        let doing = format!("asking for the offsets of the group {group}");
        let found = self.core.ask(&observer, &doing, |c| c.committed_offsets(ask, CALL_LIMIT))?;
        let mut committed = Vec::with_capacity(of.len());
        for at in of {
            let element = found.find_partition(at.topic.as_str(), partition_number(at));
            let Some(element) = element else {
                committed.push(None);
                continue;
            };
            element
                .error()
                .map_err(|error| log_error::from_error(&doing, &error, observer.context()))?;
            committed.push(match element.offset() {
                KafkaOffset::Offset(offset) => Some(Committed {
                    offset: Offset(u64::try_from(offset).unwrap_or(0)),
                    metadata: element.metadata().to_owned(),
                }),
                _ => None,
            });
        }
        Ok(committed)
    }

    fn appender(&self) -> Result<Box<dyn Appender>, LogError> {
        Ok(Box::new(KafkaAppender::new(&self.core)?))
    }

    fn transactor(&self, id: &str) -> Result<Box<dyn Transactor>, LogError> {
        Ok(Box::new(KafkaTransactor::new(&self.core, id)?))
    }

    fn reader(&self, isolation: Isolation) -> Result<Box<dyn Reader>, LogError> {
        Ok(Box::new(KafkaReader::new(&self.core, isolation, None)))
    }

    fn member(&self, spec: &MemberSpec) -> Result<Box<dyn Member>, LogError> {
        Ok(Box::new(KafkaMember::new(&self.core, spec)?))
    }
}
