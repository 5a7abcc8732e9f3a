//! What the sweeper keeps per feed, and the replies it has not sent yet.
//!
//! Replies are collected per shard and sent once per turn, so that a shard is woken once for all of
//! them. They are sent even if the turn fails: what a cursor has counted as sent must arrive.

use std::collections::HashMap;
use std::sync::Arc;

use crate::fanout::hub::Hub;
use crate::fanout::messages::{FeedFilter, FeedKey, FeedUpdate, SweepReply};
use crate::fanout::offsets::PartitionOffsets;
use crate::record::{MonotonicMillis, Partition};

/// What identifies a sweep: at most one of each is started at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ScanKey {
    pub(super) partition: Partition,
    /// How far behind its feeds were, as an index of the sweeper's depth classes.
    pub(super) depth_class: usize,
}

/// A feed being served.
pub(super) struct FeedCursor {
    /// The sweep that it is a member of, or waits for.
    pub(super) scan: ScanKey,
    /// The next offsets that it has not been sent.
    pub(super) offsets: PartitionOffsets,
    pub(super) filter: Arc<FeedFilter>,
    /// Shares sent and not written out yet.
    pub(super) outstanding: u32,
    /// Milliseconds for which its sweep has waited for it.
    pub(super) waited_ms: i64,
    /// The last time at which its sweep waited for it; `None` if it does not wait.
    pub(super) stalled_at: Option<MonotonicMillis>,
    /// The entries of the current step that it wants.
    pub(super) picks: Vec<u32>,
}

/// Replies not sent yet, by shard.
#[derive(Default)]
pub(super) struct ReplyOutbox(HashMap<u32, Vec<SweepReply>>);

impl ReplyOutbox {
    pub(super) fn put(&mut self, key: FeedKey, update: FeedUpdate) {
        self.0.entry(key.shard).or_default().push(SweepReply { key, update });
    }

    pub(super) fn send(&mut self, hub: &Hub) {
        for (shard, replies) in &mut self.0 {
            if !replies.is_empty() {
                hub.reply(*shard, replies);
            }
        }
    }
}
