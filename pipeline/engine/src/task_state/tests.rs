//! A task's state against a model, with a writer that is slow and a cache that holds little.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::record::Millis;

/// Scanned from the first step on.
const SCANNED: Table = Table(2);

/// Scanned only at the end of each case, so until then its keys have no order.
const LOOKED_UP: Table = Table(3);

/// Without cache.
const UNCACHED: Table = Table(4);

const TABLES: [Table; 3] = [SCANNED, LOOKED_UP, UNCACHED];

/// A store whose writer writes only when the test calls it.
#[derive(Clone, Default)]
struct SlowStore(Arc<Mutex<SlowDisk>>);

#[derive(Default)]
struct SlowDisk {
    data: Model,
    waiting: VecDeque<StoreBatch>,
    written: u64,
    gets: u64,
}

impl SlowStore {
    fn write_one(&self) {
        let mut disk = self.0.lock().expect("one thread");
        if let Some(batch) = disk.waiting.pop_front() {
            for write in batch.writes {
                let at = (write.table, write.key);
                match write.value {
                    Some(value) => drop(disk.data.insert(at, value)),
                    None => drop(disk.data.remove(&at)),
                }
            }
            disk.written += 1;
        }
    }
}

impl Store for SlowStore {
    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let mut disk = self.0.lock().expect("one thread");
        disk.gets += 1;
        Ok(disk.data.get(&(table, Bytes::copy_from_slice(key))).cloned())
    }

    fn scan(
        &mut self,
        table: Table,
        KeyRange { from, to }: KeyRange<'_>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        for ((of, key), value) in &self.0.lock().expect("one thread").data {
            let within = &key[..] >= from && to.is_none_or(|to| &key[..] < to);
            if *of == table && within && visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn hand_over(&mut self, batch: StoreBatch) -> Result<Ticket, StoreError> {
        let mut disk = self.0.lock().expect("one thread");
        disk.waiting.push_back(batch);
        Ok(Ticket(disk.written + disk.waiting.len() as u64))
    }

    fn written(&mut self) -> Result<Ticket, StoreError> {
        Ok(Ticket(self.0.lock().expect("one thread").written))
    }

    fn progress(&mut self) -> Result<Option<Bytes>, StoreError> {
        Ok(None)
    }

    fn set_horizon(&mut self, _: Table, _: Millis) -> Result<(), StoreError> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum StateOp {
    Put(Table, u8, Option<u8>),
    Apply,
    Discard,
    HandOver,
    Write,
    Acknowledge,
    /// Three writes that are rolled back.
    Undone(Table, u8, u8),
    /// A commit as a restore makes it, while no transaction is open.
    Restore(Table, u8, Option<u8>),
}

fn step() -> impl Strategy<Value = StateOp> {
    let key = 0..12u8;
    let table = (0..3usize).prop_map(|n| TABLES[n]);
    let put = (table.clone(), key.clone(), any::<Option<u8>>());
    prop_oneof![
        8 => put.clone().prop_map(|(t, k, v)| StateOp::Put(t, k, v)),
        4 => Just(StateOp::Apply),
        1 => Just(StateOp::Discard),
        3 => Just(StateOp::HandOver),
        3 => Just(StateOp::Write),
        3 => Just(StateOp::Acknowledge),
        2 => (table, key.clone(), key).prop_map(|(t, a, b)| StateOp::Undone(t, a, b)),
        1 => put.prop_map(|(t, k, v)| StateOp::Restore(t, k, v)),
    ]
}

fn key(k: u8) -> Bytes {
    vec![b'k', k].into()
}

fn value(v: u8) -> Bytes {
    vec![v; 9].into()
}

type Model = BTreeMap<(Table, Bytes), Bytes>;

fn set(model: &mut Model, table: Table, k: u8, v: Option<u8>) {
    match v {
        Some(v) => drop(model.insert((table, key(k)), value(v))),
        None => drop(model.remove(&(table, key(k)))),
    }
}

fn agree(state: &mut TaskState, model: &Model, scanned: &[Table]) {
    for table in TABLES {
        for k in 0..12 {
            let got = state.get(table, &key(k)).expect("no faults");
            assert_eq!(got.as_ref(), model.get(&(table, key(k))), "{table:?} key {k}");
        }
    }
    for table in scanned {
        for (from, to) in [(0, None), (3, Some(9)), (5, Some(5)), (9, Some(3)), (7, None)] {
            let mut got = Vec::new();
            let end = to.map(key);
            let range = KeyRange { from: &key(from), to: end.as_deref() };
            state
                .scan(*table, range, &mut |key, value| {
                    got.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
                    ControlFlow::Continue(())
                })
                .expect("no faults");
            let within = |k: &Bytes| *k >= key(from) && end.as_ref().is_none_or(|end| k < end);
            let wanted: Vec<_> = model
                .iter()
                .filter(|((of, key), _)| of == table && within(key))
                .map(|((_, key), value)| (key.clone(), value.clone()))
                .collect();
            assert_eq!(got, wanted, "{table:?} {from}..{to:?}");
        }
    }
}

fn run(state: &mut TaskState, disk: &SlowStore, steps: Vec<StateOp>) -> Model {
    let (mut committed, mut now) = (Model::new(), Model::new());
    for step in steps {
        match step {
            StateOp::Put(t, k, v) => {
                state.put(t, &key(k), v.map(value));
                set(&mut now, t, k, v);
            }
            StateOp::Apply => {
                state.apply();
                committed.clone_from(&now);
            }
            StateOp::Discard => {
                state.discard();
                now.clone_from(&committed);
            }
            StateOp::HandOver => drop(state.hand_over(Bytes::new()).expect("no faults")),
            StateOp::Write => disk.write_one(),
            StateOp::Acknowledge => drop(state.acknowledge().expect("no faults")),
            StateOp::Undone(t, a, b) => {
                let savepoint = state.savepoint();
                state.put(t, &key(a), Some(value(1)));
                state.put(t, &key(b), None);
                state.put(t, &key(a), None);
                state.roll_back(savepoint);
            }
            StateOp::Restore(t, k, v) => {
                state.apply();
                state.restore(t, &key(k), v.map(value));
                set(&mut now, t, k, v);
                committed.clone_from(&now);
            }
        }
        agree(state, &now, &[SCANNED]);
    }
    state.apply();
    now
}

proptest! {
    /// A task reads what it wrote, whatever the writer has written and eviction removed; at the end
    /// the store has it all, and memory only what fits.
    #[test]
    fn a_task_reads_what_it_wrote(steps in proptest::collection::vec(step(), 0..120)) {
        let disk = SlowStore::default();
        // The limit fits three rows, so that rows are evicted all the time.
        let limit = 3 * (rows::ROW_BYTES + 16);
        let mut state = TaskState::with_cache(Box::new(disk.clone()), limit)
            .without_cache(UNCACHED);
        let now = run(&mut state, &disk, steps);
        agree(&mut state, &now, &TABLES);
        state.hand_over(Bytes::new()).expect("no faults");
        while !disk.0.lock().expect("one thread").waiting.is_empty() {
            disk.write_one();
        }
        state.acknowledge().expect("no faults");
        prop_assert_eq!(&disk.0.lock().expect("one thread").data, &now);
        prop_assert!(state.rows.len() <= 3, "{} rows", state.rows.len());
        prop_assert!(state.cached_bytes <= limit);
        prop_assert_eq!((state.pending_bytes(), state.uncommitted_bytes()), (0, 0));
        prop_assert!(state.ordered.iter().flatten().all(BTreeMap::is_empty));
        agree(&mut state, &now, &TABLES);
    }
}

#[test]
fn what_is_read_stays_in_memory() {
    let disk = SlowStore::default();
    let limit = 100 * (rows::ROW_BYTES + 2);
    let mut state = TaskState::with_cache(Box::new(disk.clone()), limit);
    for n in 0..1_000u16 {
        for key in [n, 0] {
            assert_eq!(state.get(LOOKED_UP, &key.to_be_bytes()).expect("no faults"), None);
        }
        assert!(state.cached_bytes <= limit);
    }
    assert_eq!(state.rows.len(), 100);
    assert_eq!(disk.0.lock().expect("one thread").gets, 1_000, "key 0 was asked for once");
}

#[test]
fn rows_of_a_table_without_cache_are_not_kept() {
    let disk = SlowStore::default();
    let mut state = TaskState::new(Box::new(disk.clone())).without_cache(UNCACHED);
    for n in 0..100 {
        assert_eq!(state.get(UNCACHED, &key(n)).expect("no faults"), None);
    }
    assert_eq!(state.rows.len(), 0);
    state.put(UNCACHED, &key(1), Some(value(1)));
    state.apply();
    state.hand_over(Bytes::new()).expect("no faults");
    assert_eq!(state.get(UNCACHED, &key(1)).expect("no faults"), Some(value(1)), "unwritten");
    disk.write_one();
    state.acknowledge().expect("no faults");
    assert_eq!(state.rows.len(), 0);
    assert_eq!(state.get(UNCACHED, &key(1)).expect("no faults"), Some(value(1)), "written");
}

#[test]
fn writes_come_in_the_order_of_their_first_write() {
    let mut state = TaskState::new(Box::new(SlowStore::default()));
    for (k, v) in [(7, Some(1)), (3, Some(1)), (7, None), (5, Some(2))] {
        state.put(LOOKED_UP, &key(k), v.map(value));
    }
    let savepoint = state.savepoint();
    state.put(SCANNED, &key(1), Some(value(1)));
    state.roll_back(savepoint);
    let keys: Vec<u8> = state.writes().map(|(_, key, _)| key[1]).collect();
    assert_eq!(keys, [7, 3, 5]);
}

#[test]
fn only_the_hashes_of_keys_depend_on_the_seed() {
    let made = |seed| {
        let mut state = TaskState::new(Box::<SlowStore>::default()).with_hash_seed(seed);
        let mut seen = Vec::new();
        for n in 0..200u8 {
            state.put(SCANNED, &key(n.wrapping_mul(37)), Some(value(n)));
            if n % 3 == 0 {
                state.put(LOOKED_UP, &key(n), Some(value(n)));
            }
            if n % 50 == 49 {
                seen.extend(state.writes().map(|(_, key, _)| key.to_vec()));
                state.apply();
                state.hand_over(Bytes::new()).expect("no faults");
            }
        }
        let visit = &mut |key: &[u8], _: &[u8]| {
            seen.push(key.to_vec());
            ControlFlow::Continue(())
        };
        state.scan(SCANNED, KeyRange::ALL, visit).expect("no faults");
        let places: Vec<_> = (0..200).map(|n| state.rows.find(SCANNED, &key(n))).collect();
        (seen, places)
    };
    assert!(made(0) == made(7) && made(7) == made(u64::MAX));
    let hash = |seed| {
        let state = TaskState::new(Box::<SlowStore>::default()).with_hash_seed(seed);
        state.rows.hash_of(SCANNED, &key(1))
    };
    assert!(hash(0) != hash(7) && hash(7) != hash(u64::MAX));
}
