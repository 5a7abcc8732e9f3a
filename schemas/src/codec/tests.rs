//! Tests of every format; Avro is compared with apache-avro on generated schemas and values.

mod headers;

use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::json;

use super::read::read;
use super::writer::RecordFormat;
use super::*;
use crate::catalogue::Catalogue;
use crate::envelope::{Admitted, Reason, RecordOrigin, Rejection, Writers};
use crate::event::Event;

const ORIGIN: RecordOrigin<'_> = RecordOrigin {
    topic: "tw.in",
    partition: 2,
    offset: 9,
    append_time_ms: 1_767_607_201_000,
    writers: Writers::Producers,
};

/// The GUID that the registry of the tests has.
const GUID: u128 = 0x0f1e_2d3c_4b5a_6978_8796_a5b4_c3d2_e1f0;

/// A GUID that it can't be asked for.
const GUID_AWAY: u128 = 101;

/// One schema under every id up to 100, and under [`GUID`].
#[derive(Debug)]
struct SingleSchemaRegistry(Arc<WriterSchema>);

impl Registry for SingleSchemaRegistry {
    fn schema(&self, id: u32) -> Result<Arc<WriterSchema>, RegistryFault> {
        match id {
            0..=100 => Ok(Arc::clone(&self.0)),
            101 => Err(RegistryFault::Unavailable("it is away".to_owned())),
            _ => Err(RegistryFault::Unknown("the registry does not have it".to_owned())),
        }
    }

    fn schema_by_guid(&self, guid: u128) -> Result<Arc<WriterSchema>, RegistryFault> {
        match guid {
            GUID => Ok(Arc::clone(&self.0)),
            GUID_AWAY => Err(RegistryFault::Unavailable("it is away".to_owned())),
            _ => Err(RegistryFault::Unknown("the registry does not have it".to_owned())),
        }
    }
}

type Header<'a> = (&'a str, &'a [u8]);

fn admit_with(
    registry: Option<&dyn Registry>,
    value: &[u8],
    headers: &[Header<'_>],
) -> Result<Admitted, Rejection> {
    attempt_with(registry, value, headers).map_err(|failure| match failure {
        AdmitFailure::Rejected(rejection) => rejection,
        AdmitFailure::Waits(missing) => panic!("{missing}"),
    })
}

fn attempt_with(
    registry: Option<&dyn Registry>,
    value: &[u8],
    headers: &[Header<'_>],
) -> Result<Admitted, AdmitFailure> {
    let context = DecodeContext { catalogue: Catalogue::builtin(), registry, origin: &ORIGIN };
    struct Slice<'a>(&'a [Header<'a>]);
    impl HeaderLookup for Slice<'_> {
        fn each_header<'h>(&'h self, visit: &mut dyn FnMut(&'h str, &'h [u8])) {
            self.0.each_header(visit);
        }
    }
    admit(&context, Some(value), &Slice(headers))
}

fn event(value: &[u8], headers: &[Header<'_>]) -> Event {
    admit_with(None, value, headers).expect("an event").event
}

fn refused(value: &[u8], headers: &[Header<'_>]) -> Rejection {
    admit_with(None, value, headers).expect_err("it is refused")
}

fn encode(schema: &str, value: Value) -> Vec<u8> {
    let schema = Schema::parse_str(schema).expect("a schema");
    let writer = GenericDatumWriter::builder(&schema).build().expect("resolved");
    writer.write_value_to_vec(value).expect("it fits its schema")
}

fn framed(id: u32, record: &[u8]) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), record].concat()
}

fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

fn some(value: Value) -> Value {
    Value::Union(1, Box::new(value))
}

fn none() -> Value {
    Value::Union(0, Box::new(Value::Null))
}

fn record(fields: &[(&str, Value)]) -> Value {
    Value::Record(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
}

/// A schema as a foreign team might register it.
const FOREIGN: &str = r#"{"type":"record","name":"Post","namespace":"com.acme","fields":[
    {"name":"event_id","type":"string"},
    {"name":"account_id","type":"long"},
    {"name":"timestamp","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"priority","type":["null","int"],"default":null},
    {"name":"postId","type":"string"},
    {"name":"author_id","type":["null","string"],"default":null},
    {"name":"text","type":"string"},
    {"name":"author","type":{"type":"record","name":"Author","fields":[
        {"name":"name","type":"string"},{"name":"boss","type":["null","Author"],"default":null}]}},
    {"name":"tags","type":{"type":"map","values":"double"}}]}"#;

