//! `POST /v1/events`: validates the events of a body and appends them to the input.
//!
//! Each event goes through ADMIT's own validation by itself: an invalid one does not hold up the
//! others, and the response has one entry per event in the order sent. The bytes appended are the
//! producer's. Invalid events become dead letters with their reason, as they would in ADMIT. While
//! the schema registry can't be asked for an event's schema, nothing of its body is stored.
//!
//! An invalid event that is too large for a dead letter is answered and counted as `too_large`, and
//! nothing of it is stored.
//!
//! The bytes of the answer are claimed before the append, so that no answer fails after it.
//!
//! It never parses an event twice and never answers before the log has confirmed.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{Request, StatusCode};
use serde_json::json;
use tidewire_engine::dead_letters::record::{Diagnosis, dead_letter_body};
use tidewire_engine::port::Clock;
use tidewire_engine::record::{Body as RecordBody, Offset, Outgoing, Partition, Topic};
use tidewire_schemas::Priority;
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::codec::{
    AdmitFailure, DecodeContext, HeaderLookup, Registry, SchemaUnavailable, admit,
};
use tidewire_schemas::envelope::{self, Reason, RecordOrigin, Rejection, Writers};
use tidewire_schemas::partition::partition_for;

use super::body::{BodyFormat, check_length};
use super::body_arrival::receive;
use super::body_budget::{BodyBudget, BodyPermit};
use super::extensions::{AnswerPermit, ClientAddress};
use super::ingest::{IngestError, IngestQueue};
use super::response::{ErrorResponse, HttpErrorCode, JSON, text_response};
use super::validation_slots::ValidationSlots;
use crate::socket::limits::RequestTimeouts;
use crate::telemetry;

/// The header of records that came over HTTP. No decoder reads it: one named `source` would be
/// taken for the envelope's field.
const TRANSPORT: (&str, &[u8]) = ("tw-transport", SOURCE.as_bytes());

/// The value of that header, and how the key of a dead letter begins.
const SOURCE: &str = "http";

/// The largest event that is kept as a dead letter if it is invalid. With its headers it is below
/// 1 MiB, the largest record that a Kafka broker takes by default, so it can also be requeued.
const DEAD_LETTER_EVENT_BYTES: usize = 1_000_000;

/// An offset no log reaches, so that an id derived from it is known to be derived: such an event
/// had no id of its own.
const NO_OFFSET: u64 = u64::MAX;

/// The topics events are appended to. All three have the same number of partitions.
#[derive(Clone, Debug)]
pub struct IngestTopics {
    /// Events.
    pub input: Topic,
    /// Critical events.
    pub urgent: Topic,
    /// Invalid events.
    pub dead_letters: Topic,
    /// Partitions of each.
    pub partitions: u32,
}

/// What the handler works with.
pub struct PublishHandler {
    /// Appends to the log.
    pub ingest: IngestQueue,
    /// Where events go.
    pub topics: IngestTopics,
    /// Event types and their fields.
    pub catalogue: &'static Catalogue,
    /// The schema registry, if one is configured.
    pub registry: Option<Arc<dyn Registry>>,
    /// The wall clock, to reject timestamps too far ahead of it.
    pub clock: Arc<dyn Clock>,
    /// How many events this process refused; numbers their dead letters.
    pub refused: AtomicU64,
    /// The bytes of bodies that may be in memory.
    pub budget: Arc<BodyBudget>,
    /// How many bodies are validated at once outside the HTTP threads.
    pub slots: ValidationSlots,
    /// How long a body may take to arrive.
    pub timeouts: RequestTimeouts,
}

/// `POST /v1/events`.
pub async fn post(
    State(handler): State<Arc<PublishHandler>>,
    request: Request<Body>,
) -> Result<Response, ErrorResponse> {
    let format = BodyFormat::of(request.headers())?;
    check_length(request.headers())?;
    let client = request.extensions().get::<ClientAddress>().and_then(|client| client.0);
    let mut permit = handler.budget.permit(client);
    let body = receive(request.into_body(), handler.timeouts, &mut permit).await?;
    let batch = match handler.slots.acquire(format.cost(body.len())).await? {
        None => handler.validate(&format, body, permit)?,
        Some(slot) => {
            let blocking = Arc::clone(&handler);
            let validate = move || {
                let validated = blocking.validate(&format, body, permit);
                drop(slot);
                validated
            };
            let validated = tokio::task::spawn_blocking(validate).await;
            validated.map_err(|_| ErrorResponse::stopping())??
        }
    };
    handler.append(batch).await
}

