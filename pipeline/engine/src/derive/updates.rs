//! Coalesced updates: an operator marks what changed, and emits it once per interval.
//!
//! A post with a thousand likes in a second shall not give a thousand events. So the operator only
//! marks the key. Before the transaction is sealed, the engine calls the operator's `on_commit` for
//! each marked key once, in order of operator, account, key and the operator's own bytes. The first
//! change is sent at once. What changes within the interval after that is sent at its end, by a
//! tick, with the values of then; so the last change is always sent.
//!
//! `intervals.rs` keeps which keys were sent and what waits. An interval ends by the latest time of
//! the task, so a lane with a backlog does not hold up what the others have changed.
//!
//! The id of an update follows from the cause that marked it, so it is the same in a replay.

use bytes::Bytes;

use crate::derive::encoding::FieldDecoder;
use crate::derive::stores::StoreKey;
use crate::derive::timer_cause::TimerCause;
use crate::record::Millis;

/// The coalesced updates of an operator.
#[derive(Clone, Copy, Debug)]
pub struct Updates {
    interval_ms: i64,
}

impl Updates {
    /// At most one update per key in this many milliseconds of append time.
    pub const fn new(interval_ms: i64) -> Self {
        Self { interval_ms }
    }

    /// When the interval after an update ends.
    pub(super) fn end(&self, updated: Millis) -> Millis {
        Millis(updated.0.saturating_add(self.interval_ms))
    }
}

/// A key that an operator has marked.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    /// The operator's number, account, entity, and the operator's own bytes.
    pub(super) key: Bytes,
    /// The change: account, entity, and what updates inherit.
    pub(super) cause: TimerCause,
    /// The append time of the change.
    pub(super) time: Millis,
}

impl Mark {
    pub(super) fn new((operator, own): (u8, &[u8]), cause: TimerCause, time: Millis) -> Self {
        let mut key = Vec::with_capacity(cause.account.len() + cause.entity.len() + own.len() + 5);
        key.push(operator);
        cause.account.put(&mut key);
        cause.entity.put(&mut key);
        key.extend_from_slice(own);
        Self { key: key.into(), cause, time }
    }

    /// The operator's number and its own bytes; `None` if the key is damaged.
    pub(super) fn parts(&self) -> Option<(u8, &[u8])> {
        let mut from = FieldDecoder(&self.key);
        let operator = from.byte()?;
        String::read(&mut from)?;
        String::read(&mut from)?;
        Some((operator, from.0))
    }
}

#[cfg(test)]
mod tests;
