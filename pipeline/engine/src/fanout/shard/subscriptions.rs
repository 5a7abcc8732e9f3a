//! Adds and removes subscriptions, and decides where a new one starts.
//!
//! A subscription is known twice: in its connection and in its channel's list, each with the index
//! of the other. Both remove by swapping the last one in, so removing one updates up to two others.

use tidewire_schemas::position::Position;

use super::channels::{ListSelector, ListSource, ListSubscriber, ListedAt};
use super::conn::{CatchUpFeed, Conn, FeedProgress, Mode, Subscription};
use super::state::Shard;
use crate::fanout::messages::FeedStart;
use crate::fanout::offsets::PartitionOffsets;
use crate::fanout::protocol::names::GapReason;
use crate::fanout::protocol::native::{ErrorCode, RequestError, StartAt};
use crate::record::Partition;

/// Where a new subscription begins.
pub(super) enum SubscriptionStart {
    /// At the hub's head.
    Head,
    /// There too, because the position does not say where to start; the gap names it.
    AfterGap { from: Box<str>, reason: GapReason },
    /// Behind the head, or at a start that the sweeper has to resolve.
    Behind(FeedStart),
}

/// What `start` means in one partition.
pub(super) fn decode_start(
    epoch: u32,
    partition: Partition,
    start: &StartAt,
) -> Result<SubscriptionStart, RequestError> {
    let token = match start {
        StartAt::Latest => return Ok(SubscriptionStart::Head),
        StartAt::Earliest => return Ok(SubscriptionStart::Behind(FeedStart::Earliest)),
        StartAt::Time(time) => return Ok(SubscriptionStart::Behind(FeedStart::Time(*time))),
        StartAt::Token(token) => token,
    };
    let position = Position::decode(token)
        .map_err(|error| RequestError::new(ErrorCode::InvalidPosition, error.to_string()))?;
    let after_gap = |reason| SubscriptionStart::AfterGap { from: token.clone(), reason };
    if position.epoch != epoch {
        return Ok(after_gap(GapReason::Epoch));
    }
    Ok(match position.partition(partition.0) {
        Some(found) => SubscriptionStart::Behind(FeedStart::At(PartitionOffsets(found.next))),
        None => after_gap(GapReason::Uncovered),
    })
}

impl Shard {
    /// Subscribes a new connection to all its channels: one feed per partition, because one SSE
    /// token covers all of them.
    pub(super) fn subscribe_all(&mut self, conn: &mut Conn, names: &[String], start: &StartAt) {
        for name in names {
            let partition = self.hub.partition_of(name);
            // It was decoded once when the request was read.
            let start =
                decode_start(self.epoch, partition, start).unwrap_or(SubscriptionStart::Head);
            if self.sub_of(conn, name).is_some() {
                continue;
            }
            let sub = self.add_sub(conn, name, partition);
            let head = self.mirror(partition).head;
            if let Err(at) = conn.partition_offsets.binary_search_by_key(&partition, |(p, _)| *p) {
                conn.partition_offsets.reserve_exact(1);
                conn.partition_offsets.insert(at, (partition, head));
            }
            match start {
                SubscriptionStart::Head => {}
                SubscriptionStart::AfterGap { from, reason } => {
                    conn.add_start_gap(&from, conn.subs[sub].list, reason);
                }
                SubscriptionStart::Behind(start) => self.join_feed(conn, sub, start),
            }
        }
    }

    /// Moves a new subscription behind, in the feed of its partition.
    fn join_feed(&mut self, conn: &mut Conn, sub: usize, start: FeedStart) {
        let partition = self.channels.list(conn.subs[sub].list).partition;
        if let Some(feed) = conn.feeds.iter().find(|feed| feed.partition == partition) {
            conn.subs[sub].mode = Mode::Behind(feed.number);
            return;
        }
        let number = self.new_feed_number();
        let feed = CatchUpFeed::new(number, partition, FeedProgress::Unresolved(start));
        conn.subs[sub].mode = Mode::Behind(number);
        conn.feeds.push(Box::new(feed));
    }

    /// The index of a connection's subscription to this channel.
    pub(super) fn sub_of(&self, conn: &Conn, name: &str) -> Option<usize> {
        conn.subs.iter().position(|sub| *self.channels.list(sub.list).name == *name)
    }

    /// Adds a subscription that follows from the hub's head, and returns its index.
    pub(super) fn add_sub(&mut self, conn: &mut Conn, name: &str, partition: Partition) -> usize {
        let at = conn.subs.len();
        let accounts = &conn.identity.accounts;
        let ListedAt { list, list_index } = self.channels.subscribe(
            ListSelector { channel: name, source: ListSource::Log, partition, accounts },
            ListSubscriber { slot: conn.id.slot, sub: at as u32 },
        );
        let mode = Mode::Following { cursor: self.channels.list(list).end() };
        conn.subs.reserve_exact(1);
        conn.subs.push(Subscription { list, list_index, mode });
        self.subscriptions += 1;
        at
    }

    /// Removes a subscription.
    pub(super) fn remove_sub(&mut self, conn: &mut Conn, at: usize) {
        let sub = conn.subs.swap_remove(at);
        self.subscriptions -= 1;
        let moved = self.channels.unsubscribe(sub.list, sub.list_index);
        // A connection is on a list once, so the one that moved is never this one.
        if let Some(moved) = moved
            && let Some(other) = self.conn_mut(moved.slot)
        {
            other.subs[moved.sub as usize].list_index = sub.list_index;
        }
        if let Some(moved) = conn.subs.get(at) {
            let list = self.channels.list_mut(moved.list);
            list.subscribers[moved.list_index as usize].sub = at as u32;
        }
    }
}
