//! One live connection of a worker: its socket, its unsent bytes, and the state of its input.
//!
//! A quiet connection owns no buffer. What is due is collected in the worker's scratch buffer and
//! written from there; only the bytes that the socket does not accept are kept in the connection,
//! and their memory is released once they are sent.

use std::io::{self, ErrorKind, Read, Write};
use std::time::Instant;

use mio::net::TcpStream;
use tidewire_engine::fanout::shard::{ConnId, Framing};

use super::frame_decoder::FrameDecoder;
use crate::socket::limits::ConnectionPermit;

/// A live connection.
#[derive(Debug)]
pub struct LiveConnection {
    /// Its name in the shard.
    pub conn: ConnId,
    /// The socket, non-blocking.
    pub stream: TcpStream,
    /// Bytes the socket has not accepted yet.
    pub unsent: Unsent,
    /// The state of its input.
    pub incoming: IncomingHalf,
    /// Keeps the connection counted until it is dropped.
    pub permit: ConnectionPermit,
    /// The socket may have bytes to read.
    pub readable: bool,
    /// The socket may accept bytes.
    pub writable: bool,
    /// The shard has more frames for it.
    pub fill_pending: bool,
    /// It is in the worker's list of connections to read.
    pub read_queued: bool,
    /// Nothing more is read: it violated the protocol and is about to be closed.
    pub input_closed: bool,
    /// Since when its incoming message is unfinished.
    pub unfinished_since: Option<Instant>,
    /// It is in the worker's list of connections with an unfinished message.
    pub unfinished_listed: bool,
}

/// What a [`LiveConnection`] is made of.
#[derive(Debug)]
pub struct ConnectionParts {
    /// Its name in the shard.
    pub conn: ConnId,
    /// The socket, non-blocking.
    pub stream: TcpStream,
    /// Bytes to send first: the response head.
    pub unsent: Unsent,
    /// The state of its input.
    pub incoming: IncomingHalf,
    /// Keeps the connection counted until it is dropped.
    pub permit: ConnectionPermit,
}

impl LiveConnection {
    /// A new connection. It may have input and has first frames to be sent, so the worker puts it
    /// into both of its lists.
    pub fn new(parts: ConnectionParts) -> Self {
        let ConnectionParts { conn, stream, unsent, incoming, permit } = parts;
        Self {
            conn,
            stream,
            unsent,
            incoming,
            permit,
            readable: true,
            writable: true,
            fill_pending: true,
            read_queued: true,
            input_closed: false,
            unfinished_since: None,
            unfinished_listed: false,
        }
    }
}

/// The state of a connection's input.
#[derive(Debug)]
pub enum IncomingHalf {
    /// WebSocket frames.
    WebSocket(FrameDecoder),
    /// The number of bytes the client sent, though an SSE client has nothing to send.
    Sse(usize),
}

impl IncomingHalf {
    /// How frames of this connection are written.
    pub fn framing(&self) -> Framing {
        match self {
            Self::WebSocket(_) => Framing::WebSocket,
            Self::Sse(_) => Framing::Sse,
        }
    }

    /// The label in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::WebSocket(_) => "websocket",
            Self::Sse(_) => "sse",
        }
    }
}

/// Bytes that a socket has not accepted yet.
#[derive(Debug, Default)]
pub struct Unsent(Vec<u8>);

impl Unsent {
    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.reserve_exact(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// Moves all bytes to the end of `into` and releases their memory here.
    pub fn move_to(&mut self, into: &mut Vec<u8>) {
        into.extend_from_slice(&std::mem::take(&mut self.0));
    }

    /// Replaces the bytes.
    pub fn keep(&mut self, rest: &[u8]) {
        self.0 = rest.to_vec();
    }
}

/// Writes once, as much as the socket accepts. `Ok(0)` if it would block.
pub fn write_some(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match stream.write(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            done => return done,
        }
    }
}

/// Reads once. `Ok(None)` if the socket would block, `Ok(Some(0))` at the end of the stream.
pub fn read_some(mut stream: &TcpStream, into: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match stream.read(into) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            done => return done.map(Some),
        }
    }
}
