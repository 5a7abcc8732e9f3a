//! Splits a body of `POST /v1/events` into events: content type, byte order marks, size limits.
//!
//! | content type | events |
//! |---|---|
//! | `application/json` | an object or an array |
//! | `application/x-ndjson` | one object per line |
//! | `application/cloudevents+json`, `…-batch+json` | one CloudEvent; an array of them |
//! | any other, with `ce-specversion` | one CloudEvent, attributes in `ce-` headers |
//! | `application/avro` | one record, single-object or in Confluent's framing |
//!
//! The content type decides, so `ce-` headers beside a structured CloudEvent have no effect
//! (CloudEvents HTTP protocol binding, section 3). Each event leaves as the bytes that were sent,
//! with the headers of the same event as a Kafka record, so that ADMIT's code reads both. Nothing
//! is decoded here beyond what splitting needs.
//!
//! What is wrong with the whole body refuses it; what is wrong with one event is found later.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName};
use serde_json::value::RawValue;
use tidewire_engine::fanout::protocol::native::ErrorCode;
use tidewire_schemas::codec;
use tidewire_schemas::envelope::non_number;

use super::request_headers::{attribute, single};
use super::response::ErrorResponse;
use super::unpack::ContentEncoding;
use crate::socket::limits::{BODY_BYTES, BODY_EVENTS};

/// The content type of an array of CloudEvents in structured mode.
const BATCH: &str = "application/cloudevents-batch+json";

/// How every content type of CloudEvents begins whose body has the attributes.
const CLOUDEVENTS: &str = "application/cloudevents";

/// Content types that are read.
const SUPPORTED: &str = "application/json (an object or an array), application/x-ndjson (one \
                         object per line), application/cloudevents+json, \
                         application/cloudevents-batch+json or application/avro";

/// Bodies up to this size are validated by the thread that received them, and most are that small.
/// It takes 1.2 ms at worst, for many events of unknown types, as measured by the test
/// `small_bodies_take_little_time_to_validate` of the schemas; bodies of 64 KiB take 30 ms.
const QUICK_BYTES: usize = 4 * 1_024;

/// A byte order mark in UTF-8, which JSON readers may ignore (RFC 8259, section 8.1).
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Headers of a request in Avro, and the envelope fields they set.
const FIELD_HEADERS: [(&str, &str); 8] = [
    ("tw-event-type", "event_type"),
    ("tw-event-id", "event_id"),
    ("tw-account-id", "account_id"),
    ("tw-timestamp", "timestamp"),
    ("tw-correlation-id", "correlation_id"),
    ("tw-priority", "priority"),
    ("tw-key", "key"),
    ("tw-source", "source"),
];

/// How a body is laid out and compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BodyFormat {
    layout: EventLayout,
    pub(super) encoding: ContentEncoding,
    /// The headers of each of its records.
    pub(super) headers: RecordHeaders,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EventLayout {
    Json,
    Ndjson,
    /// An array of CloudEvents.
    Batch,
    /// The whole body is one CloudEvent in structured mode.
    Structured,
    /// The whole body is one event, in Avro or described by headers.
    Single,
}

/// How long the validation of a body may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValidationCost {
    /// Short enough for an HTTP thread.
    Quick,
    /// Many milliseconds of work.
    Work,
    /// Seconds, since it may ask a schema registry.
    Wait,
}

/// Headers of a record, named as in the Kafka bindings of its format.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RecordHeaders(pub(super) Vec<(String, Vec<u8>)>);

impl BodyFormat {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ErrorResponse> {
        let encoding = ContentEncoding::of(headers)?;
        let sent = single(headers, CONTENT_TYPE.as_str())?.unwrap_or_default();
        let media = sent.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let content_type = |kind: &str| (codec::CONTENT_TYPE.to_owned(), kind.as_bytes().to_vec());
        let (layout, own) = match media.as_str() {
            codec::STRUCTURED => (EventLayout::Structured, vec![content_type(codec::STRUCTURED)]),
            BATCH => (EventLayout::Batch, vec![content_type(codec::STRUCTURED)]),
            other if other.starts_with(CLOUDEVENTS) => {
                return Err(ErrorResponse::unsupported("Content-Type", sent, SUPPORTED));
            }
            _ if is_binary(headers)? => {
                let mut own = record_attributes(headers)?;
                own.extend((!sent.is_empty()).then(|| content_type(sent)));
                (EventLayout::Single, own)
            }
            "application/json" => (EventLayout::Json, vec![]),
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => {
                (EventLayout::Ndjson, vec![])
            }
            "application/avro" | "avro/binary" | "application/vnd.apache.avro" => {
                let mut own = envelope_fields(headers)?;
                own.push(content_type(sent));
                (EventLayout::Single, own)
            }
            _ => return Err(ErrorResponse::unsupported("Content-Type", sent, SUPPORTED)),
        };
        Ok(Self { layout, encoding, headers: RecordHeaders(own) })
    }

