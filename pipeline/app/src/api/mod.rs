//! Machine-readable descriptions of the interface, generated from the code: OpenAPI 3.1 of the HTTP
//! endpoints, AsyncAPI 3 of the WebSocket and SSE streams.
//!
//! Names, codes, limits and event types are taken from the enums and constants that the server
//! itself uses, so a description can't name something that is not served. What is written here are
//! the schemas' shapes and the sentences about them; `tests/it/api_documents.rs` holds both against
//! the running server, and `tests/tidy/protocol.rs` holds `docs/protocol.md` to the same tables.
//!
//! Nothing here is asked per request: each document is made once, at the start.
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
