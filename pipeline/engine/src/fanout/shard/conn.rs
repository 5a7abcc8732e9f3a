//! One connection as its shard keeps it, and the two ways a subscription gets its events.
//!
//! A subscription *follows* its channel's list with a cursor, which is all it costs; or it belongs
//! to a *feed* that is behind: subscriptions of one connection in one partition that share a place
//! and catch up together, from the ring or from a sweep. On SSE all subscriptions of a partition
//! always move together, because one token speaks for all of them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::channels::EntryRef;
use super::{ConnId, Framing};
use crate::fanout::catchup::sweeper::{FeedStart, FeedUpdate};
use crate::fanout::config::{
    BAD_FRAMES_MAX, BAD_FRAMES_WINDOW_MS, CLIENT_MESSAGES_BURST, CLIENT_MESSAGES_PER_S,
    RATE_LIMITED_CLOSE_MS,
};
use crate::fanout::identity::{Accounts, Identity};
use crate::fanout::offsets::PartitionOffsets;

/// The feed number of a subscription that follows.
pub(super) const FOLLOWS: u32 = 0;

/// Milliseconds without a refused message after which the rate limit forgets.
const RATE_LIMITED_FORGET_MS: i64 = 1_000;

/// One subscription.
#[derive(Clone, Copy, Debug)]
pub(in crate::fanout) struct Subscription {
    /// The channel's list.
    pub(super) list: u32,
    /// Its place among the list's subscribers.
    pub(super) list_index: u32,
    /// The feed it belongs to, or [`FOLLOWS`].
    pub(super) feed: u32,
    /// What of the list it has not been given begins here; void while it is behind.
    pub(super) cursor: u64,
}

/// What a feed waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FeedPhase {
    /// To be sent to the ring or the sweeper at the next `fill`, which proves that its socket
    /// takes more.
    Unrouted,
    /// The sweeper's answers.
    Requested,
    /// Nothing: it reads the ring from here.
    Ring(EntryRef),
}

/// Subscriptions of one connection in one partition that catch up together.
pub(in crate::fanout) struct CatchUpFeed {
    pub(super) number: u32,
    pub(super) partition: u32,
    pub(super) phase: FeedPhase,
    /// Times it has asked the sweeper.
    pub(super) attempt: u32,
    /// Where it was asked to start; the place while it has one.
    pub(super) start: FeedStart,
    /// Everything before is written or not wanted. Valid once started.
    pub(super) offsets: PartitionOffsets,
    /// Lists of which a later place holds: a channel subscribed to after another one's events had
    /// begun to wait has nothing to see from before.
    pub(super) since: Vec<(u32, PartitionOffsets)>,
    pub(super) started: bool,
    /// The id of the request to be answered `ok` once started, as JSON.
    pub(super) reply: Option<Box<str>>,
    /// The sweeper's answers, oldest first. Bounded by the sweep's patience.
    pub(super) queue: VecDeque<FeedUpdate>,
    /// What of the front share is written.
    pub(super) picked: usize,
    /// Sweeps that went on without it.
    pub(super) sweep_misses: u8,
}

impl CatchUpFeed {
    pub(super) fn new(number: u32, partition: u32, start: FeedStart) -> Self {
        let offsets = match start {
            FeedStart::At(offsets) => offsets,
            FeedStart::Earliest | FeedStart::Time(_) => PartitionOffsets::default(),
        };
        Self {
            number,
            partition,
            phase: FeedPhase::Unrouted,
            attempt: 0,
            start,
            offsets,
            since: Vec::new(),
            started: false,
            reply: None,
            queue: VecDeque::new(),
            picked: 0,
            sweep_misses: 0,
        }
    }

