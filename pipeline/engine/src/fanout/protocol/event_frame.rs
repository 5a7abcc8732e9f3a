//! Encodes an event as a frame, once per framing and shared by all its subscribers.
//!
//! A frame keeps the byte range of its position token. A connection whose offsets differ from the
//! hub's (it is catching up, or its token covers several partitions) gets the same bytes with
//! another token in that range.

use tidewire_schemas::event::EventView;
use tidewire_schemas::time::format_rfc3339;

use super::framing::{Framing, put_header, put_json, put_json_text, put_one_line};
use super::names::FrameName;

/// An encoded event.
#[derive(Debug)]
pub(in crate::fanout) struct EventFrame {
    bytes: Box<[u8]>,
    token_at: u32,
    token_len: u32,
    /// Bytes of the WebSocket header, 0 for SSE.
    header_len: u8,
}

impl EventFrame {
    /// Encodes an event of `channel` with the position `token`.
    pub(in crate::fanout) fn encode(
        framing: Framing,
        event: &EventView<'_>,
        channel: &str,
        token: &str,
    ) -> Self {
        let mut payload = Vec::with_capacity(256 + event.data.len());
        let token_at = match framing {
            Framing::WebSocket => put_event_object(&mut payload, event, channel, Some(token)),
            Framing::Sse => {
                payload.extend_from_slice(b"id: ");
                payload.extend_from_slice(token.as_bytes());
                payload.extend_from_slice(b"\nevent: ");
                put_one_line(&mut payload, event.event_type);
                payload.extend_from_slice(b"\ndata: ");
                put_event_object(&mut payload, event, channel, None);
                payload.extend_from_slice(b"\n\n");
                4
            }
        };
        let mut bytes = Vec::with_capacity(payload.len() + 10);
        if framing == Framing::WebSocket {
            put_header(&mut bytes, payload.len());
        }
        let header_len = bytes.len();
        bytes.extend_from_slice(&payload);
        Self {
            bytes: bytes.into(),
            token_at: (header_len + token_at) as u32,
            token_len: token.len() as u32,
            header_len: header_len as u8,
        }
    }

    /// The frame for every connection at the hub's offsets.
    pub(in crate::fanout) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends the frame with another token in it.
    pub(in crate::fanout) fn splice(&self, token: &str, out: &mut Vec<u8>) {
        let header = usize::from(self.header_len);
        let from = self.token_at as usize;
        let to = from + self.token_len as usize;
        if header > 0 {
            put_header(out, self.bytes.len() - header - (to - from) + token.len());
        }
        out.extend_from_slice(&self.bytes[header..from]);
        out.extend_from_slice(token.as_bytes());
        out.extend_from_slice(&self.bytes[to..]);
    }
}

/// Writes the event as an object and returns where its token begins.
fn put_event_object(
    out: &mut Vec<u8>,
    event: &EventView<'_>,
    channel: &str,
    token: Option<&str>,
) -> usize {
    let mut time = String::with_capacity(24);
    format_rfc3339(event.timestamp_ms, &mut time);
    out.push(b'{');
    if token.is_some() {
        put_field(out, "op", FrameName::Event.as_str());
    }
    put_field(out, "channel", channel);
    put_field(out, "type", event.event_type);
    put_field(out, "event_id", event.event_id);
    put_field(out, "account_id", event.account_id);
    put_field(out, "timestamp", &time);
    out.extend_from_slice(b"\"priority\":");
    out.push(b'0' + event.priority.number());
    out.push(b',');
    let mut token_at = 0;
    if let Some(token) = token {
        out.extend_from_slice(b"\"position\":\"");
        token_at = out.len();
        out.extend_from_slice(token.as_bytes());
        out.extend_from_slice(b"\",");
    }
    put_field(out, "correlation_id", event.correlation_id);
    out.extend_from_slice(b"\"data\":");
    put_json(out, event.data);
    out.push(b'}');
    token_at
}

fn put_field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    put_json_text(out, value);
    out.push(b',');
}
