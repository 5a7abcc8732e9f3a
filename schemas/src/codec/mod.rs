//! Decodes records of every format that producers use into an [`Event`](crate::event::Event).
//!
//! ```text
//! header content-type: application/cloudevents  CloudEvents, structured mode
//! header ce_specversion                         CloudEvents, binary mode
//! header __value_schema_id                      Avro or JSON of the registry, without framing
//! C3 01 …                                       Avro, single-object
//! 00 …                                          Avro or JSON in Confluent's framing
//! anything else                                 the JSON envelope
//! ```
//!
//! In reading order: [`admit`] (detects the format), `context`, `format` and `headers` (what
//! decoders share), `avro` (schema and meaning of fields), `schema_header` (a schema named by a
//! header), `writer`, `schema_parser` and `read_plan` (a schema prepared for reading), `read` and
//! `decimal` (from bytes to JSON), `typed_schemas` (schemas of the catalogue), [`Registry`]
//! (schemas of others), `cloudevents`.
//!
//! Every format goes through the same normalisation and validation, so none bypasses a check.

mod admit;
mod avro;
mod cloudevents;
mod context;
mod decimal;
mod format;
mod headers;
mod read;
mod read_plan;
mod registry;
mod schema_header;
mod schema_parser;
#[cfg(test)]
mod tests;
pub(crate) mod typed_schemas;
mod writer;

pub use admit::admit;
pub use context::{DecodeContext, HeaderLookup};
pub use format::{CONTENT_TYPE, STRUCTURED};
pub use headers::attribute_text;
pub use read_plan::{SCHEMA_MAX_NODES, SchemaFault};
pub use registry::{AdmitFailure, Registry, RegistryFault, SchemaKey, SchemaUnavailable};
pub use writer::{SCHEMA_MAX_BYTES, WriterSchema};
