//! The `order` record: which records one transaction of a task read, in which order, and its
//! results.
//!
//! A task's history can be executed again from these records, to the byte on the same build. They
//! are also the changelog of de-duplication: they hold the accepted ids, sixteen bytes each. The
//! transaction that a record describes writes it, and it never holds a wall-clock time that isn't
//! an input.
//!
//! Each entry of a pack of facts counts as a record of its lane, each fact written as an output.
//! Entries have no offsets of their own: a span is of the packs.
//!
//! Layout, version 2 (`n` unsigned LEB128, `z` zigzag LEB128, `u64` big-endian; texts and lists
//! follow their length or count; lanes are critical, high, normal, low, facts, urgent facts):
//!
//! ```text
//! 02 · build text · settings hash u64 · catalogue hash u64
//! · value level in force, 1 byte
//! · id of each lane's topic u64
//! · time each lane was consumed up to before z · after z      (a base is the latest time before)
//! · per lane touched: count n, then lane byte · first offset n · last minus first n
//! · sequence: count n, then lane byte · records n                  (run-length coded)
//! · ticks: count n, then after how many records n · time minus base z
//!   · lanes consumed to their ends, 1 byte (bit: lane's number)
//! · dead letters: count n, then index in the sequence n
//! · accepted: runs n, then append time minus base z · kept since minus append time n · ids n
//!   · 16 bytes each
//! · outputs n · XXH3-64 of the outputs u64
//! ```
//!
//! A tick carries both times of a task: the lease time is the tick's own if the critical lane was
//! consumed to its end, and the settled time follows from all lanes (`lane_times.rs`).
//!
//! Version 1 had one time per task. It is refused, since version 0.1.0 was never released with it.

use crate::derive::encoding::{FieldDecoder, put_bytes, put_signed};
use crate::derive::lane_times::{LaneSet, LaneTimes};
use crate::record::{Millis, Offset, put_varint};
use crate::topology::Lane;
use crate::value_level::ValueLevel;
use crate::verdict::TopicId;

const VERSION: u8 = 2;

/// The first and the last record read from a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneSpan {
    /// The first.
    pub first: Offset,
    /// The last.
    pub last: Offset,
}

/// A tick and its index in the sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// The number of records before it.
    pub after: u32,
    /// Its time.
    pub at: Millis,
    /// The lanes that were consumed to their ends at that time.
    pub ended: LaneSet,
}

/// Ids accepted as new at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The append time of their events.
    pub at: Millis,
    /// The time since which their window counts: `at`, or the settled time if that was later.
    pub since: Millis,
    /// Hashes of account and event id, in order.
    pub ids: Vec<[u8; 16]>,
}

/// One transaction of one task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrderRecord {
    /// The build that wrote the record.
    pub build: String,
    /// The settings in force.
    pub settings_hash: u64,
    /// The catalogue in force.
    pub catalogue_hash: u64,
    /// The value level in force.
    pub level: ValueLevel,
    /// The ids of the lanes' topics, by [`Lane::index`].
    pub lane_ids: [TopicId; Lane::COUNT],
    /// The task's time before.
    pub before: LaneTimes,
    /// Its time after.
    pub after: LaneTimes,
    /// The records read, by [`Lane::index`].
    pub spans: [Option<LaneSpan>; Lane::COUNT],
    /// Lanes in the order read, each with the number of records in a row, entries of packs counted.
    pub sequence: Vec<(Lane, u32)>,
    /// Ticks, in order.
    pub ticks: Vec<Tick>,
    /// Indices in the sequence of the records that became dead letters.
    pub dead_letters: Vec<u32>,
    /// Ids accepted, in order.
    pub accepted: Vec<Accepted>,
    /// The number of outputs, dead letters included and each fact of a pack counted.
    pub outputs: u32,
    /// XXH3-64 over topic, partition and body of each record of outputs.
    pub outputs_hash: u64,
}

/// An order record that can't be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// It has the first layout.
    #[error(
        "the order record has layout 1 and this build reads layout {VERSION}: a build from before \
         0.1.0 wrote it. Give all processes another topics.prefix (on the embedded log another \
         data folder), or delete all topics of this prefix and run `tidewire topics create`"
    )]
    Former,
    /// It is damaged, or has a later layout.
    #[error(
        "an order record of {len} bytes can't be decoded: it is damaged or a later build wrote it"
    )]
    Unreadable {
        /// Its length in bytes.
        len: usize,
    },
}

