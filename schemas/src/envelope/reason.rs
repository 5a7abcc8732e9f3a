//! The reasons for which a record becomes a dead letter.
//!
//! The names appear in headers, metrics and HTTP answers, so they never change. Duplicate, filtered
//! and late events are not errors and have no reason.

use std::borrow::Cow;

/// Characters of a producer's text that a rejection repeats, in its field and in its message.
const SHOWN_CHARS: usize = 80;

/// The longest message. Ours are shorter; what a schema registry or a library says may not be.
const MESSAGE_MAX_CHARS: usize = 512;

/// Why a record becomes a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The record has no bytes.
    EmptyValue,
    /// Not UTF-8.
    NotUtf8,
    /// Not JSON.
    NotJson,
    /// JSON, but not an object.
    NotObject,
    /// Over the limit of size, depth or number of fields.
    TooLarge,
    /// Avro bytes that do not follow their schema.
    AvroDecode,
    /// A schema id the registry does not have.
    SchemaUnknown,
    /// No registry is configured. One that does not answer rejects nothing: the record waits.
    RegistryUnavailable,
    /// A required field is missing.
    MissingField,
    /// A field of the wrong type, length or value, or given twice.
    BadField,
    /// An invalid id.
    BadId,
    /// A type the catalogue does not have.
    UnknownType,
    /// A reserved name, which is not an event type.
    ReservedType,
    /// A type that is not internal, in the topic for internal types.
    NotInternal,
    /// An invalid timestamp.
    TimestampInvalid,
    /// A timestamp too far ahead of the append time.
    TimestampFuture,
    /// A priority outside 0 to 3.
    PriorityInvalid,
    /// An account that the producer may not write to. Reserved: no check writes it yet.
    AccountForbidden,
    /// A content type, CloudEvents format or data type that is not read.
    ConnectorMapping,
    /// A fact with too many hops. Reserved: DERIVE writes `ProcessingFailed` for it.
    HopLimit,
    /// The engine could not process the event.
    ProcessingFailed,
    /// It is for an operator that only another build has.
    UnknownOperator,
}

impl Reason {
    /// Every reason, in the reference page's order.
    pub const ALL: [Self; 22] = [
        Self::EmptyValue,
        Self::NotUtf8,
        Self::NotJson,
        Self::NotObject,
        Self::TooLarge,
        Self::AvroDecode,
        Self::SchemaUnknown,
        Self::RegistryUnavailable,
        Self::MissingField,
        Self::BadField,
        Self::BadId,
        Self::UnknownType,
        Self::ReservedType,
        Self::NotInternal,
        Self::TimestampInvalid,
        Self::TimestampFuture,
        Self::PriorityInvalid,
        Self::AccountForbidden,
        Self::ConnectorMapping,
        Self::HopLimit,
        Self::ProcessingFailed,
        Self::UnknownOperator,
    ];

    /// Its name in headers, metrics and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EmptyValue => "empty_value",
            Self::NotUtf8 => "not_utf8",
            Self::NotJson => "not_json",
            Self::NotObject => "not_object",
            Self::TooLarge => "too_large",
            Self::AvroDecode => "avro_decode",
            Self::SchemaUnknown => "schema_unknown",
            Self::RegistryUnavailable => "registry_unavailable",
            Self::MissingField => "missing_field",
            Self::BadField => "bad_field",
            Self::BadId => "bad_id",
            Self::UnknownType => "unknown_type",
            Self::ReservedType => "reserved_type",
            Self::NotInternal => "not_internal",
            Self::TimestampInvalid => "timestamp_invalid",
            Self::TimestampFuture => "timestamp_future",
            Self::PriorityInvalid => "priority_invalid",
            Self::AccountForbidden => "account_forbidden",
            Self::ConnectorMapping => "connector_mapping",
            Self::HopLimit => "hop_limit",
            Self::ProcessingFailed => "processing_failed",
            Self::UnknownOperator => "unknown_operator",
        }
    }

    /// Its meaning, for the reference page.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::EmptyValue => "the record has no bytes",
            Self::NotUtf8 => "the bytes are not UTF-8",
            Self::NotJson => "the text is not JSON; the detail gives the byte",
            Self::NotObject => "the JSON is not an object",
            Self::TooLarge => "the event is over 256 KiB, or `data` over 32 levels or 1,024 fields",
            Self::AvroDecode => {
                "the bytes do not follow their Avro schema, or the schema cannot be used"
            }
            Self::SchemaUnknown => "no schema has this fingerprint or id",
            Self::RegistryUnavailable => {
                "the record needs a schema registry, and none is configured"
            }
            Self::MissingField => "a required field is absent or null; the detail names it",
            Self::BadField => "a field has the wrong type, length or value, or occurs twice",
            Self::BadId => "an id is not a string of 1 to 128 characters or an integer",
            Self::UnknownType => {
                "the catalogue does not have the type; the detail names the most similar one"
            }
            Self::ReservedType => {
                "the type is a frame's name, such as `ping`, or only operators emit it"
            }
            Self::NotInternal => "the topic is `in.internal`, and the type is not internal",
            Self::TimestampInvalid => "the timestamp is neither RFC 3339 nor epoch milliseconds",
            Self::TimestampFuture => "the timestamp is over 10 minutes ahead of the append time",
            Self::PriorityInvalid => "the priority is not 0, 1, 2 or 3",
            Self::AccountForbidden => "reserved: this version has no tokens",
            Self::ConnectorMapping => {
                "a CloudEvents batch, a CloudEvents format except JSON, or data that is not JSON"
            }
            Self::HopLimit => {
                "reserved: too many facts in a row are reported as `processing_failed`"
            }
            Self::ProcessingFailed => "an operator of DERIVE failed on the event",
            Self::UnknownOperator => {
                "it is for an operator that only another build has; requeue it after the upgrade"
            }
        }
    }
}

/// A record that can't become an event, with the reason. Other crates make it by its functions,
/// which limit its texts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", reason.as_str())]
#[non_exhaustive]
pub struct Rejection {
    /// The reason.
    pub reason: Reason,
    /// The field concerned.
    pub field: Option<String>,
    /// What is wrong and what would be valid.
    pub message: String,
}

impl Rejection {
    /// A rejection without a field.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, field: None, message: limited(message.into(), MESSAGE_MAX_CHARS) }
    }

    /// A rejection of a field.
    pub fn of<'a>(
        reason: Reason,
        field: impl Into<Cow<'a, str>>,
        message: impl Into<String>,
    ) -> Self {
        let field = limited(field.into().into_owned(), SHOWN_CHARS);
        Self { field: Some(field), ..Self::new(reason, message) }
    }

    /// The same rejection, with its field prefixed by `data.`.
    #[must_use]
    pub fn in_data(self) -> Self {
        Self { field: self.field.map(|field| format!("data.{field}")), ..self }
    }
}

/// A producer's text as a message repeats it: one event has up to 256 KiB of it, and a thousand
/// rejections are one response.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

fn limited(mut text: String, max_chars: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(max_chars) {
        text.truncate(end);
        text.push('…');
    }
    text
}
