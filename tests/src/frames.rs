//! Splits a byte stream into WebSocket frames of a server (RFC 6455 §5.2).
//!
//! Bytes go in as they arrive and whole frames come out; an unfinished frame is kept. Server frames
//! carry no mask, and the benchmarks expect neither fragmentation nor compression, so these are
//! errors.

use std::io;

/// The kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A whole text message.
    Text,
    /// A whole binary message.
    Binary,
    /// A close frame with the server's reason.
    Close,
    /// A ping of the server.
    Ping,
    /// The pong to our ping.
    Pong,
}

/// One frame: its kind, its payload, and its whole length on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParsedFrame<'a> {
    /// Kind of frame.
    pub kind: FrameKind,
    /// What it carries.
    pub payload: &'a [u8],
    /// Header and payload, in bytes.
    pub wire_bytes: usize,
}

/// Splits a stream into frames; buffers at most one unfinished frame and what arrived with it.
#[derive(Debug, Default)]
pub struct FrameSplitter {
    rest: Vec<u8>,
}

impl FrameSplitter {
    /// Adds bytes and calls `each` with every frame that is now complete.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(ParsedFrame<'_>)) -> io::Result<()> {
        if self.rest.is_empty() {
            let used = split(bytes, &mut each)?;
            self.rest.extend_from_slice(&bytes[used..]);
        } else {
            self.rest.extend_from_slice(bytes);
            let used = split(&self.rest, &mut each)?;
            self.rest.drain(..used);
        }
        if self.rest.is_empty() {
            // Ten thousand idle connections must not hold ten thousand buffers.
            self.rest = Vec::new();
        }
        Ok(())
    }

    /// Whether no unfinished frame is buffered.
    pub fn at_boundary(&self) -> bool {
        self.rest.is_empty()
    }
}

/// Calls `each` with every whole frame and returns how many bytes they took.
fn split(bytes: &[u8], each: &mut impl FnMut(ParsedFrame<'_>)) -> io::Result<usize> {
    let mut used = 0;
    while let Some(frame) = parse(&bytes[used..])? {
        each(frame);
        used += frame.wire_bytes;
    }
    Ok(used)
}

fn parse(bytes: &[u8]) -> io::Result<Option<ParsedFrame<'_>>> {
    let &[first, second, ..] = bytes else { return Ok(None) };
    let kind = match first {
        0x81 => FrameKind::Text,
        0x82 => FrameKind::Binary,
        0x88 => FrameKind::Close,
        0x89 => FrameKind::Ping,
        0x8A => FrameKind::Pong,
        other => return Err(invalid(format!("first frame byte {other:#04x}"))),
    };
    let (header, length): (usize, usize) = match second {
        0..=125 => (2, usize::from(second)),
        126 => match bytes.get(2..4) {
            Some(length) => (4, usize::from(u16::from_be_bytes([length[0], length[1]]))),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|length| <[u8; 8]>::try_from(length).ok()) {
            Some(length) => (10, usize::try_from(u64::from_be_bytes(length)).map_err(invalid)?),
            None => return Ok(None),
        },
        _ => return Err(invalid("a masked frame from a server")),
    };
    let payload = bytes.get(header..header.saturating_add(length));
    Ok(payload.map(|payload| ParsedFrame { kind, payload, wire_bytes: header + length }))
}

fn invalid(why: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}

/// A client's text frame. The mask is zero: masking protects proxies from scripts, which no test
/// needs.
pub fn client_text(text: &str) -> Vec<u8> {
    client_frame(0x81, text.as_bytes())
}

/// A client's pong, which servers accept as a sign of life even without a ping.
pub fn client_pong() -> Vec<u8> {
    client_frame(0x8A, &[])
}

fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a test's frame is below 64 KiB");
    let mut frame = vec![first];
    match length {
        0..=125 => frame.push(0x80 | length as u8),
        _ => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_frame(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x81];
        match payload.len() {
            0..=125 => frame.push(payload.len() as u8),
            126..=65_535 => {
                frame.push(126);
                frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
            }
            _ => {
                frame.push(127);
                frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn frames_are_whole_however_the_bytes_arrive() {
        let payloads = [vec![], vec![7; 125], vec![8; 126], vec![9; 65_536], vec![1; 3]];
        let stream: Vec<u8> = payloads.iter().flat_map(|payload| server_frame(payload)).collect();
        for step in [1, 2, 3, 7, 130, 4_096, stream.len()] {
            let mut splitter = FrameSplitter::default();
            let mut seen = Vec::new();
            let mut wire_bytes = 0;
            for chunk in stream.chunks(step) {
                let take = |frame: ParsedFrame<'_>| {
                    wire_bytes += frame.wire_bytes;
                    seen.push(frame.payload.to_vec());
                };
                splitter.feed(chunk, take).unwrap();
            }
            assert_eq!(seen, payloads, "step {step}");
            assert_eq!(wire_bytes, stream.len());
            assert!(splitter.at_boundary());
        }
    }

    #[test]
    fn a_masked_or_fragmented_frame_is_an_error() {
        for bytes in [[0x81, 0x85], [0x01, 0x05]] {
            assert!(FrameSplitter::default().feed(&bytes, |_| {}).is_err());
        }
    }
}
