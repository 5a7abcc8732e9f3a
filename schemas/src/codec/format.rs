//! The signs of a record's format: header names, content types and first bytes.

/// The header with the content type of the value.
pub const CONTENT_TYPE: &str = "content-type";

/// The content type of a CloudEvent in structured mode.
pub const STRUCTURED: &str = "application/cloudevents+json";

/// The header that marks a CloudEvent in binary mode.
pub(super) const SPECVERSION_HEADER: &str = "ce_specversion";

/// First bytes of Avro single-object encoding.
pub(super) const SINGLE_OBJECT: [u8; 2] = [0xc3, 0x01];

/// First byte of Confluent's framing.
const FRAMED: u8 = 0;

/// A content type without its parameters, in lower case.
pub(super) fn media_type(kind: &str) -> String {
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether a value begins like Avro or Confluent's framing.
pub(super) fn is_avro(value: &[u8]) -> bool {
    value.starts_with(&SINGLE_OBJECT) || value.first() == Some(&FRAMED)
}
