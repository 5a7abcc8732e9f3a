//! The values that a worker thread and its shard exchange.
//!
//! None of them holds a socket or borrows from the shard, so a worker can be tested with a scripted
//! shard and a shard without a worker.

use std::sync::Arc;

use crate::fanout::identity::Identity;
use crate::fanout::messages::ConnId;
use crate::fanout::protocol::framing::Framing;
use crate::fanout::protocol::native::{CloseReason, SnapshotWish, StartAt};

/// A connection to open.
#[derive(Clone, Debug)]
pub struct OpenRequest {
    /// How its frames are written.
    pub framing: Framing,
    /// Who it is.
    pub identity: Arc<Identity>,
    /// Channels it subscribes to at once, all from one start. An SSE stream can't add others.
    pub channels: Vec<String>,
    /// Where those start; a resuming SSE client's `Last-Event-ID` as [`StartAt::Token`].
    pub start: StartAt,
    /// Whether their state begins with a snapshot.
    pub snapshot: SnapshotWish,
}

/// What the socket side found wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFrame {
    /// Binary: closes the connection with 4009.
    NotText,
    /// Above the limit: closes the connection with 1009.
    TooLarge,
}

/// Whether a connection has been given all it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// Yes; `take_ready` names it again when there is more.
    Drained,
    /// No: call `fill` again when the socket has accepted what it was given.
    More,
}

/// Whether the process has memory left for connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectionMemory {
    /// Yes.
    #[default]
    Available,
    /// No: connections that do not read are closed sooner.
    Full,
}

/// A connection that the shard wants closed. Write what `fill` still gives (a last error frame),
/// then the close frame, then call [`Shard::close`](super::Shard::close).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// The connection.
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
    /// Connections with something to write that was not fetched yet.
    pub backlogged: usize,
    /// Subscriptions catching up from the ring or the log.
    pub behind: usize,
    /// Event frames written, since the start.
    pub deliveries: u64,
    /// Bytes of all frames written, since the start.
    pub bytes: u64,
}
