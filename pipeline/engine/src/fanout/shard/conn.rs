//! One connection as its shard keeps it: subscriptions, feeds that are behind, and small frames.
//!
//! A subscription follows its channel's list with a cursor, which is all it costs; or it belongs to
//! a feed: subscriptions of one connection in one partition that catch up together, from the ring
//! or from a sweep. On SSE all subscriptions of a partition always move together, because one token
//! covers all of them.
//!
//! Tens of thousands of these exist per process, so they stay small: `tests/limits.rs` bounds them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::channels::ListId;
use super::limiter::ClientLimiter;
use super::mirror::EntryRef;
use super::pending_snapshot::PendingSnapshots;
use crate::fanout::identity::{Accounts, Identity};
use crate::fanout::messages::{ConnId, FeedNumber, FeedStart, FeedUpdate};
use crate::fanout::offsets::PartitionOffsets;
use crate::fanout::protocol::framing::Framing;
use crate::fanout::protocol::names::GapReason;
use crate::fanout::segment::SegmentEntry;
use crate::record::{MonotonicMillis, Partition};

/// One subscription.
#[derive(Clone, Copy, Debug)]
pub(in crate::fanout) struct Subscription {
    /// The channel's list.
    pub(super) list: ListId,
    /// Its index among the list's subscribers.
    pub(super) list_index: u32,
    pub(super) mode: Mode,
}

/// How a subscription gets its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// From its channel's list; the next entry to write is at the cursor.
    Following { cursor: u64 },
    /// From this feed of its connection.
    Behind(FeedNumber),
    /// It is state that waits for its snapshot, or is being written it. The list's entries before
    /// the cursor are in the snapshot.
    Snapshot { cursor: u64 },
}

impl Subscription {
    /// The cursor from which on it needs its list, if it does.
    pub(super) fn cursor(&self) -> Option<u64> {
        match self.mode {
            Mode::Following { cursor } | Mode::Snapshot { cursor } => Some(cursor),
            Mode::Behind(_) => None,
        }
    }

    /// Whether it belongs to this feed.
    pub(super) fn is_of(&self, feed: FeedNumber) -> bool {
        self.mode == Mode::Behind(feed)
    }
}

/// What a feed waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FeedPhase {
    /// To be sent to the ring or the sweeper at the next `fill`, which shows that its socket
    /// accepts more.
    Unrouted,
    /// The sweeper's answers.
    Requested,
    /// Nothing: it reads the ring from here.
    Ring(EntryRef),
}

/// How far a feed has got.
#[derive(Clone, Copy, Debug)]
pub(super) enum FeedProgress {
    /// Its start is not resolved to offsets yet.
    Unresolved(FeedStart),
    /// Everything before these offsets is written or not wanted.
    At(PartitionOffsets),
}

/// Subscriptions of one connection in one partition that catch up together.
pub(in crate::fanout) struct CatchUpFeed {
    pub(super) number: FeedNumber,
    pub(super) partition: Partition,
    pub(super) phase: FeedPhase,
    /// Times it has asked the sweeper.
    pub(in crate::fanout) attempt: u32,
    pub(super) progress: FeedProgress,
    /// Lists whose cursors were further when the feed was made: they want nothing before these
    /// offsets.
    pub(super) since: Vec<(ListId, PartitionOffsets)>,
    /// The id, as JSON, of the request to be answered `ok` once the start is resolved.
    pub(super) reply: Option<Box<str>>,
    /// The sweeper's answers, oldest first. Bounded by the shares that a sweep lets be
    /// outstanding.
    pub(super) queue: VecDeque<FeedUpdate>,
    /// Picks of the front share that are written.
    pub(super) picked: usize,
    /// Sweeps that went on without it since it last wrote a share or reached the ring.
    pub(super) sweep_misses: u8,
}

impl CatchUpFeed {
    pub(super) fn new(number: FeedNumber, partition: Partition, progress: FeedProgress) -> Self {
        Self {
            number,
            partition,
            phase: FeedPhase::Unrouted,
            attempt: 0,
            progress,
            since: Vec::new(),
            reply: None,
            queue: VecDeque::new(),
            picked: 0,
            sweep_misses: 0,
        }
    }

    /// Whether its start is resolved to offsets.
    pub(super) fn is_resolved(&self) -> bool {
        matches!(self.progress, FeedProgress::At(_))
    }

    /// Whether it is past an entry.
    pub(super) fn has_passed(&self, entry: &SegmentEntry) -> bool {
        let topic = usize::from(entry.topic);
        matches!(self.progress, FeedProgress::At(offsets) if entry.offset < offsets.0[topic])
    }

    /// Moves on to `to`, except in topics where it is further already. Returns the new offsets.
    pub(super) fn advance(&mut self, to: &PartitionOffsets) -> PartitionOffsets {
        let mut offsets = match self.progress {
            FeedProgress::At(offsets) => offsets,
            // Not reached: the start is resolved before anything is written.
            FeedProgress::Unresolved(_) => *to,
        };
        offsets.join(to);
        self.progress = FeedProgress::At(offsets);
        offsets
    }

