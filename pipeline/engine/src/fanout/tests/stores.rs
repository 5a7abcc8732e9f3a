//! Stores in memory for the fan-out's tests.
//!
//! What is written stays when a store is dropped; what was handed over and is not written yet is
//! lost then, as in a killed process.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use crate::port::{KeyRange, Store, StoreBatch, StoreError, Stores, Table, TableSpec, Ticket};
use crate::record::{Millis, Partition};

/// When batches are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum StoreWriter {
    /// When they are handed over.
    #[default]
    AtOnce,
    /// When a test says so.
    WhenTold,
}

#[derive(Default)]
struct StoredTable {
    rows: BTreeMap<Bytes, Bytes>,
    progress: Option<Bytes>,
    waiting: VecDeque<StoreBatch>,
    written: Ticket,
    is_open: bool,
}

impl StoredTable {
    fn write_all(&mut self) {
        for batch in self.waiting.drain(..) {
            for write in batch.writes {
                match write.value {
                    Some(value) => drop(self.rows.insert(write.key, value)),
                    None => drop(self.rows.remove(&write.key)),
                }
            }
            self.progress = Some(batch.progress);
            self.written.0 += 1;
        }
    }
}

/// The stores of one gateway, by partition.
#[derive(Clone, Default)]
pub(super) struct MemoryStores {
    tables: Arc<Mutex<BTreeMap<Partition, StoredTable>>>,
    writer: StoreWriter,
    destroyed: Arc<Mutex<u64>>,
}

impl MemoryStores {
    pub(super) fn new(writer: StoreWriter) -> Self {
        Self { writer, ..Self::default() }
    }

    fn tables(&self) -> MutexGuard<'_, BTreeMap<Partition, StoredTable>> {
        self.tables.lock().unwrap()
    }

    /// Writes what waits.
    pub(super) fn write_all(&self) {
        self.tables().values_mut().for_each(StoredTable::write_all);
    }

    /// Batches that wait to be written.
    pub(super) fn waiting(&self) -> usize {
        self.tables().values().map(|table| table.waiting.len()).sum()
    }

    /// Rows that are written.
    pub(super) fn rows(&self) -> usize {
        self.tables().values().map(|table| table.rows.len()).sum()
    }

    /// How many stores were destroyed.
    pub(super) fn destroyed(&self) -> u64 {
        *self.destroyed.lock().unwrap()
    }

    /// Changes the progress of every store.
    pub(super) fn set_progress(&self, progress: &[u8]) {
        for table in self.tables().values_mut() {
            table.progress = Some(Bytes::copy_from_slice(progress));
        }
    }
}

impl Stores for MemoryStores {
    fn open(
        &self,
        partition: Partition,
        tables: &[TableSpec],
    ) -> Result<Box<dyn Store>, StoreError> {
        assert_eq!(tables.len(), 1, "the fold has one table");
        let mut all = self.tables();
        let table = all.entry(partition).or_default();
        assert!(!table.is_open, "a store is open once");
        (table.is_open, table.written) = (true, Ticket(0));
        Ok(Box::new(MemoryFoldStore { stores: self.clone(), partition }))
    }

    fn destroy(&self, partition: Partition) -> Result<(), StoreError> {
        let removed = self.tables().remove(&partition);
        assert!(removed.is_some_and(|table| !table.is_open), "a destroyed store is closed");
        *self.destroyed.lock().unwrap() += 1;
        Ok(())
    }
}

struct MemoryFoldStore {
    stores: MemoryStores,
    partition: Partition,
}

impl MemoryFoldStore {
    fn with<T>(&self, call: impl FnOnce(&mut StoredTable) -> T) -> T {
        call(self.stores.tables().get_mut(&self.partition).expect("it is open"))
    }
}

impl Store for MemoryFoldStore {
    fn get(&mut self, _: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.with(|table| table.rows.get(key).cloned()))
    }

    fn scan(
        &mut self,
        _: Table,
        KeyRange { from, to }: KeyRange<'_>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.with(|table| {
            let range = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
            let _ = table.rows.range::<[u8], _>(range).try_for_each(|(k, v)| visit(k, v));
        });
        Ok(())
    }

    fn hand_over(&mut self, batch: StoreBatch) -> Result<Ticket, StoreError> {
        let writer = self.stores.writer;
        Ok(self.with(|table| {
            assert!(table.waiting.len() < 2, "one hand-over at a time, and one at the close");
            table.waiting.push_back(batch);
            let ticket = Ticket(table.written.0 + table.waiting.len() as u64);
            if writer == StoreWriter::AtOnce {
                table.write_all();
            }
            ticket
        }))
    }

    fn written(&mut self) -> Result<Ticket, StoreError> {
        Ok(self.with(|table| table.written))
    }

    fn progress(&mut self) -> Result<Option<Bytes>, StoreError> {
        Ok(self.with(|table| table.progress.clone()))
    }

    fn set_horizon(&mut self, _: Table, _: Millis) -> Result<(), StoreError> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        self.with(StoredTable::write_all);
        Ok(())
    }
}

impl Drop for MemoryFoldStore {
    fn drop(&mut self) {
        self.with(|table| {
            table.waiting.clear();
            table.is_open = false;
        });
    }
}
