//! All tables of a task as one map, with every past value at transaction boundaries.

use std::collections::{BTreeMap, HashMap};
use std::mem;

use bytes::Bytes;
use tidewire_engine::port::Table;

/// A key of a table.
pub(super) type TableKey = (Table, Bytes);

/// The tables.
#[derive(Default)]
pub(super) struct ModelTables {
    now: BTreeMap<TableKey, Bytes>,
    /// The keys that this transaction has written, with their values.
    dirty: BTreeMap<TableKey, Option<Bytes>>,
    /// Each key's values, with the number of transactions after which it had them.
    past: HashMap<TableKey, Vec<(usize, Option<Bytes>)>>,
}

impl ModelTables {
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Option<&Bytes> {
        self.now.get(&(table, Bytes::copy_from_slice(key)))
    }

    /// The keys of a range, in order.
    pub(super) fn keys(&self, table: Table, from: &[u8], to: &[u8]) -> Vec<Bytes> {
        let bound = |key: &[u8]| (table, Bytes::copy_from_slice(key));
        self.now.range(bound(from)..bound(to)).map(|((_, key), _)| key.clone()).collect()
    }

    pub(super) fn set(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) {
        let key = (table, Bytes::copy_from_slice(key));
        let value = value.map(Bytes::copy_from_slice);
        match &value {
            Some(value) => drop(self.now.insert(key.clone(), value.clone())),
            None => drop(self.now.remove(&key)),
        }
        self.dirty.insert(key, value);
    }

    /// Ends a transaction, the one with this number; returns each key it wrote with its last value.
    pub(super) fn commit(&mut self, transactions: usize) -> BTreeMap<TableKey, Option<Bytes>> {
        let dirty = mem::take(&mut self.dirty);
        for (key, value) in &dirty {
            self.past.entry(key.clone()).or_default().push((transactions, value.clone()));
        }
        dirty
    }

    /// The value of a key after this many transactions.
    pub(super) fn after(&self, transactions: usize, key: &TableKey) -> Option<&Bytes> {
        let past = self.past.get(key)?;
        let at = past.partition_point(|(since, _)| *since <= transactions);
        past.get(at.checked_sub(1)?)?.1.as_ref()
    }

    /// Everything it holds now.
    pub(super) fn now(&self) -> &BTreeMap<TableKey, Bytes> {
        &self.now
    }
}
