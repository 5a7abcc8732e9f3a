//! The limits of the fan-out, each with its unit and its reason.
//!
//! What an administrator may set is a field of [`FanoutConfig`]. The constants belong to the
//! protocol; `docs/protocol.md` lists those that clients meet.

use tidewire_schemas::catalogue::Catalogue;

/// Subscriptions of one connection. A limit of the protocol, sent in `welcome`.
pub const SUBSCRIPTIONS_MAX: usize = 128;

/// Bytes of one frame from a client. A limit of the protocol, sent in `welcome`.
pub const CLIENT_FRAME_MAX_BYTES: usize = 64 * 1024;

/// Frames of one message from a client: a client library sends one, a few send several.
pub const CLIENT_MESSAGE_MAX_FRAMES: usize = 1_024;

/// Milliseconds a client may take to send a message whole, whatever it sends in between: it
/// occupies memory until then.
pub const UNFINISHED_MESSAGE_MS: u64 = 30_000;

/// Bytes of a request's id as JSON; the answer repeats it.
pub const REQUEST_ID_MAX_BYTES: usize = 64;

/// Bytes of unread answers above which a client that gets another error is closed as slow.
pub const UNREAD_ERRORS_MAX_BYTES: usize = 64 * 1024;

/// Messages a client may send per second, sustained.
pub const CLIENT_MESSAGES_PER_S: u32 = 50;

/// Messages a client may send at once after a pause.
pub const CLIENT_MESSAGES_BURST: u32 = 100;

/// Milliseconds a client may exceed the rate limit, and get errors, before it is closed.
pub const RATE_LIMITED_CLOSE_MS: i64 = 3_000;

/// Bad frames within [`BAD_FRAMES_WINDOW_MS`] that close a connection: its peer does not speak the
/// protocol.
pub const BAD_FRAMES_MAX: u8 = 10;

/// Milliseconds over which bad frames are counted.
pub const BAD_FRAMES_WINDOW_MS: i64 = 60_000;

/// Milliseconds between a WebSocket's pings; the connection's position is sent with each.
pub const WEBSOCKET_KEEPALIVE_MS: u32 = 30_000;

/// Milliseconds between the comments of an SSE stream; proxies cut quiet ones at 60 s and more.
pub const SSE_KEEPALIVE_MS: u32 = 15_000;

/// Milliseconds between blocks of an SSE stream that are an `id:` alone. Some clients take such a
/// block for an empty event, so they are rare; they keep a quiet stream's position within the log.
pub const SSE_POSITION_MS: u32 = 300_000;

/// Milliseconds after which a browser's `EventSource` reconnects at the earliest, sent as `retry:`.
pub const SSE_RETRY_MS: u32 = 1_000;

/// Milliseconds over which `retry:` is spread, so that the streams of a stopped server do not all
/// come back at the same time.
pub const SSE_RETRY_SPREAD_MS: u32 = 2_000;

/// Milliseconds after which a WebSocket that sent nothing, not even a pong, is closed.
pub const SILENT_CLOSE_MS: u32 = 60_000;

/// What an administrator may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FanoutConfig {
    /// The channel kinds that clients subscribe to.
    pub catalogue: &'static Catalogue,
    /// Bytes of records and frames all rings may hold together.
    pub ring_max_bytes: usize,
    /// Records per partition and topic that the hub reads back at start, so that clients which
    /// reconnect after a restart are served from memory.
    pub warmup_records: u64,
    /// Records the hub reads from one partition at once; more make longer but fewer wake-ups.
    pub take_max_records: usize,
    /// Bytes the hub reads from one partition at once.
    pub take_max_bytes: usize,
    /// References a channel keeps for connections that have not been written to. A connection
    /// further back catches up from the ring or the log.
    pub pending_max_refs: usize,
    /// Milliseconds within which a connection that has more to read must read `slow_min_bytes`.
    pub slow_window_ms: u32,
    /// Bytes a connection must read per window, else it is closed with 4008.
    pub slow_min_bytes: u32,
    /// Times a feed may be left behind by sweeps, without writing one step of a sweep in between,
    /// before its connection is closed with 4008.
    pub sweep_misses_max: u8,
    /// Milliseconds a sweep waits for one feed, in all, before it goes on without it.
    pub sweep_wait_max_ms: u32,
    /// Records a sweep reads from a partition per step.
    pub sweep_step_records: usize,
    /// Bytes a sweep reads from a partition per step.
    pub sweep_step_bytes: usize,
    /// Milliseconds to wait for a position beyond the log's end: another gateway may have delivered
    /// records that this one's broker does not report yet.
    pub beyond_end_wait_ms: u32,
}

impl Default for FanoutConfig {
    fn default() -> Self {
        Self {
            catalogue: Catalogue::builtin(),
            ring_max_bytes: 64 * 1024 * 1024,
            warmup_records: 4_096,
            take_max_records: 4_096,
            take_max_bytes: 1024 * 1024,
            pending_max_refs: 4_096,
            slow_window_ms: 30_000,
            slow_min_bytes: 128 * 1024,
            sweep_misses_max: 64,
            sweep_wait_max_ms: 1_000,
            sweep_step_records: 2_048,
            sweep_step_bytes: 512 * 1024,
            beyond_end_wait_ms: 2_000,
        }
    }
}
