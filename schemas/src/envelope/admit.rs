//! Admits a JSON envelope: from a record's bytes to an [`Event`].
//!
//! The envelope is read in one pass over the text. Its own fields are decoded, `data` is kept as a
//! list of slices for normalisation, and all other fields are checked to be JSON and counted.

use std::borrow::Cow;

use super::normalise::{DATA_MAX_DEPTH, EventData, member_rejection, rejection};
use super::reason::{Reason, Rejection};
use super::validate::{ID_MAX_CHARS, id, instant, validate};
use crate::Priority;
use crate::catalogue::{Alias, Catalogue, EnvelopeIds, EventType, OPERATOR_SOURCE, Source};
use crate::event::Event;
use crate::json::{self, DEPTH_MAX, JsonErrorKind, Scanner};

/// The largest record: with the names of its channels it still fits a client's frame.
pub const EVENT_MAX_BYTES: usize = 256 * 1024;
/// The longest event type.
pub const TYPE_MAX_CHARS: usize = 64;
/// The longest correlation id.
pub const CORRELATION_ID_MAX_CHARS: usize = 128;
/// The longest name of a producer.
pub const SOURCE_MAX_CHARS: usize = 64;
/// How far an event's time may be ahead of its append time: clocks differ, but a far future time
/// would close windows too early.
pub const TIMESTAMP_AHEAD_MAX_MS: i64 = 10 * 60 * 1000;

/// The smallest number that is read as milliseconds, which is 2001-09-09T01:46:40Z. A smaller one
/// is most likely in seconds and would become a time in 1970.
const MILLIS_MIN: f64 = 1e12;
/// Numbers that are most likely in microseconds: from 2001 to 5138.
const MICROS: std::ops::Range<f64> = 1e15..1e17;
/// Numbers that are most likely in nanoseconds.
const NANOS: std::ops::Range<f64> = 1e17..1e20;

/// The envelope adds one level around data.
const ENVELOPE_MAX_DEPTH: usize = DATA_MAX_DEPTH + 1;

/// Who writes to the topic of a record, which decides the types it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// Producers: every type that they may send.
    Producers,
    /// Tidewire's own processes (`in.internal`): internal types, and no others.
    OwnProcesses,
}

/// The position of a record in the input, its append time, and who writes there.
#[derive(Clone, Copy, Debug)]
pub struct RecordOrigin<'a> {
    /// The input topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: u32,
    /// The record's offset there.
    pub offset: u64,
    /// When the log appended it, milliseconds since the epoch.
    pub append_time_ms: i64,
    /// Who writes to the topic.
    pub writers: Writers,
}

/// A record that became an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The event.
    pub event: Event,
    /// The key the producer sent. It decides the partition of the input; the entity whose state
    /// the event changes is [`Event::key`].
    pub sent_key: Option<String>,
    /// How many unknown envelope fields were ignored.
    pub ignored_fields: u32,
}

/// Whether the unit of a numeric timestamp is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TimeUnit {
    /// Taken for milliseconds, if the number may be a time in milliseconds.
    #[default]
    Assumed,
    /// Milliseconds by the record's schema.
    Stated,
}

/// The envelope as sent, in any format: values as JSON text, null left out.
#[derive(Debug, Default)]
pub(crate) struct Envelope<'a> {
    pub(crate) event_id: Option<&'a str>,
    pub(crate) event_type: Option<&'a str>,
    pub(crate) account_id: Option<&'a str>,
    pub(crate) timestamp: Option<&'a str>,
    pub(crate) time_unit: TimeUnit,
    pub(crate) correlation_id: Option<&'a str>,
    pub(crate) priority: Option<&'a str>,
    pub(crate) key: Option<&'a str>,
    pub(crate) source: Option<&'a str>,
    pub(crate) data: Option<DataField<'a>>,
    pub(crate) ignored: u32,
    /// Whether an unknown field shows that this is a CloudEvent.
    pub(crate) is_cloudevent: bool,
}

/// The value of `data`: an object, or anything else.
#[derive(Debug)]
pub(crate) enum DataField<'a> {
    Object(EventData<'a>),
    Other,
}

