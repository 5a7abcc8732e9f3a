//! The model of a store: the batches written to it, compared with its task's tables.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidewire_engine::derive::dedup::{IDS, WINDOW_MS};
use tidewire_engine::derive::progress::TaskProgress;
use tidewire_engine::port::StoreBatch;

use super::ensure::ensure;
use super::tables::TableKey;
use super::task::TaskModel;

/// The model of a store.
#[derive(Default)]
pub(super) struct DiskModel {
    data: BTreeMap<TableKey, Bytes>,
    /// How many of its task's transactions it holds.
    pub(super) transactions: usize,
}

impl DiskModel {
    /// A batch must end at a transaction boundary and bring the store to the tables of that time.
    pub(super) fn write(&mut self, batch: &StoreBatch, task: &TaskModel) -> Result<(), String> {
        let progress = TaskProgress::decode(&batch.progress).ok_or("progress is unreadable")?;
        let done = task.transactions_at(&progress)?;
        let before = self.transactions;
        ensure(done >= before, || format!("it goes back from transaction {before} to {done}"))?;
        let mut written = Vec::new();
        for write in &batch.writes {
            let key = (write.table, write.key.clone());
            match &write.value {
                Some(value) => drop(self.data.insert(key.clone(), value.clone())),
                None => drop(self.data.remove(&key)),
            }
            written.push(key);
        }
        for key in task.keys(before..done).chain(&written) {
            let (holds, wanted) = (self.data.get(key), task.tables.after(done, key));
            // An expired id may be removed.
            let expired = |at: &Bytes| {
                at.first_chunk().is_some_and(|at| {
                    progress.times.settled().0 - i64::from_be_bytes(*at) >= WINDOW_MS
                })
            };
            let may_go = key.0 == IDS && holds.is_none() && wanted.is_some_and(expired);
            ensure(holds == wanted || may_go, || {
                format!("after {done} transactions {key:?} is {holds:?}, not {wanted:?}")
            })?;
        }
        self.transactions = done;
        Ok(())
    }

    /// What it must hold, key by key; expired ids may be gone.
    pub(super) fn data(&self) -> &BTreeMap<TableKey, Bytes> {
        &self.data
    }
}
