//! The `Store` and `Stores` ports on RocksDB: each method of the ports, and nothing else.
//!
//! A store is open once; opening it a second time is an error. Destroying a store also removes its
//! checkpoints.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tidewire_engine::port::{
    KeyRange, Store, StoreBatch, StoreError, Stores, Table, TableSpec, Ticket,
};
use tidewire_engine::record::{Millis, Partition};

use super::checkpoint::{self, TaskCheckpoints};
use super::config::Config;
use super::database::{SharedBuffers, TASK_DIR_PREFIX, TaskDatabase, remove_dir, task_dir_name};
use super::table_view::{self, TableView};
use super::write_behind::WriteBehind;

/// The stores of a process: one directory per task.
pub struct RocksStores {
    config: Config,
    shared: SharedBuffers,
}

impl RocksStores {
    /// Stores in the configured directory; nothing is opened yet.
    pub fn new(config: Config) -> Arc<Self> {
        let shared = SharedBuffers::new(&config);
        Arc::new(Self { config, shared })
    }

    /// The configured directory.
    pub fn folder(&self) -> &Path {
        &self.config.dir
    }

    /// The partitions that have a store.
    pub fn partitions(&self) -> std::io::Result<Vec<Partition>> {
        let mut partitions = Vec::new();
        for entry in std::fs::read_dir(&self.config.dir)? {
            let name = entry?.file_name();
            let number =
                name.to_str().and_then(|name| name.strip_prefix(TASK_DIR_PREFIX)?.parse().ok());
            partitions.extend(number.map(Partition));
        }
        partitions.sort_unstable();
        Ok(partitions)
    }

    /// The tables that a partition's store has, those of other builds included.
    pub fn tables(&self, partition: Partition) -> Result<Vec<Table>, StoreError> {
        table_view::tables(&self.dir(partition))
    }

    /// A table of a partition's store as it is now, whether or not the store is open. `None`: the
    /// store has no such table, or there is no store.
    pub fn view(
        &self,
        partition: Partition,
        table: Table,
    ) -> Result<Option<TableView>, StoreError> {
        TableView::open(&self.dir(partition), table)
    }

    fn dir(&self, partition: Partition) -> PathBuf {
        self.config.dir.join(task_dir_name(partition))
    }
}

impl Stores for RocksStores {
    fn open(
        &self,
        partition: Partition,
        tables: &[TableSpec],
    ) -> Result<Box<dyn Store>, StoreError> {
        let database = Arc::new(TaskDatabase::open(&self.dir(partition), tables, &self.shared)?);
        let checkpoints = TaskCheckpoints::open(&self.config, partition)?;
        let write_behind = WriteBehind::start(database.clone(), checkpoints, partition)?;
        Ok(Box::new(RocksStore { write_behind, database }))
    }

    fn destroy(&self, partition: Partition) -> Result<(), StoreError> {
        // The checkpoints of a store that no longer fits the log may not fit it either.
        checkpoint::remove_all(&self.config.dir, partition)?;
        remove_dir(&self.dir(partition))
    }
}

/// An open store. The writer comes first, so that it ends before the database is closed.
struct RocksStore {
    write_behind: WriteBehind,
    database: Arc<TaskDatabase>,
}

impl Store for RocksStore {
    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.database.get(table, key)
    }

    fn scan(
        &mut self,
        table: Table,
        range: KeyRange<'_>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.database.scan(table, range, visit)
    }

    fn hand_over(&mut self, batch: StoreBatch) -> Result<Ticket, StoreError> {
        self.write_behind.hand_over(batch)
    }

    fn written(&mut self) -> Result<Ticket, StoreError> {
        self.write_behind.written()
    }

    fn progress(&mut self) -> Result<Option<Bytes>, StoreError> {
        self.database.progress()
    }

    fn allow_checkpoints(&mut self) {
        self.write_behind.allow_checkpoints();
    }

    fn set_horizon(&mut self, table: Table, before: Millis) -> Result<(), StoreError> {
        self.database.set_horizon(table, before.0)
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        self.write_behind.close()
    }
}

#[cfg(test)]
mod tests {
    use tidewire_engine::port::{StoreWrite, TableExpiry};

    use super::*;

    const T: Table = Table(3);
    const TABLES: &[TableSpec] =
        &[TableSpec { table: T, name: "test", expiry: TableExpiry::ByValueTime }];

    fn stores(dir: &Path) -> Arc<RocksStores> {
        RocksStores::new(Config::new(dir))
    }

    fn batch(progress: &str, writes: &[(&str, Option<&str>)]) -> StoreBatch {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let write = |(key, value): &(&str, Option<&str>)| StoreWrite {
            table: T,
            key: bytes(key),
            value: value.map(bytes),
        };
        StoreBatch { writes: writes.iter().map(write).collect(), progress: bytes(progress) }
    }