impl OrderRecord {
    /// Encodes the record.
    pub fn encode(&self) -> Vec<u8> {
        let ids: usize = self.accepted.iter().map(|run| 16 * run.ids.len() + 16).sum();
        let mut out = Vec::with_capacity(256 + ids + 6 * self.sequence.len());
        out.push(VERSION);
        put_bytes(&mut out, self.build.as_bytes());
        out.extend_from_slice(&self.settings_hash.to_be_bytes());
        out.extend_from_slice(&self.catalogue_hash.to_be_bytes());
        out.push(self.level.0);
        self.lane_ids.iter().for_each(|id| out.extend_from_slice(&id.0.to_be_bytes()));
        self.before.put(&mut out);
        self.after.put(&mut out);
        self.put_taken(&mut out);
        put_varint(&mut out, self.accepted.len() as u64);
        let base = self.before.latest().0;
        for run in &self.accepted {
            put_signed(&mut out, run.at.0.wrapping_sub(base));
            put_varint(&mut out, run.since.0.abs_diff(run.at.0));
            put_varint(&mut out, run.ids.len() as u64);
            out.extend_from_slice(run.ids.as_flattened());
        }
        put_varint(&mut out, u64::from(self.outputs));
        out.extend_from_slice(&self.outputs_hash.to_be_bytes());
        out
    }

    fn put_taken(&self, out: &mut Vec<u8>) {
        put_varint(out, self.spans.iter().flatten().count() as u64);
        for lane in Lane::ALL {
            if let Some(span) = self.spans[lane.index()] {
                out.push(lane.number());
                put_varint(out, span.first.0);
                put_varint(out, span.last.0 - span.first.0);
            }
        }
        put_varint(out, self.sequence.len() as u64);
        for (lane, records) in &self.sequence {
            out.push(lane.number());
            put_varint(out, u64::from(*records));
        }
        put_varint(out, self.ticks.len() as u64);
        for tick in &self.ticks {
            put_varint(out, u64::from(tick.after));
            put_signed(out, tick.at.0.wrapping_sub(self.before.latest().0));
            out.push(tick.ended.0);
        }
        put_varint(out, self.dead_letters.len() as u64);
        for index in &self.dead_letters {
            put_varint(out, u64::from(*index));
        }
    }

    /// Decodes a record.
    pub fn decode(bytes: &[u8]) -> Result<Self, OrderError> {
        if bytes.first() == Some(&1) {
            return Err(OrderError::Former);
        }
        let mut fields = FieldDecoder(bytes);
        read(&mut fields).ok_or(OrderError::Unreadable { len: bytes.len() })
    }
}

fn read(from: &mut FieldDecoder<'_>) -> Option<OrderRecord> {
    if from.byte()? != VERSION {
        return None;
    }
    let build = from.text()?.to_owned();
    let (settings_hash, catalogue_hash) = (from.u64()?, from.u64()?);
    let level = ValueLevel(from.byte().filter(|level| *level > 0)?);
    let mut lane_ids = [TopicId::default(); Lane::COUNT];
    for id in &mut lane_ids {
        *id = TopicId(from.u64()?);
    }
    let (before, after) = (LaneTimes::read(from)?, LaneTimes::read(from)?);
    let base = before.latest().0;
    let spans = read_spans(from)?;
    let sequence = list(from, 2, |from| Some((lane(from)?, from.number()?)))?;
    let ticks = list(from, 3, |from| {
        let after = from.number()?;
        let at = Millis(base.wrapping_add(from.signed()?));
        Some(Tick { after, at, ended: LaneSet(from.byte()?) })
    })?;
    let dead_letters = list(from, 1, FieldDecoder::number)?;
    let accepted = list(from, 3, |from| {
        let at = Millis(base.wrapping_add(from.signed()?));
        let since = Millis(at.0.checked_add_unsigned(from.varint()?)?);
        let ids = list(from, 16, |from| from.take(16)?.first_chunk().copied())?;
        Some(Accepted { at, since, ids })
    })?;
    let (outputs, outputs_hash) = (from.number()?, from.u64()?);
    from.end()?;
    Some(OrderRecord {
        build,
        settings_hash,
        catalogue_hash,
        level,
        lane_ids,
        before,
        after,
        spans,
        sequence,
        ticks,
        dead_letters,
        accepted,
        outputs,
        outputs_hash,
    })
}

