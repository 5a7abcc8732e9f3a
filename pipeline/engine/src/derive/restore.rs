//! The restore of a task: replays changelogs onto its store until it holds all that is committed.
//!
//! The order of its steps matters. First come the group's committed offsets, after the transactions
//! that a former owner left open were aborted. Then the ends of the changelogs, uncommitted ones,
//! so that nothing committed can be behind them. Then the replay of committed records from the
//! store's progress until the reader's *positions* reach those ends; records can't be counted
//! instead, because control records occupy offsets too.
//!
//! Records of tables that this build does not declare are kept beside the others
//! ([`crate::derive::skipped`]), so that a store's progress holds for every build.
//!
//! A store that does not fit its changelogs ([`crate::derive::store_fit`]) is destroyed, rebuilt
//! and counted. A restore that outlasts the tombstones it has to read starts again, since removed
//! keys could come back.

use crate::derive::accepted_id::{AcceptedId, IDS};
use crate::derive::changelog;
use crate::derive::commit_group::transactional_ids;
use crate::derive::id_filter::IdFilter;
use crate::derive::memory_store::MemoryStore;
use crate::derive::operator::Rules;
use crate::derive::order::{Accepted, OrderRecord};
use crate::derive::progress::TaskProgress;
use crate::derive::running::RestoredTask;
use crate::derive::skipped::{self, KeptRowsMove, RowChange};
use crate::derive::store_fit::{
    AWAY_TOO_LONG, ChangelogBounds, FittingStore, STALE_MS_MAX, StoreLocation,
};
use crate::derive::table_decl::Changelog;
use crate::derive::tables::{TaskTables, task_state};
use crate::port::{
    Bounds, Committed, Isolation, Log, LogError, ReadLimit, Reader, ReaderSlot, Stores,
};
use crate::record::{Millis, Offset, Partition, Record, TopicPartition};
use crate::task_state::TaskState;
use crate::telemetry;
use crate::topology::Lane;
use crate::turn::{EngineError, repeat};
use crate::value_level::ValueLevel;
use crate::verdict::TopicId;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::time::Duration;

/// The records replayed per step, so that a long restore does not block the thread's other tasks.
const REPLAY: ReadLimit = ReadLimit { records: 4_096, bytes: 4 << 20 };

/// Bytes of replayed writes after which they are handed to the writer.
const HAND_OVER_BYTES: usize = 8 << 20;

/// Milliseconds after which a follower fetches the ends again.
const REFRESH_ENDS_MS: i64 = 60_000;

/// Milliseconds between two log lines of a restore.
const REPORT_EVERY_MS: i64 = 5_000;

/// What a restore reads.
#[derive(Clone, Copy)]
pub(super) struct RestoreContext<'a> {
    pub(super) rules: Rules<'a>,
    pub(super) tables: &'a TaskTables,
    pub(super) log: &'a dyn Log,
    pub(super) stores: &'a dyn Stores,
    pub(super) group: &'a str,
    /// The base of this loop's transactional ids.
    pub(super) owner: &'a str,
    /// Bytes that the filter of accepted ids may use.
    pub(super) id_filter_bytes: usize,
    /// The seed of hash tables in memory.
    pub(super) hash_seed: u64,
    pub(super) now: Millis,
}

impl<'a> RestoreContext<'a> {
    fn store_location(self, partition: Partition) -> StoreLocation<'a> {
        StoreLocation { stores: self.stores, partition, tables: self.tables.specs() }
    }
}

/// Indices of the changelogs in every array of three here.
const STATE: usize = 0;
const WINDOWS: usize = 1;
const ORDER: usize = 2;

/// One changelog being replayed.
struct ChangelogTail {
    at: TopicPartition,
    slot: ReaderSlot,
    from: Offset,
    end: Offset,
}

/// Replays a partition's changelogs onto its store.
pub(super) struct ChangelogReader {
    partition: Partition,
    state: TaskState,
    /// The ids that were replayed.
    ids: IdFilter,
    progress: TaskProgress,
    reader: Box<dyn Reader>,
    /// `state`, `state.windows`, `order`.
    tails: [ChangelogTail; 3],
    /// Whether the store fits only if there is nothing to replay.
    must_be_complete: bool,
    /// The kept rows that are moved before anything is replayed; `None`: all were.
    kept: Option<KeptRowsMove>,
    /// When the ends were fetched.
    ends_fetched: Millis,
    /// A time up to which the store misses nothing, tombstones included.
    current: Millis,
    replayed: u64,
    taken: Vec<Record>,
}

