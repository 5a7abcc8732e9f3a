//! Following: what the rings gain goes to the lists of channels, and from there to connections.
//!
//! Taking a segment in costs two look-ups per entry; a connection is touched once per batch, by one
//! bit, and reads its channels' lists when it is filled. Before a segment leaves the ring, or a
//! list its bound, whoever still needed it is made a feed that is behind, at its exact place.

use super::catch_up::WriteBudget;
use super::channels::{ChannelList, EntryRef};
use super::conn::{CatchUpFeed, Conn, FOLLOWS};
use super::{Framing, Shard};
use crate::fanout::catchup::sweeper::FeedStart;
use crate::fanout::hub::RingUpdate;
use crate::fanout::offsets::{PartitionOffsets, token_of};
use crate::fanout::segment::{Segment, SegmentEntry};
use crate::telemetry;
use std::collections::VecDeque;
use std::sync::Arc;

/// A shard's copy of one partition's ring: the same segments, shared.
#[derive(Default)]
pub(super) struct RingMirror {
    pub(super) segments: VecDeque<Arc<Segment>>,
    pub(super) front_seq: u64,
    pub(super) next_seq: u64,
    /// Where the hub stood behind the newest segment taken in.
    pub(super) head: PartitionOffsets,
}

impl RingMirror {
    pub(super) fn segment(&self, seq: u64) -> Option<&Arc<Segment>> {
        self.segments.get(seq.checked_sub(self.front_seq)? as usize)
    }

    /// From where on it holds everything.
    pub(super) fn floor(&self) -> PartitionOffsets {
        self.segments.front().map_or(self.head, |segment| segment.before)
    }

    fn entry(&self, reference: EntryRef) -> Option<&SegmentEntry> {
        self.segment(reference.seq())?.entries.get(reference.index())
    }
}

/// The next reference of one followed list, while a connection is filled.
pub(super) struct ListHead {
    rank: u32,
    reference: EntryRef,
    sub: usize,
}

