//! Catching up: feeds that are behind read the ring from their place, or wait for a sweep's shares
//! and then read the ring.
//!
//! Every entry is judged by the feed's own place, topic by topic, so that however ring, sweep and
//! hand-over overlap nothing is written twice, and a feed only follows again once the hub has
//! passed its place in every topic. A gap is written where it stands among the events.

use super::channels::EntryRef;
use super::conn::{CatchUpFeed, Conn, FOLLOWS, FeedPhase};
use super::ops;
use super::{Framing, Shard};
use crate::fanout::catchup::sweeper::{
    FeedFilter, FeedKey, FeedStart, FeedUpdate, SweepReply, SweepRequest,
};
use crate::fanout::offsets::{PartitionOffsets, token, token_of};
use crate::fanout::protocol::frame;
use crate::fanout::protocol::names::{FrameName, GapReason};
use crate::fanout::protocol::native::CloseReason;
use crate::fanout::segment::{Segment, SegmentEntry};
use crate::telemetry;
use std::sync::Arc;

/// The buffer being filled and how much may go into it.
pub(super) struct WriteBudget<'a> {
    pub(super) out: &'a mut Vec<u8>,
    /// The length from which nothing more is begun.
    pub(super) end: usize,
    pub(super) epoch: u32,
}

impl WriteBudget<'_> {
    pub(super) fn is_spent(&self) -> bool {
        self.out.len() >= self.end
    }
}

/// What filling a feed came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FeedFill {
    /// The budget ended first.
    More,
    /// Nothing more for now.
    Waits,
    /// It has caught up: its subscriptions follow.
    Follows,
}

impl Shard {
    /// Sends every feed that needs it to the ring or the sweeper.
    pub(super) fn route_feeds(&mut self, conn: &mut Conn) {
        for at in 0..conn.feeds.len() {
            if conn.feeds[at].phase == FeedPhase::Unrouted {
                self.route(conn, at);
            }
        }
    }

    fn route(&mut self, conn: &mut Conn, at: usize) {
        let feed = &conn.feeds[at];
        let mirror = &self.mirrors[feed.partition as usize];
        let known = match feed.start {
            FeedStart::At(offsets) => feed.started || mirror.head.reaches(&offsets),
            FeedStart::Earliest | FeedStart::Time(_) => feed.started,
        };
        if known && feed.offsets.reaches(&mirror.floor()) {
            let (offsets, front) = (feed.offsets, mirror.front_seq);
            // Segments that end at or before the place have nothing for it.
            let skip = mirror.segments.partition_point(|s| offsets.reaches(&s.after));
            conn.feeds[at].phase = FeedPhase::Ring(EntryRef::new(front + skip as u64, 0));
            self.set_feed_start(conn, at, offsets);
            return;
        }
        conn.feeds[at].attempt = conn.feeds[at].attempt.wrapping_add(1);
        let feed = &conn.feeds[at];
        let request = SweepRequest::Serve {
            key: self.feed_key(conn, feed),
            partition: feed.partition,
            start: if feed.started { FeedStart::At(feed.offsets) } else { feed.start },
            filter: Arc::new(self.feed_filter(conn, feed)),
        };
        match self.hub.request(request) {
            true => conn.feeds[at].phase = FeedPhase::Requested,
            false => self.retry.push(conn.id.slot),
        }
    }

    fn feed_key(&self, conn: &Conn, feed: &CatchUpFeed) -> FeedKey {
        let (feed, attempt) = (feed.number, feed.attempt);
        FeedKey { shard: self.number, conn: conn.id, feed, attempt }
    }

    fn feed_filter(&self, conn: &Conn, feed: &CatchUpFeed) -> FeedFilter {
        let channels = conn.subs.iter().filter(|sub| sub.feed == feed.number).map(|sub| {
            let list = self.channels.list(sub.list);
            (list.hash, list.name.clone())
        });
        FeedFilter { channels: channels.collect(), identity: Arc::clone(&conn.identity) }
    }

    /// A feed's place is known: answers the request that made it.
    fn set_feed_start(&mut self, conn: &mut Conn, at: usize, offsets: PartitionOffsets) {
        let feed = &mut conn.feeds[at];
        if feed.started {
            return;
        }
        feed.started = true;
        feed.offsets = offsets;
        let (partition, number, reply) = (feed.partition, feed.number, feed.reply.take());
        conn.set_offsets(partition, offsets);
        if conn.framing == Framing::WebSocket {
            let token = token(self.hub.epoch(), partition, &offsets);
            for at in 0..conn.subs.len() {
                if conn.subs[at].feed == number {
                    let name = &self.channels.list(conn.subs[at].list).name;
                    ops::put_ok(&mut conn.control, reply.as_deref(), name, Some(&token));
                }
            }
        }
    }

    /// Forgets a feed here and at the sweeper.
    pub(super) fn drop_feed(&mut self, conn: &mut Conn, at: usize) {
        if conn.feeds[at].phase == FeedPhase::Requested {
            self.cancel_request(conn, at);
        }
        conn.feeds.swap_remove(at);
    }

