//! The rows of a task's state that are in memory: one hash table over all tables of state.
//!
//! A row keeps its place, a [`RowIndex`], until it is removed; lists of rows are lists of places.
//! The hash has a seed, random in production: otherwise anybody could choose keys of events that
//! share a hash, which makes each look-up slow. Nothing but time depends on it, since whatever
//! iterates the table puts what it finds in order.

use bytes::Bytes;
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::port::Table;

/// Bytes of a row beyond its key and value: the row, its places in the table and in lists, and what
/// the allocator adds.
pub(super) const ROW_BYTES: usize = 192;

/// Bytes of a write beyond its key and value: what a record of the changelog adds.
const WRITE_BYTES: usize = 96;

/// The place of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowIndex(u32);

/// What is known of a key as of the last commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CommittedValue {
    /// Nothing: it was written without being read.
    Unknown,
    /// The value; `None`: there is no such key.
    Known(Option<Bytes>),
}

/// A write of the open transaction; `None` removes the key.
pub(super) type Uncommitted = Option<Option<Bytes>>;

/// A key in memory.
#[derive(Debug)]
pub(super) struct Row {
    hash: u64,
    pub(super) table: Table,
    pub(super) key: Box<[u8]>,
    /// The write of the open transaction, if there is one.
    pub(super) uncommitted: Uncommitted,
    pub(super) committed: CommittedValue,
    /// The number of the batch with which the committed value is written to the store; 0: the store
    /// has it.
    pub(super) unwritten: u64,
    /// Whether the open transaction lists it among the rows it has written.
    pub(super) is_listed: bool,
    /// Whether it counts among the rows that the store has.
    pub(super) is_cached: bool,
    /// Whether the queue of eviction lists it.
    pub(super) is_queued: bool,
    /// Whether the ordered keys of its table have it.
    pub(super) is_ordered: bool,
    /// Read since eviction last considered it.
    pub(super) is_referenced: bool,
}

impl Row {
    /// The current value; `Unknown` if the store has to be asked.
    pub(super) fn newest(&self) -> CommittedValue {
        match &self.uncommitted {
            Some(value) => CommittedValue::Known(value.clone()),
            None => self.committed.clone(),
        }
    }

    /// Whether it differs from what the store has, or may.
    pub(super) fn is_dirty(&self) -> bool {
        self.uncommitted.is_some() || self.unwritten > 0
    }

    /// Bytes in memory, without an uncommitted value.
    pub(super) fn bytes(&self) -> usize {
        ROW_BYTES + self.key.len() + self.committed_bytes()
    }

    /// Bytes of the committed value as a write.
    pub(super) fn pending_bytes(&self) -> usize {
        WRITE_BYTES + self.key.len() + self.committed_bytes()
    }

    /// Bytes of the uncommitted write.
    pub(super) fn uncommitted_bytes(&self) -> usize {
        match &self.uncommitted {
            Some(value) => WRITE_BYTES + self.key.len() + value.as_ref().map_or(0, Bytes::len),
            None => 0,
        }
    }

    fn committed_bytes(&self) -> usize {
        match &self.committed {
            CommittedValue::Known(Some(value)) => value.len(),
            _ => 0,
        }
    }
}

/// All rows in memory.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) seed: u64,
    index: HashTable<RowIndex>,
    rows: Vec<Row>,
    free: Vec<RowIndex>,
}

impl Rows {
    /// The place of a key.
    pub(super) fn find(&self, table: Table, key: &[u8]) -> Option<RowIndex> {
        let (rows, hash) = (&self.rows, self.hash_of(table, key));
        self.index.find(hash, |at| rows[at.0 as usize].is(table, key)).copied()
    }

    /// The place of a key, which is added if it is new.
    pub(super) fn find_or_add(&mut self, table: Table, key: &[u8]) -> RowIndex {
        let hash = self.hash_of(table, key);
        let Self { index, rows, free, .. } = self;
        if let Some(at) = index.find(hash, |at| rows[at.0 as usize].is(table, key)) {
            return *at;
        }
        let row = Row {
            hash,
            table,
            key: key.into(),
            uncommitted: None,
            committed: CommittedValue::Unknown,
            unwritten: 0,
            is_listed: false,
            is_cached: false,
            is_queued: false,
            is_ordered: false,
            is_referenced: false,
        };
        let at = match free.pop() {
            Some(at) => {
                rows[at.0 as usize] = row;
                at
            }
            None => {
                rows.push(row);
                RowIndex(u32::try_from(rows.len() - 1).expect("rows in memory are bounded"))
            }
        };
        index.insert_unique(hash, at, |at| rows[at.0 as usize].hash);
        at
    }

    /// Forgets a row. No list may have it.
    pub(super) fn remove(&mut self, at: RowIndex) {
        let row = &mut self.rows[at.0 as usize];
        let found = self.index.find_entry(row.hash, |other| *other == at);
        found.expect("the hash table has every row").remove();
        row.key = Box::default();
        row.uncommitted = None;
        row.committed = CommittedValue::Unknown;
        self.free.push(at);
    }

    /// The places of a table's rows, in no particular order.
    pub(super) fn of_table(&self, table: Table) -> impl Iterator<Item = RowIndex> + '_ {
        let rows = &self.rows;
        self.index.iter().copied().filter(move |at| rows[at.0 as usize].table == table)
    }

    pub(super) fn hash_of(&self, table: Table, key: &[u8]) -> u64 {
        xxh3_64_with_seed(key, self.seed.wrapping_add(u64::from(table.0)))
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }
}

impl std::ops::Index<RowIndex> for Rows {
    type Output = Row;

    fn index(&self, at: RowIndex) -> &Row {
        &self.rows[at.0 as usize]
    }
}

impl std::ops::IndexMut<RowIndex> for Rows {
    fn index_mut(&mut self, at: RowIndex) -> &mut Row {
        &mut self.rows[at.0 as usize]
    }
}

impl Row {
    fn is(&self, table: Table, key: &[u8]) -> bool {
        self.table == table && *self.key == *key
    }
}
