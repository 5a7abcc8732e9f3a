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
use crate::fanout::protocol::native::{ErrorCode, RequestError, SnapshotWish, StartAt};
use crate::fanout::protocol::served_channel::{ServedChannel, ServedClasses};
use crate::fanout::protocol::snapshot_frame::SnapshotKind;
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

/// How the channels that a connection opens with begin.
pub(super) struct StreamStart {
    /// Where their events start.
    pub(super) at: StartAt,
    /// Whether their state begins with a snapshot.
    pub(super) snapshot: SnapshotWish,
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
    pub(super) fn subscribe_all(
        &mut self,
        conn: &mut Conn,
        channels: &[ServedChannel],
        start: &StreamStart,
    ) {
        for channel in channels {
            let partition = self.hub.partition_of(&channel.name);
            // It was decoded once when the request was read.
            let at =
                decode_start(self.epoch, partition, &start.at).unwrap_or(SubscriptionStart::Head);
            if self.is_subscribed(conn, &channel.name) {
                continue;
            }
            let head = self.mirror(partition).head;
            if let Err(at) = conn.partition_offsets.binary_search_by_key(&partition, |(p, _)| *p) {
                conn.partition_offsets.reserve_exact(1);
                conn.partition_offsets.insert(at, (partition, head));
            }
            self.add_channel(conn, channel, start.snapshot);
            let Some(sub) = self.sub_of(conn, &channel.name, ListSource::Log) else { continue };
            match at {
                SubscriptionStart::Head => {}
                SubscriptionStart::AfterGap { from, reason } => {
                    conn.add_start_gap(&from, conn.subs[sub].list, reason);
                }
                SubscriptionStart::Behind(start) => self.join_feed(conn, sub, start),
            }
        }
    }

    /// Adds the subscriptions to a channel: to its events, from the hub's head on, to its state, or
    /// to both if its state is wanted.
    pub(super) fn add_channel(
        &mut self,
        conn: &mut Conn,
        channel: &ServedChannel,
        wish: SnapshotWish,
    ) {
        use SnapshotWish::Send;
        conn.channels += 1;
        self.subscriptions += 1;
        if channel.classes.has_stream() {
            self.add_sub(conn, &channel.name, ListSource::Log);
        }
        if channel.classes == ServedClasses::State || channel.classes.has_state() && wish == Send {
            let sub = self.add_sub(conn, &channel.name, ListSource::State);
            if wish == Send {
                self.await_snapshot(conn, sub, SnapshotKind::First);
            }
        }
    }

    /// Removes the subscriptions to a channel, and the feed of its events if that has no other.
    pub(super) fn remove_channel(&mut self, conn: &mut Conn, name: &str) {
        conn.channels -= 1;
        self.subscriptions -= 1;
        for source in [ListSource::Log, ListSource::State] {
            let Some(at) = self.sub_of(conn, name, source) else { continue };
            let Subscription { list, mode, .. } = conn.subs[at];
            if let Some(pending) = &mut conn.snapshots {
                pending.forget(list);
            }
            self.remove_sub(conn, at);
            if let Mode::Behind(number) = mode
                && !conn.subs.iter().any(|sub| sub.is_of(number))
                && let Some(at) = conn.feed_index(number)
            {
                self.drop_feed(conn, at);
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

    /// Whether a connection is subscribed to this channel.
    pub(super) fn is_subscribed(&self, conn: &Conn, name: &str) -> bool {
        conn.subs.iter().any(|sub| *self.channels.list(sub.list).name == *name)
    }

    /// The index of a connection's subscription to the events or the state of a channel.
    pub(super) fn sub_of(&self, conn: &Conn, name: &str, source: ListSource) -> Option<usize> {
        conn.subs.iter().position(|sub| {
            let list = self.channels.list(sub.list);
            list.source == source && *list.name == *name
        })
    }

    /// Adds a subscription that follows from the hub's head, and returns its index.
    fn add_sub(&mut self, conn: &mut Conn, name: &str, source: ListSource) -> usize {
        let partition = self.hub.partition_of(name);
        let at = conn.subs.len();
        let accounts = &conn.identity.accounts;
        let ListedAt { list, list_index } = self.channels.subscribe(
            ListSelector { channel: name, source, partition, accounts },
            ListSubscriber { slot: conn.id.slot, sub: at as u32 },
        );
        let mode = Mode::Following { cursor: self.channels.list(list).end() };
        conn.subs.reserve_exact(1);
        conn.subs.push(Subscription { list, list_index, mode });
        at
    }

    /// Removes a subscription.
    pub(super) fn remove_sub(&mut self, conn: &mut Conn, at: usize) {
        let sub = conn.subs.swap_remove(at);
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
