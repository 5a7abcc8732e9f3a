//! Encodes what the server sends besides events: `welcome`, answers, positions and gaps.
//!
//! These frames are written per connection, unlike events, which are encoded once and shared. They
//! are small and rare: one at the start, one per request, one per keepalive.

use xxhash_rust::xxh3::xxh3_64;

use super::framing::{Framing, put_json, put_json_text, put_object};
use super::names::{FrameName, GapReason};
use super::native::RequestError;
use crate::fanout::config::{
    CLIENT_FRAME_MAX_BYTES, CLIENT_MESSAGES_BURST, CLIENT_MESSAGES_PER_S, SSE_RETRY_MS,
    SSE_RETRY_SPREAD_MS, SUBSCRIPTIONS_MAX, WEBSOCKET_KEEPALIVE_MS,
};

/// A message to one connection. Ids of requests are JSON, as the client wrote them.
#[derive(Clone, Copy, Debug)]
pub(in crate::fanout) enum ServerMessage<'a> {
    /// The first frame. On SSE only the reconnect delay (`retry:`), in the block of the first
    /// position.
    Welcome { connection: &'a str, user: &'a str },
    /// A `subscribe` or `unsubscribe` is done.
    Ok { id: Option<&'a str>, channel: &'a str, position: Option<&'a str> },
    /// A request was refused.
    Error { id: Option<&'a str>, error: &'a RequestError },
    /// The answer to `ping`.
    Pong { id: Option<&'a str> },
    /// The position that a connection has reached. On SSE an `id:` without data, which sets
    /// `Last-Event-ID` and dispatches no event.
    Position(&'a str),
    /// The events between two positions are not available.
    Gap { channel: &'a str, reason: GapReason, from: &'a str, to: &'a str },
}

impl ServerMessage<'_> {
    /// Appends the message to `out`.
    pub(in crate::fanout) fn put(self, framing: Framing, out: &mut Vec<u8>) {
        match (framing, self) {
            (Framing::Sse, Self::Welcome { connection, .. }) => {
                // The block is ended by the first position: alone it would be an empty event to
                // some clients. Comments may come in between.
                let retry = SSE_RETRY_MS + spread(connection);
                out.extend_from_slice(format!("retry: {retry}\n").as_bytes());
            }
            (Framing::Sse, Self::Position(position)) => {
                Self::put_block_id(position, out);
                out.push(b'\n');
            }
            _ => put_object(framing, self.name(), &self.object(), out),
        }
    }

    /// Appends the position of the SSE block that follows.
    pub(in crate::fanout) fn put_block_id(position: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(b"id: ");
        out.extend_from_slice(position.as_bytes());
        out.push(b'\n');
    }

    fn name(self) -> FrameName {
        match self {
            Self::Welcome { .. } => FrameName::Welcome,
            Self::Ok { .. } => FrameName::Ok,
            Self::Error { .. } => FrameName::Error,
            Self::Pong { .. } => FrameName::Pong,
            Self::Position(_) => FrameName::Position,
            Self::Gap { .. } => FrameName::Gap,
        }
    }

    /// The message as a JSON object.
    fn object(self) -> Vec<u8> {
        let mut json = Vec::with_capacity(128);
        json.extend_from_slice(b"{\"op\":\"");
        json.extend_from_slice(self.name().as_str().as_bytes());
        json.push(b'"');
        self.put_members(&mut json);
        json.push(b'}');
        json
    }

    fn put_members(self, json: &mut Vec<u8>) {
        match self {
            Self::Welcome { connection, user } => {
                put_member(json, "connection", connection);
                put_member(json, "user", user);
                put_limits(json);
            }
            Self::Ok { id, channel, position } => {
                put_id(json, id);
                put_member(json, "channel", channel);
                if let Some(position) = position {
                    put_member(json, "position", position);
                }
            }
            Self::Error { id, error } => {
                put_id(json, id);
                put_member(json, "code", error.code.as_str());
                put_member(json, "message", &error.message);
            }
            Self::Pong { id } => put_id(json, id),
            Self::Position(position) => put_member(json, "position", position),
            Self::Gap { channel, reason, from, to } => {
                put_member(json, "channel", channel);
                put_member(json, "reason", reason.as_str());
                put_member(json, "from", from);
                put_member(json, "to", to);
            }
        }
    }
}

/// A number of milliseconds that differs from connection to connection.
fn spread(connection: &str) -> u32 {
    (xxh3_64(connection.as_bytes()) % u64::from(SSE_RETRY_SPREAD_MS)) as u32
}

fn put_id(json: &mut Vec<u8>, id: Option<&str>) {
    if let Some(id) = id {
        json.extend_from_slice(b",\"id\":");
        put_json(json, id);
    }
}

fn put_member(json: &mut Vec<u8>, name: &str, text: &str) {
    json.extend_from_slice(b",\"");
    json.extend_from_slice(name.as_bytes());
    json.extend_from_slice(b"\":");
    put_json_text(json, text);
}

fn put_limits(json: &mut Vec<u8>) {
    let limits = format!(
        ",\"heartbeat_ms\":{WEBSOCKET_KEEPALIVE_MS},\"limits\":{{\"subscriptions\":\
         {SUBSCRIPTIONS_MAX},\"frame_bytes\":{CLIENT_FRAME_MAX_BYTES},\"messages_per_second\":\
         {CLIENT_MESSAGES_PER_S},\"burst\":{CLIENT_MESSAGES_BURST}}}"
    );
    json.extend_from_slice(limits.as_bytes());
}
