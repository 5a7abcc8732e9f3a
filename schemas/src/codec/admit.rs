//! Which form a record came in: told by its headers, else by its first bytes. Nothing is guessed
//! from what stands further inside.

use super::{Registry, avro, cloudevents};
use crate::catalogue::Catalogue;
use crate::envelope::{self, Admitted, Reason, RecordOrigin, Rejection, within_limits};

/// The header that says what a value is.
pub const CONTENT_TYPE: &str = "content-type";

/// The content type of a CloudEvent in structured mode.
pub const STRUCTURED: &str = "application/cloudevents+json";

/// A record's headers.
pub trait HeaderLookup {
    /// The value of a header; the last one if there are several.
    fn header(&self, name: &str) -> Option<&[u8]>;
}

impl HeaderLookup for [(&str, &[u8])] {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

/// What records are read with.
#[derive(Clone, Copy, Debug)]
pub struct DecodeContext<'a> {
    /// What events are.
    pub catalogue: &'a Catalogue,
    /// Whom to ask for schemas, if there is somebody.
    pub registry: Option<&'a dyn Registry>,
    /// Where the record came from.
    pub origin: &'a RecordOrigin<'a>,
}

/// Reads a producer's record of any form: decodes, normalises and validates it, and completes what
/// the producer left out. May wait for the registry, for a bounded time.
pub fn admit(
    context: &DecodeContext<'_>,
    value: Option<&[u8]>,
    headers: &dyn HeaderLookup,
) -> Result<Admitted, Rejection> {
    if headers.header(cloudevents::SPECVERSION_HEADER).is_some() {
        return cloudevents::binary(context, value, headers);
    }
    let kind = headers.header(CONTENT_TYPE).unwrap_or_default();
    if kind.len() >= CLOUDEVENTS.len()
        && kind[..CLOUDEVENTS.len()].eq_ignore_ascii_case(CLOUDEVENTS)
    {
        return match media_type(kind).as_str() {
            STRUCTURED => cloudevents::structured(context, value),
            "application/cloudevents-batch+json" => Err(unread(
                "a record holds one CloudEvent; write each event of a batch as a record of its own",
            )),
            _ => Err(unread(
                "of CloudEvents' formats JSON is read: content-type: application/cloudevents+json",
            )),
        };
    }
    match value {
        Some(bytes) if is_avro(bytes) => avro::admit(context, within_limits(value)?, headers),
        _ => envelope::admit(context.catalogue, value, context.origin),
    }
}

const CLOUDEVENTS: &[u8] = b"application/cloudevents";

fn unread(message: &str) -> Rejection {
    Rejection::of(Reason::ConnectorMapping, CONTENT_TYPE, message)
}

/// A content type without its parameters, in small letters.
pub(super) fn media_type(kind: &[u8]) -> String {
    let kind = String::from_utf8_lossy(kind);
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether a value begins as Avro does.
pub(super) fn is_avro(value: &[u8]) -> bool {
    value.starts_with(&avro::SINGLE_OBJECT) || value.first() == Some(&avro::FRAMED)
}
