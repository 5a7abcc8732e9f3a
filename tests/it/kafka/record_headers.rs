//! Headers of records as Kafka clients write them: which mode, which account, which schema.
//!
//! What a header says must not be guessed at: the wrong account gets the event otherwise.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::Message as _;
use rdkafka::message::{Header, Headers as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::json;
use tidewire_schemas::codec::guid_text;
use tidewire_schemas::event::EventView;
use tidewire_tests::broker;
use tidewire_tests::fake_registry::FakeRegistry;

use super::fixture::{OutputReader, TIMEOUT, TopicNamespace, serve, serve_with};

type Headers<'a> = Vec<(&'a str, &'a [u8])>;

/// Writes records with these headers to partition 0, in this order.
fn write(at: TopicNamespace<'_>, records: &[(Vec<u8>, Headers<'_>)]) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", at.bootstrap).create().expect("a producer");
    let topic = format!("{}in", at.prefix);
    for (value, headers) in records {
        let mut all = OwnedHeaders::new();
        for (key, value) in headers {
            all = all.insert(Header { key, value: Some(*value) });
        }
        let record = BaseRecord::<[u8], [u8]>::to(&topic).partition(0).payload(value);
        producer.send(record.headers(all)).map_err(|(error, _)| error).expect("there is room");
    }
    producer.flush(Duration::from_secs(30)).expect("all are acknowledged");
}

/// The accounts of so many events, by event id.
fn accounts(at: TopicNamespace<'_>, events: usize) -> BTreeMap<String, String> {
    let mut outputs = OutputReader::open(at, &["out.stream"]);
    // Three channels each.
    assert!(outputs.read(3 * events, TIMEOUT), "{} of {events}", outputs.all.len() / 3);
    let events = outputs.all.iter().map(|message| {
        let event = EventView::decode(message.payload().expect("an event")).expect("an event");
        (event.event_id.to_owned(), event.account_id.to_owned())
    });
    events.collect()
}

/// Reason and detail of so many dead letters, by offset of the original.
fn refusals(at: TopicNamespace<'_>, count: usize) -> BTreeMap<String, [String; 2]> {
    let mut dead_letters = OutputReader::open(at, &["dead-letters"]);
    assert!(dead_letters.read(count, TIMEOUT), "{} of {count}", dead_letters.all.len());
    let refusals = dead_letters.all.iter().map(|message| {
        let header = |name: &str| {
            let headers = message.headers().expect("headers");
            let header = headers.iter().find(|header| header.key == name).expect(name);
            String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned()
        };
        let key = String::from_utf8_lossy(message.key().expect("a key")).into_owned();
        let offset = key.rsplit('/').next().unwrap_or_default().to_owned();
        (offset, [header("reason"), header("detail")])
    });
    refusals.collect()
}

fn data() -> serde_json::Value {
    json!({"post_id": "p", "author_id": "ann", "text": "t"})
}

/// A CloudEvent in structured mode.
fn structured(source: &str, id: &str) -> Vec<u8> {
    let event = json!({"specversion": "1.0", "id": id, "source": source, "type": "post.created",
        "accountid": "acc", "data": data()});
    event.to_string().into_bytes()
}

const STRUCTURED: (&str, &[u8]) = ("content-type", b"application/cloudevents+json");

/// Attributes in binary mode.
fn binary<'a>(id: &'a [u8], account: &'a [u8]) -> Headers<'a> {
    vec![
        ("ce_specversion", b"1.0"),
        ("ce_id", id),
        ("ce_source", b"/shop"),
        ("ce_type", b"post.created"),
        ("ce_accountid", account),
    ]
}

