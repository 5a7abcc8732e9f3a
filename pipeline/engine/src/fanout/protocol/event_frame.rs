//! Encodes an event or a tombstone as a frame, once per framing and shared by all its subscribers.
//!
//! A frame keeps the byte ranges of its position token and of its key. A connection whose offsets
//! differ from the hub's (it is catching up, or its token covers several partitions) gets the same
//! bytes with another token, and one that is not given a change gets them without the key.

use std::sync::Arc;

use tidewire_schemas::event::EventView;
use tidewire_schemas::time::format_rfc3339;

use super::framing::{Framing, put_header, put_json, put_json_text, put_one_line};
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

/// What a connection may need otherwise.
#[derive(Clone, Copy, Debug, Default)]
struct ReplaceableParts {
    token: FramePart,
    /// The member `key` with its comma.
    key: FramePart,
}

/// How a connection's frame differs from that of the others.
#[derive(Clone, Copy, Debug)]
pub(in crate::fanout) struct FrameEdit<'a> {
    /// In place of the frame's own token.
    pub(in crate::fanout) token: Option<&'a str>,
    pub(in crate::fanout) key: FrameKey,
}

/// Whether a frame says which value of its channel's state it sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fanout) enum FrameKey {
    Keep,
    /// It does not, so that it is no change for the client.
    Omit,
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
    parts: ReplaceableParts,
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
        let parts = match framing {
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
                let parts = put_content(&mut payload, content, None);
                payload.extend_from_slice(b"\n\n");
                ReplaceableParts { token: id, ..parts }
            }
        };
        let mut bytes = Vec::with_capacity(payload.len() + 10);
        if framing == Framing::WebSocket {
            put_header(&mut bytes, payload.len());
        }
        let header_len = bytes.len() as u8;
        bytes.extend_from_slice(&payload);
        Self { bytes: FrameBytes::Small(bytes.into()), parts, header_len }
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

    /// Appends the frame as a connection needs it: with another token, or without the key.
    pub(in crate::fanout) fn put_edited(&self, edit: FrameEdit<'_>, out: &mut OutBuffer) {
        let header = usize::from(self.header_len);
        let at = |part: FramePart| (header + part.at as usize, part.len as usize);
        let token = edit.token.map(|token| (at(self.parts.token), token));
        let key = (edit.key == FrameKey::Omit).then(|| (at(self.parts.key), ""));
        let mut edits: Vec<_> = [token, key].into_iter().flatten().collect();
        edits.retain(|((_, len), with)| *len > 0 || !with.is_empty());
        edits.sort_unstable_by_key(|((at, _), _)| *at);
        let own = out.own_mut();
        if header > 0 {
            let removed: usize = edits.iter().map(|((_, len), _)| len).sum();
            let added: usize = edits.iter().map(|(_, with)| with.len()).sum();
            put_header(own, self.len() - header - removed + added);
        }
        let mut from = header;
        for ((at, len), with) in edits {
            own.extend_from_slice(&self.bytes()[from..at]);
            own.extend_from_slice(with.as_bytes());
            from = at + len;
        }
        self.put_from(from, out);
    }

    /// Appends the bytes from `from` on.
    fn put_from(&self, from: usize, out: &mut OutBuffer) {
        match &self.bytes {
            FrameBytes::Small(bytes) => out.own_mut().extend_from_slice(&bytes[from..]),
            FrameBytes::Large(frame) => out.put_reference(frame, from),
        }
    }
}

/// Writes the content as an object and returns where its parts are. A WebSocket's frame names its
/// `op` and has the token, if there is one.
fn put_content(
    out: &mut Vec<u8>,
    content: &FrameContent<'_>,
    websocket: Option<Option<&str>>,
) -> ReplaceableParts {
    let mut parts = ReplaceableParts::default();
    out.push(b'{');
    let Some(event) = &content.event else {
        put_field(out, "op", FrameName::Deleted.as_str());
        put_field(out, "channel", content.channel);
        put_field(out, "key", content.state_key.unwrap_or_default());
        put_field(out, "account_id", content.account);
        out.pop();
        out.push(b'}');
        return parts;
    };
    let mut time = String::with_capacity(24);
    format_rfc3339(event.timestamp_ms, &mut time);
    if websocket.is_some() {
        put_field(out, "op", FrameName::Event.as_str());
    }
    put_field(out, "channel", content.channel);
    if let Some(key) = content.state_key {
        let at = out.len();
        put_field(out, "key", key);
        parts.key = FramePart { at: at as u32, len: (out.len() - at) as u32 };
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
        parts.token = FramePart::put(token, out);
        out.extend_from_slice(b"\",");
    }
    put_field(out, "correlation_id", event.correlation_id);
    out.extend_from_slice(b"\"data\":");
    put_json(out, event.data);
    out.push(b'}');
    parts
}

fn put_field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    put_json_text(out, value);
    out.push(b',');
}