/// A task that replays its changelogs.
pub(super) struct RestoringTask {
    changelogs: ChangelogReader,
    positions: LanePositions,
    /// When the partition was assigned.
    assigned: Millis,
    /// When its progress was last logged.
    reported: Millis,
}

/// The progress of a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoreProgress {
    /// The task's partition.
    pub partition: Partition,
    /// Offsets of the changelogs replayed so far.
    pub done: u64,
    /// Offsets to replay in total.
    pub total: u64,
    /// Milliseconds since the partition was assigned.
    pub elapsed_ms: u64,
}

impl RestoreProgress {
    /// The share replayed, in percent.
    pub fn percent(&self) -> u64 {
        (self.done * 100).checked_div(self.total).unwrap_or(100)
    }

    /// Estimated milliseconds until the end; `None` before anything was replayed.
    pub fn left_ms(&self) -> Option<u64> {
        let left = u128::from(self.total.saturating_sub(self.done));
        let ms = (u128::from(self.elapsed_ms) * left).checked_div(u128::from(self.done))?;
        u64::try_from(ms).ok()
    }
}

impl ChangelogReader {
    /// Fetches the ends and opens the store.
    pub(super) fn open(
        context: RestoreContext<'_>,
        partition: Partition,
    ) -> Result<Self, EngineError> {
        let asking = |error| EngineError::of_log("restoring a task", error);
        let at = changelogs(context, partition);
        let bounds = changelog_bounds(context, &at).map_err(asking)?;
        let opening = |error| EngineError::of_store("opening a task's store", error);
        let location = context.store_location(partition);
        let opened = location.open(bounds, context.now).map_err(opening)?;
        let mut reader = repeat(|| context.log.reader(Isolation::Committed)).map_err(asking)?;
        let from = starts(&opened.progress, bounds);
        let mut slots = [ReaderSlot(0); 3];
        for n in 0..slots.len() {
            slots[n] = repeat(|| reader.add(&at[n], from[n])).map_err(asking)?;
        }
        let ends = [bounds.state.end, bounds.windows.end, bounds.order.end];
        let mut n = 0;
        let tails = at.map(|at| {
            n += 1;
            ChangelogTail { at, slot: slots[n - 1], from: from[n - 1], end: ends[n - 1] }
        });
        let FittingStore { store, progress, must_be_complete } = opened;
        Ok(Self {
            partition,
            state: task_state(store, context.hash_seed),
            ids: IdFilter::new(context.id_filter_bytes),
            progress,
            reader,
            tails,
            must_be_complete,
            kept: Some(KeptRowsMove::begin()),
            ends_fetched: context.now,
            current: context.now,
            replayed: 0,
            taken: Vec::new(),
        })
    }

    /// Moves the next kept rows of tables that this build declares.
    fn move_kept(
        &mut self,
        context: RestoreContext<'_>,
        mut rows: KeptRowsMove,
    ) -> Result<(), EngineError> {
        let moving = |error| EngineError::of_store("moving kept rows to their tables", error);
        let is_declared = |table| context.tables.has(table);
        let more = rows.step(&mut self.state, self.progress.encode(), is_declared);
        self.kept = more.map_err(moving)?.then_some(rows);
        Ok(())
    }

    /// Replays the next records of each changelog, once no kept row is to be moved.
    pub(super) fn step(&mut self, context: RestoreContext<'_>) -> Result<ReplayStep, EngineError> {
        if let Some(rows) = self.kept.take() {
            self.move_kept(context, rows)?;
            return Ok(ReplayStep { done: false, moved: true });
        }
        let (mut step, mut replayed) = (ReplayStep { done: true, moved: false }, 0);
        for n in 0..self.tails.len() {
            let slot = self.tails[n].slot;
            let reading = |error| EngineError::of_log("replaying a changelog", error);
            let mut taken = std::mem::take(&mut self.taken);
            repeat(|| self.reader.take(slot, REPLAY, &mut taken)).map_err(reading)?;
            replayed += taken.len();
            for record in taken.drain(..) {
                self.replay(context, n, &record)?;
            }
            self.taken = taken;
            let position = repeat(|| self.reader.position(slot)).map_err(reading)?;
            match n {
                STATE => self.progress.state = position,
                WINDOWS => self.progress.windows = position,
                _ => self.progress.order = position,
            }
            step.done &= position >= self.tails[n].end;
        }
        step.moved = replayed > 0;
        if self.must_be_complete && step.moved {
            self.start_again(context)?;
            return Ok(ReplayStep { done: false, ..step });
        }
        self.must_be_complete &= !step.done;
        self.replayed += replayed as u64;
        if step.done {
            self.current = self.current.max(self.ends_fetched);
        }
        if self.state.pending_bytes() > HAND_OVER_BYTES {
            let writing = |error| EngineError::of_store("writing restored state", error);
            self.state.hand_over(self.progress.encode()).map_err(writing)?;
            self.state.acknowledge().map_err(writing)?;
        }
        Ok(step)
    }

