//! Splits a body of `POST /v1/events` into events: content type, compression, size limits.
//!
//! | content type | events |
//! |---|---|
//! | `application/json` | an object or an array |
//! | `application/x-ndjson` | one object per line |
//! | `application/cloudevents+json`, `…-batch+json` | one CloudEvent; an array of them |
//! | any, with `ce-specversion` | one CloudEvent, attributes in `ce-` headers |
//! | `application/avro` | one record, single-object or in Confluent's framing |
//!
//! Each event leaves as the bytes that were sent, with the headers of the same event as a Kafka
//! record, so that ADMIT's code reads both. Nothing is decoded here beyond what splitting needs.
//! What is wrong with the whole body refuses it; what is wrong with one event is found later.

use std::io::Read;

use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use percent_encoding::percent_decode_str;
use serde_json::value::RawValue;
use tidewire_engine::fanout::protocol::native::ErrorCode;
use tidewire_schemas::codec::{self, HeaderLookup};

use super::response::{ErrorResponse, HttpErrorCode};

/// Bytes of one body, unpacked.
pub const BODY_BYTES: usize = 4 * 1_024 * 1_024;

/// Events of one body.
pub const BODY_EVENTS: usize = 1_000;

/// The largest window of a zstd body, as a power of two: 8 MiB, which RFC 8878 recommends every
/// decoder to support.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

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
    encoding: ContentEncoding,
    /// The headers of each of its records.
    pub(super) headers: RecordHeaders,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EventLayout {
    Json,
    Ndjson,
    /// An array of events.
    Batch,
    /// The whole body is one event.
    Single,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ContentEncoding {
    Identity,
    Gzip,
    Deflate,
    Zstd,
}

/// Headers of a record, named as in the Kafka bindings of its format.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RecordHeaders(pub(super) Vec<(String, Vec<u8>)>);

impl HeaderLookup for RecordHeaders {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_slice())
    }
}

fn unsupported(header: &str, sent: &str, supported: &str) -> ErrorResponse {
    let sent: String = sent.chars().take(80).collect();
    let message = match sent.as_str() {
        "" => format!("{header} is missing; send {supported}"),
        sent => format!("{header} `{sent}` is not supported; send {supported}"),
    };
    ErrorResponse::new(HttpErrorCode::Unsupported, message)
}

impl BodyFormat {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ErrorResponse> {
        let encoding = ContentEncoding::of(headers)?;
        let sent = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let media = sent.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        let content_type = || (codec::CONTENT_TYPE.to_owned(), sent.as_bytes().to_vec());
        if headers.contains_key("ce-specversion") {
            let mut own = attributes(headers)?;
            own.extend((!sent.is_empty()).then(content_type));
            return Ok(Self { layout: EventLayout::Single, encoding, headers: RecordHeaders(own) });
        }
        let structured = (codec::CONTENT_TYPE.to_owned(), codec::STRUCTURED.as_bytes().to_vec());
        let (layout, own) = match media.as_str() {
            "application/json" => (EventLayout::Json, vec![]),
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => {
                (EventLayout::Ndjson, vec![])
            }
            codec::STRUCTURED => (EventLayout::Single, vec![structured]),
            "application/cloudevents-batch+json" => (EventLayout::Batch, vec![structured]),
            "application/avro" | "avro/binary" | "application/vnd.apache.avro" => {
                let fields = FIELD_HEADERS.iter().filter_map(|(header, field)| {
                    let value = headers.get(*header)?;
                    Some(((*field).to_owned(), value.as_bytes().to_vec()))
                });
                (EventLayout::Single, fields.chain([content_type()]).collect())
            }
            _ => {
                return Err(unsupported(
                    "Content-Type",
                    sent,
                    "application/json (an object or an array), application/x-ndjson (one object \
                     per line), application/cloudevents+json, application/cloudevents-batch+json \
                     or application/avro",
                ));
            }
        };
        Ok(Self { layout, encoding, headers: RecordHeaders(own) })
    }

    /// Whether decoding may take long, or wait for a schema registry.
    pub(super) fn is_slow(&self) -> bool {
        self.encoding != ContentEncoding::Identity || self.layout == EventLayout::Single
    }

