//! One live connection as its worker holds it: the socket, what it hasn't taken yet, and the
//! incoming half of its protocol.
//!
//! The one idea: a connection that is quiet owns no buffer. What is due is gathered in the worker's
//! scratch buffer and written at once; only what the socket refuses is kept, and released when it
//! is gone.

use std::io::{self, ErrorKind, Read, Write};

use mio::net::TcpStream;
use tidewire_engine::fanout::shard::{ConnId, Framing};

use super::websocket::WebSocketReader;
use crate::socket::limits::ConnectionPermit;

/// A live connection.
#[derive(Debug)]
pub struct LiveConnection {
    /// Its name in the shard.
    pub conn: ConnId,
    /// The socket, non-blocking.
    pub stream: TcpStream,
    /// What the socket hasn't taken.
    pub unsent: Unsent,
    /// The incoming half.
    pub incoming: IncomingHalf,
    /// Its place in the house.
    pub permit: ConnectionPermit,
    /// The socket may hold something to read.
    pub readable: bool,
    /// The socket may take something.
    pub writable: bool,
    /// The shard has more for it.
    pub fill_pending: bool,
    /// It is in the worker's list of sockets to read.
    pub read_queued: bool,
    /// Nothing more is read: it broke the rules and is about to be closed.
    pub input_closed: bool,
}

/// What a [`LiveConnection`] is made of.
#[derive(Debug)]
pub struct ConnectionParts {
    /// Its name in the shard.
    pub conn: ConnId,
    /// The socket, non-blocking.
    pub stream: TcpStream,
    /// What the socket hasn't taken.
    pub unsent: Unsent,
    /// The incoming half.
    pub incoming: IncomingHalf,
    /// Its place in the house.
    pub permit: ConnectionPermit,
}

impl LiveConnection {
    /// A connection that has just arrived: it may hold input, may take output and is owed its
    /// first frames, and is therefore in both of the worker's lists.
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
        }
    }
}

/// The incoming half of a connection.
#[derive(Debug)]
pub enum IncomingHalf {
    /// WebSocket frames.
    WebSocket(WebSocketReader),
    /// Nothing is expected; so many bytes came nevertheless.
    Sse(usize),
}

impl IncomingHalf {
    /// How this connection is written to.
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

/// Bytes a socket hasn't taken.
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

    /// Adds to what waits.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.reserve_exact(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// Moves all to the end of `into`, releasing the memory here.
    pub fn move_to(&mut self, into: &mut Vec<u8>) {
        into.extend_from_slice(&std::mem::take(&mut self.0));
    }

    /// Replaces what waits.
    pub fn keep(&mut self, rest: &[u8]) {
        self.0 = rest.to_vec();
    }
}

/// Writes as much as the socket takes, once. `Ok(0)` if it takes nothing now.
pub fn write_some(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match stream.write(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            done => return done,
        }
    }
}

/// Reads what is there. `Ok(None)` if there is nothing now, `Ok(Some(0))` at the end.
pub fn read_some(mut stream: &TcpStream, into: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match stream.read(into) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            done => return done.map(Some),
        }
    }
}