    /// Drops what the sweeper has said and was not written yet: the feed is to ask again from its
    /// place, which is exact.
    pub(super) fn discard_replies(&mut self) {
        self.queue.clear();
        self.picked = 0;
        self.phase = FeedPhase::Unrouted;
    }
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
    /// Small frames to be written before events.
    pub(in crate::fanout) control: Vec<u8>,
    /// SSE: the place per partition subscribed to, ascending.
    pub(in crate::fanout) partition_offsets: Vec<(u32, PartitionOffsets)>,
    pub(super) limiter: ClientLimiter,
    /// When anything last arrived.
    pub(super) last_input_ms: i64,
    /// When its present window of slowness began; void while it has been given everything.
    pub(super) window_ms: i64,
    /// What it has taken since.
    pub(super) window_bytes: u32,
    /// Which partition its next fill begins with, so that none starves.
    pub(super) rotation: u32,
    /// Whether its identity sees some accounts but not all of a list it follows.
    pub(super) filters_accounts: bool,
    /// Whether it is due the position it has reached.
    pub(super) position_due: bool,
    /// Whether it has been told to end: it is given no more events.
    pub(super) closing: bool,
}

impl Conn {
    pub(super) fn new(id: ConnId, framing: Framing, identity: Arc<Identity>, now: i64) -> Self {
        let filters_accounts =
            matches!(&identity.accounts, Accounts::Only(only) if only.len() != 1);
        Self {
            id,
            framing,
            identity,
            subs: Vec::new(),
            feeds: Vec::new(),
            control: Vec::new(),
            partition_offsets: Vec::new(),
            limiter: ClientLimiter::new(now),
            last_input_ms: now,
            window_ms: now,
            window_bytes: 0,
            rotation: 0,
            filters_accounts,
            position_due: false,
            closing: false,
        }
    }

    /// Notes how far a partition of an SSE stream has got.
    pub(super) fn set_offsets(&mut self, partition: u32, offsets: PartitionOffsets) {
        if let Ok(at) = self.partition_offsets.binary_search_by_key(&partition, |(p, _)| *p) {
            self.partition_offsets[at].1 = offsets;
        }
    }
}

/// What a client has used up of its limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientLimiter {
    /// Thousandths of messages it may still send at once.
    allowance: u32,
    at_ms: i64,
    /// When the present run of refusals began and was last added to.
    limited_from_ms: i64,
    limited_at_ms: i64,
    bad: u8,
    bad_from_ms: i64,
}

/// How a message stands to the rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RateDecision {
    Allowed,
    Limited,
    /// Refused, and for too long by now.
    LimitedTooLong,
}

impl ClientLimiter {
    fn new(now: i64) -> Self {
        Self {
            allowance: CLIENT_MESSAGES_BURST * 1_000,
            at_ms: now,
            limited_from_ms: i64::MIN,
            limited_at_ms: i64::MIN,
            bad: 0,
            bad_from_ms: i64::MIN,
        }
    }

    /// Counts a message.
    pub(super) fn message(&mut self, now: i64) -> RateDecision {
        let gained = (now - self.at_ms).max(0).saturating_mul(i64::from(CLIENT_MESSAGES_PER_S));
        let room = CLIENT_MESSAGES_BURST * 1_000 - self.allowance;
        self.allowance += u32::try_from(gained).unwrap_or(u32::MAX).min(room);
        self.at_ms = now;
        if self.allowance >= 1_000 {
            self.allowance -= 1_000;
            return RateDecision::Allowed;
        }
        if now.saturating_sub(self.limited_at_ms) > RATE_LIMITED_FORGET_MS {
            self.limited_from_ms = now;
        }
        self.limited_at_ms = now;
        match now - self.limited_from_ms >= RATE_LIMITED_CLOSE_MS {
            true => RateDecision::LimitedTooLong,
            false => RateDecision::Limited,
        }
    }

    /// Counts a bad frame; `true` if that was one too many.
    pub(super) fn bad_frame(&mut self, now: i64) -> bool {
        if now.saturating_sub(self.bad_from_ms) > BAD_FRAMES_WINDOW_MS {
            self.bad_from_ms = now;
            self.bad = 0;
        }
        self.bad = self.bad.saturating_add(1);
        self.bad >= BAD_FRAMES_MAX
    }
}
