//! Following: new segments of the rings go to the lists of channels, and from there to connections.
//!
//! Applying a segment costs two look-ups per entry. A connection is touched once per batch, by one
//! bit, and reads its channels' lists when it is filled. Before a segment leaves the ring, or a
//! list exceeds its bound, every follower that still needed it is moved behind: a feed is made at
//! its exact offsets.

use std::sync::Arc;

use super::channels::{ChannelList, ListId, ListSource};
use super::conn::{CatchUpFeed, Conn, FeedProgress, Mode, Subscription};
use super::fill::WriteBudget;
use super::merge::{ListHead, next_head};
use super::mirror::EntryRef;
use super::state::Shard;
use crate::fanout::messages::RingUpdate;
use crate::fanout::offsets::token_of;
use crate::fanout::protocol::framing::Framing;
use crate::fanout::segment::Segment;
use crate::record::Partition;
use crate::telemetry;

impl Shard {
    /// Appends the segments that a ring has gained and drops those it has lost.
    pub(super) fn apply_update(&mut self, partition: Partition, update: RingUpdate) {
        if update.floor_seq > self.mirror(partition).next_seq {
            self.move_all_behind(partition);
            let mirror = self.mirror_mut(partition);
            mirror.segments.clear();
            mirror.front_seq = update.floor_seq;
            mirror.head = update.before;
        }
        while self.mirror(partition).front_seq < update.floor_seq {
            self.evict_oldest(partition);
        }
        for segment in update.segments {
            self.mirror_mut(partition).segments.push_back(Arc::clone(&segment));
            self.append_to_lists(&segment);
            // Not before: a follower that is moved behind meanwhile needs the rest of this segment.
            self.mirror_mut(partition).head = segment.after;
        }
        self.mirror_mut(partition).next_seq = update.next_seq;
    }

    /// Adds a segment's entries to the lists of their channels.
    fn append_to_lists(&mut self, segment: &Segment) {
        for (at, entry) in segment.entries.iter().enumerate() {
            for key in [segment.channels[at], segment.scoped[at]] {
                let Some(id) = self.channels.find(key, entry) else { continue };
                if self.channels.list(id).is_full() {
                    self.trim_list(id);
                }
                self.channels.list_mut(id).push(EntryRef::new(segment.seq, at));
                self.channels.touch(id);
            }
        }
    }

    /// Drops the references that every follower of a list has been given. If that is not enough the
    /// list grows; at its bound, the followers furthest back are moved behind.
    fn trim_list(&mut self, id: ListId) {
        let list = self.channels.list(id);
        let needed = self.needed_from(list);
        self.channels.list_mut(id).drop_before(needed);
        let max = self.hub.config().pending_max_refs;
        let list = self.channels.list_mut(id);
        if !list.grow(max) && list.len() >= max {
            let limit = list.end() - list.len() as u64 + (max as u64 / 4).max(1);
            self.truncate_list(id, limit);
            telemetry::behind("references");
        }
    }

    /// The cursor of the follower furthest back.
    fn needed_from(&self, list: &ChannelList) -> u64 {
        let cursors = list.subscribers.iter().filter_map(|subscriber| {
            self.conn(subscriber.slot)?.subs.get(subscriber.sub as usize)?.cursor()
        });
        cursors.min().unwrap_or(u64::MAX).min(list.end())
    }

    /// Drops a mirror's oldest segment.
    fn evict_oldest(&mut self, partition: Partition) {
        let Some(segment) = self.mirror(partition).segments.front().cloned() else {
            self.mirror_mut(partition).front_seq += 1;
            return;
        };
        let behind = EntryRef::new(segment.seq + 1, 0);
        for (at, entry) in segment.entries.iter().enumerate() {
            for key in [segment.channels[at], segment.scoped[at]] {
                let Some(id) = self.channels.find(key, entry) else { continue };
                let list = self.channels.list(id);
                if list.first().is_none_or(|first| first >= behind) {
                    continue;
                }
                let limit = list.cursor_at(behind);
                if self.needed_from(list) < limit {
                    telemetry::behind("ring");
                }
                self.truncate_list(id, limit);
                let needed = self.needed_from(self.channels.list(id));
                self.channels.list_mut(id).drop_before(needed);
            }
        }
        let mirror = self.mirror_mut(partition);
        mirror.segments.pop_front();
        mirror.front_seq += 1;
    }

    /// Drops a list's references before `limit`; followers that have not been given them are moved
    /// behind.
    fn truncate_list(&mut self, id: ListId, limit: u64) {
        let list = self.channels.list(id);
        let partition = list.partition;
        let lagging = list.subscribers.iter().filter_map(|subscriber| {
            let sub = self.conn(subscriber.slot)?.subs.get(subscriber.sub as usize)?;
            (sub.cursor()? < limit).then_some(subscriber.slot)
        });
        let lagging: Vec<u32> = lagging.collect();
        let source = list.source;
        for slot in lagging {
            match source {
                ListSource::Log => self.move_behind(slot, partition),
                ListSource::State => self.replace_snapshot(slot, id),
            }
        }
        self.channels.list_mut(id).drop_before(limit);
    }

