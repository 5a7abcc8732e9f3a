//! Recognises ADMIT's second copies of a record by the record's offset in the input.
//!
//! ADMIT appends a batch to the lanes and then commits its offsets. A process that replaces it
//! begins at the committed offset and appends what the first one had appended already. Such a copy
//! can come after any time, so the window of event ids does not find it; its offset does.
//!
//! A record is a copy if exactly its offset was taken from this lane before. An offset below the
//! highest one taken is not enough, because a *first* occurrence can come later than a record with
//! a higher offset:
//!
//! * a permanent error of the broker can fail a record and accept the ones after it, before ADMIT
//!   appends all of them again;
//! * two builds, or two states of the schema registry, can send a record to different lanes: the
//!   first process appended 6 here and failed before it appended 5 elsewhere, and the second one
//!   appends 5 here;
//! * an administrator can move ADMIT's committed offsets on, and back later.
//!
//! So a row keeps the offsets that were taken, and it stays small because each record says how far
//! ADMIT had delivered and committed when it wrote it ([`VerdictSource::delivered_to`]). All before
//! that is in the lanes before this record, so it was taken already, and a range is enough for it.
//! The range begins where that process began to read: what an administrator skipped is not in it.
//!
//! ```text
//! table 2  lane, 1 byte · input, 1 byte · partition of the input, 4 bytes big-endian → a row
//!
//! row, version 1 (`n` unsigned LEB128, `u64` big-endian):
//! 01 · id of the input's topic u64 · delivered from n · delivered to minus from n
//! · taken: count n, then each offset minus the one before it n (the first: as it is)
//! ```
//!
//! The first record of an input that was created again empties the row, since its offsets start
//! again. A row that forgets an offset loses nothing: the copy is then found by its event id, if it
//! comes within the window.
//!
//! A task keeps its rows decoded and writes those that changed once per transaction. A row that
//! can't be decoded ends the process: without it a copy would be delivered.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::derive::encoding::FieldDecoder;
use crate::derive::table_decl::{Changelog, TableDecl};
use crate::overlay::TaskState;
use crate::port::{StoreError, Table, TableExpiry, TableSpec};
use crate::record::put_varint;
use crate::topology::Lane;
use crate::value_level::ValueLevel;
use crate::verdict::{TopicId, VerdictSource};

/// The only version. Another one is to be written from a value level on, as those of a
/// [`StoreValue`](crate::derive::stores::StoreValue), which the declaration of the table then names.
const VERSION: u8 = 1;

/// The table of rows.
pub const SOURCES: Table = Table(2);

/// The declaration of the table.
pub(super) const SOURCES_DECL: TableDecl = TableDecl {
    spec: TableSpec { table: SOURCES, name: "sources", expiry: TableExpiry::Never },
    changelog: Changelog::State,
    window_ms: 0,
    level: ValueLevel::FIRST,
};

/// Offsets above the delivered range that a row keeps: twice what ADMIT takes of a partition
/// before it commits. The lowest ones are forgotten.
const TAKEN_MAX: usize = 4_096;

/// Whether a record was taken before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occurrence {
    /// It is taken for the first time.
    First,
    /// It is a copy of one that was taken.
    Copy,
}

/// The offsets of one partition of an input that were taken from one lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenOffsets {
    topic: TopicId,
    /// All offsets from here up to `to` were delivered.
    from: u64,
    to: u64,
    /// Those taken from `to` on, ascending.
    taken: VecDeque<u64>,
}

impl TakenOffsets {
    /// Takes a record; `First` if that was not done before. A copy changes nothing.
    fn take(&mut self, source: &VerdictSource) -> Occurrence {
        let offset = source.offset.0;
        if self.topic != source.topic {
            *self = Self { topic: source.topic, ..Self::default() };
        } else if self.contains(offset) {
            return Occurrence::Copy;
        }
        self.deliver(source.delivered_from.0, source.delivered_to.0);
        let at = self.taken.partition_point(|taken| *taken < offset);
        self.taken.insert(at, offset);
        if self.taken.len() > TAKEN_MAX {
            self.taken.pop_front();
        }
        Occurrence::First
    }

