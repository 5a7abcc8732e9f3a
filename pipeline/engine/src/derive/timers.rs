//! Timers of a task: keys with a due time, kept in a table of its state.
//!
//! ```text
//! due time, 8 bytes big-endian, sign flipped · operator number, 1 byte
//! · owner, 16 bytes: hash of account and entity · key → cause
//!
//! table 0  timers     of operators, by the settled time
//! table 3  intervals  of the engine: ends of intervals, by the latest time
//! table 4  leases     of operators, by the lease time
//! table 5  expiries   of the engine: ends of lives, by the settled time
//! ```
//!
//! A table for each time, so that its due timers are the first ones, and one for what expires, so
//! that it has a quota of its own in a tick and delays no operator's timer.
//!
//! Equal keys of two entities, or of two accounts, are two timers. Timers of the engine itself have
//! an owner of zeros.
//!
//! If several causes set one timer, the one with the smallest id is kept: which one that is does
//! not depend on the order in which the lanes are processed.
//!
//! The cause is a [`TimerCause`](crate::derive::timer_cause::TimerCause), or nothing for timers of
//! the engine itself.
//!
//! A timer is due once the time of its table has reached its own. The engine never waits for one.
//! The loop reads when the first is due and injects a tick once that time has come; only ticks fire
//! timers. Ticks are in the `order` record, so a replay fires the same timers between the same
//! records. What a tick leaves is fired by another one in the next transaction.

use std::ops::ControlFlow;

use bytes::Bytes;
use tidewire_schemas::id::hash128;

use crate::derive::lane_times::LaneTimes;
use crate::derive::table_decl::{Changelog, TableDecl};
use crate::derive::timer_cause::TimerCause;
use crate::port::{KeyRange, StoreError, Table, TableExpiry, TableSpec};
use crate::record::Millis;
use crate::task_state::TaskState;
use crate::value_level::ValueLevel;

/// The declaration of the table.
pub(super) const TIMERS: TableDecl = TableDecl {
    spec: TableSpec { table: Table(0), name: "timers", expiry: TableExpiry::Never },
    changelog: Changelog::State,
    window_ms: 0,
    level: ValueLevel::FIRST,
};

/// The declaration of the table of flushes: timers of partials, which fire by the latest time
/// instead of the settled one, since totals are added up (`partial.rs`).
pub(super) const FLUSHES: TableDecl = TableDecl {
    spec: TableSpec { table: Table(6), name: "flushes", expiry: TableExpiry::Never },
    changelog: Changelog::State,
    window_ms: 0,
    level: TIMERS.level,
};

/// The declaration of the table of leases: timers that fire by the lease time, because a lease that
/// was not renewed ends although other lanes have a backlog.
pub(super) const LEASES: TableDecl = TableDecl {
    spec: TableSpec { table: Table(4), name: "leases", expiry: TableExpiry::Never },
    changelog: Changelog::State,
    window_ms: 0,
    level: TIMERS.level,
};

/// The declaration of the table of expiries: when entries of stores and of state channels leave.
pub(super) const EXPIRIES: TableDecl = TableDecl {
    spec: TableSpec { table: Table(5), name: "expiries", expiry: TableExpiry::Never },
    changelog: Changelog::State,
    window_ms: 0,
    level: TIMERS.level,
};

/// Timers of one table that a tick fires at most; the others wait for the next tick, so that a tick
/// stays short.
pub const MAX_TIMERS_PER_TICK: usize = 5_000;

/// Entries that a tick removes at most because their time is over.
pub const MAX_EXPIRIES_PER_TICK: usize = 1_000;

/// Which time of the task an operator's timer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimerKind {
    /// The settled time.
    Settled,
    /// The critical lane's.
    Lease,
}

/// Milliseconds after which the engine's own timer of an operator that this build does not have is
/// looked at again: a build may come that has it.
pub(super) const LATER_MS: i64 = 3_600_000;

/// A timer's key in the table.
#[derive(Clone, Copy)]
pub(super) struct TimerKey<'a> {
    /// The time of its table at which it is due.
    pub(super) at: Millis,
    /// The number of the operator that set it.
    pub(super) operator: u8,
    /// Whose timer it is.
    pub(super) owner: TimerOwner,
    /// The operator's own key.
    pub(super) key: &'a [u8],
}

/// The entity that a timer is of, hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TimerOwner([u8; 16]);

impl TimerOwner {
    /// The entity of an account.
    pub(super) fn of(account: &str, entity: &str) -> Self {
        Self(hash128(account, entity))
    }
}

/// Bytes before the owner's own key: time, operator, owner.
const PREFIX_BYTES: usize = 8 + 1 + 16;

impl TimerKey<'_> {
    pub(super) fn encode(self) -> Bytes {
        let mut out = Vec::with_capacity(PREFIX_BYTES + self.key.len());
        out.extend_from_slice(&(self.at.0 ^ i64::MIN).to_be_bytes());
        out.push(self.operator);
        out.extend_from_slice(&self.owner.0);
        out.extend_from_slice(self.key);
        out.into()
    }
}

/// A timer that is due.
pub(super) struct DueTimer {
    /// When it was due.
    pub(super) at: Millis,
    pub(super) operator: u8,
    pub(super) key: Bytes,
    pub(super) stored: Bytes,
}

/// The timers of one table, and their first due time.
#[derive(Debug)]
pub(super) struct Timers {
    table: Table,
    first: Option<Millis>,
}

impl Timers {
    /// The timers of this table, before they are loaded.
    pub(super) fn of(table: TableDecl) -> Self {
        Self { table: table.spec.table, first: None }
    }

