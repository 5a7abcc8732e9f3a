//! The table of limits that a client can reach: the server's constants, units and consequences.
//!
//! `docs/protocol.md` shows it and the AsyncAPI document contains it. Limits that only
//! administrators set (memory, threads) are not in it.

use serde_json::{Value, json};
use tidewire_connectors::socket::http::body_budget::INGEST_BYTES_PER_ADDRESS;
use tidewire_connectors::socket::http::connection::REQUEST_HEADERS;
use tidewire_connectors::socket::http::state::START_WAIT_MAX;
use tidewire_connectors::socket::http::subscribe_query::USER_CHARS;
use tidewire_connectors::socket::http::takeover::FULL_RETRY_SPREAD_MS;
use tidewire_connectors::socket::limits::{
    BODY_BYTES, BODY_BYTES_PER_S, BODY_EVENTS, CONNECTIONS_PER_ADDRESS, REQUEST_HEAD_BYTES,
    RETRY_AFTER_SECONDS, RequestTimeouts, STREAMS_PER_USER,
};
use tidewire_connectors::socket::stream::event_loop::{SSE_INCOMING_BYTES, TCP_USER_TIMEOUT};
use tidewire_engine::fanout::config::{
    BAD_FRAMES_MAX, BAD_FRAMES_WINDOW_MS, CLIENT_FRAME_MAX_BYTES, CLIENT_MESSAGE_MAX_FRAMES,
    CLIENT_MESSAGES_BURST, CLIENT_MESSAGES_PER_S, FanoutConfig, RATE_LIMITED_CLOSE_MS,
    REQUEST_ID_MAX_BYTES, SILENT_CLOSE_MS, SSE_KEEPALIVE_MS, SSE_POSITION_MS, SSE_RETRY_MS,
    SSE_RETRY_SPREAD_MS, SUBSCRIPTIONS_MAX, UNFINISHED_MESSAGE_MS, UNREAD_ERRORS_MAX_BYTES,
    WEBSOCKET_KEEPALIVE_MS,
};
use tidewire_engine::topology::OUT_RETENTION_MS;
use tidewire_schemas::channel::NAME_MAX_CHARS;
use tidewire_schemas::envelope::EVENT_MAX_BYTES;
use tidewire_schemas::position::TOKEN_MAX_CHARS;

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimit {
    /// What is limited.
    pub what: &'static str,
    /// The number.
    pub value: u64,
    /// Its unit; empty for a count.
    pub unit: &'static str,
    /// What happens beyond it.
    pub beyond: &'static str,
}

impl ClientLimit {
    /// The number with its unit, for people.
    pub fn amount(&self) -> String {
        const TIMES: [(&str, u64); 4] =
            [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)];
        const BYTES: [(&str, u64); 2] = [("MiB", 1 << 20), ("KiB", 1 << 10)];
        let units: &[(&str, u64)] = match self.unit {
            "ms" => &TIMES,
            "bytes" => &BYTES,
            _ => &[],
        };
        let fits =
            |(_, size): &&(&str, u64)| self.value >= *size && self.value.is_multiple_of(*size);
        match units.iter().find(fits) {
            Some((unit, size)) => format!("{} {unit}", self.value / size),
            None => format!("{} {}", self.value, self.unit).trim_end().to_owned(),
        }
    }
}

const fn limit(
    what: &'static str,
    value: u64,
    unit: &'static str,
    beyond: &'static str,
) -> ClientLimit {
    ClientLimit { what, value, unit, beyond }
}

/// Limits of a WebSocket.
pub fn of_websockets() -> Vec<ClientLimit> {
    let fanout = FanoutConfig::default();
    let mut all = of_client_messages();
    all.extend([
        limit(
            "messages of the client per second, sustained",
            u64::from(CLIENT_MESSAGES_PER_S),
            "",
            "error `rate_limited`",
        ),
        limit(
            "messages of the client at once, after a quiet time",
            u64::from(CLIENT_MESSAGES_BURST),
            "",
            "error `rate_limited`",
        ),
        limit(
            "time over which messages are refused with `rate_limited`",
            RATE_LIMITED_CLOSE_MS.unsigned_abs(),
            "ms",
            "close 4029",
        ),
        limit(
            "errors `invalid_json` and `invalid_message`",
            u64::from(BAD_FRAMES_MAX),
            "",
            "close 4009 with the last of them, if they came within the time below",
        ),
        limit("that time", BAD_FRAMES_WINDOW_MS.unsigned_abs(), "ms", "counting starts again"),
        limit(
            "`id` of a request, as JSON text",
            REQUEST_ID_MAX_BYTES as u64,
            "bytes",
            "error `invalid_message`",
        ),
        limit(
            "answers that wait for the client",
            UNREAD_ERRORS_MAX_BYTES as u64,
            "bytes",
            "its requests are not read; if an error goes beyond it, close 4008",
        ),
        limit("time between pings of the server", WEBSOCKET_KEEPALIVE_MS.into(), "ms", "-"),
        limit(
            "time without a frame from the client, pongs included",
            SILENT_CLOSE_MS.into(),
            "ms",
            "close 1001",
        ),
        limit(
            "bytes a client must read per window while more is waiting for it",
            fanout.slow_min_bytes.into(),
            "bytes",
            "close 4008 if it reads fewer",
        ),
        limit("that window", fanout.slow_window_ms.into(), "ms", "-"),
    ]);
    all
}

