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
use tidewire_engine::fanout::protocol::CloseReason;
use tidewire_engine::fanout::shard::{BadFrame, Close, ConnId, Filled, ShardStats, Wire};
use tidewire_engine::port::{Clock, Wake as _};

use super::drain::{Draining, Due};
use super::linger::{FIRST_TOKEN, LINGER, Lingering};
use super::peer::{Incoming, Peer, Unsent, read_some, write_some};
use super::serve::Departure;
use super::streams::Streams;
use super::waking::{Command, Waking};
use super::websocket::{Heard, Inbound, TOO_LARGE, put_close, put_text};
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
const SSE_INCOMING_BYTES: usize = 64 * 1_024;

/// The kernel's buffer of one connection (Linux doubles it for its own bookkeeping).
const SEND_BUFFER_BYTES: usize = 128 * 1_024;

/// The longest wait, so that time passes for the shard even when nothing happens.
const ROUND: Duration = Duration::from_millis(500);

/// The same while draining, which has a timetable.
const DRAIN_ROUND: Duration = Duration::from_millis(20);

/// How long written bytes may stay unacknowledged, or a client's window shut, before the kernel
/// gives the connection up. It ends half-open streams that have nothing to say to us.
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

/// The waker's token; connections' tokens are their slots.
pub const WAKE: Token = Token(usize::MAX);

/// What a turn moved, told to the metrics once.
#[derive(Debug, Default)]
struct Tally {
    writes: u64,
    written: u64,
    read: u64,
}

/// The loop's state.
pub struct EventLoop<S> {
    streams: S,
    poll: Poll,
    inbox: Receiver<Command>,
    waking: Arc<Waking>,
    clock: Arc<dyn Clock>,
    /// By the shard's slot.
    peers: Vec<Option<Box<Peer>>>,
    count: usize,
    /// Connections whose socket may hold more to read.
    reading: Vec<ConnId>,
    /// Connections to fill and write in this turn.
    writing: Vec<ConnId>,
    lingering: Lingering,
    /// Where everything that is written is gathered.
    scratch: Vec<u8>,
    tally: Tally,
    draining: Option<Draining>,
}