    fn replay(
        &mut self,
        context: RestoreContext<'_>,
        tail: usize,
        record: &Record,
    ) -> Result<(), EngineError> {
        if tail != ORDER {
            match changelog::decode(&record.body) {
                Some((table, key, value)) if context.tables.has(table) => {
                    self.state.restore(table, &key, value);
                }
                Some((table, key, value)) => {
                    let from = if tail == WINDOWS { Changelog::Windows } else { Changelog::State };
                    match skipped::keep(&mut self.state, from, &RowChange { table, key, value }) {
                        true => telemetry::changelog_kept(),
                        false => telemetry::changelog_ignored(),
                    }
                }
                None => telemetry::changelog_ignored(),
            }
            return Ok(());
        }
        let order = OrderRecord::decode(record.body.value().unwrap_or_default());
        let order = order.map_err(|source| EngineError::Fatal {
            doing: "replaying the order topic",
            source: format!(
                "{}/{}: {source}; if a later build wrote it, start that build again",
                self.tails[ORDER].at, record.offset.0
            )
            .into(),
        })?;
        for Accepted { at, since, ids } in &order.accepted {
            let value = AcceptedId { since: *since, at: *at }.encode();
            let value = Bytes::copy_from_slice(&value);
            for id in ids {
                self.state.restore(IDS, id, Some(value.clone()));
                self.ids.insert(id, *since);
            }
        }
        self.progress.times = order.after;
        self.ids.expire(self.progress.times.settled());
        for lane in Lane::ALL {
            let (known, id) =
                (&mut self.progress.lane_ids[lane.index()], order.lane_ids[lane.index()]);
            if std::mem::replace(known, id) != id {
                self.progress.lanes[lane.index()] = None;
            }
            if let Some(span) = order.spans[lane.index()] {
                self.progress.lanes[lane.index()] = Some(span.last.next());
            }
        }
        Ok(())
    }

    /// Destroys the store, which misses records for too long, and replays everything into an empty
    /// one. Nothing that it replayed was handed over to the old one.
    fn start_again(&mut self, context: RestoreContext<'_>) -> Result<(), EngineError> {
        let asking = |error| EngineError::of_log("restoring a task", error);
        let opening = |error| EngineError::of_store("opening a task's store", error);
        let at = self.tails.each_ref().map(|tail| tail.at.clone());
        let bounds = changelog_bounds(context, &at).map_err(asking)?;
        // A store is locked while it is open, so the old one is closed first.
        let nothing = task_state(Box::<MemoryStore>::default(), context.hash_seed);
        std::mem::replace(&mut self.state, nothing).close().map_err(opening)?;
        let location = context.store_location(self.partition);
        let empty = location.rebuild(bounds, AWAY_TOO_LONG).map_err(opening)?;
        self.state = task_state(empty.store, context.hash_seed);
        self.ids = IdFilter::new(context.id_filter_bytes);
        let from = starts(&empty.progress, bounds);
        let ends = [bounds.state.end, bounds.windows.end, bounds.order.end];
        for (n, tail) in self.tails.iter_mut().enumerate() {
            (tail.from, tail.end) = (from[n], ends[n]);
            repeat(|| self.reader.seek(tail.slot, from[n])).map_err(asking)?;
        }
        (self.progress, self.must_be_complete) = (empty.progress, empty.must_be_complete);
        (self.ends_fetched, self.current) = (context.now, context.now);
        self.replayed = 0;
        Ok(())
    }

    /// One step of a follower: it replays, and fetches new ends once it has reached the known ones.
    pub(super) fn follow(&mut self, context: RestoreContext<'_>) -> Result<(), EngineError> {
        check_age(self.current, context.now)?;
        let step = self.step(context)?;
        if step.done && context.now.0.saturating_sub(self.ends_fetched.0) >= REFRESH_ENDS_MS {
            self.refresh_ends(context)
                .map_err(|error| EngineError::of_log("following a task", error))?;
        }
        Ok(())
    }

