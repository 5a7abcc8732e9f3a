//! The `Log` port on Apache Kafka: each method of the port, and nothing else.
//!
//! Opening only creates clients, so an unreachable broker fails the first call, not `open`. A topic
//! that exists with other settings is refused, never changed.

use std::sync::Arc;

use rdkafka::consumer::Consumer;
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode as Code;
use tidewire_engine::port::{
    Appender, Bounds, Committed, EndsRequest, Isolation, Log, LogError, Member, MemberSpec, Reader,
    TopicInfo, TopicSpec, Transactor,
};
use tidewire_engine::record::{Millis, Offset, Topic, TopicPartition};

use super::append::KafkaAppender;
use super::config::Config;
use super::core::{CALL_LIMIT, KafkaCore, TopicShape};
use super::ends::KafkaEndsRequest;
use super::log_error;
use super::member::KafkaMember;
use super::native;
use super::partition_list::partition_number;
use super::read::KafkaReader;
use super::transact::KafkaTransactor;

/// The log on Kafka. Cheap to clone; everything made from it shares its core.
#[derive(Clone)]
pub struct KafkaLog {
    core: Arc<KafkaCore>,
}

impl KafkaLog {
    /// Creates the clients. The first call asks a broker, not this one.
    pub fn open(config: Config) -> Result<Arc<Self>, LogError> {
        Ok(Arc::new(Self { core: Arc::new(KafkaCore::open(config)?) }))
    }
}

impl Log for KafkaLog {
    fn create(&self, spec: &TopicSpec) -> Result<bool, LogError> {
        if let Some(found) = self.core.find_topic(&spec.topic, TopicShape::of)? {
            return self.core.compare(spec, found).map(|()| false);
        }
        if !self.core.admin.create(spec)? {
            // Another process created it first; compare it like any existing topic.
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
        let ids = ids.map_err(|code| core.failed("reading the ids of the topics", code))?;
        let described = core.admin.describe(&names)?;
        let mut infos = Vec::new();
        for ((name, partitions), described) in topics.into_iter().zip(described) {
            let id = ids.iter().find(|(of, _)| of == name).map(|(_, id)| *id);
            let id = id.unwrap_or(Err(Code::UnknownTopicOrPartition));
            let id = id
                .map_err(|code| core.failed(format!("reading the id of the topic {name}"), code))?;
            let spec =
                TopicSpec { topic: Topic::new(name), partitions, cleanup: described.cleanup };
            infos.push(TopicInfo { spec, id });
        }
        Ok(infos)
    }

    fn bounds(&self, at: &TopicPartition, isolation: Isolation) -> Result<Bounds, LogError> {
        self.core.bounds(at, isolation)
    }

    fn request_ends(
        &self,
        of: &[TopicPartition],
        isolation: Isolation,
    ) -> Result<Box<dyn EndsRequest>, LogError> {
        Ok(Box::new(KafkaEndsRequest::new(&self.core, of, isolation)?))
    }

    fn offset_at(&self, at: &TopicPartition, time: Millis) -> Result<Option<Offset>, LogError> {
        self.core.check(at)?;
        let mut ask = TopicPartitionList::with_capacity(1);
        let time = KafkaOffset::Offset(time.0.max(0));
        ask.add_partition_offset(at.topic.as_str(), partition_number(at), time)
            .map_err(|error| LogError::Invalid(format!("{at}: {error}")))?;
        let doing = format!("looking up an offset by time in {at}");
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
        let doing = format!("reading the offsets of the group {group}");
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

    fn read_problems(&self) -> Vec<String> {
        self.core.unreadable.sentences()
    }

    fn member(&self, spec: &MemberSpec) -> Result<Box<dyn Member>, LogError> {
        Ok(Box::new(KafkaMember::new(&self.core, spec)?))
    }
}
