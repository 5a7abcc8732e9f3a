//! A machine's disk in memory, whose writer runs only when the world lets it.
//!
//! What is written survives a crash; what was handed over and is not written yet does not. Any call
//! may fail.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tidewire_engine::port::{
    KeyRange, Store, StoreBatch, StoreError, Stores, Table, TableExpiry, TableSpec, Ticket,
};
use tidewire_engine::record::{Millis, Partition};

use super::faults::Call;
use super::journal::{DiskId, Fact};
use super::log::FakeLog;

/// Batches that may wait for the writer; the next hand-over waits until one is written.
const MAX_WAITING: usize = 3;

/// One store's files and its writer's queue.
#[derive(Debug, Default)]
pub(crate) struct FakeDisk {
    /// What is written.
    pub(crate) data: BTreeMap<(Table, Bytes), Bytes>,
    /// The progress of the newest written batch.
    pub(crate) progress: Option<Bytes>,
    waiting: VecDeque<(Ticket, StoreBatch)>,
    written: Ticket,
    handed: Ticket,
    open: bool,
    /// The tables it was opened with.
    declared: BTreeSet<Table>,
    expiring: BTreeSet<Table>,
    horizon: BTreeMap<Table, Millis>,
}

impl FakeDisk {
    /// Writes the oldest waiting batch, and returns it.
    fn write_one(&mut self) -> Option<StoreBatch> {
        let (ticket, batch) = self.waiting.pop_front()?;
        for write in &batch.writes {
            let key = (write.table, write.key.clone());
            match &write.value {
                Some(value) => drop(self.data.insert(key, value.clone())),
                None => drop(self.data.remove(&key)),
            }
        }
        self.progress = Some(batch.progress.clone());
        self.written = ticket;
        self.expire();
        Some(batch)
    }

    fn expire(&mut self) {
        if self.horizon.is_empty() {
            return;
        }
        let (expiring, horizon) = (&self.expiring, &self.horizon);
        self.data.retain(|(table, _), value| {
            let time = value.first_chunk().map(|time| i64::from_be_bytes(*time));
            let before = horizon.get(table).map(|before| before.0);
            !expiring.contains(table) || before.is_none() || time >= before
        });
    }
}

/// The disks of one machine, by partition, as one process sees them.
#[derive(Clone)]
pub(crate) struct FakeStores {
    disks: Arc<Mutex<BTreeMap<u32, FakeDisk>>>,
    machine: usize,
    /// The log as the process that uses these disks sees it.
    log: FakeLog,
}

impl FakeStores {
    /// The disks of a new machine.
    pub(crate) fn new(machine: usize, log: &FakeLog) -> Self {
        Self { disks: Arc::default(), machine, log: log.clone() }
    }

    /// The same disks, used by another process.
    pub(crate) fn of_process(&self, log: &FakeLog) -> Self {
        Self { disks: self.disks.clone(), machine: self.machine, log: log.clone() }
    }

    /// The disks.
    pub(crate) fn disks(&self) -> MutexGuard<'_, BTreeMap<u32, FakeDisk>> {
        self.disks.lock().expect("one thread")
    }

    /// Lets each writer write one batch.
    pub(crate) fn write_some(&self) {
        for (of, disk) in self.disks().iter_mut() {
            self.write_one(*of, disk);
        }
    }

    /// The process has crashed, with its locks and queues, after writing this many more batches.
    pub(crate) fn crash(&self, batches: usize) {
        let mut left = batches;
        for (of, disk) in self.disks().iter_mut() {
            while left > 0 && !disk.waiting.is_empty() {
                self.write_one(*of, disk);
                left -= 1;
            }
            disk.waiting.clear();
            disk.open = false;
        }
    }

    fn write_one(&self, of: u32, disk: &mut FakeDisk) {
        if let Some(batch) = disk.write_one() {
            self.log.state().journal.push(Fact::Written(self.id(of), batch));
        }
    }

    fn id(&self, partition: u32) -> DiskId {
        DiskId { machine: self.machine, partition }
    }
}

