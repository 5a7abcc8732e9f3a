//! Every limit of the fan-out, with its unit and its reason. What an operator may turn is a field
//! of [`FanoutConfig`]; the rest are constants, because changing them changes the protocol.

/// Subscriptions of one connection. The protocol's limit, told in `welcome`.
pub const SUBSCRIPTIONS_MAX: usize = 128;

/// Bytes of one frame a client sends. The protocol's limit, told in `welcome`.
pub const CLIENT_FRAME_MAX_BYTES: usize = 64 * 1024;

/// Bytes of a request's id as JSON; it comes back in the answer.
pub const REQUEST_ID_MAX_BYTES: usize = 64;

/// Bytes of unread answers beyond which a client that keeps on being refused is closed as slow.
pub const UNREAD_ERRORS_MAX_BYTES: usize = 64 * 1024;

/// Messages a client may send per second, sustained.
pub const CLIENT_MESSAGES_PER_S: u32 = 50;

/// Messages a client may send at once, after a quiet time.
pub const CLIENT_MESSAGES_BURST: u32 = 100;

/// Milliseconds a client may keep on being refused by the rate limit before it is closed.
pub const RATE_LIMITED_CLOSE_MS: i64 = 3_000;

/// Bad frames within [`BAD_FRAMES_WINDOW_MS`] that end a connection: this is no client of ours.
pub const BAD_FRAMES_MAX: u8 = 10;

/// Milliseconds over which bad frames are counted.
pub const BAD_FRAMES_WINDOW_MS: i64 = 60_000;

/// Milliseconds between a WebSocket's pings, each beside the connection's position.
pub const WEBSOCKET_KEEPALIVE_MS: u32 = 30_000;

/// Milliseconds between the `id:` blocks of a quiet SSE stream; proxies cut at 60 s and more.
pub const SSE_KEEPALIVE_MS: u32 = 15_000;

/// Milliseconds after which a browser's `EventSource` reconnects, as `retry:` says.
pub const SSE_RETRY_MS: u32 = 1_000;

/// Milliseconds after which a WebSocket that sent nothing, not even a pong, is dropped.
pub const SILENT_CLOSE_MS: u32 = 60_000;

/// What an operator may turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FanoutConfig {
    /// Bytes of records and frames all rings may hold together.
    pub ring_max_bytes: usize,
    /// Records per partition and topic the hub reads back at start, so that clients which come back
    /// after a restart are served from memory.
    pub warmup_records: u64,
    /// Records the hub takes from one partition at once; more make longer but fewer wake-ups.
    pub take_max_records: usize,
    /// Bytes the hub takes from one partition at once.
    pub take_max_bytes: usize,
    /// References a channel keeps for connections that have not been written to; whoever falls
    /// further back catches up from the ring or the log.
    pub pending_max_refs: usize,
    /// Milliseconds over which a connection with more to come must take `slow_min_bytes`.
    pub slow_window_ms: u32,
    /// Bytes a connection must take per window, else it is closed with 4008.
    pub slow_min_bytes: u32,
    /// Times a connection may fall out of a sweep, without reaching the ring between, before it is
    /// closed with 4008.
    pub sweep_misses_max: u8,
    /// Milliseconds a sweep waits for its slowest reader before it goes on without it.
    pub sweep_wait_max_ms: u32,
    /// Records a sweep reads from a partition per step.
    pub sweep_step_records: usize,
    /// Bytes a sweep reads from a partition per step.
    pub sweep_step_bytes: usize,
    /// Milliseconds a position beyond the log's end is waited for: a gateway may be asked a moment
    /// before its broker has heard of what another one has shown.
    pub beyond_end_wait_ms: u32,
}

impl Default for FanoutConfig {
    fn default() -> Self {
        Self {
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
