//! Keeps restored rows of tables that a build does not declare, for a build that declares them.
//!
//! A store passes from one build to another, in an upgrade and back. Its progress says that every
//! record of the changelogs before it is in the store. So a restore keeps a row of a table that it
//! does not know, and a build that declares the table moves it there before it replays anything.
//!
//! ```text
//! table 8  table number, 1 byte · key                         of `state`
//! table 9  end of a span, 8 bytes · table number, 1 byte      of `state.windows`
//!          · time within the span, 4 bytes · rest of the key
//! ```
//!
//! The value is the row's. Rows of a table are adjacent, in table 9 those of a span of time, so a
//! move reads no row of a table that is still undeclared, but the first of each span. It is done in
//! portions, so that it does not block the other tasks of the thread.
//!
//! A row here is newer than that of the table itself, which only a build that declares the table
//! writes. A removal is not kept: it removes the row here and that of the table itself, for which a
//! store need not be told how the table expires. Rows of table 9 expire as those of the longest
//! window, at the end of their span. No changelog has these tables: they follow from the changelogs
//! of the others.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::derive::table_decl::{Changelog, TableDecl, WINDOW_MS_MAX};
use crate::port::{KeyRange, StoreError, Table, TableExpiry, TableSpec};
use crate::task_state::TaskState;
use crate::value_level::ValueLevel;

/// Bytes of rows that a portion moves.
const MOVED_BYTES: usize = 1 << 20;

/// Scans of a portion: each finds the rows of one table, or where those of the next one are.
const SCANS_MAX: usize = 64;

/// The length of the time at the beginning of a window's key.
const TIME_BYTES: usize = 8;

/// The bits of a time that count milliseconds within a span, which has some 19 hours: the longest
/// window has some ten of them.
const SPAN_BITS: u64 = (1 << 26) - 1;

/// Rows of undeclared tables of `state`.
pub(super) const SKIPPED: TableDecl = TableDecl {
    spec: TableSpec { table: Table(8), name: "skipped", expiry: TableExpiry::Never },
    changelog: Changelog::State,
    window_ms: 0,
    level: ValueLevel::FIRST,
};

/// The same of `state.windows`.
pub(super) const SKIPPED_WINDOWS: TableDecl = TableDecl {
    spec: TableSpec { table: Table(9), name: "skipped.windows", expiry: TableExpiry::ByKeyTime },
    changelog: Changelog::Windows,
    window_ms: WINDOW_MS_MAX,
    level: ValueLevel::FIRST,
};

/// A change of a row, as a changelog holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RowChange {
    pub(super) table: Table,
    pub(super) key: Bytes,
    /// None: the row is removed.
    pub(super) value: Option<Bytes>,
}

/// The bytes of a kept row's key before the table's number.
fn bytes_before_table(kept_in: Table) -> usize {
    if kept_in == SKIPPED_WINDOWS.spec.table { TIME_BYTES } else { 0 }
}

/// The key under which a row is kept; `None` if the key of a window is too short.
fn kept_key(kept_in: Table, (table, key): (Table, &[u8])) -> Option<Vec<u8>> {
    if kept_in == SKIPPED.spec.table {
        return Some([&[table.0], key].concat());
    }
    let (time, rest) = key.split_first_chunk()?;
    let time = u64::from_be_bytes(*time);
    let (end, within) = ((time | SPAN_BITS).to_be_bytes(), (time & SPAN_BITS) as u32);
    Some([&end[..], &[table.0], &within.to_be_bytes(), rest].concat())
}

/// The table and key of a kept row; `None` if it is damaged.
fn own_key(kept_in: Table, kept: &[u8]) -> Option<(Table, Bytes)> {
    if kept_in == SKIPPED.spec.table {
        let (table, key) = kept.split_first()?;
        return Some((Table(*table), Bytes::copy_from_slice(key)));
    }
    let (end, rest) = kept.split_first_chunk()?;
    let (table, rest) = rest.split_first()?;
    let (within, rest) = rest.split_first_chunk()?;
    let (end, within) = (u64::from_be_bytes(*end), u64::from(u32::from_be_bytes(*within)));
    if end & SPAN_BITS != SPAN_BITS || within > SPAN_BITS {
        return None;
    }
    let time = end & !SPAN_BITS | within;
    Some((Table(*table), [&time.to_be_bytes()[..], rest].concat().into()))
}

