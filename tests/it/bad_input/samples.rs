//! Records that are not valid events, each with the expected reason of its dead letter.

use serde_json::json;

/// One bad record.
pub(super) struct BadRecord {
    pub(super) what: &'static str,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Vec<(&'static str, Vec<u8>)>,
    /// The dead letter's reason, and a part of its detail.
    pub(super) reason: &'static str,
    pub(super) detail: &'static str,
}

/// A valid event, changed.
fn event(change: impl FnOnce(&mut serde_json::Value)) -> String {
    let mut event = json!({
        "event_id": "bad", "event_type": "post.created", "account_id": "acc",
        "data": {"post_id": "p", "author_id": "ann", "text": "t"},
    });
    change(&mut event);
    event.to_string()
}

fn text(what: &'static str, value: impl Into<Vec<u8>>, expected: [&'static str; 2]) -> BadRecord {
    let [reason, detail] = expected;
    BadRecord { what, value: Some(value.into()), headers: vec![], reason, detail }
}

fn changed(
    what: &'static str,
    path: &str,
    value: serde_json::Value,
    expected: [&'static str; 2],
) -> BadRecord {
    text(what, event(|event| *event.pointer_mut(path).expect("it is there") = value), expected)
}

/// Values that a producer can send over HTTP and Kafka.
pub(super) fn values() -> Vec<BadRecord> {
    let with = |part: &str| event(|_| ()).replace("\"text\":\"t\"", part);
    let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    let year_ahead = json!("2030-01-01T00:00:00Z");
    let mut all = types_and_fields();
    all.extend([
        text("malformed", "{\"event_type\": ", ["not_json", "at byte"]),
        text("an array", "[1]", ["not_object", "JSON object"]),
        text("text behind", event(|_| ()) + "x", ["not_json", "follows"]),
        text("invalid UTF-8", [event(|_| ()).as_bytes(), b"\xff"].concat(), ["not_utf8", "UTF-8"]),
        text("a lone surrogate", with(r#""text":"\ud800""#), ["not_json", "surrogate"]),
        text("NUL in text", with("\"text\":\"\0\""), ["not_json", "control"]),
        text("a duplicate key", with(r#""text":"a","text":"b""#), ["bad_field", "twice"]),
        text("depth 5,000", with(&format!("\"text\":\"t\",\"x\":{deep}")), ["too_large", "nested"]),
        text("not a number", with(r#""text":"t","n":NaN"#), ["not_json", "NaN is not JSON"]),
        text("a huge number", with(r#""text":"t","n":1e99999"#), ["bad_field", "double"]),
        text(
            "300 KiB",
            with(&format!("\"text\":\"{}\"", "x".repeat(300 << 10))),
            ["too_large", "at most 262144 bytes"],
        ),
        changed("no account", "/account_id", json!(null), ["missing_field", "account"]),
        changed("an id with a space", "/event_id", json!("a b"), ["bad_id", "visible ASCII"]),
        text(
            "a time a year ahead",
            event(|e| e["timestamp"] = year_ahead),
            ["timestamp_future", "producer's clock"],
        ),
        text(
            "no time",
            event(|e| e["timestamp"] = json!("soon")),
            ["timestamp_invalid", "RFC 3339"],
        ),
        text(
            "a time in seconds",
            event(|e| e["timestamp"] = json!(1_767_607_200)),
            ["timestamp_invalid", "multiply seconds by 1000"],
        ),
        text(
            "a time before all",
            event(|e| e["timestamp"] = json!(-1e18)),
            ["timestamp_invalid", "RFC 3339"],
        ),
        text(
            "priority 9",
            event(|e| e["priority"] = json!(9)),
            ["priority_invalid", "3 (critical)"],
        ),
        text("an empty key", event(|e| e["key"] = json!("")), ["bad_field", "key"]),
        text(
            "a CloudEvent unannounced",
            r#"{"specversion":"1.0","id":"1","type":"x","data":{}}"#,
            ["missing_field", "application/cloudevents+json"],
        ),
    ]);
    all
}

/// Types that may not be sent, and fields that do not fit theirs.
fn types_and_fields() -> Vec<BadRecord> {
    vec![
        changed("a wrong type", "/data/text", json!(7), ["bad_field", "data.text"]),
        changed("a missing field", "/data/author_id", json!(null), ["missing_field", "author_id"]),
        changed(
            "an unknown type",
            "/event_type",
            json!("post.craeted"),
            ["unknown_type", "did you mean `post.created`"],
        ),
        changed(
            "a pattern as a type",
            "/event_type",
            json!("custom.*"),
            ["unknown_type", "visible ASCII characters except `*`"],
        ),
        changed("a frame's name", "/event_type", json!("heartbeat"), ["reserved_type", "frame"]),
        changed(
            "what only an operator emits",
            "/event_type",
            json!("incident.opened"),
            ["reserved_type", "operator `incident`"],
        ),
        changed(
            "what only Tidewire writes",
            "/event_type",
            json!("gateway.lease"),
            ["reserved_type", "own processes"],
        ),
    ]
}

/// Values and headers only a client of Kafka can send.
pub(super) fn records() -> Vec<BadRecord> {
    let mut all = values();
    let framed = |what, value: &[u8], expected| text(what, value, expected);
    all.extend([
        BadRecord {
            what: "a null value",
            value: None,
            headers: vec![],
            reason: "empty_value",
            detail: "no value",
        },
        framed("an empty value", b"", ["empty_value", "no value"]),
        framed("Avro cut off", b"\xc3\x01\x94\xcd\x4c", ["avro_decode", "fingerprint"]),
        framed(
            "an unknown fingerprint",
            b"\xc3\x01abcdefgh..",
            ["schema_unknown", "tidewire schemas export"],
        ),
        framed(
            "an event cut off",
            b"\xc3\x01\x94\xcd\x4c\x22\x45\xe0\xc3\xdb\x04ab",
            ["avro_decode", "ends too early"],
        ),
        framed(
            "a registry's schema without one",
            b"\0\0\0\0\x07rest",
            ["registry_unavailable", "registry.url"],
        ),
        BadRecord {
            headers: vec![("content-type", b"application/cloudevents-batch+json".to_vec())],
            ..text("a batch in one record", "[]", ["connector_mapping", "a record of its own"])
        },
        BadRecord {
            headers: vec![("ce_specversion", b"1.0".to_vec()), ("ce_type", vec![0xff])],
            ..text("a header that is not UTF-8", "{}", ["not_utf8", "ce_type"])
        },
        BadRecord {
            headers: vec![("trace", vec![b'x'; 900_000])],
            ..text("bad, with headers of almost 1 MB", "{", ["not_json", "at byte"])
        },
    ]);
    all
}
