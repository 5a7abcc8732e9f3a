//! Batches that a broker accepts and a reader may fail on: large ones, and damaged ones.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tidewire_connectors::kafka::{Config, KafkaLog};
use tidewire_engine::port::{Isolation, Log, ReadLimit};
use tidewire_engine::record::{Offset, Partition, Record, Topic, TopicPartition};
use tidewire_engine::topology::Topology;
use tidewire_tests::broker;
use tidewire_tests::server::Server;

use super::failures::create_topics;
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
fn a_record_that_unpacks_to_more_than_a_dead_letter_holds_ends_nothing() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "large-record.");
    let server = serve("dev", at, "only");
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", at.bootstrap)
        .set("compression.codec", "zstd")
        .set("message.max.bytes", "200000000")
        .create()
        .expect("a producer");
    let topic = format!("{}in", at.prefix);
    let large = "x".repeat(5_000_000);
    let event = serde_json::json!({"event_id": "e-1", "event_type": "post.created",
        "account_id": "acc", "data": {"post_id": "p", "author_id": "ann", "text": "t"}})
    .to_string();
    for value in [&large, &event] {
        let record = BaseRecord::<str, str>::to(&topic).partition(0).payload(value);
        producer.send(record).map_err(|(error, _)| error).expect("there is room");
        producer.flush(TIMEOUT).expect("it is acknowledged");
    }
    let rejected = "tidewire_admit_rejected_total{reason=\"too_large\"}";
    let delivered = "tidewire_derive_outputs_total";
    let give_up = Instant::now() + TIMEOUT;
    while server.metric(rejected) != Some(1.0) || server.metric(delivered).is_none() {
        assert!(Instant::now() < give_up, "{:?}", server.metric(rejected));
        thread::sleep(Duration::from_millis(100));
    }
}

/// Writes this many batches of one event each.
fn write_batches(at: TopicNamespace<'_>, count: u32) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", at.bootstrap).create().expect("a producer");
    let topic = format!("{}in", at.prefix);
    for n in 0..count {
        let value = serde_json::json!({"event_id": format!("e-{n}"), "event_type": "post.created",
            "account_id": "acc", "data": {"post_id": "p", "author_id": "ann", "text": "t"}})
        .to_string();
        let record = BaseRecord::<str, str>::to(&topic).partition(0).payload(&value);
        producer.send(record).map_err(|(error, _)| error).expect("there is room");
        producer.flush(TIMEOUT).expect("it is acknowledged");
    }
}

/// Changes the last byte of the second batch of a segment.
fn damage_second_batch(segment: &Path) {
    let file = File::options().read(true).write(true).open(segment).expect("it exists");
    let end_of = |batch: u64| {
        let mut length = [0; 4];
        file.read_exact_at(&mut length, batch + 8).expect("a whole batch");
        batch + 12 + u64::from(u32::from_be_bytes(length))
    };
    let last = end_of(end_of(0)) - 1;
    let mut byte = [0];
    file.read_exact_at(&mut byte, last).expect("a whole batch");
    file.write_all_at(&[!byte[0]], last).expect("it can be written");
}

/// Waits until `/readyz` is 503 and returns what it says.
fn await_unready(server: &Server) -> String {
    let give_up = Instant::now() + TIMEOUT;
    loop {
        let answer = server.http().get("/readyz").expect("an answer");
        if answer.status == 503 {
            return answer.text();
        }
        assert!(Instant::now() < give_up, "ready: {}", answer.text());
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn no_record_behind_a_damaged_batch_is_read_and_no_position_passes_it() {
    let shared = broker::shared();
    let bootstrap = shared.bootstrap();
    let at = TopicNamespace::new(&bootstrap, "damaged-batch.");
    create_topics(at);
    write_batches(at, 5);
    damage_second_batch(&shared.first_segment("damaged-batch.in", 0));
    let mut config = Config::new(&bootstrap, at.prefix);
    config.properties.insert("check.crcs".to_owned(), "true".to_owned());
    let log = KafkaLog::open(config).expect("well formed");
    let partition = TopicPartition::new(&Topic::new("damaged-batch.in"), Partition(0));
    let mut reader = log.reader(Isolation::Committed).expect("a reader");
    let slot = reader.add(&partition, Offset(0)).expect("it exists");
    let (limit, mut all) = (ReadLimit { records: 100, bytes: 1 << 20 }, Vec::new());
    let give_up = Instant::now() + TIMEOUT;
    while log.read_problems().is_empty() {
        assert!(Instant::now() < give_up, "nothing is reported");
        reader.wait(Duration::from_millis(100)).expect("the broker runs");
        let taken = reader.take(slot, limit, &mut all).expect("a failure that may pass");
        let position = reader.position(slot).expect("known");
        assert!(position <= Offset(1), "at {position:?} after {taken} of {all:?}");
    }
    let offsets: Vec<u64> = all.iter().map(|record: &Record| record.offset.0).collect();
    assert_eq!(offsets, [0]);
    let [problem] = &log.read_problems()[..] else { panic!("one partition") };
    assert!(problem.contains("damaged-batch.in/0 can't be read at offset 1: "), "{problem}");
}

#[test]
fn the_offset_of_a_damaged_batch_is_not_committed() {
    let shared = broker::shared();
    let bootstrap = shared.bootstrap();
    let at = TopicNamespace::new(&bootstrap, "damaged-input.");
    create_topics(at);
    write_batches(at, 5);
    damage_second_batch(&shared.first_segment("damaged-input.in", 0));
    let checks = ("TIDEWIRE_KAFKA_PROPERTIES_CHECK_CRCS", "true");
    let server = serve_with("admit", at, "a1", &[checks]);
    let shown = await_unready(&server);
    assert!(shown.contains("damaged-input.in/0 can't be read at offset 1: "), "{shown}");
    let log = KafkaLog::open(Config::new(&bootstrap, at.prefix)).expect("well formed");
    let partition = TopicPartition::new(&Topic::new("damaged-input.in"), Partition(0));
    let group = Topology::new(at.prefix, 1).admit_group();
    let committed = log.committed(&group, &[partition]).expect("an answer");
    assert_eq!(committed[0].as_ref().map(|committed| committed.offset), Some(Offset(1)));
}

#[test]
fn a_batch_above_the_limit_shows_in_readiness_metrics_and_log_and_stops_only_its_partition() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "too-large-batch.");
    let limit = ("TIDEWIRE_KAFKA_PROPERTIES_RECEIVE_MESSAGE_MAX_BYTES", "60000000");
    let server = serve_with("dev", at, "only", &[limit]);
    write_one_batch(at);
    let shown = await_unready(&server);
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
