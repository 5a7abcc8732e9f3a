//! The record of the source offsets that one transaction of a task took.
//!
//! A transaction takes records of many partitions of the input. Their rows in the table of source
//! offsets would be a changelog record each, so a transaction writes this one record instead, and
//! writes a row only from time to time (`source_offsets.rs`).
//!
//! Layout, version 1 (`n` unsigned LEB128, `z` zigzag LEB128, `u64` big-endian):
//!
//! ```text
//! 01 · number of the record n · then rows up to the end:
//!   lane, 1 byte · input, 1 byte · partition n · runs: count n, then
//!     id of the input's topic u64 · delivered from n · delivered to minus from n
//!     · offsets: count n, then each minus the one before it z (the first: minus delivered to)
//! ```
//!
//! A run holds records with the same topic and delivered range in the order they were taken, so
//! that taking them again gives the same row.

use bytes::Bytes;

use crate::derive::encoding::{FieldDecoder, put_signed};
use crate::record::{Offset, Partition, put_varint};
use crate::topology::Lane;
use crate::verdict::{TopicId, VerdictSource};

const VERSION: u8 = 1;

/// Which row of source offsets: ordered by lane, input and partition of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceRowKey(u64);

impl SourceRowKey {
    /// The row of a lane and a partition of an input, which has this number.
    pub fn new(lane: Lane, input: u8, partition: Partition) -> Self {
        Self(u64::from(lane.number()) << 40 | u64::from(input) << 32 | u64::from(partition.0))
    }

    /// Lane, input and partition, 6 bytes big-endian.
    pub fn encode(self) -> [u8; 6] {
        let [_, _, key @ ..] = self.0.to_be_bytes();
        key
    }

    /// Decodes what [`SourceRowKey::encode`] wrote; `None` if it is no row of a lane.
    pub fn decode(key: &[u8]) -> Option<Self> {
        let [lane, input, partition @ ..] = <[u8; 6]>::try_from(key).ok()?;
        let partition = Partition(u32::from_be_bytes(partition));
        Some(Self::new(Lane::from_number(lane)?, input, partition))
    }

    /// The lane.
    pub fn lane(self) -> Option<Lane> {
        Lane::from_number((self.0 >> 40) as u8)
    }

    /// The number of the input.
    pub fn input(self) -> u8 {
        (self.0 >> 32) as u8
    }

    /// The partition of the input.
    pub fn partition(self) -> Partition {
        Partition(self.0 as u32)
    }
}

/// Offsets that were taken one after the other, from records that state the same delivered range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TakenRun {
    topic: TopicId,
    from: u64,
    to: u64,
    /// How many offsets.
    count: usize,
}

impl TakenRun {
    fn holds(&self, source: &VerdictSource) -> bool {
        (self.topic, self.from, self.to)
            == (source.topic, source.delivered_from.0, source.delivered_to.0)
    }
}

/// What one transaction took for one row. It can be cleared and filled again without allocations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenRuns {
    runs: Vec<TakenRun>,
    /// Those of all runs, in the order taken.
    offsets: Vec<u64>,
}

impl TakenRuns {
    /// Adds a record.
    pub(super) fn push(&mut self, source: &VerdictSource) {
        match self.runs.last_mut() {
            Some(run) if run.holds(source) => run.count += 1,
            _ => self.runs.push(TakenRun {
                topic: source.topic,
                from: source.delivered_from.0,
                to: source.delivered_to.0,
                count: 1,
            }),
        }
        self.offsets.push(source.offset.0);
    }

    /// Whether nothing was taken.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Removes all records.
    pub(super) fn clear(&mut self) {
        self.runs.clear();
        self.offsets.clear();
    }

    fn split(&self) -> impl Iterator<Item = (&TakenRun, &[u64])> {
        let mut rest = &self.offsets[..];
        self.runs.iter().map(move |run| {
            let (offsets, after) = rest.split_at(run.count);
            rest = after;
            (run, offsets)
        })
    }

