//! Encodes an event or a tombstone as a frame, once per framing and shared by all its subscribers.
//!
//! A frame keeps the byte range of its position token. A connection whose offsets differ from the
//! hub's (it is catching up, or its token covers several partitions) gets the same bytes with
//! another token in that range.

use std::sync::Arc;

use tidewire_schemas::event::EventView;
use tidewire_schemas::time::format_rfc3339;

use super::framing::{Framing, put_header, put_json, put_json_text, put_one_line};
use super::names::{DELETED, FrameName};
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

/// An encoded event or tombstone.
#[derive(Debug)]
pub(in crate::fanout) struct EventFrame {
    bytes: FrameBytes,
    token_at: u32,
    token_len: u32,
    /// Bytes of the WebSocket header, 0 for SSE.
    header_len: u8,
}

impl EventFrame {
    /// Encodes a frame with the position `token`.
    pub(in crate::fanout) fn encode(
        framing: Framing,
        content: &FrameContent<'_>,
        token: &str,
    ) -> Self {
        let data_len = content.event.map_or(0, |event| event.data.len());
        let mut payload = Vec::with_capacity(256 + data_len);
        let token_at = match framing {
            Framing::WebSocket => put_content(&mut payload, content, Some(token)),
            Framing::Sse => {
                payload.extend_from_slice(b"id: ");
                payload.extend_from_slice(token.as_bytes());
                payload.extend_from_slice(b"\nevent: ");
                put_one_line(&mut payload, content.event.map_or(DELETED, |event| event.event_type));
                payload.extend_from_slice(b"\ndata: ");
                put_content(&mut payload, content, None);
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
            bytes: FrameBytes::Small(bytes.into()),
            token_at: (header_len + token_at) as u32,
            token_len: token.len() as u32,
            header_len: header_len as u8,
        }
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
        let from = self.token_at as usize;
        let to = from + self.token_len as usize;
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

/// Writes the content as an object and returns where its token begins.
fn put_content(out: &mut Vec<u8>, content: &FrameContent<'_>, token: Option<&str>) -> usize {
    out.push(b'{');
    if token.is_some() {
        put_field(out, "op", FrameName::Event.as_str());
    }
    put_field(out, "channel", content.channel);
    if let Some(key) = content.state_key {
        put_field(out, "key", key);
    }
    let Some(event) = &content.event else {
        put_field(out, "account_id", content.account);
        out.extend_from_slice(b"\"deleted\":true,");
        let token_at = put_position(out, token);
        out.pop();
        out.push(b'}');
        return token_at;
    };
    let mut time = String::with_capacity(24);
    format_rfc3339(event.timestamp_ms, &mut time);
    put_field(out, "type", event.event_type);
    put_field(out, "event_id", event.event_id);
    put_field(out, "account_id", content.account);
    put_field(out, "timestamp", &time);
    out.extend_from_slice(b"\"priority\":");
    out.push(b'0' + event.priority.number());
    out.push(b',');
    let token_at = put_position(out, token);
    put_field(out, "correlation_id", event.correlation_id);
    out.extend_from_slice(b"\"data\":");
    put_json(out, event.data);
    out.push(b'}');
    token_at
}

/// Writes the position of a WebSocket's frame and a comma. Returns where its token begins.
fn put_position(out: &mut Vec<u8>, token: Option<&str>) -> usize {
    let Some(token) = token else { return 0 };
    out.extend_from_slice(b"\"position\":\"");
    let token_at = out.len();
    out.extend_from_slice(token.as_bytes());
    out.extend_from_slice(b"\",");
    token_at
}

fn put_field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    put_json_text(out, value);
    out.push(b',');
}