impl<'a> DataField<'a> {
    /// Reads the value at the scanner; null gives `None`.
    pub(crate) fn read(
        scanner: &mut Scanner<'a>,
        text: &'a str,
    ) -> Result<Option<Self>, Rejection> {
        Ok(match scanner.peek() {
            Some(b'{') => Some(Self::Object(EventData::read(scanner, text)?)),
            _ => (scanner.value().map_err(rejection)? != "null").then_some(Self::Other),
        })
    }

    /// Reads a text that consists of data alone.
    pub(crate) fn of_text(text: &'a str) -> Result<Option<Self>, Rejection> {
        let mut scanner = Scanner::new(text, DATA_MAX_DEPTH);
        let data = Self::read(&mut scanner, text)?;
        scanner.end().map_err(rejection)?;
        Ok(data)
    }
}

/// Admits a record that is a JSON envelope. For records of every format see
/// [`codec::admit`](crate::codec::admit).
pub fn admit(
    catalogue: &Catalogue,
    value: Option<&[u8]>,
    origin: &RecordOrigin<'_>,
) -> Result<Admitted, Rejection> {
    complete(catalogue, Envelope::read(text(value)?)?, origin)
}

/// Normalises and validates an envelope, and fills in what the producer left out.
pub(crate) fn complete(
    catalogue: &Catalogue,
    envelope: Envelope<'_>,
    origin: &RecordOrigin<'_>,
) -> Result<Admitted, Rejection> {
    let sent_type = envelope.sent_type(catalogue)?;
    let account_id = match envelope.account_id {
        Some(value) => id("account_id", value)?.into_owned(),
        None => return Err(missing("account_id", "account_id is required")),
    };
    let mut data = match envelope.data {
        Some(DataField::Object(data)) => data,
        Some(DataField::Other) => {
            return Err(Rejection::of(Reason::BadField, "data", "data must be an object"));
        }
        None => return Err(missing("data", "data is required; it may be an empty object")),
    };
    let (event_type, alias) = resolve(catalogue, &sent_type, &data)?;
    check_writers(event_type, origin)?;
    let timestamp_ms = timestamp(envelope.timestamp, envelope.time_unit, origin)?;
    let event_id = match envelope.event_id {
        Some(value) => event_id(value)?,
        None => format!("{}/{}/{}", origin.topic, origin.partition, origin.offset),
    };
    let correlation_id = match envelope.correlation_id {
        Some(value) => short_text("correlation_id", value, CORRELATION_ID_MAX_CHARS)?,
        None => None,
    };
    let source = match envelope.source {
        Some(value) => short_text("source", value, SOURCE_MAX_CHARS)?,
        None => None,
    };
    if source.as_deref().is_some_and(|source| source.starts_with(OPERATOR_SOURCE)) {
        let message =
            format!("source must not begin with `{OPERATOR_SOURCE}`, which marks operators");
        return Err(Rejection::of(Reason::BadField, "source", message));
    }
    if !event_type.unchecked {
        data.normalise(catalogue, event_type, alias);
        data.fill(event_type, &[("event_id", &event_id), ("account_id", &account_id)]);
        validate(event_type, &data).map_err(Rejection::in_data)?;
    }
    let priority = priority(envelope.priority, event_type, &data)?;
    let canonical = if event_type.name.ends_with('*') { &sent_type } else { &*event_type.name };
    let sent_key = envelope.key.map(key_text).transpose()?;
    let ids = EnvelopeIds { account_id: &account_id, event_type: canonical };
    let key = catalogue_key(event_type, ids, &data)?;
    let event = Event {
        correlation_id: correlation_id.unwrap_or_else(|| event_id.clone()),
        event_id,
        event_type: canonical.to_owned(),
        account_id,
        timestamp_ms,
        priority,
        key,
        source,
        alias: alias.map(|alias| alias.name.clone()),
        data: text_of(data)?,
    };
    Ok(Admitted { event, sent_key, ignored_fields: envelope.ignored })
}

