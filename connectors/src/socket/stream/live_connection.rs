//! One live connection of a worker: its socket, its unsent bytes, and the state of its input.
//!
//! A quiet connection owns no buffer. What is due is collected in the worker's scratch buffer and
//! written from there; only what the socket does not accept is kept in the connection: copies of
//! small frames, references to large ones. It is released once it is sent, and counted meanwhile.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::sync::Arc;
use std::time::Instant;

use mio::net::TcpStream;
use tidewire_engine::fanout::out_buffer::OutBuffer;
use tidewire_engine::fanout::shard::{ConnId, Framing};

use super::frame_decoder::FrameDecoder;
use crate::socket::limits::ConnectionPermit;
use crate::socket::memory::{MemoryBudget, MemoryShare};

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
    /// Its incoming message, while that is unfinished.
    pub unfinished: Option<Box<UnfinishedMessage>>,
    /// It is in the worker's list of connections with an unfinished message.
    pub unfinished_listed: bool,
}

/// An incoming message of which a part has arrived.
#[derive(Debug)]
pub struct UnfinishedMessage {
    /// When its first byte was read.
    pub since: Instant,
    /// The memory of what has arrived.
    pub share: MemoryShare,
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
            unfinished: None,
            unfinished_listed: false,
        }
    }
}

/// The state of a connection's input.
#[derive(Debug)]
pub enum IncomingHalf {
    /// WebSocket frames.
    WebSocket(FrameDecoder),
    /// What an SSE client sends, though it has nothing to send.
    Sse(SseInput),
}

/// What an SSE client has sent after its request.
#[derive(Debug)]
pub struct SseInput {
    /// How many bytes.
    pub bytes: usize,
    /// It has shut down its sending half, which does not end the stream.
    pub ended: bool,
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
#[derive(Debug)]
pub struct Unsent {
    /// `None` if there are none, which is nearly always so.
    rest: Option<Box<OutBuffer>>,
    share: MemoryShare,
}

impl Unsent {
    /// None yet; what is added counts against this budget.
    pub fn new(budget: &Arc<MemoryBudget>) -> Self {
        Self { rest: None, share: MemoryShare::new(budget) }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.rest.as_ref().map_or(0, |rest| rest.len())
    }

    /// Bytes of memory that only this connection uses for them.
    pub fn own_bytes(&self) -> usize {
        self.share.bytes()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rest.is_none()
    }

    /// Appends bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let rest = self.rest.get_or_insert_default();
            rest.own_mut().reserve_exact(bytes.len());
            rest.own_mut().extend_from_slice(bytes);
            self.share.set(rest.own_bytes());
        }
    }

    /// Appends what a buffer holds and empties it.
    pub fn append(&mut self, from: &mut OutBuffer) {
        if !from.is_empty() {
            let rest = self.rest.get_or_insert_default();
            rest.append(from);
            rest.shrink();
            self.share.set(rest.own_bytes());
        }
    }

    /// Moves everything to the end of `into` and releases its memory here.
    pub fn move_to(&mut self, into: &mut OutBuffer) {
        if let Some(mut rest) = self.rest.take() {
            into.append(&mut rest);
            self.share.set(0);
        }
    }

    /// Writes once, as much as the socket accepts.
    pub fn send(&mut self, stream: &TcpStream) -> io::Result<()> {
        let mut out = OutBuffer::default();
        self.move_to(&mut out);
        if !out.is_empty() {
            let sent = write_some(stream, &out)?;
            out.consume(sent);
            self.append(&mut out);
        }
        Ok(())
    }
}

/// Writes once, as much as the socket accepts. `Ok(0)` if it would block.
pub fn write_some(mut stream: &TcpStream, out: &OutBuffer) -> io::Result<usize> {
    loop {
        let written = match out.as_one_piece() {
            Some(bytes) => stream.write(bytes),
            None => {
                // Few pieces: a fill ends at a number of bytes, and a reference is a large frame.
                let pieces: Vec<IoSlice<'_>> = out.pieces().into_iter().map(IoSlice::new).collect();
                stream.write_vectored(&pieces)
            }
        };
        match written {
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
