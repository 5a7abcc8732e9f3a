//! From what a producer sent to an [`Event`]: parse, normalise, validate, complete.
//!
//! A record that can't become an event is refused with a [`Rejection`] that names the reason, the
//! field and what would be right. Nothing here reads a clock: the append time of the record is what
//! "now" means.

use crate::catalogue::Catalogue;
use crate::event::Event;

/// Where a record came from, and when the log took it.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The input topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: u32,
    /// The record's offset there.
    pub offset: u64,
    /// When the log appended it, milliseconds since the epoch.
    pub append_time_ms: i64,
}

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

/// A record that became an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The event.
    pub event: Event,
    /// How many envelope fields were unknown and ignored.
    pub ignored_fields: u32,
}

/// Reads a producer's record.
pub fn admit(
    catalogue: &Catalogue,
    value: Option<&[u8]>,
    origin: &Origin<'_>,
) -> Result<Admitted, Rejection> {
    let _ = (catalogue, origin);
    let reason = if value.is_none() { Reason::EmptyValue } else { Reason::NotJson };
    Err(Rejection { reason, field: None, message: "not served yet".to_owned() })
}
