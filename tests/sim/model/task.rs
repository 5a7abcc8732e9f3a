//! A task as its committed transactions make it.

use bytes::Bytes;
use tidewire_engine::derive::dedup::IDS;
use tidewire_engine::derive::order::OrderRecord;
use tidewire_engine::derive::progress::TaskProgress;
use tidewire_engine::record::{Body, Millis, Partition};
use tidewire_engine::topology::{Lane, Topology};

use super::batch::{Made, Walk};
use super::ensure::ensure;
use super::tables::{Key, Tables};
use crate::fake::Inner;

/// Where everything of a task stood after a transaction.
#[derive(Clone, Debug)]
struct Cut {
    /// The transaction's `order` record.
    order: u64,
    /// Its first and last `state` record, if it has any.
    state: Option<(u64, u64)>,
    time: Millis,
    lanes: [u64; 5],
    /// The keys it wrote.
    keys: Vec<Key>,
}

/// The model of a task.
pub(super) struct TaskModel {
    pub(super) partition: Partition,
    /// What is taken next of each lane.
    pub(super) lanes: [u64; 5],
    pub(super) time: Millis,
    pub(super) tables: Tables,
    /// Where the critical lane ended when its owner began, if there was something before that.
    pub(super) backlog_until: Option<u64>,
    cuts: Vec<Cut>,
}

/// What a transaction wrote for one task beside its outputs.
pub(super) struct Sealed<'a> {
    pub(super) order_at: u64,
    pub(super) order: OrderRecord,
    /// Whether it was committed some time after its process had asked for that.
    pub(super) late: bool,
    /// The changelog's records, with their offsets.
    pub(super) state: Vec<(u64, &'a Body)>,
}

impl TaskModel {
    pub(super) fn new(partition: Partition) -> Self {
        let (time, tables) = (Millis(0), Tables::default());
        let (backlog_until, cuts) = (None, Vec::new());
        Self { partition, lanes: [0; 5], time, tables, backlog_until, cuts }
    }

    /// Follows a committed transaction; what its outputs must be is handed back.
    pub(super) fn commit(
        &mut self,
        sealed: &Sealed<'_>,
        (log, topology): (&Inner, &Topology),
    ) -> Result<Made, String> {
        let order = &sealed.order;
        self.begins_where_the_last_ended(order)?;
        let before = self.lanes;
        let late = sealed.late;
        let mut walk = Walk { log, topology, task: self, late, made: Made::default() };
        walk.follow(order)?;
        let made = walk.made;
        for lane in Lane::ALL {
            let (first, next) = (before[lane.index()], self.lanes[lane.index()]);
            let span = order.spans[lane.index()].map(|span| (span.first.0, span.last.next().0));
            ensure(span == (first < next).then_some((first, next)), || {
                format!("{lane:?} was taken {first}..{next}, and {span:?} stands in the order")
            })?;
        }
        self.seal(sealed)?;
        Ok(made)
    }

    fn begins_where_the_last_ended(&self, order: &OrderRecord) -> Result<(), String> {
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
    fn seal(&mut self, sealed: &Sealed<'_>) -> Result<(), String> {
        let written = self.tables.commit(self.cuts.len() + 1);
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
        self.cuts.push(Cut {
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
        self.cuts.len()
    }

    /// After how many transactions a store stands that says this of itself.
    pub(super) fn transactions_at(&self, progress: &TaskProgress) -> Result<usize, String> {
        let done = self.cuts.partition_point(|cut| cut.order < progress.order.0);
        let (before, after) = self.cuts.split_at(done);
        let last = before.iter().rev().find_map(|cut| cut.state);
        let next = after.iter().find_map(|cut| cut.state);
        let fits = last.is_none_or(|(_, last)| last < progress.state.0)
            && next.is_none_or(|(first, _)| first >= progress.state.0);
        ensure(fits, || {
            format!("{progress:?} stands between {last:?} and {next:?}, inside a transaction")
        })?;
        let (time, lanes) = before.last().map_or((Millis(0), [0; 5]), |c| (c.time, c.lanes));
        ensure(progress.time == time, || format!("{progress:?}: its time is {time:?}"))?;
        let stands = progress.lanes.map(|at| at.map_or(0, |at| at.0));
        ensure(stands == lanes, || format!("{progress:?}: its lanes stand at {lanes:?}"))?;
        Ok(done)
    }

    /// The keys these transactions wrote.
    pub(super) fn keys(&self, transactions: std::ops::Range<usize>) -> impl Iterator<Item = &Key> {
        self.cuts[transactions].iter().flat_map(|cut| &cut.keys)
    }

    /// Whether an id was accepted.
    pub(super) fn has_accepted(&self, id: &[u8; 16]) -> bool {
        self.tables.now().contains_key(&(IDS, Bytes::copy_from_slice(id)))
    }
}
