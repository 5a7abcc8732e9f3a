//! Snapshots of state channels: asking for them, writing them, and following from there.
//!
//! ```text
//! waiting ──▶ requested ──▶ writing ──▶ (follows)
//!    ▲            │            │            │
//!    └────────────┴────────────┴────────────┘  behind the ring, or the rings were reset
//! ```
//!
//! When the fold is asked, the list's end is noted: all before it is in the snapshot. What comes
//! later stays in the list, and is skipped as far as the snapshot contains it, which its offset
//! tells. The ring is waited for, so that nothing the snapshot contains comes after that.
//!
//! State does not depend on the channel's events, which lie in other topics: it has an order of its
//! own, that of `out.state`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::channels::ListId;
use super::conn::{Conn, Mode, Subscription};
use super::fill::WriteBudget;
use super::pending_snapshot::{PendingSnapshot, SnapshotPhase};
use super::state::Shard;
use crate::fanout::fold::request::SnapshotAnswer;
use crate::fanout::fold::snapshot::ChannelSnapshot;
use crate::fanout::messages::SnapshotReply;
use crate::fanout::offsets::STATE_TOPIC;
use crate::fanout::protocol::native::CloseReason;
use crate::fanout::protocol::snapshot_frame::{PagePlace, SnapshotKind, SnapshotPage};
use crate::telemetry;

/// Milliseconds a snapshot may take until it is written, once it is its turn: five times what the
/// fold may take to answer. It takes longer while there is no fold, or no memory.
const SNAPSHOT_WAIT_MS: i64 = 10_000;

