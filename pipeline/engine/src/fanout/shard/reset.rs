//! Applies what the rings have gained, and announces when their offsets mean other records.
//!
//! The hub resets rings when the output topics were created again, or when the log lost records
//! that were read. What a connection was not given yet can't be read any more, so each subscription
//! concerned gets a gap and continues at the new head. Its feeds are dropped: they read the log at
//! offsets of the former records.

use super::channels::ListSource;
use super::conn::{Conn, FeedProgress, Mode, Subscription};
use super::state::Shard;
use crate::fanout::messages::{FeedStart, HubUpdate, RingUpdate};
use crate::fanout::offsets::{PartitionOffsets, token, token_of};
use crate::fanout::protocol::framing::Framing;
use crate::fanout::protocol::names::GapReason;
use crate::fanout::protocol::server_messages::ServerMessage;
use crate::fanout::protocol::snapshot_frame::SnapshotKind;
use crate::record::Partition;
use crate::telemetry;

/// Rings that begin again.
struct RingResets {
    /// The epoch of the new offsets.
    epoch: u32,
    heads: Vec<(Partition, PartitionOffsets)>,
}

impl RingResets {
    fn head(&self, partition: Partition) -> Option<PartitionOffsets> {
        self.heads.iter().find(|(of, _)| *of == partition).map(|(_, head)| *head)
    }
}

impl Shard {
    /// Applies an update of the rings.
    pub(super) fn apply_updates(&mut self, update: HubUpdate) {
        let HubUpdate { epoch, rings } = update;
        let is_reset = |(partition, ring): &&(Partition, RingUpdate)| {
            ring.resets != self.mirror(*partition).resets
        };
        let reset = rings.iter().filter(is_reset);
        let heads: Vec<_> = reset.map(|(partition, ring)| (*partition, ring.before)).collect();
        if !heads.is_empty() {
            let resets = RingResets { epoch, heads };
            self.for_each_conn(|shard, conn| shard.announce_reset(conn, &resets));
            for (partition, head) in &resets.heads {
                for id in self.channels.of_partition(*partition) {
                    let list = self.channels.list_mut(id);
                    list.drop_before(list.end());
                }
                let mirror = self.mirror_mut(*partition);
                mirror.segments.clear();
                mirror.head = *head;
            }
        }
        self.epoch = epoch;
        for (partition, ring) in rings {
            let mirror = self.mirror_mut(partition);
            if mirror.resets != ring.resets {
                mirror.resets = ring.resets;
                mirror.front_seq = ring.floor_seq;
                mirror.next_seq = ring.floor_seq;
            }
            self.apply_update(partition, ring);
        }
    }

    /// Moves a connection's subscriptions in reset rings to the new heads, with a gap for each.
    fn announce_reset(&mut self, conn: &mut Conn, resets: &RingResets) {
        let former = token_of(self.epoch, &conn.partition_offsets);
        let mut gaps = Vec::new();
        for at in 0..conn.subs.len() {
            let list = self.channels.list(conn.subs[at].list);
            let (partition, end) = (list.partition, list.end());
            let Some(head) = resets.head(partition) else { continue };
            if list.source == ListSource::State {
                self.await_snapshot(conn, at, SnapshotKind::Replacing);
                continue;
            }
            let offsets = self.offsets_of(conn, &conn.subs[at]);
            let from = token(self.epoch, partition, &offsets);
            let to = token(resets.epoch, partition, &head);
            self.answer_unresolved(conn, at, &from);
            conn.set_offsets(partition, head);
            conn.subs[at].mode = Mode::Following { cursor: end };
            gaps.push((conn.subs[at].list, from, to));
        }
        if gaps.is_empty() {
            return;
        }
        for at in (0..conn.feeds.len()).rev() {
            if resets.head(conn.feeds[at].partition).is_some() {
                self.drop_feed(conn, at);
            }
        }
        if conn.framing == Framing::Sse && !conn.has_begun {
            // Nothing is written before the stream's first position.
            for (list, ..) in gaps {
                conn.add_start_gap(&former, list, GapReason::Epoch);
            }
        } else {
            let last = gaps.len() - 1;
            for (at, (list, from, to)) in gaps.iter().enumerate() {
                if conn.framing == Framing::Sse && at == last {
                    let position = token_of(resets.epoch, &conn.partition_offsets);
                    ServerMessage::put_block_id(&position, &mut conn.control);
                }
                telemetry::gaps(GapReason::Epoch.as_str());
                let (channel, reason) = (&*self.channels.list(*list).name, GapReason::Epoch);
                let gap = ServerMessage::Gap { channel, reason, from, to };
                gap.put(conn.framing, &mut conn.control);
            }
        }
        self.ready.mark(conn.id.slot);
    }

    /// Answers the request of a WebSocket's subscription whose start is not resolved yet.
    fn answer_unresolved(&self, conn: &mut Conn, sub: usize, from: &str) {
        let Conn { subs, feeds, control, framing, .. } = conn;
        let Mode::Behind(number) = subs[sub].mode else { return };
        let Some(feed) = feeds.iter_mut().find(|feed| feed.number == number) else { return };
        if feed.is_resolved() || *framing == Framing::Sse {
            return;
        }
        let reply = feed.reply.take();
        let channel = &*self.channels.list(subs[sub].list).name;
        let ok = ServerMessage::Ok { id: reply.as_deref(), channel, position: Some(from) };
        ok.put(*framing, control);
    }

    /// How far a subscription has got.
    fn offsets_of(&self, conn: &Conn, sub: &Subscription) -> PartitionOffsets {
        let list = self.channels.list(sub.list);
        let mirror = self.mirror(list.partition);
        match sub.mode {
            Mode::Following { cursor } | Mode::Snapshot { cursor } => {
                let next = list.get(cursor).and_then(|reference| mirror.entry(reference));
                next.map_or(mirror.head, |entry| entry.before())
            }
            Mode::Behind(number) => {
                let feed = conn.feeds.iter().find(|feed| feed.number == number);
                match feed.map(|feed| feed.progress) {
                    Some(FeedProgress::At(offsets)) => offsets,
                    Some(FeedProgress::Unresolved(FeedStart::At(offsets))) => offsets,
                    _ => mirror.head,
                }
            }
        }
    }
}
