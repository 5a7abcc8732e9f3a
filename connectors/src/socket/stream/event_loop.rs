//! One OS thread with an epoll loop that owns a shard of the streams.
//!
//! The one idea: a turn takes what has happened (events, commands, the hub's wake), gives each
//! connection a bounded share of reading and writing, and puts what is left at the end of a list
//! for the next turn. So no connection, however busy, keeps the others waiting for more than its
//! share; and everything a connection is due since its last turn goes out in one write.
//!
//! ```text
//! poll → tick → commands (adopt, drain) → pull → read → fill and write → closes → linger
//! ```
//!
//! Readiness is edge-triggered: a peer's flags say what the socket may do, and only "it would
//! block" takes them back. It never blocks outside `poll` and never decides what a client gets.

use std::io;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;
use tidewire_engine::fanout::config::CLIENT_FRAME_MAX_BYTES;
use tidewire_engine::fanout::protocol::names::FrameName;
use tidewire_engine::fanout::protocol::native::CloseReason;
use tidewire_engine::fanout::shard::{BadFrame, Close, ConnId, Filled, Framing, ShardStats};
use tidewire_engine::port::{Clock, Wake as _};

use super::drain::{DrainSchedule, DrainStep};
use super::linger::{FIRST_LINGER_TOKEN, LINGER_TIMEOUT, Lingering};
use super::live_connection::{Incoming, LiveConnection, Unsent, read_some, write_some};
use super::shard_port::ShardPort;
use super::websocket::{WebSocketInput, WebSocketReader, put_close, put_text};
use super::worker_queue::{WorkerCommand, WorkerWaker};
use crate::socket::http::connection::DetachedConnection;
use crate::{clock, telemetry};

/// Connections adopted per turn; a reconnect storm must not delay those already here.
const ADOPTED_PER_TURN: usize = 256;

/// Messages heard from one connection per turn: the burst a client is allowed.
const MESSAGES_PER_TURN: usize = 100;

/// Bytes filled for one connection per turn, and so the most that is kept when its socket takes
/// nothing. A send costs about the same up to 12 KB; far larger ones only bring memory into play.
const FILL_BYTES: usize = 32 * 1_024;

/// With this much unsent a connection isn't read: who doesn't take answers gets no more questions.
const UNSENT_BYTES: usize = 64 * 1_024;

/// What an SSE client may send behind its request; it has nothing to say.
pub const SSE_INCOMING_BYTES: usize = 64 * 1_024;

/// The kernel's buffer of one connection (Linux doubles it for its own bookkeeping).
const SEND_BUFFER_BYTES: usize = 128 * 1_024;

/// The longest wait, so that time passes for the shard even when nothing happens.
const POLL_WAIT_MAX: Duration = Duration::from_millis(500);

/// The same while draining, which has a timetable.
const DRAIN_POLL_WAIT: Duration = Duration::from_millis(20);

/// How long written bytes may stay unacknowledged, or a client's window shut, before the kernel
/// gives the connection up. It ends half-open streams that have nothing to say to us.
pub const TCP_USER_TIMEOUT: Duration = Duration::from_secs(60);

/// The waker's token; connections' tokens are their slots.
pub const WAKE_TOKEN: Token = Token(usize::MAX);

/// What a turn moved, told to the metrics once.
#[derive(Debug, Default)]
struct TurnTotals {
    writes: u64,
    written: u64,
    read: u64,
}

/// The loop's state.
pub struct EventLoop<S> {
    shard: S,
    poll: Poll,
    inbox: Receiver<WorkerCommand>,
    waker: Arc<WorkerWaker>,
    clock: Arc<dyn Clock>,
    /// By the shard's slot.
    connections: Vec<Option<Box<LiveConnection>>>,
    count: usize,
    /// Connections whose socket may hold more to read.
    reading: Vec<ConnId>,
    /// Connections to fill and write in this turn.
    writing: Vec<ConnId>,
    lingering: Lingering,
    /// Where everything that is written is gathered.
    scratch: Vec<u8>,
    totals: TurnTotals,
    draining: Option<DrainSchedule>,
}

