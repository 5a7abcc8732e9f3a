//! Finds the schema that a header names, as Confluent's `HeaderSchemaIdSerializer` writes it.
//!
//! ```text
//! __value_schema_id:  01 · GUID (16 bytes)         the whole value is the record
//! __value_schema_id:  00 · schema id (4 bytes)     the same
//! ```
//!
//! The value then has no framing, so its first bytes must not be taken for one. A value that is a
//! whole JSON object is read without its schema: the serialiser's use is to leave JSON as it is for
//! readers without a registry, and no Avro record is a complete JSON object.

use std::sync::Arc;

use super::context::{DecodeContext, HeaderLookup};
use super::format::is_avro;
use super::headers::{SingleValue, singles};
use super::registry::guid_text;
use super::writer::WriterSchema;
use crate::envelope::{DATA_MAX_DEPTH, Reason, Rejection, without_mark};
use crate::json::Scanner;

/// The header with the schema of the value.
const SCHEMA_ID_HEADER: &str = "__value_schema_id";

/// The advice for producers whose header can't be used.
const PREFIX_ADVICE: &str = "or write the id before the value: in the producer, set \
                             value.schema.id.serializer (Python: schema.id.serializer) to the \
                             prefix serialiser";

/// Whether a value can only be read with its schema.
pub(super) fn needs_schema(value: &[u8], headers: &dyn HeaderLookup) -> Result<bool, Rejection> {
    match header(headers) {
        Ok(None) => Ok(is_avro(value)),
        _ if is_json_object(value) => Ok(false),
        found => found.map(|_| true),
    }
}

/// The schema that the header names, if there is one.
pub(super) fn schema(
    context: &DecodeContext<'_>,
    headers: &dyn HeaderLookup,
) -> Result<Option<Arc<WriterSchema>>, Rejection> {
    let Some(header) = header(headers)? else { return Ok(None) };
    let id = SchemaId::of(header)?;
    let registry = context.registry.ok_or_else(|| {
        let message = format!(
            "the header {SCHEMA_ID_HEADER} names schema {} of a registry, but none is configured; \
             set registry.url",
            id.text()
        );
        Rejection::of(Reason::RegistryUnavailable, SCHEMA_ID_HEADER, message)
    })?;
    let found = match id {
        SchemaId::Number(id) => registry.schema(id),
        SchemaId::Guid(guid) => registry.schema_by_guid(guid),
    };
    found.map(Some).map_err(|fault| {
        let message = format!("schema {} (header {SCHEMA_ID_HEADER}): {fault}", id.text());
        Rejection::of(fault.reason(), SCHEMA_ID_HEADER, message)
    })
}

fn header(headers: &dyn HeaderLookup) -> SingleValue<'_> {
    let [found] = singles(headers, [SCHEMA_ID_HEADER]);
    found
}

/// The two forms of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SchemaId {
    Number(u32),
    Guid(u128),
}

impl SchemaId {
    fn of(header: &[u8]) -> Result<Self, Rejection> {
        if let [0, id @ ..] = header
            && let Ok(id) = id.try_into()
        {
            return Ok(Self::Number(u32::from_be_bytes(id)));
        }
        if let [1, guid @ ..] = header
            && let Ok(guid) = guid.try_into()
        {
            return Ok(Self::Guid(u128::from_be_bytes(guid)));
        }
        let message = format!(
            "the header {SCHEMA_ID_HEADER} has {} bytes, but a schema id is 01 and a GUID of 16 \
             bytes, or 00 and a number of 4 bytes; send one of them, {PREFIX_ADVICE}",
            header.len()
        );
        Err(Rejection::of(Reason::AvroDecode, SCHEMA_ID_HEADER, message))
    }

    fn text(self) -> String {
        match self {
            Self::Number(id) => id.to_string(),
            Self::Guid(guid) => guid_text(guid),
        }
    }
}

/// Whether a value is one complete JSON object.
fn is_json_object(value: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(value) else { return false };
    let mut scanner = Scanner::new(without_mark(text), DATA_MAX_DEPTH + 1);
    scanner.peek() == Some(b'{') && scanner.value().is_ok() && scanner.end().is_ok()
}
