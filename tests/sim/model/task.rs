//! The model of a task: its state after each committed transaction.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use tidewire_engine::derive::dedup::IDS;
use tidewire_engine::derive::order::OrderRecord;
use tidewire_engine::derive::progress::TaskProgress;
use tidewire_engine::derive::source_changes::{SourceChanges, SourceRowKey};
use tidewire_engine::derive::source_offsets::{SOURCES, TakenOffsets};
use tidewire_engine::record::{Body, Millis, Offset, Partition};
use tidewire_engine::topology::Lane;
use tidewire_engine::verdict::TopicId;

use super::ensure::ensure;
use super::tables::{ModelTables, TableKey};

/// The state of a task after a transaction.
#[derive(Clone, Debug)]
struct TaskSnapshot {
    /// The transaction's `order` record.
    order: u64,
    /// Its first and last `state` record, if it has any.
    state: Option<(u64, u64)>,
    times: [Millis; Lane::COUNT],
    lanes: [u64; Lane::COUNT],
    /// The keys it wrote.
    keys: Vec<TableKey>,
}

/// The model of a task.
pub(super) struct TaskModel {
    pub(super) partition: Partition,
    /// The next offset of each lane.
    pub(super) lanes: [u64; Lane::COUNT],
    /// The time that each lane was consumed up to.
    pub(super) times: [Millis; Lane::COUNT],
    pub(super) tables: ModelTables,
    /// Every record of an input that was taken.
    pub(super) sources: HashSet<TakenSource>,
    /// The ends of the lanes when they were requested, open transactions included. Of two requests
    /// at one time of the clocks, the lower one is kept.
    ends: BTreeMap<(Lane, Millis), Offset>,
    snapshots: Vec<TaskSnapshot>,
}

/// A record of an input that was taken from a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TakenSource {
    pub(super) lane: Lane,
    pub(super) input: u8,
    pub(super) topic: TopicId,
    pub(super) partition: Partition,
    pub(super) offset: u64,
}

/// What a transaction wrote for one task, apart from its outputs.
pub(super) struct SealedTransaction<'a> {
    pub(super) order_at: u64,
    pub(super) order: OrderRecord,
    /// The changelog's records, with their offsets.
    pub(super) state: Vec<(u64, &'a Body)>,
    /// The parts of its audit.
    pub(super) audit: Vec<&'a Body>,
}

impl TaskModel {
    pub(super) fn new(partition: Partition) -> Self {
        let (times, tables) = ([Millis(0); Lane::COUNT], ModelTables::default());
        let (sources, ends, snapshots) = (HashSet::new(), BTreeMap::new(), Vec::new());
        Self { partition, lanes: [0; Lane::COUNT], times, tables, sources, ends, snapshots }
    }

    /// The time of the slowest lane.
    pub(super) fn settled(&self) -> Millis {
        self.times.into_iter().min().expect("there are lanes")
    }

    /// The time of the fastest lane.
    pub(super) fn latest(&self) -> Millis {
        self.times.into_iter().max().expect("there are lanes")
    }

    /// Records that the end of a lane was requested at this time.
    pub(super) fn ends_requested(&mut self, lane: Lane, time: Millis, end: Offset) {
        let lowest = self.ends.entry((lane, time)).or_insert(end);
        *lowest = end.min(*lowest);
    }

    /// The end of a lane at the request of this time.
    pub(super) fn end_at(&self, lane: Lane, time: Millis) -> Option<Offset> {
        self.ends.get(&(lane, time)).copied()
    }

    pub(super) fn check_continues_the_last(&self, order: &OrderRecord) -> Result<(), String> {
        ensure(order.before.0 == self.times, || {
            format!("time before is {:?}, not {:?}", order.before, self.times)
        })
    }