impl<S: Streams> EventLoop<S> {
    /// A worker of no connections, around a poll in which `waking` is registered as [`WAKE`].
    pub fn new(
        streams: S,
        poll: Poll,
        (inbox, waking): (Receiver<Command>, Arc<Waking>),
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            streams,
            poll,
            inbox,
            waking,
            clock,
            peers: Vec::new(),
            count: 0,
            reading: Vec::new(),
            writing: Vec::new(),
            lingering: Lingering::default(),
            scratch: Vec::with_capacity(FILL_BYTES),
            tally: Tally::default(),
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
                () if self.draining.is_some() => DRAIN_ROUND,
                () => ROUND,
            };
            if let Err(error) = self.poll.poll(&mut events, Some(wait))
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "a worker's poll failed: its streams are closed");
                return;
            }
            self.turn(&events);
            if begun.elapsed() >= ROUND {
                begun = clock::now();
                self.lingering.expire(begun);
                self.tell(stats);
            }
        }
        self.tell(stats);
    }

    fn is_over(&self, now: Instant) -> bool {
        let Some(draining) = &self.draining else { return false };
        let is_empty = self.count == 0 && self.lingering.is_empty();
        is_empty || draining.is_over(now, 2 * LINGER)
    }

    fn turn(&mut self, events: &Events) {
        for event in events {
            match event.token() {
                WAKE => {}
                Token(lingering) if lingering >= FIRST_TOKEN => self.lingering.advance(lingering),
                Token(slot) => {
                    let readable =
                        event.is_readable() || event.is_read_closed() || event.is_error();
                    self.note(slot, (readable, event.is_writable()));
                }
            }
        }
        self.waking.seen();
        // Before anyone is adopted: a connection's age counts from the time the shard knows.
        self.streams.tick(self.clock.now());
        self.obey();
        self.streams.pull();
        self.go_on_draining();
        self.read_all();
        self.write_all();
        self.close_all();
        telemetry::socket_io((self.tally.writes, self.tally.written), self.tally.read);
        self.tally = Tally::default();
    }

    fn note(&mut self, slot: usize, (readable, writable): (bool, bool)) {
        let Some(Some(peer)) = self.peers.get_mut(slot) else { return };
        peer.readable |= readable;
        if readable && !peer.queued {
            peer.queued = true;
            self.reading.push(peer.conn);
        }
        if writable && !peer.writable {
            peer.writable = true;
            if peer.owed || !peer.unsent.is_empty() {
                self.writing.push(peer.conn);
            }
        }
    }

    fn obey(&mut self) {
        for _ in 0..ADOPTED_PER_TURN {
            match self.inbox.try_recv() {
                Ok(Command::Adopt(departure)) => self.adopt(*departure),
                Ok(Command::Drain(window)) => {
                    self.draining = Some(Draining::begin(clock::now(), window));
                }
                Err(_) => return,
            }
        }
        // More may be waiting: come back at once.
        self.waking.wake();
    }

    fn go_on_draining(&mut self) {
        let Some(draining) = &mut self.draining else { return };
        match draining.due(clock::now(), self.peers.len()) {
            Due::Nothing => {}
            Due::Close => self.streams.drain(),
            Due::Move { from, to, within_ms } => {
                let text = format!(r#"{{"op":"move","within_ms":{within_ms}}}"#);
                for peer in self.peers[from..to].iter_mut().flatten() {
                    if matches!(peer.incoming, Incoming::WebSocket(_)) {
                        let mut frame = Vec::new();
                        put_text(&mut frame, &text);
                        peer.unsent.push(&frame);
                        self.writing.push(peer.conn);
                    }
                }
            }
        }
    }

    fn adopt(&mut self, departure: Departure) {
        let Departure { stream, read_ahead, takeover, seat } = departure;
        let socket = SockRef::from(&stream);
        // A slow client's arrears belong in the log, not in the kernel's memory.
        let set = socket
            .set_send_buffer_size(SEND_BUFFER_BYTES)
            .and_then(|()| socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED)));
        if let Err(error) = set {
            tracing::debug!(%error, "a socket keeps the system's own limits");
        }
        let mut stream = TcpStream::from_std(stream);
        let wire = takeover.open.wire;
        let mut unsent = Unsent::default();
        unsent.push(&takeover.head);
        let opened = match self.draining {
            None => self.streams.open(takeover.open).map_err(|_| CloseReason::Overloaded),
            Some(_) => Err(CloseReason::Drain),
        };
        let token = Token(opened.map_or(FIRST_TOKEN, |conn| conn.slot as usize));
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut stream, token, interest) {
            tracing::warn!(%error, "a connection could not be watched");
            telemetry::connection_refused("epoll");
            opened.into_iter().for_each(|conn| self.streams.close(conn));
            return;
        }
        let conn = match opened {
            Ok(conn) => conn,
            Err(reason) => {
                telemetry::connection_refused(reason.label());
                if wire == Wire::WebSocket {
                    let mut frame = Vec::new();
                    put_close(&mut frame, reason.code(), reason.text());
                    unsent.push(&frame);
                }
                return self.lingering.add(self.poll.registry(), stream, (unsent, seat));
            }
        };
        let incoming = match wire {
            Wire::WebSocket => {
                Incoming::WebSocket(Inbound::with_read_ahead(&read_ahead, CLIENT_FRAME_MAX_BYTES))
            }
            Wire::Sse => Incoming::Sse(read_ahead.len()),
        };
        telemetry::connection_opened(incoming.label());
        self.settle(Peer::new(conn, stream, (unsent, incoming), seat));
    }

    /// Gives a new peer its place, to be read and written in this very turn.
    fn settle(&mut self, peer: Peer) {
        let conn = peer.conn;
        let slot = conn.slot as usize;
        if slot >= self.peers.len() {
            self.peers.resize_with(slot + 1, || None);
        }
        self.peers[slot] = Some(Box::new(peer));
        self.count += 1;
        self.reading.push(conn);
        self.writing.push(conn);
    }

    fn read_all(&mut self) {
        for conn in std::mem::take(&mut self.reading) {
            let Some(mut peer) = self.take(conn) else { continue };
            peer.queued = false;
            match self.read(&mut peer) {
                Alive::Yes => {
                    let more = peer.readable && !peer.deaf && peer.unsent.len() <= UNSENT_BYTES;
                    if more {
                        peer.queued = true;
                        self.reading.push(conn);
                    }
                    self.put(peer);
                }
                Alive::No(reason) => self.forget(*peer, reason),
                Alive::Ending(code, text) => self.end(*peer, (code, text, "protocol_error")),
            }
        }
    }

    /// One connection's share of reading.
    fn read(&mut self, peer: &mut Peer) -> Alive {
        if peer.deaf || peer.unsent.len() > UNSENT_BYTES {
            return Alive::Yes;
        }
        match &mut peer.incoming {
            Incoming::Sse(_) => self.read_sse(peer),
            Incoming::WebSocket(_) => self.read_websocket(peer),
        }
    }

    fn read_sse(&mut self, peer: &mut Peer) -> Alive {
        let mut nowhere = [0; 4_096];
        let read = read_some(&peer.stream, &mut nowhere);
        let Incoming::Sse(total) = &mut peer.incoming else { return Alive::Yes };
        match read {
            Ok(None) => peer.readable = false,
            Ok(Some(0)) | Err(_) => return Alive::No("client_left"),
            Ok(Some(count)) => {
                self.tally.read += count as u64;
                *total += count;
                if *total > SSE_INCOMING_BYTES {
                    return Alive::No("protocol_error");
                }
            }
        }
        Alive::Yes
    }

    fn read_websocket(&mut self, peer: &mut Peer) -> Alive {
        let Incoming::WebSocket(inbound) = &mut peer.incoming else { return Alive::Yes };
        let mut replies = Vec::new();
        let mut alive = Alive::Yes;
        for _ in 0..MESSAGES_PER_TURN {
            let from = Counted(&peer.stream, &mut self.tally.read);
            match inbound.hear(from, &mut replies, CLIENT_FRAME_MAX_BYTES) {
                Heard::Text(text) => self.streams.input(peer.conn, &text),
                Heard::Alive => self.streams.heard(peer.conn),
                Heard::Nothing => {
                    peer.readable = false;
                    break;
                }
                Heard::Binary => {
                    peer.deaf = true;
                    self.streams.bad_frame(peer.conn, BadFrame::NotText);
                    break;
                }
                Heard::Broken(TOO_LARGE, _) => {
                    peer.deaf = true;
                    self.streams.bad_frame(peer.conn, BadFrame::TooLarge);
                    break;
                }
                Heard::Closed => {
                    alive = Alive::Ending(0, "");
                    break;
                }
                Heard::Broken(code, text) => {
                    alive = Alive::Ending(code, text);
                    break;
                }
                Heard::Gone => return Alive::No("client_left"),
            }
        }
        if !replies.is_empty() {
            peer.unsent.push(&replies);
            self.writing.push(peer.conn);
        }
        alive
    }

    fn write_all(&mut self) {
        let mut due = std::mem::take(&mut self.writing);
        let named = due.len();
        self.streams.take_ready(&mut due);
        for (n, conn) in due.into_iter().enumerate() {
            let Some(mut peer) = self.take(conn) else { continue };
            peer.owed |= n >= named;
            match self.write(&mut peer) {
                Ok(()) => self.put(peer),
                Err(_) => self.forget(*peer, "client_left"),
            }
        }
    }

    /// One connection's share of writing: what was left, then what is due, in one write.
    fn write(&mut self, peer: &mut Peer) -> io::Result<()> {
        if !peer.writable {
            return Ok(());
        }
        self.scratch.clear();
        peer.unsent.move_to(&mut self.scratch);
        if peer.owed && self.scratch.len() < FILL_BYTES {
            let filled = self.streams.fill(peer.conn, &mut self.scratch, FILL_BYTES);
            peer.owed = filled == Filled::More;
        }
        if self.scratch.is_empty() {
            return Ok(());
        }
        let sent = write_some(&peer.stream, &self.scratch)?;
        self.tally.writes += 1;
        self.tally.written += sent as u64;
        if sent < self.scratch.len() {
            peer.writable = false;
            peer.unsent.keep(&self.scratch[sent..]);
            return Ok(());
        }
        if peer.owed {
            self.writing.push(peer.conn);
        }
        if peer.readable && !peer.queued {
            // It wasn't read while it had too much to take.
            peer.queued = true;
            self.reading.push(peer.conn);
        }
        Ok(())
    }

    fn close_all(&mut self) {
        let mut closes = Vec::new();
        self.streams.take_closes(&mut closes);
        for Close { conn, reason } in closes {
            match self.take(conn) {
                Some(mut peer) => {
                    let mut last = Vec::new();
                    self.streams.fill(conn, &mut last, FILL_BYTES);
                    peer.unsent.push(&last);
                    self.end(*peer, (reason.code(), reason.text(), reason.label()));
                }
                None => self.streams.close(conn),
            }
        }
    }

    /// Ends a connection by the rules of its protocol. Code 0: the close is answered already.
    fn end(&mut self, peer: Peer, (code, text, label): (u16, &str, &'static str)) {
        let label = if code == 0 { "client_closed" } else { label };
        let Peer { conn, stream, mut unsent, incoming, seat, .. } = peer;
        self.streams.close(conn);
        self.count -= 1;
        telemetry::connection_left(incoming.label());
        telemetry::connection_closed(label);
        if incoming.wire() == Wire::WebSocket && code != 0 {
            let mut frame = Vec::new();
            put_close(&mut frame, code, text);
            unsent.push(&frame);
        }
        self.lingering.add(self.poll.registry(), stream, (unsent, seat));
    }

    /// The socket is gone.
    fn forget(&mut self, peer: Peer, reason: &'static str) {
        self.streams.close(peer.conn);
        self.count -= 1;
        telemetry::connection_left(peer.incoming.label());
        telemetry::connection_closed(reason);
    }

    fn take(&mut self, conn: ConnId) -> Option<Box<Peer>> {
        let place = self.peers.get_mut(conn.slot as usize)?;
        place.take_if(|peer| peer.conn == conn)
    }

    fn put(&mut self, peer: Box<Peer>) {
        let slot = peer.conn.slot as usize;
        self.peers[slot] = Some(peer);
    }

    fn tell(&self, stats: &Mutex<ShardStats>) {
        *stats.lock().unwrap_or_else(PoisonError::into_inner) = self.streams.stats();
    }
}

/// Whether a connection goes on.
enum Alive {
    Yes,
    /// The socket is gone, for this reason.
    No(&'static str),
    /// It is to be closed with this code and text; 0 if the close is answered already.
    Ending(u16, &'static str),
}

/// A socket to read from that counts.
struct Counted<'a>(&'a TcpStream, &'a mut u64);

impl io::Read for Counted<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut stream = self.0;
        let read = stream.read(into)?;
        *self.1 += read as u64;
        Ok(read)
    }
}
