//! `POST /v1/events`: producers' events by HTTP.
//!
//! A body is an object, an array or NDJSON. Each event goes through the same validation as a record
//! that came by the log, on its own: one bad event doesn't hold up the others, and the answer has
//! one entry per event in the order sent. What is appended are the producer's own bytes; refused
//! ones go to the dead letters with the reason, as they would have behind the log.
//!
//! It never parses an event a second time and never answers before the log has confirmed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::BytesMut;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tidewire_engine::dead_letter;
use tidewire_engine::port::Clock;
use tidewire_engine::record::{Body as RecordBody, Offset, Outgoing, Partition, Topic};
use tidewire_schemas::Priority;
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::envelope::{Origin, Reason, Rejection, admit};
use tidewire_schemas::partition::partition_for;

use super::answer::{Failure, json_answer};
use super::ingest::{Ingest, IngestError, Room};
use super::routes::Site;
use crate::telemetry;

/// Bytes of one body.
pub const BODY_BYTES: usize = 4 * 1_024 * 1_024;

/// Events of one body.
pub const BODY_EVENTS: usize = 1_000;

/// What a record from here says of where it came from, in its `source` header.
pub const SOURCE: &str = "http";

/// An offset no log reaches: an id derived from it shows that the event brought none.
const NOWHERE: u64 = u64::MAX;

/// Where events go. All three topics have the same number of partitions.
#[derive(Clone, Debug)]
pub struct IngestTopics {
    /// Events.
    pub input: Topic,
    /// Critical events, which have a road of their own.
    pub urgent: Topic,
    /// Refused events.
    pub dead_letters: Topic,
    /// Partitions of each.
    pub partitions: u32,
}

/// All that taking events needs.
pub struct Intake {
    /// The road into the log.
    pub ingest: Ingest,
    /// Where to.
    pub topics: IngestTopics,
    /// What events are.
    pub catalogue: &'static Catalogue,
    /// What "now" is, for timestamps ahead of it.
    pub clock: Arc<dyn Clock>,
    /// Numbers the refused events of this process.
    pub refused: AtomicU64,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
}

/// The handler.
pub async fn post(State(site): State<Site>, request: Request<Body>) -> Result<Response, Failure> {
    let intake = site.intake().expect("the path is there only with an intake");
    let form = Form::of(request.headers())?;
    let room = intake.ingest.claim(declared_bytes(request.headers())?)?;
    let body = read(request.into_body(), intake.body_timeout).await?;
    let batch = intake.judge(form, &body)?;
    drop(body);
    intake.append(batch, room).await
}

impl From<IngestError> for Failure {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::Overloaded | IngestError::Closed => Self::overloaded(error.to_string()),
            IngestError::NotConfirmed => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "internal", error.to_string())
            }
        }
    }
}

/// How a body is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Ndjson,
}

impl Form {
    fn of(headers: &HeaderMap) -> Result<Self, Failure> {
        let unsupported =
            |message| Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported", message);
        let encoding = headers.get(CONTENT_ENCODING).map(|value| value.as_bytes());
        if encoding.is_some_and(|name| !name.eq_ignore_ascii_case(b"identity")) {
            return Err(unsupported("send the body without Content-Encoding"));
        }
        let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let kind = kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        match kind.as_str() {
            "application/json" => Ok(Self::Json),
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(Self::Ndjson),
            _ => Err(unsupported(
                "send Content-Type: application/json (an object or an array) or \
                 application/x-ndjson (one object per line)",
            )),
        }
    }
}

/// How much room the body needs: what it declares, else the most it may have.
fn declared_bytes(headers: &HeaderMap) -> Result<usize, Failure> {
    let Some(declared) = headers.get(CONTENT_LENGTH) else { return Ok(BODY_BYTES) };
    let declared = declared.to_str().ok().and_then(|text| text.parse::<usize>().ok());
    match declared {
        Some(bytes) if bytes <= BODY_BYTES => Ok(bytes),
        _ => Err(too_large()),
    }
}

