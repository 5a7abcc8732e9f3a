//! A connection on its way from the HTTP server to a worker, before and after it left.
//!
//! Values only. The handler that makes a [`Takeover`] has checked everything about the request; the
//! worker that gets a [`DetachedConnection`] writes the response head and opens the stream.

use bytes::Bytes;
use tidewire_engine::fanout::shard::OpenRequest;

use crate::socket::limits::ConnectionPermit;

/// A request that becomes a stream.
#[derive(Debug)]
pub struct Takeover {
    /// The response head, blank line included.
    pub head: Vec<u8>,
    /// The stream to open.
    pub open: OpenRequest,
}

/// A connection that left the HTTP server for a worker.
#[derive(Debug)]
pub struct DetachedConnection {
    /// The socket, not registered with any poll.
    pub stream: std::net::TcpStream,
    /// Bytes the client sent after its request.
    pub read_ahead: Bytes,
    /// What the handler asked for.
    pub takeover: Takeover,
    /// Keeps the connection counted until it is dropped.
    pub permit: ConnectionPermit,
}