    /// The changelog must contain every key that was written, once, and nothing else.
    pub(super) fn seal(&mut self, sealed: &SealedTransaction<'_>) -> Result<(), String> {
        let is_row = |body: &Body| body.key().is_some_and(|key| key[0] == SOURCES.0);
        for (_, body) in sealed.state.iter().filter(|(_, body)| is_row(body)) {
            self.check_row(body)?;
        }
        let mut written = self.tables.commit(self.snapshots.len() + 1);
        let keys = written.keys().cloned().collect();
        written.retain(|(table, _), _| *table != SOURCES);
        let mut state: Vec<_> = sealed.state.iter().filter(|(_, body)| !is_row(body)).collect();
        state.sort_by_key(|(_, body)| body.key());
        let mut state = state.into_iter();
        for ((table, key), value) in written.iter().filter(|((table, _), _)| *table != IDS) {
            let wanted = [&[table.0], &key[..]].concat();
            let found = state.next().map(|(_, body)| (body.key(), body.value()));
            ensure(found == Some((Some(&wanted), value.as_deref())), || {
                format!("the changelog has {found:?}, and {table:?} {key:?} became {value:?}")
            })?;
        }
        let more = state.count();
        ensure(more == 0, || format!("{more} changelog records have no write behind them"))?;
        let ends = sealed.state.first().zip(sealed.state.last());
        self.snapshots.push(TaskSnapshot {
            order: sealed.order_at,
            state: ends.map(|(first, last)| (first.0, last.0)),
            times: self.times,
            lanes: self.lanes,
            keys,
        });
        Ok(())
    }

    /// A row of source offsets, or changes of some, may have any form that holds only what was
    /// taken.
    fn check_row(&mut self, body: &Body) -> Result<(), String> {
        let (key, value) = (body.key().unwrap_or_default(), body.value().unwrap_or_default());
        match key[1] {
            0 => {
                let row = SourceRowKey::decode(&key[2..]).ok_or("no key of a row")?;
                let taken = TakenOffsets::decode(value).ok_or("source offsets are unreadable")?;
                self.check_taken(row, taken.taken().map(|offset| (taken.topic(), offset)))?;
            }
            _ => {
                let changes = SourceChanges::decode(value);
                for (row, runs) in &changes.ok_or("changes of source offsets are unreadable")?.rows
                {
                    let sources = runs.sources(*row);
                    self.check_taken(*row, sources.map(|of| (of.topic, of.offset.0)))?;
                }
            }
        }
        self.tables.set(SOURCES, &key[1..], Some(value));
        Ok(())
    }

    fn check_taken(
        &self,
        row: SourceRowKey,
        offsets: impl IntoIterator<Item = (TopicId, u64)>,
    ) -> Result<(), String> {
        let lane = row.lane().ok_or("no lane")?;
        let (input, partition) = (row.input(), row.partition());
        let is_taken = |(topic, offset)| {
            self.sources.contains(&TakenSource { lane, input, topic, partition, offset })
        };
        let other = offsets.into_iter().find(|taken| !is_taken(*taken));
        ensure(other.is_none(), || format!("{row:?}: {other:?} was not taken from {lane:?}"))
    }

    /// How many transactions there were.
    pub(super) fn transactions(&self) -> usize {
        self.snapshots.len()
    }

    /// The number of transactions that a store with this progress holds.
    pub(super) fn transactions_at(&self, progress: &TaskProgress) -> Result<usize, String> {
        let done = self.snapshots.partition_point(|snapshot| snapshot.order < progress.order.0);
        let (before, after) = self.snapshots.split_at(done);
        let last = before.iter().rev().find_map(|snapshot| snapshot.state);
        let next = after.iter().find_map(|snapshot| snapshot.state);
        let fits = last.is_none_or(|(_, last)| last < progress.state.0)
            && next.is_none_or(|(first, _)| first >= progress.state.0);
        ensure(fits, || {
            format!("{progress:?} is inside a transaction, between {last:?} and {next:?}")
        })?;
        let nothing = ([Millis(0); Lane::COUNT], [0; Lane::COUNT]);
        let (times, lanes) = before.last().map_or(nothing, |last| (last.times, last.lanes));
        ensure(progress.times.0 == times, || format!("{progress:?}: its times are {times:?}"))?;
        let held = progress.lanes.map(|at| at.map_or(0, |at| at.0));
        ensure(held == lanes, || format!("{progress:?}: its lanes are at {lanes:?}"))?;
        Ok(done)
    }

    /// The keys these transactions wrote.
    pub(super) fn keys(
        &self,
        transactions: std::ops::Range<usize>,
    ) -> impl Iterator<Item = &TableKey> {
        self.snapshots[transactions].iter().flat_map(|snapshot| &snapshot.keys)
    }

    /// Whether an id was accepted.
    pub(super) fn has_accepted(&self, id: &[u8; 16]) -> bool {
        self.tables.now().contains_key(&(IDS, Bytes::copy_from_slice(id)))
    }
}