    /// Takes a feed's question back.
    pub(super) fn cancel_request(&self, conn: &Conn, at: usize) {
        self.hub.request(SweepRequest::Forget(self.feed_key(conn, &conn.feeds[at])));
    }

    /// Takes in what the sweeper has for one feed.
    pub(super) fn receive_reply(&mut self, reply: SweepReply) {
        let key = reply.key;
        let slot = key.conn.slot;
        let Some(mut conn) = self.take_conn(slot) else { return };
        let asked = |feed: &CatchUpFeed| {
            feed.phase == FeedPhase::Requested && self.feed_key(&conn, feed) == key
        };
        if let Some(at) = conn.feeds.iter().position(|feed| asked(feed)) {
            self.apply_reply(&mut conn, at, reply.update);
            self.ready.mark(slot);
        }
        self.put_conn(conn);
    }

    fn apply_reply(&mut self, conn: &mut Conn, at: usize, update: FeedUpdate) {
        match update {
            FeedUpdate::Started(offsets) => self.set_feed_start(conn, at, offsets),
            FeedUpdate::Refused(error) => {
                telemetry::requests_refused(error.code.as_str());
                let feed = &mut conn.feeds[at];
                let (number, reply) = (feed.number, feed.reply.take());
                // The sweeper has forgotten it already.
                feed.phase = FeedPhase::Unrouted;
                ops::put_error(conn, reply.as_deref(), &error);
                self.remove_subs_of(conn, number);
                if conn.framing == Framing::Sse {
                    self.end(conn, CloseReason::ProtocolError);
                }
            }
            FeedUpdate::LeftBehind => {
                let feed = &mut conn.feeds[at];
                feed.discard_replies();
                feed.sweep_misses = feed.sweep_misses.saturating_add(1);
                if feed.sweep_misses > self.hub.config().sweep_misses_max {
                    self.end(conn, CloseReason::Slow);
                }
            }
            update => conn.feeds[at].queue.push_back(update),
        }
    }

    /// Writes what a connection's feeds have for it. `true` if the budget ended first.
    pub(super) fn fill_feeds(&mut self, conn: &mut Conn, budget: &mut WriteBudget<'_>) -> bool {
        let mut at = 0;
        while at < conn.feeds.len() {
            match self.fill_feed(conn, at, budget) {
                FeedFill::More => {
                    // The others come first next time.
                    conn.feeds.rotate_left(1);
                    return true;
                }
                FeedFill::Waits => at += 1,
                FeedFill::Follows => {
                    let feed = conn.feeds.swap_remove(at);
                    if conn.feeds.is_empty() {
                        conn.feeds = Vec::new();
                    }
                    for sub in conn.subs.iter_mut().filter(|sub| sub.feed == feed.number) {
                        sub.feed = FOLLOWS;
                        sub.cursor = self.channels.list(sub.list).end();
                    }
                }
            }
        }
        false
    }

    fn fill_feed(&mut self, conn: &mut Conn, at: usize, budget: &mut WriteBudget<'_>) -> FeedFill {
        loop {
            match conn.feeds[at].phase {
                FeedPhase::Ring(ring_start) => {
                    let fed = self.fill_from_ring((conn, at), ring_start, budget);
                    if conn.feeds[at].phase != FeedPhase::Unrouted {
                        return fed;
                    }
                }
                FeedPhase::Requested => {
                    if budget.is_spent() && !conn.feeds[at].queue.is_empty() {
                        return FeedFill::More;
                    }
                    if !self.fill_from_sweep(conn, at, budget) {
                        return FeedFill::Waits;
                    }
                }
                FeedPhase::Unrouted => {
                    self.route(conn, at);
                    if conn.feeds[at].phase == FeedPhase::Unrouted {
                        return FeedFill::Waits;
                    }
                }
            }
        }
    }

    /// Writes one step of the sweeper's answers; `false` if there is none.
    fn fill_from_sweep(
        &mut self,
        conn: &mut Conn,
        at: usize,
        budget: &mut WriteBudget<'_>,
    ) -> bool {
        let Some(update) = conn.feeds[at].queue.pop_front() else { return false };
        match update {
            FeedUpdate::Share { segment, picks } => {
                let mut picked = conn.feeds[at].picked;
                while picked < picks.len() && !budget.is_spent() {
                    let entry = picks[picked] as usize;
                    self.write_entry((conn, at), (&segment, entry), budget);
                    picked += 1;
                }
                if picked == picks.len() {
                    conn.feeds[at].picked = 0;
                    self.hub.request(SweepRequest::Consumed(self.feed_key(conn, &conn.feeds[at])));
                } else {
                    conn.feeds[at].picked = picked;
                    conn.feeds[at].queue.push_front(FeedUpdate::Share { segment, picks });
                }
            }
            FeedUpdate::Gap { from, to } => self.write_gap((conn, at), (from, to), budget),
            FeedUpdate::Reached(offsets) => {
                let feed = &mut conn.feeds[at];
                feed.offsets.join(&offsets);
                feed.phase = FeedPhase::Unrouted;
                feed.sweep_misses = 0;
                let (partition, offsets) = (feed.partition, feed.offsets);
                conn.set_offsets(partition, offsets);
            }
            FeedUpdate::Started(_) | FeedUpdate::Refused(_) | FeedUpdate::LeftBehind => {}
        }
        true
    }

