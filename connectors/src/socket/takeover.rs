//! What a handler says of a connection that is going to live long: the response head to write and
//! the stream to serve behind it.
//!
//! Values only. The handler that makes one has checked everything about the request; the shard that
//! gets one writes the head and goes on.

/// A request that ends in a stream.
#[derive(Debug)]
pub struct Takeover {
    /// The response head, blank line included.
    pub head: Vec<u8>,
    /// Who asked.
    pub user: String,
    /// What is served.
    pub live: Live,
}

/// The kinds of live streams.
#[derive(Debug, PartialEq, Eq)]
pub enum Live {
    /// The native protocol over WebSocket frames.
    WebSocket,
    /// Server-sent events.
    Sse(SseRequest),
}

/// What the URL of an SSE stream says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SseRequest {
    /// The channels, as written.
    pub channels: Vec<String>,
    /// `from=`, as written.
    pub from: Option<String>,
    /// Where to resume: the `Last-Event-ID` header, else `last_event_id=`.
    pub last_event_id: Option<String>,
}
