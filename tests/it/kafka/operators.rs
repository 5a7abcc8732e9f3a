//! What operators make of the real posts on Kafka, read by ordinary Kafka clients.
//!
//! DERIVE is a process of its own and is killed while it processes them. librdkafka and Apache's
//! client for Java read `out.stream`, `out.urgent` and `out.state`; both must find what
//! [`crate::real_posts::expected`] says.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use tidewire_tests::broker;

use super::clients::program::{IsolationArgument, TopicAddress, apache};
use super::failures::create_topics;
use super::fixture::{OutputReader, TIMEOUT, TopicNamespace, serve};
use crate::real_posts::expected::{Published, events, expected};

/// Kills of DERIVE while events are written.
const KILLS: usize = 3;

/// How long DERIVE processes events before a kill.
const BETWEEN: Duration = Duration::from_millis(700);

const STATE: &str = "out.state";

const OUTPUTS: [&str; 3] = ["out.stream", "out.urgent", STATE];

/// Writes events to `in`, as a plain producer does.
fn write(at: TopicNamespace<'_>, events: &[Value]) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", at.bootstrap).create().expect("a producer");
    let topic = format!("{}in", at.prefix);
    for event in events {
        let (key, value) = (event["event_id"].as_str().expect("an id"), event.to_string());
        let record = BaseRecord::to(&topic).key(key).payload(&value);
        producer.send(record).map_err(|(error, _)| error).expect("space in the queue");
    }
    producer.flush(TIMEOUT).expect("acknowledged");
}

/// What was published, as librdkafka has read it so far.
fn published(outputs: &OutputReader) -> Published {
    let mut published = Published::default();
    for message in &outputs.all {
        match message.topic().ends_with(STATE) {
            true => {
                let key = String::from_utf8(message.key().expect("a key").to_vec()).expect("text");
                published.put_state(&key, message.payload());
            }
            false => published.put_delivery(message.payload().expect("a value")),
        }
    }
    published
}

/// Reads until what was published is complete; panics with what differs if that takes too long.
fn read_all(at: TopicNamespace<'_>, expected: &Published) -> OutputReader {
    let mut outputs = OutputReader::open(at, &OUTPUTS);
    let deadline = Instant::now() + TIMEOUT;
    loop {
        outputs.read(usize::MAX, Duration::from_millis(500));
        let differs = expected.differences(&published(&outputs));
        if differs.is_empty() {
            // What comes late would be too much.
            outputs.read(usize::MAX, Duration::from_secs(1));
            assert_eq!(expected.differences(&published(&outputs)), [""; 0]);
            return outputs;
        }
        assert!(Instant::now() < deadline, "{differs:#?}");
    }
}

/// What Apache's client reads of the same records.
fn read_by_apache(at: TopicNamespace<'_>, outputs: &OutputReader) -> Published {
    let mut published = Published::default();
    for name in OUTPUTS {
        let topic = format!("{}{name}", at.prefix);
        let count = outputs.all.iter().filter(|message| message.topic() == topic).count();
        let from = TopicAddress { bootstrap: at.bootstrap, topic: &topic };
        let records = apache().consume(from, count, IsolationArgument::Committed);
        assert_eq!(records.len(), count, "{topic}");
        for record in records {
            match name {
                STATE => published.put_state(&record.key.expect("a key"), record.value.as_deref()),
                _ => published.put_delivery(&record.value.expect("a value")),
            }
        }
    }
    published
}

#[test]
fn kafka_clients_read_what_operators_say_of_the_real_posts_although_derive_is_killed() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "posts-operators.");
    create_topics(at);
    let events = events();
    let expected = expected(&events);
    expected.check_size();
    let admit = serve("admit", at, "a");
    let mut derive = serve("derive", at, "d");
    for part in events.chunks(events.len().div_ceil(KILLS)) {
        write(at, part);
        std::thread::sleep(BETWEEN);
        derive.kill9();
        derive.restart();
    }
    let outputs = read_all(at, &expected);
    let by_apache = read_by_apache(at, &outputs);
    assert_eq!(expected.differences(&by_apache), [""; 0]);
    drop((admit, derive));
}
