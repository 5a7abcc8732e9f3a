//! A restoring task: from what its store holds to what the log says is committed.
//!
//! The order is everything. First the group's committed offsets, after every transaction a former
//! owner left open was aborted; then the ends of the changelogs, uncommitted, so that nothing
//! committed can stand behind them; then the replay of what is committed, from the store's progress
//! until the *positions* reach those ends, since control records occupy offsets too.
//!
//! A store that can't be brought up from where it stands is destroyed and rebuilt, and counted.

use crate::derive::changelog;
use crate::derive::dedup::IDS;
use crate::derive::operator::Rules;
use crate::derive::order::OrderRecord;
use crate::derive::progress::Progress;
use crate::derive::step::Restored;
use crate::derive::tables::Tables;
use crate::overlay::State;
use crate::port::{
    Bounds, Committed, Isolation, Limit, Log, LogError, Reader, Slot, Store, StoreError, Stores,
};
use crate::record::{Millis, Offset, Partition, Record, TopicPartition};
use crate::telemetry;
use crate::topology::{Lane, TOMBSTONE_RETENTION_MS};
use crate::turn::{EngineError, repeat};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::time::Duration;

/// What is replayed at a time, so that a long restore never keeps a thread from its other tasks.
const REPLAY: Limit = Limit { records: 4_096, bytes: 4 << 20 };

/// Bytes of replayed writes after which they are handed to the writer.
const HAND_OVER_BYTES: usize = 8 << 20;

/// Tombstones leave a compacted topic after a while: a store away for longer, and a replay that
/// takes longer, would keep keys that were removed. Half of it for each.
const AWAY_MS_MAX: u64 = TOMBSTONE_RETENTION_MS / 2;

/// Milliseconds after which a follower asks for the ends again.
const ASK_MS: i64 = 60_000;

/// Milliseconds after which a restore says again how far it has come.
const TELL_MS: i64 = 5_000;

/// What a restore is given.
#[derive(Clone, Copy)]
pub(super) struct Ground<'a> {
    pub(super) rules: Rules<'a>,
    pub(super) tables: &'a Tables,
    pub(super) log: &'a dyn Log,
    pub(super) stores: &'a dyn Stores,
    pub(super) group: &'a str,
    /// The base of this loop's transactional ids.
    pub(super) owner: &'a str,
    pub(super) now: Millis,
}

/// The places of the changelogs in every array of three here.
const STATE: usize = 0;
const WINDOWS: usize = 1;
const ORDER: usize = 2;

/// One changelog being replayed.
struct Tail {
    at: TopicPartition,
    slot: Slot,
    from: Offset,
    end: Offset,
}

/// A partition's changelogs, being replayed onto its store.
pub(super) struct Tails {
    partition: Partition,
    state: State,
    progress: Progress,
    reader: Box<dyn Reader>,
    /// `state`, `state.windows`, `order`.
    tails: [Tail; 3],
    /// When the ends were asked.
    asked: Millis,
    /// A time up to which nothing is missing, tombstones included.
    current: Millis,
    replayed: u64,
    taken: Vec<Record>,
}

/// A task that replays its changelogs.
pub(super) struct Restoring {
    tails: Tails,
    positions: [Offset; 5],
    /// When the partition was assigned.
    assigned: Millis,
    /// When it was last said how far it has come.
    told: Millis,
}

/// How far a restore has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoreProgress {
    /// The task's partition.
    pub partition: Partition,
    /// Offsets of the changelogs replayed so far.
    pub done: u64,
    /// Offsets to replay in all.
    pub total: u64,
    /// Milliseconds since the partition was assigned.
    pub elapsed_ms: u64,
}

impl RestoreProgress {
    /// Milliseconds until the end if it goes on as fast; `None` before anything was replayed.
    pub fn left_ms(&self) -> Option<u64> {
        let left = u128::from(self.total.saturating_sub(self.done));
        let ms = (u128::from(self.elapsed_ms) * left).checked_div(u128::from(self.done))?;
        u64::try_from(ms).ok()
    }
}

