//! A task's state as its operators see it: layers of memory over the store that is written behind.
//!
//! ```text
//! read  ─▶ overlay    this transaction's writes, undone if it aborts
//!          pending    committed, not yet handed to the writer
//!          handed     handed over, not yet known to be written; a layer per batch
//!          cache      clean: what the store holds too, misses included; bounded, evicts
//!          store      as of the newest written batch
//! ```
//!
//! The one idea: what the store does not have yet lives in layers that evict nothing, and only the
//! cache below them evicts. So an eviction can't lose a write, and an acknowledgement, which turns
//! the oldest handed layer into cache, can't clean a newer value: that one stands in a layer above.
//!
//! Nothing here reaches the store before the log committed it.

use std::collections::{BTreeMap, VecDeque};
use std::iter::Peekable;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use crate::cache::Cache;
use crate::port::{Store, StoreBatch, StoreError, StoreWrite, Table, Ticket};

/// Bytes the clean cache of one task may hold.
pub const CACHE_BYTES: usize = 32 << 20;

/// Bytes a key costs in a layer beside its own and its value's length.
const ENTRY_BYTES: usize = 96;

/// One layer: by table number, then by key. No value is a removal.
#[derive(Debug, Default)]
struct Layer {
    tables: Vec<BTreeMap<Bytes, Option<Bytes>>>,
    bytes: usize,
}

impl Layer {
    fn find(&self, table: Table, key: &[u8]) -> Option<&Option<Bytes>> {
        self.tables.get(usize::from(table.0))?.get(key)
    }

    /// Sets a key and returns what this layer said about it before.
    fn set(&mut self, table: Table, key: Bytes, value: Option<Bytes>) -> Option<Option<Bytes>> {
        let at = usize::from(table.0);
        if self.tables.len() <= at {
            self.tables.resize_with(at + 1, BTreeMap::new);
        }
        let key_bytes = ENTRY_BYTES + key.len();
        self.bytes += value.as_ref().map_or(0, Bytes::len);
        let before = self.tables[at].insert(key, value);
        match &before {
            Some(old) => self.bytes -= old.as_ref().map_or(0, Bytes::len),
            None => self.bytes += key_bytes,
        }
        before
    }

    fn unset(&mut self, table: Table, key: &Bytes) {
        let keys = self.tables.get_mut(usize::from(table.0));
        if let Some(value) = keys.and_then(|keys| keys.remove(key)) {
            self.bytes -= ENTRY_BYTES + key.len() + value.map_or(0, |value| value.len());
        }
    }

    fn is_empty(&self) -> bool {
        self.tables.iter().all(BTreeMap::is_empty)
    }

    fn iter(&self) -> impl Iterator<Item = (Table, &Bytes, &Option<Bytes>)> {
        self.tables.iter().enumerate().flat_map(|(at, keys)| {
            let table = Table(u8::try_from(at).expect("a layer is indexed by a table's number"));
            keys.iter().map(move |(key, value)| (table, key, value))
        })
    }

    fn drain(&mut self) -> impl Iterator<Item = (Table, Bytes, Option<Bytes>)> + use<'_> {
        self.bytes = 0;
        self.tables.iter_mut().enumerate().flat_map(|(at, keys)| {
            let table = Table(u8::try_from(at).expect("a layer is indexed by a table's number"));
            std::mem::take(keys).into_iter().map(move |(key, value)| (table, key, value))
        })
    }
}

/// What a write of this transaction replaced, to undo one operator's part of it.
#[derive(Debug)]
struct Undo {
    table: Table,
    key: Bytes,
    before: Option<Option<Bytes>>,
}

/// A place in a transaction to roll back to.
#[derive(Clone, Copy, Debug)]
pub struct Mark(usize);

/// The state of one task.
pub struct State {
    store: Box<dyn Store>,
    overlay: Layer,
    undo: Vec<Undo>,
    pending: Layer,
    /// Oldest first.
    handed: VecDeque<(Ticket, Layer)>,
    cache: Cache,
}

impl State {
    /// Layers over an opened store.
    pub fn new(store: Box<dyn Store>) -> Self {
        Self {
            store,
            overlay: Layer::default(),
            undo: Vec::new(),
            pending: Layer::default(),
            handed: VecDeque::new(),
            cache: Cache::new(CACHE_BYTES),
        }
    }

