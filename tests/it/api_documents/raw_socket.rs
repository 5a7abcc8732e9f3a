//! A minimal WebSocket: text messages, and how the connection was closed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tidewire_tests::cut_stream::{CutStream, is_timeout};
use tokio_tungstenite::tungstenite::{self, HandshakeError, Message, WebSocket};

/// How long anything may take on a machine under load.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);

/// What arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    Text(String),
    /// The code and the reason.
    Closed(u16, String),
    /// Nothing within the time.
    Nothing,
}

/// A connection.
#[derive(Debug)]
pub(super) struct RawSocket(WebSocket<CutStream>);

impl RawSocket {
    pub(super) fn connect(addr: SocketAddr, path: &str) -> Self {
        let stream = CutStream::connect(addr, None).expect("it listens");
        let mut attempt = tungstenite::client(format!("ws://{addr}{path}"), stream);
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match attempt {
                Ok((socket, _)) => return Self(socket),
                Err(HandshakeError::Interrupted(halfway)) if Instant::now() < deadline => {
                    attempt = halfway.handshake();
                }
                Err(error) => panic!("no WebSocket at {addr}{path}: {error}"),
            }
        }
    }

    pub(super) fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).unwrap_or_else(|error| panic!("{text}: {error}"));
    }

    /// The next text message, or the close. Pings are answered and skipped.
    pub(super) fn next(&mut self, limit: Duration) -> Incoming {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            match self.0.read() {
                Ok(Message::Text(text)) => return Incoming::Text(text.to_string()),
                Ok(Message::Close(frame)) => {
                    let frame = frame.expect("the server's closes have a code");
                    return Incoming::Closed(frame.code.into(), frame.reason.to_string());
                }
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) if is_timeout(&error) => {}
                Err(error) => panic!("the connection broke: {error}"),
            }
        }
        Incoming::Nothing
    }
}
