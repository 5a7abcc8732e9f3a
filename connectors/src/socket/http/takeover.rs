//! What a handler says of a connection that is going to live long: the response head to write and
//! the stream to open behind it.
//!
//! Values only. The handler that makes one has checked everything about the request; the worker
//! that gets one writes the head and goes on.

use tidewire_engine::fanout::shard::OpenRequest;

/// A request that ends in a stream.
#[derive(Debug)]
pub struct Takeover {
    /// The response head, blank line included.
    pub head: Vec<u8>,
    /// The stream.
    pub open: OpenRequest,
}
