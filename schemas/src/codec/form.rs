//! The signs by which the form of a record is recognised: headers and first bytes.

/// The header that says what a value is.
pub const CONTENT_TYPE: &str = "content-type";

/// The content type of a CloudEvent in structured mode.
pub const STRUCTURED: &str = "application/cloudevents+json";

/// The header that shows that a record is a CloudEvent in binary mode.
pub(super) const SPECVERSION_HEADER: &str = "ce_specversion";

/// What single-object encoding begins with.
pub(super) const SINGLE_OBJECT: [u8; 2] = [0xc3, 0x01];

/// What Confluent's framing begins with.
const FRAMED: u8 = 0;

/// A content type without its parameters, in small letters.
pub(super) fn media_type(kind: &[u8]) -> String {
    let kind = String::from_utf8_lossy(kind);
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether a value begins as Avro does.
pub(super) fn is_avro(value: &[u8]) -> bool {
    value.starts_with(&SINGLE_OBJECT) || value.first() == Some(&FRAMED)
}