    /// Reads the ring from `ring_start` on. If that has left the ring, the feed is to be routed
    /// again.
    fn fill_from_ring(
        &mut self,
        (conn, at): (&mut Conn, usize),
        ring_start: EntryRef,
        budget: &mut WriteBudget<'_>,
    ) -> FeedFill {
        let partition = conn.feeds[at].partition as usize;
        let number = conn.feeds[at].number;
        let mut wanted = std::mem::take(&mut self.wanted_hashes);
        wanted.clear();
        let subs = conn.subs.iter().filter(|sub| sub.feed == number);
        wanted.extend(subs.map(|sub| self.channels.list(sub.list).hash));
        let mut seq = ring_start.seq();
        let mut index = ring_start.index();
        let mut spent = false;
        if seq < self.mirrors[partition].front_seq {
            conn.feeds[at].phase = FeedPhase::Unrouted;
        }
        while let Some(segment) = self.mirrors[partition].segment(seq).cloned() {
            let found = segment.channels[index..].iter().position(|hash| wanted.contains(hash));
            let Some(found) = found else {
                conn.feeds[at].offsets.join(&segment.after);
                (seq, index) = (seq + 1, 0);
                continue;
            };
            spent = budget.is_spent();
            if spent {
                index += found;
                break;
            }
            index += found;
            self.write_entry((conn, at), (&segment, index), budget);
            index += 1;
        }
        self.wanted_hashes = wanted;
        let (mirror, feed) = (&self.mirrors[partition], &mut conn.feeds[at]);
        if feed.phase == FeedPhase::Unrouted {
            return FeedFill::Waits;
        }
        feed.phase = FeedPhase::Ring(EntryRef::new(seq, index));
        if spent {
            return FeedFill::More;
        }
        feed.offsets.join(&mirror.head);
        let (id, offsets) = (feed.partition, feed.offsets);
        conn.set_offsets(id, offsets);
        if mirror.head.reaches(&offsets) { FeedFill::Follows } else { FeedFill::Waits }
    }

    /// Writes an entry to a feed if its place has not passed it and it is one of its own; moves the
    /// place on either way.
    fn write_entry(
        &mut self,
        (conn, at): (&mut Conn, usize),
        (segment, index): (&Segment, usize),
        budget: &mut WriteBudget<'_>,
    ) {
        let entry = &segment.entries[index];
        let feed = &mut conn.feeds[at];
        let topic = usize::from(entry.topic);
        let passed = entry.offset < feed.offsets.0[topic];
        feed.offsets.join(&entry.after);
        let (partition, offsets) = (feed.partition, feed.offsets);
        conn.set_offsets(partition, offsets);
        if passed {
            return;
        }
        let Some(since) = self.wants(conn, at, entry) else { return };
        self.deliveries += 1;
        let frame = segment.frame(index, conn.framing);
        let mut resume = offsets;
        resume.join(&since);
        if conn.partition_offsets.len() > 1 {
            frame.splice(&token_of(budget.epoch, &conn.partition_offsets), budget.out);
        } else if resume == entry.after {
            budget.out.extend_from_slice(frame.bytes());
        } else {
            frame.splice(&token(budget.epoch, partition, &resume), budget.out);
        }
    }

    /// Whether an entry is one of a feed's own; if so, the place its channel began to wait at.
    fn wants(&self, conn: &Conn, at: usize, entry: &SegmentEntry) -> Option<PartitionOffsets> {
        let feed = &conn.feeds[at];
        let mut subs = conn.subs.iter().filter(|sub| sub.feed == feed.number);
        let sub = subs.find(|sub| *self.channels.list(sub.list).name == *entry.channel())?;
        let since = feed.since.iter().find(|(list, _)| *list == sub.list);
        let since = since.map_or_else(PartitionOffsets::default, |(_, since)| *since);
        let due = entry.offset >= since.0[usize::from(entry.topic)]
            && conn.identity.accounts.allows(entry.account());
        due.then_some(since)
    }

    /// Tells that the log has lost what stood between two places.
    fn write_gap(
        &mut self,
        (conn, at): (&mut Conn, usize),
        (from, to): (PartitionOffsets, PartitionOffsets),
        budget: &mut WriteBudget<'_>,
    ) {
        telemetry::gaps(GapReason::Retention.as_str());
        let feed = &mut conn.feeds[at];
        let (partition, number) = (feed.partition, feed.number);
        feed.offsets.join(&to);
        let from = token(budget.epoch, partition, &from);
        let to = token(budget.epoch, partition, &to);
        let offsets = feed.offsets;
        conn.set_offsets(partition, offsets);
        for at in 0..conn.subs.len() {
            if conn.subs[at].feed == number {
                let name = &self.channels.list(conn.subs[at].list).name;
                let json = ops::gap(name, GapReason::Retention, (&from, &to));
                frame::put_object(conn.framing, FrameName::Gap, &json, budget.out);
            }
        }
    }
}
