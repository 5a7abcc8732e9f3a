//! Sockets: HTTP in, streams out.
//!
//! The one idea: HTTP is a short conversation and belongs to an async runtime; a stream is a long
//! one and belongs to a thread with an epoll loop, where ten thousand of them cost no task, no
//! timer and no buffer while they are quiet. A request that becomes a stream is judged in the first
//! world and then moved, socket and all, to the second.
//!
//! Nothing here decides what a client gets to see: that is the fan-out in the engine.
//!
//! In reading order.

pub mod gateway;
pub mod limits;

pub mod accept;
pub mod answer;
pub mod guard;
pub mod routes;
pub mod serve;

pub mod body;
pub mod events;
pub mod ingest;

pub mod verbs;

pub mod open;
pub mod takeover;

pub mod drain;
pub mod event_loop;
pub mod linger;
pub mod peer;
pub mod streams;
pub mod waking;
pub mod websocket;
pub mod worker;

#[cfg(test)]
mod tests;
