//! Decodes the WebSocket frames of a client (RFC 6455 §5) from the bytes that have arrived.
//!
//! It reads no socket. The event loop gives it a bounded number of bytes per turn, and a frame
//! takes at least six, so the work of a turn is bounded whatever the frames are: empty, tiny or
//! fragmented.
//!
//! Between messages a connection keeps no buffer. Memory is allocated for bytes that have arrived,
//! never for a length that a header announces. A frame that RFC 6455 forbids, or a message over a
//! limit, is reported as soon as its header shows it, and nothing is decoded after it.

use tidewire_engine::fanout::config::{CLIENT_FRAME_MAX_BYTES, CLIENT_MESSAGE_MAX_FRAMES};
use tidewire_engine::fanout::protocol::native::CloseReason;

/// Bytes of the longest header: two, the extended length, and the masking key.
const HEADER_MAX_BYTES: usize = 14;

/// Bytes of a control frame's payload (RFC 6455 §5.5).
const CONTROL_MAX_BYTES: usize = 125;

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientInput {
    /// A whole text message.
    Text(String),
    /// The beginning of a binary message, which the native protocol does not have.
    Binary,
    /// A ping, with the payload of the pong that answers it.
    Ping(Vec<u8>),
    /// A pong.
    Pong,
    /// A close frame, with the payload of the close frame that answers it.
    Close(Vec<u8>),
    /// A violation of RFC 6455 or of a limit: close with this reason.
    Violation(CloseReason),
}

/// Decodes the frames of one client.
#[derive(Debug, Default)]
pub struct FrameDecoder(Option<Box<Unfinished>>);

/// What is kept while a frame or a message is incomplete.
#[derive(Debug, Default)]
struct Unfinished {
    header: [u8; HEADER_MAX_BYTES],
    header_len: usize,
    frame: Option<Frame>,
    /// Payload of an incomplete control frame.
    control: Vec<u8>,
    /// Payload of the frames of an incomplete text message.
    message: Option<PartialMessage>,
}

#[derive(Debug, Default)]
struct PartialMessage {
    bytes: Vec<u8>,
    frames: usize,
}

/// A frame whose header is complete.
#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: u8,
    is_final: bool,
    mask: [u8; 4],
    /// Bytes of its payload that are decoded.
    done: usize,
    len: usize,
}

mod opcode {
    pub(super) const CONTINUATION: u8 = 0x0;
    pub(super) const TEXT: u8 = 0x1;
    pub(super) const BINARY: u8 = 0x2;
    pub(super) const CLOSE: u8 = 0x8;
    pub(super) const PING: u8 = 0x9;
    pub(super) const PONG: u8 = 0xa;
}

impl FrameDecoder {
    /// Whether the bytes so far end within a frame or a message.
    pub fn is_mid_message(&self) -> bool {
        self.0.is_some()
    }

    /// Bytes of payload kept.
    pub fn buffered_bytes(&self) -> usize {
        let message = |kept: &Unfinished| kept.message.as_ref().map_or(0, |m| m.bytes.capacity());
        self.0.as_ref().map_or(0, |kept| kept.control.capacity() + message(kept))
    }

    /// The next input in `bytes`, which are consumed up to its end. `None` once all are consumed.
    /// After [`ClientInput::Close`], [`ClientInput::Binary`] and [`ClientInput::Violation`] the
    /// rest means nothing.
    pub fn decode(&mut self, bytes: &mut &[u8]) -> Option<ClientInput> {
        let mut state = self.0.take().map(|kept| *kept).unwrap_or_default();
        let input = state.decode(bytes);
        if state.header_len > 0 || state.frame.is_some() || state.message.is_some() {
            self.0 = Some(Box::new(state));
        }
        input
    }
}

