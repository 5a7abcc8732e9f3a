//! Writes texts as WebSocket text frames or as `text/event-stream` blocks.
//!
//! Payloads hold no line break: SSE would read one as the end of a field. JSON allows line breaks
//! between its tokens only, so they can be replaced by spaces.

use super::names::FrameName;

/// The first byte of an unfragmented text frame (RFC 6455 §5.2).
const TEXT_FRAME: u8 = 0x81;
/// An empty ping.
const PING_FRAME: [u8; 2] = [0x89, 0];
/// Payload bytes up to which the length fits into the header's second byte.
const SHORT_MAX_BYTES: usize = 125;

/// How a connection's frames are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// Complete unmasked WebSocket frames (RFC 6455), pings included.
    WebSocket,
    /// Blocks of `text/event-stream`, after the response head, without chunked coding.
    Sse,
}

/// Appends the header of an unmasked text frame with `len` payload bytes.
pub(super) fn put_header(out: &mut Vec<u8>, len: usize) {
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

/// Appends a JSON object: a text frame, or an SSE block of event type `name`.
pub(super) fn put_object(framing: Framing, name: FrameName, json: &[u8], out: &mut Vec<u8>) {
    match framing {
        Framing::WebSocket => {
            put_header(out, json.len());
            out.extend_from_slice(json);
        }
        Framing::Sse => {
            out.extend_from_slice(b"event: ");
            out.extend_from_slice(name.in_stream().as_bytes());
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

/// Appends a comment of `text/event-stream`, which keeps a quiet stream open. It is no block, as a
/// blank line would end: some clients take a block without data for an event.
pub(in crate::fanout) fn put_comment(out: &mut Vec<u8>) {
    out.extend_from_slice(b": keepalive\n");
}

/// Appends a JSON string.
pub(in crate::fanout) fn put_json_text(out: &mut Vec<u8>, text: &str) {
    let quoted = serde_json::to_string(text).expect("text is always JSON");
    put_json(out, &quoted);
}

/// Appends a member of an object whose value is text, and a comma.
pub(super) fn put_field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    put_json_text(out, value);
    out.push(b',');
}

/// Appends JSON without any line break.
///
/// LF and CR stand between tokens only and become spaces. U+2028, U+2029 and U+0085 stand in
/// strings only and become escapes: some clients split lines there.
pub(in crate::fanout) fn put_json(out: &mut Vec<u8>, json: &str) {
    let mut rest = json.as_bytes();
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r' | 0xc2 | 0xe2)) {
        out.extend_from_slice(&rest[..at]);
        let (len, written): (usize, &[u8]) = match &rest[at..] {
            [b'\n' | b'\r', ..] => (1, b" "),
            [0xc2, 0x85, ..] => (2, b"\\u0085"),
            [0xe2, 0x80, 0xa8, ..] => (3, b"\\u2028"),
            [0xe2, 0x80, 0xa9, ..] => (3, b"\\u2029"),
            other => (1, &other[..1]),
        };
        out.extend_from_slice(written);
        rest = &rest[at + len..];
    }
    out.extend_from_slice(rest);
}

/// Appends text with what ends a line somewhere replaced by spaces.
pub(super) fn put_one_line(out: &mut Vec<u8>, text: &str) {
    for part in
        text.split_inclusive(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'))
    {
        let plain =
            part.trim_end_matches(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'));
        out.extend_from_slice(plain.as_bytes());
        if plain.len() < part.len() {
            out.push(b' ');
        }
    }
}
