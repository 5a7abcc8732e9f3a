//! The gateway on real sockets, with a log of a few lines in memory.
//!
//! Clients here are plain blocking sockets, so that a test can send exactly the bytes it means to.

mod client;
mod fixture;
mod scripted_shard;

mod end_to_end;
mod http;
mod publish;
mod sse;
mod websocket;
