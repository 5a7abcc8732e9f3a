//! The gateway on real sockets, with a log of a few lines in memory.
//!
//! Clients here are plain blocking sockets, so that a test can send exactly the bytes it means to.

mod client;
mod script;
mod site;

mod events;
mod http;
mod sse;
mod websocket;
mod whole;
