//! Frames as bytes: one event written once per wire format, and the small frames of the protocol.
//!
//! A frame remembers where its position token stands, so that a connection whose place differs from
//! the hub's (it is catching up, or its token covers several partitions) gets the same bytes with
//! another token. Payloads hold no line break: SSE would read one as the end of a field.

use tidewire_schemas::event::EventView;
use tidewire_schemas::time::format_rfc3339;

use super::names::FrameName;
use crate::fanout::shard::Framing;

/// The first byte of an unfragmented text frame (RFC 6455 §5.2).
const TEXT_FRAME: u8 = 0x81;
/// An empty ping.
const PING_FRAME: [u8; 2] = [0x89, 0];
/// Payload bytes up to which the length stands in the second byte.
const SHORT_MAX_BYTES: usize = 125;

/// An encoded event.
#[derive(Debug)]
pub(in crate::fanout) struct Frame {
    bytes: Box<[u8]>,
    token_at: u32,
    token_len: u32,
    /// Bytes of the WebSocket header in front, 0 for SSE.
    header_len: u8,
}

impl Frame {
    /// Encodes an event of `channel`, resumable at `token`.
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

    /// The frame as it is for everyone at the hub's place.
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
    put_one_line(out, event.data);
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

/// Appends a JSON string.
pub(in crate::fanout) fn put_json_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("text is always JSON, and a Vec takes any bytes");
}

/// Appends text whose line breaks, which JSON allows between its tokens only, become spaces.
fn put_one_line(out: &mut Vec<u8>, text: &str) {
    let from = out.len();
    out.extend_from_slice(text.as_bytes());
    for byte in &mut out[from..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

fn put_header(out: &mut Vec<u8>, len: usize) {
    out.push(TEXT_FRAME);
    if len <= SHORT_MAX_BYTES {
        out.push(len as u8);
    } else if let Ok(len) = u16::try_from(len) {
        out.push(126);
        out.extend_from_slice(&len.to_be_bytes());
    } else {
        out.push(127);
        out.extend_from_slice(&(len as u64).to_be_bytes());
    }
}

/// Appends a protocol object: a text frame, or an SSE block of event type `name`.
pub(in crate::fanout) fn put_object(
    framing: Framing,
    name: FrameName,
    json: &[u8],
    out: &mut Vec<u8>,
) {
    match framing {
        Framing::WebSocket => {
            put_header(out, json.len());
            out.extend_from_slice(json);
        }
        Framing::Sse => {
            out.extend_from_slice(b"event: ");
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b"\ndata: ");
            out.extend_from_slice(json);
            out.extend_from_slice(b"\n\n");
        }
    }
}

/// Appends an empty ping frame.
pub(in crate::fanout) fn put_ping(out: &mut Vec<u8>) {
    out.extend_from_slice(&PING_FRAME);
}

/// Appends the place a quiet connection has reached. On SSE a block of `id:` alone, which moves
/// `Last-Event-ID` and fires nothing.
pub(in crate::fanout) fn put_position(framing: Framing, token: &str, out: &mut Vec<u8>) {
    match framing {
        Framing::WebSocket => {
            let name = FrameName::Position;
            let json = format!("{{\"op\":\"{}\",\"position\":\"{token}\"}}", name.as_str());
            put_object(framing, name, json.as_bytes(), out);
        }
        Framing::Sse => {
            out.extend_from_slice(b"id: ");
            out.extend_from_slice(token.as_bytes());
            out.extend_from_slice(b"\n\n");
        }
    }
}
