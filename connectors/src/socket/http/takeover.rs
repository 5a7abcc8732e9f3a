//! A connection on its way from the HTTP server to a worker, before and after it left.
//!
//! Values only. The handler that makes a [`Takeover`] has checked everything about the request; the
//! worker that gets a [`DetachedConnection`] writes the response head and opens the stream.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tidewire_engine::fanout::shard::OpenRequest;

use crate::socket::limits::{ConnectionPermit, RETRY_AFTER_SECONDS};

/// Milliseconds over which the return of streams is spread that were not opened.
pub const FULL_RETRY_SPREAD_MS: u64 = 10_000;

/// The last line of a stream that is not opened: when `EventSource` tries again. Times differ from
/// stream to stream, so that those which were refused together do not return together.
pub fn retry_line() -> String {
    /// 2⁶⁴ divided by the golden ratio: the upper half of its multiples is spread evenly.
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    static REFUSED: AtomicU64 = AtomicU64::new(0);
    let number = REFUSED.fetch_add(1, Ordering::Relaxed);
    let spread = (number.wrapping_mul(STEP) >> 32) % FULL_RETRY_SPREAD_MS;
    format!("retry: {}\n", RETRY_AFTER_SECONDS * 1_000 + spread)
}

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
