//! The schema of a producer's records, parsed by apache-avro and made ready for reading.
//!
//! Its text is limited in length, since anyone may have written it. JSON in Confluent's framing is
//! read as it is; its JSON schema is not checked.

use std::borrow::Cow;

use apache_avro::Schema;

use super::read::read;
use super::read_plan::{ReadPlan, SchemaFault};
use crate::envelope::{Rejection, text};

/// The longest schema text, those it refers to included.
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
    /// An Avro schema, with those it refers to, each before whoever refers to it.
    pub fn avro(text: &str, references: &[String]) -> Result<Self, SchemaFault> {
        let bytes = references.iter().map(String::len).sum::<usize>() + text.len();
        if bytes > SCHEMA_MAX_BYTES {
            let message =
                format!("the schema has {bytes} bytes, at most {SCHEMA_MAX_BYTES} are read");
            return Err(SchemaFault(message));
        }
        let broken = |error: apache_avro::Error| SchemaFault(format!("no Avro schema: {error}"));
        let (schema, others) = Schema::parse_str_with_list(text, references).map_err(broken)?;
        Ok(Self { format: RecordFormat::Avro(ReadPlan::of(&schema, &others)?) })
    }

    /// JSON: the record is JSON text, whatever its schema says of it.
    pub fn json() -> Self {
        Self { format: RecordFormat::Json }
    }

    /// A record this schema wrote as JSON text: of Avro one object of all its fields.
    pub fn to_json<'a>(&self, record: &'a [u8]) -> Result<Cow<'a, str>, Rejection> {
        match &self.format {
            RecordFormat::Json => text(Some(record)).map(Cow::Borrowed),
            RecordFormat::Avro(plan) => Ok(Cow::Owned(read(plan, record)?.to_object(plan))),
        }
    }
}
