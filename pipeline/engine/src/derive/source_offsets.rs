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
//! table 2  00 · lane, 1 byte · input, 1 byte · partition of the input, 4 bytes big-endian → a row
//!          01 · number of changes modulo 64, 1 byte → changes (`source_changes.rs`)
//!
//! row, version 1 (`n` unsigned LEB128, `u64` big-endian):
//! 01 · number of the last changes in it n · id of the input's topic u64 · delivered from n
//! · delivered to minus from n
//! · taken: count n, then each offset minus the one before it n (the first: as it is)
//! ```
//!
//! The first record of an input that was created again empties the row, since its offsets start
//! again. A row that forgets an offset loses nothing: the copy is then found by its event id, if it
//! comes within the window.
//!
//! A task keeps its rows decoded and writes one record of changes per transaction.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::derive::encoding::FieldDecoder;
use crate::derive::source_changes::{ChangesEncoder, SourceChanges, SourceRowKey, TakenRuns};
use crate::derive::table_decl::{Changelog, TableDecl};
use crate::port::{KeyRange, StoreError, Table, TableExpiry, TableSpec};
use crate::record::put_varint;
use crate::task_state::TaskState;
use crate::topology::Lane;
use crate::value_level::ValueLevel;
use crate::verdict::{TopicId, VerdictSource};

/// The only version. Another one is to be written from a value level on, as those of a
/// `StoreValue`, and the declaration of the table then names that level.
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

/// Changes that are kept: few enough to be read at once when a task starts, many enough that a row
/// is rarely written.
const CHANGES_KEPT: u64 = 64;

/// The first byte of a row's key.
const ROW: u8 = 0;

/// The first byte of the key of changes.
const CHANGES: u8 = 1;

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
    /// The number of the last changes that the row was written with.
    number: u64,
}

impl TakenOffsets {
    /// Takes a record; `First` if that was not done before. A copy changes nothing.
    fn take(&mut self, source: &VerdictSource) -> Occurrence {
        let offset = source.offset.0;
        if self.topic != source.topic {
            *self = Self { topic: source.topic, number: self.number, ..Self::default() };
        } else if self.contains(offset) {
            return Occurrence::Copy;
        }
        self.deliver(source.delivered_from.0, source.delivered_to.0);
        if self.taken.back().is_none_or(|last| *last < offset) {
            self.taken.push_back(offset);
        } else {
            let at = self.taken.partition_point(|taken| *taken < offset);
            self.taken.insert(at, offset);
        }
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
        if (self.from..self.to).contains(&offset) {
            return true;
        }
        // Most records come in order.
        self.taken.back().is_some_and(|last| offset <= *last)
            && self.taken.binary_search(&offset).is_ok()
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
        put_varint(&mut out, self.number);
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
        let (number, topic) = (from.varint()?, TopicId(from.u64()?));
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
        Some(Self { topic, from: delivered_from, to, taken, number })
    }
}

/// A row of a task, decoded.
#[derive(Debug)]
struct CachedRow {
    row: TakenOffsets,
    /// What the open transaction took.
    runs: TakenRuns,
    /// The first changes that the written row does not have.
    lacks: Option<u64>,
}

/// The rows of a task that were used since its start or its last abort: at most one for each lane
/// and partition of an input.
///
/// A transaction touches many rows, since its records come from all partitions of the input. To
/// write each of them would cost a changelog record per row, so it writes what it took as one
/// record of changes. A row is written when the oldest changes that it lacks are overwritten; with
/// the changes after it, it is the same as the one in memory.
#[derive(Debug, Default)]
pub(super) struct SourceOffsets {
    rows: BTreeMap<SourceRowKey, CachedRow>,
    /// The number of the last changes; `None` before the state was read.
    number: Option<u64>,
}