impl Stores for FakeStores {
    fn open(&self, of: Partition, tables: &[TableSpec]) -> Result<Box<dyn Store>, StoreError> {
        let open = || {
            let mut disks = self.disks();
            let disk = disks.entry(of.0).or_default();
            if disk.open {
                let message = format!("the store of partition {} is open already", of.0);
                return Err(StoreError { message, source: None });
            }
            disk.open = true;
            disk.waiting.clear();
            disk.handed = disk.written;
            disk.declared = tables.iter().map(|t| t.table).collect();
            let stamped = tables.iter().filter(|t| t.expiry == TableExpiry::ByValueTime);
            disk.expiring = stamped.map(|t| t.table).collect();
            Ok(())
        };
        self.log.store_call(Call::StoreOpen, open)??;
        Ok(Box::new(FakeStore { stores: self.clone(), of: of.0 }))
    }

    fn destroy(&self, of: Partition) -> Result<(), StoreError> {
        self.log.store_call(Call::StoreDestroy, || {
            self.disks().remove(&of.0);
            let mut log_state = self.log.state();
            log_state.count("stores rebuilt");
            log_state.journal.push(Fact::Destroyed(self.id(of.0)));
        })
    }
}

struct FakeStore {
    stores: FakeStores,
    of: u32,
}

impl FakeStore {
    fn with<T>(&self, call: impl FnOnce(&mut FakeDisk) -> T) -> T {
        call(self.stores.disks().get_mut(&self.of).expect("it is open"))
    }

    fn call<T>(
        &self,
        call: Call,
        effect: impl FnOnce(&mut FakeDisk) -> T,
    ) -> Result<T, StoreError> {
        self.stores.log.store_call(call, || self.with(effect))
    }

    /// A lost partition may be owned by another process already.
    fn check_owner(&self) {
        let mut log_state = self.stores.log.state();
        if log_state.lost.contains(&(self.stores.log.process(), self.of)) {
            log_state.report_violation(format!(
                "partition {} was lost, and its store is written to",
                self.of
            ));
        }
    }
}

impl Store for FakeStore {
    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let key = (table, Bytes::copy_from_slice(key));
        self.call(Call::StoreGet, |disk| disk.data.get(&key).cloned())
    }

    fn scan(
        &mut self,
        table: Table,
        KeyRange { from, to }: KeyRange<'_>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.call(Call::StoreScan, |disk| {
            for ((_, key), value) in disk
                .data
                .range((table, Bytes::copy_from_slice(from))..)
                .take_while(|((t, key), _)| *t == table && to.is_none_or(|to| &key[..] < to))
            {
                if visit(key, value).is_break() {
                    return;
                }
            }
        })
    }

    fn hand_over(&mut self, batch: StoreBatch) -> Result<Ticket, StoreError> {
        let keys: BTreeSet<_> =
            batch.writes.iter().map(|write| (write.table, &write.key)).collect();
        assert_eq!(keys.len(), batch.writes.len(), "a batch has each key once");
        self.check_owner();
        self.call(Call::StoreHandOver, |disk| {
            for write in &batch.writes {
                let is_declared = disk.declared.contains(&write.table);
                assert!(is_declared || write.value.is_none(), "{:?} is undeclared", write.table);
            }
            if disk.waiting.len() == MAX_WAITING {
                self.stores.write_one(self.of, disk);
            }
            disk.handed = Ticket(disk.handed.0 + 1);
            disk.waiting.push_back((disk.handed, batch));
            disk.handed
        })
    }

    fn written(&mut self) -> Result<Ticket, StoreError> {
        self.call(Call::StoreWritten, |disk| disk.written)
    }

    fn progress(&mut self) -> Result<Option<Bytes>, StoreError> {
        self.call(Call::StoreProgress, |disk| disk.progress.clone())
    }

    fn set_horizon(&mut self, table: Table, before: Millis) -> Result<(), StoreError> {
        self.with(|disk| disk.horizon.insert(table, before));
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        self.call(Call::StoreClose, |disk| {
            while !disk.waiting.is_empty() {
                self.stores.write_one(self.of, disk);
            }
            disk.open = false;
        })
    }
}

/// Dropped without a close: what was not written is lost and the lock is released. For a crashed
/// process the world decides what was still written.
impl Drop for FakeStore {
    fn drop(&mut self) {
        if self.stores.log.is_dead() {
            return;
        }
        if let Some(disk) = self.stores.disks().get_mut(&self.of) {
            disk.waiting.clear();
            disk.open = false;
        }
    }
}
