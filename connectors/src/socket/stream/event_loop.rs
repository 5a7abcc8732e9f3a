//! A worker's epoll loop: reads and writes all connections of one shard, on one thread.
//!
//! A turn handles what happened since the last one (socket events, new connections, a drain
//! request, the hub's wake). It reads and writes at most a bounded share per connection, counted in
//! bytes; the rest waits for the next turn. So a busy connection delays the others by no more than
//! its share, and all frames that became due for a connection go out in one write.
//!
//! ```text
//! poll → tick → adopt, drain → pull → read → fill and write → closes → linger
//! ```
//!
//! Readiness is edge-triggered: a connection's flags are set by events and cleared only when the
//! socket would block. If `poll` fails, the worker ends and its connections are closed. The loop
//! never blocks outside `poll` and never decides what a client receives.

use std::io;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;
use tidewire_engine::fanout::config::UNFINISHED_MESSAGE_MS;
use tidewire_engine::fanout::out_buffer::OutBuffer;
use tidewire_engine::fanout::protocol::names::FrameName;
use tidewire_engine::fanout::protocol::native::CloseReason;
use tidewire_engine::fanout::shard::{
    BadFrame, Close, ConnId, ConnectionMemory, Filled, Framing, ShardStats,
};

use super::drain::{DrainSchedule, DrainStep};
use super::frame_decoder::{ClientInput, FrameDecoder};
use super::frame_encoder::{CLOSE, PONG, put_close, put_control, put_text};
use super::linger::{EndedConnection, FIRST_LINGER_TOKEN, LINGER_TIMEOUT, Lingering};
use super::live_connection::{
    ConnectionParts, IncomingHalf, LiveConnection, SseInput, UnfinishedMessage, Unsent, read_some,
    write_some,
};
use super::shard_port::ShardPort;
use super::worker_queue::WorkerWaker;
use crate::clock;
use crate::socket::http::takeover::{DetachedConnection, retry_line};
use crate::socket::memory::{MemoryBudget, MemoryShare};
use crate::telemetry::{self, SocketIo};

/// Connections adopted per turn: many clients reconnecting at once must not delay those connected.
const ADOPTED_PER_TURN: usize = 256;

/// Bytes read from one connection at once. They hold at most 171 frames, whose answers fit into
/// what a connection may leave unread.
const READ_BYTES: usize = 1_024;

/// Reads of one connection per turn.
const READS_PER_TURN: usize = 4;

/// Messages read from one connection in a turn after which it is not read again in this turn: the
/// burst a client is allowed.
const MESSAGES_PER_TURN: usize = 100;

/// Bytes filled for one connection per turn, and with one large frame, which is referred to, the
/// most that is kept when its socket accepts nothing. A write costs about the same up to 12 KB;
/// much larger ones only use more memory.
const FILL_BYTES: usize = 32 * 1_024;

/// A connection that uses more memory than this for unsent bytes and for answers that wait behind
/// them is not read: a client that reads no answers can cause no more of them.
const UNSENT_BYTES: usize = 64 * 1_024;

/// Bytes an SSE client may send after its request; they are discarded.
pub const SSE_INCOMING_BYTES: usize = 64 * 1_024;

/// A comment of `text/event-stream`, as the shard's keepalives.
const COMMENT: &[u8] = b":\n";

/// The kernel's send buffer of one connection (Linux doubles it for its own bookkeeping).
const SEND_BUFFER_BYTES: usize = 128 * 1_024;

/// The longest wait for events, since the shard needs a `tick` at least once a second.
const POLL_WAIT_MAX: Duration = Duration::from_millis(500);

/// The same during a drain, whose move requests have times.
const DRAIN_POLL_WAIT: Duration = Duration::from_millis(20);

/// How long written bytes may stay unacknowledged, or the client's receive window closed, before
/// the kernel drops the connection. It ends streams whose client is gone without a FIN.
pub const TCP_USER_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a client may take to send a message whole.
const UNFINISHED_MESSAGE: Duration = Duration::from_millis(UNFINISHED_MESSAGE_MS);

/// The waker's token. The token of a connection is its slot.
pub const WAKE_TOKEN: Token = Token(usize::MAX);

