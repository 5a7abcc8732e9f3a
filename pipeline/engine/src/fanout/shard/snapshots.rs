//! Snapshots of state channels: asking for them, writing them, and following from there.
//!
//! ```text
//! catching up ──▶ requested ──▶ writing ──▶ (follows)
//!      ▲              │             │          │
//!      └──────────────┴─────────────┴──────────┘  behind the ring, or the rings were reset
//! ```
//!
//! A snapshot is asked for once the channel's events have caught up, so that no missed event comes
//! after it. Until it is written, the events of its partition wait. The fold may be ahead of them:
//! events whose change the snapshot contains come without a key, which makes them no change. So per
//! key a client never sees a value that is older than one it has seen, and it misses no event.

use std::sync::Arc;

use super::channels::{ListId, ListSource};
use super::conn::{Conn, Mode, Subscription};
use super::fill::WriteBudget;
use super::pending_snapshot::{ContainedEvents, PendingSnapshot, SnapshotPhase};
use super::state::Shard;
use crate::fanout::fold::request::{SnapshotAnswer, SnapshotRequest};
use crate::fanout::fold::snapshot::ChannelSnapshot;
use crate::fanout::messages::SnapshotReply;
use crate::fanout::offsets::{STATE_TOPIC, token};
use crate::fanout::protocol::native::CloseReason;
use crate::fanout::protocol::snapshot_frame::{PagePlace, SnapshotKind, SnapshotPage};

/// Milliseconds for which events that a snapshot contains have no key. What a transaction writes to
/// two topics is read from both long before.
const CONTAINED_MS: i64 = 60_000;

impl Shard {
    /// Makes a state subscription wait for a snapshot. One that waits for another one, or is being
    /// written one, begins again.
    pub(super) fn await_snapshot(&mut self, conn: &mut Conn, sub: usize, kind: SnapshotKind) {
        let list = conn.subs[sub].list;
        let partition = self.channels.list(list).partition;
        conn.subs[sub].mode = Mode::Snapshot { cursor: u64::MAX };
        let phase = SnapshotPhase::CatchingUp;
        let stream = self.stream_of(conn, list).map(|stream| conn.subs[stream].list);
        let snapshots = &mut conn.state.get_or_insert_default().snapshots;
        match snapshots.iter_mut().find(|pending| pending.list == list) {
            Some(pending) => {
                if pending.has_begun() {
                    pending.kind = SnapshotKind::Replacing;
                }
                pending.phase = phase;
            }
            None => snapshots.push(PendingSnapshot { list, stream, partition, kind, phase }),
        }
        self.ready.mark(conn.id.slot);
    }

    /// Gives the subscriber of a list another snapshot: it has not been given changes that are not
    /// in the list any more.
    pub(super) fn replace_snapshot(&mut self, slot: u32, list: ListId) {
        self.with_conn_at(slot, |shard, conn| {
            if let Some(sub) = conn.subs.iter().position(|sub| sub.list == list) {
                let kind = match conn.subs[sub].mode {
                    Mode::Following { .. } => SnapshotKind::Replacing,
                    Mode::Snapshot { .. } | Mode::Behind(_) => SnapshotKind::First,
                };
                shard.await_snapshot(conn, sub, kind);
            }
        });
    }

    /// Takes the fold's answer, unless the connection no longer waits for it.
    pub(super) fn receive_snapshot(&mut self, reply: SnapshotReply) {
        let SnapshotReply { conn, number, answer } = reply;
        self.with_conn(conn, |shard, conn| {
            let Some(state) = &mut conn.state else { return };
            let Some(pending) = state.snapshots.iter_mut().find(|one| one.awaits(number)) else {
                return;
            };
            match answer {
                SnapshotAnswer::Found(snapshot) if snapshot.epoch == shard.epoch => {
                    pending.phase = SnapshotPhase::Writing { snapshot, page: 0 };
                    shard.ready.mark(conn.id.slot);
                }
                // The fold follows the former topics still.
                SnapshotAnswer::Found(_) => {
                    pending.phase = SnapshotPhase::CatchingUp;
                    shard.retry.push(conn.id.slot);
                }
                SnapshotAnswer::Unavailable => shard.end(conn, CloseReason::Overloaded),
            }
        });
    }

    /// Asks for the snapshots that are due and writes those that have come. `true` if the budget
    /// ended first.
    pub(super) fn fill_snapshots(&mut self, conn: &mut Conn, budget: &mut WriteBudget<'_>) -> bool {
        let now = self.now;
        let Some(mut state) = conn.state.take() else { return false };
        state.contained.retain(|contained| contained.until > now);
        let mut more = false;
        let mut at = 0;
        while at < state.snapshots.len() && !more {
            match self.fill_snapshot(conn, &mut state.snapshots[at], budget) {
                SnapshotFill::More => more = true,
                SnapshotFill::Waits => at += 1,
                SnapshotFill::Written(contained) => {
                    state.snapshots.swap_remove(at);
                    state.contained.extend(contained);
                }
            }
        }
        conn.state = Some(state).filter(|state| !state.is_empty());
        more
    }