    /// Moves every follower of a partition behind: the ring has lost segments that this shard never
    /// saw.
    fn move_all_behind(&mut self, partition: Partition) {
        for id in self.channels.of_partition(partition) {
            let subscribers: Vec<u32> =
                self.channels.list(id).subscribers.iter().map(|s| s.slot).collect();
            let source = self.channels.list(id).source;
            for slot in subscribers {
                match source {
                    ListSource::Log => self.move_behind(slot, partition),
                    ListSource::State => self.replace_snapshot(slot, id),
                }
            }
            let list = self.channels.list_mut(id);
            list.drop_before(list.end());
        }
    }

    /// Moves a connection's followed subscriptions in one partition behind. Their feed starts right
    /// before the first entry that the connection has not been given.
    fn move_behind(&mut self, slot: u32, partition: Partition) {
        self.with_conn_at(slot, |shard, conn| shard.make_feed_of_followed(conn, partition));
    }

    fn make_feed_of_followed(&mut self, conn: &mut Conn, partition: Partition) {
        let number = self.new_feed_number();
        let mirror = self.mirror(partition);
        let mut since = Vec::new();
        for sub in &mut conn.subs {
            let list = self.channels.list(sub.list);
            let Mode::Following { cursor } = sub.mode else { continue };
            if list.partition != partition || list.source != ListSource::Log {
                continue;
            }
            sub.mode = Mode::Behind(number);
            let offsets = match list.get(cursor) {
                Some(reference) => {
                    mirror.entry(reference).expect("listed entries are in the mirror").before()
                }
                None => mirror.head,
            };
            since.push((sub.list, offsets));
        }
        // In the hub's order one of two offsets reaches the other, so `meet` finds the first.
        let first = since.iter().map(|(_, offsets)| *offsets).reduce(|mut first, offsets| {
            first.meet(&offsets);
            first
        });
        let Some(offsets) = first else { return };
        since.retain(|(_, since)| !since.is_same_position(&offsets));
        let mut feed = CatchUpFeed::new(number, partition, FeedProgress::At(offsets));
        feed.since = since;
        conn.feeds.push(Box::new(feed));
        self.ready.mark(conn.id.slot);
    }

    /// Marks every subscriber of the lists with new references.
    pub(super) fn mark_touched(&mut self) {
        let touched = self.channels.take_touched();
        for id in &touched {
            for subscriber in &self.channels.list(*id).subscribers {
                self.ready.mark(subscriber.slot);
            }
        }
        self.channels.recycle_touched(touched);
    }

    /// Writes what a connection's followed lists hold for it, in the hub's order within each
    /// partition. `true` if the budget ended first.
    pub(super) fn fill_following(&mut self, conn: &mut Conn, budget: &mut WriteBudget<'_>) -> bool {
        let mut heads = std::mem::take(&mut self.heads);
        let partitions = self.hub.partitions();
        for (at, sub) in conn.subs.iter().enumerate() {
            let Mode::Following { cursor } = sub.mode else { continue };
            let list = self.channels.list(sub.list);
            if let Some(reference) = list.get(cursor) {
                let rank = (list.partition.0 + conn.rotation) % partitions;
                heads.push(ListHead { rank, reference, cursor, sub: at });
            }
        }
        while let Some(at) = next_head(&heads) {
            if budget.is_spent() {
                break;
            }
            let head = &mut heads[at];
            let sub = &mut conn.subs[head.sub];
            let list = self.channels.list(sub.list);
            let reference = head.reference;
            let segment = self
                .mirror(list.partition)
                .segment(reference.seq())
                .expect("listed entries are in the mirror");
            head.cursor += 1;
            sub.mode = Mode::Following { cursor: head.cursor };
            match list.get(head.cursor) {
                Some(next) => head.reference = next,
                None => drop(heads.swap_remove(at)),
            }
            self.deliveries += u64::from(write_followed(conn, segment, reference.index(), budget));
        }
        let more = !heads.is_empty();
        if more {
            conn.rotation = (conn.rotation + 1) % partitions;
        }
        heads.clear();
        self.heads = heads;
        more
    }

    /// Moves an SSE stream's offsets to the hub's heads in partitions where nothing is pending.
    pub(super) fn refresh_offsets(&self, conn: &mut Conn) {
        let Conn { partition_offsets, subs, feeds, position_moved, .. } = conn;
        for (partition, offsets) in partition_offsets {
            let pending = |list: &ChannelList, sub: &Subscription| {
                list.partition == *partition && sub.cursor().is_some_and(|at| at < list.end())
            };
            let busy = feeds.iter().any(|feed| feed.partition == *partition)
                || subs.iter().any(|sub| pending(self.channels.list(sub.list), sub));
            let head = self.mirror(*partition).head;
            if !busy {
                *position_moved |= !offsets.is_same_position(&head);
                *offsets = head;
            }
        }
    }
}

/// Writes one entry to a connection that follows; `false` if its accounts do not include the
/// entry's.
fn write_followed(
    conn: &mut Conn,
    segment: &Segment,
    at: usize,
    budget: &mut WriteBudget<'_>,
) -> bool {
    let entry = &segment.entries[at];
    if conn.filters_accounts && !conn.identity.accounts.allows(entry.account()) {
        return false;
    }
    let frame = segment.frame(at, conn.framing);
    if conn.framing == Framing::Sse && !entry.is_state() {
        conn.set_offsets(segment.partition, entry.after);
        conn.position_moved = false;
        if conn.partition_offsets.len() > 1 {
            frame.splice(&token_of(budget.epoch, &conn.partition_offsets), budget.out);
            return true;
        }
    }
    frame.put(budget.out);
    true
}