impl From<IngestError> for ErrorResponse {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::Overloaded | IngestError::Closed => Self::overloaded(error.to_string()),
            IngestError::NotConfirmed | IngestError::Invalid => Self::log_failed(error.to_string()),
        }
    }
}

/// The result of validating one event.
enum EventOutcome {
    /// Its id, if it has one of its own.
    Accepted(Option<String>),
    /// Its entry of the answer; its record is a dead letter.
    Refused(String),
    /// Its entry of the answer; it has no record, since it is too large for a dead letter.
    Dropped(String),
}

/// The most bytes of an answer around its entries: names, punctuation and a number.
const ANSWER_BYTES: usize = 32;

/// The most bytes of the entry of an accepted event besides its id and topic: names, punctuation,
/// and 32 for partition and offset.
const ENTRY_BYTES: usize = 72;

impl EventOutcome {
    /// The most bytes that its entry of the answer has.
    fn most_bytes(&self, topics: &IngestTopics) -> usize {
        let position = topics.input.as_str().len().max(topics.urgent.as_str().len());
        match self {
            // A quote or backslash of an id takes two bytes.
            Self::Accepted(Some(id)) => ENTRY_BYTES + 2 * id.len() + position,
            Self::Accepted(None) => ENTRY_BYTES + 2 * position + 32,
            Self::Refused(entry) | Self::Dropped(entry) => 1 + entry.len(),
        }
    }
}

/// One event as it was sent, with the headers its record gets.
#[derive(Clone, Copy)]
struct SentEvent<'a> {
    bytes: &'a [u8],
    headers: &'a [(&'a str, &'a [u8])],
}

impl HeaderLookup for SentEvent<'_> {
    fn each_header<'a>(&'a self, visit: &mut dyn FnMut(&'a str, &'a [u8])) {
        self.headers.each_header(visit);
    }
}

/// A validated body: one record and one outcome per event, in the order sent.
struct ValidatedBatch {
    records: Vec<Outgoing>,
    outcomes: Vec<EventOutcome>,
    permit: BodyPermit,
    /// Holds the most bytes that the answer may have.
    answer: BodyPermit,
}

impl PublishHandler {
    fn validate(
        &self,
        format: &BodyFormat,
        body: Vec<u8>,
        mut permit: BodyPermit,
    ) -> Result<ValidatedBatch, ErrorResponse> {
        let body = format.encoding.unpack(body, &mut permit)?;
        let events = format.split(&body)?;
        let mut batch = ValidatedBatch {
            records: Vec::with_capacity(events.len()),
            outcomes: Vec::with_capacity(events.len()),
            answer: permit.for_answer(),
            permit,
        };
        batch.answer.claim(ANSWER_BYTES)?;
        let now = self.clock.now();
        let origin = RecordOrigin {
            topic: self.topics.input.as_str(),
            partition: 0,
            offset: NO_OFFSET,
            append_time_ms: now.0,
            writers: Writers::Producers,
        };
        let context = DecodeContext {
            catalogue: self.catalogue,
            registry: self.registry.as_deref(),
            origin: &origin,
        };
        let sent = format.headers.0.iter().map(|(name, value)| (name.as_str(), &value[..]));
        // What is validated is what is appended, or ADMIT could find other fields in it.
        let headers: Vec<(&str, &[u8])> = [TRANSPORT].into_iter().chain(sent).collect();
        let derived = format!("{}/0/{NO_OFFSET}", origin.topic);
        for bytes in events {
            let sent = SentEvent { bytes, headers: &headers };
            let admitted = if format.is_plain_json() {
                envelope::admit(self.catalogue, Some(bytes), &origin).map_err(Into::into)
            } else {
                admit(&context, Some(bytes), &sent)
            };
            let (record, outcome) = match admitted {
                Ok(admitted) => {
                    let of = admitted.event;
                    let topic = match of.priority {
                        Priority::Critical => &self.topics.urgent,
                        _ => &self.topics.input,
                    };
                    let key = admitted.sent_key.as_deref().unwrap_or(&of.key);
                    let record = self.record(topic, key.as_bytes(), sent);
                    let id = (of.event_id != derived).then_some(of.event_id);
                    (Some(record), EventOutcome::Accepted(id))
                }
                Err(AdmitFailure::Waits(missing)) => return Err(registry_away(&missing)),
                Err(AdmitFailure::Rejected(rejection)) => self.refuse(sent, rejection),
            };
            batch.answer.claim(outcome.most_bytes(&self.topics))?;
            batch.records.extend(record);
            batch.outcomes.push(outcome);
        }
        Ok(batch)
    }

