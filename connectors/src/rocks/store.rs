//! The stores as the engine sees them: each verb of the ports, and nothing else.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tidewire_engine::port::{Store, StoreBatch, StoreError, Stores, Table, TableSpec, Ticket};
use tidewire_engine::record::{Millis, Partition};

use super::behind::Behind;
use super::config::Config;
use super::database::{Database, Shared};

/// The stores of a process: one directory per task.
pub struct RocksStores {
    config: Config,
    shared: Shared,
}

impl RocksStores {
    /// Stores in the configured directory; nothing is opened yet.
    pub fn new(config: Config) -> Arc<Self> {
        let shared = Shared::new(&config);
        Arc::new(Self { config, shared })
    }

    fn dir(&self, partition: Partition) -> PathBuf {
        self.config.dir.join(format!("task-{}", partition.0))
    }
}

impl Stores for RocksStores {
    fn open(
        &self,
        partition: Partition,
        tables: &[TableSpec],
    ) -> Result<Box<dyn Store>, StoreError> {
        let database = Arc::new(Database::open(&self.dir(partition), tables, &self.shared)?);
        let behind = Behind::start(database.clone(), &self.config, partition)?;
        Ok(Box::new(RocksStore { behind, database }))
    }

    fn destroy(&self, partition: Partition) -> Result<(), StoreError> {
        let dir = self.dir(partition);
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError {
                message: format!("can't remove {}; remove it by hand", dir.display()),
                source: Some(Box::new(error)),
            }),
            _ => Ok(()),
        }
    }
}

/// An open store. The writer stands first, so that it has ended before the database is closed.
struct RocksStore {
    behind: Behind,
    database: Arc<Database>,
}

impl Store for RocksStore {
    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.database.get(table, key)
    }

    fn scan(
        &mut self,
        table: Table,
        range: (&[u8], Option<&[u8]>),
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.database.scan(table, range, visit)
    }

    fn hand_over(&mut self, batch: StoreBatch) -> Result<Ticket, StoreError> {
        self.behind.hand_over(batch)
    }

    fn written(&mut self) -> Result<Ticket, StoreError> {
        self.behind.written()
    }

    fn progress(&mut self) -> Result<Option<Bytes>, StoreError> {
        self.database.progress()
    }

    fn set_horizon(&mut self, table: Table, before: Millis) -> Result<(), StoreError> {
        self.database.set_horizon(table, before.0)
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        self.behind.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidewire_engine::port::{Life, StoreWrite};

    const T: Table = Table(3);
    const TABLES: &[TableSpec] = &[TableSpec { table: T, name: "test", life: Life::Stamped }];

    fn stores(dir: &std::path::Path) -> Arc<RocksStores> {
        let write_every = std::time::Duration::from_millis(20);
        RocksStores::new(Config { write_every, ..Config::new(dir) })
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

    fn all(store: &mut dyn Store, range: (&[u8], Option<&[u8]>)) -> String {
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
    fn a_closed_store_has_everything_handed_over_and_its_progress() {
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
        assert_eq!(all(&mut *store, (b"", None)), "b=2 c=3 ");
        assert_eq!(all(&mut *store, (b"b", Some(b"c"))), "b=2 ");
        assert_eq!(store.get(T, b"c").unwrap(), Some(Bytes::from("3")));
        assert_eq!(store.get(T, b"a").unwrap(), None);
    }

    #[test]
    fn a_ticket_is_written_once_its_batch_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = stores(dir.path()).open(Partition(0), TABLES).unwrap();
        let ticket = store.hand_over(batch("p", &[("a", Some("1"))])).unwrap();
        while store.written().unwrap() < ticket {
            crate::clock::pause(std::time::Duration::from_millis(1));
        }
        assert_eq!(store.get(T, b"a").unwrap(), Some(Bytes::from("1")));
    }

    #[test]
    fn ranges_before_the_horizon_are_gone_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let windows = TableSpec { table: T, name: "windows", life: Life::Ranged };
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
        // Not worth a mark yet, and never backwards.
        store.set_horizon(T, Millis(3_600_001)).unwrap();
        store.set_horizon(T, Millis(0)).unwrap();
        assert_eq!(left(&mut *store), [false, false, false, true, true]);
        store.set_horizon(T, Millis(7_200_000)).unwrap();
        assert_eq!(left(&mut *store), [false, false, false, false, true]);
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

    #[test]
    fn a_damaged_store_says_that_it_is_rebuilt_once_removed() {
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