    /// Whether each event is JSON of the envelope, whatever its first bytes are: only a whole body
    /// can be Avro.
    pub(super) fn is_plain_json(&self) -> bool {
        matches!(self.layout, EventLayout::Json | EventLayout::Ndjson)
    }

    /// How long validating a body of this many bytes, as sent, may take.
    pub(super) fn cost(&self, bytes: usize) -> ValidationCost {
        match (self.layout, self.encoding) {
            (EventLayout::Single, _) => ValidationCost::Wait,
            (_, ContentEncoding::Identity) if bytes <= QUICK_BYTES => ValidationCost::Quick,
            _ => ValidationCost::Work,
        }
    }

    /// The bytes of each event. An array or object has to be JSON as a whole; a line of NDJSON that
    /// is not JSON fails only as that event. Only an array may have no event.
    pub(super) fn split<'a>(&self, body: &'a [u8]) -> Result<Vec<&'a [u8]>, ErrorResponse> {
        let body = without_mark(body);
        let is_array = body.trim_ascii_start().first() == Some(&b'[');
        let events = match self.layout {
            EventLayout::Single | EventLayout::Structured => vec![body],
            EventLayout::Ndjson => lines(body)?,
            EventLayout::Json if !is_array => {
                let event: &RawValue =
                    serde_json::from_slice(body).map_err(|error| not_json(body, &error))?;
                vec![event.get().as_bytes()]
            }
            EventLayout::Batch if !is_array => return Err(not_an_array(body)),
            EventLayout::Json | EventLayout::Batch => {
                let events: Vec<&RawValue> =
                    serde_json::from_slice(body).map_err(|error| not_json(body, &error))?;
                events.into_iter().map(|event| event.get().as_bytes()).collect()
            }
        };
        if events.len() > BODY_EVENTS { Err(ErrorResponse::body_too_large()) } else { Ok(events) }
    }
}

/// Refuses a body that is announced as too large, before any of it is read.
pub(super) fn check_length(headers: &HeaderMap) -> Result<(), ErrorResponse> {
    let Some(sent) = single(headers, CONTENT_LENGTH.as_str())? else { return Ok(()) };
    match sent.parse::<usize>() {
        Ok(bytes) if bytes <= BODY_BYTES => Ok(()),
        _ => Err(ErrorResponse::body_too_large()),
    }
}

/// The lines that are not empty: at most one more than a body may have. Each may begin with a byte
/// order mark, since files that begin with one are often written one behind the other.
fn lines(body: &[u8]) -> Result<Vec<&[u8]>, ErrorResponse> {
    let lines: Vec<&[u8]> = body
        .split(|byte| *byte == b'\n')
        .map(|line| without_mark(line).trim_ascii())
        .filter(|line| !line.is_empty())
        .take(BODY_EVENTS + 1)
        .collect();
    if lines.is_empty() {
        let message = "the body has no line with an event; send at least one";
        return Err(ErrorResponse::new(ErrorCode::InvalidMessage, message));
    }
    Ok(lines)
}

/// JSON text without the byte order mark it begins with.
fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// Whether headers have the attributes of a CloudEvent.
fn is_binary(headers: &HeaderMap) -> Result<bool, ErrorResponse> {
    attribute(headers, "ce-specversion").map(|version| version.is_some())
}

/// The attributes of a CloudEvent in binary mode, as headers of a record. They stay as they were
/// sent: the decoder removes quotes and percent-encoding, as it does for records of Kafka.
fn record_attributes(headers: &HeaderMap) -> Result<Vec<(String, Vec<u8>)>, ErrorResponse> {
    let mut own = Vec::new();
    for name in headers.keys().map(HeaderName::as_str) {
        let Some(plain) = name.strip_prefix("ce-") else { continue };
        if let Some(value) = attribute(headers, name)? {
            own.push((format!("ce_{plain}"), value.as_bytes().to_vec()));
        }
    }
    Ok(own)
}

/// The envelope fields that headers set, as headers of a record.
fn envelope_fields(headers: &HeaderMap) -> Result<Vec<(String, Vec<u8>)>, ErrorResponse> {
    let mut own = Vec::new();
    for (header, field) in FIELD_HEADERS {
        if let Some(value) = single(headers, header)? {
            own.push((field.to_owned(), value.as_bytes().to_vec()));
        }
    }
    Ok(own)
}

