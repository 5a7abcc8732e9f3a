//! Public bug reports of other consumers of Kafka, tried here as black-box cases.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tidewire_tests::broker::{self, Broker};

use super::fixture::{EventWriter, OutputReader, TIMEOUT, TopicNamespace, check, serve};

/// The tool that deletes a group's offsets, as their expiry does.
const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";

/// A header without a value is legal, and stops some consumers:
/// <https://github.com/ballerina-platform/ballerina-library/issues/8215>.
#[test]
fn a_header_without_a_value_does_not_stop_its_partition() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "null-header.");
    let server = serve("dev", at, "only");
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", at.bootstrap).create().expect("a producer");
    for (n, name) in ["trace", "content-type", "ce_id", "event_id"].into_iter().enumerate() {
        let value = serde_json::json!({"event_id": format!("e-{n}"), "event_type": "post.created",
            "account_id": "acc", "data": {"post_id": "p", "author_id": "ann", "text": name}})
        .to_string();
        let headers = OwnedHeaders::new().insert(Header::<&[u8]> { key: name, value: None });
        let record = BaseRecord::<[u8], str>::to("null-header.in").partition(0);
        let sent = producer.send(record.payload(&value).headers(headers));
        sent.map_err(|(error, _)| error).expect("there is room");
    }
    producer.flush(TIMEOUT).expect("all are acknowledged");
    let mut outputs = OutputReader::open(at, &["out.stream"]);
    // Three channels each.
    assert!(outputs.read(12, TIMEOUT), "{} of 12", outputs.all.len());
    drop(server);
}

/// A group's offsets expire while all its members are stopped, for a week by default and for less
/// on some managed brokers: <https://github.com/confluentinc/librdkafka/issues/1442>. DERIVE knows
/// from its store what it has consumed, so it consumes nothing again.
#[test]
fn expired_offsets_of_derive_cause_no_second_delivery() {
    let broker = Broker::start();
    let bootstrap = broker.bootstrap();
    let at = TopicNamespace::new(&bootstrap, "tw.");
    let mut server = serve("dev", at, "only");
    let writer = EventWriter::start(at, 300);
    std::thread::sleep(Duration::from_secs(2));
    let numbers = writer.finish();
    check(at, numbers);
    server.stop();
    // A member that left is gone at once, but the group may be seen as stable for a moment.
    let deleted = Instant::now();
    loop {
        let said = broker.tool(GROUPS, &["--delete", "--group", "tw.derive"]);
        if said.contains("was successful") {
            break;
        }
        assert!(deleted.elapsed() < TIMEOUT, "{said}");
    }
    server.restart_in_place();
    check(at, numbers);
    let again = server.metric("tidewire_derive_duplicates_total{reason=\"id\"}").unwrap_or(0.0);
    assert!(again == 0.0, "{again} records were consumed a second time");
}
