//! A read-only view of one table of a task's store, also while a process has the store open.
//!
//! It is a RocksDB *secondary instance*: it reads the store's files and its write-ahead log, takes
//! no lock and writes no file. It shows the store as it was written when the view was opened, and
//! its files stay readable when the process replaces them. So one view is one state of the store,
//! with the progress it corresponds to.
//!
//! Opening can fail because the process removes a file at that moment; it is tried a few times.
//! Batches that are queued and not written are not shown, nor is what the process keeps in memory.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use rocksdb::{ColumnFamily, ColumnFamilyDescriptor, InfoLogger, LogLevel, Options};
use tidewire_engine::port::{StoreError, Table};

use super::database::SingleThreadedDb;
use super::layout::{
    META, PROGRESS, TABLE, TableFamily, check_families, other_layout, row_key, split_row,
    table_key, table_of,
};
use crate::clock;

/// Attempts to open a view. A second one fails only if another file is removed during it.
const ATTEMPTS: usize = 5;

/// The wait after a failed attempt.
const PAUSE: Duration = Duration::from_millis(50);

/// A table of a store at one moment.
pub struct TableView {
    rocks: SingleThreadedDb,
    table: Table,
    family: TableFamily,
    dir: PathBuf,
}

/// The tables of the store in this directory, by number.
pub(super) fn tables(dir: &Path) -> Result<Vec<Table>, StoreError> {
    let mut tables = Vec::new();
    let Some(rocks) = open(dir)? else { return Ok(tables) };
    let mut rows = rocks.raw_iterator();
    rows.seek(TABLE);
    while let Some(table) = rows.key().and_then(table_of) {
        tables.push(table);
        rows.next();
    }
    rows.status().map_err(|error| unreadable(dir, error))?;
    Ok(tables)
}

impl TableView {
    pub(super) fn open(dir: &Path, table: Table) -> Result<Option<Self>, StoreError> {
        let Some(rocks) = open(dir)? else { return Ok(None) };
        let stored = rocks.get(table_key(table)).map_err(|error| unreadable(dir, error))?;
        let Some(stored) = stored else { return Ok(None) };
        let family = TableFamily::decode(&stored).ok_or_else(|| {
            other_layout(dir, &format!("table {} is in no known family", table.0))
        })?;
        Ok(Some(Self { rocks, table, family, dir: dir.to_owned() }))
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let found = self.rocks.get_cf(self.family(), row_key(self.table, key));
        found.map(|value| value.map(Bytes::from)).map_err(|error| unreadable(&self.dir, error))
    }

    /// Visits the entries whose keys begin with `prefix`, in order, until the visitor breaks.
    pub fn visit(
        &self,
        prefix: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let prefix = row_key(self.table, prefix);
        let mut rows = self.rocks.raw_iterator_cf(self.family());
        rows.seek(&prefix);
        while let Some((row, value)) = rows.item().filter(|(row, _)| row.starts_with(&prefix)) {
            let key = split_row(row).map_or(&[][..], |(_, key)| key);
            if visit(key, value) == ControlFlow::Break(()) {
                return Ok(());
            }
            rows.next();
        }
        rows.status().map_err(|error| unreadable(&self.dir, error))
    }

    /// The progress that the table corresponds to; `None` for a new store.
    pub fn progress(&self) -> Result<Option<Bytes>, StoreError> {
        let found = self.rocks.get(PROGRESS);
        found.map(|value| value.map(Bytes::from)).map_err(|error| unreadable(&self.dir, error))
    }

    fn family(&self) -> &ColumnFamily {
        self.rocks.cf_handle(self.family.name()).expect("opened with the database")
    }
}

/// Opens the store in this directory; `None` if there is none yet, or if it is being created.
fn open(dir: &Path) -> Result<Option<SingleThreadedDb>, StoreError> {
    if !dir.join("CURRENT").exists() {
        return Ok(None);
    }
    let families = with_attempts(dir, || SingleThreadedDb::list_cf(&Options::default(), dir))?;
    check_families(dir, &families)?;
    if TableFamily::ALL.iter().any(|family| families.iter().all(|name| name != family.name())) {
        return Ok(None);
    }
    with_attempts(dir, || open_secondary(dir)).map(Some)
}

fn open_secondary(dir: &Path) -> Result<SingleThreadedDb, rocksdb::Error> {
    let mut options = Options::default();
    // Files that the process removes stay readable as long as they are open.
    options.set_max_open_files(-1);
    // Without a logger it would write a log file of its own.
    options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Fatal, |_, _| {}));
    let families = TableFamily::ALL.iter().map(|family| family.name()).chain([META]);
    let families = families.map(|name| ColumnFamilyDescriptor::new(name, Options::default()));
    // The second path is for that log file only.
    let rocks = SingleThreadedDb::open_cf_descriptors_as_secondary(&options, dir, dir, families)?;
    // If a part of the write-ahead log was removed during the opening, its writes are in files by
    // now, which this finds.
    rocks.try_catch_up_with_primary()?;
    Ok(rocks)
}

fn with_attempts<T>(
    dir: &Path,
    mut attempt: impl FnMut() -> Result<T, rocksdb::Error>,
) -> Result<T, StoreError> {
    for _ in 1..ATTEMPTS {
        if let Ok(done) = attempt() {
            return Ok(done);
        }
        clock::pause(PAUSE);
    }
    attempt().map_err(|error| unreadable(dir, error))
}

