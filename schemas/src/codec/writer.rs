//! A producer's own schema, made ready for reading its records.

/// The schema a record was written with.
#[derive(Debug)]
pub struct WriterSchema {}

/// Why a text is no schema to read records with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SchemaFault(pub String);

impl WriterSchema {
    /// An Avro schema, with those it refers to, each before whoever refers to it.
    pub fn avro(_text: &str, _references: &[String]) -> Result<Self, SchemaFault> {
        Ok(Self {})
    }

    /// JSON: the record is JSON text, whatever its schema says of it.
    pub fn json() -> Self {
        Self {}
    }
}
