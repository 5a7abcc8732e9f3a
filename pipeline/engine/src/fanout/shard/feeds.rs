//! Feeds that are behind: they read the ring, or first get older entries from the sweeper.
//!
//! Every entry is compared with the feed's own offsets, topic by topic, so nothing is written twice
//! however ring, sweep and hand-over overlap. Subscriptions follow again only when the hub has
//! passed the feed's offsets in every topic. A gap is written in order, among the events.
//!
//! A feed asks the sweeper only from `fill`, so a connection whose socket accepts nothing costs no
//! reads of the log.

use std::sync::Arc;

use super::conn::{CatchUpFeed, Conn, FeedPhase, FeedProgress, Mode};
use super::fill::WriteBudget;
use super::mirror::EntryRef;
use super::state::Shard;
use crate::fanout::messages::{
    FeedFilter, FeedKey, FeedRequest, FeedStart, FeedUpdate, LostSpan, SweepReply, SweepRequest,
};
use crate::fanout::offsets::{PartitionOffsets, token, token_of};
use crate::fanout::protocol::framing::Framing;
use crate::fanout::protocol::names::GapReason;
use crate::fanout::protocol::native::CloseReason;
use crate::fanout::protocol::server_messages::ServerMessage;
use crate::fanout::segment::{Segment, SegmentEntry};
use crate::telemetry;

/// One feed, with its connection.
struct ConnFeed<'a> {
    conn: &'a mut Conn,
    /// The feed's index in the connection.
    at: usize,
}

impl ConnFeed<'_> {
    fn feed(&self) -> &CatchUpFeed {
        &self.conn.feeds[self.at]
    }

    fn feed_mut(&mut self) -> &mut CatchUpFeed {
        &mut self.conn.feeds[self.at]
    }

    /// Sets the feed's offsets, and with them the position of an SSE stream, even if they are
    /// before its own: those were of other records.
    fn restart(&mut self, to: &PartitionOffsets) {
        let feed = self.feed_mut();
        feed.progress = FeedProgress::At(*to);
        let partition = feed.partition;
        self.conn.set_offsets(partition, *to);
    }

    /// Moves the feed on, and with it the position of an SSE stream. Returns the new offsets.
    fn advance(&mut self, to: &PartitionOffsets) -> PartitionOffsets {
        let feed = self.feed_mut();
        let (partition, offsets) = (feed.partition, feed.advance(to));
        self.conn.set_offsets(partition, offsets);
        offsets
    }
}

/// An entry of a segment.
#[derive(Clone, Copy)]
struct EntryOf<'a> {
    segment: &'a Segment,
    index: usize,
}