impl Tails {
    /// Asks for the ends and opens the store.
    pub(super) fn open(ground: Ground<'_>, partition: Partition) -> Result<Self, EngineError> {
        let asking = |error| EngineError::of_log("restoring a task", error);
        let topology = ground.rules.topology;
        let at = [topology.state(), topology.windows(), topology.order()]
            .map(|topic| TopicPartition::new(topic, partition));
        let [state, windows, order] = at.each_ref().map(|at| bounds(ground, at).map_err(asking));
        let bounds = [state?, windows?, order?];
        let opening = |error| EngineError::of_store("opening a task's store", error);
        let (store, progress) = open(ground, partition, bounds).map_err(opening)?;
        let mut reader = repeat(|| ground.log.reader(Isolation::Committed)).map_err(asking)?;
        // Windows leave the log by age, so what is gone before they were replayed is expired.
        let windows = progress.windows.max(bounds[WINDOWS].start);
        let from = [progress.state, windows, progress.order];
        let mut slots = [Slot(0); 3];
        for n in 0..slots.len() {
            slots[n] = repeat(|| reader.add(&at[n], from[n])).map_err(asking)?;
        }
        let mut n = 0;
        let tails = at.map(|at| {
            n += 1;
            Tail { at, slot: slots[n - 1], from: from[n - 1], end: bounds[n - 1].end }
        });
        let (state, taken, now) = (State::new(store), Vec::new(), ground.now);
        let (asked, current) = (now, now);
        Ok(Self { partition, state, progress, reader, tails, asked, current, replayed: 0, taken })
    }