    fn fill_snapshot(
        &mut self,
        conn: &mut Conn,
        pending: &mut PendingSnapshot,
        budget: &mut WriteBudget<'_>,
    ) -> SnapshotFill {
        let Some(sub) = conn.subs.iter().position(|sub| sub.list == pending.list) else {
            return SnapshotFill::Written(None);
        };
        let stream = self.stream_of(conn, pending.list);
        let is_behind = stream.is_some_and(|stream| conn.subs[stream].cursor().is_none());
        if is_behind && !pending.has_begun() {
            pending.phase = SnapshotPhase::CatchingUp;
            return SnapshotFill::Waits;
        }
        if matches!(pending.phase, SnapshotPhase::CatchingUp) {
            self.ask_snapshot(conn, pending, sub);
        }
        let SnapshotPhase::Writing { snapshot, page } = &mut pending.phase else {
            return SnapshotFill::Waits;
        };
        let offsets = self.offsets_of(conn, &conn.subs[stream.unwrap_or(sub)]);
        let position = token(budget.epoch, pending.partition, &offsets);
        let pages = snapshot.pages.len().max(1);
        while *page < pages {
            if budget.is_spent() {
                return SnapshotFill::More;
            }
            let place = PagePlace { kind: pending.kind, is_last: *page + 1 == pages };
            let frame = SnapshotPage {
                channel: &self.channels.list(pending.list).name,
                position: &position,
                place,
                extent: snapshot.extent,
                entries: snapshot.pages.get(*page),
            };
            frame.put(conn.framing, budget.out);
            *page += 1;
        }
        if self.mirror(pending.partition).head.0[STATE_TOPIC] < snapshot.at {
            self.awaiting_head.push(conn.id.slot);
            return SnapshotFill::Waits;
        }
        let snapshot = Arc::clone(snapshot);
        SnapshotFill::Written(self.follow_from(conn, sub, &snapshot))
    }

    /// The index of the subscription to the events of the channel whose state is on this list.
    fn stream_of(&self, conn: &Conn, state: ListId) -> Option<usize> {
        let name = &*self.channels.list(state).name;
        self.sub_of(conn, name, ListSource::Log)
    }

    /// Asks the fold. The list keeps what comes from now on; all before is in the snapshot.
    fn ask_snapshot(&mut self, conn: &mut Conn, pending: &mut PendingSnapshot, sub: usize) {
        let list = self.channels.list(pending.list);
        self.last_snapshot = self.last_snapshot.next();
        let (number, id, inbox) = (self.last_snapshot, conn.id, Arc::clone(&self.inbox));
        let request = SnapshotRequest {
            channel: list.name.clone(),
            partition: pending.partition,
            accounts: conn.identity.accounts.clone(),
            answer: Box::new(move |answer| {
                inbox.put_snapshot(SnapshotReply { conn: id, number, answer });
            }),
        };
        let cursor = list.end();
        match self.hub.snapshots.ask(request) {
            Ok(()) => {
                pending.phase = SnapshotPhase::Requested(number);
                conn.subs[sub].mode = Mode::Snapshot { cursor };
            }
            Err(_) => self.retry.push(conn.id.slot),
        }
    }

    /// Makes a state subscription follow its list from a snapshot on. Returns what the snapshot
    /// contains of events that may still come.
    fn follow_from(
        &self,
        conn: &mut Conn,
        sub: usize,
        snapshot: &ChannelSnapshot,
    ) -> Option<ContainedEvents> {
        let Subscription { list, mode, .. } = conn.subs[sub];
        let Mode::Snapshot { mut cursor } = mode else { return None };
        let mirror = self.mirror(snapshot.partition);
        let of_list = self.channels.list(list);
        while let Some(entry) = of_list.get(cursor).and_then(|reference| mirror.entry(reference)) {
            if entry.offset >= snapshot.at {
                break;
            }
            cursor += 1;
        }
        conn.subs[sub].mode = Mode::Following { cursor };
        let stream = self.stream_of(conn, list)?;
        let mut event_ids = Vec::new();
        for segment in &mirror.segments {
            let of_hash = segment.channels.iter().zip(&segment.entries);
            let of_hash = of_hash.filter(|(hash, _)| **hash == of_list.hash);
            let contained = of_hash.map(|(_, entry)| entry).filter(|entry| {
                entry.is_state() && entry.offset < snapshot.at && *entry.channel() == *of_list.name
            });
            event_ids.extend(contained.map(|entry| Box::<str>::from(entry.event_id())));
        }
        event_ids.sort_unstable();
        let (list, until) = (conn.subs[stream].list, self.now.plus(CONTAINED_MS));
        (!event_ids.is_empty()).then_some(ContainedEvents { list, event_ids, until })
    }
}

/// How writing a snapshot ended.
enum SnapshotFill {
    /// The budget ended first.
    More,
    /// Nothing more for now.
    Waits,
    /// All is written, and the subscription follows; or it is gone.
    Written(Option<ContainedEvents>),
}