    /// Drops the sweeper's answers that are not written yet. The feed will ask again from its
    /// offsets, which are exact.
    pub(super) fn discard_replies(&mut self) {
        self.queue.clear();
        self.picked = 0;
        self.phase = FeedPhase::Unrouted;
    }
}

/// Gaps between the position that an SSE stream was opened with and where it starts.
pub(super) struct StartGaps {
    /// The position that the client asked for.
    pub(super) from: Box<str>,
    pub(super) lists: Vec<(ListId, GapReason)>,
}

/// A connection.
pub(in crate::fanout) struct Conn {
    pub(super) id: ConnId,
    pub(super) framing: Framing,
    pub(super) identity: Arc<Identity>,
    pub(in crate::fanout) subs: Vec<Subscription>,
    #[expect(
        clippy::vec_box,
        reason = "most connections have none, and they move between vectors"
    )]
    pub(in crate::fanout) feeds: Vec<Box<CatchUpFeed>>,
    /// Snapshots to be written; most connections have none.
    pub(in crate::fanout) snapshots: Option<Box<PendingSnapshots>>,
    /// Channels subscribed to; one of both classes has two entries in `subs`.
    pub(super) channels: u32,
    /// Small frames to be written before events.
    pub(in crate::fanout) control: Vec<u8>,
    /// SSE: the offsets reached in each partition subscribed to, ascending by partition.
    pub(in crate::fanout) partition_offsets: Vec<(Partition, PartitionOffsets)>,
    pub(super) limiter: ClientLimiter,
    /// When the current window of the check for slow readers began. The check restarts it when
    /// the connection has something to read again.
    pub(super) window: MonotonicMillis,
    /// Bytes read within that window.
    pub(super) window_bytes: u32,
    /// Bytes it was given that its socket has not accepted.
    pub(super) unsent_bytes: u32,
    /// Bytes of `control` that are counted in the totals.
    pub(super) counted_control: u32,
    /// Which partition its next fill begins with, so that none starves.
    pub(super) rotation: u32,
    /// Whether lists come before feeds if its next fill has space for one frame only.
    pub(super) lists_first: bool,
    /// Whether its identity sees some accounts but not all of a list it follows.
    pub(super) filters_accounts: bool,
    /// Whether its reached position is due.
    pub(super) position_due: bool,
    /// SSE: whether its position has moved since the client was sent one.
    pub(super) position_moved: bool,
    /// SSE: whether the stream has been sent its first position, and with it its start gaps.
    pub(super) has_begun: bool,
    /// SSE: when a position was last sent in a block of its own.
    pub(super) position_at: MonotonicMillis,
    /// SSE: gaps to be written with the first position.
    pub(super) start_gaps: Option<Box<StartGaps>>,
    /// Whether it is marked to be closed: it gets no more events.
    pub(super) closing: bool,
}

impl Conn {
    pub(super) fn new(
        id: ConnId,
        framing: Framing,
        identity: Arc<Identity>,
        now: MonotonicMillis,
    ) -> Self {
        let filters_accounts =
            matches!(&identity.accounts, Accounts::Only(only) if only.len() != 1);
        Self {
            id,
            framing,
            identity,
            subs: Vec::new(),
            feeds: Vec::new(),
            snapshots: None,
            channels: 0,
            control: Vec::new(),
            partition_offsets: Vec::new(),
            limiter: ClientLimiter::new(now),
            window: now,
            window_bytes: 0,
            unsent_bytes: 0,
            counted_control: 0,
            rotation: 0,
            lists_first: false,
            filters_accounts,
            position_due: false,
            position_moved: false,
            has_begun: false,
            position_at: now,
            start_gaps: None,
            closing: false,
        }
    }

    /// The index of a feed among [`Conn::feeds`].
    pub(super) fn feed_index(&self, number: FeedNumber) -> Option<usize> {
        self.feeds.iter().position(|feed| feed.number == number)
    }

    /// Notes how far a partition of an SSE stream has got.
    pub(super) fn set_offsets(&mut self, partition: Partition, offsets: PartitionOffsets) {
        if let Ok(at) = self.partition_offsets.binary_search_by_key(&partition, |(p, _)| *p) {
            self.position_moved |= !self.partition_offsets[at].1.is_same_position(&offsets);
            self.partition_offsets[at].1 = offsets;
        }
    }

    /// Whether a snapshot is still to be written.
    pub(super) fn awaits_snapshot(&self) -> bool {
        self.snapshots.is_some()
    }

    /// Notes a gap of an SSE stream that has not begun. `from` is the position that it was opened
    /// with; an earlier gap has named it already.
    pub(super) fn add_start_gap(&mut self, from: &str, list: ListId, reason: GapReason) {
        let gaps = self
            .start_gaps
            .get_or_insert_with(|| Box::new(StartGaps { from: from.into(), lists: Vec::new() }));
        if !gaps.lists.iter().any(|(known, _)| *known == list) {
            gaps.lists.push((list, reason));
        }
    }
}
