//! A task's store whose process is killed while it writes, or that is read while it writes.
//!
//! Whatever the moment, its data and progress must agree. The child hands over numbered batches
//! whose effect follows from their number, so the parent knows what the store must hold at the
//! progress it finds.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, RangeInclusive};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidewire_connectors::rocks::{Config, RocksStores};
use tidewire_engine::port::{
    KeyRange, Store, StoreBatch, StoreWrite, Stores, Table, TableExpiry, TableSpec,
};
use tidewire_engine::record::Partition;
use tidewire_tests::test_rng::TestRng;

const ROUNDS: usize = 20;
const KEYS: u64 = 500;
const WRITE_BUFFER_BYTES: usize = 8 << 20;

/// How long, and how often at least, the store of a writing process is read.
const VIEWING: Duration = Duration::from_secs(3);
const VIEWS_MIN: usize = 20;
const VIEWING_LIMIT: Duration = Duration::from_secs(120);
const START_LIMIT: Duration = Duration::from_secs(60);

const DIR_VARIABLE: &str = "TIDEWIRE_TEST_STORE";
const TABLES: &[TableSpec] = &[
    TableSpec { table: Table(1), name: "one", expiry: TableExpiry::Never },
    TableSpec { table: Table(2), name: "two", expiry: TableExpiry::Never },
];

/// Batch `n` writes two keys in both tables and removes one that an older batch wrote.
fn batch(n: u64) -> StoreBatch {
    let key = |n: u64| Bytes::from((n % KEYS).to_be_bytes().to_vec());
    let value = Bytes::from(n.to_be_bytes().repeat(20));
    let mut writes = BTreeMap::new();
    for table in [Table(1), Table(2)] {
        writes.insert((table, key(n * 7 + 250)), None);
        writes.insert((table, key(n * 7)), Some(value.clone()));
        writes.insert((table, key(n * 13 + 1)), Some(value.clone()));
    }
    let write = |((table, key), value)| StoreWrite { table, key, value };
    StoreBatch {
        writes: writes.into_iter().map(write).collect(),
        progress: Bytes::from(n.to_be_bytes().to_vec()),
    }
}

/// Buffers so small that files are written and replaced all the time.
fn stores(dir: &Path) -> Arc<RocksStores> {
    RocksStores::new(Config { write_buffer_bytes: WRITE_BUFFER_BYTES, ..Config::new(dir) })
}

fn open(dir: &Path) -> Box<dyn Store> {
    stores(dir).open(Partition(0), TABLES).expect("the store opens")
}

fn progress(store: &mut dyn Store) -> u64 {
    let stored = store.progress().expect("read");
    stored.map_or(0, |bytes| u64::from_be_bytes(bytes[..].try_into().expect("eight bytes")))
}

#[test]
#[ignore = "the child of the test below, which starts it by name"]
fn child_store_writer() {
    let Ok(dir) = std::env::var(DIR_VARIABLE) else { return };
    let mut store = open(dir.as_ref());
    std::fs::write(opened(dir.as_ref()), "").expect("the folder can be written");
    for n in progress(&mut *store) + 1.. {
        store.hand_over(batch(n)).expect("handed over");
        if n % 50 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn data_and_progress_of_a_store_agree_after_its_process_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = TestRng::new(7);
    let mut expected: BTreeMap<(Table, Bytes), Bytes> = BTreeMap::new();
    let mut applied = 0;
    for round in 0..ROUNDS {
        write_for_a_while(dir.path(), Duration::from_millis(40 + rng.below(80)));
        let mut store = open(dir.path());
        let reached = progress(&mut *store);
        assert!(reached >= applied, "round {round}: progress went back");
        apply(&mut expected, applied + 1..=reached);
        applied = reached;
        let mut found = BTreeMap::new();
        for spec in TABLES {
            let visit = &mut |key: &[u8], value: &[u8]| {
                let key = (spec.table, Bytes::copy_from_slice(key));
                found.insert(key, Bytes::copy_from_slice(value));
                ControlFlow::Continue(())
            };
            store.scan(spec.table, KeyRange::ALL, visit).unwrap();
        }
        assert!(found == expected, "round {round}: the data is not that of progress {reached}");
        store.close().unwrap();
    }
    assert!(applied > 100, "children were killed before they wrote: {applied}");
}

/// What the store holds after these further batches.
fn apply(expected: &mut BTreeMap<(Table, Bytes), Bytes>, batches: RangeInclusive<u64>) {
    for write in batches.flat_map(|n| batch(n).writes) {
        match write.value {
            Some(value) => expected.insert((write.table, write.key), value),
            None => expected.remove(&(write.table, write.key)),
        };
    }
}

#[test]
fn a_view_beside_a_writing_process_shows_the_data_of_its_progress() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = start_writer(dir.path());
    let stores = stores(dir.path());
    let mut expected = BTreeMap::new();
    let (mut applied, mut views) = (0, 0);
    let begun = Instant::now();
    while begun.elapsed() < VIEWING || views < VIEWS_MIN {
        assert!(begun.elapsed() < VIEWING_LIMIT, "{views} views, up to batch {applied}");
        let table = TABLES[views % TABLES.len()].table;
        let view = stores.view(Partition(0), table);
        let Some(view) = view.expect("the store can be read") else { continue };
        let Some(stored) = view.progress().expect("read") else { continue };
        let reached = u64::from_be_bytes(stored[..].try_into().expect("eight bytes"));
        assert!(reached >= applied, "view {views}: progress went back");
        apply(&mut expected, applied + 1..=reached);
        applied = reached;
        let mut found = BTreeMap::new();
        let visit = &mut |key: &[u8], value: &[u8]| {
            let key = (table, Bytes::copy_from_slice(key));
            found.insert(key, Bytes::copy_from_slice(value));
            ControlFlow::Continue(())
        };
        view.visit(b"", visit).expect("read");
        assert!(
            found.iter().eq(expected.iter().filter(|((of, _), _)| *of == table)),
            "view {views}: the data is not that of progress {reached}"
        );
        views += 1;
    }
    assert!(child.try_wait().expect("a child").is_none(), "the writer goes on");
    child.kill().expect("a child");
    child.wait().expect("a child");
    eprintln!("{views} views while {applied} batches were written");
}

/// Starts a process that writes to the store until it is killed.
fn start_writer(dir: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["store_killed::child_store_writer", "--exact", "--ignored"])
        .env(DIR_VARIABLE, dir)
        .stdout(Stdio::null())
        .spawn()
        .expect("a child")
}

/// The file with which the child says that it writes from now on.
fn opened(dir: &Path) -> PathBuf {
    dir.join("opened")
}

/// Lets a child write for this time. The start of a process takes as long on a loaded machine.
fn write_for_a_while(dir: &Path, time: Duration) {
    let mut child = start_writer(dir);
    let started = Instant::now();
    while std::fs::remove_file(opened(dir)).is_err() {
        assert!(started.elapsed() < START_LIMIT, "the child does not open the store");
        std::thread::sleep(Duration::from_millis(1));
    }
    let begun = Instant::now();
    while begun.elapsed() < time && child.try_wait().expect("a child").is_none() {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().expect("a child");
    child.wait().expect("a child");
}