/// The normalised data as text. It can be longer than the record: names and Avro's strings grow.
fn text_of(data: EventData<'_>) -> Result<String, Rejection> {
    let text = data.into_text();
    if text.len() <= EVENT_MAX_BYTES {
        return Ok(text);
    }
    let message = format!(
        "data has {} bytes as JSON after normalisation; at most {EVENT_MAX_BYTES} bytes are \
         allowed",
        text.len()
    );
    Err(Rejection::of(Reason::TooLarge, "data", message))
}

/// The record as text, without the byte order mark it may begin with.
pub(crate) fn text(value: Option<&[u8]>) -> Result<&str, Rejection> {
    let value = within_limits(value)?;
    std::str::from_utf8(value).map(without_mark).map_err(|error| {
        let at = error.valid_up_to();
        Rejection::new(Reason::NotUtf8, format!("at byte {at}: the value is not UTF-8"))
    })
}

/// JSON text without the byte order mark it begins with, which readers may ignore (RFC 8259,
/// section 8.1).
pub(crate) fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The value of a record, if it is neither empty nor too large.
pub(crate) fn within_limits(value: Option<&[u8]>) -> Result<&[u8], Rejection> {
    let value = value.unwrap_or_default();
    if value.is_empty() {
        return Err(Rejection::new(Reason::EmptyValue, "the record has no value"));
    }
    if value.len() > EVENT_MAX_BYTES {
        let message = format!(
            "the event has {} bytes; at most {EVENT_MAX_BYTES} bytes are allowed",
            value.len()
        );
        return Err(Rejection::new(Reason::TooLarge, message));
    }
    Ok(value)
}

/// What to do about the first NaN or Infinity of a text that is not JSON because of it.
pub fn non_number(text: &[u8]) -> Option<String> {
    let mut scanner = Scanner::new(std::str::from_utf8(text).ok()?, DEPTH_MAX);
    let error = scanner.value().err()?;
    matches!(error.kind, JsonErrorKind::NonNumber(_)).then(|| rejection(error).message)
}

impl<'a> Envelope<'a> {
    pub(crate) fn read(text: &'a str) -> Result<Self, Rejection> {
        let mut scanner = Scanner::new(text, ENVELOPE_MAX_DEPTH);
        if scanner.peek() != Some(b'{') {
            scanner.value().and_then(|_| scanner.end()).map_err(rejection)?;
            return Err(Rejection::new(Reason::NotObject, "the event must be a JSON object"));
        }
        scanner.open(b'{').map_err(rejection)?;
        let mut out = Self::default();
        let mut seen = 0u16;
        let mut first = true;
        while let Some(name) = scanner.next_name(&mut first).map_err(rejection)? {
            let bit = out.member(&name, &mut scanner, text)?;
            if seen & bit != 0 {
                let message = format!("`{name}` occurs twice; send it once");
                return Err(Rejection::of(Reason::BadField, name, message));
            }
            seen |= bit;
        }
        scanner.end().map_err(rejection)?;
        Ok(out)
    }

    /// Reads a member's value; returns the bit of its name, 0 for unknown ones.
    fn member(
        &mut self,
        name: &str,
        scanner: &mut Scanner<'a>,
        text: &'a str,
    ) -> Result<u16, Rejection> {
        if name == "data" {
            self.data = DataField::read(scanner, text)?;
            return Ok(1);
        }
        let value = scanner.value().map_err(|error| member_rejection(error, name))?;
        let value = Some(value).filter(|value| *value != "null");
        let (slot, bit) = match name {
            "event_id" => (&mut self.event_id, 1 << 1),
            "event_type" => (&mut self.event_type, 1 << 2),
            "account_id" => (&mut self.account_id, 1 << 3),
            "timestamp" => (&mut self.timestamp, 1 << 4),
            "correlation_id" => (&mut self.correlation_id, 1 << 5),
            "priority" => (&mut self.priority, 1 << 6),
            "key" => (&mut self.key, 1 << 7),
            "source" => (&mut self.source, 1 << 8),
            _ => {
                self.ignored = self.ignored.saturating_add(1);
                self.is_cloudevent |= name == "specversion";
                return Ok(0);
            }
        };
        *slot = value;
        Ok(bit)
    }

