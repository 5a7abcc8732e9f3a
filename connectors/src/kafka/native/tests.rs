//! Tests that ends are read rightly, and on a mock cluster that leader hints are ignored.
//!
//! An update of librdkafka that renames the wrapped function fails here.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use tidewire_engine::record::Offset as End;

use super::found_end;
use crate::clock;

const TOPIC: &str = "moves";
const PARTITIONS: i32 = 4;
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Captures librdkafka's log lines of one facility.
#[derive(Clone, Default)]
struct HintLog(Arc<Mutex<Vec<String>>>);

impl ClientContext for HintLog {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "METADATAUPDATE" {
            self.0.lock().unwrap().push(message.to_owned());
        }
    }
}

impl ConsumerContext for HintLog {}

#[test]
fn a_leader_hint_is_ignored_and_the_new_leader_is_found() {
    let cluster = MockCluster::new(2).unwrap();
    cluster.create_topic(TOPIC, PARTITIONS, 2).unwrap();
    for partition in 0..PARTITIONS {
        cluster.partition_leader(TOPIC, partition, Some(1)).unwrap();
    }
    let hints = HintLog::default();
    let consumer = reader(&cluster.bootstrap_servers(), &hints);
    write(&cluster.bootstrap_servers());
    read(&consumer);
    for partition in 0..PARTITIONS / 2 {
        cluster.partition_leader(TOPIC, partition, Some(2)).unwrap();
    }
    write(&cluster.bootstrap_servers());
    read(&consumer);
    assert_eq!(*hints.0.lock().unwrap(), Vec::<String>::new(), "a hint was used");
}

fn reader(bootstrap: &str, hints: &HintLog) -> BaseConsumer<HintLog> {
    let consumer: BaseConsumer<HintLog> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "none")
        .set("debug", "metadata")
        .set_log_level(RDKafkaLogLevel::Debug)
        .create_with_context(hints.clone())
        .unwrap();
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(TOPIC, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&all).unwrap();
    consumer
}

/// A record into each partition.
fn write(bootstrap: &str) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    for partition in 0..PARTITIONS {
        let record = BaseRecord::<(), str>::to(TOPIC).partition(partition).payload("x");
        producer.send(record).unwrap();
    }
    producer.flush(TIME_LIMIT).unwrap();
}

/// Reads a record of each partition.
fn read(consumer: &BaseConsumer<HintLog>) {
    let deadline = clock::now() + TIME_LIMIT;
    let mut left = PARTITIONS;
    while left > 0 {
        assert!(clock::now() < deadline, "{left} partitions have not been read");
        if let Some(Ok(_)) = consumer.poll(Duration::from_millis(100)) {
            left -= 1;
        }
    }
}

#[test]
fn a_negative_offset_without_an_error_is_no_end() {
    let fine = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    let no_leader = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION;
    assert_eq!(found_end(fine, 0), Ok(End(0)));
    assert_eq!(found_end(fine, 7), Ok(End(7)));
    // librdkafka's preset of an offset is -1001.
    for unset in [-1, -1001] {
        assert_eq!(found_end(fine, unset), Err(RDKafkaErrorCode::OperationTimedOut));
    }
    assert_eq!(found_end(no_leader, 7), Err(RDKafkaErrorCode::NotLeaderForPartition));
    assert_eq!(found_end(no_leader, -1001), Err(RDKafkaErrorCode::NotLeaderForPartition));
}