    fn record(&self, topic: &Topic, key: &[u8], sent: SentEvent<'_>) -> Outgoing {
        Outgoing {
            topic: topic.clone(),
            partition: Partition(partition_for(key, self.topics.partitions)),
            body: RecordBody::new(Some(key), Some(sent.bytes), sent.headers),
        }
    }

    /// The outcome of an invalid event, and its dead letter unless it is too large for one.
    fn refuse(
        &self,
        sent: SentEvent<'_>,
        mut rejection: Rejection,
    ) -> (Option<Outgoing>, EventOutcome) {
        if sent.bytes.len() <= DEAD_LETTER_EVENT_BYTES {
            let entry = refused_entry(&rejection);
            return (Some(self.dead_letter(sent, &rejection)), EventOutcome::Refused(entry));
        }
        let _ = write!(
            rejection.message,
            "; no dead letter keeps it, since it has over {DEAD_LETTER_EVENT_BYTES} bytes"
        );
        (None, EventOutcome::Dropped(refused_entry(&rejection)))
    }

    /// The record of an invalid event. Its key names no position, since the event was never in the
    /// log, and is unique by time and number.
    fn dead_letter(&self, sent: SentEvent<'_>, rejection: &Rejection) -> Outgoing {
        let number = self.refused.fetch_add(1, Ordering::Relaxed);
        let now = self.clock.now();
        let key = format!("{SOURCE}/{}/{number}", now.0);
        let own = RecordBody::new(None, Some(sent.bytes), sent.headers);
        let diagnosis = Diagnosis {
            reason: rejection.reason.as_str(),
            field: rejection.field.as_deref(),
            detail: &rejection.message,
        };
        Outgoing {
            topic: self.topics.dead_letters.clone(),
            partition: Partition(partition_for(key.as_bytes(), self.topics.partitions)),
            body: dead_letter_body(&key, now, &own, diagnosis),
        }
    }

    async fn append(&self, batch: ValidatedBatch) -> Result<Response, ErrorResponse> {
        let ValidatedBatch { records, outcomes, permit, mut answer } = batch;
        let partitions: Vec<(Topic, Partition)> =
            records.iter().map(|record| (record.topic.clone(), record.partition)).collect();
        let offsets = if records.is_empty() {
            Vec::new()
        } else {
            self.ingest.append(records, permit).await?
        };
        let events = outcomes.len() as u64;
        let (mut accepted, mut dropped) = (0u64, 0u64);
        let mut positions = partitions.iter().zip(offsets);
        let mut entries = String::with_capacity(answer.bytes());
        for outcome in outcomes {
            if !entries.is_empty() {
                entries.push(',');
            }
            match outcome {
                EventOutcome::Accepted(id) => {
                    accepted += 1;
                    let position = positions.next().expect("every accepted event has a record");
                    entries.push_str(&accepted_entry(id, position));
                }
                EventOutcome::Refused(entry) => {
                    positions.next();
                    entries.push_str(&entry);
                }
                EventOutcome::Dropped(entry) => {
                    dropped += 1;
                    entries.push_str(&entry);
                }
            }
        }
        telemetry::ingested("accepted", accepted);
        telemetry::ingested("refused", events - accepted - dropped);
        telemetry::ingested("too_large", dropped);
        // An empty array asks for nothing, which is done.
        let status = match accepted {
            0 if events > 0 => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::ACCEPTED,
        };
        let text = format!("{{\"accepted\":{accepted},\"events\":[{entries}]}}");
        answer.release(answer.bytes().saturating_sub(text.len()));
        let mut response = text_response(status, JSON, text);
        response.extensions_mut().insert(AnswerPermit(Arc::new(answer)));
        Ok(response)
    }
}

/// 503: whether the event is valid is not known yet.
fn registry_away(missing: &SchemaUnavailable) -> ErrorResponse {
    telemetry::ingest_overloaded("registry");
    let message = format!(
        "the schema registry does not answer: {missing}. Nothing was stored; send the request \
         again after Retry-After"
    );
    ErrorResponse::new(HttpErrorCode::NotReady, message)
}

fn accepted_entry(id: Option<String>, at: (&(Topic, Partition), Offset)) -> String {
    let ((topic, partition), offset) = at;
    let position = format!("{topic}/{}/{}", partition.0, offset.0);
    let id = id.unwrap_or_else(|| position.clone());
    json!({"event_id": id, "log_position": position}).to_string()
}

fn refused_entry(rejection: &Rejection) -> String {
    let Rejection { reason, field, message, .. } = rejection;
    json!({"error": {"reason": Reason::as_str(*reason), "field": field, "message": message}})
        .to_string()
}
