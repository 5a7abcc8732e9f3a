//! A cluster of three brokers that loses its coordinators, then two of three brokers.
//!
//! The first coordinate the group and the transactions; without two brokers nothing can be
//! acknowledged for a while.

use std::thread;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tidewire_tests::broker::Cluster;
use tidewire_tests::server::Server;

use super::fixture::{EventWriter, OutputReader, TIMEOUT, TopicNamespace, check};

const PREFIX: &str = "tw.";

#[test]
fn dead_coordinators_and_too_few_replicas_only_delay_delivery() {
    let mut cluster = Cluster::start(3);
    let bootstrap = cluster.bootstrap();
    let at = TopicNamespace::new(&bootstrap, PREFIX);
    let log = format!("kafka://{bootstrap}");
    let variables = [
        ("TIDEWIRE_INSTANCE", "only"),
        ("TIDEWIRE_KAFKA_REPLICATION", "3"),
        ("TIDEWIRE_KAFKA_MIN_INSYNC", "2"),
    ];
    let server = Server::start_as("dev", &["--log", &log], &variables);
    let process = server.pid();
    let writer = EventWriter::start(at, 200);
    let mut outputs = OutputReader::open(at, &["out.stream", "out.urgent"]);
    assert!(outputs.read(600, Duration::from_secs(60)), "it works");
    let derive = format!("{PREFIX}derive");
    let transactions = format!("{derive}-only-0-a");
    for (topic, name) in [("__consumer_offsets", &derive), ("__transaction_state", &transactions)] {
        let coordinator = coordinator(&bootstrap, topic, name);
        cluster.broker(coordinator).kill9();
        goes_on(&mut outputs, &format!("without the leader of {name}"));
        cluster.broker(coordinator).restart();
        goes_on(&mut outputs, "with it again");
    }
    // The brokers are the controllers too: one of three is no majority, and below min.insync.
    cluster.broker(1).kill9();
    cluster.broker(2).kill9();
    thread::sleep(Duration::from_secs(8));
    cluster.broker(1).restart();
    cluster.broker(2).restart();
    goes_on(&mut outputs, "after the cluster is complete again");
    assert_eq!(server.pid(), process, "the process has not restarted");
    check(at, writer.finish());
    drop(server);
}

/// Some seconds of outputs arrive.
fn goes_on(outputs: &mut OutputReader, when: &str) {
    let wanted = outputs.all.len() + 1_500;
    assert!(outputs.read(wanted, TIMEOUT), "nothing is delivered {when}");
}

/// The leader of the partition of an internal topic that this name belongs to.
fn coordinator(bootstrap: &str, topic: &str, name: &str) -> u32 {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().expect("a consumer");
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).expect("metadata");
    let partitions = metadata.topics()[0].partitions();
    // Java's `String.hashCode`, without its sign.
    let hash = name.bytes().fold(0i32, |h, byte| h.wrapping_mul(31).wrapping_add(byte.into()));
    let partition = (hash & i32::MAX) % i32::try_from(partitions.len()).expect("few");
    let of = partitions.iter().find(|found| found.id() == partition).expect("all are listed");
    u32::try_from(of.leader()).expect("it has a leader")
}