    /// Reads the first timer from the state, as after a restore or an abort.
    pub(super) fn load(&mut self, state: &mut TaskState) -> Result<(), StoreError> {
        self.first = None;
        self.advance(state)
    }

    /// Reads the first timer from the one that was first until now, as after a tick. So it does not
    /// pass those that have fired, which the store may still have to skip one by one.
    pub(super) fn advance(&mut self, state: &mut TaskState) -> Result<(), StoreError> {
        let from = self.first.take().map(first_key).unwrap_or_default();
        let range = KeyRange { from: &from, to: None };
        state.scan(self.table, range, &mut |key, _| {
            // Keys that are no timers never fire, so they must not be the first one.
            if key.len() < PREFIX_BYTES {
                return ControlFlow::Continue(());
            }
            self.first = due_of(key);
            ControlFlow::Break(())
        })
    }

    /// Sets a timer of an operator; the same key again is the same timer.
    pub(super) fn set_for(
        &mut self,
        state: &mut TaskState,
        timer: TimerKey<'_>,
        cause: &TimerCause,
    ) -> Result<(), StoreError> {
        let before = state.get(self.table, &timer.encode())?;
        let before = before.and_then(|stored| TimerCause::decode(&stored));
        if before.is_none_or(|before| cause.id < before.id) {
            self.set(state, timer, cause.encode().into());
        }
        Ok(())
    }

    /// Sets a timer with this cause.
    pub(super) fn set(&mut self, state: &mut TaskState, timer: TimerKey<'_>, cause: Bytes) {
        state.put(self.table, &timer.encode(), Some(cause));
        self.first = Some(self.first.map_or(timer.at, |first| first.min(timer.at)));
    }

    /// Removes a timer. [`Timers::first`] may then be too early, which costs a tick without effect.
    pub(super) fn remove(&mut self, state: &mut TaskState, timer: TimerKey<'_>) {
        state.put(self.table, &timer.encode(), None);
    }

    /// The first `limit` timers due at `now`, in order of their due times.
    pub(super) fn due(
        &self,
        state: &mut TaskState,
        now: Millis,
        limit: usize,
    ) -> Result<Vec<DueTimer>, StoreError> {
        let from = self.first.map(first_key).unwrap_or_default();
        let end = first_key(Millis(now.0.saturating_add(1)));
        let mut due = Vec::new();
        let range = KeyRange { from: &from, to: Some(&end) };
        state.scan(self.table, range, &mut |key, _| {
            if let Some((at, own)) = due_of(key).zip(key.get(PREFIX_BYTES..)) {
                due.push(DueTimer {
                    at,
                    operator: key[8],
                    key: Bytes::copy_from_slice(own),
                    stored: Bytes::copy_from_slice(key),
                });
            }
            if due.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(due)
    }

    /// Removes a due timer before it is fired, and returns its cause. `None`: a timer that fired
    /// before it in the same tick has removed it, so it does not fire.
    pub(super) fn take(
        &self,
        state: &mut TaskState,
        due: &DueTimer,
    ) -> Result<Option<Bytes>, StoreError> {
        let cause = state.get(self.table, &due.stored)?;
        if cause.is_some() {
            state.put(self.table, &due.stored, None);
        }
        Ok(cause)
    }
}

/// All timers of a task, by the time of the task that they wait for.
#[derive(Debug)]
pub(super) struct TaskTimers {
    /// Of operators, by the settled time.
    pub(super) settled: Timers,
    /// Of operators, by the lease time.
    pub(super) leases: Timers,
    /// By the latest time.
    pub(super) flushes: Timers,
    /// By the settled time.
    pub(super) expiries: Timers,
}

impl Default for TaskTimers {
    fn default() -> Self {
        let [settled, leases, flushes, expiries] =
            [TIMERS, LEASES, FLUSHES, EXPIRIES].map(Timers::of);
        Self { settled, leases, flushes, expiries }
    }
}

impl TaskTimers {
    /// Reads the first timers from the state, as after a restore or an abort.
    pub(super) fn load(&mut self, state: &mut TaskState) -> Result<(), StoreError> {
        let Self { settled, leases, flushes, expiries } = self;
        [settled, leases, flushes, expiries].into_iter().try_for_each(|of| of.load(state))
    }

    /// An operator's timers of this kind.
    pub(super) fn of_kind(&mut self, kind: TimerKind) -> &mut Timers {
        match kind {
            TimerKind::Settled => &mut self.settled,
            TimerKind::Lease => &mut self.leases,
        }
    }

    /// The due time of the first timer, or an earlier one; `None` without timers.
    pub(super) fn first(&self) -> Option<Millis> {
        let Self { settled, leases, flushes, expiries } = self;
        [settled, leases, flushes, expiries].into_iter().filter_map(|of| of.first).min()
    }

    /// Whether a timer is due at these times.
    pub(super) fn is_due(&self, times: &LaneTimes) -> bool {
        let Self { settled, leases, flushes, expiries } = self;
        let is_due = |of: &Timers, time| of.first.is_some_and(|first| first <= time);
        is_due(settled, times.settled())
            || is_due(leases, times.lease())
            || is_due(flushes, times.latest())
            || is_due(expiries, times.settled())
    }
}

/// The key before all timers of this time.
fn first_key(at: Millis) -> Bytes {
    TimerKey { at, operator: 0, owner: TimerOwner::default(), key: &[] }.encode()
}

fn due_of(stored: &[u8]) -> Option<Millis> {
    Some(Millis(i64::from_be_bytes(*stored.first_chunk()?) ^ i64::MIN))
}

#[cfg(test)]
mod tests;