    fn sent_type(&self, catalogue: &Catalogue) -> Result<Cow<'a, str>, Rejection> {
        let Some(value) = self.event_type else {
            let hint = match self.is_cloudevent {
                true => {
                    "event_type is required; this looks like a CloudEvent, which needs \
                     content-type: application/cloudevents+json"
                }
                false => "event_type is required",
            };
            return Err(missing("event_type", hint));
        };
        let name = json::string(value).filter(|name| name.chars().count() <= TYPE_MAX_CHARS);
        let Some(name) = name else {
            let message =
                format!("event_type must be a string of at most {TYPE_MAX_CHARS} characters");
            return Err(Rejection::of(Reason::BadField, "event_type", message));
        };
        if catalogue.reserved().iter().any(|reserved| *reserved == name) {
            let message = format!("`{name}` is the name of a protocol frame, not of an event");
            return Err(Rejection::of(Reason::ReservedType, "event_type", message));
        }
        Ok(name)
    }
}

fn missing(field: &str, message: &str) -> Rejection {
    Rejection::of(Reason::MissingField, field, message)
}

fn resolve<'c>(
    catalogue: &'c Catalogue,
    name: &str,
    data: &EventData<'_>,
) -> Result<(&'c EventType, Option<&'c Alias>), Rejection> {
    catalogue.resolve_sent(name, |alias| data.fits(alias)).ok_or_else(|| {
        let message = match (catalogue.prefix_of(name), catalogue.nearest(name)) {
            (Some(prefix), _) => format!(
                "unknown event type `{name}`: what follows `{prefix}` must be visible ASCII \
                 characters except `*`, without spaces and at least one"
            ),
            (None, Some(near)) => format!("unknown event type `{name}`, did you mean `{near}`?"),
            (None, None) => format!(
                "unknown event type `{name}`; name your own types `custom.<name>`, with visible \
                 ASCII characters except `*` in the name"
            ),
        };
        Rejection::of(Reason::UnknownType, "event_type", message)
    })
}

/// An internal type is written by Tidewire's own processes alone, and they write nothing else.
fn check_writers(event_type: &EventType, origin: &RecordOrigin<'_>) -> Result<(), Rejection> {
    match origin.writers {
        Writers::Producers if event_type.internal || !event_type.producers => {
            Err(not_for_producers(event_type))
        }
        Writers::OwnProcesses if !event_type.internal => {
            let message = format!(
                "`{}` is not an internal type, and only those are read from {}; write other events \
                 to the topics for producers",
                event_type.name, origin.topic
            );
            Err(Rejection::of(Reason::NotInternal, "event_type", message))
        }
        Writers::Producers | Writers::OwnProcesses => Ok(()),
    }
}

/// A type that operators or Tidewire's own processes write: a producer that could send it would
/// decide what they have concluded.
fn not_for_producers(event_type: &EventType) -> Rejection {
    let name = &event_type.name;
    let message = match event_type.emitted_by.first() {
        Some(operator) => format!(
            "only the operator `{operator}` emits `{name}`, from other events; send those, or a \
             type of your own, `custom.{name}`"
        ),
        None => format!(
            "only Tidewire's own processes write `{name}`; send a type of your own, `custom.{name}`"
        ),
    };
    Rejection::of(Reason::ReservedType, "event_type", message)
}

fn timestamp(
    value: Option<&str>,
    unit: TimeUnit,
    origin: &RecordOrigin<'_>,
) -> Result<i64, Rejection> {
    let Some(value) = value else { return Ok(origin.append_time_ms) };
    if unit == TimeUnit::Assumed
        && let Some(message) = other_unit(value)
    {
        return Err(Rejection::of(Reason::TimestampInvalid, "timestamp", message));
    }
    let Some(timestamp) = instant(value) else {
        let message =
            "timestamp must be RFC 3339, such as 2026-01-05T10:00:00.123Z, or epoch milliseconds";
        return Err(Rejection::of(Reason::TimestampInvalid, "timestamp", message));
    };
    let ahead = timestamp.saturating_sub(origin.append_time_ms);
    if ahead > TIMESTAMP_AHEAD_MAX_MS {
        let message = format!(
            "timestamp is {} s ahead of the append time; check the producer's clock",
            ahead / 1000
        );
        return Err(Rejection::of(Reason::TimestampFuture, "timestamp", message));
    }
    Ok(timestamp)
}