impl SourceOffsets {
    /// Takes a record of a lane.
    pub(super) fn take(
        &mut self,
        state: &mut TaskState,
        lane: Lane,
        source: &VerdictSource,
    ) -> Result<Occurrence, StoreError> {
        if self.number.is_none() {
            self.load(state)?;
        }
        let key = SourceRowKey::new(lane, source.input, source.partition);
        let cached = self.row(state, key)?;
        let occurrence = cached.row.take(source);
        if occurrence == Occurrence::First {
            cached.runs.push(source);
        }
        Ok(occurrence)
    }

    /// Writes what this transaction took.
    pub(super) fn write(&mut self, state: &mut TaskState) {
        let (Some(last), true) = (self.number, self.rows.values().any(|row| !row.runs.is_empty()))
        else {
            return;
        };
        let number = last + 1;
        let mut changes = ChangesEncoder::new(number);
        for (key, cached) in &mut self.rows {
            // These changes overwrite those that the row lacks.
            if cached.lacks.is_some_and(|first| number - first >= CHANGES_KEPT) {
                cached.lacks = None;
                cached.row.number = number;
                state.put(SOURCES, &row_key(*key), Some(cached.row.encode()));
            } else if !cached.runs.is_empty() {
                cached.lacks.get_or_insert(number);
                changes.put(*key, &cached.runs);
            }
            cached.runs.clear();
        }
        // Written even if it is empty, so that the next number is known after a start.
        let key = [CHANGES, (number % CHANGES_KEPT) as u8];
        state.put(SOURCES, &key, Some(changes.finish()));
        self.number = Some(number);
    }

    /// Forgets the rows; they are read from the state again.
    pub(super) fn discard(&mut self) {
        *self = Self::default();
    }

    fn row(
        &mut self,
        state: &mut TaskState,
        key: SourceRowKey,
    ) -> Result<&mut CachedRow, StoreError> {
        use std::collections::btree_map::Entry;
        match self.rows.entry(key) {
            Entry::Occupied(row) => Ok(row.into_mut()),
            Entry::Vacant(none) => {
                let row = match state.get(SOURCES, &row_key(key))? {
                    Some(stored) => TakenOffsets::decode(&stored).ok_or_else(unreadable)?,
                    None => TakenOffsets::default(),
                };
                Ok(none.insert(CachedRow { row, runs: TakenRuns::default(), lacks: None }))
            }
        }
    }

    /// Reads the changes, and adds them to the rows that lack them. A row that can't be decoded
    /// ends the process: without it a copy would be delivered.
    fn load(&mut self, state: &mut TaskState) -> Result<(), StoreError> {
        let mut stored = Vec::new();
        let range = KeyRange { from: &[CHANGES], to: Some(&[CHANGES + 1]) };
        state.scan(SOURCES, range, &mut |_, value| {
            stored.push(SourceChanges::decode(value));
            ControlFlow::Continue(())
        })?;
        let changes: Option<Vec<_>> = stored.into_iter().collect();
        let mut changes = changes.ok_or_else(unreadable)?;
        changes.sort_unstable_by_key(|changes| changes.number);
        for SourceChanges { number, rows } in &changes {
            for (key, runs) in rows {
                let cached = self.row(state, *key)?;
                if *number > cached.row.number {
                    cached.lacks.get_or_insert(*number);
                    for source in runs.sources(*key) {
                        cached.row.take(&source);
                    }
                }
            }
        }
        self.number = Some(changes.last().map_or(0, |last| last.number));
        Ok(())
    }
}

fn row_key(key: SourceRowKey) -> [u8; 7] {
    let mut row = [ROW; 7];
    row[1..].copy_from_slice(&key.encode());
    row
}

