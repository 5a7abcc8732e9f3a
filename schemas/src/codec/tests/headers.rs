//! Tests of what headers decide: mode, attributes, envelope fields and schema.

use super::*;

/// Headers of [`cloudevent`] in binary mode, without its content type.
const BINARY: &[Header<'_>] = &[
    ("ce_specversion", b"1.0"),
    ("ce_id", b"42"),
    ("ce_source", b"/shop"),
    ("ce_type", b"custom.x"),
    ("ce_accountid", b"acc"),
];

#[test]
fn the_content_type_decides_the_mode_of_a_cloudevent() {
    let body = cloudevent().to_string();
    let expected = structured(|_| ()).expect("an event").event;
    for kind in ["application/cloudevents+json", "\"Application/CloudEvents+JSON; charset=utf-8\""]
    {
        // Contradictory ones do not matter either, since they are not read.
        let stray: [Header<'_>; 4] = [
            (CONTENT_TYPE, kind.as_bytes()),
            ("ce_specversion", b"1.0"),
            ("ce_accountid", b"other"),
            ("ce_specversion", b"\xff"),
        ];
        assert_eq!(event(body.as_bytes(), &stray), expected, "{kind}");
    }
    let batch = [&[(CONTENT_TYPE, &b"application/cloudevents-batch+json"[..])], BINARY].concat();
    let refused = refused(format!("[{body}]").as_bytes(), &batch);
    assert_eq!(refused.reason, Reason::ConnectorMapping);
    assert!(refused.message.contains("a record of its own"), "{refused}");
}

#[test]
fn attributes_in_headers_are_unquoted_once_and_decoded_once() {
    // Spring's header mapper writes every text as a JSON string.
    let quoted: &[Header<'_>] = &[
        ("ce_specversion", b"\"1.0\""),
        ("ce_id", b"\"%2542\""),
        ("ce_source", b"\"/shop\""),
        ("ce_type", b"\"custom.x\""),
        ("ce_accountid", b"\"a15\""),
        ("ce_subject", b"Gr%C3%BC%C3%9Fe"),
        ("ce_priority", b"\"\""),
        ("ce_traceparent", b"00-1-2-00"),
        ("content-type", b"\"application/json\""),
    ];
    let admitted = admit_with(None, b"{}", quoted).expect("an event");
    assert_eq!(admitted.ignored_fields, 1, "traceparent");
    assert_eq!(admitted.sent_key.as_deref(), Some("Grüße"));
    let event = admitted.event;
    assert_eq!(event.account_id, "a15");
    assert_eq!((event.event_id.as_str(), event.source.as_deref()), ("ce_/shop|%42", Some("/shop")));
    let bad = [BINARY, &[("ce_subject", &b"%C3"[..])]].concat();
    let refused = refused(b"{}", &bad);
    assert_eq!((refused.reason, refused.field.as_deref()), (Reason::NotUtf8, Some("subject")));
    assert!(refused.message.contains("header ce_subject "), "{refused}");
}

