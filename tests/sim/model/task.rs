//! A task as its committed transactions make it.

use bytes::Bytes;
use tidewire_engine::derive::dedup::IDS;
use tidewire_engine::derive::order::OrderRecord;
use tidewire_engine::derive::progress::TaskProgress;
use tidewire_engine::record::{Body, Millis, Partition};
use tidewire_engine::topology::Lane;

use super::ensure::ensure;
use super::tables::{ModelTables, TableKey};

/// Where everything of a task stood after a transaction.
#[derive(Clone, Debug)]
struct TaskSnapshot {
    /// The transaction's `order` record.
    order: u64,
    /// Its first and last `state` record, if it has any.
    state: Option<(u64, u64)>,
    time: Millis,
    lanes: [u64; 5],
    /// The keys it wrote.
    keys: Vec<TableKey>,
}

/// The model of a task.
pub(super) struct TaskModel {
    pub(super) partition: Partition,
    /// What is taken next of each lane.
    pub(super) lanes: [u64; 5],
    pub(super) time: Millis,
    pub(super) tables: ModelTables,
    /// Where the critical lane ended when its owner began, if there was something before that.
    pub(super) backlog_until: Option<u64>,
    snapshots: Vec<TaskSnapshot>,
}

/// What a transaction wrote for one task beside its outputs.
pub(super) struct SealedTransaction<'a> {
    pub(super) order_at: u64,
    pub(super) order: OrderRecord,
    /// Whether it was committed some time after its process had asked for that.
    pub(super) late: bool,
    /// The changelog's records, with their offsets.
    pub(super) state: Vec<(u64, &'a Body)>,
}

impl TaskModel {
    pub(super) fn new(partition: Partition) -> Self {
        let (time, tables) = (Millis(0), ModelTables::default());
        let (backlog_until, snapshots) = (None, Vec::new());
        Self { partition, lanes: [0; 5], time, tables, backlog_until, snapshots }
    }

    pub(super) fn check_continues_the_last(&self, order: &OrderRecord) -> Result<(), String> {
        ensure(order.time_before == self.time, || {
            format!("time goes on at {:?}, not {:?}", order.time_before, self.time)
        })?;
        let critical = self.lanes[Lane::Critical.index()];
        let held = self.backlog_until.is_some_and(|end| critical < end);
        ensure(order.held == held, || {
            format!("held: {}, at {critical} before {:?}", order.held, self.backlog_until)
        })
    }

    /// The changelog says every key that was written, and nothing else.
    pub(super) fn seal(&mut self, sealed: &SealedTransaction<'_>) -> Result<(), String> {
        let written = self.tables.commit(self.snapshots.len() + 1);
        let mut state = sealed.state.iter();
        for ((table, key), value) in written.iter().filter(|((table, _), _)| *table != IDS) {
            let wanted = [&[table.0], &key[..]].concat();
            let said = state.next().map(|(_, body)| (body.key(), body.value()));
            ensure(said == Some((Some(&wanted), value.as_deref())), || {
                format!("the changelog says {said:?}, and {table:?} {key:?} became {value:?}")
            })?;
        }
        let more = state.count();
        ensure(more == 0, || format!("{more} records of the changelog say what nobody wrote"))?;
        let ends = sealed.state.first().zip(sealed.state.last());
        self.snapshots.push(TaskSnapshot {
            order: sealed.order_at,
            state: ends.map(|(first, last)| (first.0, last.0)),
            time: self.time,
            lanes: self.lanes,
            keys: written.into_keys().collect(),
        });
        Ok(())
    }

    /// How many transactions there were.
    pub(super) fn transactions(&self) -> usize {
        self.snapshots.len()
    }

    /// After how many transactions a store stands that says this of itself.
    pub(super) fn transactions_at(&self, progress: &TaskProgress) -> Result<usize, String> {
        let done = self.snapshots.partition_point(|snapshot| snapshot.order < progress.order.0);
        let (before, after) = self.snapshots.split_at(done);
        let last = before.iter().rev().find_map(|snapshot| snapshot.state);
        let next = after.iter().find_map(|snapshot| snapshot.state);
        let fits = last.is_none_or(|(_, last)| last < progress.state.0)
            && next.is_none_or(|(first, _)| first >= progress.state.0);
        ensure(fits, || {
            format!("{progress:?} stands between {last:?} and {next:?}, inside a transaction")
        })?;
        let (time, lanes) = before.last().map_or((Millis(0), [0; 5]), |c| (c.time, c.lanes));
        ensure(progress.time == time, || format!("{progress:?}: its time is {time:?}"))?;
        let held = progress.lanes.map(|at| at.map_or(0, |at| at.0));
        ensure(held == lanes, || format!("{progress:?}: its lanes stand at {lanes:?}"))?;
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
