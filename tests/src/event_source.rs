//! A minimal `EventSource`: parses server-sent events as WHATWG HTML §9.2 says.
//!
//! Bytes are parsed as they arrive, so a cut may fall anywhere. As in a browser, an `id:` takes
//! effect only at the blank line after it, and a message without data fires no event but still
//! updates the id, which the next connection sends as `Last-Event-ID`.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::cut_stream::{CutStream, is_timeout};
use crate::http::{ResponseHead, read_chunk};
use crate::received_event::ReceivedEvent;

/// How long the response headers may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Bytes read from the socket at a time.
const READ_BYTES: usize = 16 << 10;

/// One message as it would be dispatched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SseMessage {
    /// The last id seen when it was dispatched.
    pub id: String,
    /// `event:` or `message`.
    pub event: String,
    /// `data:` lines joined by newlines.
    pub data: String,
}

/// One open stream.
#[derive(Debug)]
pub struct EventSource {
    stream: CutStream,
    chunked: bool,
    raw: Vec<u8>,
    parser: Parser,
}

impl EventSource {
    /// Opens `path` (with its query), resuming after `last_event_id` if given; `bytes_left` as in
    /// [`CutStream`].
    pub fn open(
        addr: SocketAddr,
        path: &str,
        last_event_id: Option<&str>,
        bytes_left: Option<usize>,
    ) -> io::Result<Self> {
        let mut stream = CutStream::connect(addr, bytes_left)?;
        let resume = last_event_id.map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"));
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {addr}\r\nAccept: text/event-stream\r\n{resume}\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let mut raw = Vec::new();
        let deadline = Instant::now() + ANSWER_LIMIT;
        let head_end = loop {
            if let Some(at) = raw.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if read_some(&mut stream, &mut raw)? == 0 && Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
        };
        let head = ResponseHead::read(&mut &raw[..head_end])?;
        raw.drain(..head_end);
        let kind = head.header("content-type").unwrap_or_default();
        if head.status != 200 || !kind.starts_with("text/event-stream") {
            let body = String::from_utf8_lossy(&raw);
            return Err(io::Error::other(format!("{} {kind} {body}", head.status)));
        }
        let parser = Parser { id: last_event_id.unwrap_or_default().to_owned(), text: Vec::new() };
        Ok(Self { stream, chunked: head.is_chunked(), raw, parser })
    }

    /// The `Last-Event-ID` that resumes after this stream; empty before the first id.
    pub fn last_event_id(&self) -> &str {
        &self.parser.id
    }

    /// The next message, or `None` if none came in time.
    pub fn next_message(&mut self, limit: Duration) -> io::Result<Option<SseMessage>> {
        let deadline = Instant::now() + limit;
        loop {
            self.decode()?;
            if let Some(message) = self.parser.next() {
                return Ok(Some(message));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            read_some(&mut self.stream, &mut self.raw)?;
        }
    }

    /// The next message that carries an event of a channel; others are skipped.
    pub fn next_event(&mut self, limit: Duration) -> io::Result<Option<ReceivedEvent>> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.next_message(left)? {
                Some(message) if message.data.contains("\"event_id\"") => {
                    return Ok(Some(ReceivedEvent::parse(&message.data, Some(&message.id))));
                }
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// Passes complete chunks of the transfer coding to the parser.
    fn decode(&mut self) -> io::Result<()> {
        if !self.chunked {
            self.parser.text.append(&mut self.raw);
            return Ok(());
        }
        loop {
            let mut rest = self.raw.as_slice();
            let whole_bytes = self.parser.text.len();
            match read_chunk(&mut rest, &mut self.parser.text) {
                Ok(true) => {
                    let used = self.raw.len() - rest.len();
                    self.raw.drain(..used);
                }
                Ok(false) => return Err(ended()),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.parser.text.truncate(whole_bytes);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Reads once; 0 means that nothing came within the time-out; the end of the stream is an error.
fn read_some(stream: &mut CutStream, raw: &mut Vec<u8>) -> io::Result<usize> {
    let mut buffer = [0; READ_BYTES];
    match stream.read(&mut buffer) {
        Ok(0) => Err(ended()),
        Ok(count) => {
            raw.extend_from_slice(&buffer[..count]);
            Ok(count)
        }
        Err(error) if is_timeout(&error) => Ok(0),
        Err(error) => Err(error),
    }
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server ended the stream")
}

/// Lines in, messages out.
#[derive(Debug, Default)]
struct Parser {
    id: String,
    text: Vec<u8>,
}

impl Parser {
    fn next(&mut self) -> Option<SseMessage> {
        while let Some(end) = self.text.windows(2).position(|window| window == b"\n\n") {
            let block: Vec<u8> = self.text.drain(..end + 2).collect();
            let block = String::from_utf8(block).expect("an event stream is UTF-8");
            if let Some(message) = self.fire(&block) {
                return Some(message);
            }
        }
        None
    }

    fn fire(&mut self, block: &str) -> Option<SseMessage> {
        let mut event = "message";
        let mut data: Option<String> = None;
        for line in block.lines() {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => value.clone_into(&mut self.id),
                "event" => event = value,
                "data" => match &mut data {
                    Some(data) => {
                        data.push('\n');
                        data.push_str(value);
                    }
                    None => data = Some(value.to_owned()),
                },
                _ => {}
            }
        }
        let data = data?;
        Some(SseMessage { id: self.id.clone(), event: event.to_owned(), data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_fire_on_the_blank_line_and_an_id_alone_sets_the_last_event_id() {
        let mut parser = Parser::default();
        let stream =
            ": hello\n\nid: 1\nevent: a\ndata: x\ndata: y\n\nid: 2\n\ndata:z\n\nid: 3\ndata: ";
        parser.text.extend_from_slice(stream.as_bytes());
        let message = |id: &str, event: &str, data: &str| {
            Some(SseMessage { id: id.into(), event: event.into(), data: data.into() })
        };
        assert_eq!(parser.next(), message("1", "a", "x\ny"));
        assert_eq!(parser.next(), message("2", "message", "z"));
        assert_eq!(parser.next(), None);
        assert_eq!(parser.id, "2", "the third message never ended");
    }
}
