//! From a record in any form producers send to an [`Event`](crate::event::Event).
//!
//! ```text
//! header ce_specversion                         CloudEvents, binary mode
//! header content-type: application/cloudevents  CloudEvents, structured mode
//! C3 01 …                                       Avro, single-object
//! 00 …                                          Avro or JSON in Confluent's framing
//! anything else                                 the JSON envelope
//! ```
//!
//! In reading order: [`admit`] (which form it is), `avro` (which schema, what its fields mean),
//! `writer` (a schema laid out for reading), `read` (from bytes to JSON), `builtin` (schemas of this
//! build), [`Registry`] (those of others), `cloudevents`.
//!
//! Every form ends in the same normalisation and validation, so nothing gets in by its form.

mod admit;
mod avro;
mod builtin;
mod cloudevents;
mod context;
mod form;
mod read;
mod read_plan;
mod registry;
#[cfg(test)]
mod tests;
mod writer;

pub use admit::admit;
pub use context::{DecodeContext, HeaderLookup};
pub use form::{CONTENT_TYPE, STRUCTURED};
pub use read_plan::{SCHEMA_MAX_NODES, SchemaFault};
pub use registry::{Registry, RegistryFault};
pub use writer::{SCHEMA_MAX_BYTES, WriterSchema};
