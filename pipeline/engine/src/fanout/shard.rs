//! One worker thread's share of the connections. The thread owns the sockets and this value; every
//! method returns at once, and what is to be done comes back as values.
//!
//! The loop around it: `tick(now)`; `pull()` after its wake; `input`, `mark_alive`, `bad_frame` for
//! what came in; then `fill` for every connection of `take_ready`, and for those whose socket has
//! become writable after a [`Filled::More`]; then end what `take_closes` names.

pub(super) mod channels;
pub(super) mod conn;

mod catch_up;
mod follow;
mod ops;
mod ready;

use std::sync::Arc;

use super::config::{SILENT_CLOSE_MS, SSE_KEEPALIVE_MS, SUBSCRIPTIONS_MAX, WEBSOCKET_KEEPALIVE_MS};
use super::hub::{Hub, ShardInbox, lock};
use super::identity::Identity;
use super::offsets::{PartitionOffsets, token_of};
use super::protocol::frame;
use super::protocol::native::{CloseReason, ErrorCode, RequestError, StartAt, authorize_channel};
use crate::record::Millis;
use crate::telemetry;
use catch_up::WriteBudget;
use channels::Channels;
use conn::{Conn, FOLLOWS, FeedPhase};
use follow::{ListHead, RingMirror};
use ready::{ReadySet, ReadySince};

/// How a connection's frames are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// Complete unmasked WebSocket frames (RFC 6455), pings included.
    WebSocket,
    /// Blocks of `text/event-stream`, behind the response head, without chunked coding.
    Sse,
}

/// A connection of one shard. Slots are dense and reused, so they can index a table beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    /// The place in the shard's table.
    pub slot: u32,
    /// Tells the slot's owners apart.
    pub generation: u32,
}

/// A connection to open.
#[derive(Clone, Debug)]
pub struct OpenRequest {
    /// How its frames are written.
    pub framing: Framing,
    /// Who it is.
    pub identity: Arc<Identity>,
    /// Channels it is subscribed to from the start, all from one place. An SSE stream has no
    /// others.
    pub channels: Vec<String>,
    /// Where those start; a resuming SSE client's `Last-Event-ID` as [`StartAt::Token`].
    pub start: StartAt,
}

/// What the socket side found wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFrame {
    /// Binary, or no UTF-8, or a violation of RFC 6455: ends the connection with 4009.
    NotText,
    /// Above the limit: ends the connection with 1009.
    TooLarge,
}

/// Whether a connection has been given all it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// Yes; `take_ready` names it again when there is more.
    Drained,
    /// No: call `fill` again when the socket has taken what it was given.
    More,
}

/// A connection the shard wants ended. Write what `fill` still gives (a last error frame), then the
/// close frame, then call [`Shard::close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// Which.
    pub conn: ConnId,
    /// Code and text.
    pub reason: CloseReason,
}

/// Sums over a shard, for `/v1/stats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Open WebSocket connections.
    pub websockets: usize,
    /// Open SSE streams.
    pub streams: usize,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Distinct channels with a subscriber.
    pub channels: usize,
    /// Connections with something to read that was not fetched yet.
    pub backlogged: usize,
    /// Subscriptions catching up from the ring or the log.
    pub behind: usize,
    /// Event frames written, since the start.
    pub deliveries: u64,
    /// Bytes of all frames written, since the start.
    pub bytes: u64,
}

/// A place in the table of connections.
#[derive(Default)]
struct ConnSlot {
    generation: u32,
    conn: Option<Box<Conn>>,
}

/// A worker thread's share of the connections.
pub struct Shard {
    hub: Arc<Hub>,
    number: u32,
    inbox: Arc<ShardInbox>,
    slots: Vec<ConnSlot>,
    free: Vec<u32>,
    pub(super) channels: Channels,
    /// By partition.
    mirrors: Vec<RingMirror>,
    ready: ReadySet,
    /// Connections whose question the sweeper had no room for.
    retry: Vec<u32>,
    closes: Vec<Close>,
    now: Millis,
    /// Which sweeper knows what this shard has asked.
    sweeper_generation: u64,
    /// The last second keepalives were done for.
    second: i64,
    draining: bool,
    next_feed: u32,
    websockets: usize,
    subscriptions: usize,
    deliveries: u64,
    deliveries_reported: u64,
    bytes: u64,
    /// Scratch, empty between calls.
    heads: Vec<ListHead>,
    wanted_hashes: Vec<u64>,
}