/// How filling a feed ended.
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
                self.route(&mut ConnFeed { conn: &mut *conn, at });
            }
        }
    }

    fn route(&mut self, feed: &mut ConnFeed<'_>) {
        let mirror = self.mirror(feed.feed().partition);
        let offsets = match feed.feed().progress {
            FeedProgress::At(offsets) => Some(offsets),
            FeedProgress::Unresolved(FeedStart::At(offsets)) => {
                mirror.head.reaches(&offsets).then_some(offsets)
            }
            FeedProgress::Unresolved(FeedStart::Earliest | FeedStart::Time(_)) => None,
        };
        if let Some(offsets) = offsets.filter(|offsets| offsets.reaches(&mirror.floor())) {
            // Segments that end at or before the offsets have nothing for the feed.
            let skip = mirror.segments.partition_point(|s| offsets.reaches(&s.after));
            let first = EntryRef::new(mirror.front_seq + skip as u64, 0);
            feed.feed_mut().phase = FeedPhase::Ring(first);
            self.resolve_start(feed, offsets);
            return;
        }
        feed.feed_mut().attempt = feed.feed().attempt.wrapping_add(1);
        match self.hub.request(SweepRequest::Serve(self.feed_request(feed))) {
            true => feed.feed_mut().phase = FeedPhase::Requested,
            false => self.retry.push(feed.conn.id.slot),
        }
    }

    fn feed_request(&self, feed: &ConnFeed<'_>) -> FeedRequest {
        let start = match feed.feed().progress {
            FeedProgress::At(offsets) => FeedStart::At(offsets),
            FeedProgress::Unresolved(start) => start,
        };
        FeedRequest {
            key: self.feed_key(feed.conn, feed.feed()),
            partition: feed.feed().partition,
            start,
            filter: Arc::new(self.feed_filter(feed)),
        }
    }

    fn feed_key(&self, conn: &Conn, feed: &CatchUpFeed) -> FeedKey {
        let (feed, attempt) = (feed.number, feed.attempt);
        FeedKey { shard: self.inbox.shard, conn: conn.id, feed, attempt }
    }

    fn feed_filter(&self, feed: &ConnFeed<'_>) -> FeedFilter {
        let number = feed.feed().number;
        let channels = feed.conn.subs.iter().filter(|sub| sub.is_of(number)).map(|sub| {
            let list = self.channels.list(sub.list);
            (list.hash, list.name.clone())
        });
        FeedFilter { channels: channels.collect(), identity: Arc::clone(&feed.conn.identity) }
    }

    /// Sets a feed's first offsets and answers the request that made it.
    fn resolve_start(&mut self, feed: &mut ConnFeed<'_>, offsets: PartitionOffsets) {
        if feed.feed().is_resolved() {
            return;
        }
        let one = feed.feed_mut();
        one.progress = FeedProgress::At(offsets);
        let (partition, number, reply) = (one.partition, one.number, one.reply.take());
        let conn = &mut *feed.conn;
        conn.set_offsets(partition, offsets);
        if conn.framing == Framing::WebSocket {
            let token = token(self.epoch, partition, &offsets);
            for sub in conn.subs.iter().filter(|sub| sub.is_of(number)) {
                let channel = &*self.channels.list(sub.list).name;
                let ok =
                    ServerMessage::Ok { id: reply.as_deref(), channel, position: Some(&token) };
                ok.put(conn.framing, &mut conn.control);
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

    /// Cancels a feed's request.
    pub(super) fn cancel_request(&self, conn: &Conn, at: usize) {
        self.hub.request(SweepRequest::Forget(self.feed_key(conn, &conn.feeds[at])));
    }

    /// Applies an answer of the sweeper to its feed, unless the feed no longer waits for it.
    pub(super) fn receive_reply(&mut self, reply: SweepReply) {
        let SweepReply { key, update } = reply;
        self.with_conn(key.conn, |shard, conn| {
            let asked = |feed: &CatchUpFeed| {
                feed.phase == FeedPhase::Requested && shard.feed_key(conn, feed) == key
            };
            if let Some(at) = conn.feeds.iter().position(|feed| asked(feed)) {
                shard.apply_reply(&mut ConnFeed { conn, at }, update);
                shard.ready.mark(key.conn.slot);
            }
        });
    }

    fn apply_reply(&mut self, feed: &mut ConnFeed<'_>, update: FeedUpdate) {
        match update {
            FeedUpdate::Started(offsets) => self.resolve_start(feed, offsets),
            FeedUpdate::LeftBehind => {
                let one = feed.feed_mut();
                one.discard_replies();
                one.sweep_misses = one.sweep_misses.saturating_add(1);
                if one.sweep_misses > self.hub.config().sweep_misses_max {
                    self.end(feed.conn, CloseReason::Slow);
                }
            }
            update => feed.feed_mut().queue.push_back(update),
        }
    }

    /// Writes what a connection's feeds have for it. `true` if the budget ended first.
    pub(super) fn fill_feeds(&mut self, conn: &mut Conn, budget: &mut WriteBudget<'_>) -> bool {
        let mut at = 0;
        while at < conn.feeds.len() {
            match self.fill_feed(&mut ConnFeed { conn: &mut *conn, at }, budget) {
                FeedFill::More => {
                    // The other feeds come first next time, so that none starves.
                    conn.feeds.rotate_left(1);
                    return true;
                }
                FeedFill::Waits => at += 1,
                FeedFill::Follows => {
                    let feed = conn.feeds.swap_remove(at);
                    if conn.feeds.is_empty() {
                        conn.feeds = Vec::new();
                    }
                    for sub in conn.subs.iter_mut().filter(|sub| sub.is_of(feed.number)) {
                        sub.mode = Mode::Following { cursor: self.channels.list(sub.list).end() };
                    }
                }
            }
        }
        false
    }

    fn fill_feed(&mut self, feed: &mut ConnFeed<'_>, budget: &mut WriteBudget<'_>) -> FeedFill {
        loop {
            match feed.feed().phase {
                FeedPhase::Ring(from) => {
                    let filled = self.fill_from_ring(feed, from, budget);
                    if feed.feed().phase != FeedPhase::Unrouted {
                        return filled;
                    }
                }
                FeedPhase::Requested => {
                    if budget.is_spent() && !feed.feed().queue.is_empty() {
                        return FeedFill::More;
                    }
                    if !self.fill_from_sweep(feed, budget) {
                        return FeedFill::Waits;
                    }
                }
                FeedPhase::Unrouted => {
                    self.route(feed);
                    if feed.feed().phase == FeedPhase::Unrouted {
                        return FeedFill::Waits;
                    }
                }
            }
        }
    }

    /// Writes one step of the sweeper's answers; `false` if there is none.
    fn fill_from_sweep(&mut self, feed: &mut ConnFeed<'_>, budget: &mut WriteBudget<'_>) -> bool {
        let Some(update) = feed.feed_mut().queue.pop_front() else { return false };
        match update {
            FeedUpdate::Share { segment, picks } => {
                let mut picked = feed.feed().picked;
                while picked < picks.len() && !budget.is_spent() {
                    let index = picks[picked] as usize;
                    self.write_entry(feed, EntryOf { segment: &segment, index }, budget);
                    picked += 1;
                }
                if picked == picks.len() {
                    let one = feed.feed_mut();
                    one.picked = 0;
                    one.sweep_misses = 0;
                    let key = self.feed_key(feed.conn, feed.feed());
                    self.hub.request(SweepRequest::Consumed(key));
                } else {
                    feed.feed_mut().picked = picked;
                    feed.feed_mut().queue.push_front(FeedUpdate::Share { segment, picks });
                }
            }
            FeedUpdate::Gap(lost) => self.write_gap(feed, lost, budget),
            FeedUpdate::Reached(offsets) => {
                let one = feed.feed_mut();
                one.phase = FeedPhase::Unrouted;
                one.sweep_misses = 0;
                feed.advance(&offsets);
            }
            FeedUpdate::Started(_) | FeedUpdate::LeftBehind => {}
        }
        true
    }

    /// Reads the ring from an entry on. If the entry has left the ring, the feed is unrouted again.
    fn fill_from_ring(
        &mut self,
        feed: &mut ConnFeed<'_>,
        from: EntryRef,
        budget: &mut WriteBudget<'_>,
    ) -> FeedFill {
        let partition = feed.feed().partition;
        if from.seq() < self.mirror(partition).front_seq {
            feed.feed_mut().phase = FeedPhase::Unrouted;
            return FeedFill::Waits;
        }
        let number = feed.feed().number;
        let mut wanted = std::mem::take(&mut self.wanted_hashes);
        wanted.clear();
        let subs = feed.conn.subs.iter().filter(|sub| sub.is_of(number));
        wanted.extend(subs.map(|sub| self.channels.list(sub.list).hash));
        let mut seq = from.seq();
        let mut index = from.index();
        let mut spent = false;
        while let Some(segment) = self.mirror(partition).segment(seq).cloned() {
            let found = segment.channels[index..].iter().position(|hash| wanted.contains(hash));
            let Some(found) = found else {
                feed.feed_mut().advance(&segment.after);
                (seq, index) = (seq + 1, 0);
                continue;
            };
            index += found;
            spent = budget.is_spent();
            if spent {
                break;
            }
            self.write_entry(feed, EntryOf { segment: &segment, index }, budget);
            index += 1;
        }
        self.wanted_hashes = wanted;
        feed.feed_mut().phase = FeedPhase::Ring(EntryRef::new(seq, index));
        if spent {
            return FeedFill::More;
        }
        let head = self.mirror(partition).head;
        let offsets = feed.advance(&head);
        if head.reaches(&offsets) { FeedFill::Follows } else { FeedFill::Waits }
    }

    /// Writes an entry to a feed if its offsets have not passed it and the feed wants it; moves the
    /// offsets on either way.
    fn write_entry(
        &mut self,
        feed: &mut ConnFeed<'_>,
        EntryOf { segment, index }: EntryOf<'_>,
        budget: &mut WriteBudget<'_>,
    ) {
        let entry = &segment.entries[index];
        let passed = feed.feed().has_passed(entry);
        let offsets = feed.advance(&entry.after);
        if passed {
            return;
        }
        let Some(since) = self.wants(feed, entry) else { return };
        self.deliveries += 1;
        let conn = &*feed.conn;
        let frame = segment.frame(index, conn.framing);
        let mut resume = offsets;
        resume.join(&since);
        if conn.partition_offsets.len() > 1 {
            frame.splice(&token_of(budget.epoch, &conn.partition_offsets), budget.out);
        } else if resume.is_same_position(&entry.after) {
            frame.put(budget.out);
        } else {
            frame.splice(&token(budget.epoch, segment.partition, &resume), budget.out);
        }
        feed.conn.position_moved = false;
    }

    /// Whether a feed wants an entry; if so, the offsets from which on its channel is wanted.
    fn wants(&self, feed: &ConnFeed<'_>, entry: &SegmentEntry) -> Option<PartitionOffsets> {
        let (conn, one) = (&*feed.conn, feed.feed());
        let mut subs = conn.subs.iter().filter(|sub| sub.is_of(one.number));
        let sub = subs.find(|sub| self.channels.list(sub.list).is_of(entry))?;
        let since = one.since.iter().find(|(list, _)| *list == sub.list);
        let since = since.map_or_else(PartitionOffsets::default, |(_, since)| *since);
        let due = entry.offset >= since.0[usize::from(entry.topic)]
            && conn.identity.accounts.allows(entry.account());
        due.then_some(since)
    }

    /// Announces to each of a feed's subscriptions what the log does not have. On SSE the last of
    /// them carries the position behind all of them.
    fn write_gap(&mut self, feed: &mut ConnFeed<'_>, lost: LostSpan, budget: &mut WriteBudget<'_>) {
        telemetry::gaps(lost.reason.as_str());
        match lost.reason {
            GapReason::Epoch => feed.restart(&lost.to),
            GapReason::Retention | GapReason::Uncovered => drop(feed.advance(&lost.to)),
        }
        let (partition, number) = (feed.feed().partition, feed.feed().number);
        let from = token(budget.epoch, partition, &lost.from);
        let to = token(budget.epoch, partition, &lost.to);
        let conn = &mut *feed.conn;
        let mut subs = conn.subs.iter().filter(|sub| sub.is_of(number)).peekable();
        while let Some(sub) = subs.next() {
            if conn.framing == Framing::Sse && subs.peek().is_none() {
                let position = token_of(budget.epoch, &conn.partition_offsets);
                ServerMessage::put_block_id(&position, budget.out.own_mut());
                conn.position_moved = false;
            }
            let channel = &*self.channels.list(sub.list).name;
            let gap = ServerMessage::Gap { channel, reason: lost.reason, from: &from, to: &to };
            gap.put(conn.framing, budget.out.own_mut());
        }
    }
}
