//! What both sides share: the topics, the lane's records, and checks of the outputs.
//!
//! All of it uses plain Kafka clients.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode as Code;
use tempfile::TempDir;
use tidewire_connectors::kafka::{Config, KafkaLog};
use tidewire_engine::port::{Cleanup, Log as _, TopicSpec};
use tidewire_engine::record::Topic;
use tidewire_engine::topics_layout::{LayoutNumber, create_topics};
use tidewire_engine::topology::{DEFAULT_PARTITIONS, Lane, Topology};
use tidewire_engine::value_level::ValueLevel;
use tidewire_schemas::Priority;
use tidewire_schemas::event::Event;
use tidewire_tests::test_rng::TestRng;

use crate::sides::Side;

/// How long a response, or the last records of a schedule, may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes of an event's text that make a lane record about 300 bytes.
const TEXT_BYTES: usize = 150;

/// The account of every event.
const ACCOUNT: &str = "bench";

/// Texts are cut from this, each at another offset.
const FILL: &str = "the tide comes in and the tide goes out, twice a day and never twice the same; \
     what it brings it takes, what it takes it brings, and every listener on the coast gets all of \
     it once, in order, whether the moon is up or down, and nobody has to wait for those who sleep";

/// Topics of one run, and what was written to its lane.
pub(crate) struct BenchFixture {
    pub(crate) bootstrap: String,
    pub(crate) topology: Topology,
    /// Records in the lane.
    pub(crate) written: usize,
    /// Where the sides keep their state.
    dir: TempDir,
}

impl BenchFixture {
    /// Makes the topics.
    pub(crate) fn make(bootstrap: &str, prefix: &str) -> io::Result<Self> {
        let topology = Topology::new(prefix, DEFAULT_PARTITIONS);
        let log = KafkaLog::open(Config::new(bootstrap, prefix)).map_err(io::Error::other)?;
        create_topics(&*log, &topology, LayoutNumber::CURRENT, ValueLevel::FIRST)
            .map_err(io::Error::other)?;
        let counts = TopicSpec {
            topic: Topic::new(format!("{prefix}streams-counts")),
            partitions: DEFAULT_PARTITIONS,
            cleanup: Cleanup::Delete { retention_ms: None, retention_bytes: None },
        };
        log.create(&counts).map_err(io::Error::other)?;
        let bootstrap = bootstrap.to_owned();
        Ok(Self { bootstrap, topology, written: 0, dir: tempfile::tempdir()? })
    }

    /// The folder of a side's state.
    pub(crate) fn dir(&self, side: &str) -> PathBuf {
        self.dir.path().join(side)
    }

    /// The input of both.
    pub(crate) fn input(&self) -> &str {
        self.topology.lane(Lane::Normal).as_str()
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }

    /// Writes this many records to the lane: each key once, then random ones.
    pub(crate) fn produce(&mut self, records: usize, keys: usize) -> io::Result<()> {
        self.fill(Priority::Normal, records, keys)?;
        self.written += records;
        Ok(())
    }

    /// The same to the lane of a priority, not counted in `written`.
    pub(crate) fn fill(&self, priority: Priority, records: usize, keys: usize) -> io::Result<()> {
        let writer = self.writer(priority, "20")?;
        let mut rng = TestRng::new(self.written as u64);
        for n in self.written..self.written + records {
            writer.write(n, if n < keys { n } else { rng.index(keys) })?;
        }
        writer.finish()
    }

    /// A writer to a lane that batches records for this many milliseconds.
    pub(crate) fn writer(&self, priority: Priority, linger_ms: &str) -> io::Result<LaneWriter> {
        let mut config = self.client();
        config.set("enable.idempotence", "true").set("linger.ms", linger_ms);
        config.set("queue.buffering.max.messages", "100000");
        let producer = config.create().map_err(io::Error::other)?;
        Ok(LaneWriter { producer, topology: self.topology.clone(), priority })
    }

    /// An observer of a group's progress in a lane.
    pub(crate) fn observer(&self, group: &str, lane: Lane) -> io::Result<Observer> {
        let mut config = self.client();
        // Does not wait for open transactions.
        config.set("group.id", group).set("isolation.level", "read_uncommitted");
        let consumer = config.create().map_err(io::Error::other)?;
        let mut list = TopicPartitionList::new();
        let topic = self.topology.lane(lane).as_str();
        list.add_partition_range(topic, 0, DEFAULT_PARTITIONS as i32 - 1);
        Ok(Observer { consumer, list })
    }

