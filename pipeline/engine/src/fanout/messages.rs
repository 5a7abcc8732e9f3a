//! The values that the hub, the shards and the sweeper exchange.
//!
//! Shards pull a [`RingUpdate`] per partition from the hub. A feed (the subscriptions of one
//! connection in one partition that catch up together) asks the sweeper by a [`SweepRequest`] and
//! gets [`FeedUpdate`]s back. A feed that asks again uses a new attempt number, so that answers to
//! an earlier request are recognised and dropped.
//!
//! All queues of these values are bounded: requests by the hub, replies by what was asked for.

use std::sync::Arc;

use super::fold::request::SnapshotAnswer;
use super::identity::Identity;
use super::offsets::PartitionOffsets;
use super::protocol::names::GapReason;
use super::segment::{Segment, SegmentEntry};
use crate::record::{Millis, Partition};

/// A connection of one shard. Slots are dense and reused, so that they can index the worker's own
/// table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    /// The index in the shard's table.
    pub slot: u32,
    /// Tells apart the connections that used the slot one after another.
    pub generation: u32,
}

/// What a ring has that a shard has not seen.
pub(super) struct RingUpdate {
    /// How often the ring was reset. A shard that knows another number has offsets that mean other
    /// records.
    pub(super) resets: u64,
    /// The oldest segment still in the ring.
    pub(super) floor_seq: u64,
    /// The reader's offsets before the first of `segments`.
    pub(super) before: PartitionOffsets,
    /// The number after the newest segment.
    pub(super) next_seq: u64,
    /// In order, none missing.
    pub(super) segments: Vec<Arc<Segment>>,
}

/// What all rings have that a shard has not seen, with the epoch of their offsets.
pub(super) struct HubUpdate {
    pub(super) epoch: u32,
    pub(super) rings: Vec<(Partition, RingUpdate)>,
}

/// A feed's number within its shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FeedNumber(u32);

impl FeedNumber {
    /// The number after this one. It wraps: a shard never has that many feeds at once.
    pub(super) fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// A request for a snapshot, unique within its shard as long as it may be answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SnapshotNumber(u64);

impl SnapshotNumber {
    /// The number after this one.
    pub(super) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The fold's answer for a connection.
pub(super) struct SnapshotReply {
    pub(super) conn: ConnId,
    pub(super) number: SnapshotNumber,
    pub(super) answer: SnapshotAnswer,
}

/// One request of a feed, unique across all shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FeedKey {
    pub(super) shard: u32,
    pub(super) conn: ConnId,
    pub(super) feed: FeedNumber,
    pub(super) attempt: u32,
}

/// Where a feed asks to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FeedStart {
    Earliest,
    Time(Millis),
    At(PartitionOffsets),
}

/// Which records a feed wants.
pub(super) struct FeedFilter {
    /// Channel hashes and names.
    pub(super) channels: Vec<(u64, Box<str>)>,
    /// Whose accounts the records must be of, whatever the channel.
    pub(super) identity: Arc<Identity>,
}

impl FeedFilter {
    pub(super) fn matches(&self, hash: u64, entry: &SegmentEntry) -> bool {
        self.channels.iter().any(|(h, name)| *h == hash && **name == *entry.channel())
            && self.identity.accounts.allows(entry.account())
    }
}

/// A feed to serve until the ring has what it needs.
pub(super) struct FeedRequest {
    pub(super) key: FeedKey,
    pub(super) partition: Partition,
    pub(super) start: FeedStart,
    pub(super) filter: Arc<FeedFilter>,
}

/// From a shard to the sweeper.
pub(super) enum SweepRequest {
    Serve(FeedRequest),
    /// The feed has written a share of records.
    Consumed(FeedKey),
    /// The feed is gone, or needs no more.
    Forget(FeedKey),
}

/// From the sweeper to a shard.
pub(super) struct SweepReply {
    pub(super) key: FeedKey,
    pub(super) update: FeedUpdate,
}

/// One answer to a feed's request.
pub(super) enum FeedUpdate {
    /// The start is resolved to these offsets. Always the first answer.
    Started(PartitionOffsets),
    /// The log does not have this span.
    Gap(LostSpan),
    /// The entries of the segment that the feed wants, by index.
    Share { segment: Arc<Segment>, picks: Vec<u32> },
    /// From these offsets on the ring has everything.
    Reached(PartitionOffsets),
    /// The sweep went on without the feed, which was too slow.
    LeftBehind,
}

/// Records that the log does not have.
#[derive(Clone, Copy, Debug)]
pub(super) struct LostSpan {
    pub(super) reason: GapReason,
    pub(super) from: PartitionOffsets,
    /// Where the feed continues. For [`GapReason::Epoch`] it may be before `from`, whose offsets
    /// mean other records.
    pub(super) to: PartitionOffsets,
}
