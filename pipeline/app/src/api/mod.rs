//! Generates the OpenAPI 3.1 and AsyncAPI 3 documents of the HTTP and stream interfaces.
//!
//! Names, codes, limits and event types come from the enums and constants that the server itself
//! uses, so a document cannot name something that is not served. Written by hand are only the
//! shapes of the schemas and the sentences about them; `tests/it/api_documents` holds both to the
//! running server, and `tests/tidy/protocol.rs` holds `docs/protocol.md` to the same tables.
//!
//! Each document is made once, at the start of the process.
//!
//! Parts in reading order.

pub mod endpoints;
pub mod limits;

pub mod property;

mod values;

pub mod events;
pub mod frames;
pub mod parameters;

mod bodies;

mod asyncapi;
mod openapi;

pub mod document_info;
pub mod documents;
