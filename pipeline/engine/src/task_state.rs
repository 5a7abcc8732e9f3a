//! A task's state in memory and the store below it.
//!
//! ```text
//! read  ─▶ row in memory   uncommitted: the write of the open transaction, undone if it aborts
//!                          committed:   not yet written, handed to the writer, or in the store
//!          store           as of the newest written batch
//! ```
//!
//! One hash table has every row that is in memory, whatever became of it, so a read costs one
//! lookup. Only rows that the store has leave memory, by second chance: the oldest goes unless it
//! was read since it was last considered. So eviction can't lose a write. An acknowledgement can't
//! hide a newer value: it concerns only rows whose newest commit is in the acknowledged batch.
//!
//! A table that is scanned has its unwritten keys in order as well, from its first scan on.
//!
//! Nothing reaches the store before the log committed it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use crate::port::{KeyRange, Store, StoreBatch, StoreError, StoreWrite, Table, Ticket};

mod rows;

use rows::{CommittedValue, RowIndex, Rows, Uncommitted};

/// Bytes of rows that the store has and that one task may keep in memory.
pub(crate) const CACHE_BYTES: usize = 32 << 20;

/// The uncommitted write that a write of this transaction replaced, to undo one operator's writes.
#[derive(Debug)]
struct Undo {
    row: RowIndex,
    before: Uncommitted,
}

/// A point in a transaction to roll back to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Savepoint(usize);

/// A table's keys that the store does not have in their newest form.
type OrderedKeys = BTreeMap<Box<[u8]>, RowIndex>;

/// A batch that the writer has.
struct HandedBatch {
    ticket: Ticket,
    number: u64,
    rows: Vec<RowIndex>,
}

/// The state of one task.
pub(crate) struct TaskState {
    store: Box<dyn Store>,
    rows: Rows,
    /// By table; only of tables that were scanned.
    ordered: Vec<Option<OrderedKeys>>,
    /// The table whose rows leave memory as soon as they are written.
    uncached: Option<Table>,
    undo: Vec<Undo>,
    /// The rows that the open transaction has written, in order of their first write.
    listed: Vec<RowIndex>,
    uncommitted_bytes: usize,
    /// Committed rows that are not handed over, and their bytes.
    pending: Vec<RowIndex>,
    pending_bytes: usize,
    /// The number of the batch that `pending` becomes.
    batch: u64,
    /// Oldest first.
    handed: VecDeque<HandedBatch>,
    /// The rows that the store has, oldest first, and those that were written since.
    queue: VecDeque<RowIndex>,
    cached_bytes: usize,
    cached_max_bytes: usize,
    /// Keys that scans have passed, removed ones included.
    #[cfg(test)]
    passed: u64,
}

impl TaskState {
    /// An opened store with nothing in memory.
    pub(crate) fn new(store: Box<dyn Store>) -> Self {
        Self::with_cache(store, CACHE_BYTES)
    }

    fn with_cache(store: Box<dyn Store>, bytes: usize) -> Self {
        Self {
            store,
            rows: Rows::default(),
            ordered: Vec::new(),
            uncached: None,
            undo: Vec::new(),
            listed: Vec::new(),
            uncommitted_bytes: 0,
            pending: Vec::new(),
            pending_bytes: 0,
            batch: 1,
            handed: VecDeque::new(),
            queue: VecDeque::new(),
            cached_bytes: 0,
            cached_max_bytes: bytes,
            #[cfg(test)]
            passed: 0,
        }
    }

    /// Keeps rows of a table in memory only until they are written: for keys that are rarely read
    /// twice.
    pub(crate) fn without_cache(mut self, table: Table) -> Self {
        self.uncached = Some(table);
        self
    }

    /// Hashes keys with this seed, before the first one is there.
    pub(crate) fn with_hash_seed(mut self, seed: u64) -> Self {
        self.rows.seed = seed;
        self
    }

    /// The seed of hashes of keys.
    pub(crate) fn hash_seed(&self) -> u64 {
        self.rows.seed
    }