/// Keeps a change of an undeclared table; `false` if it is no change of a changelog of this kind.
pub(super) fn keep(state: &mut TaskState, from: Changelog, change: &RowChange) -> bool {
    let RowChange { table, key, value } = change;
    let kept_in = match from {
        Changelog::Windows => SKIPPED_WINDOWS.spec.table,
        Changelog::State | Changelog::Order => SKIPPED.spec.table,
    };
    let Some(kept) = kept_key(kept_in, (*table, key)) else { return false };
    state.restore(kept_in, &kept, value.clone());
    if value.is_none() {
        state.restore(*table, key, None);
    }
    true
}

/// The move of kept rows into the tables that a build declares.
#[derive(Debug)]
pub(super) struct KeptRowsMove {
    kept_in: Table,
    /// The first key that was not passed.
    from: Vec<u8>,
}

/// What a scan of kept rows has found.
#[derive(Default)]
struct FoundRows {
    /// Rows of declared tables: the key here, and the row as it is moved.
    moved: Vec<(Bytes, RowChange)>,
    bytes: usize,
    /// Where the next scan begins; `None`: no row is left.
    next: Option<Vec<u8>>,
}

impl KeptRowsMove {
    /// Nothing is moved yet.
    pub(super) fn begin() -> Self {
        Self { kept_in: SKIPPED.spec.table, from: Vec::new() }
    }

    /// Moves the next portion, and hands it over with the progress that the store has. Returns
    /// whether there may be more.
    pub(super) fn step(
        &mut self,
        state: &mut TaskState,
        progress: Bytes,
        is_declared: impl Fn(Table) -> bool,
    ) -> Result<bool, StoreError> {
        let (mut bytes, mut more) = (0, true);
        for _ in 0..SCANS_MAX {
            let found = self.find(state, &is_declared)?;
            bytes += found.bytes;
            for (kept, RowChange { table, key, value }) in found.moved {
                state.restore(table, &key, value);
                state.restore(self.kept_in, &kept, None);
            }
            more = self.advance(found.next);
            if !more || bytes >= MOVED_BYTES {
                break;
            }
        }
        if bytes > 0 {
            state.hand_over(progress)?;
            state.acknowledge()?;
        }
        Ok(more)
    }

    /// Finds the next rows of declared tables, or where to look next.
    fn find(
        &self,
        state: &mut TaskState,
        is_declared: impl Fn(Table) -> bool,
    ) -> Result<FoundRows, StoreError> {
        let mut found = FoundRows::default();
        let range = KeyRange { from: &self.from, to: None };
        state.scan(self.kept_in, range, &mut |kept, value| {
            let Some((table, key)) = own_key(self.kept_in, kept) else {
                // It stays, and is passed one by one.
                found.next = Some([kept, &[0]].concat());
                return ControlFlow::Break(());
            };
            if !is_declared(table) {
                found.next = behind(&kept[..=bytes_before_table(self.kept_in)]);
                return ControlFlow::Break(());
            }
            found.bytes += kept.len() + value.len();
            let value = Some(Bytes::copy_from_slice(value));
            found.moved.push((Bytes::copy_from_slice(kept), RowChange { table, key, value }));
            if found.bytes < MOVED_BYTES {
                return ControlFlow::Continue(());
            }
            found.next = Some([kept, &[0]].concat());
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// Goes on at a key, or in the next table; returns `false` behind the last one.
    fn advance(&mut self, next: Option<Vec<u8>>) -> bool {
        let is_last = self.kept_in == SKIPPED_WINDOWS.spec.table;
        match next {
            Some(next) => self.from = next,
            None if is_last => return false,
            None => *self = Self { kept_in: SKIPPED_WINDOWS.spec.table, from: Vec::new() },
        }
        true
    }
}

/// The first key behind those that begin with these bytes; `None` if none is.
fn behind(first: &[u8]) -> Option<Vec<u8>> {
    let last = first.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut behind = first[..=last].to_vec();
    behind[last] += 1;
    Some(behind)
}

#[cfg(test)]
mod tests;
