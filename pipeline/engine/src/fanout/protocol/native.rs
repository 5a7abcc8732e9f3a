//! Error codes, close codes and start positions of the native protocol.
//!
//! Codes are a published contract: numbers and names never change. Their descriptions are the
//! tables of `docs/protocol.md`. Nothing here knows a connection or reads the log.

use std::ops::RangeInclusive;

use tidewire_schemas::position::{Position, PositionError};
use tidewire_schemas::time::{MAX_MS, parse_rfc3339};

use crate::record::Millis;

/// A longer start is no mistyped word or time, and an error does not repeat it.
const QUOTED_BYTES_MAX: usize = 64;

/// Numbers that are taken for milliseconds since 1970: from 1973 on, since a smaller number is most
/// likely one of seconds, and up to the year 9999.
const START_MILLIS: RangeInclusive<i64> = 100_000_000_000..=MAX_MS;

/// What went wrong with one request; the connection stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The frame is not JSON.
    InvalidJson,
    /// The frame is JSON, but not a known request.
    InvalidMessage,
    /// No such channel name.
    InvalidChannel,
    /// No such position.
    InvalidPosition,
    /// The filter is not supported.
    InvalidFilter,
    /// This identity may not do it.
    Forbidden,
    /// The channel, subscription or operation does not exist here.
    NotFound,
    /// Too many messages.
    RateLimited,
    /// Too many subscriptions on this connection.
    TooManySubscriptions,
    /// The connection has this subscription.
    AlreadySubscribed,
    /// The server is at a limit, starting or stopping.
    Overloaded,
    /// The log failed, or did not confirm in time.
    Internal,
}

impl ErrorCode {
    /// Every code, in the order of the reference page.
    pub const ALL: [Self; 12] = [
        Self::InvalidJson,
        Self::InvalidMessage,
        Self::InvalidChannel,
        Self::InvalidPosition,
        Self::InvalidFilter,
        Self::Forbidden,
        Self::NotFound,
        Self::RateLimited,
        Self::TooManySubscriptions,
        Self::AlreadySubscribed,
        Self::Overloaded,
        Self::Internal,
    ];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::InvalidMessage => "invalid_message",
            Self::InvalidChannel => "invalid_channel",
            Self::InvalidPosition => "invalid_position",
            Self::InvalidFilter => "invalid_filter",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::RateLimited => "rate_limited",
            Self::TooManySubscriptions => "too_many_subscriptions",
            Self::AlreadySubscribed => "already_subscribed",
            Self::Overloaded => "overloaded",
            Self::Internal => "internal",
        }
    }

    /// What it means, for the reference page.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::InvalidJson => "the message or body is not JSON",
            Self::InvalidMessage => "the message or request is incomplete or not understood",
            Self::InvalidChannel => "no such channel name",
            Self::InvalidPosition => "`from` is no position, time or word",
            Self::InvalidFilter => "`filter` is not null; filters are not served yet",
            Self::Forbidden => "this user, host or origin may not do it",
            Self::NotFound => {
                "nothing is there: a path, a subscription, an operation or a kind of channel that \
                 is not served yet"
            }
            Self::RateLimited => "too many messages, connections or streams",
            Self::TooManySubscriptions => "the connection has the maximum number of subscriptions",
            Self::AlreadySubscribed => "the connection is subscribed to this channel",
            Self::Overloaded => "the server is at a limit, or is starting or stopping",
            Self::Internal => "the log did not confirm in time, or failed",
        }
    }

    /// What a client does next.
    pub fn advice(self) -> &'static str {
        match self {
            Self::InvalidJson | Self::InvalidMessage | Self::InvalidFilter => {
                "do not repeat it; fix the client"
            }
            Self::InvalidChannel => "do not repeat it; the message names what is right",
            Self::InvalidPosition => {
                "drop the position; subscribe with `latest`, `earliest` or a time"
            }
            Self::Forbidden | Self::NotFound => "do not repeat it",
            Self::RateLimited => "repeat it after 1 s, over HTTP after `Retry-After`; send fewer",
            Self::TooManySubscriptions => "unsubscribe first, or open another connection",
            Self::AlreadySubscribed => {
                "nothing, the subscription goes on; to move it, unsubscribe first"
            }
            Self::Overloaded => "repeat it after `Retry-After`",
            Self::Internal => "repeat it after `Retry-After`, with the same `event_id`s",
        }
    }
}

/// A refused request: a code for programs, and a text with what is right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RequestError {
    /// The code.
    pub code: ErrorCode,
    /// What is wrong and what is right.
    pub message: String,
}

impl RequestError {
    /// An error with this code and text.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Why the server closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The server is stopping; resume elsewhere.
    Drain,
    /// A frame larger than the limit.
    TooLarge,
    /// The server is at a limit, or starting.
    Overloaded,
    /// Fewer than `slow_min_bytes` read within `slow_window_ms`, too many sweeps that went on
    /// without it, or too many unread errors.
    Slow,
    /// A binary frame, or too many bad ones.
    ProtocolError,
    /// Too many messages for too long.
    RateLimited,
    /// A frame that RFC 6455 forbids.
    InvalidFrame,
    /// A text frame that is not UTF-8.
    InvalidUtf8,
    /// Nothing arrived for too long. The peer is most likely gone.
    Silent,
    /// A message was begun and not finished in time.
    Unfinished,
}

impl CloseReason {
    /// Every reason, in the order of the reference page.
    pub const ALL: [Self; 10] = [
        Self::Drain,
        Self::Silent,
        Self::InvalidFrame,
        Self::InvalidUtf8,
        Self::Unfinished,
        Self::TooLarge,
        Self::Overloaded,
        Self::Slow,
        Self::ProtocolError,
        Self::RateLimited,
    ];