    /// The records, in the order taken.
    pub fn sources(&self, row: SourceRowKey) -> impl Iterator<Item = VerdictSource> {
        self.split().flat_map(move |(run, offsets)| {
            offsets.iter().map(move |offset| VerdictSource {
                input: row.input(),
                topic: run.topic,
                partition: row.partition(),
                offset: Offset(*offset),
                delivered_from: Offset(run.from),
                delivered_to: Offset(run.to),
            })
        })
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.runs.len() as u64);
        for (TakenRun { topic, from, to, count }, offsets) in self.split() {
            out.extend_from_slice(&topic.0.to_be_bytes());
            put_varint(out, *from);
            put_varint(out, to.wrapping_sub(*from));
            put_varint(out, *count as u64);
            let mut before = *to;
            for offset in offsets {
                put_signed(out, offset.wrapping_sub(before).cast_signed());
                before = *offset;
            }
        }
    }

    fn read(from: &mut FieldDecoder<'_>) -> Option<Self> {
        let mut read = Self::default();
        for _ in 0..from.count(11)? {
            let (topic, delivered_from) = (TopicId(from.u64()?), from.varint()?);
            let to = delivered_from.checked_add(from.varint()?)?;
            let count = from.count(1)?;
            let mut before = to;
            for _ in 0..count {
                before = before.wrapping_add(from.signed()?.cast_unsigned());
                read.offsets.push(before);
            }
            read.runs.push(TakenRun { topic, from: delivered_from, to, count });
        }
        Some(read)
    }
}

/// Encodes what one transaction took, row by row.
pub(super) struct ChangesEncoder(Vec<u8>);

impl ChangesEncoder {
    /// Begins the record of this number.
    pub(super) fn new(number: u64) -> Self {
        let mut out = Vec::with_capacity(512);
        out.push(VERSION);
        put_varint(&mut out, number);
        Self(out)
    }

    /// Adds what was taken for a row.
    pub(super) fn put(&mut self, key: SourceRowKey, runs: &TakenRuns) {
        let [lane, input, ..] = key.encode();
        self.0.extend_from_slice(&[lane, input]);
        put_varint(&mut self.0, u64::from(key.partition().0));
        runs.put(&mut self.0);
    }

    /// The record.
    pub(super) fn finish(self) -> Bytes {
        self.0.into()
    }
}

/// What one transaction took, as it is read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceChanges {
    /// The number of the record: each is one more than the last.
    pub number: u64,
    /// By row.
    pub rows: Vec<(SourceRowKey, TakenRuns)>,
}

impl SourceChanges {
    /// Encodes the record.
    pub fn encode(&self) -> Bytes {
        let mut out = ChangesEncoder::new(self.number);
        self.rows.iter().for_each(|(key, runs)| out.put(*key, runs));
        out.finish()
    }

    /// Decodes a record; `None` if the bytes are not one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = FieldDecoder(bytes);
        if from.byte()? != VERSION {
            return None;
        }
        let mut changes = Self { number: from.varint()?, rows: Vec::new() };
        while from.end().is_none() {
            let lane = Lane::from_number(from.byte()?)?;
            let (input, partition) = (from.byte()?, Partition(from.number()?));
            let key = SourceRowKey::new(lane, input, partition);
            changes.rows.push((key, TakenRuns::read(&mut from)?));
        }
        Some(changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source() -> impl Strategy<Value = VerdictSource> {
        let ranges = prop_oneof![Just([0, 0]), Just([3, 9]), any::<[u32; 2]>()];
        (0..2u64, any::<u64>(), ranges).prop_map(|(topic, offset, [from, more])| VerdictSource {
            input: 1,
            topic: TopicId(topic),
            partition: Partition(u32::MAX),
            offset: Offset(offset),
            delivered_from: Offset(from.into()),
            delivered_to: Offset(u64::from(from) + u64::from(more)),
        })
    }

    proptest! {
        #[test]
        fn changes_read_back_in_the_order_taken(
            number: u64, sources in proptest::collection::vec(source(), 0..20), other in source(),
        ) {
            let key = SourceRowKey::new(Lane::Facts, 1, Partition(u32::MAX));
            prop_assert_eq!(SourceRowKey::decode(&key.encode()), Some(key));
            let mut runs = [TakenRuns::default(), TakenRuns::default()];
            sources.iter().for_each(|source| runs[0].push(source));
            runs[1].push(&other);
            let next = SourceRowKey::new(Lane::FactsUrgent, 1, Partition(u32::MAX));
            let [first, second] = runs;
            let changes = SourceChanges { number, rows: vec![(key, first), (next, second)] };
            let read = SourceChanges::decode(&changes.encode()).expect("our own");
            prop_assert_eq!(&read, &changes);
            prop_assert_eq!(read.rows[0].1.sources(key).collect::<Vec<_>>(), sources);
        }

        #[test]
        fn damaged_changes_never_panic(bytes: Vec<u8>) {
            if let Some(changes) = SourceChanges::decode(&bytes) {
                prop_assert_eq!(SourceChanges::decode(&changes.encode()), Some(changes));
            }
        }
    }
}
