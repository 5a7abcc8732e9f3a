//! Decodes records of every format that producers use into an [`Event`](crate::event::Event).
//!
//! ```text
//! header ce_specversion                         CloudEvents, binary mode
//! header content-type: application/cloudevents  CloudEvents, structured mode
//! C3 01 …                                       Avro, single-object
//! 00 …                                          Avro or JSON in Confluent's framing
//! anything else                                 the JSON envelope
//! ```
//!
//! In reading order: [`admit`] (detects the format), `context` and `format` (what decoders share),
//! `avro` (schema and meaning of fields), `writer` and `read_plan` (a schema prepared for reading),
//! `read` (from bytes to JSON), `builtin` (schemas of this build), [`Registry`] (schemas of
//! others), `cloudevents`.
//!
//! Every format goes through the same normalisation and validation, so none bypasses a check.

mod admit;
mod avro;
mod builtin;
mod cloudevents;
mod context;
mod format;
mod read;
mod read_plan;
mod registry;
#[cfg(test)]
mod tests;
mod writer;

pub use admit::admit;
pub use context::{DecodeContext, HeaderLookup};
pub use format::{CONTENT_TYPE, STRUCTURED};
pub use read_plan::{SCHEMA_MAX_NODES, SchemaFault};
pub use registry::{AdmitFailure, Registry, RegistryFault, SchemaUnavailable};
pub use writer::{SCHEMA_MAX_BYTES, WriterSchema};