    fn all(store: &mut dyn Store, range: KeyRange<'_>) -> String {
        let mut found = String::new();
        let visit = &mut |key: &[u8], value: &[u8]| {
            let text = |bytes| std::str::from_utf8(bytes).unwrap();
            found.push_str(&format!("{}={} ", text(key), text(value)));
            ControlFlow::Continue(())
        };
        store.scan(T, range, visit).unwrap();
        found
    }

    #[test]
    fn closing_writes_every_queued_batch_and_its_progress() {
        let dir = tempfile::tempdir().unwrap();
        let stores = stores(dir.path());
        let mut store = stores.open(Partition(0), TABLES).unwrap();
        assert_eq!(store.progress().unwrap(), None);
        assert_eq!(store.written().unwrap(), Ticket(0));
        store.hand_over(batch("p1", &[("a", Some("1")), ("b", Some("2"))])).unwrap();
        let last = store.hand_over(batch("p2", &[("a", None), ("c", Some("3"))])).unwrap();
        assert_eq!(last, Ticket(2));
        store.close().unwrap();
        let mut store = stores.open(Partition(0), TABLES).unwrap();
        assert_eq!(store.progress().unwrap(), Some(Bytes::from("p2")));
        assert_eq!(all(&mut *store, KeyRange::ALL), "b=2 c=3 ");
        assert_eq!(all(&mut *store, KeyRange { from: b"b", to: Some(b"c") }), "b=2 ");
        assert_eq!(store.get(T, b"c").unwrap(), Some(Bytes::from("3")));
        assert_eq!(store.get(T, b"a").unwrap(), None);
    }