fn too_large() -> Failure {
    let message = format!("a body has at most {BODY_BYTES} bytes and {BODY_EVENTS} events");
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
}

async fn read(body: Body, at_most: Duration) -> Result<BytesMut, Failure> {
    let whole = tokio::time::timeout(at_most, read_all(body)).await;
    whole.unwrap_or_else(|_| {
        let message = format!("the body did not arrive within {} s", at_most.as_secs());
        Err(Failure::new(StatusCode::REQUEST_TIMEOUT, "timeout", message))
    })
}

async fn read_all(mut body: Body) -> Result<BytesMut, Failure> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Failure::bad("invalid_message", "the body broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > BODY_BYTES {
            return Err(too_large());
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole)
}

/// The events of a body as they were written. Only an array or object has to be JSON as a whole;
/// a bad line of NDJSON is that event's own failure.
fn split(form: Form, body: &[u8]) -> Result<Vec<&[u8]>, Failure> {
    let events = match form {
        Form::Ndjson => body
            .split(|byte| *byte == b'\n')
            .map(<[u8]>::trim_ascii)
            .filter(|line| !line.is_empty())
            .take(BODY_EVENTS + 1)
            .collect(),
        Form::Json if body.trim_ascii_start().first() == Some(&b'[') => {
            let events: Vec<&RawValue> = serde_json::from_slice(body).map_err(not_json)?;
            events.into_iter().map(|event| event.get().as_bytes()).collect()
        }
        Form::Json => {
            let event: &RawValue = serde_json::from_slice(body).map_err(not_json)?;
            vec![event.get().as_bytes()]
        }
    };
    if events.len() > BODY_EVENTS {
        return Err(too_large());
    }
    if events.is_empty() {
        return Err(Failure::bad("invalid_message", "the body holds no event"));
    }
    Ok(events)
}

fn not_json(error: serde_json::Error) -> Failure {
    let message = format!(
        "the body is not JSON ({error}); send an object, an array, or application/x-ndjson"
    );
    Failure::bad("invalid_json", message)
}

/// What is known of one event before the log has answered.
enum Verdict {
    /// Its id, if it brought one.
    Accepted(Option<String>),
    Refused(Rejection),
}

/// A judged body: one record and one verdict per event, in the order sent.
struct Batch {
    records: Vec<Outgoing>,
    verdicts: Vec<Verdict>,
}

impl Intake {
    fn judge(&self, form: Form, body: &[u8]) -> Result<Batch, Failure> {
        let events = split(form, body)?;
        let mut batch = Batch {
            records: Vec::with_capacity(events.len()),
            verdicts: Vec::with_capacity(events.len()),
        };
        let now = self.clock.now();
        let origin = Origin {
            topic: self.topics.input.as_str(),
            partition: 0,
            offset: NOWHERE,
            append_time_ms: now.0,
        };
        let derived = format!("{}/0/{NOWHERE}", origin.topic);
        for event in events {
            let (record, verdict) = match admit(self.catalogue, Some(event), &origin) {
                Ok(admitted) => {
                    let of = admitted.event;
                    let topic = match of.priority {
                        Priority::Critical => &self.topics.urgent,
                        _ => &self.topics.input,
                    };
                    let record = self.record(topic, of.key.as_bytes(), event);
                    let id = (of.event_id != derived).then_some(of.event_id);
                    (record, Verdict::Accepted(id))
                }
                Err(rejection) => {
                    (self.dead_letter(event, &rejection), Verdict::Refused(rejection))
                }
            };
            batch.records.push(record);
            batch.verdicts.push(verdict);
        }
        Ok(batch)
    }

    fn record(&self, topic: &Topic, key: &[u8], value: &[u8]) -> Outgoing {
        let headers = [("source", SOURCE.as_bytes())];
        Outgoing {
            topic: topic.clone(),
            partition: Partition(partition_for(key, self.topics.partitions)),
            body: RecordBody::new(Some(key), Some(value), &headers),
        }
    }

