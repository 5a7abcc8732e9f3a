//! Coalesced updates: an operator marks what changed, and emits it once per interval.
//!
//! A post with a thousand likes in a second shall not give a thousand events. So the operator only
//! marks the key. Before the transaction is sealed, the engine calls the operator's `on_commit` for
//! each marked key once, in order of operator, account, key and the operator's own bytes. The first
//! change is sent at once. What changes within the interval after that is sent at its end, by a
//! timer, with the values of then; so the last change is always sent.
//!
//! ```text
//! table   account · key (texts as in keys of stores) · own bytes → row
//! row     01 · append time of the last update z · 0, or 1 and the cause that waits
//! table 3  end of the interval · 255 · owner · operator number · own bytes → cause
//! ```
//!
//! An interval ends by the latest time of the task, so a lane with a backlog does not hold up what
//! the others have changed.
//!
//! A row leaves with its timer if nothing changed within the interval. The id of an update follows
//! from the cause that marked it, so it is the same in a replay.

use bytes::Bytes;

use crate::derive::encoding::{FieldDecoder, put_signed};
use crate::derive::stores::StoreKey;
use crate::derive::table_decl::{Changelog, TableDecl};
use crate::derive::timer_cause::TimerCause;
use crate::port::{StoreError, Table, TableExpiry, TableSpec};
use crate::record::Millis;
use crate::task_state::TaskState;
use crate::value_level::ValueLevel;

/// The operator number of updates in the table of intervals; no operator may use it.
pub(super) const UPDATES: u8 = 255;

/// The only version. Another one is to be written from a value level on, as those of a
/// `StoreValue`, and the declaration of the table then names that level.
const VERSION: u8 = 1;

/// The coalesced updates of an operator.
#[derive(Clone, Copy, Debug)]
pub struct Updates {
    table: Table,
    name: &'static str,
    interval_ms: i64,
}

impl Updates {
    /// At most one update per key in this many milliseconds of append time. Table numbers are
    /// persisted.
    pub const fn new(number: u8, name: &'static str, interval_ms: i64) -> Self {
        Self { table: Table(number), name, interval_ms }
    }

    /// The declaration for its operator's `tables`.
    pub const fn decl(&self) -> TableDecl {
        let spec = TableSpec { table: self.table, name: self.name, expiry: TableExpiry::Never };
        TableDecl { spec, changelog: Changelog::State, window_ms: 0, level: ValueLevel::FIRST }
    }

    /// When the interval after an update ends.
    pub(super) fn end(&self, updated: Millis) -> Millis {
        Millis(updated.0.saturating_add(self.interval_ms))
    }

    /// The row of a key; `None` if nothing was sent within the last interval.
    pub(super) fn row(
        &self,
        state: &mut TaskState,
        key: &[u8],
    ) -> Result<Option<UpdateRow>, StoreError> {
        // A row that can't be decoded only forgets when it was sent.
        Ok(state.get(self.table, key)?.and_then(|stored| UpdateRow::decode(&stored)))
    }

    /// Sets the row of a key, or removes it.
    pub(super) fn put(&self, state: &mut TaskState, key: Vec<u8>, row: Option<&UpdateRow>) {
        let value = row.map(|row| row.encode().into());
        state.put(self.table, &key, value);
    }
}

/// When a key was sent last, and the cause of the first change since then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UpdateRow {
    pub(super) updated: Millis,
    pub(super) waiting: Option<TimerCause>,
}

impl UpdateRow {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_signed(&mut out, self.updated.0);
        out.push(u8::from(self.waiting.is_some()));
        out.extend(self.waiting.iter().flat_map(TimerCause::encode));
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = FieldDecoder(bytes);
        if from.byte()? != VERSION {
            return None;
        }
        let updated = Millis(from.signed()?);
        let waiting = match from.byte()? {
            0 => {
                from.end()?;
                None
            }
            _ => Some(TimerCause::decode(from.0)?),
        };
        Some(Self { updated, waiting })
    }
}

/// A key that an operator has marked.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    /// The operator's number.
    pub(super) operator: u8,
    /// The operator's own bytes.
    pub(super) own: Bytes,
    /// The change: account, entity, and what updates inherit.
    pub(super) cause: TimerCause,
    /// The append time of the change.
    pub(super) time: Millis,
}

impl Mark {
    /// Its row's key.
    pub(super) fn row_key(&self) -> Vec<u8> {
        row_key(&self.cause, &self.own)
    }
}

/// The key of the row of an account's key and an operator's own bytes.
pub(super) fn row_key(cause: &TimerCause, own: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(cause.account.len() + cause.entity.len() + own.len() + 4);
    cause.account.put(&mut key);
    cause.entity.put(&mut key);
    key.extend_from_slice(own);
    key
}

/// The own key of the timer at the end of an interval.
pub(super) fn timer_key(operator: u8, own: &[u8]) -> Vec<u8> {
    [&[operator], own].concat()
}

#[cfg(test)]
mod tests;