    /// Adds a range that was delivered, unless it is older than the known one and apart from it.
    fn deliver(&mut self, from: u64, to: u64) {
        if from >= to || to < self.from {
            return;
        }
        if from > self.to {
            (self.from, self.to) = (from, to);
        } else {
            (self.from, self.to) = (self.from.min(from), self.to.max(to));
        }
        while self.taken.front().is_some_and(|first| *first < self.to) {
            self.taken.pop_front();
        }
    }

    /// Whether a record with this offset is a copy.
    pub fn contains(&self, offset: u64) -> bool {
        (self.from..self.to).contains(&offset) || self.taken.binary_search(&offset).is_ok()
    }

    /// The topic whose offsets these are.
    pub fn topic(&self) -> TopicId {
        self.topic
    }

    /// The offsets that are kept one by one, ascending.
    pub fn taken(&self) -> impl Iterator<Item = u64> {
        self.taken.iter().copied()
    }

    /// Encodes the row.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(24 + 2 * self.taken.len());
        out.push(VERSION);
        out.extend_from_slice(&self.topic.0.to_be_bytes());
        put_varint(&mut out, self.from);
        put_varint(&mut out, self.to - self.from);
        put_varint(&mut out, self.taken.len() as u64);
        let mut before = 0;
        for offset in &self.taken {
            put_varint(&mut out, offset - before);
            before = *offset;
        }
        out.into()
    }

    /// Decodes a row; `None` if the bytes are not one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = FieldDecoder(bytes);
        if from.byte()? != VERSION {
            return None;
        }
        let topic = TopicId(from.u64()?);
        let delivered_from = from.varint()?;
        let to = delivered_from.checked_add(from.varint()?)?;
        let count = from.count(1).filter(|count| *count <= TAKEN_MAX)?;
        let mut taken = VecDeque::with_capacity(count);
        let mut before = 0u64;
        for n in 0..count {
            let more = from.varint().filter(|more| n == 0 || *more > 0)?;
            before = before.checked_add(more)?;
            taken.push_back(before);
        }
        from.end()?;
        Some(Self { topic, from: delivered_from, to, taken })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct RowKey {
    lane: u8,
    input: u8,
    partition: u32,
}

impl RowKey {
    fn encode(self) -> Bytes {
        let [a, b, c, d] = self.partition.to_be_bytes();
        Bytes::copy_from_slice(&[self.lane, self.input, a, b, c, d])
    }
}

#[derive(Debug)]
struct CachedRow {
    row: TakenOffsets,
    /// Whether it differs from what the state has.
    changed: bool,
}

/// The rows of a task that were used since its start or its last abort: at most one for each lane
/// and partition of an input.
#[derive(Debug, Default)]
pub(super) struct SourceOffsets {
    rows: BTreeMap<RowKey, CachedRow>,
}

impl SourceOffsets {
    /// Takes a record of a lane.
    pub(super) fn take(
        &mut self,
        state: &mut TaskState,
        lane: Lane,
        source: &VerdictSource,
    ) -> Result<Occurrence, StoreError> {
        let (input, partition) = (source.input, source.partition.0);
        let key = RowKey { lane: lane.number(), input, partition };
        let cached = match self.rows.entry(key) {
            std::collections::btree_map::Entry::Occupied(row) => row.into_mut(),
            std::collections::btree_map::Entry::Vacant(none) => {
                let row = load(state, key)?;
                none.insert(CachedRow { row, changed: false })
            }
        };
        let occurrence = cached.row.take(source);
        cached.changed |= occurrence == Occurrence::First;
        Ok(occurrence)
    }

    /// Writes the rows that changed in this transaction.
    pub(super) fn write(&mut self, state: &mut TaskState) {
        for (key, cached) in &mut self.rows {
            if std::mem::take(&mut cached.changed) {
                state.put(SOURCES, key.encode(), Some(cached.row.encode()));
            }
        }
    }

    /// Forgets the rows; they are read from the state again.
    pub(super) fn discard(&mut self) {
        self.rows.clear();
    }
}

