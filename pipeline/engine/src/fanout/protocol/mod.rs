//! The native protocol: what clients and the server send, as values and as bytes.
//!
//! Names and codes are a published contract; `docs/protocol.md` and the AsyncAPI document are held
//! to them by tests. Nothing here knows a connection or a log.
//!
//! Modules in reading order: names and codes, then what clients send, then what the server sends.

pub mod names;
pub mod native;

pub(super) mod client_requests;

pub(super) mod framing;
pub(super) mod server_messages;

pub(super) mod event_frame;
pub(super) mod snapshot_frame;
