//! A task's state in layers: uncommitted writes, committed ones, a read cache, and the store below.
//!
//! ```text
//! read  ─▶ overlay    writes of the open transaction, undone if it aborts
//!          pending    committed, not yet handed to the writer
//!          handed     handed over, not yet known to be written; a layer per batch
//!          cache      clean: copies of what the store holds, missing keys included; evicts
//!          store      as of the newest written batch
//! ```
//!
//! Values that the store does not have yet live in layers that evict nothing; only the cache below
//! them evicts. So eviction can't lose a write. An acknowledgement moves the oldest handed layer
//! into the cache and can't hide a newer value, because a newer value is in a layer above.
//!
//! Nothing reaches the store before the log committed it.

use std::collections::{BTreeMap, VecDeque};
use std::iter::Peekable;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use crate::cache::ReadCache;
use crate::port::{KeyRange, Store, StoreBatch, StoreError, StoreWrite, Table, Ticket};

/// Bytes the read cache of one task may hold.
pub const CACHE_BYTES: usize = 32 << 20;

/// Overhead of a key in a layer beyond its own and its value's length.
const ENTRY_BYTES: usize = 96;

/// One layer, by table number, then by key. `None` as a value is a removal.
#[derive(Debug, Default)]
struct Layer {
    tables: Vec<BTreeMap<Bytes, Option<Bytes>>>,
    bytes: usize,
}

impl Layer {
    fn find(&self, table: Table, key: &[u8]) -> Option<&Option<Bytes>> {
        self.tables.get(usize::from(table.0))?.get(key)
    }

    /// Sets a key and returns this layer's former entry.
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

/// The entry that a write of this transaction replaced, to undo one operator's writes.
#[derive(Debug)]
struct Undo {
    table: Table,
    key: Bytes,
    before: Option<Option<Bytes>>,
}

/// A point in a transaction to roll back to.
#[derive(Clone, Copy, Debug)]
pub struct Savepoint(usize);

/// The state of one task.
pub struct TaskState {
    store: Box<dyn Store>,
    overlay: Layer,
    undo: Vec<Undo>,
    pending: Layer,
    /// Oldest first.
    handed: VecDeque<(Ticket, Layer)>,
    cache: ReadCache,
    /// Keys that scans have passed, removed ones included.
    #[cfg(test)]
    passed: u64,
}

impl TaskState {
    /// Layers over an opened store.
    pub fn new(store: Box<dyn Store>) -> Self {
        Self::with_cache(store, CACHE_BYTES)
    }

    fn with_cache(store: Box<dyn Store>, bytes: usize) -> Self {
        Self {
            store,
            overlay: Layer::default(),
            undo: Vec::new(),
            pending: Layer::default(),
            handed: VecDeque::new(),
            cache: ReadCache::new(bytes),
            #[cfg(test)]
            passed: 0,
        }
    }

    /// The current value, writes of the open transaction included.
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

    /// Sets a key in this transaction, or removes it (`None`).
    pub fn put(&mut self, table: Table, key: Bytes, value: Option<Bytes>) {
        let before = self.overlay.set(table, key.clone(), value);
        self.undo.push(Undo { table, key, before });
    }

    /// Visits the live keys of a range in order, writes of the open transaction included.
    pub fn scan(
        &mut self,
        table: Table,
        range: KeyRange<'_>,
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
        #[cfg(test)]
        {
            self.passed += memory.passed;
        }
        Ok(())
    }

    /// How many keys scans have passed, those included that a layer removes.
    #[cfg(test)]
    pub(crate) fn passed(&self) -> u64 {
        self.passed
    }

    /// The current point of the transaction.
    pub fn savepoint(&self) -> Savepoint {
        Savepoint(self.undo.len())
    }