fn load(state: &mut TaskState, key: RowKey) -> Result<TakenOffsets, StoreError> {
    let Some(stored) = state.get(SOURCES, &key.encode())? else {
        return Ok(TakenOffsets::default());
    };
    TakenOffsets::decode(&stored).ok_or_else(|| StoreError {
        message: format!(
            "a row of table {} can't be decoded: it is damaged, or a later build wrote it; start \
             that build, or run `tidewire state rebuild` to have it rebuilt from the changelog",
            SOURCES.0
        ),
        source: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Offset, Partition};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const TOPIC: TopicId = TopicId(7);

    fn source(offset: u64, delivered: std::ops::Range<u64>) -> VerdictSource {
        VerdictSource {
            input: 0,
            topic: TOPIC,
            partition: Partition(3),
            offset: Offset(offset),
            delivered_from: Offset(delivered.start),
            delivered_to: Offset(delivered.end),
        }
    }

    /// Takes these offsets, each written when `delivered` was, and returns the first occurrences.
    fn first_of(
        row: &mut TakenOffsets,
        delivered: std::ops::Range<u64>,
        offsets: &[u64],
    ) -> Vec<u64> {
        let first =
            |offset: &u64| row.take(&source(*offset, delivered.clone())) == Occurrence::First;
        offsets.iter().copied().filter(first).collect()
    }

    #[test]
    fn what_a_restarted_admit_appends_again_is_a_copy() {
        let mut row = TakenOffsets::default();
        assert_eq!(first_of(&mut row, 0..0, &[1, 4, 5]), [1, 4, 5]);
        assert_eq!(first_of(&mut row, 0..0, &[1, 4, 5, 8]), [8]);
        assert_eq!(first_of(&mut row, 0..9, &[9, 4, 8, 9, 12]), [9, 12]);
    }

    #[test]
    fn a_first_occurrence_may_come_after_a_higher_offset() {
        let mut row = TakenOffsets::default();
        assert_eq!(first_of(&mut row, 3..5, &[6, 7]), [6, 7]);
        assert_eq!(first_of(&mut row, 5..5, &[5, 6, 7]), [5], "5 was not appended before");
    }

    #[test]
    fn what_an_administrator_skipped_can_be_read_later() {
        let mut row = TakenOffsets::default();
        assert_eq!(first_of(&mut row, 100..120, &[120]), [120]);
        assert_eq!(first_of(&mut row, 5..5, &[5, 99, 100, 119, 120]), [5, 99]);
        assert_eq!(first_of(&mut row, 5..100, &[121, 99, 50]), [121]);
    }

    #[test]
    fn the_input_was_created_again_so_its_offsets_mean_other_records() {
        let mut row = TakenOffsets::default();
        assert_eq!(first_of(&mut row, 0..10, &[10, 11]), [10, 11]);
        let again = VerdictSource { topic: TopicId(8), ..source(0, 0..0) };
        assert_eq!(row.take(&again), Occurrence::First);
        assert_eq!(row.take(&again), Occurrence::Copy);
    }

    proptest! {
        /// One process after another reads from the committed offset, appends and fails anywhere.
        #[test]
        fn every_record_is_taken_once(
            turns in proptest::collection::vec((1..20u64, 0..20u64, any::<bool>()), 1..40),
            lanes in proptest::collection::vec(any::<bool>(), 64),
        ) {
            let mut row = TakenOffsets::default();
            let (mut committed, mut from, mut taken) = (0, 0, BTreeSet::new());
            for (records, appended, fails) in turns {
                let appended = if fails { appended.min(records) } else { records };
                for offset in committed..committed + appended {
                    // The other records go to other lanes.
                    if lanes[offset as usize % lanes.len()] {
                        let first = row.take(&source(offset, from..committed));
                        prop_assert_eq!(first == Occurrence::First, taken.insert(offset));
                    }
                }
                committed += if fails { 0 } else { records };
                from = if fails { committed } else { from };
                prop_assert_eq!(TakenOffsets::decode(&row.encode()), Some(row.clone()));
            }
        }

        #[test]
        fn damaged_rows_never_panic(bytes: Vec<u8>) {
            if let Some(row) = TakenOffsets::decode(&bytes) {
                prop_assert_eq!(TakenOffsets::decode(&row.encode()), Some(row));
            }
        }
    }
}
