//! A store in memory for tests of operators; a batch is written as soon as it is handed over.
//!
//! It never fails and keeps nothing after the process ends.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use crate::port::{KeyRange, Store, StoreBatch, StoreError, Table, Ticket};
use crate::record::Millis;

/// The tables of one task, in memory.
#[derive(Default)]
pub(super) struct MemoryStore {
    tables: BTreeMap<Table, BTreeMap<Bytes, Bytes>>,
    progress: Option<Bytes>,
    written: Ticket,
}

impl Store for MemoryStore {
    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.tables.get(&table).and_then(|keys| keys.get(key)).cloned())
    }

    fn scan(
        &mut self,
        table: Table,
        KeyRange { from, to }: KeyRange<'_>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let range = (Bound::Included(from), Bound::Unbounded);
        let keys =
            self.tables.get(&table).into_iter().flat_map(|keys| keys.range::<[u8], _>(range));
        for (key, value) in keys.take_while(|(key, _)| to.is_none_or(|to| &key[..] < to)) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn hand_over(&mut self, batch: StoreBatch) -> Result<Ticket, StoreError> {
        for write in batch.writes {
            let keys = self.tables.entry(write.table).or_default();
            match write.value {
                Some(value) => drop(keys.insert(write.key, value)),
                None => drop(keys.remove(&write.key)),
            }
        }
        self.progress = Some(batch.progress);
        self.written.0 += 1;
        Ok(self.written)
    }

    fn written(&mut self) -> Result<Ticket, StoreError> {
        Ok(self.written)
    }

    fn progress(&mut self) -> Result<Option<Bytes>, StoreError> {
        Ok(self.progress.clone())
    }

    fn set_horizon(&mut self, _: Table, _: Millis) -> Result<(), StoreError> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        Ok(())
    }
}