    /// How many bytes to reserve for the body: its `Content-Length`, else the limit; plus the limit
    /// for what it may unpack to if it is compressed.
    pub(super) fn declared_bytes(&self, headers: &HeaderMap) -> Result<usize, ErrorResponse> {
        let unpacked = if self.encoding == ContentEncoding::Identity { 0 } else { BODY_BYTES };
        let Some(declared) = headers.get(CONTENT_LENGTH) else { return Ok(BODY_BYTES + unpacked) };
        let declared = declared.to_str().ok().and_then(|text| text.parse::<usize>().ok());
        match declared {
            Some(bytes) if bytes <= BODY_BYTES => Ok(bytes + unpacked),
            _ => Err(too_large()),
        }
    }

    /// The body without its compression.
    pub(super) fn unpack(&self, body: Vec<u8>) -> Result<Vec<u8>, ErrorResponse> {
        let broken = |name| {
            move |error| {
                let message =
                    format!("the body can't be unpacked by its Content-Encoding {name}: {error}");
                ErrorResponse::new(ErrorCode::InvalidMessage, message)
            }
        };
        let packed = &body[..];
        match self.encoding {
            ContentEncoding::Identity => Ok(body),
            ContentEncoding::Gzip => inflate(MultiGzDecoder::new(packed), broken("gzip")),
            ContentEncoding::Deflate => inflate(ZlibDecoder::new(packed), broken("deflate")),
            ContentEncoding::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(packed).map_err(broken("zstd"))?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(broken("zstd"))?;
                inflate(decoder, broken("zstd"))
            }
        }
    }

    /// The bytes of each event. An array or object has to be JSON as a whole; a line of NDJSON that
    /// is not JSON fails only as that event.
    pub(super) fn split<'a>(&self, body: &'a [u8]) -> Result<Vec<&'a [u8]>, ErrorResponse> {
        let is_array = body.trim_ascii_start().first() == Some(&b'[');
        let events = match self.layout {
            EventLayout::Single => vec![body],
            EventLayout::Ndjson => body
                .split(|byte| *byte == b'\n')
                .map(<[u8]>::trim_ascii)
                .filter(|line| !line.is_empty())
                .take(BODY_EVENTS + 1)
                .collect(),
            EventLayout::Json if !is_array => {
                let event: &RawValue = serde_json::from_slice(body).map_err(not_json)?;
                vec![event.get().as_bytes()]
            }
            EventLayout::Json | EventLayout::Batch => {
                let events: Vec<&RawValue> = serde_json::from_slice(body).map_err(not_json)?;
                events.into_iter().map(|event| event.get().as_bytes()).collect()
            }
        };
        if events.len() > BODY_EVENTS {
            return Err(too_large());
        }
        if events.is_empty() {
            let message = "the body has no event; send at least one";
            return Err(ErrorResponse::new(ErrorCode::InvalidMessage, message));
        }
        Ok(events)
    }
}

impl ContentEncoding {
    fn of(headers: &HeaderMap) -> Result<Self, ErrorResponse> {
        let Some(value) = headers.get(CONTENT_ENCODING) else { return Ok(Self::Identity) };
        let name = String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase();
        match name.as_str() {
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "deflate" => Ok(Self::Deflate),
            "zstd" => Ok(Self::Zstd),
            _ => Err(unsupported("Content-Encoding", &name, "gzip, deflate, zstd or no encoding")),
        }
    }
}

/// The attributes of a CloudEvent in binary mode: printable ASCII, the rest percent-encoded
/// (CloudEvents HTTP protocol binding, section 3.1.3.2).
fn attributes(headers: &HeaderMap) -> Result<Vec<(String, Vec<u8>)>, ErrorResponse> {
    let mut own = Vec::new();
    for (name, value) in headers {
        let Some(attribute) = name.as_str().strip_prefix("ce-") else { continue };
        let text = value.to_str().map_err(|_| {
            let message = format!("the header {name} is not printable ASCII; percent-encode it");
            ErrorResponse::new(ErrorCode::InvalidMessage, message)
        })?;
        own.push((format!("ce_{attribute}"), percent_decode_str(text).collect()));
    }
    Ok(own)
}

fn inflate(
    decoder: impl Read,
    broken: impl FnOnce(std::io::Error) -> ErrorResponse,
) -> Result<Vec<u8>, ErrorResponse> {
    let mut body = Vec::new();
    // One byte more than the limit, to tell a body that just fits from one that is too large.
    decoder.take(BODY_BYTES as u64 + 1).read_to_end(&mut body).map_err(broken)?;
    if body.len() > BODY_BYTES { Err(too_large()) } else { Ok(body) }
}