    /// Undoes the writes since `savepoint`.
    pub fn roll_back(&mut self, savepoint: Savepoint) {
        for undo in self.undo.drain(savepoint.0..).rev() {
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

    /// Promotes the transaction's writes once the log has committed it.
    pub fn apply(&mut self) {
        self.undo.clear();
        for (table, key, value) in self.overlay.drain() {
            self.pending.set(table, key, value);
        }
    }

    /// Drops the transaction's writes; the log did not commit it.
    pub fn discard(&mut self) {
        self.undo.clear();
        self.overlay = Layer::default();
    }

    /// Adds a write that a changelog holds, during a restore.
    pub fn restore(&mut self, table: Table, key: Bytes, value: Option<Bytes>) {
        self.pending.set(table, key, value);
    }

    /// Bytes of the open transaction's writes.
    pub fn uncommitted_bytes(&self) -> usize {
        self.overlay.bytes
    }

    /// Bytes that are committed and not yet handed over.
    pub fn pending_bytes(&self) -> usize {
        self.pending.bytes
    }

    /// Hands the committed writes to the writer, with the progress they bring the store to. Blocks
    /// only if the writer is too far behind.
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

    /// Moves layers that the writer has written into the cache; returns the newest written ticket.
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

    /// Whether committed writes wait to be handed over.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The store underneath.
    pub fn store(&mut self) -> &mut dyn Store {
        &mut *self.store
    }

    /// Waits until everything handed over is written, and closes the store.
    pub fn close(self) -> Result<(), StoreError> {
        self.store.close()
    }
}

type LayerKeys<'a> = Peekable<std::collections::btree_map::Range<'a, Bytes, Option<Bytes>>>;

/// The layers' keys of one range, newest layer first, merged as they are visited.
struct Merged<'a> {
    layers: Vec<LayerKeys<'a>>,
    #[cfg(test)]
    passed: u64,
}

impl<'a> Merged<'a> {
    fn new(layers: impl Iterator<Item = &'a Layer>, table: Table, range: KeyRange<'_>) -> Self {
        let KeyRange { from, to } = range;
        let empty = to.is_some_and(|to| to <= from);
        let range = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
        let layers = layers
            .filter(|_| !empty)
            .filter_map(|layer| layer.tables.get(usize::from(table.0)))
            .map(|keys| keys.range::<[u8], _>(range).peekable())
            .collect();
        Self {
            layers,
            #[cfg(test)]
            passed: 0,
        }
    }

    /// The smallest key not yet visited.
    fn smallest(&mut self) -> Option<&'a Bytes> {
        self.layers.iter_mut().filter_map(|keys| keys.peek().map(|(key, _)| *key)).min()
    }

    /// The newest layer's entry for `key`, if it is next in any layer; skips it in all.
    fn take(&mut self, key: &[u8]) -> Option<&'a Option<Bytes>> {
        #[cfg(test)]
        {
            self.passed += 1;
        }
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

    /// Visits the remaining live keys.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Millis;
    use proptest::prelude::*;
    use std::sync::{Arc, Mutex};

    const T: Table = Table(2);

    /// A store whose writer writes only when the test calls it.
    #[derive(Clone, Default)]
    struct SlowStore(Arc<Mutex<SlowDisk>>);

    #[derive(Default)]
    struct SlowDisk {
        data: BTreeMap<Bytes, Bytes>,
        waiting: VecDeque<StoreBatch>,
        written: u64,
    }

    impl SlowStore {
        fn write_one(&self) {
            let mut disk = self.0.lock().expect("one thread");
            if let Some(batch) = disk.waiting.pop_front() {
                for write in batch.writes {
                    match write.value {
                        Some(value) => drop(disk.data.insert(write.key, value)),
                        None => drop(disk.data.remove(&write.key)),
                    }
                }
                disk.written += 1;
            }
        }
    }

    impl Store for SlowStore {
        fn get(&mut self, _: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
            Ok(self.0.lock().expect("one thread").data.get(key).cloned())
        }

        fn scan(
            &mut self,
            _: Table,
            KeyRange { from, to }: KeyRange<'_>,
            visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
        ) -> Result<(), StoreError> {
            for (key, value) in &self.0.lock().expect("one thread").data {
                let within = &key[..] >= from && to.is_none_or(|to| &key[..] < to);
                if within && visit(key, value).is_break() {
                    break;
                }
            }
            Ok(())
        }

        fn hand_over(&mut self, batch: StoreBatch) -> Result<Ticket, StoreError> {
            let mut disk = self.0.lock().expect("one thread");
            disk.waiting.push_back(batch);
            Ok(Ticket(disk.written + disk.waiting.len() as u64))
        }