impl Unfinished {
    fn decode(&mut self, bytes: &mut &[u8]) -> Option<ClientInput> {
        loop {
            let frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.read_header(bytes)? {
                    Ok(frame) => frame,
                    Err(end) => return Some(end),
                },
            };
            if let Some(input) = self.read_payload(frame, bytes) {
                return Some(input);
            }
            if self.frame.is_some() {
                return None;
            }
        }
    }

    /// Completes the header; `None` if bytes are missing, `Err` if it ends the connection.
    fn read_header(&mut self, bytes: &mut &[u8]) -> Option<Result<Frame, ClientInput>> {
        loop {
            let needed = self.header_bytes();
            while self.header_len < needed {
                let (&byte, rest) = bytes.split_first()?;
                self.header[self.header_len] = byte;
                self.header_len += 1;
                *bytes = rest;
                if self.header_len == 2
                    && let Err(end) = self.check_beginning()
                {
                    return Some(Err(end));
                }
            }
            if self.header_bytes() == needed {
                break;
            }
        }
        let frame = self.frame_of_header();
        self.header_len = 0;
        Some(frame)
    }

    /// Bytes of the header, as far as they are known: all of them from the second byte on.
    fn header_bytes(&self) -> usize {
        match self.header[1] & 0x7f {
            _ if self.header_len < 2 => 2,
            126 => 2 + 2 + 4,
            127 => 2 + 8 + 4,
            _ => 2 + 4,
        }
    }

    /// Checks what the first two bytes show.
    fn check_beginning(&self) -> Result<(), ClientInput> {
        let [first, second, ..] = self.header;
        let is_final = first & 0x80 != 0;
        let is_known = match first & 0x0f {
            opcode::TEXT | opcode::BINARY => self.message.is_none(),
            opcode::CONTINUATION => self.message.is_some(),
            opcode::CLOSE | opcode::PING | opcode::PONG => {
                is_final && usize::from(second & 0x7f) <= CONTROL_MAX_BYTES
            }
            _ => false,
        };
        let is_masked = second & 0x80 != 0;
        let uses_extension = first & 0x70 != 0;
        match is_known && is_masked && !uses_extension {
            true if first & 0x0f == opcode::BINARY => Err(ClientInput::Binary),
            true => Ok(()),
            false => Err(ClientInput::Violation(CloseReason::InvalidFrame)),
        }
    }

    fn frame_of_header(&mut self) -> Result<Frame, ClientInput> {
        let [first, second, rest @ ..] = self.header;
        let (len, shortest, mask) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes([rest[0], rest[1]])), 126, 2),
            127 => {
                let (len, _) = rest.split_first_chunk().expect("a header has room for a length");
                (u64::from_be_bytes(*len), 65_536, 8)
            }
            short => (u64::from(short), 0, 0),
        };
        if len < shortest {
            return Err(ClientInput::Violation(CloseReason::InvalidFrame));
        }
        let mask = [rest[mask], rest[mask + 1], rest[mask + 2], rest[mask + 3]];
        let too_large = ClientInput::Violation(CloseReason::TooLarge);
        let Ok(len) = usize::try_from(len) else { return Err(too_large) };
        let opcode = first & 0x0f;
        if opcode < opcode::CLOSE {
            let message = self.message.get_or_insert_default();
            message.frames += 1;
            if message.bytes.len().saturating_add(len) > CLIENT_FRAME_MAX_BYTES
                || message.frames > CLIENT_MESSAGE_MAX_FRAMES
            {
                return Err(too_large);
            }
        }
        Ok(Frame { opcode, is_final: first & 0x80 != 0, mask, done: 0, len })
    }

    /// Decodes what has arrived of a frame's payload. An incomplete frame is kept.
    fn read_payload(&mut self, mut frame: Frame, bytes: &mut &[u8]) -> Option<ClientInput> {
        let (now, rest) = bytes.split_at(bytes.len().min(frame.len - frame.done));
        let kept = match frame.opcode {
            opcode::CLOSE.. => &mut self.control,
            _ => &mut self.message.get_or_insert_default().bytes,
        };
        let key = frame.mask.into_iter().cycle().skip(frame.done % 4);
        kept.extend(now.iter().zip(key).map(|(byte, key)| byte ^ key));
        *bytes = rest;
        frame.done += now.len();
        if frame.done < frame.len {
            self.frame = Some(frame);
            return None;
        }
        match frame.opcode {
            opcode::CLOSE => Some(close(std::mem::take(&mut self.control))),
            opcode::PING => Some(ClientInput::Ping(std::mem::take(&mut self.control))),
            opcode::PONG => {
                self.control = Vec::new();
                Some(ClientInput::Pong)
            }
            _ if frame.is_final => {
                let message = self.message.take().unwrap_or_default();
                Some(match String::from_utf8(message.bytes) {
                    Ok(text) => ClientInput::Text(text),
                    Err(_) => ClientInput::Violation(CloseReason::InvalidUtf8),
                })
            }
            _ => None,
        }
    }
}

/// Checks a close frame (RFC 6455 §5.5.1 and §7.4); its answer repeats it.
fn close(payload: Vec<u8>) -> ClientInput {
    let invalid = ClientInput::Violation(CloseReason::InvalidFrame);
    match payload.split_first_chunk() {
        None if payload.is_empty() => ClientInput::Close(payload),
        None => invalid,
        Some((code, text)) => match u16::from_be_bytes(*code) {
            1000..=1003 | 1007..=1014 | 3000..=4999 => match std::str::from_utf8(text) {
                Ok(_) => ClientInput::Close(payload),
                Err(_) => ClientInput::Violation(CloseReason::InvalidUtf8),
            },
            _ => invalid,
        },
    }
}

#[cfg(test)]
#[path = "frame_decoder_tests.rs"]
mod tests;
