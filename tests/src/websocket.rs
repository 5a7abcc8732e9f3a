//! A subscriber of the native protocol that keeps one position per channel.
//!
//! It may be given a number of bytes after which it is cut, in the middle of a frame.
//! [`WebSocketClient::positions`] is all that survives, and all that a new connection needs.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{self, HandshakeError, Message, WebSocket};

use crate::cut_stream::{CutStream, is_timeout};
use crate::received_event::ReceivedEvent;

/// How long the reply to an operation may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Why a connection can't continue.
#[derive(Debug)]
pub enum ClientError {
    /// The transport ended: cut, killed or closed. The positions stay valid.
    Cut(String),
    /// The server refused an operation, with this frame.
    Refused(Value),
}

/// One connection with its subscriptions.
#[derive(Debug)]
pub struct WebSocketClient {
    socket: WebSocket<CutStream>,
    positions: BTreeMap<String, String>,
    waiting: VecDeque<ReceivedEvent>,
    gaps: Vec<Value>,
    next_id: u64,
}

impl WebSocketClient {
    /// Connects as `user`, reading at most `bytes_left` bytes before the cut, if any.
    pub fn connect(
        addr: SocketAddr,
        user: &str,
        bytes_left: Option<usize>,
    ) -> Result<Self, ClientError> {
        let stream = CutStream::connect(addr, bytes_left)?;
        let mut attempt = tungstenite::client(format!("ws://{addr}/v1/ws?user={user}"), stream);
        let deadline = Instant::now() + ANSWER_LIMIT;
        let socket = loop {
            match attempt {
                Ok((socket, _)) => break socket,
                Err(HandshakeError::Interrupted(halfway)) if Instant::now() < deadline => {
                    attempt = halfway.handshake();
                }
                Err(error) => return Err(ClientError::Cut(error.to_string())),
            }
        };
        Ok(Self {
            socket,
            positions: BTreeMap::new(),
            waiting: VecDeque::new(),
            gaps: Vec::new(),
            next_id: 1,
        })
    }

    /// Subscribes from `latest`, `earliest`, a position or a time, and waits for the server's `ok`.
    pub fn subscribe(&mut self, channel: &str, from: &str) -> Result<(), ClientError> {
        let id = self.next_id;
        self.next_id += 1;
        let request = json!({"op": "subscribe", "id": id, "channel": channel, "from": from});
        self.send(&request)?;
        let deadline = Instant::now() + ANSWER_LIMIT;
        while Instant::now() < deadline {
            let Some(frame) = self.read_frame()? else { continue };
            match (frame["op"].as_str(), frame["id"].as_u64()) {
                (Some("ok"), Some(answered)) if answered == id => {
                    let position = frame["position"].as_str().unwrap_or(from);
                    // Events may arrive before the reply; their position is the later one.
                    self.positions.entry(channel.to_owned()).or_insert(position.to_owned());
                    return Ok(());
                }
                (Some("error"), _) => return Err(ClientError::Refused(frame)),
                _ => {}
            }
        }
        Err(ClientError::Cut(format!("no answer to {request} in {ANSWER_LIMIT:?}")))
    }

    /// Sends any frame of the protocol.
    pub fn send(&mut self, frame: &Value) -> Result<(), ClientError> {
        Ok(self.socket.send(Message::text(frame.to_string()))?)
    }

    /// The next event, or `None` if none came in time.
    pub fn next_event(&mut self, limit: Duration) -> Result<Option<ReceivedEvent>, ClientError> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(Some(event));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            self.read_frame()?;
        }
    }

    /// An event that was read while waiting for something else; never reads.
    pub fn pop_waiting(&mut self) -> Option<ReceivedEvent> {
        self.waiting.pop_front()
    }

    /// The next frame that is not an event, such as `welcome` or `error`, or `None` if none came in
    /// time.
    pub fn next_control(&mut self, limit: Duration) -> Result<Option<Value>, ClientError> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(frame) = self.read_frame()? {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// The next frame of any kind as it came, or `None` if none came in time.
    pub fn next_frame(&mut self, limit: Duration) -> Result<Option<Value>, ClientError> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(text) = self.read_text()? {
                return Ok(Some(parse_frame(&text)));
            }
        }
        Ok(None)
    }

    /// Where each channel resumes: the position of its last whole event.
    pub fn positions(&self) -> &BTreeMap<String, String> {
        &self.positions
    }

    /// The `gap` frames seen: history that the server reported as gone.
    pub fn gaps(&self) -> &[Value] {
        &self.gaps
    }

    /// Reads a text until the time-out.
    fn read_text(&mut self) -> Result<Option<String>, ClientError> {
        match self.socket.read() {
            Ok(Message::Text(text)) => Ok(Some(text.to_string())),
            Ok(Message::Close(close)) => Err(ClientError::Cut(format!("closed: {close:?}"))),
            Ok(_) => Ok(None),
            Err(tungstenite::Error::Io(error)) if is_timeout(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads until the time-out. Events and gaps are kept, other frames returned.
    fn read_frame(&mut self) -> Result<Option<Value>, ClientError> {
        let Some(text) = self.read_text()? else { return Ok(None) };
        let frame = parse_frame(&text);
        match frame["op"].as_str() {
            Some("event") => {
                let event = ReceivedEvent::parse(&text, None);
                self.positions.insert(event.channel.clone(), event.position.clone());
                self.waiting.push_back(event);
                Ok(None)
            }
            Some("gap") => {
                self.gaps.push(frame);
                Ok(None)
            }
            _ => Ok(Some(frame)),
        }
    }
}

fn parse_frame(text: &str) -> Value {
    serde_json::from_str(text)
        .unwrap_or_else(|error| panic!("a frame that is not JSON ({error}): {text}"))
}

impl From<tungstenite::Error> for ClientError {
    fn from(error: tungstenite::Error) -> Self {
        Self::Cut(error.to_string())
    }
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        Self::Cut(error.to_string())
    }
}
