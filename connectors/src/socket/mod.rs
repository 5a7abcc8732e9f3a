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

/// Requests and their answers.
pub mod http {
    pub mod accept;
    pub mod guard;
    pub mod response;
    pub mod routes;

    pub mod body;
    pub mod ingest;
    pub mod publish;

    pub mod admin;

    pub mod subscribe;
    pub mod takeover;

    pub mod connection;
}

/// Live connections, on the worker threads.
pub mod stream {
    pub mod event_loop;
    pub mod live_connection;
    pub mod shard_port;
    pub mod websocket;

    pub mod drain;
    pub mod linger;

    pub mod worker;
    pub mod worker_queue;
}

#[cfg(test)]
mod tests;
