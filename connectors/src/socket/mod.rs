//! The network side of the gateway: HTTP requests, and WebSocket and SSE connections.
//!
//! A request is short and runs on an async runtime (`http`). A stream is long and runs on a worker
//! thread with an epoll loop (`stream`), where a quiet connection costs no task, no timer and no
//! buffer. A request that opens a stream is checked by an ordinary handler; its socket then moves
//! from the one side to the other.
//!
//! Nothing here decides what a subscriber receives: that is the fan-out in the engine.
//!
//! In reading order.

pub mod gateway;
pub mod limits;
pub mod memory;

pub mod http;

pub mod stream;

#[cfg(test)]
mod tests;