#[test]
fn headers_decide_mode_and_account_and_are_never_guessed_at() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "record-headers.");
    let server = serve("dev", at, "only");
    let body = || data().to_string().into_bytes();
    let with = |mut headers: Headers<'static>, further: Headers<'static>| {
        headers.extend(further);
        headers
    };
    let stray = with(vec![STRUCTURED], binary(b"other", b"other"));
    let spring = vec![
        ("ce_specversion", &b"\"1.0\""[..]),
        ("ce_id", b"\"spring\""),
        ("ce_source", b"\"/shop\""),
        ("ce_type", b"\"post.created\""),
        ("ce_accountid", b"\"a15\""),
        ("content-type", b"\"application/json\""),
    ];
    let batch = ("content-type", &b"application/cloudevents-batch+json"[..]);
    let marked = json!({"event_id": "marked", "event_type": "post.created", "account_id": "acc",
        "data": data()});
    write(
        at,
        &[
            (structured("/studio", "web/100"), stray.clone()),
            (structured("/studio/web", "100"), vec![STRUCTURED]),
            (format!("\u{feff}{marked}").into_bytes(), vec![]),
            (
                marked.to_string().replace("marked", "/studio/web/100").into_bytes(),
                vec![("trace", &b"\xff"[..]), ("trace", b"x")],
            ),
            (body(), spring),
            (
                body(),
                with(binary(b"same", b"Gr%C3%BC"), vec![("ce_id", &b"same"[..]), ("ce_id", b"")]),
            ),
            ([&b"["[..], &structured("/studio", "1"), b"]"].concat(), {
                with(vec![batch], binary(b"other", b"other"))
            }),
            (body(), with(binary(b"1", b"acc"), vec![("ce_id", &b"2"[..])])),
            (body(), with(binary(b"1", b"acc"), vec![("ce_accountid", &b"other"[..])])),
            (body(), binary(b"1", b"acc\xff")),
            (body(), binary(b"1", b"%C3")),
        ],
    );
    let accounts = accounts(at, 6);
    let expected = [
        ("/studio/web/100", "acc"),
        ("ce_/shop|same", "Grü"),
        ("ce_/shop|spring", "a15"),
        ("ce_/studio/web|100", "acc"),
        ("ce_/studio|web/100", "acc"),
        ("marked", "acc"),
    ];
    let found: Vec<_> = accounts.iter().map(|(id, account)| (&**id, &**account)).collect();
    assert_eq!(found, expected);
    let refusals = refusals(at, 5);
    for (offset, reason, part) in [
        ("6", "connector_mapping", "a record of its own"),
        ("7", "bad_field", "header ce_id occurs with different values, `1` and `2`"),
        ("8", "bad_field", "header ce_accountid occurs"),
        ("9", "not_utf8", "header ce_accountid is not UTF-8"),
        ("10", "not_utf8", "header ce_accountid is percent-encoded"),
    ] {
        let [found, detail] = &refusals[offset];
        assert_eq!(found, reason, "{offset}: {detail}");
        assert!(detail.contains(part), "{offset}: {detail}");
    }
    assert_eq!(server.http().get("/readyz").expect("it lives").status, 200);
}

/// As Confluent's `HeaderSchemaIdSerializer` writes records.
#[test]
fn a_schema_named_by_a_header_is_found_by_its_guid() {
    const SCHEMA: &str = r#"{"type":"record","name":"com.acme.Post","fields":[
        {"name":"n","type":"long"},{"name":"event_id","type":"string"},
        {"name":"post_id","type":"string"},{"name":"author_id","type":"string"},
        {"name":"text","type":"string"}]}"#;
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "schema-guid.");
    let registry = FakeRegistry::start();
    registry.find_by_guid();
    let id = registry.put("com.acme.Post", SCHEMA);
    let url = registry.url();
    let _server = serve_with("dev", at, "only", &[("TIDEWIRE_REGISTRY_URL", &url)]);
    let header = |guid: u128| [&[1][..], &guid.to_be_bytes()].concat();
    let (known, unknown) = (header(FakeRegistry::guid(id)), header(7));
    // The number 0 makes the record begin like Confluent's framing.
    let record = |event_id: &str| {
        let mut value = vec![0];
        for field in [event_id, "p", "ann", "t"] {
            value.push((field.len() * 2) as u8);
            value.extend_from_slice(field.as_bytes());
        }
        value
    };
    fn headers(schema: &[u8]) -> Headers<'_> {
        vec![
            ("event_type", &b"post.created"[..]),
            ("account_id", b"acc"),
            ("__value_schema_id", schema),
        ]
    }
    let json = json!({"event_id": "json", "event_type": "post.created", "account_id": "acc",
        "data": data()});
    write(
        at,
        &[
            (record("avro-1"), headers(&known)),
            (record("avro-2"), headers(&unknown)),
            (record("avro-3"), headers(b"7")),
            (record("avro-4"), headers(&known)),
            (json.to_string().into_bytes(), headers(&unknown)),
        ],
    );
    let accounts = accounts(at, 3);
    let ids: Vec<_> = accounts.keys().map(String::as_str).collect();
    assert_eq!(ids, ["avro-1", "avro-4", "json"]);
    let refusals = refusals(at, 2);
    let [reason, detail] = &refusals["1"];
    assert_eq!(reason, "schema_unknown", "{detail}");
    assert!(detail.contains(&guid_text(7)) && detail.contains("__value_schema_id"), "{detail}");
    let [reason, detail] = &refusals["2"];
    assert_eq!(reason, "avro_decode", "{detail}");
    assert!(detail.contains("value.schema.id.serializer"), "{detail}");
    let asked = format!("GET /schemas/guids/{}", guid_text(FakeRegistry::guid(id)));
    let requests = registry.requests();
    let count = requests.iter().filter(|request| **request == asked).count();
    assert_eq!(count, 1, "a schema is requested once: {requests:?}");
}