/// The loop's state.
pub struct EventLoop<S> {
    shard: S,
    poll: Poll,
    inbox: Receiver<Box<DetachedConnection>>,
    waker: Arc<WorkerWaker>,
    memory: Arc<MemoryBudget>,
    /// Indexed by the slot of the shard's [`ConnId`].
    connections: Vec<Option<Box<LiveConnection>>>,
    count: usize,
    /// Connections whose socket may hold more to read.
    reading: Vec<ConnId>,
    /// Connections to fill and write in this turn.
    writing: Vec<ConnId>,
    /// Connections that had an unfinished message when they were last looked at.
    unfinished: Vec<ConnId>,
    /// More connections may wait to be adopted.
    inbox_pending: bool,
    lingering: Lingering,
    /// The bytes of one write.
    scratch: OutBuffer,
    /// Of this turn.
    io: SocketIo,
    draining: Option<DrainSchedule>,
}

/// What an [`EventLoop`] is made of, beside its shard.
pub struct LoopParts {
    /// The poll, in which `waker` is registered as [`WAKE_TOKEN`].
    pub poll: Poll,
    /// Connections from the HTTP server.
    pub inbox: Receiver<Box<DetachedConnection>>,
    /// Ends the poll's wait.
    pub waker: Arc<WorkerWaker>,
    /// The memory of all connections of the process.
    pub memory: Arc<MemoryBudget>,
}

impl<S: ShardPort> EventLoop<S> {
    /// A worker without connections.
    pub fn new(shard: S, parts: LoopParts) -> Self {
        let LoopParts { poll, inbox, waker, memory } = parts;
        Self {
            shard,
            poll,
            inbox,
            waker,
            memory,
            connections: Vec::new(),
            count: 0,
            reading: Vec::new(),
            writing: Vec::new(),
            unfinished: Vec::new(),
            inbox_pending: false,
            lingering: Lingering::default(),
            scratch: OutBuffer::with_capacity(FILL_BYTES),
            io: SocketIo::default(),
            draining: None,
        }
    }

