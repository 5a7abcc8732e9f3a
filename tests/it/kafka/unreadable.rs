//! Batches that a broker accepts and a reader may fail on: large ones, and damaged ones.

use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tidewire_tests::broker;

use super::fixture::{OutputReader, TIMEOUT, TopicNamespace, serve, serve_with};

/// Records of one batch: 68 MB unpacked.
const RECORDS: usize = 340;
const TEXT_BYTES: usize = 200_000;

/// Writes all events in one batch, which zstd makes small enough for the broker.
fn write_one_batch(at: TopicNamespace<'_>) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", at.bootstrap)
        .set("compression.codec", "zstd")
        .set("batch.size", "200000000")
        .set("message.max.bytes", "200000000")
        .set("queue.buffering.max.kbytes", "200000")
        .set("linger.ms", "3000")
        .create()
        .expect("a producer");
    let topic = format!("{}in", at.prefix);
    let text = "x".repeat(TEXT_BYTES);
    for n in 0..RECORDS {
        let value = serde_json::json!({"event_id": format!("e-{n}"), "event_type": "post.created",
            "account_id": "acc", "data": {"post_id": "p", "author_id": "ann", "text": text}})
        .to_string();
        let record = BaseRecord::<str, str>::to(&topic).partition(0).payload(&value);
        producer.send(record).map_err(|(error, _)| error).expect("there is room");
    }
    producer.flush(TIMEOUT).expect("all are acknowledged");
}

#[test]
fn a_batch_of_68_mb_that_a_broker_accepts_compressed_is_read() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "large-batch.");
    let server = serve("dev", at, "only");
    write_one_batch(at);
    let admitted = "tidewire_admit_records_total{source=\"in\"}";
    let give_up = Instant::now() + TIMEOUT;
    while server.metric(admitted).unwrap_or(0.0) < RECORDS as f64 {
        assert!(Instant::now() < give_up, "{:?} of {RECORDS}", server.metric(admitted));
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_batch_above_the_limit_shows_in_readiness_metrics_and_log_and_stops_only_its_partition() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "too-large-batch.");
    let limit = ("TIDEWIRE_KAFKA_PROPERTIES_RECEIVE_MESSAGE_MAX_BYTES", "60000000");
    let server = serve_with("dev", at, "only", &[limit]);
    write_one_batch(at);
    let give_up = Instant::now() + TIMEOUT;
    let shown = loop {
        let answer = server.http().get("/readyz").expect("an answer");
        if answer.status == 503 {
            break answer.text();
        }
        assert!(Instant::now() < give_up, "ready: {}", answer.text());
        thread::sleep(Duration::from_millis(100));
    };
    assert!(shown.contains("too-large-batch.in/0 can't be read at offset 0: "), "{shown}");
    assert!(shown.contains("receive.message.max.bytes"), "{shown}");
    assert!(server.printed().contains("can't be read at offset 0"), "{}", server.printed());
    assert_eq!(server.metric("tidewire_kafka_unreadable_partitions"), Some(1.0));
    // Growing waits: about a dozen attempts in the first minute, where there were ten a second.
    let failures = "tidewire_kafka_read_failures_total{topic=\"too-large-batch.in\"\
                    ,code=\"BadCompression\"}";
    let before = server.metric(failures).expect("they are counted");
    thread::sleep(Duration::from_secs(10));
    let after = server.metric(failures).expect("they are counted");
    assert!(after - before < 6.0, "{before} failures, 10 s later {after}");
    // The other partitions are read.
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", at.bootstrap).create().expect("a producer");
    let value = serde_json::json!({"event_id": "other", "event_type": "post.created",
        "account_id": "acc", "data": {"post_id": "p", "author_id": "bob", "text": "t"}});
    let (topic, value) = (format!("{}in", at.prefix), value.to_string());
    let record = BaseRecord::<str, str>::to(&topic).partition(1).payload(&value);
    producer.send(record).map_err(|(error, _)| error).expect("there is room");
    producer.flush(TIMEOUT).expect("it is acknowledged");
    let mut outputs = OutputReader::open(at, &["out.stream"]);
    assert!(outputs.read(1, TIMEOUT), "nothing of the other partition");
}