    /// Fetches the current ends, which become the new goal.
    fn refresh_ends(&mut self, context: RestoreContext<'_>) -> Result<(), LogError> {
        self.ends_fetched = context.now;
        let at = [self.progress.state, self.progress.windows, self.progress.order];
        for (tail, from) in self.tails.iter_mut().zip(at) {
            (tail.from, tail.end) = (from, bounds(context, &tail.at)?.end);
        }
        self.replayed = 0;
        Ok(())
    }
}

/// Fails if tombstones may have left the changelogs since `since`, before the replay came to them.
/// The rebuilt loop then finds the store too old and rebuilds it.
fn check_age(since: Millis, now: Millis) -> Result<(), EngineError> {
    if u64::try_from(now.0.saturating_sub(since.0)).unwrap_or(0) > STALE_MS_MAX {
        return Err(EngineError::Retry {
            doing: "replaying a task's changelogs",
            source: "it took longer than half the retention of tombstones, so a removed key may \
                     still be in the store"
                .into(),
        });
    }
    Ok(())
}

fn bounds(context: RestoreContext<'_>, at: &TopicPartition) -> Result<Bounds, LogError> {
    repeat(|| context.log.bounds(at, Isolation::Uncommitted))
}

/// `state`, `state.windows` and `order` of a partition.
fn changelogs(context: RestoreContext<'_>, partition: Partition) -> [TopicPartition; 3] {
    let topology = context.rules.topology;
    [topology.state(), topology.windows(), topology.order()]
        .map(|topic| TopicPartition::new(topic, partition))
}

fn changelog_bounds(
    context: RestoreContext<'_>,
    [state, windows, order]: &[TopicPartition; 3],
) -> Result<ChangelogBounds, LogError> {
    let bounds = |at| bounds(context, at);
    Ok(ChangelogBounds { state: bounds(state)?, windows: bounds(windows)?, order: bounds(order)? })
}

/// Where the replay of each changelog begins. Windows leave the log by age, so records that are
/// gone before their replay are expired.
fn starts(progress: &TaskProgress, bounds: ChangelogBounds) -> [Offset; 3] {
    [progress.state, progress.windows.max(bounds.windows.start), progress.order]
}

impl RestoringTask {
    /// Fetches the committed offsets, and opens the store or continues with the follower's.
    pub(super) fn begin(
        context: RestoreContext<'_>,
        partition: Partition,
        follower: Option<ChangelogReader>,
        fenced: &mut BTreeSet<String>,
    ) -> Result<Self, EngineError> {
        let asking = |error| EngineError::of_log("restoring a task", error);
        let positions = positions(context, partition, fenced).map_err(asking)?;
        let changelogs = match follower {
            Some(mut changelogs) => {
                check_age(changelogs.current, context.now)?;
                changelogs.refresh_ends(context).map(|()| changelogs).map_err(asking)?
            }
            None => ChangelogReader::open(context, partition)?,
        };
        Ok(Self { changelogs, positions, assigned: context.now, reported: context.now })
    }

    /// Replays the next records of each changelog, and logs the progress now and then.
    pub(super) fn step(&mut self, context: RestoreContext<'_>) -> Result<ReplayStep, EngineError> {
        check_age(self.assigned, context.now)?;
        let step = self.changelogs.step(context)?;
        if context.now.0.saturating_sub(self.reported.0) >= REPORT_EVERY_MS {
            self.reported = context.now;
            let progress = self.progress(context.now);
            let seconds_left = progress.left_ms().map(|ms| ms.div_ceil(1_000));
            telemetry::task_restoring(progress.partition, progress.percent(), seconds_left);
        }
        Ok(step)
    }

    /// The current progress.
    pub(super) fn progress(&self, now: Millis) -> RestoreProgress {
        let ChangelogReader { partition, progress, tails, .. } = &self.changelogs;
        let at = [progress.state, progress.windows, progress.order];
        let (mut done, mut total) = (0, 0);
        for (tail, at) in tails.iter().zip(at) {
            done += at.min(tail.end).0.saturating_sub(tail.from.0);
            total += tail.end.0.saturating_sub(tail.from.0);
        }
        let elapsed_ms = u64::try_from(now.0.saturating_sub(self.assigned.0)).unwrap_or(0);
        RestoreProgress { partition: *partition, done, total, elapsed_ms }
    }