    /// The current value, writes of the open transaction included.
    pub(crate) fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let found = self.rows.find(table, key);
        if let Some(at) = found {
            let row = &mut self.rows[at];
            row.is_referenced = true;
            if let CommittedValue::Known(value) = row.newest() {
                return Ok(value);
            }
        }
        let value = self.store.get(table, key)?;
        if self.uncached != Some(table) {
            let at = found.unwrap_or_else(|| self.rows.find_or_add(table, key));
            self.rows[at].committed = CommittedValue::Known(value.clone());
            self.cache(at);
            self.evict();
        }
        Ok(value)
    }

    /// Sets a key in this transaction, or removes it (`None`).
    pub(crate) fn put(&mut self, table: Table, key: &[u8], value: Option<Bytes>) {
        let at = self.rows.find_or_add(table, key);
        let before = self.replace(at, Some(value));
        self.undo.push(Undo { row: at, before });
        let row = &mut self.rows[at];
        if !std::mem::replace(&mut row.is_listed, true) {
            self.listed.push(at);
        }
        self.order(at);
    }

    /// Replaces a row's uncommitted write.
    fn replace(&mut self, at: RowIndex, write: Uncommitted) -> Uncommitted {
        let row = &mut self.rows[at];
        self.uncommitted_bytes -= row.uncommitted_bytes();
        let before = std::mem::replace(&mut row.uncommitted, write);
        self.uncommitted_bytes += row.uncommitted_bytes();
        before
    }

    /// Visits the live keys of a range in order, writes of the open transaction included.
    pub(crate) fn scan(
        &mut self,
        table: Table,
        range: KeyRange<'_>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.keep_ordered(table);
        let keys = self.ordered[usize::from(table.0)].as_ref().expect("it was just made");
        let mut memory = UnwrittenKeys::new(&self.rows, keys, range);
        let mut stopped = false;
        self.store.scan(table, range, &mut |key, value| {
            let mut flow = memory.below(key, visit);
            if flow.is_continue() {
                flow = match memory.take(key) {
                    CommittedValue::Known(Some(newer)) => visit(key, &newer),
                    CommittedValue::Known(None) => ControlFlow::Continue(()),
                    CommittedValue::Unknown => visit(key, value),
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

    /// How many keys scans have passed, those included that memory removes.
    #[cfg(test)]
    pub(crate) fn passed(&self) -> u64 {
        self.passed
    }

    /// The current point of the transaction.
    pub(crate) fn savepoint(&self) -> Savepoint {
        Savepoint(self.undo.len())
    }

    /// Undoes the writes since `savepoint`.
    pub(crate) fn roll_back(&mut self, savepoint: Savepoint) {
        for undo in self.undo.split_off(savepoint.0).into_iter().rev() {
            self.replace(undo.row, undo.before);
        }
    }

    /// This transaction's writes, each key once, in the order of their first writes. That order
    /// follows from what the task has processed, like the writes themselves.
    pub(crate) fn writes(&self) -> impl Iterator<Item = (Table, &[u8], Option<&Bytes>)> {
        self.listed.iter().filter_map(|at| {
            let row = &self.rows[*at];
            let value = row.uncommitted.as_ref()?;
            Some((row.table, &row.key[..], value.as_ref()))
        })
    }

    /// Promotes the transaction's writes once the log has committed it.
    pub(crate) fn apply(&mut self) {
        for at in self.end_transaction() {
            if let Some(value) = self.rows[at].uncommitted.take() {
                self.commit(at, value);
            } else {
                self.release(at);
            }
        }
    }

    /// Drops the transaction's writes; the log did not commit it.
    pub(crate) fn discard(&mut self) {
        for at in self.end_transaction() {
            self.rows[at].uncommitted = None;
            self.release(at);
        }
    }

    fn end_transaction(&mut self) -> Vec<RowIndex> {
        self.undo.clear();
        self.uncommitted_bytes = 0;
        let listed = std::mem::take(&mut self.listed);
        for at in &listed {
            self.rows[*at].is_listed = false;
        }
        listed
    }

    /// Adds a write that a changelog holds, during a restore.
    pub(crate) fn restore(&mut self, table: Table, key: &[u8], value: Option<Bytes>) {
        let at = self.rows.find_or_add(table, key);
        self.commit(at, value);
        self.order(at);
    }

    /// Replaces a row's committed value, which is to be written.
    fn commit(&mut self, at: RowIndex, value: Option<Bytes>) {
        self.uncache(at);
        let row = &mut self.rows[at];
        if row.unwritten == self.batch {
            self.pending_bytes -= row.pending_bytes();
        } else {
            row.unwritten = self.batch;
            self.pending.push(at);
        }
        row.committed = CommittedValue::Known(value);
        self.pending_bytes += row.pending_bytes();
    }

    /// Bytes of the open transaction's writes.
    pub(crate) fn uncommitted_bytes(&self) -> usize {
        self.uncommitted_bytes
    }

    /// Bytes that are committed and not yet handed over.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Hands the committed writes to the writer, with the progress they bring the store to. Blocks
    /// only if the writer is too far behind.
    pub(crate) fn hand_over(&mut self, progress: Bytes) -> Result<Ticket, StoreError> {
        let writes = self
            .pending
            .iter()
            .map(|at| {
                let row = &self.rows[*at];
                let key = Bytes::copy_from_slice(&row.key);
                let CommittedValue::Known(value) = &row.committed else {
                    unreachable!("a commit says the value");
                };
                StoreWrite { table: row.table, key, value: value.clone() }
            })
            .collect();
        let ticket = self.store.hand_over(StoreBatch { writes, progress })?;
        let rows = std::mem::take(&mut self.pending);
        self.handed.push_back(HandedBatch { ticket, number: self.batch, rows });
        self.pending_bytes = 0;
        self.batch += 1;
        Ok(ticket)
    }

    /// Lets rows that the writer has written leave memory; returns the newest written ticket.
    pub(crate) fn acknowledge(&mut self) -> Result<Ticket, StoreError> {
        let written = self.store.written()?;
        while self.handed.front().is_some_and(|batch| batch.ticket <= written) {
            let HandedBatch { number, rows, .. } = self.handed.pop_front().expect("it was seen");
            for at in rows {
                if self.rows[at].unwritten == number {
                    self.rows[at].unwritten = 0;
                    self.release(at);
                }
            }
        }
        self.evict();
        Ok(written)
    }

    /// Whether committed writes wait to be handed over.
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The store underneath.
    pub(crate) fn store(&mut self) -> &mut dyn Store {
        &mut *self.store
    }

    /// Waits until everything handed over is written, and closes the store.
    pub(crate) fn close(self) -> Result<(), StoreError> {
        self.store.close()
    }

    /// Lets a row leave memory, at once or by eviction, unless something still needs it there.
    fn release(&mut self, at: RowIndex) {
        let row = &self.rows[at];
        if row.is_listed || row.is_dirty() {
            return;
        }
        self.unorder(at);
        let row = &self.rows[at];
        if row.committed == CommittedValue::Unknown || self.uncached == Some(row.table) {
            self.rows.remove(at);
        } else {
            self.cache(at);
        }
    }
}

/// The rows that the store has.
impl TaskState {
    /// Counts a row among those that the store has.
    fn cache(&mut self, at: RowIndex) {
        let row = &mut self.rows[at];
        if row.unwritten > 0 || std::mem::replace(&mut row.is_cached, true) {
            return;
        }
        self.cached_bytes += row.bytes();
        if !std::mem::replace(&mut row.is_queued, true) {
            self.queue.push_back(at);
        }
    }

    /// Counts it no longer.
    fn uncache(&mut self, at: RowIndex) {
        let row = &mut self.rows[at];
        if std::mem::take(&mut row.is_cached) {
            self.cached_bytes -= row.bytes();
        }
    }

    /// Removes rows until those that the store has fit. Rows that the open transaction has written
    /// stay: it needs them all, and it is bounded.
    fn evict(&mut self) {
        let mut left = 2 * self.queue.len();
        while self.cached_bytes > self.cached_max_bytes && left > 0 {
            let Some(at) = self.queue.pop_front() else { break };
            left -= 1;
            let row = &mut self.rows[at];
            if !row.is_cached {
                // It was written since; its acknowledgement queues it again.
                row.is_queued = false;
            } else if row.is_listed || std::mem::take(&mut row.is_referenced) {
                self.queue.push_back(at);
            } else {
                self.uncache(at);
                self.rows.remove(at);
            }
        }
    }
}

/// The order of unwritten keys.
impl TaskState {
    /// Keeps the unwritten keys of a table in order from now on.
    fn keep_ordered(&mut self, table: Table) {
        let slot = usize::from(table.0);
        if self.ordered.len() <= slot {
            self.ordered.resize_with(slot + 1, || None);
        }
        if self.ordered[slot].is_some() {
            return;
        }
        let dirty = |at: &RowIndex| self.rows[*at].is_dirty() || self.rows[*at].is_listed;
        let rows: Vec<RowIndex> = self.rows.of_table(table).filter(dirty).collect();
        self.ordered[slot] = Some(OrderedKeys::new());
        rows.into_iter().for_each(|at| self.order(at));
    }

    /// Adds a row to the ordered keys of its table, if that is scanned.
    fn order(&mut self, at: RowIndex) {
        let row = &mut self.rows[at];
        if row.is_ordered {
            return;
        }
        if let Some(Some(keys)) = self.ordered.get_mut(usize::from(row.table.0)) {
            row.is_ordered = true;
            keys.insert(row.key.clone(), at);
        }
    }

    fn unorder(&mut self, at: RowIndex) {
        let row = &mut self.rows[at];
        if std::mem::take(&mut row.is_ordered)
            && let Some(Some(keys)) = self.ordered.get_mut(usize::from(row.table.0))
        {
            keys.remove(&row.key);
        }
    }
}

/// The unwritten keys of one range, as they are visited.
struct UnwrittenKeys<'a> {
    rows: &'a Rows,
    keys: std::iter::Peekable<std::collections::btree_map::Range<'a, Box<[u8]>, RowIndex>>,
    #[cfg(test)]
    passed: u64,
}

impl<'a> UnwrittenKeys<'a> {
    fn new(rows: &'a Rows, keys: &'a OrderedKeys, range: KeyRange<'_>) -> Self {
        let KeyRange { from, to } = range;
        // An empty range, since `BTreeMap::range` panics if its end is before its beginning.
        let to = to.map(|to| to.max(from));
        let bounds = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
        Self {
            rows,
            keys: keys.range::<[u8], _>(bounds).peekable(),
            #[cfg(test)]
            passed: 0,
        }
    }

    /// The newest value of `key`, if it is next; skips it.
    fn take(&mut self, key: &[u8]) -> CommittedValue {
        #[cfg(test)]
        {
            self.passed += 1;
        }
        match self.keys.next_if(|(next, _)| ***next == *key) {
            Some((_, at)) => self.rows[*at].newest(),
            None => CommittedValue::Unknown,
        }
    }

    /// Visits the live keys before `end`.
    fn below(
        &mut self,
        end: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        while let Some((key, _)) = self.keys.peek()
            && ***key < *end
        {
            self.next(visit)?;
        }
        ControlFlow::Continue(())
    }

    /// Visits the remaining live keys.
    fn rest(&mut self, visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> ControlFlow<()> {
        while self.keys.peek().is_some() {
            self.next(visit)?;
        }
        ControlFlow::Continue(())
    }

    fn next(&mut self, visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> ControlFlow<()> {
        #[cfg(test)]
        {
            self.passed += 1;
        }
        match self.keys.next().map(|(key, at)| (key, self.rows[*at].newest())) {
            Some((key, CommittedValue::Known(Some(value)))) => visit(key, &value),
            _ => ControlFlow::Continue(()),
        }
    }
}

#[cfg(test)]
mod tests;