fn of_client_messages() -> Vec<ClientLimit> {
    vec![
        limit(
            "subscriptions of one connection",
            SUBSCRIPTIONS_MAX as u64,
            "",
            "error `too_many_subscriptions`",
        ),
        limit("one message of the client", CLIENT_FRAME_MAX_BYTES as u64, "bytes", "close 1009"),
        limit(
            "frames of one message of the client",
            CLIENT_MESSAGE_MAX_FRAMES as u64,
            "",
            "close 1009",
        ),
        limit(
            "time to send a message whole, once it is begun",
            UNFINISHED_MESSAGE_MS,
            "ms",
            "close 1008",
        ),
    ]
}

/// Limits of SSE streams.
pub fn of_streams() -> Vec<ClientLimit> {
    vec![
        limit(
            "channels of one stream, at least 1",
            SUBSCRIPTIONS_MAX as u64,
            "",
            "400 `invalid_channel`",
        ),
        limit("time between comments of the server", SSE_KEEPALIVE_MS.into(), "ms", "-"),
        limit("time between blocks of an `id:` alone, at least", SSE_POSITION_MS.into(), "ms", "-"),
        limit("`retry:` that the server sends, at least", SSE_RETRY_MS.into(), "ms", "-"),
        limit(
            "`retry:` that the server sends, below",
            (SSE_RETRY_MS + SSE_RETRY_SPREAD_MS).into(),
            "ms",
            "-",
        ),
        limit(
            "`retry:` of a stream for which there is no room, at least",
            RETRY_AFTER_SECONDS * 1_000,
            "ms",
            "-",
        ),
        limit(
            "`retry:` of a stream for which there is no room, below",
            RETRY_AFTER_SECONDS * 1_000 + FULL_RETRY_SPREAD_MS,
            "ms",
            "-",
        ),
        limit(
            "bytes the client sends behind its request",
            SSE_INCOMING_BYTES as u64,
            "bytes",
            "the connection is closed",
        ),
    ]
}

/// Limits of both, and of HTTP.
pub fn of_requests() -> Vec<ClientLimit> {
    let timeouts = RequestTimeouts::default();
    let mut all = vec![
        limit("channel name", NAME_MAX_CHARS as u64, "characters", "`invalid_channel`"),
        limit("position", TOKEN_MAX_CHARS as u64, "characters", "`invalid_position`"),
        limit(
            "time a position beyond the end of the log is waited for",
            FanoutConfig::default().beyond_end_wait_ms.into(),
            "ms",
            "`gap`",
        ),
        limit("time an event is kept for resuming", OUT_RETENTION_MS, "ms", "`gap`"),
        limit("`user=`", USER_CHARS as u64, "characters", "400 `invalid_message`"),
        limit("head of a request", REQUEST_HEAD_BYTES as u64, "bytes", "431"),
        limit("headers of a request", REQUEST_HEADERS as u64, "", "431"),
        limit(
            "time for the head of a request, and between two requests",
            millis(timeouts.head),
            "ms",
            "the connection is closed",
        ),
    ];
    all.extend(of_transfers(&timeouts));
    all.extend([
        limit(
            "time a stream is held back while the server starts",
            millis(START_WAIT_MAX),
            "ms",
            "it is opened if the server is ready by then, else closed (1013)",
        ),
        limit("bytes of a posted body, unpacked", BODY_BYTES as u64, "bytes", "413 `too_large`"),
        limit(
            "bytes of the posted bodies of one address at once, and of answers it has not read",
            INGEST_BYTES_PER_ADDRESS as u64,
            "bytes",
            "429 `rate_limited`",
        ),
        limit("events of a posted body", BODY_EVENTS as u64, "", "413 `too_large`"),
        limit("one event", EVENT_MAX_BYTES as u64, "bytes", "reason `too_large` in the answer"),
        limit(
            "time for the log to confirm posted events",
            millis(timeouts.append),
            "ms",
            "503 `internal`",
        ),
        limit(
            "connections from one address, or from one IPv6 network of 64 bits",
            CONNECTIONS_PER_ADDRESS as u64,
            "",
            "429 `rate_limited`",
        ),
        limit("streams of one user", STREAMS_PER_USER as u64, "", "429 `rate_limited`"),
        limit(
            "time written bytes may stay unacknowledged",
            millis(TCP_USER_TIMEOUT),
            "ms",
            "the connection is dropped without a close frame",
        ),
        limit("`Retry-After` of 429 and 503", RETRY_AFTER_SECONDS * 1_000, "ms", "-"),
    ]);
    all
}

/// Limits of how fast a body is sent and a response is read.
fn of_transfers(timeouts: &RequestTimeouts) -> [ClientLimit; 4] {
    [
        limit("time for the body of a request", millis(timeouts.body), "ms", "408 `timeout`"),
        limit(
            "least bytes of the body within the time below",
            BODY_BYTES_PER_S * timeouts.body_window.as_secs(),
            "bytes",
            "408 `timeout`",
        ),
        limit("that time", millis(timeouts.body_window), "ms", "-"),
        limit(
            "time for a response to be read, once the connection accepts no more of it",
            millis(timeouts.response),
            "ms",
            "the connection is closed",
        ),
    ]
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// All of them, for programs.
pub(super) fn extension() -> Value {
    let entries = |limits: Vec<ClientLimit>| -> Vec<Value> {
        let entry = |limit: ClientLimit| {
            let ClientLimit { what, value, unit, beyond } = limit;
            json!({ "what": what, "value": value, "unit": unit, "beyond": beyond })
        };
        limits.into_iter().map(entry).collect()
    };
    json!({
        "websocket": entries(of_websockets()),
        "sse": entries(of_streams()),
        "requests": entries(of_requests()),
    })
}