#[test]
fn headers_that_would_be_guessed_at_are_refused_by_name() {
    let twice = |name: &'static str, value: &'static [u8]| [BINARY, &[(name, value)]].concat();
    for (name, value, reason) in [
        ("ce_id", &b"43"[..], Reason::BadField),
        ("ce_accountid", b"other", Reason::BadField),
        ("ce_specversion", b"0.3", Reason::BadField),
        ("ce_subject", b"\xff", Reason::NotUtf8),
        ("content-type", b"application/json\xff", Reason::NotUtf8),
    ] {
        let refused = refused(b"{}", &twice(name, value));
        assert_eq!(refused.reason, reason, "{refused}");
        assert!(refused.message.contains(&format!("header {name} ")), "{refused}");
    }
    for (name, value) in [("ce_id", &b"42"[..]), ("ce_id", b""), ("ce_subject", b"")] {
        assert_eq!(event(b"{}", &twice(name, value)).event_id, "ce_/shop|42");
    }
    let registry = foreign();
    let value = framed(7, &post(none()));
    let headers: &[Header<'_>] = &[("event_type", b"post.created")];
    for (name, values) in [("key", [&b"a"[..], b"b"]), ("source", [&b"a"[..], b"\xfe"])] {
        let headers = [headers, &values.map(|value| (name, value))[..]].concat();
        let refused = admit_with(Some(&registry), &value, &headers).expect_err("refused");
        assert!(refused.message.contains(&format!("header {name} ")), "{refused}");
        assert_eq!(refused.field.as_deref(), Some(name));
    }
    // Nothing reads them.
    let plain = br#"{"event_id":"j1","event_type":"custom.x","account_id":"a","data":{}}"#;
    let other = [("event_id", &b"a"[..]), ("event_id", b"b"), ("trace", b"\xff")];
    assert_eq!(event(plain, &other).event_id, "j1");
}

#[test]
fn a_byte_order_mark_before_json_is_ignored() {
    let plain = "\u{feff}{\"event_id\":\"j1\",\"event_type\":\"custom.x\",\"account_id\":\"a\",
        \"data\":{}}";
    assert_eq!(event(plain.as_bytes(), &[]).event_id, "j1");
    let json = SingleSchemaRegistry(Arc::new(WriterSchema::json()));
    let value = framed(3, plain.as_bytes());
    assert_eq!(admit_with(Some(&json), &value, &[]).expect("an event").event.event_id, "j1");
    let body = format!("\u{feff}{}", cloudevent());
    assert_eq!(event(body.as_bytes(), STRUCTURED).event_id, "ce_/shop|42");
    assert_eq!(event("\u{feff}{\"n\":1}".as_bytes(), BINARY).data, r#"{"n":1}"#);
    let base64 = structured(|event| {
        event["type"] = json!("custom.x");
        event["data_base64"] = json!(STANDARD.encode("\u{feff}{}"));
        event.as_object_mut().expect("an object").remove("data");
    });
    assert_eq!(base64.expect("an event").event.data, "{}");
    let twice = format!("\u{feff}{plain}");
    assert_eq!(refused(twice.as_bytes(), &[]).reason, Reason::NotJson);
    assert_eq!(refused("\u{feff}".as_bytes(), &[]).reason, Reason::NotJson);
}

const SCHEMA_ID: &str = "__value_schema_id";

#[test]
fn a_schema_in_a_header_is_used_instead_of_a_framing() {
    let registry = foreign();
    let by_guid = [&[1][..], &GUID.to_be_bytes()].concat();
    let value = post(none());
    for id in [&by_guid[..], b"\0\0\0\0\x07"] {
        let headers: &[Header<'_>] = &[("event_type", b"post.created"), (SCHEMA_ID, id)];
        let event = admit_with(Some(&registry), &value, headers).expect("an event").event;
        assert_eq!((event.event_id.as_str(), event.account_id.as_str()), ("e\"1", "7"));
        let headers = [BINARY, &[(SCHEMA_ID, id)]].concat();
        let event = admit_with(Some(&registry), &value, &headers).expect("an event").event;
        assert!(event.data.contains(r#""postId":"p1""#), "{}", event.data);
    }
}

#[test]
fn bytes_beside_a_schema_header_are_never_taken_for_a_framing() {
    let schema = r#"{"type":"record","name":"X","fields":[{"name":"n","type":"long"},
        {"name":"m","type":"long"},{"name":"account_id","type":"string"}]}"#;
    let registry =
        SingleSchemaRegistry(Arc::new(WriterSchema::avro(schema, &[]).expect("a schema")));
    let by_guid = [&[1][..], &GUID.to_be_bytes()].concat();
    let headers: &[Header<'_>] = &[("event_type", b"custom.x"), (SCHEMA_ID, &by_guid)];
    for n in [[0, 0], [-98, -1]] {
        // Begins with 00 or with C3 01.
        let fields =
            [("n", Value::Long(n[0])), ("m", Value::Long(n[1])), ("account_id", text("a"))];
        let value = encode(schema, record(&fields));
        assert!(value.starts_with(&[0, 0]) || value.starts_with(&[0xc3, 0x01]), "{value:?}");
        let event = admit_with(Some(&registry), &value, headers).expect("an event").event;
        assert_eq!(event.data, format!(r#"{{"n":{},"m":{}}}"#, n[0], n[1]));
    }
}

#[test]
fn a_record_waits_for_the_schema_of_its_header_while_the_registry_cannot_be_asked() {
    let (registry, value) = (foreign(), post(none()));
    let by_guid = [&[1][..], &GUID_AWAY.to_be_bytes()].concat();
    let keys = [SchemaKey::Guid(GUID_AWAY), SchemaKey::Id(101)];
    for (header, key) in [&by_guid[..], b"\0\0\0\0\x65"].into_iter().zip(keys) {
        for more in [&[][..], BINARY] {
            let headers = [more, &[(SCHEMA_ID, header)]].concat();
            let missing = SchemaUnavailable { key, why: "it is away".to_owned() };
            let failure = attempt_with(Some(&registry), &value, &headers);
            assert_eq!(failure, Err(AdmitFailure::Waits(missing)));
        }
    }
}

#[test]
fn a_schema_header_that_can_t_be_used_is_refused_by_name() {
    let (registry, value) = (foreign(), post(none()));
    let unknown = [1; 17];
    for (ids, reason, part) in [
        (vec![&unknown[..]], Reason::SchemaUnknown, "schema 01010101-0101-0101-0101-010101010101"),
        (vec![&b"\0\0\0\0\x66"[..]], Reason::SchemaUnknown, "schema 102"),
        (vec![&b"7"[..]], Reason::AvroDecode, "value.schema.id.serializer"),
        (vec![&unknown[..5]], Reason::AvroDecode, "5 bytes"),
        (vec![&b"\0\0\0\0\x07"[..], b"\0\0\0\0\x08"], Reason::BadField, "different values"),
    ] {
        let headers: Vec<Header<'_>> = ids.into_iter().map(|id| (SCHEMA_ID, id)).collect();
        let refused = admit_with(Some(&registry), &value, &headers).expect_err("refused");
        assert_eq!(refused.reason, reason, "{refused}");
        assert_eq!(refused.field.as_deref(), Some(SCHEMA_ID));
        assert!(refused.message.contains(SCHEMA_ID), "{refused}");
        assert!(refused.message.contains(part), "{refused}");
    }
    let refused = refused(&value, &[(SCHEMA_ID, &unknown)]);
    assert_eq!(refused.reason, Reason::RegistryUnavailable);
    assert!(refused.message.contains("registry.url"), "{refused}");
    // JSON beside the header needs no registry.
    let json = "\u{feff} {\"event_type\":\"custom.x\",\"account_id\":\"a\",\"data\":{}}";
    event(json.as_bytes(), &[(SCHEMA_ID, &unknown)]);
    event(b"{}", &[BINARY, &[(SCHEMA_ID, &unknown[..])]].concat());
}
