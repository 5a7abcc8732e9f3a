//! A machine's disk in memory: what is written survives a crash, what was handed over and is not
//! written yet does not; the writer works only when the world lets it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tidewire_engine::port::{Store, StoreBatch, StoreError, Stores, Table, TableSpec, Ticket};
use tidewire_engine::record::{Millis, Partition};

/// Batches that may wait for the writer; the next hand-over waits for one to be written.
const MAX_WAITING: usize = 3;

/// Keys and values of all tables.
pub(crate) type Data = BTreeMap<(Table, Bytes), Bytes>;

/// One store's files and its writer's queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    /// What is written.
    pub(crate) data: Data,
    /// The progress of the newest written batch.
    pub(crate) progress: Option<Bytes>,
    waiting: VecDeque<(Ticket, StoreBatch)>,
    written: Ticket,
    handed: Ticket,
    open: bool,
    expiring: BTreeSet<Table>,
    horizon: BTreeMap<Table, Millis>,
}

impl Disk {
    fn write_one(&mut self) {
        let Some((ticket, batch)) = self.waiting.pop_front() else { return };
        for write in batch.writes {
            let key = (write.table, write.key);
            match write.value {
                Some(value) => drop(self.data.insert(key, value)),
                None => drop(self.data.remove(&key)),
            }
        }
        self.progress = Some(batch.progress);
        self.written = ticket;
        self.expire();
    }

    fn expire(&mut self) {
        let (expiring, horizon) = (&self.expiring, &self.horizon);
        self.data.retain(|(table, _), value| {
            let time = value.first_chunk().map(|time| i64::from_be_bytes(*time));
            let before = horizon.get(table).map(|before| before.0);
            !expiring.contains(table) || before.is_none() || time >= before
        });
    }
}

/// The disks of one machine, by partition.
#[derive(Clone, Default)]
pub(crate) struct FakeStores(Arc<Mutex<BTreeMap<u32, Disk>>>);

impl FakeStores {
    /// Disks with one store that was written to here.
    pub(crate) fn holding(of: Partition, data: Data, progress: Bytes) -> Self {
        let disk = Disk { data, progress: Some(progress), ..Disk::default() };
        Self(Arc::new(Mutex::new([(of.0, disk)].into())))
    }

    /// The disks.
    pub(crate) fn disks(&self) -> MutexGuard<'_, BTreeMap<u32, Disk>> {
        self.0.lock().expect("one thread")
    }

    /// Lets each writer write one batch.
    pub(crate) fn write_some(&self) {
        self.disks().values_mut().for_each(Disk::write_one);
    }

    /// The process is gone: locks and queues with it.
    pub(crate) fn crash(&self) {
        for disk in self.disks().values_mut() {
            disk.waiting.clear();
            disk.open = false;
        }
    }
}

impl Stores for FakeStores {
    fn open(&self, of: Partition, tables: &[TableSpec]) -> Result<Box<dyn Store>, StoreError> {
        let mut disks = self.disks();
        let disk = disks.entry(of.0).or_default();
        if disk.open {
            let message = format!("the store of partition {} is open already", of.0);
            return Err(StoreError { message, source: None });
        }
        disk.open = true;
        disk.waiting.clear();
        disk.handed = disk.written;
        disk.expiring = tables.iter().filter(|t| t.expires).map(|t| t.table).collect();
        Ok(Box::new(FakeStore { disks: self.clone(), of: of.0 }))
    }

    fn destroy(&self, of: Partition) -> Result<(), StoreError> {
        self.disks().remove(&of.0);
        Ok(())
    }
}

struct FakeStore {
    disks: FakeStores,
    of: u32,
}

impl FakeStore {
    fn with<T>(&self, call: impl FnOnce(&mut Disk) -> T) -> T {
        call(self.disks.disks().get_mut(&self.of).expect("it is open"))
    }
}

impl Store for FakeStore {
    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let key = (table, Bytes::copy_from_slice(key));
        Ok(self.with(|disk| disk.data.get(&key).cloned()))
    }

    fn scan(
        &mut self,
        table: Table,
        (from, to): (&[u8], Option<&[u8]>),
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.with(|disk| {
            for ((_, key), value) in disk
                .data
                .range((table, Bytes::copy_from_slice(from))..)
                .take_while(|((t, key), _)| *t == table && to.is_none_or(|to| &key[..] < to))
            {
                if visit(key, value).is_break() {
                    return;
                }
            }
        });
        Ok(())
    }

    fn hand_over(&mut self, batch: StoreBatch) -> Result<Ticket, StoreError> {
        assert!(
            batch.writes.is_sorted_by_key(|write| (write.table, write.key.clone())),
            "a batch is sorted by table and key"
        );
        Ok(self.with(|disk| {
            if disk.waiting.len() == MAX_WAITING {
                disk.write_one();
            }
            disk.handed = Ticket(disk.handed.0 + 1);
            disk.waiting.push_back((disk.handed, batch));
            disk.handed
        }))
    }

    fn written(&mut self) -> Result<Ticket, StoreError> {
        Ok(self.with(|disk| disk.written))
    }

    fn progress(&mut self) -> Result<Option<Bytes>, StoreError> {
        Ok(self.with(|disk| disk.progress.clone()))
    }

    fn set_horizon(&mut self, table: Table, before: Millis) {
        self.with(|disk| disk.horizon.insert(table, before));
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        self.with(|disk| {
            while !disk.waiting.is_empty() {
                disk.write_one();
            }
            disk.open = false;
        });
        Ok(())
    }
}

/// Dropped without a close: what was not written is lost, the lock is let go.
impl Drop for FakeStore {
    fn drop(&mut self) {
        self.with(|disk| {
            disk.waiting.clear();
            disk.open = false;
        });
    }
}