impl Shard {
    /// Makes a state subscription wait for a snapshot. One that waits for another one, or is being
    /// written one, begins again.
    pub(super) fn await_snapshot(&mut self, conn: &mut Conn, sub: usize, kind: SnapshotKind) {
        let list = conn.subs[sub].list;
        let partition = self.channels.list(list).partition;
        conn.subs[sub].mode = Mode::Snapshot { cursor: u64::MAX };
        let pending = conn.snapshots.get_or_insert_default();
        pending.add(PendingSnapshot::new(list, partition, kind));
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
                telemetry::behind("state");
                shard.await_snapshot(conn, sub, kind);
            }
        });
    }

    /// Takes the fold's answer, unless the connection no longer waits for it.
    pub(super) fn receive_snapshot(&mut self, reply: SnapshotReply) {
        let SnapshotReply { conn, number, answer } = reply;
        self.with_conn(conn, |shard, conn| {
            let first = conn.snapshots.as_mut().and_then(|pending| pending.first_mut());
            let Some(pending) = first.filter(|pending| pending.awaits(number)) else { return };
            match answer {
                SnapshotAnswer::Found(snapshot) if snapshot.epoch == shard.epoch => {
                    pending.phase = SnapshotPhase::Writing { snapshot, page: 0 };
                    shard.ready.mark(conn.id.slot);
                }
                // The fold follows the former topics still.
                SnapshotAnswer::Found(_) => {
                    pending.phase = SnapshotPhase::Waiting;
                    shard.retry.push(conn.id.slot);
                }
                SnapshotAnswer::Unavailable => shard.end(conn, CloseReason::Overloaded),
            }
        });
    }

    /// Asks for the snapshot whose turn it is, or writes it if it has come, and so on. `true` if
    /// the budget ended first.
    pub(super) fn fill_snapshots(&mut self, conn: &mut Conn, budget: &mut WriteBudget<'_>) -> bool {
        let Some(mut all) = conn.snapshots.take() else { return false };
        let mut more = false;
        while let Some(first) = all.first_mut() {
            match self.fill_snapshot(conn, first, budget) {
                SnapshotFill::More => more = true,
                SnapshotFill::Waits => {}
                SnapshotFill::Written => {
                    all.remove_first();
                    continue;
                }
            }
            break;
        }
        conn.snapshots = Some(all).filter(|all| !all.is_empty());
        more
    }

    fn fill_snapshot(
        &mut self,
        conn: &mut Conn,
        pending: &mut PendingSnapshot,
        budget: &mut WriteBudget<'_>,
    ) -> SnapshotFill {
        let Some(sub) = conn.subs.iter().position(|sub| sub.list == pending.list) else {
            return SnapshotFill::Written;
        };
        if matches!(pending.phase, SnapshotPhase::Waiting) {
            self.ask_snapshot(conn, pending, sub);
        }
        let SnapshotPhase::Writing { snapshot, page } = &mut pending.phase else {
            self.limit_wait(conn, pending);
            return SnapshotFill::Waits;
        };
        let pages = snapshot.pages.len().max(1);
        while *page < pages {
            if budget.is_spent() {
                return SnapshotFill::More;
            }
            let (is_first, is_last) = (*page == 0, *page + 1 == pages);
            let frame = SnapshotPage {
                channel: &self.channels.list(pending.list).name,
                place: PagePlace { kind: pending.kind, is_first, is_last },
                extent: snapshot.extent,
                entries: snapshot.pages.get(*page),
            };
            frame.put(conn.framing, budget.out);
            *page += 1;
            pending.since = None;
        }
        if self.mirror(pending.partition).head.0[STATE_TOPIC] < snapshot.at {
            self.awaiting_head.push(conn.id.slot);
            self.limit_wait(conn, pending);
            return SnapshotFill::Waits;
        }
        let snapshot = Arc::clone(snapshot);
        self.follow_from(conn, sub, &snapshot);
        SnapshotFill::Written
    }

    /// Closes a connection whose snapshot has waited for too long, and looks again in a second.
    fn limit_wait(&mut self, conn: &mut Conn, pending: &mut PendingSnapshot) {
        let since = *pending.since.get_or_insert(self.now);
        if self.now.since(since) >= SNAPSHOT_WAIT_MS {
            self.end(conn, CloseReason::Overloaded);
        } else {
            self.retry.push(conn.id.slot);
        }
    }

    /// Asks the fold, unless there is no memory for what it would answer. The list keeps what comes
    /// from now on; all before is in the snapshot.
    fn ask_snapshot(&mut self, conn: &mut Conn, pending: &mut PendingSnapshot, sub: usize) {
        if self.hub.totals().memory_full.load(Ordering::Relaxed) {
            return;
        }
        let list = self.channels.list(pending.list);
        self.last_snapshot = self.last_snapshot.next();
        let (number, id, inbox) = (self.last_snapshot, conn.id, Arc::clone(&self.inbox));
        let accounts = conn.identity.accounts.clone();
        let answer = Box::new(move |answer| {
            inbox.put_snapshot(SnapshotReply { conn: id, number, answer });
        });
        let cursor = list.end();
        if self.hub.ask_snapshot(&list.name, accounts, answer) {
            pending.phase = SnapshotPhase::Requested(number);
            conn.subs[sub].mode = Mode::Snapshot { cursor };
        }
    }

    /// Makes a state subscription follow its list from a snapshot on.
    fn follow_from(&self, conn: &mut Conn, sub: usize, snapshot: &ChannelSnapshot) {
        let Subscription { list, mode, .. } = conn.subs[sub];
        let Mode::Snapshot { mut cursor } = mode else { return };
        let mirror = self.mirror(snapshot.partition);
        let of_list = self.channels.list(list);
        while let Some(entry) = of_list.get(cursor).and_then(|reference| mirror.entry(reference)) {
            if entry.offset >= snapshot.at {
                break;
            }
            cursor += 1;
        }
        conn.subs[sub].mode = Mode::Following { cursor };
    }
}

/// How writing a snapshot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SnapshotFill {
    /// The budget ended first.
    More,
    /// Nothing more for now.
    Waits,
    /// All is written, and the subscription follows; or it is gone.
    Written,
}
