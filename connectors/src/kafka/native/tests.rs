//! What librdkafka does with a broker's hint on new leaders, tried on its own mock of a cluster.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::clock;

const TOPIC: &str = "moves";
const PARTITIONS: i32 = 4;
const PATIENCE: Duration = Duration::from_secs(30);

/// Keeps what librdkafka says of one facility.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<String>>>);

impl ClientContext for Said {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "METADATAUPDATE" {
            self.0.lock().unwrap().push(message.to_owned());
        }
    }
}

impl ConsumerContext for Said {}

#[test]
fn a_hint_on_a_new_leader_is_passed_over_and_the_leader_is_found_all_the_same() {
    let cluster = MockCluster::new(2).unwrap();
    cluster.create_topic(TOPIC, PARTITIONS, 2).unwrap();
    for partition in 0..PARTITIONS {
        cluster.partition_leader(TOPIC, partition, Some(1)).unwrap();
    }
    let said = Said::default();
    let consumer = reader(&cluster.bootstrap_servers(), &said);
    write(&cluster.bootstrap_servers());
    read(&consumer);
    for partition in 0..PARTITIONS / 2 {
        cluster.partition_leader(TOPIC, partition, Some(2)).unwrap();
    }
    write(&cluster.bootstrap_servers());
    read(&consumer);
    assert_eq!(*said.0.lock().unwrap(), Vec::<String>::new(), "a hint was believed");
}

fn reader(bootstrap: &str, said: &Said) -> BaseConsumer<Said> {
    let consumer: BaseConsumer<Said> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "none")
        .set("debug", "metadata")
        .set_log_level(RDKafkaLogLevel::Debug)
        .create_with_context(said.clone())
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
    producer.flush(PATIENCE).unwrap();
}

/// Reads a record of each partition.
fn read(consumer: &BaseConsumer<Said>) {
    let deadline = clock::now() + PATIENCE;
    let mut left = PARTITIONS;
    while left > 0 {
        assert!(clock::now() < deadline, "{left} partitions have not been read");
        if let Some(Ok(_)) = consumer.poll(Duration::from_millis(100)) {
            left -= 1;
        }
    }
}