    #[test]
    fn a_ticket_is_reported_once_its_batch_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = stores(dir.path()).open(Partition(0), TABLES).unwrap();
        let ticket = store.hand_over(batch("p", &[("a", Some("1"))])).unwrap();
        while store.written().unwrap() < ticket {
            crate::clock::pause(std::time::Duration::from_millis(1));
        }
        assert_eq!(store.get(T, b"a").unwrap(), Some(Bytes::from("1")));
    }

    #[test]
    fn entries_before_the_horizon_are_deleted_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let windows = TableSpec { table: T, name: "windows", expiry: TableExpiry::ByKeyTime };
        let mut store = stores(dir.path()).open(Partition(0), &[windows]).unwrap();
        let key = |at: i64| Bytes::copy_from_slice(&(at ^ i64::MIN).to_be_bytes());
        let write = |at| StoreWrite { table: T, key: key(at), value: Some("v".into()) };
        let times = [-7, 0, 3_599_999, 3_600_000, 7_200_000];
        let writes = times.map(write).to_vec();
        let ticket = store.hand_over(StoreBatch { writes, progress: "p".into() }).unwrap();
        while store.written().unwrap() < ticket {
            crate::clock::pause(std::time::Duration::from_millis(1));
        }
        let left =
            |store: &mut dyn Store| times.map(|at| store.get(T, &key(at)).unwrap().is_some());
        store.set_horizon(T, Millis(3_600_000)).unwrap();
        assert_eq!(left(&mut *store), [false, false, false, true, true]);
        // The horizon has not moved far enough, and never moves back.
        store.set_horizon(T, Millis(3_600_001)).unwrap();
        store.set_horizon(T, Millis(0)).unwrap();
        assert_eq!(left(&mut *store), [false, false, false, true, true]);
        store.set_horizon(T, Millis(7_200_000)).unwrap();
        assert_eq!(left(&mut *store), [false, false, false, false, true]);
    }

    fn spec(table: Table, expiry: TableExpiry) -> TableSpec {
        TableSpec { table, name: "test", expiry }
    }

    /// Hands a batch over and waits until it is written.
    fn write(store: &mut dyn Store, writes: Vec<StoreWrite>) {
        let ticket = store.hand_over(StoreBatch { writes, progress: "p".into() }).unwrap();
        while store.written().unwrap() < ticket {
            crate::clock::pause(std::time::Duration::from_millis(1));
        }
    }

    fn keys(store: &mut dyn Store, table: Table, range: KeyRange<'_>) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let visit = &mut |key: &[u8], _: &[u8]| {
            found.push(key.to_vec());
            ControlFlow::Continue(())
        };
        store.scan(table, range, visit).unwrap();
        found
    }

    #[test]
    fn a_table_never_shows_or_loses_rows_of_the_tables_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let tables = [0, 6, 7, 8, 254, 255].map(Table);
        for expiry in [TableExpiry::Never, TableExpiry::ByKeyTime] {
            let stores = stores(&dir.path().join(format!("{expiry:?}")));
            let specs = tables.map(|table| spec(table, expiry));
            let mut store = stores.open(Partition(0), &specs).unwrap();
            let written: [&[u8]; 4] = [&[0; 8], &[7; 8], &[128, 0, 0, 0, 0, 0, 0, 1], &[255; 9]];
            let rows = tables.iter().flat_map(|table| written.map(|key| (*table, key)));
            let row = |(table, key)| StoreWrite {
                table,
                key: Bytes::copy_from_slice(key),
                value: Some("v".into()),
            };
            write(&mut *store, rows.map(row).collect());
            for table in tables {
                assert_eq!(keys(&mut *store, table, KeyRange::ALL), written);
                let range = KeyRange { from: &[7], to: Some(&[255]) };
                assert_eq!(keys(&mut *store, table, range), written[1..3]);
                let view = stores.view(Partition(0), table).unwrap().unwrap();
                let mut found = Vec::new();
                let visit = &mut |key: &[u8], _: &[u8]| {
                    found.push(key.to_vec());
                    ControlFlow::Continue(())
                };
                view.visit(b"", visit).unwrap();
                assert_eq!(found, written);
            }
            store.set_horizon(Table(7), Millis(0)).unwrap();
            let left = if expiry == TableExpiry::Never { 0 } else { 2 };
            for table in tables {
                let from = if table == Table(7) { left } else { 0 };
                assert_eq!(keys(&mut *store, table, KeyRange::ALL), written[from..], "{table:?}");
            }
        }
    }

    #[test]
    fn a_row_of_a_table_that_only_another_build_has_can_be_removed_and_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let stores = stores(dir.path());
        let expiries = [TableExpiry::Never, TableExpiry::ByValueTime, TableExpiry::ByKeyTime];
        let specs = [4, 5, 6].map(Table).into_iter().zip(expiries);
        let specs: Vec<_> = specs.map(|(table, expiry)| spec(table, expiry)).collect();
        let change = |(table, key, value): (Table, &[u8], Option<&str>)| StoreWrite {
            table,
            key: Bytes::copy_from_slice(key),
            value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
        };
        let (removed, left) = (&[1; 9][..], &[2; 9][..]);
        let mut store = stores.open(Partition(0), &specs).unwrap();
        let rows = |spec: &TableSpec| [removed, left].map(|key| (spec.table, key, Some("v")));
        write(&mut *store, specs.iter().flat_map(rows).map(change).collect());
        store.close().unwrap();
        let mut store = stores.open(Partition(0), TABLES).unwrap();
        let removals = specs.iter().map(|spec| (spec.table, removed, None));
        let never_declared = (Table(7), removed, None);
        write(&mut *store, removals.chain([never_declared]).map(change).collect());
        store.close().unwrap();
        let mut store = stores.open(Partition(0), &specs).unwrap();
        for TableSpec { table, .. } in &specs {
            assert_eq!(keys(&mut *store, *table, KeyRange::ALL), [left], "{table:?}");
        }
        let undeclared = vec![change((Table(7), left, Some("v")))];
        store.hand_over(StoreBatch { writes: undeclared, progress: "p".into() }).unwrap();
        let text = store.close().unwrap_err().message;
        assert!(text.contains("table 7 was not declared"), "{text}");
    }

    #[test]
    fn a_store_of_another_layout_is_refused_with_the_command_to_run() {
        let dir = tempfile::tempdir().unwrap();
        let stores = stores(dir.path());
        let mut options = rocksdb::Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        let of_another = |partition: &str| {
            let dir = dir.path().join(partition);
            rocksdb::DB::open_cf(&options, dir, ["default", "meta", "table-3"]).map(drop).unwrap();
        };
        of_another("task-0");
        let text = stores.open(Partition(0), TABLES).err().unwrap().message;
        assert!(text.contains("state rebuild") && text.contains("family meta"), "{text}");
        let text = stores.view(Partition(0), T).err().unwrap().message;
        assert!(text.contains("state rebuild"), "{text}");
        stores.destroy(Partition(0)).unwrap();
        stores.open(Partition(0), TABLES).unwrap().close().unwrap();
        let moved = [spec(T, TableExpiry::Never)];
        let text = stores.open(Partition(0), &moved).err().unwrap().message;
        assert!(text.contains("expiring, not kept"), "{text}");
    }

    #[test]
    fn the_first_writes_of_fifty_tables_of_eight_tasks_flush_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let stores = stores(dir.path());
        let expiry = |n| match n % 3 {
            0 => TableExpiry::Never,
            1 => TableExpiry::ByValueTime,
            _ => TableExpiry::ByKeyTime,
        };
        let specs: Vec<TableSpec> = (0..50).map(|n| spec(Table(n), expiry(n))).collect();
        let mut open = Vec::new();
        for task in 0..8 {
            let mut store = stores.open(Partition(task), &specs).unwrap();
            for n in 0u64..5 {
                let key = Bytes::copy_from_slice(&n.to_be_bytes());
                let row = |spec: &TableSpec| StoreWrite {
                    table: spec.table,
                    key: key.clone(),
                    value: Some(key.clone()),
                };
                write(&mut *store, specs.iter().map(row).collect());
            }
            let files = std::fs::read_dir(dir.path().join(format!("task-{task}"))).unwrap();
            let is_table = |path: &Path| path.extension().is_some_and(|kind| kind == "sst");
            let flushed = files.filter(|file| is_table(&file.as_ref().unwrap().path())).count();
            assert_eq!(flushed, 0, "task {task}");
            open.push(store);
        }
    }

    #[test]
    fn an_open_store_is_locked_and_a_destroyed_one_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let stores = stores(dir.path());
        let mut store = stores.open(Partition(0), TABLES).unwrap();
        let text = stores.open(Partition(0), TABLES).err().unwrap().message;
        assert!(text.contains("open already"), "{text}");
        store.hand_over(batch("p", &[("a", Some("1"))])).unwrap();
        store.close().unwrap();
        stores.destroy(Partition(0)).unwrap();
        stores.destroy(Partition(0)).unwrap();
        let mut store = stores.open(Partition(0), TABLES).unwrap();
        assert_eq!(store.progress().unwrap(), None);
    }

    fn progress_at(order: u64, minutes: i64) -> Bytes {
        use tidewire_engine::derive::lane_times::LaneTimes;
        use tidewire_engine::derive::progress::TaskProgress;
        use tidewire_engine::record::Offset;
        use tidewire_engine::topology::Lane;
        let (order, state) = (Offset(order), Offset(0));
        let times = LaneTimes([Millis(minutes * 60_000); Lane::COUNT]);
        TaskProgress { state, order, times, ..TaskProgress::default() }.encode()
    }

    #[test]
    fn a_checkpoint_is_a_copy_that_can_be_restored_to_another_directory() {
        let dir = tempfile::tempdir().unwrap();
        let stores = RocksStores::new(Config::new(dir.path()));
        let hand_over = |store: &mut dyn Store, (order, minutes), value| {
            let batch = batch("", &[("a", Some(value))]);
            store.hand_over(StoreBatch { progress: progress_at(order, minutes), ..batch }).unwrap()
        };
        let mut store = stores.open(Partition(0), TABLES).unwrap();
        let first = hand_over(&mut *store, (3, 60), "restored");
        while store.written().unwrap() < first {
            crate::clock::pause(std::time::Duration::from_millis(1));
        }
        store.allow_checkpoints();
        hand_over(&mut *store, (5, 61), "then");
        store.close().unwrap();
        let mut store = stores.open(Partition(0), TABLES).unwrap();
        store.allow_checkpoints();
        hand_over(&mut *store, (9, 62), "a minute later");
        store.close().unwrap();
        let kept = checkpoint::checkpoints(dir.path(), Partition(0)).unwrap();
        assert_eq!(kept.len(), 1, "none during the restore, one when due: {kept:?}");
        assert_eq!((kept[0].order.0, kept[0].time), (5, Millis(61 * 60_000)));
        let elsewhere = tempfile::tempdir().unwrap();
        kept[0].restore(elsewhere.path(), Partition(0)).unwrap();
        let copies = RocksStores::new(Config::new(elsewhere.path()));
        let mut copy = copies.open(Partition(0), TABLES).unwrap();
        assert_eq!(copy.progress().unwrap(), Some(progress_at(5, 61)));
        assert_eq!(all(&mut *copy, KeyRange::ALL), "a=then ");
        hand_over(&mut *copy, (6, 61), "written to the copy");
        copy.close().unwrap();
        let again = tempfile::tempdir().unwrap();
        kept[0].restore(again.path(), Partition(0)).unwrap();
        let mut copy = RocksStores::new(Config::new(again.path())).open(Partition(0), TABLES);
        assert_eq!(all(&mut **copy.as_mut().unwrap(), KeyRange::ALL), "a=then ");
        stores.destroy(Partition(0)).unwrap();
        assert_eq!(checkpoint::checkpoints(dir.path(), Partition(0)).unwrap(), []);
    }

    #[test]
    fn the_error_of_a_damaged_store_says_how_to_rebuild_it() {
        let dir = tempfile::tempdir().unwrap();
        let stores = stores(dir.path());
        let mut store = stores.open(Partition(0), TABLES).unwrap();
        store.hand_over(batch("p", &[("a", Some("1"))])).unwrap();
        store.close().unwrap();
        for entry in std::fs::read_dir(dir.path().join("task-0")).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_str().unwrap().starts_with("MANIFEST") {
                std::fs::write(path, b"not a manifest, and long enough to look at").unwrap();
            }
        }
        let text = stores.open(Partition(0), TABLES).err().unwrap().message;
        assert!(text.contains("rebuilt from the changelog"), "{text}");
    }
}
