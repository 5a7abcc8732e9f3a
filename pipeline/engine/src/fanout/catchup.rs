//! Catching up: feeds that are behind read the ring from their place, or wait for a sweep's shares
//! and then read the ring.
//!
//! Every entry is judged by the feed's own place, topic by topic, so that however ring, sweep and
//! hand-over overlap nothing is written twice, and a feed only follows again once the hub has
//! passed its place in every topic. A gap is written where it stands among the events.

use super::channels::Ref;
use super::conn::{Conn, FOLLOWS, Feed, Phase};
use super::frame;
use super::ops;
use super::place::{Place, token, token_of};
use super::protocol::CloseReason;
use super::segment::{Entry, Segment};
use super::shard::{Shard, Wire};
use super::sweep::{Answer, Ask, FeedKey, Item, Start, Wanted};
use crate::telemetry;
use std::sync::Arc;

/// The buffer being filled and how much may go into it.
pub(super) struct Budget<'a> {
    pub(super) out: &'a mut Vec<u8>,
    /// The length from which nothing more is begun.
    pub(super) end: usize,
    pub(super) epoch: u32,
}

impl Budget<'_> {
    pub(super) fn is_spent(&self) -> bool {
        self.out.len() >= self.end
    }
}

/// What filling a feed came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fed {
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
            if conn.feeds[at].phase == Phase::Unrouted {
                self.route(conn, at);
            }
        }
    }

    fn route(&mut self, conn: &mut Conn, at: usize) {
        let feed = &conn.feeds[at];
        let mirror = &self.mirrors[feed.partition as usize];
        let known = match feed.start {
            Start::At(place) => feed.started || mirror.head.reaches(&place),
            Start::Earliest | Start::Time(_) => feed.started,
        };
        if known && feed.place.reaches(&mirror.floor()) {
            let (place, front) = (feed.place, mirror.front_seq);
            // Segments that end at or before the place have nothing for it.
            let skip = mirror.segments.partition_point(|s| place.reaches(&s.after));
            conn.feeds[at].phase = Phase::Ring(Ref::new(front + skip as u64, 0));
            self.start_feed(conn, at, place);
            return;
        }
        conn.feeds[at].attempt = conn.feeds[at].attempt.wrapping_add(1);
        let feed = &conn.feeds[at];
        let ask = Ask::Start {
            key: self.key(conn, feed),
            partition: feed.partition,
            start: if feed.started { Start::At(feed.place) } else { feed.start },
            wanted: Arc::new(self.wanted(conn, feed)),
        };
        match self.hub.ask(ask) {
            true => conn.feeds[at].phase = Phase::Asked,
            false => self.retry.push(conn.id.slot),
        }
    }

    fn key(&self, conn: &Conn, feed: &Feed) -> FeedKey {
        let (feed, attempt) = (feed.number, feed.attempt);
        FeedKey { shard: self.number, conn: conn.id, feed, attempt }
    }

    fn wanted(&self, conn: &Conn, feed: &Feed) -> Wanted {
        let channels = conn.subs.iter().filter(|sub| sub.feed == feed.number).map(|sub| {
            let log = self.channels.log(sub.log);
            (log.hash, log.name.clone())
        });
        Wanted { channels: channels.collect(), identity: Arc::clone(&conn.identity) }
    }

    /// A feed's place is known: answers the request that made it.
    fn start_feed(&mut self, conn: &mut Conn, at: usize, place: Place) {
        let feed = &mut conn.feeds[at];
        if feed.started {
            return;
        }
        feed.started = true;
        feed.place = place;
        let (partition, number, reply) = (feed.partition, feed.number, feed.reply.take());
        conn.set_cut(partition, place);
        if conn.wire == Wire::WebSocket {
            let token = token(self.hub.epoch(), partition, &place);
            for at in 0..conn.subs.len() {
                if conn.subs[at].feed == number {
                    let name = &self.channels.log(conn.subs[at].log).name;
                    ops::put_ok(&mut conn.control, reply.as_deref(), name, Some(&token));
                }
            }
        }
    }

    /// Forgets a feed here and at the sweeper.
    pub(super) fn drop_feed(&mut self, conn: &mut Conn, at: usize) {
        if conn.feeds[at].phase == Phase::Asked {
            self.forget_asked(conn, at);
        }
        conn.feeds.swap_remove(at);
    }

    /// Takes a feed's question back.
    pub(super) fn forget_asked(&self, conn: &Conn, at: usize) {
        self.hub.ask(Ask::Forget(self.key(conn, &conn.feeds[at])));
    }

    /// Takes in what the sweeper has for one feed.
    pub(super) fn take_answer(&mut self, answer: Answer) {
        let key = answer.key;
        let slot = key.conn.slot;
        let Some(mut conn) = self.take_conn(slot) else { return };
        let asked = |feed: &Feed| feed.phase == Phase::Asked && self.key(&conn, feed) == key;
        if let Some(at) = conn.feeds.iter().position(|feed| asked(feed)) {
            self.answer_feed(&mut conn, at, answer.item);
            self.ready.mark(slot);
        }
        self.put_conn(conn);
    }

    fn answer_feed(&mut self, conn: &mut Conn, at: usize, item: Item) {
        match item {
            Item::Started(place) => self.start_feed(conn, at, place),
            Item::Refused(refusal) => {
                telemetry::requests_refused(refusal.code.as_str());
                let feed = &mut conn.feeds[at];
                let (number, reply) = (feed.number, feed.reply.take());
                // The sweeper has forgotten it already.
                feed.phase = Phase::Unrouted;
                ops::put_error(conn, reply.as_deref(), &refusal);
                self.remove_subs_of(conn, number);
                if conn.wire == Wire::Sse {
                    self.end(conn, CloseReason::ProtocolError);
                }
            }
            Item::Left => {
                let feed = &mut conn.feeds[at];
                feed.forget_answers();
                feed.leaves = feed.leaves.saturating_add(1);
                if feed.leaves > self.hub.config().sweep_leaves_max {
                    self.end(conn, CloseReason::Slow);
                }
            }
            item => conn.feeds[at].queue.push_back(item),
        }
    }

    /// Writes what a connection's feeds have for it. `true` if the budget ended first.
    pub(super) fn fill_feeds(&mut self, conn: &mut Conn, budget: &mut Budget<'_>) -> bool {
        let mut at = 0;
        while at < conn.feeds.len() {
            match self.fill_feed(conn, at, budget) {
                Fed::More => {
                    // The others come first next time.
                    conn.feeds.rotate_left(1);
                    return true;
                }
                Fed::Waits => at += 1,
                Fed::Follows => {
                    let feed = conn.feeds.swap_remove(at);
                    if conn.feeds.is_empty() {
                        conn.feeds = Vec::new();
                    }
                    for sub in conn.subs.iter_mut().filter(|sub| sub.feed == feed.number) {
                        sub.feed = FOLLOWS;
                        sub.cursor = self.channels.log(sub.log).end();
                    }
                }
            }
        }
        false
    }

    fn fill_feed(&mut self, conn: &mut Conn, at: usize, budget: &mut Budget<'_>) -> Fed {
        loop {
            match conn.feeds[at].phase {
                Phase::Ring(scan) => {
                    let fed = self.fill_from_ring((conn, at), scan, budget);
                    if conn.feeds[at].phase != Phase::Unrouted {
                        return fed;
                    }
                }
                Phase::Asked => {
                    if budget.is_spent() && !conn.feeds[at].queue.is_empty() {
                        return Fed::More;
                    }
                    if !self.fill_from_sweep(conn, at, budget) {
                        return Fed::Waits;
                    }
                }
                Phase::Unrouted => {
                    self.route(conn, at);
                    if conn.feeds[at].phase == Phase::Unrouted {
                        return Fed::Waits;
                    }
                }
            }
        }
    }

    /// Writes one step of the sweeper's answers; `false` if there is none.
    fn fill_from_sweep(&mut self, conn: &mut Conn, at: usize, budget: &mut Budget<'_>) -> bool {
        let Some(item) = conn.feeds[at].queue.pop_front() else { return false };
        match item {
            Item::Share { segment, picks } => {
                let mut picked = conn.feeds[at].picked;
                while picked < picks.len() && !budget.is_spent() {
                    let entry = picks[picked] as usize;
                    self.write_behind((conn, at), (&segment, entry), budget);
                    picked += 1;
                }
                if picked == picks.len() {
                    conn.feeds[at].picked = 0;
                    self.hub.ask(Ask::Consumed(self.key(conn, &conn.feeds[at])));
                } else {
                    conn.feeds[at].picked = picked;
                    conn.feeds[at].queue.push_front(Item::Share { segment, picks });
                }
            }
            Item::Gap { from, to } => self.write_gap((conn, at), (from, to), budget),
            Item::Reached(place) => {
                let feed = &mut conn.feeds[at];
                feed.place.join(&place);
                feed.phase = Phase::Unrouted;
                feed.leaves = 0;
                let (partition, place) = (feed.partition, feed.place);
                conn.set_cut(partition, place);
            }
            Item::Started(_) | Item::Refused(_) | Item::Left => {}
        }
        true
    }

    /// Reads the ring from `scan` on. If that has left the ring, the feed is to be routed again.
    fn fill_from_ring(
        &mut self,
        (conn, at): (&mut Conn, usize),
        scan: Ref,
        budget: &mut Budget<'_>,
    ) -> Fed {
        let partition = conn.feeds[at].partition as usize;
        let number = conn.feeds[at].number;
        let mut wanted = std::mem::take(&mut self.wanted);
        wanted.clear();
        let subs = conn.subs.iter().filter(|sub| sub.feed == number);
        wanted.extend(subs.map(|sub| self.channels.log(sub.log).hash));
        let mut seq = scan.seq();
        let mut index = scan.index();
        let mut spent = false;
        if seq < self.mirrors[partition].front_seq {
            conn.feeds[at].phase = Phase::Unrouted;
        }
        while let Some(segment) = self.mirrors[partition].segment(seq).cloned() {
            let found = segment.channels[index..].iter().position(|hash| wanted.contains(hash));
            let Some(found) = found else {
                conn.feeds[at].place.join(&segment.after);
                (seq, index) = (seq + 1, 0);
                continue;
            };
            spent = budget.is_spent();
            if spent {
                index += found;
                break;
            }
            index += found;
            self.write_behind((conn, at), (&segment, index), budget);
            index += 1;
        }
        self.wanted = wanted;
        let (mirror, feed) = (&self.mirrors[partition], &mut conn.feeds[at]);
        if feed.phase == Phase::Unrouted {
            return Fed::Waits;
        }
        feed.phase = Phase::Ring(Ref::new(seq, index));
        if spent {
            return Fed::More;
        }
        feed.place.join(&mirror.head);
        let (id, place) = (feed.partition, feed.place);
        conn.set_cut(id, place);
        if mirror.head.reaches(&place) { Fed::Follows } else { Fed::Waits }
    }

    /// Writes an entry to a feed if its place has not passed it and it is one of its own; moves the
    /// place on either way.
    fn write_behind(
        &mut self,
        (conn, at): (&mut Conn, usize),
        (segment, index): (&Segment, usize),
        budget: &mut Budget<'_>,
    ) {
        let entry = &segment.entries[index];
        let feed = &mut conn.feeds[at];
        let topic = usize::from(entry.topic);
        let passed = entry.offset < feed.place.0[topic];
        feed.place.join(&entry.after);
        let (partition, place) = (feed.partition, feed.place);
        conn.set_cut(partition, place);
        if passed {
            return;
        }
        let Some(since) = self.wants(conn, at, entry) else { return };
        self.deliveries += 1;
        let frame = segment.frame(index, conn.wire);
        let mut resume = place;
        resume.join(&since);
        if conn.cuts.len() > 1 {
            frame.splice(&token_of(budget.epoch, &conn.cuts), budget.out);
        } else if resume == entry.after {
            budget.out.extend_from_slice(frame.bytes());
        } else {
            frame.splice(&token(budget.epoch, partition, &resume), budget.out);
        }
    }

    /// Whether an entry is one of a feed's own; if so, the place its channel began to wait at.
    fn wants(&self, conn: &Conn, at: usize, entry: &Entry) -> Option<Place> {
        let feed = &conn.feeds[at];
        let mut subs = conn.subs.iter().filter(|sub| sub.feed == feed.number);
        let sub = subs.find(|sub| *self.channels.log(sub.log).name == *entry.channel())?;
        let since = feed.since.iter().find(|(log, _)| *log == sub.log);
        let since = since.map_or_else(Place::default, |(_, since)| *since);
        let due = entry.offset >= since.0[usize::from(entry.topic)]
            && conn.identity.accounts.admits(entry.account());
        due.then_some(since)
    }

    /// Tells that the log has lost what stood between two places.
    fn write_gap(
        &mut self,
        (conn, at): (&mut Conn, usize),
        (from, to): (Place, Place),
        budget: &mut Budget<'_>,
    ) {
        telemetry::gaps("retention");
        let feed = &mut conn.feeds[at];
        let (partition, number) = (feed.partition, feed.number);
        feed.place.join(&to);
        let from = token(budget.epoch, partition, &from);
        let to = token(budget.epoch, partition, &to);
        let place = feed.place;
        conn.set_cut(partition, place);
        for at in 0..conn.subs.len() {
            if conn.subs[at].feed == number {
                let name = &self.channels.log(conn.subs[at].log).name;
                let json = ops::gap(name, "retention", (&from, &to));
                frame::put_object(conn.wire, "gap", &json, budget.out);
            }
        }
    }
}