fn unreadable() -> StoreError {
    StoreError {
        message: format!(
            "a value of table {} can't be decoded: it is damaged, or a later build wrote it; start \
             that build, or run `tidewire state rebuild` to have it rebuilt from the changelog",
            SOURCES.0
        ),
        source: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::derive::memory_store::MemoryStore;
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

    /// A task's state in memory, and its rows.
    struct TakingTask {
        state: TaskState,
        sources: SourceOffsets,
    }

    impl TakingTask {
        fn take(&mut self, lane: Lane, source: &VerdictSource) -> Occurrence {
            self.sources.take(&mut self.state, lane, source).expect("a store in memory")
        }

        /// Ends the transaction; returns how many changelog records it has.
        fn commit(&mut self) -> usize {
            self.sources.write(&mut self.state);
            let written = self.state.writes().count();
            self.state.apply();
            written
        }

        fn abort(&mut self) {
            self.state.discard();
            self.sources.discard();
        }

        /// A row as a task that starts now reads it.
        fn stored(&mut self, key: SourceRowKey) -> TakenOffsets {
            let mut sources = SourceOffsets::default();
            sources.load(&mut self.state).expect("a store in memory");
            let cached = sources.row(&mut self.state, key).expect("a store in memory");
            TakenOffsets { number: 0, ..cached.row.clone() }
        }
    }

    impl Default for TakingTask {
        fn default() -> Self {
            let state = TaskState::new(Box::<MemoryStore>::default());
            Self { state, sources: SourceOffsets::default() }
        }
    }

    #[test]
    fn a_transaction_writes_one_record_and_a_row_only_when_its_changes_are_overwritten() {
        let mut task = TakingTask::default();
        let mut written = 0;
        for n in 0..10 * CHANGES_KEPT {
            for partition in (0..8).map(Partition) {
                let source = VerdictSource { partition, ..source(n, 0..n.saturating_sub(5)) };
                assert_eq!(task.take(Lane::High, &source), Occurrence::First);
            }
            written += task.commit() as u64;
        }
        // Each row is written with every 65th changes.
        assert_eq!(written, 10 * CHANGES_KEPT + 8 * 9);
    }

    #[test]
    fn a_row_that_is_not_used_again_is_written_before_its_changes_are_overwritten() {
        let mut task = TakingTask::default();
        assert_eq!(task.take(Lane::Low, &source(7, 0..0)), Occurrence::First);
        task.commit();
        for n in 0..3 * CHANGES_KEPT {
            task.abort();
            assert_eq!(task.take(Lane::High, &source(n, 0..0)), Occurrence::First);
            assert_eq!(task.take(Lane::Low, &source(7, 0..0)), Occurrence::Copy, "{n}");
            task.commit();
        }
    }

    /// A record of any row with an offset, a delivered range before it, and a topic.
    fn any_source() -> impl Strategy<Value = (Lane, VerdictSource)> {
        let lane = prop_oneof![Just(Lane::High), Just(Lane::Low)];
        let topic = prop_oneof![20 => Just(7), 1 => Just(8)];
        (lane, 0..3u32, topic, 0..300u64, 0..9u64, 0..40u64).prop_map(
            |(lane, partition, topic, from, length, ahead)| {
                let delivered = from..from + length;
                let source = source(delivered.end + ahead, delivered);
                (
                    lane,
                    VerdictSource {
                        topic: TopicId(topic),
                        partition: Partition(partition),
                        ..source
                    },
                )
            },
        )
    }

    proptest! {
        /// Rows that are read from the state are those that were kept in memory, whatever was
        /// taken, and aborted transactions leave nothing behind.
        #[test]
        fn changes_and_rows_that_were_written_give_the_same_rows(
            transactions in proptest::collection::vec(
                (proptest::collection::vec(any_source(), 0..6), 0..8u8), 1..200,
            ),
        ) {
            let mut task = TakingTask::default();
            let mut model = BTreeMap::<SourceRowKey, TakenOffsets>::new();
            for (taken, end) in transactions {
                let mut after = model.clone();
                for (lane, source) in &taken {
                    let key = SourceRowKey::new(*lane, source.input, source.partition);
                    let wanted = after.entry(key).or_default().take(source);
                    prop_assert_eq!(task.take(*lane, source), wanted);
                }
                match end {
                    0 => task.abort(),
                    _ => {
                        task.commit();
                        model = after;
                    }
                }
                if end <= 1 {
                    for (key, row) in &model {
                        prop_assert_eq!(&task.stored(*key), row);
                    }
                }
            }
        }

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
