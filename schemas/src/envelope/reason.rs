//! Why a record goes to the dead letters.
//!
//! The names are part of the interface: they stand in headers, metrics and answers and never
//! change. Duplicates, filtered and late events are no errors and have no reason here.

use std::borrow::Cow;

/// Why a record goes to the dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No bytes at all.
    EmptyValue,
    /// Not UTF-8.
    NotUtf8,
    /// Not JSON.
    NotJson,
    /// JSON, but no object.
    NotObject,
    /// Over the size or the depth.
    TooLarge,
    /// Avro that its schema does not read.
    AvroDecode,
    /// A schema id the registry does not have.
    SchemaUnknown,
    /// The registry did not answer, retries included.
    RegistryUnavailable,
    /// A required field is missing.
    MissingField,
    /// A field of the wrong type or length.
    BadField,
    /// An id of the wrong form.
    BadId,
    /// A type the catalogue does not have.
    UnknownType,
    /// The name of a protocol frame, which is no event.
    ReservedType,
    /// A timestamp that is none.
    TimestampInvalid,
    /// Too far ahead of the append time.
    TimestampFuture,
    /// A priority outside 0 to 3.
    PriorityInvalid,
    /// An account the producer may not write to.
    AccountForbidden,
    /// A foreign payload no mapping fits.
    ConnectorMapping,
    /// A fact that was passed on too often.
    HopLimit,
    /// The engine failed on it.
    ProcessingFailed,
}

impl Reason {
    /// Every reason, in the reference page's order.
    pub const ALL: [Self; 20] = [
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
        Self::TimestampInvalid,
        Self::TimestampFuture,
        Self::PriorityInvalid,
        Self::AccountForbidden,
        Self::ConnectorMapping,
        Self::HopLimit,
        Self::ProcessingFailed,
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
            Self::TimestampInvalid => "timestamp_invalid",
            Self::TimestampFuture => "timestamp_future",
            Self::PriorityInvalid => "priority_invalid",
            Self::AccountForbidden => "account_forbidden",
            Self::ConnectorMapping => "connector_mapping",
            Self::HopLimit => "hop_limit",
            Self::ProcessingFailed => "processing_failed",
        }
    }

    /// What it means, for people.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::EmptyValue => "the record has no bytes",
            Self::NotUtf8 => "the bytes are not UTF-8",
            Self::NotJson => "the text is not JSON; says where",
            Self::NotObject => "the JSON is no object",
            Self::TooLarge => "the event is over 256 KiB, or `data` over 32 levels or 1,024 fields",
            Self::AvroDecode => "the bytes don't follow their Avro schema",
            Self::SchemaUnknown => "the schema registry does not have the schema's id",
            Self::RegistryUnavailable => "the schema registry did not answer, retries included",
            Self::MissingField => "a required field is absent or null; names it",
            Self::BadField => "a field has the wrong type, length or value, or stands there twice",
            Self::BadId => "an id is no string of 1 to 128 characters and no integer",
            Self::UnknownType => "the catalogue does not have the type; names the nearest",
            Self::ReservedType => "the type is the name of a protocol frame",
            Self::TimestampInvalid => "the timestamp is neither RFC 3339 nor epoch milliseconds",
            Self::TimestampFuture => "the timestamp is over 10 minutes ahead of the append time",
            Self::PriorityInvalid => "the priority is not 0, 1, 2 or 3",
            Self::AccountForbidden => "the producer may not write to the account",
            Self::ConnectorMapping => "no mapping of the connector fits the payload",
            Self::HopLimit => "an operator's fact was passed on too often",
            Self::ProcessingFailed => "the engine failed on the event",
        }
    }
}

/// Why a record can't become an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", reason.as_str())]
pub struct Rejection {
    /// The reason.
    pub reason: Reason,
    /// The field concerned.
    pub field: Option<String>,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Rejection {
    /// A rejection that concerns no field.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, field: None, message: message.into() }
    }

    /// A rejection that concerns a field.
    pub fn of<'a>(
        reason: Reason,
        field: impl Into<Cow<'a, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self { reason, field: Some(field.into().into_owned()), message: message.into() }
    }

    /// The same, its field being one of `data`.
    #[must_use]
    pub fn in_data(self) -> Self {
        Self { field: self.field.map(|field| format!("data.{field}")), ..self }
    }
}
