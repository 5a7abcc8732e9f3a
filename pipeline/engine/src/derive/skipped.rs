//! Keeps restored rows of tables that a build does not declare, for a build that declares them.
//!
//! A store passes from one build to another, in an upgrade and back. Its progress says that every
//! record of the changelogs before it is in the store. So a restore keeps a record of a table that
//! it does not know, and a build that declares the table moves it there when it opens the store.
//!
//! ```text
//! table 8  table number, 1 byte · key                   of `state`
//! table 9  time, 8 bytes · table number, 1 byte · rest  of `state.windows`
//!
//! value    00: the key was removed
//!          01 · the row's value
//! ```
//!
//! A row here is newer than that of the table itself, which only a build that declares the table
//! writes. Rows of table 9 expire as those of the longest window. No changelog has these tables:
//! they follow from the changelogs of the others.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::derive::table_decl::{Changelog, TableDecl, WINDOW_MS_MAX};
use crate::port::{KeyRange, StoreError, Table, TableExpiry, TableSpec};
use crate::task_state::TaskState;
use crate::value_level::ValueLevel;

/// Bytes of rows that are moved at once.
const MOVED_BYTES: usize = 1 << 20;

/// The length of the time at the beginning of a window's key.
const TIME_BYTES: usize = 8;

const REMOVED: u8 = 0;
const PRESENT: u8 = 1;

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

impl RowChange {
    /// The bytes of a key before the table's number.
    fn time_bytes(kept_in: Table) -> usize {
        if kept_in == SKIPPED_WINDOWS.spec.table { TIME_BYTES } else { 0 }
    }

    /// Key and value of the row that keeps it; `None` if the key of a window is too short.
    fn encode(&self, kept_in: Table) -> Option<(Bytes, Bytes)> {
        let (time, rest) = self.key.split_at_checked(Self::time_bytes(kept_in))?;
        let key = [time, &[self.table.0], rest].concat();
        let value = match &self.value {
            None => vec![REMOVED],
            Some(value) => [&[PRESENT], &value[..]].concat(),
        };
        Some((key.into(), value.into()))
    }

    /// Reads a row; `None` if it is damaged.
    fn decode(kept_in: Table, key: &[u8], value: &[u8]) -> Option<Self> {
        let (time, rest) = key.split_at_checked(Self::time_bytes(kept_in))?;
        let (table, rest) = rest.split_first()?;
        let value = match value.split_first()? {
            (&PRESENT, value) => Some(Bytes::copy_from_slice(value)),
            (&REMOVED, []) => None,
            _ => return None,
        };
        Some(Self { table: Table(*table), key: [time, rest].concat().into(), value })
    }
}

/// Keeps a change of an undeclared table; `false` if it is no change of a changelog of this kind.
pub(super) fn keep(state: &mut TaskState, from: Changelog, change: &RowChange) -> bool {
    let table = match from {
        Changelog::Windows => SKIPPED_WINDOWS.spec.table,
        Changelog::State | Changelog::Order => SKIPPED.spec.table,
    };
    let kept = change.encode(table);
    if let Some((key, value)) = &kept {
        state.restore(table, key, Some(value.clone()));
    }
    kept.is_some()
}

/// Moves the rows of declared tables into these, and hands them over with the store's progress.
pub(super) fn move_declared(
    state: &mut TaskState,
    progress: &Bytes,
    is_declared: impl Fn(Table) -> bool,
) -> Result<(), StoreError> {
    for kept_in in [SKIPPED.spec.table, SKIPPED_WINDOWS.spec.table] {
        let mut from = Vec::new();
        loop {
            let mut moved = Vec::new();
            let mut bytes = 0;
            let range = KeyRange { from: &from, to: None };
            state.scan(kept_in, range, &mut |key, value| {
                let change = RowChange::decode(kept_in, key, value);
                if let Some(change) = change.filter(|change| is_declared(change.table)) {
                    bytes += key.len() + value.len();
                    moved.push((Bytes::copy_from_slice(key), change));
                }
                match bytes < MOVED_BYTES {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                }
            })?;
            let Some((last, _)) = moved.last() else { break };
            from = last.to_vec();
            for (key, RowChange { table, key: own, value }) in moved {
                state.restore(table, &own, value);
                state.restore(kept_in, &key, None);
            }
            state.hand_over(progress.clone())?;
            state.acknowledge()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::derive::memory_store::MemoryStore;

    fn change(table: u8, key: &[u8], value: Option<&[u8]>) -> RowChange {
        let value = value.map(Bytes::copy_from_slice);
        RowChange { table: Table(table), key: Bytes::copy_from_slice(key), value }
    }

    proptest! {
        #[test]
        fn a_change_reads_back(
            table: u8, key in proptest::collection::vec(any::<u8>(), 8..20),
            value: Option<Vec<u8>>,
        ) {
            let change = change(table, &key, value.as_deref());
            for kept_in in [SKIPPED.spec.table, SKIPPED_WINDOWS.spec.table] {
                let (key, value) = change.encode(kept_in).expect("the key is long enough");
                prop_assert_eq!(RowChange::decode(kept_in, &key, &value), Some(change.clone()));
            }
        }

        #[test]
        fn a_damaged_row_never_panics(key: Vec<u8>, value: Vec<u8>) {
            for kept_in in [SKIPPED.spec.table, SKIPPED_WINDOWS.spec.table] {
                if let Some(change) = RowChange::decode(kept_in, &key, &value) {
                    let (again, same) = change.encode(kept_in).expect("it was read");
                    prop_assert_eq!((&again[..], &same[..]), (&key[..], &value[..]));
                }
            }
        }
    }

    #[test]
    fn rows_of_declared_tables_are_moved_in_portions_and_others_stay() {
        let mut state = TaskState::new(Box::<MemoryStore>::default());
        let undeclared = 200;
        let value = vec![7; MOVED_BYTES / 3];
        for n in 0..10 {
            assert!(keep(&mut state, Changelog::State, &change(2, &[n], Some(&value))));
            assert!(keep(&mut state, Changelog::State, &change(undeclared, &[n], Some(b"x"))));
        }
        let time = 5_u64.to_be_bytes();
        assert!(keep(&mut state, Changelog::Windows, &change(3, &time, Some(b"w"))));
        assert!(!keep(&mut state, Changelog::Windows, &change(3, b"short", None)));
        state.restore(Table(2), &[20], Some(Bytes::from_static(b"old")));
        assert!(keep(&mut state, Changelog::State, &change(2, &[20], None)));
        let is_declared = |table| [Table(2), Table(3)].contains(&table);
        move_declared(&mut state, &Bytes::from_static(b"p"), is_declared).expect("no faults");
        for n in 0..10 {
            assert_eq!(state.get(Table(2), &[n]).expect("no faults").as_deref(), Some(&value[..]));
        }
        assert_eq!(state.get(Table(2), &[20]).expect("no faults"), None, "it is removed");
        assert_eq!(state.get(Table(3), &time).expect("no faults").as_deref(), Some(&b"w"[..]));
        let mut left = 0;
        state
            .scan(SKIPPED.spec.table, KeyRange::ALL, &mut |key, _| {
                assert_eq!(key[0], undeclared);
                left += 1;
                ControlFlow::Continue(())
            })
            .expect("no faults");
        assert_eq!(left, 10);
    }
}