pub(super) fn too_large() -> ErrorResponse {
    let message = format!(
        "a body has at most {BODY_BYTES} bytes unpacked and {BODY_EVENTS} events; split it"
    );
    ErrorResponse::new(HttpErrorCode::TooLarge, message)
}

fn not_json(error: serde_json::Error) -> ErrorResponse {
    let message = format!(
        "the body is not JSON ({error}); send an object or an array, or one object per line as \
         application/x-ndjson"
    );
    ErrorResponse::new(ErrorCode::InvalidJson, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    fn format(headers: &[(&'static str, &str)]) -> Result<BodyFormat, ErrorResponse> {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
            .collect();
        BodyFormat::of(&headers)
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
    const BATCH: &str = "application/cloudevents-batch+json";

    #[test]
    fn a_body_is_split_into_the_bytes_that_were_sent() {
        check(JSON, r#" {"a": 1} "#, Ok(&[r#"{"a": 1}"#]));
        check(JSON, "[{\"a\" : 1}, 2,[]]", Ok(&["{\"a\" : 1}", "2", "[]"]));
        check(NDJSON, "{\"a\":1}\r\n\n not json \n{}", Ok(&["{\"a\":1}", "not json", "{}"]));
        check(BATCH, "[{\"a\" : 1}, {}]", Ok(&["{\"a\" : 1}", "{}"]));
        check("application/cloudevents+json", "[ 1 ]", Ok(&["[ 1 ]"]));
        check("avro/binary", "\0\0", Ok(&["\0\0"]));
    }

    #[test]
    fn a_body_that_holds_no_list_of_events_is_refused_as_a_whole() {
        check(JSON, "{\"a\":1}\n{\"a\":2}", Err(StatusCode::BAD_REQUEST));
        check(JSON, "[{\"a\":1}", Err(StatusCode::BAD_REQUEST));
        check(JSON, "[]", Err(StatusCode::BAD_REQUEST));
        check(BATCH, "{}", Err(StatusCode::BAD_REQUEST));
        check(NDJSON, "\n\n", Err(StatusCode::BAD_REQUEST));
        check(NDJSON, &"{}\n".repeat(1_001), Err(StatusCode::PAYLOAD_TOO_LARGE));
        check(JSON, &format!("[{}]", ["1"; 1_001].join(",")), Err(StatusCode::PAYLOAD_TOO_LARGE));
    }

    #[test]
    fn headers_of_a_request_become_headers_of_a_record() {
        let format = format(&[
            ("ce-specversion", "1.0"),
            ("ce-subject", "Gr%C3%BC%C3%9Fe"),
            ("content-type", "application/json"),
            ("accept", "*/*"),
        ])
        .expect("a cloudevent");
        assert_eq!(format.headers.header("ce_subject"), Some("Grüße".as_bytes()));
        assert_eq!(format.headers.header("content-type"), Some(&b"application/json"[..]));
        assert_eq!(format.headers.0.len(), 3);
        let format =
            self::format(&[("content-type", "application/avro"), ("tw-event-type", "mention")])
                .expect("avro");
        assert_eq!(format.headers.header("event_type"), Some(&b"mention"[..]));
    }

    #[test]
    fn unpacking_stops_at_the_size_limit() {
        let bomb = |bytes: usize| {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            std::io::copy(&mut std::io::repeat(b' ').take(bytes as u64), &mut packer)
                .expect("memory");
            packer.finish().expect("memory")
        };
        let gzip = format(&[("content-type", JSON), ("content-encoding", "gzip")]).expect("known");
        assert_eq!(gzip.unpack(bomb(BODY_BYTES)).expect("it just fits").len(), BODY_BYTES);
        let refused = gzip.unpack(bomb(1 << 30)).expect_err("a gigabyte");
        assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
        let cut = bomb(100);
        let refused = gzip.unpack(cut[..cut.len() - 9].to_vec()).expect_err("cut off");
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        let zstd = format(&[("content-type", JSON), ("content-encoding", "zstd")]).expect("known");
        let packed = zstd::encode_all(&b"{}"[..], 3).expect("memory");
        assert_eq!(zstd.unpack(packed).expect("zstd"), b"{}");
        let deflate =
            format(&[("content-type", JSON), ("content-encoding", "deflate")]).expect("known");
        assert_eq!(
            deflate.unpack(b"{}".to_vec()).expect_err("no zlib").status,
            StatusCode::BAD_REQUEST
        );
        let br =
            format(&[("content-type", JSON), ("content-encoding", "br")]).expect_err("unknown");
        assert_eq!(br.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
}
