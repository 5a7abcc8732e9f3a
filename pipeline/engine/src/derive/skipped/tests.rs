//! Tests of kept rows: their keys, what a move reads and moves, and removals.

use proptest::prelude::*;

use super::*;
use crate::derive::memory_store::MemoryStore;

const PROGRESS: Bytes = Bytes::from_static(b"p");

/// Tables that nobody declares here.
const UNDECLARED: [u8; 3] = [1, 200, 255];

fn change(table: u8, key: &[u8], value: Option<&[u8]>) -> RowChange {
    let value = value.map(Bytes::copy_from_slice);
    RowChange { table: Table(table), key: Bytes::copy_from_slice(key), value }
}

fn state() -> TaskState {
    TaskState::new(Box::<MemoryStore>::default())
}

/// The key of a window at this time.
fn window(at: i64, rest: &[u8]) -> Vec<u8> {
    [&(at ^ i64::MIN).to_be_bytes(), rest].concat()
}

fn is_declared(table: Table) -> bool {
    [Table(2), Table(3)].contains(&table)
}

/// Moves everything; returns how many portions that took.
fn move_all(state: &mut TaskState) -> usize {
    let mut rows = KeptRowsMove::begin();
    let mut step = || rows.step(state, PROGRESS, is_declared).expect("no faults");
    (1..10_000).find(|_| !step()).expect("it ends")
}

fn value(state: &mut TaskState, table: u8, key: &[u8]) -> Option<Bytes> {
    state.get(Table(table), key).expect("no faults")
}

fn keys(state: &mut TaskState, table: Table) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    let visit = &mut |key: &[u8], _: &[u8]| {
        keys.push(key.to_vec());
        ControlFlow::Continue(())
    };
    state.scan(table, KeyRange::ALL, visit).expect("no faults");
    keys
}

proptest! {
    #[test]
    fn the_key_of_a_kept_row_reads_back(
        table: u8, key in proptest::collection::vec(any::<u8>(), 8..20),
    ) {
        for kept_in in [SKIPPED.spec.table, SKIPPED_WINDOWS.spec.table] {
            let kept = kept_key(kept_in, (Table(table), &key)).expect("it is long enough");
            let own = Some((Table(table), Bytes::copy_from_slice(&key)));
            prop_assert_eq!(own_key(kept_in, &kept), own);
        }
    }

    #[test]
    fn a_damaged_key_never_panics(kept: Vec<u8>) {
        for kept_in in [SKIPPED.spec.table, SKIPPED_WINDOWS.spec.table] {
            if let Some((table, key)) = own_key(kept_in, &kept) {
                prop_assert_eq!(kept_key(kept_in, (table, &key)), Some(kept.clone()));
            }
        }
    }

    #[test]
    fn a_kept_window_never_expires_before_its_own_time(at: i64) {
        let kept = kept_key(SKIPPED_WINDOWS.spec.table, (Table(3), &window(at, b"k")));
        prop_assert!(kept.expect("it is long enough")[..8] >= window(at, b"")[..]);
    }
}

#[test]
fn rows_of_declared_tables_are_moved_in_portions_and_others_stay() {
    let mut state = state();
    let large = vec![7; MOVED_BYTES / 3];
    for n in 0..10 {
        assert!(keep(&mut state, Changelog::State, &change(2, &[n], Some(&large))));
        for table in UNDECLARED {
            assert!(keep(&mut state, Changelog::State, &change(table, &[n], Some(b"x"))));
        }
    }
    assert!(!keep(&mut state, Changelog::Windows, &change(3, b"short", None)));
    state.hand_over(PROGRESS).expect("no faults");
    state.acknowledge().expect("no faults");
    assert!(move_all(&mut state) >= 3, "ten thirds of a portion");
    for n in 0..10 {
        assert_eq!(value(&mut state, 2, &[n]).as_deref(), Some(&large[..]));
    }
    let left = keys(&mut state, SKIPPED.spec.table);
    assert_eq!(left.len(), 10 * UNDECLARED.len());
    assert!(left.iter().all(|key| UNDECLARED.contains(&key[0])), "{left:?}");
    assert!(!state.has_pending(), "everything was handed over");
}

#[test]
fn windows_of_declared_tables_are_moved_whatever_lies_between_them() {
    let mut state = state();
    let times = [-5, 0, 3_600_000, 86_400_000, 86_400_001, 30 * 86_400_000];
    for at in times {
        for table in [3].into_iter().chain(UNDECLARED) {
            let change = change(table, &window(at, b"k"), Some(&at.to_be_bytes()));
            assert!(keep(&mut state, Changelog::Windows, &change));
        }
    }
    move_all(&mut state);
    for at in times {
        let moved = value(&mut state, 3, &window(at, b"k"));
        assert_eq!(moved.as_deref(), Some(&at.to_be_bytes()[..]), "{at}");
    }
    let left = keys(&mut state, SKIPPED_WINDOWS.spec.table);
    assert_eq!(left.len(), times.len() * UNDECLARED.len());
}

#[test]
fn a_move_passes_the_rows_of_undeclared_tables_without_reading_them() {
    let mut state = state();
    for n in 0..5_000_u16 {
        let key = n.to_be_bytes();
        assert!(keep(&mut state, Changelog::State, &change(200, &key, Some(b"x"))));
        let key = window(i64::from(n) * 1_000, b"k");
        assert!(keep(&mut state, Changelog::Windows, &change(200, &key, Some(b"x"))));
    }
    state.hand_over(PROGRESS).expect("no faults");
    state.acknowledge().expect("no faults");
    let before = state.passed();
    assert_eq!(move_all(&mut state), 1, "one portion, as nothing is moved");
    assert!(state.passed() - before < 10, "{} rows were read", state.passed() - before);
}

#[test]
fn a_removal_leaves_no_row_and_removes_that_of_the_table_itself() {
    let mut state = state();
    let of_window = window(5, b"k");
    // As a build has left them that declared the tables.
    state.restore(Table(2), b"k", Some(Bytes::from_static(b"old")));
    state.restore(Table(3), &of_window, Some(Bytes::from_static(b"old")));
    for value in [Some(&b"newer"[..]), None] {
        assert!(keep(&mut state, Changelog::State, &change(2, b"k", value)));
        assert!(keep(&mut state, Changelog::Windows, &change(3, &of_window, value)));
    }
    for table in [SKIPPED, SKIPPED_WINDOWS] {
        assert!(keys(&mut state, table.spec.table).is_empty(), "{}", table.spec.name);
    }
    move_all(&mut state);
    assert_eq!(value(&mut state, 2, b"k"), None);
    assert_eq!(value(&mut state, 3, &of_window), None);
    assert!(keep(&mut state, Changelog::State, &change(2, b"k", Some(b"again"))));
    move_all(&mut state);
    assert_eq!(value(&mut state, 2, b"k").as_deref(), Some(&b"again"[..]));
}