fn unreadable(dir: &Path, error: rocksdb::Error) -> StoreError {
    let message = format!(
        "can't read {}; run the command again, and check the directory's permissions and disk; if \
         it is damaged, `tidewire state rebuild` has it rebuilt from the changelog",
        dir.display()
    );
    StoreError { message, source: Some(error.into_string().into()) }
}

#[cfg(test)]
mod tests {
    use tidewire_engine::port::{StoreBatch, StoreWrite, Stores as _, TableExpiry, TableSpec};
    use tidewire_engine::record::{Millis, Partition};

    use super::super::{Config, RocksStores};
    use super::*;

    const KEPT: Table = Table(3);
    const WINDOWS: Table = Table(4);
    const TABLES: &[TableSpec] = &[
        TableSpec { table: KEPT, name: "kept", expiry: TableExpiry::Never },
        TableSpec { table: WINDOWS, name: "windows", expiry: TableExpiry::ByKeyTime },
    ];

    fn write(table: Table, key: &[u8], value: Option<&[u8]>) -> StoreWrite {
        let value = value.map(Bytes::copy_from_slice);
        StoreWrite { table, key: Bytes::copy_from_slice(key), value }
    }

    fn keys(view: &TableView, prefix: &[u8], limit: usize) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let visit = &mut |key: &[u8], _: &[u8]| {
            found.push(key.to_vec());
            if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        view.visit(prefix, visit).unwrap();
        found
    }

    fn files(dir: &Path) -> Vec<String> {
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| name(entry).into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn an_open_store_and_a_closed_one_show_what_is_written_and_get_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let stores = RocksStores::new(Config::new(dir.path()));
        let mut store = stores.open(Partition(0), TABLES).unwrap();
        let mut hand_over = |progress: &str, writes: Vec<StoreWrite>| {
            let progress = Bytes::copy_from_slice(progress.as_bytes());
            let ticket = store.hand_over(StoreBatch { writes, progress }).unwrap();
            while store.written().unwrap() < ticket {
                clock::pause(Duration::from_millis(1));
            }
        };
        let view = || stores.view(Partition(0), KEPT).unwrap().unwrap();
        assert_eq!(view().progress().unwrap(), None);
        let entry = |key: &[u8]| write(KEPT, key, Some(b"1"));
        hand_over("p1", vec![entry(b"a"), entry(b"b"), entry(b"b\xff"), entry(b"c")]);
        let first = view();
        hand_over("p2", vec![write(KEPT, b"b", None), write(KEPT, b"c", Some(b"2"))]);
        let before = files(&dir.path().join("task-0"));
        let second = view();
        for (view, progress, value) in [(&first, "p1", "1"), (&second, "p2", "2")] {
            assert_eq!(view.progress().unwrap().unwrap(), progress);
            assert_eq!(view.get(b"c").unwrap().unwrap(), value);
        }
        assert_eq!(second.get(b"b").unwrap(), None);
        assert_eq!(keys(&first, b"b", 9), [b"b".to_vec(), b"b\xff".to_vec()]);
        assert_eq!(keys(&second, b"b", 9), [b"b\xff".to_vec()]);
        assert_eq!(keys(&second, b"", 2), [b"a".to_vec(), b"b\xff".to_vec()]);
        assert_eq!(files(&dir.path().join("task-0")), before, "a view writes no file");
        store.close().unwrap();
        assert_eq!(keys(&view(), b"", 9), keys(&second, b"", 9));
        assert_eq!(stores.tables(Partition(0)).unwrap(), [KEPT, WINDOWS]);
    }

    #[test]
    fn a_failure_that_passes_is_tried_again() {
        let dir = Path::new("of-a-store");
        let fails = || SingleThreadedDb::list_cf(&Options::default(), dir).map(|_| 0);
        let mut attempts = 0;
        let done = with_attempts(dir, || {
            attempts += 1;
            if attempts < ATTEMPTS { fails() } else { Ok(attempts) }
        });
        assert_eq!(done.unwrap(), ATTEMPTS);
        assert!(with_attempts(dir, fails).unwrap_err().message.contains("of-a-store"));
    }

    #[test]
    fn dropped_windows_are_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let stores = RocksStores::new(Config::new(dir.path()));
        let mut store = stores.open(Partition(0), TABLES).unwrap();
        let key = |at: i64| (at ^ i64::MIN).to_be_bytes();
        let writes = [5, 3_600_000].map(|at| write(WINDOWS, &key(at), Some(b"v"))).to_vec();
        let ticket = store.hand_over(StoreBatch { writes, progress: "p".into() }).unwrap();
        while store.written().unwrap() < ticket {
            clock::pause(Duration::from_millis(1));
        }
        store.set_horizon(WINDOWS, Millis(3_600_000)).unwrap();
        let view = stores.view(Partition(0), WINDOWS).unwrap().unwrap();
        assert_eq!(keys(&view, b"", 9), [key(3_600_000)]);
        assert_eq!(view.get(&key(5)).unwrap(), None);
    }

    #[test]
    fn an_absent_table_or_store_is_none_and_a_damaged_one_an_error_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let stores = RocksStores::new(Config::new(dir.path()));
        assert!(stores.view(Partition(0), KEPT).unwrap().is_none());
        assert_eq!(files(dir.path()), [] as [&str; 0], "it creates nothing");
        stores.open(Partition(0), TABLES).unwrap().close().unwrap();
        assert!(stores.view(Partition(0), Table(9)).unwrap().is_none());
        std::fs::write(dir.path().join("task-0/CURRENT"), "MANIFEST-999999\n").unwrap();
        let text = stores.view(Partition(0), KEPT).err().unwrap().message;
        assert!(text.contains("state rebuild"), "{text}");
    }
}
