//! The schema that wrote a producer's records, prepared for reading.
//!
//! Its text is limited in length, since anyone may have written it. JSON in Confluent's framing is
//! read as it is; its JSON schema is not checked.

use std::borrow::Cow;

use super::read::read;
use super::read_plan::{ReadPlan, SchemaFault};
use super::schema_parser::parse;
use crate::envelope::{Rejection, text};

/// The longest schema text, the schemas it refers to included.
pub const SCHEMA_MAX_BYTES: usize = 1024 * 1024;

/// The schema a record was written with.
#[derive(Debug)]
pub struct WriterSchema {
    pub(super) format: RecordFormat,
}

/// How its records are read.
#[derive(Debug)]
pub(super) enum RecordFormat {
    /// As JSON text.
    Json,
    /// As an Avro record.
    Avro(ReadPlan),
}

impl WriterSchema {
    /// An Avro schema with the schemas it refers to, each before the first that refers to it.
    pub fn avro(text: &str, references: &[String]) -> Result<Self, SchemaFault> {
        let bytes = references.iter().map(String::len).sum::<usize>() + text.len();
        if bytes > SCHEMA_MAX_BYTES {
            let message =
                format!("the schema has {bytes} bytes; at most {SCHEMA_MAX_BYTES} are allowed");
            return Err(SchemaFault(message));
        }
        Ok(Self { format: RecordFormat::Avro(parse(text, references)?) })
    }

    /// JSON text; its schema is not checked.
    pub fn json() -> Self {
        Self { format: RecordFormat::Json }
    }

    /// A record as JSON text: an Avro record becomes one object.
    pub fn to_json<'a>(&self, record: &'a [u8]) -> Result<Cow<'a, str>, Rejection> {
        match &self.format {
            RecordFormat::Json => text(Some(record)).map(Cow::Borrowed),
            RecordFormat::Avro(plan) => Ok(Cow::Owned(read(plan, record)?.to_object())),
        }
    }
}