impl Shard {
    /// Takes in what a ring has gained and lets go of what it has lost.
    pub(super) fn apply_update(&mut self, partition: u32, update: RingUpdate) {
        let p = partition as usize;
        if update.floor_seq > self.mirrors[p].next_seq {
            self.move_all_behind(partition);
            let mirror = &mut self.mirrors[p];
            mirror.segments.clear();
            mirror.front_seq = update.floor_seq;
            mirror.head = update.before;
        }
        while self.mirrors[p].front_seq < update.floor_seq {
            self.evict_oldest(partition);
        }
        for segment in update.segments {
            self.mirrors[p].segments.push_back(Arc::clone(&segment));
            self.append_to_lists(&segment);
            // Not before: whoever falls behind meanwhile still needs the rest of this segment.
            self.mirrors[p].head = segment.after;
        }
        self.mirrors[p].next_seq = update.next_seq;
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

    /// Drops what every follower of a list has been given. If that is not enough the list grows; at
    /// its bound, those furthest back become behind.
    fn trim_list(&mut self, id: u32) {
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
            let sub = self.conn(subscriber.slot)?.subs.get(subscriber.sub as usize)?;
            (sub.feed == FOLLOWS).then_some(sub.cursor)
        });
        cursors.min().unwrap_or(u64::MAX).min(list.end())
    }

    /// Lets go of a mirror's oldest segment.
    fn evict_oldest(&mut self, partition: u32) {
        let Some(segment) = self.mirrors[partition as usize].segments.front().cloned() else {
            self.mirrors[partition as usize].front_seq += 1;
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
        let mirror = &mut self.mirrors[partition as usize];
        mirror.segments.pop_front();
        mirror.front_seq += 1;
    }

    /// Drops a list's references before `limit`; followers that have not been given them become
    /// behind.
    fn truncate_list(&mut self, id: u32, limit: u64) {
        let list = self.channels.list(id);
        let partition = list.partition;
        let lagging = list.subscribers.iter().filter_map(|subscriber| {
            let sub = self.conn(subscriber.slot)?.subs.get(subscriber.sub as usize)?;
            (sub.feed == FOLLOWS && sub.cursor < limit).then_some(subscriber.slot)
        });
        let lagging: Vec<u32> = lagging.collect();
        for slot in lagging {
            self.move_behind(slot, partition);
        }
        self.channels.list_mut(id).drop_before(limit);
    }

    /// The ring has lost segments this shard never saw: nobody follows any more.
    fn move_all_behind(&mut self, partition: u32) {
        for id in self.channels.of_partition(partition) {
            let subscribers: Vec<u32> =
                self.channels.list(id).subscribers.iter().map(|s| s.slot).collect();
            for slot in subscribers {
                self.move_behind(slot, partition);
            }
            let list = self.channels.list_mut(id);
            list.drop_before(list.end());
        }
    }

    /// Makes a feed of a connection's followed subscriptions in one partition, at the place right
    /// before the first entry it has not been given.
    fn move_behind(&mut self, slot: u32, partition: u32) {
        let Some(mut conn) = self.take_conn(slot) else { return };
        let number = self.new_feed_number();
        let mirror = &self.mirrors[partition as usize];
        let mut since = Vec::new();
        for sub in &mut conn.subs {
            let list = self.channels.list(sub.list);
            if sub.feed != FOLLOWS || list.partition != partition {
                continue;
            }
            sub.feed = number;
            let offsets = match list.get(sub.cursor) {
                Some(reference) => {
                    mirror.entry(reference).expect("listed entries are in the mirror").before()
                }
                None => mirror.head,
            };
            since.push((sub.list, offsets));
        }
        // In the hub's order one of two places reaches the other, so meeting them finds the first.
        let first = since.iter().map(|(_, offsets)| *offsets).reduce(|mut first, offsets| {
            first.meet(&offsets);
            first
        });
        if let Some(offsets) = first {
            since.retain(|(_, since)| *since != offsets);
            let mut feed = CatchUpFeed::new(number, partition, FeedStart::At(offsets));
            feed.started = true;
            feed.since = since;
            conn.feeds.push(Box::new(feed));
            self.ready.mark(slot);
        }
        self.put_conn(conn);
    }

    /// Marks every subscriber of the lists with news.
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
        let partitions = self.mirrors.len() as u32;
        for (at, sub) in conn.subs.iter().enumerate() {
            if sub.feed != FOLLOWS {
                continue;
            }
            let list = self.channels.list(sub.list);
            if let Some(reference) = list.get(sub.cursor) {
                let rank = (list.partition + conn.rotation) % partitions;
                heads.push(ListHead { rank, reference, sub: at });
            }
        }
        while let Some(at) = next_head(&heads) {
            if budget.is_spent() {
                break;
            }
            let head = &mut heads[at];
            let sub = &mut conn.subs[head.sub];
            let list = self.channels.list(sub.list);
            let mirror = &self.mirrors[list.partition as usize];
            let segment =
                mirror.segment(head.reference.seq()).expect("listed entries are in the mirror");
            sub.cursor += 1;
            let reference = head.reference;
            match list.get(sub.cursor) {
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

    /// Moves an SSE stream's cuts to the hub's heads where nothing is pending.
    pub(super) fn refresh_offsets(&self, conn: &mut Conn) {
        let Conn { partition_offsets, subs, feeds, .. } = conn;
        for (partition, offsets) in partition_offsets {
            let pending =
                |list: &ChannelList, cursor| list.partition == *partition && cursor < list.end();
            let busy = feeds.iter().any(|feed| feed.partition == *partition)
                || subs.iter().any(|sub| pending(self.channels.list(sub.list), sub.cursor));
            if !busy {
                *offsets = self.mirrors[*partition as usize].head;
            }
        }
    }
}

/// The head to write next: hub order within a partition, partitions by rank.
fn next_head(heads: &[ListHead]) -> Option<usize> {
    if heads.len() <= 1 {
        return heads.len().checked_sub(1);
    }
    let key = |at: &usize| (heads[*at].rank, heads[*at].reference);
    (0..heads.len()).min_by_key(key)
}

/// Writes one entry to a connection that follows; `false` if the guard kept it back.
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
    if conn.framing == Framing::Sse {
        conn.set_offsets(segment.partition, entry.after);
        if conn.partition_offsets.len() > 1 {
            frame.splice(&token_of(budget.epoch, &conn.partition_offsets), budget.out);
            return true;
        }
    }
    budget.out.extend_from_slice(frame.bytes());
    true
}