        fn written(&mut self) -> Result<Ticket, StoreError> {
            Ok(Ticket(self.0.lock().expect("one thread").written))
        }

        fn progress(&mut self) -> Result<Option<Bytes>, StoreError> {
            Ok(None)
        }

        fn set_horizon(&mut self, _: Table, _: Millis) -> Result<(), StoreError> {
            Ok(())
        }

        fn close(self: Box<Self>) -> Result<(), StoreError> {
            Ok(())
        }
    }

    #[derive(Clone, Debug)]
    enum StateOp {
        Put(u8, Option<u8>),
        Apply,
        Discard,
        HandOver,
        Write,
        Acknowledge,
        /// Three writes that are rolled back.
        Undone(u8, u8),
    }

    fn step() -> impl Strategy<Value = StateOp> {
        let key = 0..12u8;
        prop_oneof![
            8 => (key.clone(), any::<Option<u8>>()).prop_map(|(k, v)| StateOp::Put(k, v)),
            4 => Just(StateOp::Apply),
            1 => Just(StateOp::Discard),
            3 => Just(StateOp::HandOver),
            3 => Just(StateOp::Write),
            3 => Just(StateOp::Acknowledge),
            2 => (key.clone(), key).prop_map(|(a, b)| StateOp::Undone(a, b)),
        ]
    }

    fn key(k: u8) -> Bytes {
        vec![b'k', k].into()
    }

    fn value(v: u8) -> Bytes {
        vec![v; 9].into()
    }

    type Model = BTreeMap<Bytes, Bytes>;

    fn set(model: &mut Model, k: u8, v: Option<u8>) {
        match v {
            Some(v) => drop(model.insert(key(k), value(v))),
            None => drop(model.remove(&key(k))),
        }
    }

    fn agree(state: &mut TaskState, model: &Model) {
        for k in 0..12 {
            let got = state.get(T, &key(k)).expect("no faults");
            assert_eq!(got.as_ref(), model.get(&key(k)), "key {k}");
        }
        for (from, to) in [(0, None), (3, Some(9)), (5, Some(5)), (7, None)] {
            let mut got = Vec::new();
            let end = to.map(key);
            state
                .scan(T, KeyRange { from: &key(from), to: end.as_deref() }, &mut |key, value| {
                    got.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
                    ControlFlow::Continue(())
                })
                .expect("no faults");
            let within = |k: &Bytes| *k >= key(from) && end.as_ref().is_none_or(|end| k < end);
            let wanted: Vec<_> = model.clone().into_iter().filter(|(key, _)| within(key)).collect();
            assert_eq!(got, wanted, "{from}..{to:?}");
        }
    }

    proptest! {
        /// A task reads what it wrote, whatever the writer has written and the cache evicted.
        #[test]
        fn the_layers_read_as_one_map(steps in proptest::collection::vec(step(), 0..120)) {
            let disk = SlowStore::default();
            // The limit fits three entries, so that the cache evicts all the time.
            let mut state = TaskState::with_cache(Box::new(disk.clone()), 600);
            let (mut committed, mut now) = (Model::new(), Model::new());
            for step in steps {
                match step {
                    StateOp::Put(k, v) => {
                        state.put(T, key(k), v.map(value));
                        set(&mut now, k, v);
                    }
                    StateOp::Apply => {
                        state.apply();
                        committed.clone_from(&now);
                    }
                    StateOp::Discard => {
                        state.discard();
                        now.clone_from(&committed);
                    }
                    StateOp::HandOver => drop(state.hand_over(Bytes::new()).expect("no faults")),
                    StateOp::Write => disk.write_one(),
                    StateOp::Acknowledge => drop(state.acknowledge().expect("no faults")),
                    StateOp::Undone(a, b) => {
                        let savepoint = state.savepoint();
                        state.put(T, key(a), Some(value(1)));
                        state.put(T, key(b), None);
                        state.put(T, key(a), None);
                        state.roll_back(savepoint);
                    }
                }
                agree(&mut state, &now);
            }
        }
    }
}
