//! What a worker calls for one connection (open, close, input) and for the whole shard (pull,
//! drain).
//!
//! A stale [`ConnId`] is ignored everywhere: the socket side may still name a connection that the
//! shard has closed.

use std::sync::Arc;

use tidewire_schemas::catalogue::Catalogue;

use super::conn::{Conn, FeedPhase};
use super::interface::{BadFrame, Close, OpenRequest};
use super::state::{ConnSlot, Shard};
use super::subscriptions::StreamStart;
use crate::fanout::config::SUBSCRIPTIONS_MAX;
use crate::fanout::identity::Identity;
use crate::fanout::messages::ConnId;
use crate::fanout::protocol::framing::Framing;
use crate::fanout::protocol::native::{CloseReason, ErrorCode, RequestError, StartAt};
use crate::fanout::protocol::served_channel::ServedChannel;
use crate::fanout::protocol::server_messages::ServerMessage;
use crate::record::MonotonicMillis;

impl Shard {
    /// Checks a subscription before its connection is opened, so that SSE can answer with an HTTP
    /// status.
    pub fn check(
        catalogue: &'static Catalogue,
        identity: &Identity,
        channel: &str,
        start: &StartAt,
    ) -> Result<(), RequestError> {
        if let StartAt::Token(token) = start {
            StartAt::parse(token)?;
        }
        ServedChannel::authorize(catalogue, identity, channel).map(drop)
    }

