//! Reads WebSocket frames of a client with tungstenite, and encodes the few the server side adds.
//!
//! What tungstenite writes (pongs, the answer to a close) goes into the connection's outgoing
//! buffer, so its frames never mix with those of the shard, which are encoded elsewhere.
//!
//! Between messages a connection keeps no decoder: [`FrameBoundary`] follows the frame boundaries
//! of RFC 6455 §5.2, and after a complete message the decoder and its buffers are dropped. So idle
//! connections, which are nearly all of them, use no memory here.
//!
//! A violation of the protocol becomes a close reason. Messages are never interpreted here.

use std::io::{self, ErrorKind, Read, Write};

use tidewire_engine::fanout::protocol::native::CloseReason;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

/// The decoder's read size. Clients send short requests.
const READ_BYTES: usize = 1_024;

/// The masking key before a client's payload (RFC 6455 §5.2).
const MASK_BYTES: u8 = 4;

/// Input from a client.
#[derive(Debug, PartialEq, Eq)]
pub enum WebSocketInput {
    /// A whole text message.
    Text(Utf8Bytes),
    /// A ping or a pong; the answer to a ping is in the outgoing buffer.
    PingPong,
    /// Nothing more can be read now.
    WouldBlock,
    /// A whole binary message, which the native protocol does not have.
    Binary,
    /// The client closed; the answer is in the outgoing buffer.
    Closed,
    /// The client violated RFC 6455 or a limit: close with this reason.
    Violation(CloseReason),
    /// The connection is gone.
    Disconnected,
}

/// Reads the frames of one client.
#[derive(Debug, Default)]
pub struct WebSocketReader {
    decoder: Option<Box<WebSocketContext>>,
    boundary: FrameBoundary,
}

impl WebSocketReader {
    /// Starts with the bytes the client sent after its handshake.
    pub fn with_read_ahead(bytes: &[u8], message_max_bytes: usize) -> Self {
        let mut reader = Self::default();
        if !bytes.is_empty() {
            reader.boundary.advance(bytes);
            let settings = settings(message_max_bytes);
            let decoder =
                WebSocketContext::from_partially_read(bytes.to_vec(), Role::Server, Some(settings));
            reader.decoder = Some(Box::new(decoder));
        }
        reader
    }

    /// Whether a decoder is kept, because a message is incomplete.
    pub fn is_mid_message(&self) -> bool {
        self.decoder.is_some()
    }

    /// The next input. Answers of the protocol itself are appended to `out`.
    pub fn read_next(
        &mut self,
        from: impl Read,
        out: &mut Vec<u8>,
        message_max_bytes: usize,
    ) -> WebSocketInput {
        let decoder = self.decoder.get_or_insert_with(|| {
            Box::new(WebSocketContext::new(Role::Server, Some(settings(message_max_bytes))))
        });
        let mut tungstenite_io = TungsteniteIo { from, out, boundary: &mut self.boundary };
        match decoder.read(&mut tungstenite_io) {
            Ok(Message::Text(text)) => WebSocketInput::Text(text),
            Ok(Message::Binary(_)) => WebSocketInput::Binary,
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => WebSocketInput::PingPong,
            Ok(Message::Close(_)) => {
                // Writes the answer. The error it returns only says that the connection ends.
                let _ = decoder.flush(&mut tungstenite_io);
                WebSocketInput::Closed
            }
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                if self.boundary.is_between_messages() {
                    self.decoder = None;
                }
                WebSocketInput::WouldBlock
            }
            Err(error) => input_of_error(&error),
        }
    }
}

fn settings(message_max_bytes: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(message_max_bytes))
        .max_frame_size(Some(message_max_bytes))
}

/// The close reason for an error of tungstenite (codes: RFC 6455 §7.4.1).
fn input_of_error(error: &Error) -> WebSocketInput {
    use tokio_tungstenite::tungstenite::error::ProtocolError;
    match error {
        Error::Capacity(_) => WebSocketInput::Violation(CloseReason::TooLarge),
        Error::Utf8(_) => WebSocketInput::Violation(CloseReason::InvalidUtf8),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            WebSocketInput::Disconnected
        }
        Error::Protocol(_) => WebSocketInput::Violation(CloseReason::InvalidFrame),
        _ => WebSocketInput::Disconnected,
    }
}

/// The stream that tungstenite reads from and writes to.
struct TungsteniteIo<'a, R> {
    from: R,
    out: &'a mut Vec<u8>,
    boundary: &'a mut FrameBoundary,
}

impl<R: Read> Read for TungsteniteIo<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(into)?;
        self.boundary.advance(&into[..read]);
        Ok(read)
    }
}

