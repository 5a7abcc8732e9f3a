//! Snapshots that were made a moment ago, for requests that are equal.
//!
//! When many clients connect at once, as after a restart, most ask for the same few channels. One
//! that is older than what a request needs is not used: the rule is the offset, and the time only
//! bounds the memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::request::SnapshotRequest;
use super::snapshot::ChannelSnapshot;
use crate::fanout::identity::Accounts;
use crate::record::{MonotonicMillis, Offset};

/// Milliseconds for which a snapshot is kept.
const KEPT_MS: i64 = 250;

/// Bytes of snapshots that are kept. Above it all are forgotten.
const KEPT_MAX_BYTES: usize = 32 * 1_024 * 1_024;

/// Bytes that a snapshot takes beside its pages and texts.
const SNAPSHOT_BYTES: usize = 256;

/// The snapshots, by channel.
#[derive(Default)]
pub(super) struct RecentSnapshots {
    by_channel: BTreeMap<Box<str>, Vec<RecentSnapshot>>,
    bytes: usize,
}

struct RecentSnapshot {
    accounts: Accounts,
    made: MonotonicMillis,
    snapshot: Arc<ChannelSnapshot>,
}

impl RecentSnapshots {
    /// A snapshot for this request that has all records before `end`.
    pub(super) fn find(
        &self,
        request: &SnapshotRequest,
        end: Offset,
    ) -> Option<&Arc<ChannelSnapshot>> {
        let mut of_channel = self.by_channel.get(&request.channel)?.iter();
        let fits = |recent: &&RecentSnapshot| {
            recent.accounts == request.accounts && recent.snapshot.at >= end.0
        };
        of_channel.find(fits).map(|recent| &recent.snapshot)
    }

    /// Keeps the answer to a request.
    pub(super) fn keep(
        &mut self,
        request: &SnapshotRequest,
        snapshot: &Arc<ChannelSnapshot>,
        made: MonotonicMillis,
    ) {
        self.bytes += size(snapshot);
        if self.bytes > KEPT_MAX_BYTES {
            *self = Self { bytes: size(snapshot), ..Self::default() };
        }
        let (accounts, snapshot) = (request.accounts.clone(), Arc::clone(snapshot));
        let of_channel = self.by_channel.entry(request.channel.clone()).or_default();
        of_channel.push(RecentSnapshot { accounts, made, snapshot });
    }

    /// Forgets those that have been kept for long.
    pub(super) fn forget_old(&mut self, now: MonotonicMillis) {
        let bytes = &mut self.bytes;
        self.by_channel.retain(|_, of_channel| {
            of_channel.retain(|recent| {
                let keeps = now.since(recent.made) < KEPT_MS;
                *bytes -= if keeps { 0 } else { size(&recent.snapshot) };
                keeps
            });
            !of_channel.is_empty()
        });
    }

    /// When the first may be forgotten.
    pub(super) fn due_at(&self) -> Option<MonotonicMillis> {
        let made = self.by_channel.values().flatten().map(|recent| recent.made);
        made.min().map(|made| made.plus(KEPT_MS))
    }
}

fn size(snapshot: &ChannelSnapshot) -> usize {
    SNAPSHOT_BYTES + snapshot.channel.len() + snapshot.bytes()
}
