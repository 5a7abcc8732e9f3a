//! One worker thread's share of the connections. The thread owns the sockets and this value; every
//! method returns at once, and what is to be done comes back as values.
//!
//! The loop around it: `tick(now)`; `pull()` after its wake; `input`, `heard`, `bad_frame` for what
//! came in; then `fill` for every connection of `take_ready`, and for those whose socket has become
//! writable after a [`Filled::More`]; then end what `take_closes` names.

use std::sync::Arc;

use super::hub::Hub;
use super::identity::Identity;
use super::protocol::{CloseReason, ErrorCode, Refusal, StartAt};
use crate::record::Millis;

/// How a connection's frames are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wire {
    /// Complete unmasked WebSocket frames (RFC 6455), pings included.
    WebSocket,
    /// Blocks of `text/event-stream`, behind the response head, without chunked coding.
    Sse,
}

/// A connection of one shard. Slots are dense and reused, so they can index a table beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    /// The place in the shard's table.
    pub slot: u32,
    /// Tells the slot's owners apart.
    pub generation: u32,
}

/// A connection to open.
#[derive(Clone, Debug)]
pub struct Open {
    /// How its frames are written.
    pub wire: Wire,
    /// Who it is.
    pub identity: Arc<Identity>,
    /// Channels it is subscribed to from the start, all from one place. An SSE stream has no
    /// others.
    pub channels: Vec<String>,
    /// Where those start; a resuming SSE client's `Last-Event-ID` as [`StartAt::Token`].
    pub start: StartAt,
}

/// What the socket side found wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFrame {
    /// Binary, or no UTF-8, or a violation of RFC 6455: ends the connection with 4009.
    NotText,
    /// Above the limit: ends the connection with 1009.
    TooLarge,
}

/// Whether a connection has been given all it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// Yes; `take_ready` names it again when there is more.
    Drained,
    /// No: call `fill` again when the socket has taken what it was given.
    More,
}

/// A connection the shard wants ended. Write what `fill` still gives (a last error frame), then the
/// close frame, then call [`Shard::close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// Which.
    pub conn: ConnId,
    /// Code and text.
    pub reason: CloseReason,
}

/// Sums over a shard, for `/v1/stats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Open WebSocket connections.
    pub websockets: usize,
    /// Open SSE streams.
    pub streams: usize,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Distinct channels with a subscriber.
    pub channels: usize,
    /// Connections with something to read that was not fetched yet.
    pub backlogged: usize,
    /// Subscriptions catching up from the ring or the log.
    pub behind: usize,
    /// Event frames written, since the start.
    pub deliveries: u64,
    /// Bytes of all frames written, since the start.
    pub bytes: u64,
}

/// A worker thread's share of the connections.
pub struct Shard {
    hub: Arc<Hub>,
}

impl Shard {
    pub(super) fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    /// Judges a subscription before a connection is made of it, so that SSE can answer with an HTTP
    /// status.
    pub fn check(identity: &Identity, channel: &str, start: &StartAt) -> Result<(), Refusal> {
        let _ = (identity, channel, start);
        Ok(())
    }

    /// Opens a connection; `welcome` (WebSocket) or `retry:` (SSE) waits for the first `fill`.
    pub fn open(&mut self, open: Open) -> Result<ConnId, Refusal> {
        let _ = (&self.hub, open);
        Err(Refusal::new(ErrorCode::Overloaded, "fan-out is not served yet"))
    }

    /// The socket is gone: forgets the connection. A stale id is ignored, here and everywhere.
    pub fn close(&mut self, conn: ConnId) {
        let _ = conn;
    }

    /// A text frame arrived.
    pub fn input(&mut self, conn: ConnId, text: &str) {
        let _ = (conn, text);
    }

    /// Something else arrived, a pong or a ping: the peer lives.
    pub fn heard(&mut self, conn: ConnId) {
        let _ = conn;
    }

    /// A frame arrived that is no text message.
    pub fn bad_frame(&mut self, conn: ConnId, bad: BadFrame) {
        let _ = (conn, bad);
    }

    /// Takes what the hub and the sweeps have for this shard. Call it after the shard's wake.
    pub fn pull(&mut self) {}

    /// Sets the time and does what is due: keepalives, slow and silent connections. Call it in
    /// every round of the loop and at least once a second.
    pub fn tick(&mut self, now: Millis) {
        let _ = now;
    }

    /// Moves the connections with something to write into `into`; each is named once until its
    /// `fill` says [`Filled::Drained`].
    pub fn take_ready(&mut self, into: &mut Vec<ConnId>) {
        let _ = into;
    }

    /// Appends what the connection is due to `out`, up to about `budget` bytes (one frame at
    /// least), ready for one write.
    pub fn fill(&mut self, conn: ConnId, out: &mut Vec<u8>, budget: usize) -> Filled {
        let _ = (conn, out, budget);
        Filled::Drained
    }

    /// Moves the connections to end into `into`.
    pub fn take_closes(&mut self, into: &mut Vec<Close>) {
        let _ = into;
    }

    /// Begins the end: every connection is closed with 1001 once it has been given what is pending.
    pub fn drain(&mut self) {}

    /// Sums.
    pub fn stats(&self) -> ShardStats {
        ShardStats::default()
    }
}
