//! The snapshots that a connection waits for, one of them under way at a time.
//!
//! Most connections have none, so it is one pointer in a connection. One at a time, because a
//! client that reads nothing holds what it was sent: the memory of one snapshot, however many
//! channels it subscribes to. The steps between the phases are in `snapshots.rs`.

use std::collections::VecDeque;
use std::sync::Arc;

use super::channels::ListId;
use crate::fanout::fold::snapshot::ChannelSnapshot;
use crate::fanout::messages::SnapshotNumber;
use crate::fanout::protocol::snapshot_frame::SnapshotKind;
use crate::record::{MonotonicMillis, Partition};

/// Snapshots that a connection waits for, at most one per list. The first is under way.
#[derive(Default)]
pub(in crate::fanout) struct PendingSnapshots(VecDeque<PendingSnapshot>);

impl PendingSnapshots {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one that is under way.
    pub(super) fn first_mut(&mut self) -> Option<&mut PendingSnapshot> {
        self.0.front_mut()
    }

    pub(super) fn remove_first(&mut self) {
        self.0.pop_front();
    }

    /// Adds one. If there is one of this list already, that begins again.
    pub(super) fn add(&mut self, added: PendingSnapshot) {
        let Some(pending) = self.0.iter_mut().find(|pending| pending.list == added.list) else {
            return self.0.push_back(added);
        };
        if pending.has_begun() {
            pending.kind = SnapshotKind::Replacing;
        }
        pending.phase = SnapshotPhase::Waiting;
    }

    /// Forgets that of a list which the connection leaves.
    pub(super) fn forget(&mut self, list: ListId) {
        self.0.retain(|pending| pending.list != list);
    }
}

/// A snapshot that a state subscription waits for.
pub(super) struct PendingSnapshot {
    /// The list of the channel's state.
    pub(super) list: ListId,
    pub(super) partition: Partition,
    pub(super) kind: SnapshotKind,
    pub(super) phase: SnapshotPhase,
    /// Since when it is the first and not being written; `None` before.
    pub(super) since: Option<MonotonicMillis>,
}

impl PendingSnapshot {
    pub(super) fn new(list: ListId, partition: Partition, kind: SnapshotKind) -> Self {
        Self { list, partition, kind, phase: SnapshotPhase::Waiting, since: None }
    }

    /// Whether a page is written.
    fn has_begun(&self) -> bool {
        matches!(self.phase, SnapshotPhase::Writing { page: 1.., .. })
    }

    /// Whether it waits for the answer to this request.
    pub(super) fn awaits(&self, number: SnapshotNumber) -> bool {
        matches!(self.phase, SnapshotPhase::Requested(of) if of == number)
    }
}

/// How far a snapshot is.
pub(super) enum SnapshotPhase {
    /// It is not its turn, or the fold could not be asked.
    Waiting,
    /// The fold is asked.
    Requested(SnapshotNumber),
    /// The next page to write. After the last one it waits until the ring has passed the snapshot.
    Writing { snapshot: Arc<ChannelSnapshot>, page: usize },
}