    /// Waits until there are records to replay, for at most `at_most`.
    pub(super) fn wait(&mut self, at_most: Duration) -> Result<(), LogError> {
        self.changelogs.reader.wait(at_most)
    }

    /// The lanes' positions, to be committed under this owner's name.
    pub(super) fn claimed_offsets(
        &self,
        context: RestoreContext<'_>,
    ) -> Vec<(TopicPartition, Committed)> {
        let lanes = lanes(context, self.changelogs.partition);
        let claimed_offsets = lanes
            .into_iter()
            .zip(self.positions.resolve(&self.changelogs.progress))
            .map(|(lane, offset)| (lane, Committed { offset, metadata: context.owner.to_owned() }));
        claimed_offsets.collect()
    }

    /// Logs now and then why the restored task does not run yet.
    pub(super) fn report_waiting(&mut self, why: &EngineError, now: Millis) {
        if now.0.saturating_sub(self.reported.0) >= REPORT_EVERY_MS {
            self.reported = now;
            telemetry::task_waits(self.changelogs.partition, why);
        }
    }

    /// Turns the restored state into what a running task starts with.
    pub(super) fn finish(
        self,
        context: RestoreContext<'_>,
        level: ValueLevel,
    ) -> Result<RestoredTask, EngineError> {
        let ChangelogReader { partition, state, ids, progress, replayed, .. } = self.changelogs;
        let positions = self.positions.resolve(&progress);
        self.positions.report_lost(&progress, &lanes(context, partition));
        let agrees = |lane: &Lane| {
            let known = self.positions.known(&progress, lane.index());
            known.is_none_or(|position| position == positions[lane.index()])
        };
        if let Some(lane) = Lane::ALL.into_iter().find(|lane| !agrees(lane)) {
            telemetry::progress_disagrees(partition, lane);
        }
        let took_ms = context.now.0.saturating_sub(self.assigned.0);
        telemetry::task_restored(partition, replayed, took_ms);
        let lane_ids = self.positions.ids;
        Ok(RestoredTask { partition, state, ids, progress, positions, lane_ids, level })
    }

    /// Stops the restore; what was replayed and not written is replayed by the next one.
    pub(super) fn stop(self) -> TaskState {
        self.changelogs.state
    }
}

/// The result of one step of a replay.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplayStep {
    /// Whether every changelog is replayed to its end.
    pub(super) done: bool,
    /// Whether it has replayed records or moved kept rows.
    pub(super) moved: bool,
}

fn lanes(context: RestoreContext<'_>, partition: Partition) -> [TopicPartition; Lane::COUNT] {
    context.rules.topology.lanes().each_ref().map(|topic| TopicPartition::new(topic, partition))
}

/// Asks the log where the lanes continue, after aborting what former owners left open.
fn positions(
    context: RestoreContext<'_>,
    partition: Partition,
    fenced: &mut BTreeSet<String>,
) -> Result<LanePositions, LogError> {
    let lanes = lanes(context, partition);
    let ask = || repeat(|| context.log.committed(context.group, &lanes));
    let mut committed = ask()?;
    let other = committed.iter().flatten().map(|c| c.metadata.as_str());
    let other = other.filter(|owner| !owner.is_empty() && *owner != context.owner);
    let owners: BTreeSet<String> = other.map(str::to_owned).collect();
    // A former owner may have died with an open transaction: this aborts it.
    for owner in owners.difference(&*fenced).cloned().collect::<Vec<_>>() {
        for id in transactional_ids(&owner) {
            drop(repeat(|| context.log.transactor(&id))?);
        }
        fenced.insert(owner);
        committed = ask()?;
    }
    let nothing = Bounds { start: Offset(0), end: Offset(0) };
    let ids = lane_ids(context)?;
    let mut known =
        LanePositions { committed: [None; Lane::COUNT], bounds: [nothing; Lane::COUNT], ids };
    for (n, committed) in committed.iter().enumerate() {
        known.bounds[n] = repeat(|| context.log.bounds(&lanes[n], Isolation::Committed))?;
        known.committed[n] = committed.as_ref().map(|at| at.offset);
    }
    Ok(known)
}

/// The ids of the lanes' topics.
fn lane_ids(context: RestoreContext<'_>) -> Result<[TopicId; Lane::COUNT], LogError> {
    let topics = repeat(|| context.log.topics())?;
    let mut ids = [TopicId::default(); Lane::COUNT];
    for (id, lane) in ids.iter_mut().zip(context.rules.topology.lanes()) {
        let topic = topics.iter().find(|topic| topic.spec.topic == *lane).map(TopicId::of);
        *id = topic.ok_or_else(|| {
            LogError::Invalid(format!(
                "the log does not list the topic {lane}, which DERIVE reads: it was deleted, or \
                 this user may not describe it; create it with `tidewire topics create`, or grant \
                 Describe"
            ))
        })?;
    }
    Ok(ids)
}