    /// Repeats `turn` until a drain is over, and copies the shard's sums into `stats` about twice a
    /// second.
    pub fn run(&mut self, stats: &Mutex<ShardStats>) {
        let mut events = Events::with_capacity(1_024);
        let mut begun = clock::now();
        while !self.is_over(clock::now()) {
            let wait = match () {
                () if !self.reading.is_empty() || !self.writing.is_empty() => Duration::ZERO,
                () if self.inbox_pending || self.lingering.has_more_to_read() => Duration::ZERO,
                () if self.draining.is_some() => DRAIN_POLL_WAIT,
                () => POLL_WAIT_MAX,
            };
            if let Err(error) = self.poll.poll(&mut events, Some(wait))
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "epoll failed in a worker, its connections are closed");
                return;
            }
            self.turn(&events);
            if begun.elapsed() >= POLL_WAIT_MAX {
                begun = clock::now();
                self.lingering.expire(begun);
                self.end_unfinished(begun);
                self.publish_stats(stats);
            }
        }
        self.publish_stats(stats);
    }

    fn is_over(&self, now: Instant) -> bool {
        let Some(draining) = &self.draining else { return false };
        let is_empty = self.count == 0 && self.lingering.is_empty() && !self.inbox_pending;
        is_empty || draining.is_over(now, 2 * LINGER_TIMEOUT)
    }

    fn turn(&mut self, events: &Events) {
        for event in events {
            match event.token() {
                WAKE_TOKEN => {}
                Token(lingering) if lingering >= FIRST_LINGER_TOKEN => {
                    self.lingering.advance(lingering)
                }
                Token(slot) => self.mark_ready(slot, event),
            }
        }
        self.waker.acknowledge();
        // Before connections are opened, whose age counts from the shard's time.
        self.shard.tick(clock::monotonic(), self.memory.state());
        self.adopt_all();
        self.begin_drain();
        self.shard.pull();
        self.continue_drain();
        self.read_all();
        self.write_all();
        self.close_all();
        self.lingering.read_more();
        telemetry::socket_io(std::mem::take(&mut self.io));
    }

    fn mark_ready(&mut self, slot: usize, event: &Event) {
        let Some(Some(connection)) = self.connections.get_mut(slot) else { return };
        let readable = event.is_readable() || event.is_read_closed() || event.is_error();
        connection.readable |= readable;
        if readable && !connection.read_queued {
            connection.read_queued = true;
            self.reading.push(connection.conn);
        }
        if event.is_writable() && !connection.writable {
            connection.writable = true;
            if connection.fill_pending || !connection.unsent.is_empty() {
                self.writing.push(connection.conn);
            }
        }
    }

    fn adopt_all(&mut self) {
        self.inbox_pending = false;
        for _ in 0..ADOPTED_PER_TURN {
            match self.inbox.try_recv() {
                Ok(detached) => self.adopt(*detached),
                Err(_) => return,
            }
        }
        self.inbox_pending = true;
    }

    fn begin_drain(&mut self) {
        if self.draining.is_none()
            && let Some(window) = self.waker.requested_drain()
        {
            self.draining = Some(DrainSchedule::begin(clock::now(), window));
        }
    }

    fn continue_drain(&mut self) {
        let Some(draining) = &mut self.draining else { return };
        match draining.next_step(clock::now(), self.connections.len()) {
            DrainStep::Nothing => {}
            DrainStep::Close => self.shard.drain(),
            DrainStep::Move { from, to, within_ms } => {
                let op = FrameName::Move.as_str();
                let text = format!(r#"{{"op":"{op}","within_ms":{within_ms}}}"#);
                for connection in self.connections[from..to].iter_mut().flatten() {
                    if matches!(connection.incoming, IncomingHalf::WebSocket(_)) {
                        let mut frame = Vec::new();
                        put_text(&mut frame, &text);
                        connection.unsent.push(&frame);
                        self.writing.push(connection.conn);
                    }
                }
            }
        }
    }

    fn adopt(&mut self, detached: DetachedConnection) {
        let DetachedConnection { stream, read_ahead, takeover, permit } = detached;
        let socket = SockRef::from(&stream);
        // What a slow client has not read yet is read again from the log, so it needs no larger
        // buffer here.
        let set = socket
            .set_send_buffer_size(SEND_BUFFER_BYTES)
            .and_then(|()| socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT)));
        if let Err(error) = set {
            tracing::debug!(%error, "the options of a socket could not be set");
        }
        let mut stream = TcpStream::from_std(stream);
        let framing = takeover.open.framing;
        let mut unsent = Unsent::new(&self.memory);
        unsent.push(&takeover.head);
        let opened = match self.draining {
            None => self.shard.open(takeover.open).map_err(|_| CloseReason::Overloaded),
            Some(_) => Err(CloseReason::Drain),
        };
        let token = Token(opened.map_or(FIRST_LINGER_TOKEN, |conn| conn.slot as usize));
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut stream, token, interest) {
            tracing::warn!(%error, "a connection could not be registered with epoll and is closed");
            telemetry::connection_refused("epoll");
            opened.into_iter().for_each(|conn| self.shard.close(conn));
            return;
        }
        let conn = match opened {
            Ok(conn) => conn,
            Err(reason) => {
                telemetry::connection_refused(reason.label());
                let mut last = retry_line().into_bytes();
                if framing == Framing::WebSocket {
                    last.clear();
                    put_close(&mut last, reason.code(), reason.text());
                }
                unsent.push(&last);
                let ended = EndedConnection { stream, unsent, permit };
                return self.lingering.add(self.poll.registry(), ended);
            }
        };
        let incoming = match framing {
            Framing::WebSocket => IncomingHalf::WebSocket(FrameDecoder::default()),
            Framing::Sse => IncomingHalf::Sse(SseInput { bytes: read_ahead.len(), ended: false }),
        };
        telemetry::connection_opened(incoming.label());
        let parts = ConnectionParts { conn, stream, unsent, incoming, permit };
        let mut connection = Box::new(LiveConnection::new(parts));
        self.count += 1;
        // What the client sent after its handshake. It is at most a request head.
        match self.decode(&mut connection, &read_ahead, &mut 0) {
            ReadOutcome::Close(by) => self.start_close(*connection, by),
            ReadOutcome::Gone(reason) => self.drop_connection(*connection, reason),
            ReadOutcome::Continue => self.insert(connection),
        }
    }

    /// Stores a new connection, to be read and written in this turn.
    fn insert(&mut self, connection: Box<LiveConnection>) {
        let conn = connection.conn;
        let slot = conn.slot as usize;
        if slot >= self.connections.len() {
            self.connections.resize_with(slot + 1, || None);
        }
        self.connections[slot] = Some(connection);
        self.reading.push(conn);
        self.writing.push(conn);
    }

    fn read_all(&mut self) {
        for conn in std::mem::take(&mut self.reading) {
            let Some(mut connection) = self.take(conn) else { continue };
            connection.read_queued = false;
            match self.read(&mut connection) {
                ReadOutcome::Continue => {
                    if connection.readable && self.may_read(&connection) {
                        connection.read_queued = true;
                        self.reading.push(conn);
                    }
                    self.put(connection);
                }
                ReadOutcome::Gone(reason) => self.drop_connection(*connection, reason),
                ReadOutcome::Close(by) => self.start_close(*connection, by),
            }
        }
    }

    /// Whether a connection's answers leave space for more of them. They wait in the shard while
    /// the socket accepts nothing.
    fn may_read(&self, connection: &LiveConnection) -> bool {
        let unsent = &connection.unsent;
        !connection.input_closed
            && unsent.own_bytes() + self.shard.waiting_bytes(connection.conn) <= UNSENT_BYTES
            && (unsent.is_empty() || self.memory.state() == ConnectionMemory::Available)
    }

    /// One connection's share of reading.
    fn read(&mut self, connection: &mut LiveConnection) -> ReadOutcome {
        if !self.may_read(connection) {
            return ReadOutcome::Continue;
        }
        match &mut connection.incoming {
            IncomingHalf::Sse(_) => self.read_sse(connection),
            IncomingHalf::WebSocket(_) => self.read_websocket(connection),
        }
    }

    fn read_sse(&mut self, connection: &mut LiveConnection) -> ReadOutcome {
        let mut discarded = [0; 4_096];
        let read = read_some(&connection.stream, &mut discarded);
        let IncomingHalf::Sse(incoming) = &mut connection.incoming else {
            return ReadOutcome::Continue;
        };
        match read {
            Ok(None) => connection.readable = false,
            Ok(Some(0)) => {
                connection.readable = false;
                if !matches!(connection.stream.take_error(), Ok(None)) {
                    return ReadOutcome::Gone("client_left");
                }
                if !std::mem::replace(&mut incoming.ended, true) {
                    // A client that has only ended its half ignores it. The system of one that is
                    // gone answers with a reset, which is an event.
                    connection.unsent.push(COMMENT);
                    self.writing.push(connection.conn);
                }
            }
            Err(_) => return ReadOutcome::Gone("client_left"),
            Ok(Some(count)) => {
                self.io.read_bytes += count as u64;
                incoming.bytes += count;
                if incoming.bytes > SSE_INCOMING_BYTES {
                    return ReadOutcome::Gone("protocol_error");
                }
            }
        }
        ReadOutcome::Continue
    }

    fn read_websocket(&mut self, connection: &mut LiveConnection) -> ReadOutcome {
        let mut bytes = [0; READ_BYTES];
        let mut messages = 0;
        for _ in 0..READS_PER_TURN {
            let count = match read_some(&connection.stream, &mut bytes) {
                Ok(None) => {
                    connection.readable = false;
                    break;
                }
                Ok(Some(0)) | Err(_) => return ReadOutcome::Gone("client_left"),
                Ok(Some(count)) => count,
            };
            self.io.read_bytes += count as u64;
            let outcome = self.decode(connection, &bytes[..count], &mut messages);
            if !matches!(outcome, ReadOutcome::Continue) || connection.input_closed {
                return outcome;
            }
            if messages >= MESSAGES_PER_TURN || !self.may_read(connection) {
                break;
            }
        }
        ReadOutcome::Continue
    }

    /// Handles the frames in `bytes`, which the client sent, and adds to the count of messages.
    fn decode(
        &mut self,
        connection: &mut LiveConnection,
        mut bytes: &[u8],
        messages: &mut usize,
    ) -> ReadOutcome {
        let IncomingHalf::WebSocket(decoder) = &mut connection.incoming else {
            return ReadOutcome::Continue;
        };
        let mut replies = Vec::new();
        let mut outcome = ReadOutcome::Continue;
        while let Some(input) = decoder.decode(&mut bytes) {
            *messages += 1;
            if !decoder.is_mid_message() {
                // What is unfinished after this began after it.
                connection.unfinished = None;
            }
            match input {
                ClientInput::Text(text) => self.shard.input(connection.conn, &text),
                ClientInput::Ping(payload) => {
                    put_control(&mut replies, PONG, &payload);
                    self.shard.mark_alive(connection.conn);
                }
                ClientInput::Pong => self.shard.mark_alive(connection.conn),
                ClientInput::Binary => {
                    connection.input_closed = true;
                    self.shard.bad_frame(connection.conn, BadFrame::NotText);
                    break;
                }
                ClientInput::Violation(CloseReason::TooLarge) => {
                    connection.input_closed = true;
                    self.shard.bad_frame(connection.conn, BadFrame::TooLarge);
                    break;
                }
                ClientInput::Close(payload) => {
                    put_control(&mut replies, CLOSE, &payload);
                    outcome = ReadOutcome::Close(ClosedBy::Client);
                    break;
                }
                ClientInput::Violation(reason) => {
                    outcome = ReadOutcome::Close(ClosedBy::Server(reason));
                    break;
                }
            }
        }
        self.note_unfinished(connection);
        if !replies.is_empty() {
            connection.unsent.push(&replies);
            self.writing.push(connection.conn);
        }
        outcome
    }

    /// Starts or ends the time within which an unfinished message has to be complete, and counts
    /// its memory. Without memory it is read on: nearly every read ends within a message, so a
    /// client could not send anything otherwise.
    fn note_unfinished(&mut self, connection: &mut LiveConnection) {
        let kept_bytes = match &connection.incoming {
            IncomingHalf::WebSocket(decoder) if decoder.is_mid_message() => {
                decoder.buffered_bytes()
            }
            _ => {
                connection.unfinished = None;
                return;
            }
        };
        if !std::mem::replace(&mut connection.unfinished_listed, true) {
            self.unfinished.push(connection.conn);
        }
        let unfinished = connection.unfinished.get_or_insert_with(|| {
            let share = MemoryShare::new(&self.memory);
            Box::new(UnfinishedMessage { since: clock::now(), share })
        });
        unfinished.share.set(kept_bytes);
    }

    /// Closes connections whose message has been unfinished for too long. Pings do not prolong it.
    fn end_unfinished(&mut self, now: Instant) {
        for conn in std::mem::take(&mut self.unfinished) {
            let Some(mut connection) = self.take(conn) else { continue };
            match connection.unfinished.as_ref().map(|unfinished| unfinished.since) {
                Some(since) if now.saturating_duration_since(since) >= UNFINISHED_MESSAGE => {
                    self.start_close(*connection, ClosedBy::Server(CloseReason::Unfinished));
                    continue;
                }
                Some(_) => self.unfinished.push(conn),
                None => connection.unfinished_listed = false,
            }
            self.put(connection);
        }
    }

    fn write_all(&mut self) {
        let mut due = std::mem::take(&mut self.writing);
        let named = due.len();
        self.shard.take_ready(&mut due);
        for (n, conn) in due.into_iter().enumerate() {
            let Some(mut connection) = self.take(conn) else { continue };
            connection.fill_pending |= n >= named;
            match self.write(&mut connection) {
                Ok(()) => self.put(connection),
                Err(_) => self.drop_connection(*connection, "client_left"),
            }
        }
    }

    /// One connection's share of writing: what was left, then what is due, in one write.
    fn write(&mut self, connection: &mut LiveConnection) -> io::Result<()> {
        if !connection.writable {
            return Ok(());
        }
        self.scratch.clear();
        connection.unsent.move_to(&mut self.scratch);
        let had_rest = !self.scratch.is_empty();
        if connection.fill_pending && self.scratch.len() < FILL_BYTES {
            self.fill(connection);
        }
        if self.scratch.is_empty() {
            return Ok(());
        }
        let sent = write_some(&connection.stream, &self.scratch)?;
        self.io.writes += 1;
        self.io.written_bytes += sent as u64;
        if sent < self.scratch.len() {
            connection.writable = false;
            // The shard is asked again once the rest is sent, see `Shard::set_unsent`.
            connection.fill_pending = true;
            self.scratch.consume(sent);
            self.shard.set_unsent(connection.conn, self.scratch.len());
            connection.unsent.append(&mut self.scratch);
            return Ok(());
        }
        // It would keep a large frame alive.
        self.scratch.clear();
        if had_rest {
            self.shard.set_unsent(connection.conn, 0);
        }
        if connection.fill_pending {
            self.writing.push(connection.conn);
        }
        if connection.readable && !connection.read_queued {
            // It was not read while it had more than UNSENT_BYTES unsent.
            connection.read_queued = true;
            self.reading.push(connection.conn);
        }
        Ok(())
    }

    /// Appends what a connection is due. Without memory that is one frame, and none while another
    /// one is unfinished: what the socket does not accept is then at most the rest of one frame.
    fn fill(&mut self, connection: &mut LiveConnection) {
        let budget = match self.memory.state() {
            ConnectionMemory::Available => FILL_BYTES,
            ConnectionMemory::Full if self.scratch.is_empty() => 1,
            ConnectionMemory::Full => return,
        };
        let filled = self.shard.fill(connection.conn, &mut self.scratch, budget);
        connection.fill_pending = filled == Filled::More;
    }

    fn close_all(&mut self) {
        let mut closes = Vec::new();
        self.shard.take_closes(&mut closes);
        for Close { conn, reason } in closes {
            match self.take(conn) {
                Some(mut connection) => {
                    let mut last = OutBuffer::default();
                    self.shard.fill(conn, &mut last, FILL_BYTES);
                    connection.unsent.append(&mut last);
                    self.start_close(*connection, ClosedBy::Server(reason));
                }
                None => self.shard.close(conn),
            }
        }
    }

    /// Ends a connection by the rules of its protocol.
    fn start_close(&mut self, connection: LiveConnection, by: ClosedBy) {
        let LiveConnection { conn, stream, mut unsent, incoming, permit, .. } = connection;
        self.shard.close(conn);
        self.count -= 1;
        telemetry::connection_left(incoming.label());
        telemetry::connection_closed(by.label());
        if let ClosedBy::Server(reason) = by
            && incoming.framing() == Framing::WebSocket
        {
            let mut frame = Vec::new();
            put_close(&mut frame, reason.code(), reason.text());
            unsent.push(&frame);
        }
        self.lingering.add(self.poll.registry(), EndedConnection { stream, unsent, permit });
    }

    /// The socket is gone.
    fn drop_connection(&mut self, connection: LiveConnection, reason: &'static str) {
        self.shard.close(connection.conn);
        self.count -= 1;
        telemetry::connection_left(connection.incoming.label());
        telemetry::connection_closed(reason);
    }

    fn take(&mut self, conn: ConnId) -> Option<Box<LiveConnection>> {
        let slot = self.connections.get_mut(conn.slot as usize)?;
        slot.take_if(|connection| connection.conn == conn)
    }

    fn put(&mut self, connection: Box<LiveConnection>) {
        let slot = connection.conn.slot as usize;
        self.connections[slot] = Some(connection);
    }

    fn publish_stats(&self, stats: &Mutex<ShardStats>) {
        *stats.lock().unwrap_or_else(PoisonError::into_inner) = self.shard.stats();
        self.memory.report();
    }
}

/// What follows from reading a connection.
enum ReadOutcome {
    Continue,
    /// Drop the socket; the label in metrics.
    Gone(&'static str),
    /// Close by the rules of the protocol.
    Close(ClosedBy),
}

/// Which side closes a connection.
#[derive(Clone, Copy)]
enum ClosedBy {
    /// The client; the answer to its close frame is in the outgoing buffer already.
    Client,
    /// This side, for this reason.
    Server(CloseReason),
}

impl ClosedBy {
    /// The label in metrics.
    fn label(self) -> &'static str {
        match self {
            Self::Client => "client_closed",
            Self::Server(reason) => reason.label(),
        }
    }
}

#[cfg(test)]
#[path = "../tests/event_loop.rs"]
mod tests;
