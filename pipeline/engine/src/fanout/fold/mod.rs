//! Stub.
pub mod request;
pub mod snapshot;