impl<S: ShardPort> EventLoop<S> {
    /// A worker of no connections, around a poll in which `waker` is registered as [`WAKE_TOKEN`].
    pub fn new(
        shard: S,
        poll: Poll,
        (inbox, waker): (Receiver<WorkerCommand>, Arc<WorkerWaker>),
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            shard,
            poll,
            inbox,
            waker,
            clock,
            connections: Vec::new(),
            count: 0,
            reading: Vec::new(),
            writing: Vec::new(),
            lingering: Lingering::default(),
            scratch: Vec::with_capacity(FILL_BYTES),
            totals: TurnTotals::default(),
            draining: None,
        }
    }

    /// Turns until a drain is over, leaving its sums in `stats` now and then.
    pub fn run(&mut self, stats: &Mutex<ShardStats>) {
        let mut events = Events::with_capacity(1_024);
        let mut begun = clock::now();
        while !self.is_over(clock::now()) {
            let wait = match () {
                () if !self.reading.is_empty() || !self.writing.is_empty() => Duration::ZERO,
                () if self.draining.is_some() => DRAIN_POLL_WAIT,
                () => POLL_WAIT_MAX,
            };
            if let Err(error) = self.poll.poll(&mut events, Some(wait))
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "a worker's poll failed: its streams are closed");
                return;
            }
            self.turn(&events);
            if begun.elapsed() >= POLL_WAIT_MAX {
                begun = clock::now();
                self.lingering.expire(begun);
                self.publish_stats(stats);
            }
        }
        self.publish_stats(stats);
    }

    fn is_over(&self, now: Instant) -> bool {
        let Some(draining) = &self.draining else { return false };
        let is_empty = self.count == 0 && self.lingering.is_empty();
        is_empty || draining.is_over(now, 2 * LINGER_TIMEOUT)
    }

    fn turn(&mut self, events: &Events) {
        for event in events {
            match event.token() {
                WAKE_TOKEN => {}
                Token(lingering) if lingering >= FIRST_LINGER_TOKEN => {
                    self.lingering.advance(lingering)
                }
                Token(slot) => {
                    let readable =
                        event.is_readable() || event.is_read_closed() || event.is_error();
                    self.mark_ready(slot, (readable, event.is_writable()));
                }
            }
        }
        self.waker.acknowledge();
        // Before anyone is adopted: a connection's age counts from the time the shard knows.
        self.shard.tick(self.clock.now());
        self.run_commands();
        self.shard.pull();
        self.continue_drain();
        self.read_all();
        self.write_all();
        self.close_all();
        telemetry::socket_io(self.totals.writes, self.totals.written, self.totals.read);
        self.totals = TurnTotals::default();
    }

    fn mark_ready(&mut self, slot: usize, (readable, writable): (bool, bool)) {
        let Some(Some(connection)) = self.connections.get_mut(slot) else { return };
        connection.readable |= readable;
        if readable && !connection.read_queued {
            connection.read_queued = true;
            self.reading.push(connection.conn);
        }
        if writable && !connection.writable {
            connection.writable = true;
            if connection.fill_pending || !connection.unsent.is_empty() {
                self.writing.push(connection.conn);
            }
        }
    }

    fn run_commands(&mut self) {
        for _ in 0..ADOPTED_PER_TURN {
            match self.inbox.try_recv() {
                Ok(WorkerCommand::Adopt(detached)) => self.adopt(*detached),
                Ok(WorkerCommand::Drain(window)) => {
                    self.draining = Some(DrainSchedule::begin(clock::now(), window));
                }
                Err(_) => return,
            }
        }
        // More may be waiting: come back at once.
        self.waker.wake();
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
                    if matches!(connection.incoming, Incoming::WebSocket(_)) {
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
        // A slow client's arrears belong in the log, not in the kernel's memory.
        let set = socket
            .set_send_buffer_size(SEND_BUFFER_BYTES)
            .and_then(|()| socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT)));
        if let Err(error) = set {
            tracing::debug!(%error, "a socket keeps the system's own limits");
        }
        let mut stream = TcpStream::from_std(stream);
        let framing = takeover.open.framing;
        let mut unsent = Unsent::default();
        unsent.push(&takeover.head);
        let opened = match self.draining {
            None => self.shard.open(takeover.open).map_err(|_| CloseReason::Overloaded),
            Some(_) => Err(CloseReason::Drain),
        };
        let token = Token(opened.map_or(FIRST_LINGER_TOKEN, |conn| conn.slot as usize));
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut stream, token, interest) {
            tracing::warn!(%error, "a connection could not be watched");
            telemetry::connection_refused("epoll");
            opened.into_iter().for_each(|conn| self.shard.close(conn));
            return;
        }
        let conn = match opened {
            Ok(conn) => conn,
            Err(reason) => {
                telemetry::connection_refused(reason.label());
                if framing == Framing::WebSocket {
                    let mut frame = Vec::new();
                    put_close(&mut frame, reason.code(), reason.text());
                    unsent.push(&frame);
                }
                return self.lingering.add(self.poll.registry(), stream, (unsent, permit));
            }
        };
        let incoming = match framing {
            Framing::WebSocket => Incoming::WebSocket(WebSocketReader::with_read_ahead(
                &read_ahead,
                CLIENT_FRAME_MAX_BYTES,
            )),
            Framing::Sse => Incoming::Sse(read_ahead.len()),
        };
        telemetry::connection_opened(incoming.label());
        self.insert(LiveConnection::new(conn, stream, (unsent, incoming), permit));
    }

    /// Gives a new peer its place, to be read and written in this very turn.
    fn insert(&mut self, connection: LiveConnection) {
        let conn = connection.conn;
        let slot = conn.slot as usize;
        if slot >= self.connections.len() {
            self.connections.resize_with(slot + 1, || None);
        }
        self.connections[slot] = Some(Box::new(connection));
        self.count += 1;
        self.reading.push(conn);
        self.writing.push(conn);
    }

    fn read_all(&mut self) {
        for conn in std::mem::take(&mut self.reading) {
            let Some(mut connection) = self.take(conn) else { continue };
            connection.read_queued = false;
            match self.read(&mut connection) {
                ReadOutcome::Continue => {
                    let more = connection.readable
                        && !connection.input_closed
                        && connection.unsent.len() <= UNSENT_BYTES;
                    if more {
                        connection.read_queued = true;
                        self.reading.push(conn);
                    }
                    self.put(connection);
                }
                ReadOutcome::Gone(reason) => self.drop_connection(*connection, reason),
                ReadOutcome::Close(code, text) => {
                    self.start_close(*connection, (code, text, "protocol_error"))
                }
            }
        }
    }

    /// One connection's share of reading.
    fn read(&mut self, connection: &mut LiveConnection) -> ReadOutcome {
        if connection.input_closed || connection.unsent.len() > UNSENT_BYTES {
            return ReadOutcome::Continue;
        }
        match &mut connection.incoming {
            Incoming::Sse(_) => self.read_sse(connection),
            Incoming::WebSocket(_) => self.read_websocket(connection),
        }
    }

    fn read_sse(&mut self, connection: &mut LiveConnection) -> ReadOutcome {
        let mut nowhere = [0; 4_096];
        let read = read_some(&connection.stream, &mut nowhere);
        let Incoming::Sse(total) = &mut connection.incoming else { return ReadOutcome::Continue };
        match read {
            Ok(None) => connection.readable = false,
            Ok(Some(0)) | Err(_) => return ReadOutcome::Gone("client_left"),
            Ok(Some(count)) => {
                self.totals.read += count as u64;
                *total += count;
                if *total > SSE_INCOMING_BYTES {
                    return ReadOutcome::Gone("protocol_error");
                }
            }
        }
        ReadOutcome::Continue
    }

    fn read_websocket(&mut self, connection: &mut LiveConnection) -> ReadOutcome {
        let Incoming::WebSocket(reader) = &mut connection.incoming else {
            return ReadOutcome::Continue;
        };
        let mut replies = Vec::new();
        let mut outcome = ReadOutcome::Continue;
        for _ in 0..MESSAGES_PER_TURN {
            let from = CountingReader(&connection.stream, &mut self.totals.read);
            match reader.read_next(from, &mut replies, CLIENT_FRAME_MAX_BYTES) {
                WebSocketInput::Text(text) => self.shard.input(connection.conn, &text),
                WebSocketInput::PingPong => self.shard.mark_alive(connection.conn),
                WebSocketInput::WouldBlock => {
                    connection.readable = false;
                    break;
                }
                WebSocketInput::Binary => {
                    connection.input_closed = true;
                    self.shard.bad_frame(connection.conn, BadFrame::NotText);
                    break;
                }
                WebSocketInput::Violation(CloseReason::TooLarge) => {
                    connection.input_closed = true;
                    self.shard.bad_frame(connection.conn, BadFrame::TooLarge);
                    break;
                }
                WebSocketInput::Closed => {
                    outcome = ReadOutcome::Close(0, "");
                    break;
                }
                WebSocketInput::Violation(reason) => {
                    outcome = ReadOutcome::Close(reason.code(), reason.text());
                    break;
                }
                WebSocketInput::Disconnected => return ReadOutcome::Gone("client_left"),
            }
        }
        if !replies.is_empty() {
            connection.unsent.push(&replies);
            self.writing.push(connection.conn);
        }
        outcome
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
        if connection.fill_pending && self.scratch.len() < FILL_BYTES {
            let filled = self.shard.fill(connection.conn, &mut self.scratch, FILL_BYTES);
            connection.fill_pending = filled == Filled::More;
        }
        if self.scratch.is_empty() {
            return Ok(());
        }
        let sent = write_some(&connection.stream, &self.scratch)?;
        self.totals.writes += 1;
        self.totals.written += sent as u64;
        if sent < self.scratch.len() {
            connection.writable = false;
            connection.unsent.keep(&self.scratch[sent..]);
            return Ok(());
        }
        if connection.fill_pending {
            self.writing.push(connection.conn);
        }
        if connection.readable && !connection.read_queued {
            // It wasn't read while it had too much to take.
            connection.read_queued = true;
            self.reading.push(connection.conn);
        }
        Ok(())
    }

    fn close_all(&mut self) {
        let mut closes = Vec::new();
        self.shard.take_closes(&mut closes);
        for Close { conn, reason } in closes {
            match self.take(conn) {
                Some(mut connection) => {
                    let mut last = Vec::new();
                    self.shard.fill(conn, &mut last, FILL_BYTES);
                    connection.unsent.push(&last);
                    self.start_close(*connection, (reason.code(), reason.text(), reason.label()));
                }
                None => self.shard.close(conn),
            }
        }
    }

    /// Ends a connection by the rules of its protocol. Code 0: the close is answered already.
    fn start_close(
        &mut self,
        connection: LiveConnection,
        (code, text, label): (u16, &str, &'static str),
    ) {
        let label = if code == 0 { "client_closed" } else { label };
        let LiveConnection { conn, stream, mut unsent, incoming, permit, .. } = connection;
        self.shard.close(conn);
        self.count -= 1;
        telemetry::connection_left(incoming.label());
        telemetry::connection_closed(label);
        if incoming.framing() == Framing::WebSocket && code != 0 {
            let mut frame = Vec::new();
            put_close(&mut frame, code, text);
            unsent.push(&frame);
        }
        self.lingering.add(self.poll.registry(), stream, (unsent, permit));
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
    }
}

/// Whether a connection goes on.
enum ReadOutcome {
    Continue,
    /// The socket is gone, for this reason.
    Gone(&'static str),
    /// It is to be closed with this code and text; 0 if the close is answered already.
    Close(u16, &'static str),
}

/// A socket to read from that counts.
struct CountingReader<'a>(&'a TcpStream, &'a mut u64);

impl io::Read for CountingReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut stream = self.0;
        let read = stream.read(into)?;
        *self.1 += read as u64;
        Ok(read)
    }
}