impl Shard {
    pub(super) fn new(hub: Arc<Hub>, number: u32, inbox: Arc<ShardInbox>) -> Self {
        let mirrors = (0..hub.partitions()).map(|_| RingMirror::default()).collect();
        Self {
            hub,
            number,
            inbox,
            slots: Vec::new(),
            free: Vec::new(),
            channels: Channels::default(),
            mirrors,
            ready: ReadySet::default(),
            retry: Vec::new(),
            closes: Vec::new(),
            now: Millis(0),
            sweeper_generation: 0,
            second: 0,
            draining: false,
            next_feed: FOLLOWS + 1,
            websockets: 0,
            subscriptions: 0,
            deliveries: 0,
            deliveries_reported: 0,
            bytes: 0,
            heads: Vec::new(),
            wanted_hashes: Vec::new(),
        }
    }

    /// Judges a subscription before a connection is made of it, so that SSE can answer with an HTTP
    /// status.
    pub fn check(identity: &Identity, channel: &str, start: &StartAt) -> Result<(), RequestError> {
        if let StartAt::Token(token) = start {
            StartAt::parse(token)?;
        }
        authorize_channel(identity, channel).map(drop)
    }

    /// Opens a connection; `welcome` (WebSocket) or `retry:` (SSE) waits for the first `fill`.
    pub fn open(&mut self, open: OpenRequest) -> Result<ConnId, RequestError> {
        if self.draining || !self.hub.warm() {
            let text = "the gateway is starting or stopping: try again in a moment";
            return Err(RequestError::new(ErrorCode::Overloaded, text));
        }
        if open.channels.len() > SUBSCRIPTIONS_MAX {
            let text = format!("a connection has at most {SUBSCRIPTIONS_MAX} subscriptions");
            return Err(RequestError::new(ErrorCode::TooManySubscriptions, text));
        }
        let names = open.channels.iter().map(|name| authorize_channel(&open.identity, name));
        let names = names.collect::<Result<Vec<_>, _>>()?;
        self.pull();
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(ConnSlot::default());
            (self.slots.len() - 1) as u32
        });
        let id = ConnId { slot, generation: self.slots[slot as usize].generation };
        let mut conn = Box::new(Conn::new(id, open.framing, open.identity, self.now.0));
        ops::put_welcome(&mut conn, self.number);
        self.subscribe_all(&mut conn, &names, &open.start);
        conn.position_due = open.framing == Framing::Sse;
        self.websockets += usize::from(open.framing == Framing::WebSocket);
        self.slots[slot as usize].conn = Some(conn);
        self.ready.mark(slot);
        Ok(id)
    }

    /// The socket is gone: forgets the connection. A stale id is ignored, here and everywhere.
    pub fn close(&mut self, conn: ConnId) {
        let Some(mut conn) = self.take(conn) else { return };
        for at in (0..conn.feeds.len()).rev() {
            self.drop_feed(&mut conn, at);
        }
        for at in (0..conn.subs.len()).rev() {
            self.remove_sub(&mut conn, at);
        }
        let slot = conn.id.slot;
        self.websockets -= usize::from(conn.framing == Framing::WebSocket);
        self.ready.forget(slot);
        self.slots[slot as usize].generation = conn.id.generation.wrapping_add(1);
        self.free.push(slot);
    }

    /// A text frame arrived.
    pub fn input(&mut self, conn: ConnId, text: &str) {
        let Some(mut conn) = self.take(conn) else { return };
        conn.last_input_ms = self.now.0;
        if conn.framing == Framing::WebSocket && !conn.closing {
            self.handle_text(&mut conn, text);
            self.ready.mark(conn.id.slot);
        }
        self.put_conn(conn);
    }

    /// Something else arrived, a pong or a ping: the peer lives.
    pub fn mark_alive(&mut self, conn: ConnId) {
        let now = self.now.0;
        if let Some(conn) = self.conn_mut(conn.slot).filter(|c| c.id == conn) {
            conn.last_input_ms = now;
        }
    }

    /// A frame arrived that is no text message.
    pub fn bad_frame(&mut self, conn: ConnId, bad: BadFrame) {
        let Some(mut conn) = self.take(conn) else { return };
        self.end(
            &mut conn,
            match bad {
                BadFrame::NotText => CloseReason::ProtocolError,
                BadFrame::TooLarge => CloseReason::TooLarge,
            },
        );
        self.put_conn(conn);
    }

    /// Takes what the hub and the sweeps have for this shard. Call it after the shard's wake.
    pub fn pull(&mut self) {
        let hub = Arc::clone(&self.hub);
        for partition in 0..hub.partitions() {
            if let Some(update) =
                hub.update_since(partition, self.mirrors[partition as usize].next_seq)
            {
                self.apply_update(partition, update);
            }
        }
        self.mark_touched();
        let replies = std::mem::take(&mut *lock(&self.inbox.replies));
        for reply in replies {
            self.receive_reply(reply);
        }
        if self.sweeper_generation != hub.sweeper_generation() {
            self.sweeper_generation = hub.sweeper_generation();
            self.request_again();
        }
    }

    /// Sets the time and does what is due: keepalives, slow and silent connections. Call it in
    /// every round of the loop and at least once a second.
    pub fn tick(&mut self, now: Millis) {
        self.now = now;
        let second = now.0.div_euclid(1_000);
        let cycle = i64::from(WEBSOCKET_KEEPALIVE_MS / 1_000);
        if second <= self.second {
            return;
        }
        for due in self.second.max(second - cycle) + 1..=second {
            self.send_keepalives(due);
        }
        self.second = second;
        self.close_slow();
        for slot in std::mem::take(&mut self.retry) {
            self.ready.mark(slot);
        }
        telemetry::deliveries(self.deliveries - self.deliveries_reported);
        self.deliveries_reported = self.deliveries;
    }

    /// Keepalives are spread over the cycle by slot, so there is no timer per connection and no
    /// second in which all are due.
    fn send_keepalives(&mut self, second: i64) {
        let websocket = i64::from(WEBSOCKET_KEEPALIVE_MS / 1_000);
        let sse = i64::from(SSE_KEEPALIVE_MS / 1_000);
        let first = second.rem_euclid(sse) as usize;
        for slot in (first..self.slots.len()).step_by(sse as usize) {
            let Some(mut conn) = self.take_conn(slot as u32) else { continue };
            let due = match conn.framing {
                Framing::WebSocket => slot as i64 % websocket == second.rem_euclid(websocket),
                Framing::Sse => true,
            };
            if due && !conn.closing {
                if conn.framing == Framing::WebSocket {
                    frame::put_ping(&mut conn.control);
                    if self.now.0 - conn.last_input_ms > i64::from(SILENT_CLOSE_MS) {
                        self.end(&mut conn, CloseReason::Silent);
                    }
                }
                conn.position_due = true;
                self.ready.mark(slot as u32);
            }
            self.put_conn(conn);
        }
    }

    /// Ends connections that had more to read for a whole window and took too little of it.
    fn close_slow(&mut self) {
        let window = i64::from(self.hub.config().slow_window_ms);
        let enough = self.hub.config().slow_min_bytes;
        for (slot, since) in self.ready.waiting() {
            let Some(mut conn) = self.take_conn(slot) else { continue };
            let over = self.now.0 - conn.window_ms >= window;
            if !conn.closing && since == ReadySince::Before && over && conn.window_bytes < enough {
                self.end(&mut conn, CloseReason::Slow);
            }
            if since == ReadySince::Now || over {
                conn.window_ms = self.now.0;
                conn.window_bytes = 0;
            }
            self.put_conn(conn);
        }
    }

    /// Moves the connections with something to write into `into`; each is named once until its
    /// `fill` says [`Filled::Drained`].
    pub fn take_ready(&mut self, into: &mut Vec<ConnId>) {
        for slot in self.ready.drain() {
            if let Some(conn) = &self.slots[slot as usize].conn {
                into.push(conn.id);
            }
        }
    }

    /// Appends what the connection is due to `out`, up to about `budget` bytes (one frame at
    /// least), ready for one write.
    pub fn fill(&mut self, conn: ConnId, out: &mut Vec<u8>, budget: usize) -> Filled {
        let Some(mut conn) = self.take(conn) else { return Filled::Drained };
        let from = out.len();
        let filled = self.fill_conn(&mut conn, out, budget);
        let written = out.len() - from;
        self.bytes += written as u64;
        conn.window_bytes = conn.window_bytes.saturating_add(written as u32);
        if filled == Filled::Drained {
            self.ready.clear(conn.id.slot);
        }
        self.put_conn(conn);
        filled
    }

    fn fill_conn(&mut self, conn: &mut Conn, out: &mut Vec<u8>, budget: usize) -> Filled {
        let from = out.len();
        if !conn.closing {
            self.route_feeds(conn);
        }
        out.append(&mut conn.control);
        conn.control = Vec::new();
        // An SSE stream's token speaks for all its partitions, so none is written before all have
        // a place.
        let unplaced = conn.framing == Framing::Sse && conn.feeds.iter().any(|feed| !feed.started);
        if conn.closing || unplaced {
            return Filled::Drained;
        }
        let epoch = self.hub.epoch();
        if conn.framing == Framing::Sse && std::mem::take(&mut conn.position_due) {
            self.refresh_offsets(conn);
            frame::put_position(conn.framing, &token_of(epoch, &conn.partition_offsets), out);
        }
        let mut all = WriteBudget { out, end: from + budget, epoch };
        let mut more = false;
        if !conn.feeds.is_empty() {
            // What is live goes on beside what is old: each gets half.
            let mut half = WriteBudget { out: all.out, end: from + budget / 2, epoch };
            self.fill_following(conn, &mut half);
            more = self.fill_feeds(conn, &mut all);
        }
        more |= self.fill_following(conn, &mut all);
        if more {
            return Filled::More;
        }
        self.put_reached_position(conn, out);
        Filled::Drained
    }

    /// A connection that has been given everything stands at the hub's heads. It is told so if it
    /// is due; on a WebSocket only while nothing is behind, because one position would not be
    /// right for all its channels.
    fn put_reached_position(&mut self, conn: &mut Conn, out: &mut Vec<u8>) {
        if conn.framing == Framing::Sse {
            self.refresh_offsets(conn);
            return;
        }
        if !std::mem::take(&mut conn.position_due) || !conn.feeds.is_empty() {
            return;
        }
        let mut reached: Vec<(u32, PartitionOffsets)> = Vec::with_capacity(conn.subs.len());
        for sub in &conn.subs {
            let partition = self.channels.list(sub.list).partition;
            reached.push((partition, self.mirrors[partition as usize].head));
        }
        reached.sort_unstable_by_key(|(partition, _)| *partition);
        reached.dedup_by_key(|(partition, _)| *partition);
        if !reached.is_empty() {
            frame::put_position(conn.framing, &token_of(self.hub.epoch(), &reached), out);
        }
    }

    /// Moves the connections to end into `into`.
    pub fn take_closes(&mut self, into: &mut Vec<Close>) {
        into.append(&mut self.closes);
    }

    /// Begins the end: every connection is closed with 1001, to resume elsewhere from its
    /// last position, and no new one is opened.
    pub fn drain(&mut self) {
        self.draining = true;
        for slot in 0..self.slots.len() {
            let Some(mut conn) = self.take_conn(slot as u32) else { continue };
            self.end(&mut conn, CloseReason::Drain);
            self.put_conn(conn);
        }
    }

    /// Sums.
    pub fn stats(&self) -> ShardStats {
        let open = self.slots.len() - self.free.len();
        let conns = || self.slots.iter().filter_map(|slot| slot.conn.as_ref());
        ShardStats {
            websockets: self.websockets,
            streams: open - self.websockets,
            subscriptions: self.subscriptions,
            channels: self.channels.len(),
            backlogged: self.ready.count(),
            behind: conns().flat_map(|c| &c.subs).filter(|sub| sub.feed != FOLLOWS).count(),
            deliveries: self.deliveries,
            bytes: self.bytes,
        }
    }

    /// Marks a connection to be ended, once.
    fn end(&mut self, conn: &mut Conn, reason: CloseReason) {
        if !conn.closing {
            conn.closing = true;
            self.closes.push(Close { conn: conn.id, reason });
            self.ready.mark(conn.id.slot);
            telemetry::connections_closed(reason.label());
        }
    }

    fn new_feed_number(&mut self) -> u32 {
        let number = self.next_feed;
        self.next_feed = number.checked_add(1).unwrap_or(FOLLOWS + 1);
        number
    }

    /// What the last sweeper was asked is lost with it.
    fn request_again(&mut self) {
        for slot in 0..self.slots.len() as u32 {
            let Some(mut conn) = self.take_conn(slot) else { continue };
            for at in 0..conn.feeds.len() {
                if conn.feeds[at].phase == FeedPhase::Requested {
                    self.cancel_request(&conn, at);
                    conn.feeds[at].discard_replies();
                    self.ready.mark(slot);
                }
            }
            self.put_conn(conn);
        }
    }

    pub(super) fn conn(&self, slot: u32) -> Option<&Conn> {
        self.slots.get(slot as usize)?.conn.as_deref()
    }

    fn conn_mut(&mut self, slot: u32) -> Option<&mut Conn> {
        self.slots.get_mut(slot as usize)?.conn.as_deref_mut()
    }

    /// Takes a connection out of the table, to work on it beside the table; `put_conn` puts it
    /// back.
    fn take_conn(&mut self, slot: u32) -> Option<Box<Conn>> {
        self.slots.get_mut(slot as usize)?.conn.take()
    }

    fn put_conn(&mut self, conn: Box<Conn>) {
        let slot = conn.id.slot as usize;
        self.slots[slot].conn = Some(conn);
    }

    fn take(&mut self, conn: ConnId) -> Option<Box<Conn>> {
        let slot = self.slots.get_mut(conn.slot as usize)?;
        if slot.generation != conn.generation {
            return None;
        }
        slot.conn.take()
    }
}