    /// A refused event never had a place in the log; its key says so and is unique nevertheless.
    fn dead_letter(&self, event: &[u8], rejection: &Rejection) -> Outgoing {
        let number = self.refused.fetch_add(1, Ordering::Relaxed);
        let now = self.clock.now();
        let key = format!("{SOURCE}/{}/{number}", now.0);
        let own = RecordBody::new(None, Some(event), &[("source", SOURCE.as_bytes())]);
        let verdict = dead_letter::Verdict {
            reason: rejection.reason.as_str(),
            field: rejection.field.as_deref(),
            detail: &rejection.message,
        };
        Outgoing {
            topic: self.topics.dead_letters.clone(),
            partition: Partition(partition_for(key.as_bytes(), self.topics.partitions)),
            body: dead_letter::letter(&key, (now, &own), verdict),
        }
    }

    async fn append(&self, batch: Batch, room: Room) -> Result<Response, Failure> {
        let Batch { records, verdicts } = batch;
        let places: Vec<(Topic, Partition)> =
            records.iter().map(|record| (record.topic.clone(), record.partition)).collect();
        let offsets = self.ingest.append(records, room).await?;
        let mut accepted = 0u64;
        let entries: Vec<Value> = verdicts
            .into_iter()
            .zip(places.iter().zip(offsets))
            .map(|(verdict, place)| match verdict {
                Verdict::Accepted(id) => {
                    accepted += 1;
                    accepted_entry(id, place)
                }
                Verdict::Refused(rejection) => refused_entry(&rejection),
            })
            .collect();
        telemetry::ingested("accepted", accepted);
        telemetry::ingested("refused", entries.len() as u64 - accepted);
        let status = match accepted {
            0 => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::ACCEPTED,
        };
        Ok(json_answer(status, &json!({"accepted": accepted, "events": entries})))
    }
}

fn accepted_entry(id: Option<String>, at: (&(Topic, Partition), Offset)) -> Value {
    let ((topic, partition), offset) = at;
    let position = format!("{topic}/{}/{}", partition.0, offset.0);
    json!({"event_id": id.unwrap_or_else(|| position.clone()), "log_position": position})
}

fn refused_entry(rejection: &Rejection) -> Value {
    let Rejection { reason, field, message } = rejection;
    json!({"error": {"reason": Reason::as_str(*reason), "field": field, "message": message}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(form: Form, body: &str, expected: Result<&[&str], StatusCode>) {
        let got = split(form, body.as_bytes());
        match expected {
            Ok(parts) => {
                let got = got.expect("a body");
                let got: Vec<&str> =
                    got.iter().map(|part| std::str::from_utf8(part).expect("text")).collect();
                assert_eq!(got, parts);
            }
            Err(status) => assert_eq!(got.expect_err("refused").status, status),
        }
    }

    #[test]
    fn a_body_is_split_into_the_bytes_that_were_sent() {
        check(Form::Json, r#" {"a": 1} "#, Ok(&[r#"{"a": 1}"#]));
        check(Form::Json, "[{\"a\" : 1}, 2,[]]", Ok(&["{\"a\" : 1}", "2", "[]"]));
        check(Form::Ndjson, "{\"a\":1}\r\n\n not json \n{}", Ok(&["{\"a\":1}", "not json", "{}"]));
    }

    #[test]
    fn a_body_that_is_no_list_of_events_is_refused_as_a_whole() {
        check(Form::Json, "{\"a\":1}\n{\"a\":2}", Err(StatusCode::BAD_REQUEST));
        check(Form::Json, "[{\"a\":1}", Err(StatusCode::BAD_REQUEST));
        check(Form::Json, "[]", Err(StatusCode::BAD_REQUEST));
        check(Form::Ndjson, "\n\n", Err(StatusCode::BAD_REQUEST));
        check(Form::Ndjson, &"{}\n".repeat(1_001), Err(StatusCode::PAYLOAD_TOO_LARGE));
        check(
            Form::Json,
            &format!("[{}]", ["1"; 1_001].join(",")),
            Err(StatusCode::PAYLOAD_TOO_LARGE),
        );
    }
}