    /// Opens a connection. Its first `fill` gives `welcome` (WebSocket) or `retry:` (SSE).
    pub fn open(&mut self, open: OpenRequest) -> Result<ConnId, RequestError> {
        if self.draining || !self.hub.warm() || self.hub.problem().is_some() {
            let text = "the gateway is starting or stopping: try again in a moment";
            return Err(RequestError::new(ErrorCode::Overloaded, text));
        }
        if open.channels.len() > SUBSCRIPTIONS_MAX {
            let text = format!("a connection has at most {SUBSCRIPTIONS_MAX} subscriptions");
            return Err(RequestError::new(ErrorCode::TooManySubscriptions, text));
        }
        let catalogue = self.hub.config().catalogue;
        let served = |name: &String| ServedChannel::authorize(catalogue, &open.identity, name);
        let channels = open.channels.iter().map(served).collect::<Result<Vec<_>, _>>()?;
        let start = StreamStart { at: open.start, snapshot: open.snapshot };
        self.pull();
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(ConnSlot::default());
            (self.slots.len() - 1) as u32
        });
        let id = ConnId { slot, generation: self.slots[slot as usize].generation };
        self.websockets += usize::from(open.framing == Framing::WebSocket);
        let last_heard = match open.framing {
            Framing::WebSocket => self.now,
            // The client of a stream has nothing to send.
            Framing::Sse => MonotonicMillis(i64::MAX),
        };
        let conn = Conn::new(id, open.framing, open.identity, self.now);
        self.slots[slot as usize].conn = Some(Box::new(conn));
        self.slots[slot as usize].last_heard = last_heard;
        self.with_conn(id, |shard, conn| {
            shard.put_welcome(conn);
            shard.subscribe_all(conn, &channels, &start);
            conn.position_due = conn.framing == Framing::Sse;
        });
        self.ready.mark(slot);
        Ok(id)
    }

    fn put_welcome(&self, conn: &mut Conn) {
        let ConnId { slot, generation } = conn.id;
        let connection = format!("{}-{slot}-{generation}", self.inbox.shard);
        let welcome = ServerMessage::Welcome { connection: &connection, user: &conn.identity.user };
        welcome.put(conn.framing, &mut conn.control);
    }

    /// Forgets a connection whose socket is gone.
    pub fn close(&mut self, conn: ConnId) {
        let ended = self.with_conn(conn, |shard, conn| {
            for at in (0..conn.feeds.len()).rev() {
                shard.drop_feed(conn, at);
            }
            for at in (0..conn.subs.len()).rev() {
                shard.remove_sub(conn, at);
            }
            shard.subscriptions -= conn.channels as usize;
            conn.snapshots = None;
            shard.websockets -= usize::from(conn.framing == Framing::WebSocket);
            conn.control = Vec::new();
        });
        if ended.is_none() {
            return;
        }
        self.ready.forget(conn.slot);
        let slot = &mut self.slots[conn.slot as usize];
        slot.conn = None;
        slot.generation = conn.generation.wrapping_add(1);
        self.free.push(conn.slot);
    }

    /// Handles a text frame.
    pub fn input(&mut self, conn: ConnId, text: &str) {
        // `latest` is the hub's head, not an older one that this shard has seen.
        self.pull();
        self.mark_alive(conn);
        self.with_conn(conn, |shard, conn| {
            if conn.framing == Framing::WebSocket && !conn.closing {
                shard.handle_text(conn, text);
                shard.ready.mark(conn.id.slot);
            }
        });
    }

    /// Notes that something else arrived, a pong or a ping: the peer is alive.
    pub fn mark_alive(&mut self, conn: ConnId) {
        let now = self.now;
        let slot = self.slots.get_mut(conn.slot as usize);
        if let Some(slot) = slot.filter(|slot| slot.generation == conn.generation) {
            slot.last_heard = slot.last_heard.max(now);
        }
    }

    /// Bytes of small frames, such as answers, that wait to be written to a connection.
    pub fn waiting_bytes(&self, conn: ConnId) -> usize {
        self.conn(conn.slot).filter(|one| one.id == conn).map_or(0, |one| one.control.len())
    }

    /// Notes how many bytes a connection was given that its socket has not accepted. They are not
    /// read yet, and while there are any, the connection counts as waiting. Once there are none,
    /// call `fill` again.
    pub fn set_unsent(&mut self, conn: ConnId, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Some(one) = self.conn_mut(conn.slot).filter(|c| c.id == conn) else { return };
        one.window_bytes =
            (one.window_bytes.saturating_add(one.unsent_bytes)).saturating_sub(bytes);
        let accepted = bytes < std::mem::replace(&mut one.unsent_bytes, bytes);
        if accepted {
            self.mark_alive(conn);
        }
        if bytes > 0 {
            self.ready.hold(conn.slot);
        }
    }

    /// Closes a connection that sent a frame which is no text message.
    pub fn bad_frame(&mut self, conn: ConnId, bad: BadFrame) {
        let reason = match bad {
            BadFrame::NotText => CloseReason::ProtocolError,
            BadFrame::TooLarge => CloseReason::TooLarge,
        };
        self.with_conn(conn, |shard, conn| shard.end(conn, reason));
    }

    /// Reads what the hub and the sweeper have for this shard. Call it after the shard's wake.
    pub fn pull(&mut self) {
        let hub = Arc::clone(&self.hub);
        let update = hub.updates_since(|partition| self.mirror(partition).next_seq);
        self.apply_updates(update);
        self.mark_touched();
        for slot in std::mem::take(&mut self.awaiting_head) {
            self.ready.mark(slot);
        }
        for reply in self.inbox.take_replies() {
            self.receive_reply(reply);
        }
        for reply in self.inbox.take_snapshots() {
            self.receive_snapshot(reply);
        }
        if self.sweeper_generation != hub.sweeper_generation() {
            self.sweeper_generation = hub.sweeper_generation();
            self.request_again();
        }
    }

    /// A new sweeper knows nothing of what the one before was asked, so every waiting feed asks
    /// again.
    fn request_again(&mut self) {
        self.for_each_conn(|shard, conn| {
            for at in 0..conn.feeds.len() {
                if conn.feeds[at].phase == FeedPhase::Requested {
                    shard.cancel_request(conn, at);
                    conn.feeds[at].discard_replies();
                    shard.ready.mark(conn.id.slot);
                }
            }
        });
    }

    /// Moves the connections to close into `into`.
    pub fn take_closes(&mut self, into: &mut Vec<Close>) {
        into.append(&mut self.closes);
    }

    /// Closes every connection with 1001, so that clients resume elsewhere from their last
    /// position, and opens no new one.
    pub fn drain(&mut self) {
        self.draining = true;
        self.for_each_conn(|shard, conn| shard.end(conn, CloseReason::Drain));
    }
}
