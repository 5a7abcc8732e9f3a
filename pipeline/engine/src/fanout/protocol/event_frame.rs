//! Encodes an event or a tombstone as a frame, once per framing and shared by all its subscribers.
//!
//! A frame keeps the byte range of its position token. A connection whose offsets differ from the
//! hub's (it is catching up, or its token covers several partitions) gets the same bytes with
//! another token in that range. A change of state has no token.

use std::sync::Arc;

use tidewire_schemas::event::EventView;
use tidewire_schemas::time::format_rfc3339;

use super::framing::{Framing, put_field, put_header, put_json, put_one_line};
use super::names::FrameName;
use crate::fanout::out_buffer::{OutBuffer, REFERENCE_MIN_BYTES, SharedFrame};
use crate::fanout::totals::FanoutTotals;

/// The bytes of a frame, by what a connection does with them.
#[derive(Debug)]
enum FrameBytes {
    /// Copied.
    Small(Box<[u8]>),
    /// Referred to.
    Large(Arc<SharedFrame>),
}

/// What a frame says.
pub(in crate::fanout) struct FrameContent<'a> {
    pub(in crate::fanout) channel: &'a str,
    /// Which entry of the channel's state it replaces or deletes.
    pub(in crate::fanout) state_key: Option<&'a str>,
    pub(in crate::fanout) account: &'a str,
    /// `None`: the entry is deleted.
    pub(in crate::fanout) event: Option<EventView<'a>>,
}

/// A range of a frame's payload; empty if the frame does not have it.
#[derive(Clone, Copy, Debug, Default)]
struct FramePart {
    at: u32,
    len: u32,
}

impl FramePart {
    fn put(text: &str, out: &mut Vec<u8>) -> Self {
        let at = out.len();
        out.extend_from_slice(text.as_bytes());
        Self { at: at as u32, len: text.len() as u32 }
    }
}

impl FrameContent<'_> {
    /// The `event:` of its block in an SSE stream.
    fn event_name(&self) -> &str {
        self.event.map_or(FrameName::Deleted.in_stream(), |event| event.event_type)
    }
}

/// An encoded event or tombstone.
#[derive(Debug)]
pub(in crate::fanout) struct EventFrame {
    bytes: FrameBytes,
    token: FramePart,
    /// Bytes of the WebSocket header, 0 for SSE.
    header_len: u8,
}

impl EventFrame {
    /// Encodes a frame with the position `token`, if it has one.
    pub(in crate::fanout) fn encode(
        framing: Framing,
        content: &FrameContent<'_>,
        token: Option<&str>,
    ) -> Self {
        let data_len = content.event.map_or(0, |event| event.data.len());
        let mut payload = Vec::with_capacity(256 + data_len);
        let token = match framing {
            Framing::WebSocket => put_content(&mut payload, content, Some(token)),
            Framing::Sse => {
                let mut id = FramePart::default();
                if let Some(token) = token {
                    payload.extend_from_slice(b"id: ");
                    id = FramePart::put(token, &mut payload);
                    payload.push(b'\n');
                }
                payload.extend_from_slice(b"event: ");
                put_one_line(&mut payload, content.event_name());
                payload.extend_from_slice(b"\ndata: ");
                put_content(&mut payload, content, None);
                payload.extend_from_slice(b"\n\n");
                id
            }
        };
        let mut bytes = Vec::with_capacity(payload.len() + 10);
        if framing == Framing::WebSocket {
            put_header(&mut bytes, payload.len());
        }
        let header_len = bytes.len() as u8;
        bytes.extend_from_slice(&payload);
        Self { bytes: FrameBytes::Small(bytes.into()), token, header_len }
    }

    /// Prepares a large frame to be referred to. Its bytes are counted in `totals` from then on.
    pub(in crate::fanout) fn shared(mut self, totals: &Arc<FanoutTotals>) -> Self {
        self.bytes = match self.bytes {
            FrameBytes::Small(bytes) if bytes.len() >= REFERENCE_MIN_BYTES => {
                FrameBytes::Large(Arc::new(SharedFrame::new(bytes, totals)))
            }
            as_it_is => as_it_is,
        };
        self
    }

    /// Bytes of the frame.
    pub(in crate::fanout) fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Bytes that live and end with the frame's segment: those of a small frame.
    pub(in crate::fanout) fn segment_bytes(&self) -> usize {
        match &self.bytes {
            FrameBytes::Small(bytes) => bytes.len(),
            FrameBytes::Large(_) => 0,
        }
    }

    fn bytes(&self) -> &[u8] {
        match &self.bytes {
            FrameBytes::Small(bytes) => bytes,
            FrameBytes::Large(frame) => frame.bytes(),
        }
    }

    /// Appends the frame, for every connection at the hub's offsets.
    pub(in crate::fanout) fn put(&self, out: &mut OutBuffer) {
        self.put_from(0, out);
    }

    /// Appends the frame with another token in it.
    pub(in crate::fanout) fn splice(&self, token: &str, out: &mut OutBuffer) {
        let header = usize::from(self.header_len);
        let from = header + self.token.at as usize;
        let to = from + self.token.len as usize;
        let own = out.own_mut();
        if header > 0 {
            put_header(own, self.len() - header - (to - from) + token.len());
        }
        own.extend_from_slice(&self.bytes()[header..from]);
        own.extend_from_slice(token.as_bytes());
        self.put_from(to, out);
    }

    /// Appends the bytes from `from` on.
    fn put_from(&self, from: usize, out: &mut OutBuffer) {
        match &self.bytes {
            FrameBytes::Small(bytes) => out.own_mut().extend_from_slice(&bytes[from..]),
            FrameBytes::Large(frame) => out.put_reference(frame, from),
        }
    }
}

/// Writes the content as an object and returns where its token is. A WebSocket's frame names its
/// `op` and has the token, if there is one.
fn put_content(
    out: &mut Vec<u8>,
    content: &FrameContent<'_>,
    websocket: Option<Option<&str>>,
) -> FramePart {
    let mut put_token = FramePart::default();
    out.push(b'{');
    let Some(event) = &content.event else {
        put_field(out, "op", FrameName::Deleted.as_str());
        put_field(out, "channel", content.channel);
        put_field(out, "key", content.state_key.unwrap_or_default());
        put_field(out, "account_id", content.account);
        out.pop();
        out.push(b'}');
        return put_token;
    };
    let mut time = String::with_capacity(24);
    format_rfc3339(event.timestamp_ms, &mut time);
    if websocket.is_some() {
        put_field(out, "op", FrameName::Event.as_str());
    }
    put_field(out, "channel", content.channel);
    if let Some(key) = content.state_key {
        put_field(out, "key", key);
    }
    put_field(out, "type", event.event_type);
    put_field(out, "event_id", event.event_id);
    put_field(out, "account_id", content.account);
    put_field(out, "timestamp", &time);
    out.extend_from_slice(b"\"priority\":");
    out.push(b'0' + event.priority.number());
    out.push(b',');
    if let Some(token) = websocket.flatten() {
        out.extend_from_slice(b"\"position\":\"");
        put_token = FramePart::put(token, out);
        out.extend_from_slice(b"\",");
    }
    put_field(out, "correlation_id", event.correlation_id);
    out.extend_from_slice(b"\"data\":");
    put_json(out, event.data);
    out.push(b'}');
    put_token
}