    /// Replays a piece. Whether the ends are reached, and how much was replayed now.
    pub(super) fn step(&mut self, ground: Ground<'_>) -> Result<Step, EngineError> {
        let mut step = Step { done: true, replayed: 0 };
        for n in 0..self.tails.len() {
            let slot = self.tails[n].slot;
            let reading = |error| EngineError::of_log("replaying a changelog", error);
            let mut taken = std::mem::take(&mut self.taken);
            repeat(|| self.reader.take(slot, REPLAY, &mut taken)).map_err(reading)?;
            step.replayed += taken.len();
            for record in taken.drain(..) {
                self.replay(ground, n, &record)?;
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
        self.replayed += step.replayed as u64;
        if step.done {
            self.current = self.current.max(self.asked);
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
        ground: Ground<'_>,
        tail: usize,
        record: &Record,
    ) -> Result<(), EngineError> {
        if tail != ORDER {
            match changelog::decode(&record.body) {
                Some((table, key, value)) if ground.tables.has(table) => {
                    self.state.restore(table, key, value);
                }
                _ => telemetry::changelog_ignored(),
            }
            return Ok(());
        }
        let order = OrderRecord::decode(record.body.value().unwrap_or_default());
        let order = order.map_err(|source| EngineError::Fatal {
            doing: "replaying the order topic; a later build may have written it",
            source: format!("{}/{}: {source}", self.tails[ORDER].at, record.offset.0).into(),
        })?;
        for run in &order.accepted {
            let at = Bytes::copy_from_slice(&run.at.0.to_be_bytes());
            for id in &run.ids {
                self.state.restore(IDS, Bytes::copy_from_slice(id), Some(at.clone()));
            }
        }
        self.progress.time = self.progress.time.max(order.time_after);
        for lane in Lane::ALL {
            if let Some(span) = order.spans[lane.index()] {
                self.progress.lanes[lane.index()] = Some(span.last.next());
            }
        }
        Ok(())
    }

    /// The piece of a follower, which goes on to new ends once it has reached those it knows.
    pub(super) fn follow(&mut self, ground: Ground<'_>) -> Result<(), EngineError> {
        check_age(self.current, ground.now)?;
        let step = self.step(ground)?;
        if step.done && ground.now.0.saturating_sub(self.asked.0) >= ASK_MS {
            self.go_on(ground).map_err(|error| EngineError::of_log("following a task", error))?;
        }
        Ok(())
    }

    /// Goes on to the ends as they are now.
    fn go_on(&mut self, ground: Ground<'_>) -> Result<(), LogError> {
        self.asked = ground.now;
        let at = [self.progress.state, self.progress.windows, self.progress.order];
        for (tail, from) in self.tails.iter_mut().zip(at) {
            (tail.from, tail.end) = (from, bounds(ground, &tail.at)?.end);
        }
        self.replayed = 0;
        Ok(())
    }
}

/// Whoever has not been at an end since then may have missed tombstones that left meanwhile. Begun
/// anew, it finds the store too old.
fn check_age(since: Millis, now: Millis) -> Result<(), EngineError> {
    if u64::try_from(now.0.saturating_sub(since.0)).unwrap_or(0) > AWAY_MS_MAX {
        return Err(EngineError::Retry {
            doing: "replaying a task's changelogs for longer than tombstones surely stay",
            source: "a key removed meanwhile may still be there".into(),
        });
    }
    Ok(())
}

fn bounds(ground: Ground<'_>, at: &TopicPartition) -> Result<Bounds, LogError> {
    repeat(|| ground.log.bounds(at, Isolation::Uncommitted))
}

impl Restoring {
    /// Asks the log, and opens the store or takes it over from who followed it.
    pub(super) fn begin(
        ground: Ground<'_>,
        (partition, follower): (Partition, Option<Tails>),
        fenced: &mut BTreeSet<String>,
    ) -> Result<Self, EngineError> {
        let asking = |error| EngineError::of_log("restoring a task", error);
        let positions = positions(ground, partition, fenced).map_err(asking)?;
        let tails = match follower {
            Some(mut tails) => {
                check_age(tails.current, ground.now)?;
                tails.go_on(ground).map(|()| tails).map_err(asking)?
            }
            None => Tails::open(ground, partition)?,
        };
        Ok(Self { tails, positions, assigned: ground.now, told: ground.now })
    }

    /// Replays a piece. Whether the task is restored, and how much was replayed now.
    pub(super) fn step(&mut self, ground: Ground<'_>) -> Result<Step, EngineError> {
        check_age(self.assigned, ground.now)?;
        let step = self.tails.step(ground)?;
        if ground.now.0.saturating_sub(self.told.0) >= TELL_MS {
            self.told = ground.now;
            telemetry::task_restoring(self.progress(ground.now));
        }
        Ok(step)
    }

    /// How far it has come.
    pub(super) fn progress(&self, now: Millis) -> RestoreProgress {
        let Tails { partition, progress, tails, .. } = &self.tails;
        let at = [progress.state, progress.windows, progress.order];
        let (mut done, mut total) = (0, 0);
        for (tail, at) in tails.iter().zip(at) {
            done += at.min(tail.end).0.saturating_sub(tail.from.0);
            total += tail.end.0.saturating_sub(tail.from.0);
        }
        let elapsed_ms = u64::try_from(now.0.saturating_sub(self.assigned.0)).unwrap_or(0);
        RestoreProgress { partition: *partition, done, total, elapsed_ms }
    }

    /// Waits for more to replay.
    pub(super) fn wait(&mut self, at_most: Duration) -> Result<(), LogError> {
        self.tails.reader.wait(at_most)
    }

    /// Where each lane stands, in this owner's name.
    pub(super) fn standing(&self, ground: Ground<'_>) -> Vec<(TopicPartition, Committed)> {
        let lanes = lanes(ground, self.tails.partition);
        let standing = lanes
            .into_iter()
            .zip(self.positions)
            .map(|(lane, offset)| (lane, Committed { offset, metadata: ground.owner.to_owned() }));
        standing.collect()
    }

    /// Says now and then that the task waits for its group.
    pub(super) fn tell_unclaimed(&mut self, why: &EngineError, now: Millis) {
        if now.0.saturating_sub(self.told.0) >= TELL_MS {
            self.told = now;
            telemetry::unclaimed(self.tails.partition, why);
        }
    }

    /// What the task begins to run with.
    pub(super) fn finish(self, ground: Ground<'_>) -> Result<Restored, EngineError> {
        let Tails { partition, state, progress, replayed, .. } = self.tails;
        let agrees = |lane: &Lane| {
            progress.lanes[lane.index()]
                .is_none_or(|position| position == self.positions[lane.index()])
        };
        if let Some(lane) = Lane::ALL.into_iter().find(|lane| !agrees(lane)) {
            telemetry::progress_disagrees(partition, lane);
        }
        let took_ms = ground.now.0.saturating_sub(self.assigned.0);
        telemetry::task_restored(partition, replayed, took_ms);
        let critical = TopicPartition::new(ground.rules.topology.lane(Lane::Critical), partition);
        let bounds = repeat(|| ground.log.bounds(&critical, Isolation::Committed))
            .map_err(|error| EngineError::of_log("restoring a task", error))?;
        Ok(Restored {
            partition,
            state,
            progress,
            positions: self.positions,
            critical_end: bounds.end,
        })
    }

    /// Gives the task up; what was replayed and not written is replayed again.
    pub(super) fn stop(self) -> State {
        self.tails.state
    }
}

/// What a piece of a restore came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) done: bool,
    pub(super) replayed: usize,
}

fn lanes(ground: Ground<'_>, partition: Partition) -> [TopicPartition; 5] {
    ground.rules.topology.lanes().each_ref().map(|topic| TopicPartition::new(topic, partition))
}

/// Where each lane goes on.
fn positions(
    ground: Ground<'_>,
    partition: Partition,
    fenced: &mut BTreeSet<String>,
) -> Result<[Offset; 5], LogError> {
    let lanes = lanes(ground, partition);
    let ask = || repeat(|| ground.log.committed(ground.group, &lanes));
    let mut committed = ask()?;
    let other = committed.iter().flatten().map(|c| c.metadata.as_str());
    let other = other.filter(|owner| !owner.is_empty() && *owner != ground.owner);
    let owners: BTreeSet<String> = other.map(str::to_owned).collect();
    // A former owner may have died inside a transaction: this aborts it.
    for owner in owners.difference(&*fenced).cloned().collect::<Vec<_>>() {
        for id in transactional_ids(&owner) {
            drop(repeat(|| ground.log.transactor(&id))?);
        }
        fenced.insert(owner);
        committed = ask()?;
    }
    let mut positions = [Offset(0); 5];
    for (n, committed) in committed.iter().enumerate() {
        let bounds = || repeat(|| ground.log.bounds(&lanes[n], Isolation::Committed));
        positions[n] = match committed {
            None => bounds()?.start,
            Some(at) => {
                let start = bounds()?.start;
                if at.offset < start {
                    telemetry::records_lost("lane", &lanes[n], start.0 - at.offset.0);
                }
                at.offset.max(start)
            }
        };
    }
    Ok(positions)
}

/// The transactional ids of an owner, two for each of its lines.
pub(super) fn transactional_ids(owner: &str) -> [String; 4] {
    ["a", "b", "c", "d"].map(|letter| format!("{owner}-{letter}"))
}

/// Opens the store, anew if its progress no longer fits the changelogs.
fn open(
    ground: Ground<'_>,
    partition: Partition,
    bounds: [Bounds; 3],
) -> Result<(Box<dyn Store>, Progress), StoreError> {
    let mut store = ground.stores.open(partition, ground.tables.specs())?;
    let fresh = Progress {
        state: bounds[STATE].start,
        windows: bounds[WINDOWS].start,
        order: bounds[ORDER].start,
        time: Millis(0),
        lanes: [None; 5],
    };
    let Some(stored) = store.progress()? else {
        return Ok((store, fresh));
    };
    if let Some(layout) = Progress::later(&stored) {
        store.close()?;
        return Err(of_a_later_build(partition, layout));
    }
    let reason = match Progress::decode(&stored) {
        Some(progress) => match misfit(&progress, bounds, ground.now) {
            None => return Ok((store, progress)),
            Some(reason) => reason,
        },
        None => "unreadable",
    };
    telemetry::store_rebuilt(partition, reason);
    store.close()?;
    ground.stores.destroy(partition)?;
    Ok((ground.stores.open(partition, ground.tables.specs())?, fresh))
}

/// It could be rebuilt, but who went back to an older build for a moment would pay for it twice.
fn of_a_later_build(partition: Partition, layout: u8) -> StoreError {
    let message = format!(
        "the state of partition {} was written by a later build (layout {layout}): start that \
         build again, or remove the state with `tidewire state rebuild`, and it comes back from \
         the log",
        partition.0
    );
    StoreError { message, source: None }
}

/// Why a store can't be brought up from where it stands.
fn misfit(progress: &Progress, bounds: [Bounds; 3], now: Millis) -> Option<&'static str> {
    let [state, windows, order] = bounds;
    let ahead = progress.state > state.end || progress.windows > windows.end;
    if ahead || progress.order > order.end {
        return Some("ahead of the log");
    }
    if progress.state < state.start || progress.order < order.start {
        return Some("older than the log's start");
    }
    let away = u64::try_from(now.0.saturating_sub(progress.time.0)).unwrap_or(0);
    (progress.state < state.end && away > AWAY_MS_MAX)
        .then_some("away for longer than tombstones stay")
}