/// What the log knows of where the lanes continue.
#[derive(Clone, Copy, Debug)]
struct LanePositions {
    /// What the group has committed.
    committed: [Option<Offset>; Lane::COUNT],
    /// The ends of each lane.
    bounds: [Bounds; Lane::COUNT],
    /// The id of each lane's topic.
    ids: [TopicId; Lane::COUNT],
}

impl LanePositions {
    /// Where each lane continues. The group's offsets decide. They are missing if nothing was ever
    /// consumed, or if they expired while all members were stopped; in the second case the store's
    /// progress, which is written with every transaction, says what was consumed. If the topic has
    /// another id or ends before its progress, it was created again or has lost its end: it is
    /// consumed from its start, and copies are dropped as duplicates.
    fn resolve(&self, progress: &TaskProgress) -> [Offset; Lane::COUNT] {
        std::array::from_fn(|n| {
            let start = self.bounds[n].start;
            self.consumed(progress, n).unwrap_or(start).max(start)
        })
    }

    /// The next record of a lane that was not consumed; `None` if nothing was, or nothing of what
    /// the lane has now.
    fn consumed(&self, progress: &TaskProgress, lane: usize) -> Option<Offset> {
        let end = self.bounds[lane].end;
        self.committed[lane].or_else(|| self.known(progress, lane).filter(|at| *at <= end))
    }

    /// The store's position in a lane, unless it is one in a former topic.
    fn known(&self, progress: &TaskProgress, lane: usize) -> Option<Offset> {
        progress.lanes[lane].filter(|_| progress.lane_ids[lane] == self.ids[lane])
    }

    /// Counts the records that retention removed before they were read.
    fn report_lost(&self, progress: &TaskProgress, lanes: &[TopicPartition; Lane::COUNT]) {
        for (n, lane) in lanes.iter().enumerate() {
            let start = self.bounds[n].start;
            if let Some(at) = self.consumed(progress, n).filter(|at| *at < start) {
                telemetry::records_lost("lane", lane, start.0 - at.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(committed: Option<u64>, progress: Option<u64>, start: u64, end: u64) -> Offset {
        let bounds = Bounds { start: Offset(start), end: Offset(end) };
        resolved_in(
            TopicId(1),
            LanePositions {
                committed: [committed.map(Offset); Lane::COUNT],
                bounds: [bounds; Lane::COUNT],
                ids: [TopicId(1); Lane::COUNT],
            },
            progress,
        )
    }

    /// The same with progress in a topic of this id.
    fn resolved_in(id: TopicId, known: LanePositions, progress: Option<u64>) -> Offset {
        let (lanes, lane_ids) = ([progress.map(Offset); Lane::COUNT], [id; Lane::COUNT]);
        known.resolve(&TaskProgress { lanes, lane_ids, ..TaskProgress::default() })[0]
    }

    #[test]
    fn a_position_in_a_lane_that_was_created_again_skips_nothing() {
        let bounds = Bounds { start: Offset(0), end: Offset(90) };
        let known = LanePositions {
            committed: [None; Lane::COUNT],
            bounds: [bounds; Lane::COUNT],
            ids: [TopicId(2); Lane::COUNT],
        };
        assert_eq!(resolved_in(TopicId(1), known, Some(50)), Offset(0), "it has other records");
        assert_eq!(resolved_in(TopicId(2), known, Some(50)), Offset(50));
    }

    #[test]
    fn a_lane_continues_where_the_group_or_else_the_store_has_consumed_it() {
        assert_eq!(resolved(None, None, 3, 9), Offset(3), "nothing was consumed");
        assert_eq!(resolved(Some(7), Some(5), 3, 9), Offset(7), "the group decides");
        assert_eq!(resolved(None, Some(5), 3, 9), Offset(5), "its offsets have expired");
        assert_eq!(resolved(None, Some(5), 6, 9), Offset(6), "retention was faster");
        assert_eq!(resolved(None, Some(9), 3, 9), Offset(9), "all is consumed");
        assert_eq!(resolved(None, Some(50), 0, 9), Offset(0), "the lane was created again");
    }
}