    /// Waits until a side has read everything that was written.
    pub(crate) fn wait_for(&self, side: Side) -> io::Result<()> {
        let observer = self.observer(&side.group(self), Lane::Normal)?;
        let give_up = Instant::now() + TIMEOUT * 10;
        while observer.committed()? < self.written {
            if Instant::now() > give_up {
                return Err(io::Error::other(format!("{}: it does not catch up", side.name())));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// A reader of what is committed in a topic, from its beginning or its end.
    pub(crate) fn reader(&self, topic: &str, from: Offset) -> io::Result<BaseConsumer> {
        let mut config = self.client();
        config.set("group.id", "onlooker").set("isolation.level", "read_committed");
        config.set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        let consumer: BaseConsumer = config.create().map_err(io::Error::other)?;
        let mut list = TopicPartitionList::new();
        for partition in 0..DEFAULT_PARTITIONS as i32 {
            let at = match from {
                Offset::End => {
                    let bounds = consumer.fetch_watermarks(topic, partition, TIMEOUT);
                    Offset::Offset(bounds.map_err(io::Error::other)?.1)
                }
                from => from,
            };
            list.add_partition_offset(topic, partition, at).map_err(io::Error::other)?;
        }
        consumer.assign(&list).map_err(io::Error::other)?;
        Ok(consumer)
    }

    /// The last counts of all keys in a topic must add up to what was written. Returns the number
    /// of output records.
    pub(crate) fn check(&self, topic: &str) -> io::Result<usize> {
        let reader = self.reader(topic, Offset::Beginning)?;
        let (mut counts, mut outputs, mut ended) = (HashMap::new(), 0, 0);
        let patience = Instant::now() + TIMEOUT * 10;
        while ended < DEFAULT_PARTITIONS {
            match reader.poll(TIMEOUT) {
                Some(Ok(message)) => {
                    let (key, count) = counted(&message)?;
                    let before = counts.insert(key.to_owned(), count).unwrap_or(0);
                    if count <= before {
                        return Err(io::Error::other(format!("{key}: {count} after {before}")));
                    }
                    outputs += 1;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
                Some(Err(error)) => return Err(io::Error::other(error)),
                None => {}
            }
            if Instant::now() > patience {
                return Err(io::Error::other(format!("{topic} can't be read to its end")));
            }
        }
        let sum: u64 = counts.values().sum();
        if sum != self.written as u64 {
            let text = format!("{topic} counts {sum} records of {}", self.written);
            return Err(io::Error::other(text));
        }
        Ok(outputs)
    }
}

/// The key of an output and its count. Tidewire's key follows a zero byte.
pub(crate) fn counted(message: &impl rdkafka::Message) -> io::Result<(&str, u64)> {
    let key = message.key().and_then(|key| key.split(|byte| *byte == 0).next());
    let key = key.and_then(|key| std::str::from_utf8(key).ok());
    let count = message.payload().and_then(|value| value.first_chunk());
    match (key, count) {
        (Some(key), Some(count)) => Ok((key, u64::from_be_bytes(*count))),
        _ => Err(io::Error::other("an output is no count of a key")),
    }
}

/// The name of the key with this number.
pub(crate) fn key_name(key: usize) -> String {
    format!("key-{key:09}")
}

/// The inverse of [`key_name`].
pub(crate) fn key_number(name: &str) -> Option<usize> {
    name.strip_prefix("key-")?.parse().ok()
}

/// Writes lane records as ADMIT does.
pub(crate) struct LaneWriter {
    producer: BaseProducer,
    topology: Topology,
    priority: Priority,
}

impl LaneWriter {
    /// Writes event `n` of a key.
    pub(crate) fn write(&self, n: usize, key: usize) -> io::Result<()> {
        let key = key_name(key);
        let text = &FILL[n % (FILL.len() - TEXT_BYTES)..][..TEXT_BYTES];
        let event = Event {
            event_id: format!("event-{n:09}"),
            event_type: "post.created".to_owned(),
            account_id: ACCOUNT.to_owned(),
            timestamp_ms: 1_700_000_000_000,
            correlation_id: format!("event-{n:09}"),
            priority: self.priority,
            key: key.clone(),
            source: None,
            alias: None,
            data: format!(r#"{{"author_id":"{key}","post_id":"p{n}","text":"{text}"}}"#),
        };
        let value = event.encode();
        let partition = self.topology.entity_partition(ACCOUNT, &key).0 as i32;
        let topic = self.topology.lane(Lane::of(self.priority)).as_str();
        loop {
            let record = BaseRecord::to(topic).key(&key).payload(&value).partition(partition);
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(Code::QueueFull), _)) => {
                    self.producer.poll(Duration::from_millis(10));
                }
                Err((error, _)) => return Err(io::Error::other(error)),
            }
        }
    }

    /// Polls the producer for this long.
    pub(crate) fn serve(&self, time: Duration) {
        self.producer.poll(time);
    }

    /// Waits until everything is acknowledged.
    pub(crate) fn finish(&self) -> io::Result<()> {
        self.producer.flush(TIMEOUT).map_err(io::Error::other)
    }
}

/// Reads a group's progress.
pub(crate) struct Observer {
    consumer: BaseConsumer,
    list: TopicPartitionList,
}

impl Observer {
    /// Records of the lane the group has committed.
    pub(crate) fn committed(&self) -> io::Result<usize> {
        let give_up = Instant::now() + TIMEOUT;
        let committed = loop {
            match self.consumer.committed_offsets(self.list.clone(), TIMEOUT) {
                Ok(committed) => break committed,
                // A new group has no coordinator for a moment.
                Err(_) if Instant::now() < give_up => thread::sleep(Duration::from_millis(50)),
                Err(error) => return Err(io::Error::other(error)),
            }
        };
        let offset = |offset: Offset| match offset {
            Offset::Offset(offset) => usize::try_from(offset).unwrap_or(0),
            _ => 0,
        };
        Ok(committed.elements().iter().map(|element| offset(element.offset())).sum())
    }
}