    /// The value now, this transaction's writes included.
    pub fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let above = [&self.overlay, &self.pending];
        let handed = self.handed.iter().rev().map(|(_, layer)| layer);
        if let Some(value) =
            above.into_iter().chain(handed).find_map(|layer| layer.find(table, key))
        {
            return Ok(value.clone());
        }
        if let Some(value) = self.cache.find(table, key) {
            return Ok(value);
        }
        let value = self.store.get(table, key)?;
        self.cache.insert(table, Bytes::copy_from_slice(key), value.clone());
        Ok(value)
    }

    /// Sets or (no value) removes a key in this transaction.
    pub fn put(&mut self, table: Table, key: Bytes, value: Option<Bytes>) {
        let before = self.overlay.set(table, key.clone(), value);
        self.undo.push(Undo { table, key, before });
    }

    /// Visits the live keys of `from..to` in order, this transaction's writes included.
    pub fn scan(
        &mut self,
        table: Table,
        range: (&[u8], Option<&[u8]>),
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let layers = [&self.overlay, &self.pending]
            .into_iter()
            .chain(self.handed.iter().rev().map(|(_, layer)| layer));
        let mut memory = Merged::new(layers, table, range);
        let mut stopped = false;
        self.store.scan(table, range, &mut |key, value| {
            let mut flow = memory.below(key, visit);
            if flow.is_continue() {
                flow = match memory.take(key) {
                    Some(Some(newer)) => visit(key, newer),
                    Some(None) => ControlFlow::Continue(()),
                    None => visit(key, value),
                };
            }
            stopped = flow.is_break();
            flow
        })?;
        if !stopped {
            let _ = memory.rest(visit);
        }
        Ok(())
    }

    /// Where the transaction's writes stand.
    pub fn mark(&self) -> Mark {
        Mark(self.undo.len())
    }

    /// Undoes the writes since `mark`.
    pub fn roll_back(&mut self, mark: Mark) {
        for undo in self.undo.drain(mark.0..).rev() {
            match undo.before {
                Some(value) => drop(self.overlay.set(undo.table, undo.key, value)),
                None => self.overlay.unset(undo.table, &undo.key),
            }
        }
    }

    /// This transaction's writes, each key once, in order of table and key.
    pub fn writes(&self) -> impl Iterator<Item = (Table, &Bytes, &Option<Bytes>)> {
        self.overlay.iter()
    }

    /// The log committed the transaction: its writes are facts now.
    pub fn apply(&mut self) {
        self.undo.clear();
        for (table, key, value) in self.overlay.drain() {
            self.pending.set(table, key, value);
        }
    }

    /// The log did not commit the transaction: its writes never were.
    pub fn discard(&mut self) {
        self.undo.clear();
        self.overlay = Layer::default();
    }

    /// Adds a write the log has already committed, while restoring.
    pub fn restore(&mut self, table: Table, key: Bytes, value: Option<Bytes>) {
        self.pending.set(table, key, value);
    }

    /// Bytes committed and not yet handed over.
    pub fn pending_bytes(&self) -> usize {
        self.pending.bytes
    }

    /// Hands what is committed to the writer, with the progress it brings the store to. Waits only
    /// if the writer is too far behind.
    pub fn hand_over(&mut self, progress: Bytes) -> Result<Ticket, StoreError> {
        let writes = self
            .pending
            .iter()
            .map(|(table, key, value)| StoreWrite { table, key: key.clone(), value: value.clone() })
            .collect();
        let ticket = self.store.hand_over(StoreBatch { writes, progress })?;
        self.handed.push_back((ticket, std::mem::take(&mut self.pending)));
        Ok(ticket)
    }

    /// Takes note of what the writer has written since; returns the newest ticket.
    pub fn acknowledge(&mut self) -> Result<Ticket, StoreError> {
        let written = self.store.written()?;
        while self.handed.front().is_some_and(|(ticket, _)| *ticket <= written) {
            let (_, mut layer) = self.handed.pop_front().expect("its front was just seen");
            for (table, key, value) in layer.drain() {
                self.cache.insert(table, key, value);
            }
        }
        Ok(written)
    }

    /// Whether something committed has not been handed over.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether everything handed over is written.
    pub fn is_written(&self) -> bool {
        self.handed.is_empty()
    }

    /// The store underneath.
    pub fn store(&mut self) -> &mut dyn Store {
        &mut *self.store
    }

    /// Closes the store once what was handed over is written.
    pub fn close(self) -> Result<(), StoreError> {
        self.store.close()
    }
}

type Keys<'a> = Peekable<std::collections::btree_map::Range<'a, Bytes, Option<Bytes>>>;

/// The layers' keys of one range, newest layer first, merged as they are visited.
struct Merged<'a> {
    layers: Vec<Keys<'a>>,
}

impl<'a> Merged<'a> {
    fn new(
        layers: impl Iterator<Item = &'a Layer>,
        table: Table,
        (from, to): (&[u8], Option<&[u8]>),
    ) -> Self {
        let empty = to.is_some_and(|to| to <= from);
        let range = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
        let layers = layers
            .filter(|_| !empty)
            .filter_map(|layer| layer.tables.get(usize::from(table.0)))
            .map(|keys| keys.range::<[u8], _>(range).peekable())
            .collect();
        Self { layers }
    }

    /// The smallest key still to come.
    fn smallest(&mut self) -> Option<&'a Bytes> {
        self.layers.iter_mut().filter_map(|keys| keys.peek().map(|(key, _)| *key)).min()
    }

    /// The newest layer's word about `key`, if it stands next in any; passes it in all.
    fn take(&mut self, key: &[u8]) -> Option<&'a Option<Bytes>> {
        let mut found = None;
        for keys in &mut self.layers {
            if let Some((_, value)) = keys.next_if(|(k, _)| &k[..] == key) {
                found = found.or(Some(value));
            }
        }
        found
    }

    /// Visits the live keys before `end`.
    fn below(
        &mut self,
        end: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        while let Some(key) = self.smallest().filter(|key| &key[..] < end) {
            self.visit(key, visit)?;
        }
        ControlFlow::Continue(())
    }

    /// Visits the live keys that are left.
    fn rest(&mut self, visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> ControlFlow<()> {
        while let Some(key) = self.smallest() {
            self.visit(key, visit)?;
        }
        ControlFlow::Continue(())
    }

    fn visit(
        &mut self,
        key: &Bytes,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match self.take(key) {
            Some(Some(value)) => visit(key, value),
            _ => ControlFlow::Continue(()),
        }
    }
}