fn post(priority: Value) -> Vec<u8> {
    let boss = record(&[("name", text("Bo")), ("boss", none())]);
    encode(
        FOREIGN,
        record(&[
            ("event_id", text("e\"1")),
            ("account_id", Value::Long(7)),
            ("timestamp", Value::TimestampMicros(1_767_606_000_123_456)),
            ("priority", priority),
            ("postId", text("p1")),
            ("author_id", some(text("ann"))),
            ("text", text("Grüße \u{1f30a}\n\"quoted\"")),
            ("author", record(&[("name", text("Ann")), ("boss", some(boss))])),
            ("tags", Value::Map([("a".to_owned(), Value::Double(0.5))].into())),
        ]),
    )
}

fn foreign() -> SingleSchemaRegistry {
    SingleSchemaRegistry(Arc::new(WriterSchema::avro(FOREIGN, &[]).expect("a schema")))
}

#[test]
fn a_foreign_record_has_the_type_of_its_header() {
    let registry = foreign();
    let headers: &[Header<'_>] = &[("event_type", b"post.created"), ("correlation_id", b"c-1")];
    let value = framed(7, &post(some(Value::Int(2))));
    let event = admit_with(Some(&registry), &value, headers).expect("an event").event;
    assert_eq!(event.event_id, "e\"1");
    assert_eq!(event.account_id, "7");
    assert_eq!(event.timestamp_ms, 1_767_606_000_123);
    assert_eq!(event.priority, crate::Priority::High);
    assert_eq!(event.correlation_id, "c-1");
    let data: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
    let expected = json!({"post_id": "p1", "author_id": "ann", "text": "Grüße 🌊\n\"quoted\"",
        "author": {"name": "Ann", "boss": {"name": "Bo", "boss": null}}, "tags": {"a": 0.5}});
    assert_eq!(data, expected);
}

#[test]
fn a_body_without_a_framing_is_rejected_with_the_names_of_both() {
    for value in [&b"\x04e1"[..], b"no avro", b"\xff\xfe"] {
        let refused = refused(value, &[(CONTENT_TYPE, b"Application/Avro; v=1")]);
        assert!(matches!(refused.reason, Reason::NotJson | Reason::NotUtf8), "{refused}");
        assert!(refused.message.contains("C3 01"), "{refused}");
    }
    assert!(!refused(b"no avro", &[]).message.contains("C3 01"));
}

#[test]
fn a_foreign_record_without_a_type_is_rejected() {
    let registry = foreign();
    let value = framed(7, &post(none()));
    let refused = admit_with(Some(&registry), &value, &[]).expect_err("no such type");
    assert_eq!(refused.reason, Reason::UnknownType);
    assert!(refused.message.contains("com.acme.Post"), "{refused}");
}

#[test]
fn every_missing_schema_has_its_reason() {
    let registry = foreign();
    for (value, reason) in [
        (framed(102, b""), Reason::SchemaUnknown),
        (vec![0, 0, 0], Reason::AvroDecode),
        (b"\xc3\x01abc".to_vec(), Reason::AvroDecode),
        (b"\xc3\x01abcdefghij".to_vec(), Reason::SchemaUnknown),
    ] {
        let refused = admit_with(Some(&registry), &value, &[]).expect_err("refused");
        assert_eq!(refused.reason, reason, "{refused}");
    }
    let refused = refused(&framed(7, b""), &[]);
    assert_eq!(refused.reason, Reason::RegistryUnavailable);
    assert!(refused.message.contains("registry.url"), "{refused}");
}

#[test]
fn a_record_is_not_rejected_while_the_registry_cannot_be_asked_for_its_schema() {
    let registry = foreign();
    let missing = SchemaUnavailable { key: SchemaKey::Id(101), why: "it is away".to_owned() };
    let binary: &[Header<'_>] = &[("ce_specversion", b"1.0"), ("ce_type", b"custom.x")];
    for headers in [&[][..], binary] {
        let failure = attempt_with(Some(&registry), &framed(101, b""), headers);
        assert_eq!(failure, Err(AdmitFailure::Waits(missing.clone())));
    }
    assert_eq!(missing.to_string(), "schema 101 can't be looked up: it is away");
}

#[test]
fn json_in_confluent_s_framing_is_the_json_envelope() {
    let registry = SingleSchemaRegistry(Arc::new(WriterSchema::json()));
    let value = br#"{"event_id":"j1","event_type":"custom.x","account_id":"a","data":{"n":1}}"#;
    let event = admit_with(Some(&registry), &framed(3, value), &[]).expect("an event").event;
    assert_eq!((event.event_id.as_str(), event.data.as_str()), ("j1", r#"{"n":1}"#));
}

#[test]
fn an_encoded_event_is_read() {
    let json = br#"{"event_id":"e1","event_type":"post.created","account_id":"a","priority":3,
        "timestamp":1767606000000,"correlation_id":"c","key":"k","source":"s",
        "data":{"post_id":"p","author_id":"u","text":"\ud83c\udf0a \" \\ \u0001"}}"#;
    let first = event(json, &[]);
    assert_eq!(event(&first.encode(), &[]), first);
}

#[test]
fn a_record_of_a_generated_schema_needs_no_header_and_no_registry() {
    let event_type = Catalogue::builtin().resolve("post.created").expect("a type");
    let avsc = crate::typed::avsc(event_type);
    for form in [avsc.clone(), avsc.replace(r#", "logicalType": "timestamp-millis""#, "")] {
        let schema = Schema::parse_str(&form).expect("a schema");
        let Schema::Record(of) = &schema else { panic!("a record") };
        let fields = of.fields.iter().map(|field| {
            let given = match field.name.as_str() {
                "event_id" => some(text("e1")),
                "account_id" => text("acc"),
                "post_id" => text("p1"),
                "author_id" => text("ann"),
                "text" => text("hi"),
                "author" => some(text(r#"{"id": "ann"}"#)),
                _ => none(),
            };
            (field.name.clone(), given)
        });
        let record = encode(&form, Value::Record(fields.collect()));
        let fingerprint = schema.fingerprint::<apache_avro::rabin::Rabin>().bytes;
        let value = [&[0xc3, 0x01][..], &fingerprint, &record].concat();
        let event = event(&value, &[]);
        assert_eq!((event.event_id.as_str(), event.event_type.as_str()), ("e1", "post.created"));
        let data: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
        assert_eq!((&data["post_id"], &data["author"]["id"]), (&json!("p1"), &json!("ann")));
    }
}

/// A record of the generated schema of `post.created` with this text.
fn created_with(of: &str) -> Vec<u8> {
    let event_type = Catalogue::builtin().resolve("post.created").expect("a type");
    let avsc = crate::typed::avsc(event_type);
    let schema = Schema::parse_str(&avsc).expect("a schema");
    let Schema::Record(fields) = &schema else { panic!("a record") };
    let fields = fields.fields.iter().map(|field| {
        let given = match field.name.as_str() {
            "account_id" | "post_id" | "author_id" => text("a"),
            "text" => text(of),
            _ => none(),
        };
        (field.name.clone(), given)
    });
    let record = encode(&avsc, Value::Record(fields.collect()));
    let fingerprint = schema.fingerprint::<apache_avro::rabin::Rabin>().bytes;
    [&[0xc3, 0x01][..], &fingerprint, &record].concat()
}

#[test]
fn a_record_that_grows_as_json_is_too_large() {
    let of_text = |count: usize| admit_with(None, &created_with(&"\u{1}".repeat(count)), &[]);
    assert!(of_text(40_000).expect("240,000 bytes").event.data.len() > 240_000);
    for (count, field, number) in
        [(50_000, "data", "data has 300"), (250_000, "text", "more than 524288 bytes as JSON")]
    {
        let refused = of_text(count).map(|_| count).expect_err("larger than an event may be");
        assert_eq!((refused.reason, refused.field.as_deref()), (Reason::TooLarge, Some(field)));
        assert!(refused.message.contains(number), "{refused}");
    }
    // The last value counts too.
    for (of, bytes) in [
        (r#""string""#, [&[0xc0, 0x8b, 0x11][..], &[1; 140_000]].concat()),
        (r#""bytes""#, [&[0xc0, 0x8b, 0x11][..], &[200; 140_000]].concat()),
    ] {
        let schema =
            format!(r#"{{"type":"record","name":"X","fields":[{{"name":"a","type":{of}}}]}}"#);
        let schema = WriterSchema::avro(&schema, &[]).expect("a schema");
        let RecordFormat::Avro(plan) = &schema.format else { panic!("Avro") };
        let refused = read(plan, &bytes).map(|_| of).expect_err(of);
        assert_eq!(refused.reason, Reason::TooLarge, "{of}: {refused}");
    }
}

#[test]
fn an_encoded_event_of_the_largest_size_is_read_again() {
    // Quotes double when a string holds JSON.
    let data = format!(r#"{{"x":"{}"}}"#, r#"\""#.repeat(130_000));
    let sent = format!(r#"{{"event_type":"custom.x","account_id":"a","data":{data}}}"#);
    let first = event(sent.as_bytes(), &[]);
    assert_eq!(event(&first.encode(), &[]), first);
}

#[test]
fn a_declared_field_takes_precedence_over_the_envelope_field() {
    let schema = r#"{"type":"record","name":"X","fields":[{"name":"account_id","type":"string"},
        {"name":"scraper_id","type":"string"},{"name":"source","type":"string"}]}"#;
    let registry =
        SingleSchemaRegistry(Arc::new(WriterSchema::avro(schema, &[]).expect("a schema")));
    let fields = [("account_id", "a"), ("scraper_id", "s1"), ("source", "maps")];
    let value = framed(1, &encode(schema, record(&fields.map(|(name, of)| (name, text(of))))));
    let headers: &[Header<'_>] = &[("event_type", b"scraper.started"), ("source", b"crawler")];
    let of_both = admit_with(Some(&registry), &value, headers).expect("an event").event;
    assert_eq!(of_both.source.as_deref(), Some("crawler"), "the header is the envelope's");
    assert!(of_both.data.contains(r#""source":"maps""#), "{}", of_both.data);
    let of_one = admit_with(Some(&registry), &value, &headers[..1]).expect("an event").event;
    assert_eq!((of_one.source, of_one.data), (None, of_both.data));
}

#[test]
fn objects_are_json_in_strings() {
    let schema = r#"{"type":"record","name":"X","fields":[
        {"name":"account_id","type":"string"},{"name":"post_id","type":"string"},
        {"name":"author_id","type":"string"},{"name":"text","type":"string"},
        {"name":"author","type":["null","string"]},{"name":"media","type":["null","string"]}]}"#;
    let registry =
        SingleSchemaRegistry(Arc::new(WriterSchema::avro(schema, &[]).expect("a schema")));
    let fields = |author: &str| {
        encode(
            schema,
            record(&[
                ("account_id", text("a")),
                ("post_id", text("p")),
                ("author_id", text("u")),
                ("text", text("t")),
                ("author", some(text(author))),
                ("media", some(text("[ {\"url\" : \"x y\"} ]"))),
            ]),
        )
    };
    let headers: &[Header<'_>] = &[("event_type", b"post.created")];
    let good = framed(1, &fields("{ \"name\": \"Ann\" }"));
    let event = admit_with(Some(&registry), &good, headers).expect("an event").event;
    assert!(event.data.contains(r#""author":{"name":"Ann"},"media":[{"url":"x y"}]"#), "{event:?}");
    let broken = framed(1, &fields("{\"name\":"));
    let refused = admit_with(Some(&registry), &broken, headers).expect_err("broken JSON");
    assert_eq!((refused.reason, refused.field.as_deref()), (Reason::NotJson, Some("data.author")));
}

#[test]
fn decimals_and_binary_uuids_are_text() {
    let schema = r#"{"type":"record","name":"X","fields":[
        {"name":"a","type":{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}},
        {"name":"b","type":{"type":"bytes","logicalType":"decimal","precision":10,"scale":3}},
        {"name":"u","type":{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}}]}"#;
    let plan = WriterSchema::avro(schema, &[]).expect("a schema");
    let RecordFormat::Avro(plan) = &plan.format else { panic!("Avro") };
    let mut bytes = vec![4, 0xfb, 0x2e, 2, 7];
    bytes.extend(0u8..16);
    let fields = read(plan, &bytes).expect("a record");
    assert_eq!(
        fields.to_object(),
        r#"{"a":"-12.34","b":"0.007","u":"00010203-0405-0607-0809-0a0b0c0d0e0f"}"#
    );
}

#[test]
fn a_schema_may_refer_to_others_and_to_itself() {
    let parts = [r#"{"type":"record","name":"n.Leaf","fields":[{"name":"v","type":"int"}]}"#];
    let tree = r#"{"type":"record","name":"n.Tree","fields":[{"name":"leaf","type":"Leaf"},
        {"name":"more","type":{"type":"array","items":"Tree"}}]}"#;
    let schema = WriterSchema::avro(tree, &parts.map(str::to_owned)).expect("a schema");
    let RecordFormat::Avro(plan) = &schema.format else { panic!("Avro") };
    let fields = read(plan, &[2, 2, 4, 0, 0]).expect("a record");
    assert_eq!(fields.to_object(), r#"{"leaf":{"v":1},"more":[{"leaf":{"v":2},"more":[]}]}"#);
    // Deeper than data may be, by a recursive record.
    let deep = [2u8, 2].repeat(5_000);
    assert_eq!(read(plan, &deep).expect_err("too deep").reason, Reason::TooLarge);
}

#[test]
fn a_short_record_with_a_huge_output_ends_early() {
    for items in [r#""null""#, r#"{"type":"record","name":"E","fields":[]}"#] {
        let schema = format!(
            r#"{{"type":"record","name":"X","fields":[
            {{"name":"a","type":{{"type":"array","items":{items}}}}}]}}"#
        );
        let schema = WriterSchema::avro(&schema, &[]).expect("a schema");
        let RecordFormat::Avro(plan) = &schema.format else { panic!("Avro") };
        // A count of 2^62.
        let bytes = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
        assert_eq!(read(plan, &bytes).expect_err("too long").reason, Reason::TooLarge);
    }
    let itself = r#"{"type":"record","name":"R","fields":[{"name":"r","type":"R"}]}"#;
    // apache-avro accepts the schema, but no bytes are a value of it.
    if let Ok(schema) = WriterSchema::avro(itself, &[]) {
        let RecordFormat::Avro(plan) = &schema.format else { panic!("Avro") };
        assert_eq!(read(plan, &[]).expect_err("endless").reason, Reason::TooLarge);
    }
}

#[test]
fn schemas_beyond_the_limits_are_rejected() {
    let many = |count: usize| {
        let fields: Vec<String> =
            (0..count).map(|n| format!(r#"{{"name":"f{n}","type":"int"}}"#)).collect();
        format!(r#"{{"type":"record","name":"X","fields":[{}]}}"#, fields.join(","))
    };
    let refuse = |schema: &str| WriterSchema::avro(schema, &[]).expect_err("refused").to_string();
    assert!(refuse(&many(100_000)).contains("bytes"));
    assert!(refuse(&many(20_000)).contains("more than 16384"));
    WriterSchema::avro(&many(1_000), &[]).expect("data may have as many");
    let deep =
        format!("{}\"int\"{}", r#"{"type":"array","items":"#.repeat(5_000), "}".repeat(5_000));
    refuse(&format!(r#"{{"type":"record","name":"X","fields":[{{"name":"a","type":{deep}}}]}}"#));
    refuse("\"string\"");
    refuse("{");
    refuse("");
}

const STRUCTURED: &[Header<'_>] = &[(CONTENT_TYPE, b"application/cloudevents+json; charset=utf-8")];

fn cloudevent() -> serde_json::Value {
    json!({"specversion": "1.0", "id": "42", "source": "/shop", "type": "post.created",
        "time": "2026-01-05T10:00:00.5Z", "subject": "ann", "accountid": "acc",
        "correlationid": "c9", "priority": 2, "traceparent": "00-1-2-00",
        "datacontenttype": "application/json",
        "data": {"post_id": "p1", "author_id": "ann", "text": "hi"}})
}

fn structured(change: impl FnOnce(&mut serde_json::Value)) -> Result<Admitted, Rejection> {
    let mut event = cloudevent();
    change(&mut event);
    admit_with(None, event.to_string().as_bytes(), STRUCTURED)
}

#[test]
fn a_structured_cloudevent_becomes_an_event() {
    let admitted = structured(|_| ()).expect("an event");
    assert_eq!(admitted.ignored_fields, 1, "traceparent");
    let event = admitted.event;
    assert_eq!(event.event_id, "ce_/shop|42");
    assert_eq!(event.event_type, "post.created");
    assert_eq!(event.account_id, "acc");
    assert_eq!(event.timestamp_ms, 1_767_607_200_500);
    assert_eq!(event.key, "ann");
    assert_eq!(event.correlation_id, "c9");
    assert_eq!(event.priority, crate::Priority::High);
    assert_eq!(event.source.as_deref(), Some("/shop"));
    assert_eq!(event.data, r#"{"author_id":"ann","post_id":"p1","text":"hi"}"#);
}

#[test]
fn binary_and_structured_mode_give_the_same_event() {
    let headers: &[Header<'_>] = &[
        ("ce_specversion", b"1.0"),
        ("ce_id", b"42"),
        ("ce_source", b"/shop"),
        ("ce_type", b"post.created"),
        ("ce_time", b"2026-01-05T10:00:00.5Z"),
        ("ce_subject", b"ann"),
        ("ce_accountid", b"acc"),
        ("ce_correlationid", b"c9"),
        ("ce_priority", b"2"),
        ("content-type", b"application/json"),
    ];
    let data = cloudevent()["data"].to_string();
    let expected = structured(|_| ()).expect("an event").event;
    assert_eq!(event(data.as_bytes(), headers), expected);
    let base64 = structured(|event| {
        event["data_base64"] = json!(STANDARD.encode(&data));
        event.as_object_mut().expect("an object").remove("data");
    });
    assert_eq!(base64.expect("an event").event, expected);
}

#[test]
fn avro_data_may_have_cloudevents_attributes() {
    let headers: &[Header<'_>] = &[
        ("ce_specversion", b"1.0"),
        ("ce_id", b"1"),
        ("ce_source", b"s"),
        ("ce_type", b"custom.thing"),
        ("ce_accountid", b"acc"),
        ("content-type", b"application/avro"),
    ];
    let registry = foreign();
    let value = framed(7, &post(none()));
    let event = admit_with(Some(&registry), &value, headers).expect("an event").event;
    assert_eq!(event.event_id, "ce_s|1");
    assert!(event.data.contains(r#""postId":"p1""#), "{}", event.data);
}

#[test]
fn an_invalid_id_is_hashed_and_stays_unique() {
    let long = "x".repeat(128);
    let id = |source: &str, id: &str| {
        structured(|event| {
            event["source"] = json!(source);
            event["id"] = json!(id);
        })
        .expect("an event")
        .event
        .event_id
    };
    assert!(id("a b", "1").starts_with("ce_"), "a space is not visible");
    assert_eq!(id(&long, "1").len(), 35);
    assert_ne!(id(&long, "1"), id(&long, "2"));
    assert_ne!(id(&format!("{long}/1"), "2"), id(&long, "1/2"));
    // Not too long as it is, but percent-encoded in a channel name.
    assert_eq!(id(&"{".repeat(60), "1").len(), 35);
}

#[test]
fn different_events_never_share_an_id() {
    let joined = |source: &str, id: &str| {
        let event = structured(|event| {
            event["source"] = json!(source);
            event["id"] = json!(id);
        });
        event.expect("an event").event.event_id
    };
    let plain = br#"{"event_id":"/studio/web/100","event_type":"custom.x","account_id":"acc",
        "data":{}}"#;
    let mut ids = vec![event(plain, &[]).event_id];
    for (source, id) in [
        ("/studio", "web/100"),
        ("/studio/web", "100"),
        ("/studio", "web|100"),
        ("/studio|web", "100"),
        ("ce_/studio", "web/100"),
    ] {
        ids.push(joined(source, id));
    }
    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len(), "{ids:?}");
    assert_eq!(ids[1], "ce_/studio|web/100");
}

#[test]
fn a_timestamp_of_avro_has_the_unit_of_its_schema() {
    let admitted = |kind: serde_json::Value, value: Value| {
        let schema = json!({"type": "record", "name": "custom.x", "fields": [
            {"name": "account_id", "type": "string"}, {"name": "timestamp", "type": kind}]});
        let schema = schema.to_string();
        let bytes = encode(&schema, record(&[("account_id", text("a")), ("timestamp", value)]));
        let schema = WriterSchema::avro(&schema, &[]).expect("a schema");
        let registry = SingleSchemaRegistry(Arc::new(schema));
        let admitted = admit_with(Some(&registry), &framed(1, &bytes), &[]);
        admitted.map(|admitted| admitted.event.timestamp_ms)
    };
    let millis = json!({"type": "long", "logicalType": "timestamp-millis"});
    assert_eq!(admitted(millis.clone(), Value::TimestampMillis(5)), Ok(5));
    let optional = json!(["null", millis]);
    assert_eq!(admitted(optional, some(Value::TimestampMillis(5))), Ok(5));
    let micros = json!({"type": "long", "logicalType": "timestamp-micros"});
    assert_eq!(admitted(micros, Value::TimestampMicros(5_000)), Ok(5));
    let refused = admitted(json!("long"), Value::Long(1_767_607_200)).expect_err("seconds");
    assert_eq!(refused.reason, Reason::TimestampInvalid, "{refused}");
    // Encoded events have milliseconds without a logical type.
    let old = br#"{"event_id":"e1","event_type":"custom.x","account_id":"a","data":{},
        "timestamp":"1999-12-31T23:59:59Z"}"#;
    let first = event(old, &[]);
    assert_eq!(event(&first.encode(), &[]), first);
}

#[test]
fn a_rejection_names_the_attribute_of_a_cloudevent() {
    for (change, reason, field) in [
        (("specversion", json!("0.3")), Reason::BadField, "specversion"),
        (("specversion", json!(null)), Reason::MissingField, "specversion"),
        (("id", json!("")), Reason::MissingField, "id"),
        (("source", json!(null)), Reason::MissingField, "source"),
        (("type", json!({"a": 1})), Reason::BadField, "type"),
        (("type", json!("post.creatd")), Reason::UnknownType, "type"),
        (("time", json!("yesterday")), Reason::TimestampInvalid, "time"),
        (("accountid", json!(null)), Reason::MissingField, "accountid"),
        (("priority", json!("urgent")), Reason::PriorityInvalid, "priority"),
        (("subject", json!("x".repeat(129))), Reason::BadField, "subject"),
        (("datacontenttype", json!("text/xml")), Reason::ConnectorMapping, "datacontenttype"),
        (("data", json!("text")), Reason::BadField, "data"),
        (("data", json!(null)), Reason::MissingField, "data.author_id"),
        (("data_base64", json!("%%")), Reason::BadField, "data_base64"),
    ] {
        let (name, value) = change;
        let refused = structured(|event| event[name] = value).expect_err(name);
        assert_eq!((refused.reason, refused.field.as_deref()), (reason, Some(field)), "{refused}");
    }
    let twice = br#"{"specversion":"1.0","id":"1","id":"2"}"#;
    assert_eq!(refused(twice, STRUCTURED).field.as_deref(), Some("id"));
    let batch: &[Header<'_>] = &[(CONTENT_TYPE, b"application/cloudevents-batch+json")];
    assert_eq!(refused(b"[]", batch).reason, Reason::ConnectorMapping);
    let without = refused(cloudevent().to_string().as_bytes(), &[]);
    assert!(without.message.contains("application/cloudevents+json"), "{without}");
}

/// A schema and a value of it.
type SchemaSample = (serde_json::Value, Value);

fn leaf() -> impl Strategy<Value = SchemaSample> {
    // The last one has two shortest decimal forms.
    let float = prop_oneof![4 => any::<f32>(), 1 => Just(-111.600_006_f32)];
    let number = prop_oneof![any::<f64>(), Just(0.1), Just(-0.0), Just(1e300), Just(5e-324)];
    let number = number.prop_filter("finite", |number| number.is_finite());
    prop_oneof![
        Just((json!("null"), Value::Null)),
        any::<bool>().prop_map(|value| (json!("boolean"), Value::Boolean(value))),
        any::<i32>().prop_map(|value| (json!("int"), Value::Int(value))),
        any::<i64>().prop_map(|value| (json!("long"), Value::Long(value))),
        float
            .prop_filter("finite", |value| value.is_finite())
            .prop_map(|value| (json!("float"), Value::Float(value))),
        number.prop_map(|value| (json!("double"), Value::Double(value))),
        any::<Vec<u8>>().prop_map(|value| (json!("bytes"), Value::Bytes(value))),
        any::<String>().prop_map(|value| (json!("string"), Value::String(value))),
        any::<i64>().prop_map(|value| {
            (
                json!({"type": "long", "logicalType": "timestamp-millis"}),
                Value::TimestampMillis(value),
            )
        }),
        any::<i32>().prop_map(|value| {
            (json!({"type": "int", "logicalType": "date"}), Value::Date(value))
        }),
    ]
}

fn sample() -> impl Strategy<Value = SchemaSample> {
    leaf().prop_recursive(4, 24, 4, |inner| {
        let list = (inner.clone(), 0usize..3).prop_map(|((schema, value), count)| {
            (json!({"type": "array", "items": schema}), Value::Array(vec![value; count]))
        });
        let map = (inner.clone(), any::<String>()).prop_map(|((schema, value), key)| {
            (json!({"type": "map", "values": schema}), Value::Map([(key, value)].into()))
        });
        let optional = inner.clone().prop_filter_map("null twice", |(schema, value)| {
            let nested = schema.is_array() || schema == json!("null");
            (!nested).then(|| (json!(["null", schema]), Value::Union(1, Box::new(value))))
        });
        let inner_record = prop::collection::vec(inner, 0..4).prop_map(|fields| of_fields(&fields));
        prop_oneof![list, map, optional, inner_record]
    })
}

/// A record of these fields under unique names; the record is named later.
fn of_fields(fields: &[SchemaSample]) -> SchemaSample {
    let schemas: Vec<_> = fields
        .iter()
        .enumerate()
        .map(|(n, (schema, _))| json!({"name": format!("f{n}"), "type": schema}))
        .collect();
    let values =
        fields.iter().enumerate().map(|(n, (_, value))| (format!("f{n}"), value.clone())).collect();
    (json!({"type": "record", "name": "?", "fields": schemas}), Value::Record(values))
}

/// Names every record.
fn name_records(schema: &mut serde_json::Value, next: &mut u32) {
    match schema {
        serde_json::Value::Object(members) => {
            if members.get("name") == Some(&json!("?")) {
                members["name"] = json!(format!("R{next}"));
                *next += 1;
            }
            members.values_mut().for_each(|value| name_records(value, next));
        }
        serde_json::Value::Array(items) => {
            items.iter_mut().for_each(|value| name_records(value, next));
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn records_are_read_as_apache_avro_reads_them(fields in prop::collection::vec(sample(), 1..6)) {
        let (mut schema, value) = of_fields(&fields);
        name_records(&mut schema, &mut 0);
        let schema = schema.to_string();
        let bytes = encode(&schema, value.clone());
        let ours = WriterSchema::avro(&schema, &[]).expect("apache-avro took it");
        let RecordFormat::Avro(plan) = &ours.format else { panic!("Avro") };
        let read = read(plan, &bytes).expect("it was written by the schema").to_object();
        let read: serde_json::Value = serde_json::from_str(&read).expect("JSON");
        let expected = serde_json::Value::try_from(value).expect("finite numbers");
        // Also by way of text, because reading a number rounds.
        let expected: serde_json::Value =
            serde_json::from_str(&expected.to_string()).expect("JSON");
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn damaged_records_never_panic(
        fields in prop::collection::vec(sample(), 1..6),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let (mut schema, value) = of_fields(&fields);
        name_records(&mut schema, &mut 0);
        let schema = schema.to_string();
        let mut bytes = encode(&schema, value);
        let ours = WriterSchema::avro(&schema, &[]).expect("apache-avro took it");
        let RecordFormat::Avro(plan) = &ours.format else { panic!("Avro") };
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
            bytes.truncate(cut.index(bytes.len()) + 1);
        }
        if let Ok(fields) = read(plan, &bytes) {
            let text = fields.to_object();
            serde_json::from_str::<serde_json::Value>(&text).expect("JSON");
        }
    }
}