impl<R> Write for TungsteniteIo<'_, R> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Appends an unmasked control frame (RFC 6455 §5.5). A longer payload is cut to 125 bytes.
fn put_control(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    let payload = &payload[..payload.len().min(125)];
    out.extend_from_slice(&[0x80 | opcode, payload.len() as u8]);
    out.extend_from_slice(payload);
}

/// Appends a text frame. Only for the frames that this side adds; the shard encodes all others.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    out.push(0x81);
    match text.len() {
        short @ 0..=125 => out.push(short as u8),
        long @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(long as u16).to_be_bytes());
        }
        huge => {
            out.push(127);
            out.extend_from_slice(&(huge as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(text.as_bytes());
}

/// Appends a close frame.
pub fn put_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let mut payload = code.to_be_bytes().to_vec();
    // A reason that is cut to fit must stay UTF-8.
    let cut = (0..=reason.len().min(123)).rev().find(|at| reason.is_char_boundary(*at));
    let cut = cut.unwrap_or(0);
    payload.extend_from_slice(&reason.as_bytes()[..cut]);
    put_control(out, 0x8, &payload);
}

/// Where the bytes read so far end in the structure of frames.
#[derive(Clone, Copy, Debug, Default)]
struct FrameBoundary {
    part: FramePart,
    /// A fragmented message has begun and its last frame is missing.
    unfinished: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum FramePart {
    #[default]
    First,
    Second,
    Length {
        left: u8,
        value: u64,
        mask_bytes: u8,
    },
    Mask {
        left: u8,
        payload: u64,
    },
    Payload(u64),
}

impl FrameBoundary {
    /// Whether the bytes so far are whole messages.
    fn is_between_messages(&self) -> bool {
        self.part == FramePart::First && !self.unfinished
    }

    fn advance(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            if let FramePart::Payload(left) = self.part {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                bytes = &bytes[taken..];
                self.part = payload(left - taken as u64);
                continue;
            }
            self.part = self.step(byte);
            bytes = rest;
        }
    }

    fn step(&mut self, byte: u8) -> FramePart {
        match self.part {
            FramePart::First => {
                // Control frames (opcodes from 8) may come between the frames of a message.
                if byte & 0x08 == 0 {
                    self.unfinished = byte & 0x80 == 0;
                }
                FramePart::Second
            }
            FramePart::Second => {
                let mask_bytes = if byte & 0x80 != 0 { MASK_BYTES } else { 0 };
                match byte & 0x7f {
                    126 => FramePart::Length { left: 2, value: 0, mask_bytes },
                    127 => FramePart::Length { left: 8, value: 0, mask_bytes },
                    short => after_length(u64::from(short), mask_bytes),
                }
            }
            FramePart::Length { left, value, mask_bytes } => {
                let value = value << 8 | u64::from(byte);
                match left {
                    1 => after_length(value, mask_bytes),
                    _ => FramePart::Length { left: left - 1, value, mask_bytes },
                }
            }
            FramePart::Mask { left: 1, payload: len } => payload(len),
            FramePart::Mask { left, payload } => FramePart::Mask { left: left - 1, payload },
            FramePart::Payload(left) => payload(left - 1),
        }
    }
}

fn after_length(len: u64, mask_bytes: u8) -> FramePart {
    match mask_bytes {
        0 => payload(len),
        left => FramePart::Mask { left, payload: len },
    }
}

fn payload(left: u64) -> FramePart {
    if left == 0 { FramePart::First } else { FramePart::Payload(left) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A masked client frame.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut out = vec![first];
        match payload.len() {
            len @ 0..=125 => out.push(0x80 | len as u8),
            len @ 126..=0xffff => {
                out.push(0x80 | 126);
                out.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                out.push(0x80 | 127);
                out.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(&mask);
        out.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]));
        out
    }

    /// Reads piece by piece; would block between the pieces and at the end.
    struct Pieces<'a>(Vec<&'a [u8]>);

    impl Read for Pieces<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let Some(first) = self.0.first_mut() else { return Err(ErrorKind::WouldBlock.into()) };
            if first.is_empty() {
                self.0.remove(0);
                return Err(ErrorKind::WouldBlock.into());
            }
            let taken = first.len().min(into.len());
            into[..taken].copy_from_slice(&first[..taken]);
            *first = &first[taken..];
            Ok(taken)
        }
    }

    fn read_all(pieces: &[&[u8]]) -> (Vec<WebSocketInput>, Vec<u8>, WebSocketReader) {
        let mut from = Pieces(pieces.to_vec());
        let (mut inputs, mut out, mut reader) =
            (Vec::new(), Vec::new(), WebSocketReader::default());
        loop {
            let empty = from.0.is_empty();
            match reader.read_next(&mut from, &mut out, 65_536) {
                WebSocketInput::WouldBlock if empty => break,
                WebSocketInput::WouldBlock => {}
                end @ (WebSocketInput::Closed
                | WebSocketInput::Violation(..)
                | WebSocketInput::Disconnected) => {
                    inputs.push(end);
                    break;
                }
                other => inputs.push(other),
            }
        }
        (inputs, out, reader)
    }

    fn check(bytes: &[u8], expected: &[WebSocketInput]) {
        assert_eq!(read_all(&[bytes]).0, expected);
    }

    #[test]
    fn a_ping_inside_a_fragmented_message_is_answered_and_the_message_completes() {
        let bytes = [frame(0x01, b"he"), frame(0x89, b"?"), frame(0x80, b"llo")].concat();
        let (inputs, out, reader) = read_all(&[&bytes]);
        assert_eq!(inputs, [WebSocketInput::PingPong, WebSocketInput::Text("hello".into())]);
        assert_eq!(out, [0x8a, 1, b'?']);
        assert!(!reader.is_mid_message(), "a decoder is kept between messages");
    }

    #[test]
    fn a_violation_of_rfc_6455_has_its_close_reason() {
        check(&frame(0x81, &[0xff]), &[WebSocketInput::Violation(CloseReason::InvalidUtf8)]);
        let not_a_frame = [WebSocketInput::Violation(CloseReason::InvalidFrame)];
        check(&[0x81, 0x01, b'x'], &not_a_frame);
        check(&frame(0xc1, b"x"), &not_a_frame);
        check(&frame(0x83, b"x"), &not_a_frame);
        check(&frame(0x80, b"x"), &not_a_frame);
        check(&frame(0x09, b"x"), &not_a_frame);
        check(&frame(0x89, &[0; 126]), &not_a_frame);
        let too_large = [WebSocketInput::Violation(CloseReason::TooLarge)];
        check(&frame(0x81, &[b'x'; 65_537]), &too_large);
        let halves = [frame(0x01, &[b'x'; 40_000]), frame(0x80, &[b'x'; 40_000])].concat();
        check(&halves, &too_large);
    }

    #[test]
    fn the_largest_message_binary_and_close_are_read() {
        let text = "x".repeat(65_536);
        check(&frame(0x81, text.as_bytes()), &[WebSocketInput::Text(text.as_str().into())]);
        check(&frame(0x82, b"x"), &[WebSocketInput::Binary]);
        let (inputs, out, _) = read_all(&[&frame(0x88, &[0x03, 0xe8])]);
        assert_eq!(inputs, [WebSocketInput::Closed]);
        assert_eq!(out, [0x88, 2, 0x03, 0xe8], "the close is echoed");
    }

    #[test]
    fn bytes_read_before_the_takeover_come_first() {
        let bytes = [frame(0x81, b"one"), frame(0x81, b"two")].concat();
        let (ahead, rest) = bytes.split_at(12);
        let mut reader = WebSocketReader::with_read_ahead(ahead, 65_536);
        let (mut from, mut out) = (Pieces(vec![rest]), Vec::new());
        assert_eq!(
            reader.read_next(&mut from, &mut out, 65_536),
            WebSocketInput::Text("one".into())
        );
        assert_eq!(
            reader.read_next(&mut from, &mut out, 65_536),
            WebSocketInput::Text("two".into())
        );
    }

    #[test]
    fn a_close_reason_is_cut_at_a_character_boundary() {
        let mut out = Vec::new();
        put_close(&mut out, 4008, &"é".repeat(100));
        assert_eq!(out[1], 124);
        assert!(std::str::from_utf8(&out[4..]).is_ok());
    }

    proptest! {
        #[test]
        fn no_decoder_is_kept_after_whole_messages_however_they_are_split(
            sizes in proptest::collection::vec(0usize..1_500, 1..6),
            cuts in proptest::collection::vec(0usize..8_000, 0..12),
        ) {
            let bytes: Vec<u8> =
                sizes.iter().flat_map(|size| frame(0x81, &vec![b'a'; *size])).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut pieces: Vec<&[u8]> = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([bytes.len()]) {
                pieces.push(&bytes[from..cut]);
                from = cut;
            }
            let (inputs, _, reader) = read_all(&pieces);
            prop_assert_eq!(inputs.len(), sizes.len());
            prop_assert!(!reader.is_mid_message());
        }
    }
}
