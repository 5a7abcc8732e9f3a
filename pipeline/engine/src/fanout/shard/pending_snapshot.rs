//! What a connection keeps of the state it waits for: snapshots, and the events in them.
//!
//! Most connections have nothing of it, so it is one pointer in a connection. The steps between the
//! phases are in `snapshots.rs`.

use std::sync::Arc;

use super::channels::ListId;
use crate::fanout::fold::snapshot::ChannelSnapshot;
use crate::fanout::messages::SnapshotNumber;
use crate::fanout::protocol::event_frame::FrameKey;
use crate::fanout::protocol::snapshot_frame::SnapshotKind;
use crate::fanout::segment::SegmentEntry;
use crate::record::{MonotonicMillis, Partition};

/// The state that a connection waits for or was given.
#[derive(Default)]
pub(in crate::fanout) struct ConnState {
    /// Snapshots to be written, one per list at most.
    pub(super) snapshots: Vec<PendingSnapshot>,
    /// What snapshots contained of channels whose events are delivered too, for a while.
    pub(super) contained: Vec<ContainedEvents>,
}

impl ConnState {
    pub(super) fn is_empty(&self) -> bool {
        self.snapshots.is_empty() && self.contained.is_empty()
    }

    /// Whether the events of this partition wait: a snapshot is under way.
    pub(super) fn holds(&self, partition: Partition) -> bool {
        self.snapshots.iter().any(|pending| {
            pending.partition == partition && !matches!(pending.phase, SnapshotPhase::CatchingUp)
        })
    }

    /// Whether an event of a list is a change for the client. It is none while a snapshot is still
    /// to come, which contains it, or if the last one contained it.
    pub(super) fn frame_key(&self, list: ListId, entry: &SegmentEntry) -> FrameKey {
        let mut of_list = self.contained.iter().filter(|contained| contained.list == list);
        let is_contained = of_list.any(|contained| {
            let id = entry.event_id();
            contained.event_ids.binary_search_by(|known| (**known).cmp(id)).is_ok()
        });
        let awaits = self.snapshots.iter().any(|pending| pending.stream == Some(list));
        if is_contained || awaits { FrameKey::Omit } else { FrameKey::Keep }
    }

    /// Forgets what concerns a list that the connection leaves.
    pub(super) fn forget(&mut self, list: ListId) {
        self.snapshots.retain(|pending| pending.list != list);
        self.contained.retain(|contained| contained.list != list);
    }
}

/// A snapshot that a state subscription waits for.
pub(super) struct PendingSnapshot {
    /// The list of the channel's state.
    pub(super) list: ListId,
    /// That of its events, if they are delivered too.
    pub(super) stream: Option<ListId>,
    pub(super) partition: Partition,
    pub(super) kind: SnapshotKind,
    pub(super) phase: SnapshotPhase,
}

impl PendingSnapshot {
    /// Whether a page is written.
    pub(super) fn has_begun(&self) -> bool {
        matches!(self.phase, SnapshotPhase::Writing { page: 1.., .. })
    }

    /// Whether it waits for the answer to this request.
    pub(super) fn awaits(&self, number: SnapshotNumber) -> bool {
        matches!(self.phase, SnapshotPhase::Requested(of) if of == number)
    }
}

/// How far a snapshot is.
pub(super) enum SnapshotPhase {
    /// The channel's events have to catch up first, or the fold had no room for the request.
    CatchingUp,
    /// The fold is asked.
    Requested(SnapshotNumber),
    /// The next page to write. After the last one it waits until the ring has passed the snapshot.
    Writing { snapshot: Arc<ChannelSnapshot>, page: usize },
}

/// Events that a snapshot contains, of a channel whose events are delivered too.
pub(super) struct ContainedEvents {
    /// The list of the channel's events.
    pub(super) list: ListId,
    /// Their ids, ascending.
    pub(super) event_ids: Vec<Box<str>>,
    pub(super) until: MonotonicMillis,
}