    /// The WebSocket close code.
    pub fn code(self) -> u16 {
        match self {
            Self::Drain | Self::Silent => 1001,
            Self::InvalidFrame => 1002,
            Self::InvalidUtf8 => 1007,
            Self::Unfinished => 1008,
            Self::TooLarge => 1009,
            Self::Overloaded => 1013,
            Self::Slow => 4008,
            Self::ProtocolError => 4009,
            Self::RateLimited => 4029,
        }
    }

    /// The text after the code; at most 123 bytes fit into a close frame.
    pub fn text(self) -> &'static str {
        match self {
            Self::Drain => "the server is stopping: resume with your last position",
            Self::TooLarge => "a message has over 65536 bytes or 1024 frames: send smaller ones",
            Self::Overloaded => "the server is at a limit or starting: connect again later",
            Self::Slow => "the client reads too slowly: resume with your last position",
            Self::ProtocolError => "binary or too many invalid frames: send JSON text",
            Self::RateLimited => "more than 50 messages a second for too long: send fewer",
            Self::Silent => "nothing was received for 60 s: answer pings",
            Self::Unfinished => "a message was not sent whole within 30 s: send it again",
            Self::InvalidFrame => "not a valid WebSocket frame",
            Self::InvalidUtf8 => "text is not UTF-8",
        }
    }

    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::TooLarge => "too_large",
            Self::Overloaded => "overloaded",
            Self::Slow => "slow",
            Self::ProtocolError | Self::InvalidFrame | Self::InvalidUtf8 => "protocol_error",
            Self::RateLimited => "rate_limited",
            Self::Silent => "silent",
            Self::Unfinished => "unfinished",
        }
    }

    /// What it means, for the reference page.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Drain => "the server is stopping",
            Self::Silent => "the client sent nothing, not even a pong",
            Self::InvalidFrame => "a frame that RFC 6455 forbids",
            Self::InvalidUtf8 => "a text frame that is not UTF-8",
            Self::TooLarge => "a message over the limit",
            Self::Overloaded => {
                "the server is at a limit, is starting, or can't read the newest state"
            }
            Self::Slow => "the client reads too slowly to keep up",
            Self::ProtocolError => "a binary frame, or too many invalid messages",
            Self::RateLimited => "messages over the rate limit for too long",
            Self::Unfinished => "a message that was begun and not sent whole in time",
        }
    }

    /// Whether a client connects again, and when.
    pub fn reconnect(self) -> Reconnect {
        match self {
            Self::Drain | Self::Silent | Self::Slow | Self::Unfinished => Reconnect::AtOnce,
            Self::Overloaded | Self::RateLimited => Reconnect::AfterDelay,
            Self::InvalidFrame | Self::InvalidUtf8 | Self::TooLarge | Self::ProtocolError => {
                Reconnect::Never
            }
        }
    }
}

/// Whether a client connects again after a close, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reconnect {
    /// With the first delay of the client's back-off, and with its last positions.
    AtOnce,
    /// The same, but not before the time the server asks refused clients to wait.
    AfterDelay,
    /// Not by itself: the next connection would end in the same way.
    Never,
}

impl Reconnect {
    /// Its name in the documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AtOnce => "at once",
            Self::AfterDelay => "after a delay",
            Self::Never => "no",
        }
    }
}

/// Where a subscription starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// With the next event.
    Latest,
    /// With the oldest record that is kept.
    Earliest,
    /// With the first record appended at or after this time.
    Time(Millis),
    /// After a position that a client was given.
    Token(Box<str>),
}

/// Whether a subscription begins with the state of its channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SnapshotWish {
    /// It does, and goes on with the changes.
    Send,
    /// It does not. A channel of both classes delivers its events alone, and one that has state
    /// alone the changes from now on.
    #[default]
    Skip,
}

impl StartAt {
    /// Reads `latest`, `earliest`, a time or a position. A time is in RFC 3339, a date alone, or
    /// milliseconds since 1970.
    pub fn parse(text: &str) -> Result<Self, RequestError> {
        match text {
            "latest" => return Ok(Self::Latest),
            "earliest" => return Ok(Self::Earliest),
            _ => {}
        }
        if let Some(time) = parse_time(text) {
            return Ok(Self::Time(Millis(time)));
        }
        // No position consists of digits alone: its first character is that of its version.
        match Position::decode(text) {
            Ok(_) => Ok(Self::Token(text.into())),
            Err(error) => Err(invalid_start(text, &error)),
        }
    }
}

fn parse_time(text: &str) -> Option<i64> {
    if text.len() == "2026-01-05".len() {
        return parse_rfc3339(&format!("{text}T00:00:00Z"));
    }
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let millis = is_number.then(|| text.parse().ok()).flatten();
    millis.filter(|ms| START_MILLIS.contains(ms)).or_else(|| parse_rfc3339(text))
}

fn invalid_start(text: &str, error: &PositionError) -> RequestError {
    // A word or a time decodes to a first byte above 15, so a smaller one is a version.
    let is_position = matches!(error, PositionError::Version { version: ..16 });
    let message = if is_position || text.is_empty() || text.len() > QUOTED_BYTES_MAX {
        error.to_string()
    } else {
        format!(
            "can't start at `{text}`: send latest, earliest, a time such as 2026-01-05T10:00:00Z, \
             2026-01-05 or 1767607200000 (milliseconds), or a position exactly as the server sent \
             it, such as AbHz3fEJAQcAAAAMjlKG"
        )
    };
    RequestError::new(ErrorCode::InvalidPosition, message)
}
