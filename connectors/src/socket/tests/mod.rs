//! Tests of the gateway over real sockets, with an appender in memory.
//!
//! Clients are plain blocking sockets, so that a test can send exactly the bytes it needs.

mod browsers;
pub(super) mod client;
mod fixture;
mod own_process;
pub(super) mod scripted_shard;

mod end_to_end;
mod hostile;
mod http;
mod publish;
mod sse;
mod websocket;