/// The error for a batch that is JSON but no array, or no JSON.
fn not_an_array(body: &[u8]) -> ErrorResponse {
    let value: &RawValue = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(error) => return not_json(body, &error),
    };
    let kind = match value.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    };
    let message = format!(
        "the body of {BATCH} is {kind}, but an array is expected: put the event into [ ], or send \
         one event as {}",
        codec::STRUCTURED
    );
    ErrorResponse::new(ErrorCode::InvalidMessage, message)
}

fn not_json(body: &[u8], error: &serde_json::Error) -> ErrorResponse {
    let cause = non_number(body).unwrap_or_else(|| error.to_string());
    let message = format!(
        "the body is not JSON ({cause}); send an object or an array, or one object per line as \
         application/x-ndjson"
    );
    ErrorResponse::new(ErrorCode::InvalidJson, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, StatusCode};

    fn format(headers: &[(&str, &str)]) -> Result<BodyFormat, ErrorResponse> {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().expect("a name");
            all.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        BodyFormat::of(&all)
    }

    /// The header of a record.
    fn value(format: &BodyFormat, name: &str) -> Option<String> {
        let found = format.headers.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| String::from_utf8(value.clone()).expect("text"))
    }

    fn check(kind: &str, body: &str, expected: Result<&[&str], StatusCode>) {
        let format = format(&[("content-type", kind)]).expect("a known type");
        match (format.split(body.as_bytes()), expected) {
            (Ok(got), Ok(parts)) => {
                let got: Vec<&str> =
                    got.iter().map(|part| std::str::from_utf8(part).expect("text")).collect();
                assert_eq!(got, parts);
            }
            (got, expected) => {
                assert_eq!(got.expect_err("refused").status, expected.expect_err("a status"));
            }
        }
    }

    const JSON: &str = "application/json; charset=utf-8";
    const NDJSON: &str = "application/x-ndjson";
    const STRUCTURED: &str = codec::STRUCTURED;

    #[test]
    fn a_body_is_split_into_the_bytes_that_were_sent() {
        check(JSON, r#" {"a": 1} "#, Ok(&[r#"{"a": 1}"#]));
        check(JSON, "[{\"a\" : 1}, 2,[]]", Ok(&["{\"a\" : 1}", "2", "[]"]));
        check(NDJSON, "{\"a\":1}\r\n\n not json \n{}", Ok(&["{\"a\":1}", "not json", "{}"]));
        check(BATCH, "[{\"a\" : 1}, {}]", Ok(&["{\"a\" : 1}", "{}"]));
        check(STRUCTURED, "[ 1 ]", Ok(&["[ 1 ]"]));
        check("avro/binary", "\0\0", Ok(&["\0\0"]));
    }

    #[test]
    fn a_body_that_holds_no_list_of_events_is_refused_as_a_whole() {
        check(JSON, "{\"a\":1}\n{\"a\":2}", Err(StatusCode::BAD_REQUEST));
        check(JSON, "[{\"a\":1}", Err(StatusCode::BAD_REQUEST));
        check(JSON, "", Err(StatusCode::BAD_REQUEST));
        check(BATCH, "{}", Err(StatusCode::BAD_REQUEST));
        check(NDJSON, "\n\n", Err(StatusCode::BAD_REQUEST));
        check(NDJSON, &"{}\n".repeat(1_001), Err(StatusCode::PAYLOAD_TOO_LARGE));
        check(JSON, &format!("[{}]", ["1"; 1_001].join(",")), Err(StatusCode::PAYLOAD_TOO_LARGE));
    }

    #[test]
    fn an_array_may_be_empty() {
        check(BATCH, " [ ] ", Ok(&[]));
        check(JSON, "[]", Ok(&[]));
    }

    #[test]
    fn a_byte_order_mark_before_json_is_ignored() {
        check(JSON, "\u{feff}{\"a\":1}", Ok(&["{\"a\":1}"]));
        check(JSON, "\u{feff}\r\n[1]", Ok(&["1"]));
        check(BATCH, "\u{feff}[]", Ok(&[]));
        check(STRUCTURED, "\u{feff}{}", Ok(&["{}"]));
        check(NDJSON, "\u{feff}{}\n\u{feff}{\"b\":1}\n\u{feff}", Ok(&["{}", "{\"b\":1}"]));
        check(NDJSON, "\u{feff}\n", Err(StatusCode::BAD_REQUEST));
        check(JSON, "\u{feff}\u{feff}{}", Err(StatusCode::BAD_REQUEST));
    }

    #[test]
    fn a_batch_that_is_no_array_is_told_what_it_is() {
        let batch = format(&[("content-type", BATCH)]).expect("a known type");
        for (body, part) in [
            ("{\"id\":1}", "is an object, but an array is expected"),
            ("\"[]\"", "is a string"),
            ("7", "is a number"),
            ("null", "is null"),
            ("{\"id\":", "not JSON"),
        ] {
            let refused = batch.split(body.as_bytes()).expect_err("refused");
            assert!(refused.message.contains(part), "{body}: {}", refused.message);
        }
    }

    #[test]
    fn a_number_that_json_does_not_have_is_named_with_its_position() {
        for (body, part) in [
            ("{\"a\":NaN}", "at byte 5: NaN is not JSON; send null or a string"),
            ("[{\"a\":[1,-Infinity]}]", "at byte 9: -Infinity is not JSON"),
            ("[{\"a\":nan}]", "at byte 6: NaN is not JSON"),
            ("{\"a\":NaNs}", "expected value"),
        ] {
            let json = format(&[("content-type", JSON)]).expect("a known type");
            let refused = json.split(body.as_bytes()).expect_err("refused");
            assert!(refused.message.contains(part), "{body}: {}", refused.message);
        }
    }

    #[test]
    fn the_content_type_decides_the_mode_of_a_cloudevent() {
        let layout = |kind: &str| {
            let binary = [("ce-specversion", "1.0"), ("ce-accountid", "other")];
            let headers = [("content-type", kind), binary[0], binary[1]];
            format(&headers).map(|format| (format.layout, format.headers.0.len()))
        };
        assert_eq!(layout("Application/CloudEvents+JSON; charset=utf-8"), {
            Ok((EventLayout::Structured, 1))
        });
        assert_eq!(layout(BATCH), Ok((EventLayout::Batch, 1)));
        assert_eq!(layout("application/json"), Ok((EventLayout::Single, 3)));
        assert_eq!(layout(""), Ok((EventLayout::Single, 2)));
        let avro = layout("application/cloudevents+avro").expect_err("not read");
        assert_eq!(avro.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        // A blank version is absent, so this is no CloudEvent.
        let blank = format(&[("content-type", JSON), ("ce-specversion", "")]).expect("JSON");
        assert_eq!(blank.layout, EventLayout::Json);
        let blank = format(&[("content-type", JSON), ("ce-specversion", "\"\"")]).expect("JSON");
        assert_eq!(blank.layout, EventLayout::Json);
    }

    #[test]
    fn headers_that_are_read_twice_or_not_at_all_are_refused_by_name() {
        const AVRO: &str = "content-type: application/avro";
        for (headers, name) in [
            ([AVRO, "tw-account-id: a", "tw-account-id: b"], "tw-account-id"),
            ([AVRO, "tw-key: \u{fc}", "tw-source: a"], "tw-key"),
            (["ce-specversion: 1.0", "ce-id: 1", "ce-id: 2"], "ce-id"),
            (["ce-specversion: 1.0", "ce-specversion: 0.3", "ce-id: 1"], "ce-specversion"),
            (["ce-specversion: 1.0", "ce-source: %C3", "ce-id: 1"], "ce-source"),
            ([AVRO, "content-type: text/plain", "accept: a"], "content-type"),
            (["content-type: application/json\u{ff}", "accept: a", "accept: b"], "content-type"),
        ] {
            let split = headers.map(|line| line.split_once(": ").expect("a header"));
            let refused = format(&split).expect_err(name);
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{name}");
            assert!(refused.message.contains(&format!("header {name} ")), "{}", refused.message);
        }
        let repeated = [("content-type", "application/avro"), ("tw-key", ""), ("tw-key", "k")];
        let format = format(&repeated).expect("readable");
        assert_eq!(value(&format, "key").as_deref(), Some("k"));
        assert_eq!(format.headers.0.len(), 2);
    }

    #[test]
    fn headers_of_a_request_become_headers_of_a_record() {
        let format = format(&[
            ("ce-specversion", "1.0"),
            ("ce-subject", "\"Gr%C3%BC%C3%9Fe\""),
            ("ce-priority", "\"\""),
            ("content-type", "application/json"),
            ("accept", "*/*"),
        ])
        .expect("a cloudevent");
        let subject = value(&format, "ce_subject").expect("an attribute");
        assert_eq!(subject, "\"Gr%C3%BC%C3%9Fe\"", "the decoder decodes it, once");
        assert_eq!(value(&format, "content-type").as_deref(), Some("application/json"));
        assert_eq!(format.headers.0.len(), 3);
        let format =
            self::format(&[("content-type", "application/avro"), ("tw-event-type", "mention")])
                .expect("avro");
        assert_eq!(value(&format, "event_type").as_deref(), Some("mention"));
    }
}
