//! Writes what a connection is due into the caller's buffer, up to a byte budget.
//!
//! Order: small frames first, then what feeds and snapshots have (old events and state) and what
//! lists have (what is new). While a connection has feeds or snapshots, lists get half of the
//! budget, so that a long catch-up does not hold up what is new, and feeds and snapshots come first
//! in turn. A budget of one frame goes to either in turn.

use super::conn::Conn;
use super::interface::Filled;
use super::state::Shard;
use crate::fanout::messages::ConnId;
use crate::fanout::offsets::{PartitionOffsets, token, token_of};
use crate::fanout::out_buffer::OutBuffer;
use crate::fanout::protocol::framing::Framing;
use crate::fanout::protocol::server_messages::ServerMessage;
use crate::record::Partition;
use crate::telemetry;

/// The buffer to fill and how much may go into it.
pub(super) struct WriteBudget<'a> {
    pub(super) out: &'a mut OutBuffer,
    /// The length of `out` from which no further frame is written.
    pub(super) end: usize,
    pub(super) epoch: u32,
}

impl WriteBudget<'_> {
    pub(super) fn is_spent(&self) -> bool {
        self.out.len() >= self.end
    }
}

impl Shard {
    /// Moves the connections with something to write into `into`; each is named once until its
    /// `fill` returns [`Filled::Drained`].
    pub fn take_ready(&mut self, into: &mut Vec<ConnId>) {
        for slot in self.ready.drain() {
            if let Some(conn) = &self.slots[slot as usize].conn {
                into.push(conn.id);
            }
        }
    }

    /// Appends what the connection is due to `out`, up to about `budget` bytes (one frame at
    /// least), ready for one write.
    pub fn fill(&mut self, conn: ConnId, out: &mut OutBuffer, budget: usize) -> Filled {
        let filled = self.with_conn(conn, |shard, conn| {
            let from = out.len();
            let filled = shard.fill_conn(conn, out, budget);
            let written = out.len() - from;
            shard.bytes += written as u64;
            conn.window_bytes = conn.window_bytes.saturating_add(written as u32);
            if filled == Filled::Drained {
                shard.ready.clear(conn.id.slot);
            }
            filled
        });
        filled.unwrap_or(Filled::Drained)
    }

    fn fill_conn(&mut self, conn: &mut Conn, out: &mut OutBuffer, budget: usize) -> Filled {
        let from = out.len();
        if !conn.closing {
            self.route_feeds(conn);
        }
        out.own_mut().append(&mut conn.control);
        conn.control = Vec::new();
        // An SSE token covers all partitions of the stream, so none is written before every feed
        // has its start resolved.
        let unresolved =
            conn.framing == Framing::Sse && conn.feeds.iter().any(|feed| !feed.is_resolved());
        if conn.closing || unresolved {
            return Filled::Drained;
        }
        let epoch = self.epoch;
        if conn.framing == Framing::Sse && std::mem::take(&mut conn.position_due) {
            self.put_stream_position(conn, out.own_mut());
        }
        let mut all = WriteBudget { out, end: from + budget, epoch };
        let mut more = false;
        if !conn.feeds.is_empty() || conn.awaits_snapshot() {
            conn.lists_first = !conn.lists_first;
            let share = if conn.lists_first { budget.div_ceil(2) } else { budget / 2 };
            let mut half = WriteBudget { out: all.out, end: from + share, epoch };
            self.fill_following(conn, &mut half);
            if conn.lists_first {
                more |= self.fill_feeds(conn, &mut all);
                more |= self.fill_snapshots(conn, &mut all);
            } else {
                more |= self.fill_snapshots(conn, &mut all);
                more |= self.fill_feeds(conn, &mut all);
            }
        }
        more |= self.fill_following(conn, &mut all);
        if more {
            return Filled::More;
        }
        self.put_reached_position(conn, out);
        Filled::Drained
    }

    /// Writes the position of an SSE stream. The first one is that which the client asked for if
    /// there are gaps behind it, so that a client that is cut off before them gets them again.
    fn put_stream_position(&self, conn: &mut Conn, out: &mut Vec<u8>) {
        self.refresh_offsets(conn);
        let position = token_of(self.epoch, &conn.partition_offsets);
        (conn.has_begun, conn.position_moved) = (true, false);
        let Some(gaps) = conn.start_gaps.take() else {
            return ServerMessage::Position(&position).put(conn.framing, out);
        };
        ServerMessage::Position(&gaps.from).put(conn.framing, out);
        for (at, (list, reason)) in gaps.lists.iter().enumerate() {
            let list = self.channels.list(*list);
            let offsets = conn.partition_offsets.iter().find(|(p, _)| *p == list.partition);
            let Some((partition, offsets)) = offsets else { continue };
            let to = token(self.epoch, *partition, offsets);
            if at == gaps.lists.len() - 1 {
                ServerMessage::put_block_id(&position, out);
            }
            telemetry::gaps(reason.as_str());
            let (channel, reason, from) = (&*list.name, *reason, &*gaps.from);
            ServerMessage::Gap { channel, reason, from, to: &to }.put(conn.framing, out);
        }
    }

    /// Writes the position of a connection that has been given everything, if one is due: the hub's
    /// heads. On a WebSocket only while nothing is behind, because one position would not be right
    /// for all its channels.
    fn put_reached_position(&mut self, conn: &mut Conn, out: &mut OutBuffer) {
        if conn.framing == Framing::Sse {
            self.refresh_offsets(conn);
            return;
        }
        if !std::mem::take(&mut conn.position_due) || !conn.feeds.is_empty() {
            return;
        }
        let mut reached: Vec<(Partition, PartitionOffsets)> = Vec::with_capacity(conn.subs.len());
        for sub in &conn.subs {
            let partition = self.channels.list(sub.list).partition;
            reached.push((partition, self.mirror(partition).head));
        }
        reached.sort_unstable_by_key(|(partition, _)| *partition);
        reached.dedup_by_key(|(partition, _)| *partition);
        if !reached.is_empty() {
            let position = token_of(self.epoch, &reached);
            ServerMessage::Position(&position).put(conn.framing, out.own_mut());
        }
    }
}
