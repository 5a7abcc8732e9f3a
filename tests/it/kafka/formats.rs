//! Events in every format, written by common libraries, through the whole pipeline.
//!
//! Also: what happens to records when the schema registry fails.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::Message as _;
use rdkafka::message::{Header, Headers as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tidewire_schemas::event::EventView;
use tidewire_tests::broker;
use tidewire_tests::fake_registry::{FakeRegistry, RegistryBehaviour};
use tidewire_tests::server::Server;

use super::clients::program::write_formats;
use super::fixture::{OutputReader, TIMEOUT, TopicNamespace};

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/avro/post.created.avsc");

/// A team's own schema.
const FOREIGN: &str = r#"{"type":"record","name":"com.acme.Post","fields":[
    {"name":"event_id","type":"string"},{"name":"post_id","type":"string"},
    {"name":"author_id","type":"string"},{"name":"text","type":"string"}]}"#;

fn serve(at: TopicNamespace<'_>, registry: &FakeRegistry) -> Server {
    let (log, url) = (format!("kafka://{}", at.bootstrap), registry.url());
    let variables = [("TIDEWIRE_TOPICS_PREFIX", at.prefix), ("TIDEWIRE_REGISTRY_URL", &url)];
    Server::start_as("dev", &["--log", &log], &variables)
}

#[test]
fn every_format_is_delivered_as_its_event() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "formats.");
    let registry = FakeRegistry::start();
    let server = serve(at, &registry);
    let url = format!("http://{}/v1/events", server.addr());
    write_formats(&[at.bootstrap, "formats.in", &registry.url(), SCHEMA, &url]);
    let names = [
        "confluent",
        "foreign",
        "single-object",
        "ce_/py|binary",
        "ce_/py|structured",
        "ce_/py|http-binary",
        "ce_/py|http-structured",
        "ce_/py|batch-0",
        "ce_/py|batch-1",
        "http-avro-one",
    ];
    let mut outputs = OutputReader::open(at, &["out.stream"]);
    let complete = outputs.read(3 * names.len(), TIMEOUT);
    let mut events = BTreeMap::new();
    for message in outputs.all.iter().filter(|m| m.key() == Some(&b"posts:ann"[..])) {
        let event = EventView::decode(message.payload().expect("an event")).expect("an event");
        assert!(events.insert(event.event_id.to_owned(), event.to_event()).is_none());
    }
    for name in names {
        let event = events.get(name).unwrap_or_else(|| panic!("{name} is missing in {events:?}"));
        assert_eq!((event.event_type.as_str(), event.account_id.as_str()), ("post.created", "acc"));
        let data: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
        assert_eq!(data["text"], "Grüße 🌊", "{name}");
        assert_eq!(data["post_id"], "p1", "{name}");
    }
    assert_eq!(events["confluent"].data, events["single-object"].data);
    assert!(events["confluent"].data.contains(r#""author":{"id":"ann","name":"Ann"}"#));
    assert!(complete && events.len() == names.len());
    let asked = registry.requests();
    let lookups = asked.iter().filter(|request| request.starts_with("GET /schemas/ids/")).count();
    assert!(lookups <= 2, "each schema is requested once: {asked:?}");
}

/// Writes framed records of these schema ids to partition 0, numbered from `first`.
fn write(producer: &BaseProducer, topic: &str, first: usize, ids: &[u32]) {
    for (n, id) in ids.iter().enumerate() {
        let text = format!("e-{}", first + n);
        let mut value = [&[0][..], &id.to_be_bytes()].concat();
        for field in [&text, "p", "ann", "t"] {
            value.push((field.len() * 2) as u8);
            value.extend_from_slice(field.as_bytes());
        }
        let mut headers = OwnedHeaders::new();
        for (key, value) in [("event_type", "post.created"), ("account_id", "acc")] {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let record = BaseRecord::<[u8], [u8]>::to(topic).partition(0);
        let record = record.payload(&value).headers(headers);
        producer.send(record).map_err(|(error, _)| error).expect("there is room");
    }
    producer.flush(Duration::from_secs(30)).expect("all are acknowledged");
}

/// The reasons of the dead letters, in their order.
fn reasons(dead_letters: &OutputReader) -> Vec<String> {
    let reason = |message: &rdkafka::message::OwnedMessage| {
        let headers = message.headers().expect("headers");
        let header = headers.iter().find(|header| header.key == "reason").expect("a reason");
        String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned()
    };
    dead_letters.all.iter().map(reason).collect()
}

#[test]
fn a_failing_registry_affects_only_records_that_need_it() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "failing.");
    let registry = FakeRegistry::start();
    let id = registry.put("com.acme.Post", FOREIGN);
    let server = serve(at, &registry);
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", at.bootstrap).create().expect("a producer");
    let mut dead_letters = OutputReader::open(at, &["dead-letters"]);
    let mut outputs = OutputReader::open(at, &["out.stream"]);
    let (mut good, mut bad) = (0, 0);
    let mut expect = |more_good: usize, more_bad: usize, reason: &str| {
        good += more_good;
        bad += more_bad;
        assert!(dead_letters.read(bad, TIMEOUT), "{reason}: {:?}", reasons(&dead_letters));
        assert!(outputs.read(3 * good, TIMEOUT), "{reason}: {} events", outputs.all.len() / 3);
        for given in &reasons(&dead_letters)[bad - more_bad..] {
            assert_eq!(given, reason);
        }
    };
    write(&producer, "failing.in", 0, &[id, 7_000, id]);
    expect(2, 1, "schema_unknown");

    // Cached schemas are used whatever the registry does.
    let other = registry.put("other", &FOREIGN.replace("Post", "Note"));
    registry.set_behaviour(RegistryBehaviour::Down);
    write(&producer, "failing.in", 10, &[id, other, id]);
    expect(2, 1, "registry_unavailable");
    registry.set_behaviour(RegistryBehaviour::Normal);
    std::thread::sleep(Duration::from_secs(6));
    write(&producer, "failing.in", 20, &[other]);
    expect(1, 0, "");

    for (n, (behaviour, reason)) in [
        (RegistryBehaviour::Slow(Duration::from_secs(30)), "registry_unavailable"),
        (RegistryBehaviour::Fixed(200, r#"{"schema":"\"int\""}"#.to_owned()), "avro_decode"),
        (RegistryBehaviour::Huge(8 << 20), "avro_decode"),
    ]
    .into_iter()
    .enumerate()
    {
        registry.set_behaviour(behaviour.clone());
        let unknown = 100 + n as u32;
        write(&producer, "failing.in", 30 + 10 * n, &[id, unknown, id]);
        eprintln!("{behaviour:?}");
        expect(2, 1, reason);
        // After a failure the registry is not asked for a while.
        std::thread::sleep(Duration::from_secs(6));
    }
    assert_eq!(server.http().get("/readyz").expect("it lives").status, 200);
}