fn lane(from: &mut FieldDecoder<'_>) -> Option<Lane> {
    Lane::from_number(from.byte()?)
}

fn read_spans(from: &mut FieldDecoder<'_>) -> Option<[Option<LaneSpan>; Lane::COUNT]> {
    let mut spans = [None; Lane::COUNT];
    for _ in 0..from.count(3)? {
        let lane = lane(from)?;
        let first = from.varint()?;
        let last = first.checked_add(from.varint()?)?;
        spans[lane.index()] = Some(LaneSpan { first: Offset(first), last: Offset(last) });
    }
    Some(spans)
}

fn list<'a, T>(
    from: &mut FieldDecoder<'a>,
    each_bytes: usize,
    mut read: impl FnMut(&mut FieldDecoder<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    let count = from.count(each_bytes)?;
    (0..count).map(|_| read(from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> impl Strategy<Value = OrderRecord> {
        let lanes = proptest::sample::select(&Lane::ALL[..]);
        let span =
            proptest::option::of((0..1u64 << 40, 0..1u64 << 20).prop_map(|(first, more)| {
                LaneSpan { first: Offset(first), last: Offset(first + more) }
            }));
        let tick = (any::<u32>(), any::<i32>(), any::<u8>()).prop_map(|(after, at, ended)| Tick {
            after,
            at: Millis(i64::from(at)),
            ended: LaneSet(ended),
        });
        let ids = proptest::collection::vec(any::<[u8; 16]>(), 0..5);
        let accepted = (any::<i32>(), any::<u32>(), ids).prop_map(|(at, later, ids)| {
            let since = Millis(i64::from(at) + i64::from(later));
            Accepted { at: Millis(i64::from(at)), since, ids }
        });
        let times = any::<[i64; Lane::COUNT]>().prop_map(|times| LaneTimes(times.map(Millis)));
        (
            (
                "[a-z0-9.+-]{0,40}",
                any::<u64>(),
                any::<u64>(),
                1..=u8::MAX,
                any::<[u64; Lane::COUNT]>(),
            ),
            [times.clone(), times],
            std::array::from_fn::<_, { Lane::COUNT }, _>(|_| span.clone()),
            proptest::collection::vec((lanes, any::<u32>()), 0..9),
            proptest::collection::vec(tick, 0..3),
            proptest::collection::vec(any::<u32>(), 0..3),
            proptest::collection::vec(accepted, 0..4),
            (any::<u32>(), any::<u64>()),
        )
            .prop_map(
                |(head, times, spans, sequence, ticks, dead_letters, accepted, outputs)| {
                    OrderRecord {
                        build: head.0,
                        settings_hash: head.1,
                        catalogue_hash: head.2,
                        level: ValueLevel(head.3),
                        lane_ids: head.4.map(TopicId),
                        before: times[0],
                        after: times[1],
                        spans,
                        sequence,
                        ticks,
                        dead_letters,
                        accepted,
                        outputs: outputs.0,
                        outputs_hash: outputs.1,
                    }
                },
            )
    }

    #[test]
    fn the_former_layout_is_refused_with_what_to_do() {
        let mut stored = OrderRecord::default().encode();
        stored[0] = 1;
        let refused = OrderRecord::decode(&stored).expect_err("it is of layout 1").to_string();
        assert!(refused.contains("layout 1") && refused.contains("topics.prefix"), "{refused}");
    }

    proptest! {
        #[test]
        fn an_order_record_reads_back(record in record()) {
            prop_assert_eq!(OrderRecord::decode(&record.encode()), Ok(record));
        }

        #[test]
        fn damaged_bytes_never_panic(bytes: Vec<u8>, record in record(), cut in 0..200usize) {
            let _ = OrderRecord::decode(&bytes);
            let mut stored = record.encode();
            stored.truncate(cut);
            let _ = OrderRecord::decode(&stored);
        }
    }
}