/// Why a number is not a time in milliseconds, if its size shows that.
fn other_unit(value: &str) -> Option<String> {
    // Strings are in quotes here, so they are no numbers.
    let number: f64 = value.parse().ok()?;
    let advice = match number {
        _ if number < MILLIS_MIN => {
            "is before 2001-09-09 in milliseconds; multiply seconds by 1000, and send earlier \
             times as RFC 3339"
        }
        _ if MICROS.contains(&number) => "is in microseconds; divide it by 1000, or send RFC 3339",
        _ if NANOS.contains(&number) => "is in nanoseconds; divide it by 1000000, or send RFC 3339",
        _ => return None,
    };
    Some(format!("timestamp must be in milliseconds since 1970, but {value} {advice}"))
}

fn event_id(value: &str) -> Result<String, Rejection> {
    let text = id("event_id", value)?;
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message = format!("event_id must be 1 to {ID_MAX_CHARS} visible ASCII characters");
        return Err(Rejection::of(Reason::BadId, "event_id", message));
    }
    if text.starts_with(OPERATOR_SOURCE) {
        let message =
            format!("event_id must not begin with `{OPERATOR_SOURCE}`, which marks operators");
        return Err(Rejection::of(Reason::BadId, "event_id", message));
    }
    Ok(text.into_owned())
}

/// A text of limited length; an empty one counts as absent.
fn short_text(field: &str, value: &str, max_chars: usize) -> Result<Option<String>, Rejection> {
    match json::string(value) {
        Some(text) if text.chars().count() <= max_chars => {
            Ok(Some(text.into_owned()).filter(|text| !text.is_empty()))
        }
        _ => {
            let message = format!("{field} must be a string of at most {max_chars} characters");
            Err(Rejection::of(Reason::BadField, field, message))
        }
    }
}

fn priority(
    value: Option<&str>,
    event_type: &EventType,
    data: &EventData<'_>,
) -> Result<Priority, Rejection> {
    let Some(value) = value else {
        let raised = event_type.priority_if.iter().find(|(condition, _)| condition.holds(data));
        return Ok(raised.map_or(event_type.priority, |(_, priority)| *priority));
    };
    let number = value.parse().ok();
    number.and_then(Priority::from_number).ok_or_else(|| {
        let message = "priority must be 0 (low), 1 (normal), 2 (high) or 3 (critical)";
        Rejection::of(Reason::PriorityInvalid, "priority", message)
    })
}

/// The key as sent. It follows the rules of ids, but an invalid one is a bad field.
fn key_text(value: &str) -> Result<String, Rejection> {
    match id("key", value) {
        Ok(text) => Ok(text.into_owned()),
        Err(rejection) => Err(Rejection { reason: Reason::BadField, ..rejection }),
    }
}

fn catalogue_key(
    event_type: &EventType,
    envelope: EnvelopeIds<'_>,
    data: &EventData<'_>,
) -> Result<String, Rejection> {
    let key = event_type.key.iter().find_map(|source| source.text(envelope, data));
    key.map(Cow::into_owned).ok_or_else(|| no_key(event_type))
}

/// No field is there from which the entity follows.
pub(super) fn no_key(event_type: &EventType) -> Rejection {
    let names = event_type.key.iter().filter_map(|source| match source {
        Source::Field(name) => Some(format!("data.{name}")),
        Source::Inner(object, name) => Some(format!("data.{object}.{name}")),
        Source::Account | Source::Type => None,
    });
    let names: Vec<_> = names.collect();
    let message = format!(
        "{} needs {}, from which its entity follows; send it as a string or a number",
        event_type.name,
        names.join(" or ")
    );
    let field = names.into_iter().next().unwrap_or_else(|| "data".to_owned());
    Rejection::of(Reason::MissingField, field, message)
}
