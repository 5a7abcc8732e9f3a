//! A running task: processes records by lane scheduling and passes them through the operators.
//!
//! Everything a step changes is in the batch or uncommitted in the state until the log has
//! committed it: `discard` rolls back to the last commit, `apply` promotes the batch.
//!
//! A task's time is that of its lanes (`lane_times.rs`): records and ticks move it, and timers fire
//! by the slowest lane.

use tidewire_schemas::catalogue::Routes;
use tidewire_schemas::envelope::Reason;
use tidewire_schemas::event::EventView;

use crate::dead_letters::operator_failure::RequeuedFor;
use crate::derive::audit::layout::{AuditCause, AuditItem};
use crate::derive::batch::TaskBatch;
use crate::derive::dedup::IDS;
use crate::derive::failure::CommitFailure;
use crate::derive::forward::ForwardedTo;
use crate::derive::id_filter::IdFilter;
use crate::derive::intervals::Intervals;
use crate::derive::lane_times::{LaneSet, LaneTimes};
use crate::derive::open_pack::OpenPack;
use crate::derive::operator::Rules;
use crate::derive::progress::TaskProgress;
use crate::derive::source_offsets::{Occurrence, SourceOffsets};
use crate::derive::taken_record::{LaneRecord, TakenRecord};
use crate::derive::timers::TaskTimers;
use crate::derive::trigger::append_time;
use crate::lane_record::VERDICT;
use crate::lanes::{Intake, Lanes, Refill};
use crate::port::{LogError, Member, ReadLimit, ReaderSlot, StoreError};
use crate::record::{Millis, Offset, Partition, Record, TopicPartition};
use crate::task_state::TaskState;
use crate::telemetry;
use crate::topology::Lane;
use crate::turn::{EngineError, repeat};
use crate::value_level::ValueLevel;
use crate::verdict::{TopicId, Verdict};

/// Records and entries of packs that a task processes before the next task's turn and the check of
/// the limits.
pub(super) const STEP_RECORDS: usize = 64;

/// Bytes of outputs after which a step ends sooner: a record may cause some MiB of them.
const STEP_BYTES: usize = 1 << 20;

/// What is fetched of a lane at a time: enough to make fetches cheap, little enough that eight
/// tasks of six lanes stay within some tens of MiB.
const FETCH: ReadLimit = ReadLimit { records: 512, bytes: 512 << 10 };

/// Bytes that a record of a lane counts before one was fetched.
const UNKNOWN_RECORD_BYTES: u64 = 1_024;

/// Milliseconds after which a task asks for a tick only to settle its time, so that expired state
/// leaves the store although a lane is idle: often enough for windows of hours.
pub const SETTLE_MS: i64 = 600_000;

/// The time of a tick, and the lanes that were consumed to their ends then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TickTime {
    pub(crate) at: Millis,
    pub(crate) ended: LaneSet,
}

/// A task that processes records.
pub(super) struct RunningTask {
    pub(super) partition: Partition,
    /// By [`Lane::index`].
    pub(super) lanes: [TopicPartition; Lane::COUNT],
    slots: [ReaderSlot; Lane::COUNT],
    queues: Lanes,
    /// Mean bytes of the records that were last fetched of each lane.
    record_bytes: [u64; Lane::COUNT],
    /// The pack of facts whose entries are being processed.
    pub(super) pack: Option<OpenPack>,
    pub(super) state: TaskState,
    sources: SourceOffsets,
    pub(super) timers: TaskTimers,
    /// Whether the last tick has left timers that are due. It decides when the next tick comes, not
    /// what a tick does.
    pub(super) has_due_timers: bool,
    pub(super) ids: IdFilter,
    /// The intervals of coalesced updates.
    pub(super) intervals: Intervals,
    pub(super) batch: TaskBatch,
    /// Memory for the routing of events, used again.
    pub(super) routes: Routes,
    /// The offsets and the time that are committed.
    pub(super) progress: TaskProgress,
    /// The value level in force when it started; it never falls.
    pub(super) level: ValueLevel,
    /// Its time, records of the open transaction included.
    pub(super) times: LaneTimes,
    /// When it was last asked whether time can be settled, or the time of its first record. It
    /// decides when a tick is requested, not what a tick does.
    settle_from: Millis,
    /// The same at the last commit.
    settle_from_committed: Millis,
    /// Whether progress past control records waits to be handed over, although no state does.
    pub(super) progress_moved: bool,
    /// When the last transaction was committed; `None` once the progress is past its control
    /// records.
    pub(super) committed_at: Option<Millis>,
}

/// What a running task starts with.
pub(super) struct RestoredTask {
    pub(super) partition: Partition,
    pub(super) state: TaskState,
    pub(super) ids: IdFilter,
    pub(super) progress: TaskProgress,
    /// The position of each lane.
    pub(super) positions: [Offset; Lane::COUNT],
    /// The id of each lane's topic.
    pub(super) lane_ids: [TopicId; Lane::COUNT],
    /// The value level in force.
    pub(super) level: ValueLevel,
}

impl RunningTask {
    /// Starts to read the lanes at their positions.
    pub(super) fn start(
        restored: RestoredTask,
        rules: Rules<'_>,
        member: &mut dyn Member,
    ) -> Result<Self, EngineError> {
        let (positions, lane_ids) = (restored.positions, restored.lane_ids);
        let mut running = Self::new(restored, rules)?;
        for (lane, slot) in running.slots.iter_mut().enumerate() {
            *slot = repeat(|| member.add(&running.lanes[lane], positions[lane]))
                .map_err(|error| EngineError::of_log("starting to read a lane", error))?;
        }
        running.progress.lanes = positions.map(Some);
        running.progress.lane_ids = lane_ids;
        Ok(running)
    }

    /// A task that does not read the lanes: it can process the records it is given.
    pub(super) fn new(restored: RestoredTask, rules: Rules<'_>) -> Result<Self, EngineError> {
        let RestoredTask { partition, mut state, mut ids, progress, level, .. } = restored;
        let mut declared = rules.operators.iter().flat_map(|operator| operator.tables());
        if !declared.any(|decl| decl.spec.table == IDS) {
            ids.without_stored();
        }
        let lanes = Lane::ALL.map(|lane| TopicPartition::new(rules.topology.lane(lane), partition));
        let mut timers = TaskTimers::default();
        timers.load(&mut state).map_err(|e| EngineError::of_store("reading timers", e))?;
        let mut intervals = Intervals::default();
        intervals.load(&mut state).map_err(|e| EngineError::of_store("reading intervals", e))?;
        Ok(Self {
            partition,
            lanes,
            slots: [ReaderSlot(0); Lane::COUNT],
            queues: Lanes::default(),
            record_bytes: [UNKNOWN_RECORD_BYTES; Lane::COUNT],
            pack: None,
            state,
            sources: SourceOffsets::default(),
            ids,
            timers,
            intervals,
            has_due_timers: false,
            batch: TaskBatch::default(),
            routes: Routes::default(),
            times: progress.times,
            settle_from: progress.times.settled(),
            settle_from_committed: progress.times.settled(),
            progress,
            level,
            progress_moved: true,
            committed_at: None,
        })
    }

    /// Processes at most [`STEP_RECORDS`] records; returns how many.
    pub(super) fn step(
        &mut self,
        rules: Rules<'_>,
        member: &mut dyn Member,
        now: Millis,
    ) -> Result<usize, CommitFailure> {
        for taken in 0..STEP_RECORDS {
            if !self.process_entry(rules)? {
                let (queues, mut reader) = self.reader(member);
                let next = queues.next(now, &mut reader);
                let next = next.map_err(|e| EngineError::of_log("reading the lanes", e))?;
                let Some((lane, record)) = next else {
                    return Ok(taken);
                };
                self.begin(rules, lane, &record)?;
            }
            if self.batch.bytes() >= STEP_BYTES {
                return Ok(taken + 1);
            }
        }
        Ok(STEP_RECORDS)
    }

    /// Processes the rest of the open pack, or less if it makes many outputs; returns how many
    /// entries.
    pub(super) fn step_in_pack(&mut self, rules: Rules<'_>) -> Result<usize, CommitFailure> {
        let mut taken = 0;
        while self.is_within_pack() && self.process_entry(rules)? {
            taken += 1;
            if self.batch.bytes() >= STEP_BYTES {
                break;
            }
        }
        Ok(taken)
    }

    /// Adds a record to the batch, begins its audit, and moves the lane's time.
    pub(super) fn take<'a>(
        &mut self,
        rules: Rules<'_>,
        (lane, record): (Lane, TakenRecord<'a>),
        stated: Option<&Verdict>,
    ) -> LaneRecord<'a> {
        let TakenRecord { offset, entry, .. } = record;
        self.batch.take(lane, offset);
        let time = append_time(lane, &record, stated);
        let cause = AuditCause::Record { lane, offset, entry };
        self.batch.audit.begin(rules.audit, cause, time);
        stated.into_iter().for_each(|verdict| self.batch.audit.verdict(verdict));
        self.times.consume(lane, time);
        if self.settle_from == Millis::default() {
            self.settle_from = time;
        }
        LaneRecord { lane, record, time }
    }

    /// Processes a whole record, or an entry of a pack, and sends what can't wait of the totals
    /// that it adds to.
    pub(super) fn process_one(
        &mut self,
        rules: Rules<'_>,
        lane: Lane,
        record: TakenRecord<'_>,
    ) -> Result<(), CommitFailure> {
        self.process_record(rules, lane, record)?;
        self.flush_early(rules)
    }

    fn process_record(
        &mut self,
        rules: Rules<'_>,
        lane: Lane,
        record: TakenRecord<'_>,
    ) -> Result<(), CommitFailure> {
        let body = record.record();
        let verdict = body.and_then(|body| body.header(VERDICT)).map(Verdict::decode).transpose();
        let stated = verdict.as_ref().ok().and_then(Option::as_ref);
        let taken = self.take(rules, (lane, record), stated);
        // It has the verdict of its first time, by which it would be a copy.
        let requeued = body.filter(|_| lane == Lane::Facts).and_then(RequeuedFor::decode);
        if let Some(requeued) = requeued {
            return self.operate_again(rules, taken, requeued);
        }
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err(error) => {
                self.put_dead_letter(rules, taken, Reason::AvroDecode, &error.to_string());
                return Ok(());
            }
        };
        // Records without a verdict are DERIVE's own, which are written in transactions.
        if let Some(verdict) = &verdict
            && self.sources.take(&mut self.state, lane, &verdict.source)? == Occurrence::Copy
        {
            self.batch.counts.copies += 1;
            self.batch.audit.add(&AuditItem::SecondCopy);
            return Ok(());
        }
        let Some(value) = record.value() else {
            let detail = "the lane record has no value";
            self.put_dead_letter(rules, taken, Reason::EmptyValue, detail);
            return Ok(());
        };
        match EventView::decode(value) {
            Ok(event) => match ForwardedTo::of(&taken) {
                Some(to) => self.operate_forwarded(rules, taken, (&event, to)),
                None => self.operate(rules, taken, &event),
            },
            Err(error) => {
                let detail = error.to_string();
                self.put_dead_letter(rules, taken, Reason::AvroDecode, &detail);
                Ok(())
            }
        }
    }

    /// Decides which lanes records are taken from.
    pub(super) fn take_from(&mut self, intake: Intake) {
        self.queues.take_from(intake);
    }

    /// Bytes of a lane that wait for this task in the log and can be read, as far as it is known
    /// without asking: those behind an open transaction can't. A log counts records, so each of
    /// them counts as many bytes as those that were last fetched of its lane, on average.
    pub(super) fn behind_bytes(&self, lane: Lane, member: &mut dyn Member) -> u64 {
        let left = member.backlog(self.slots[lane.index()]);
        let left = left.filter(|left| !left.open_transaction);
        left.map_or(0, |left| left.records.saturating_mul(self.record_bytes[lane.index()]))
    }

    /// The scheduler, and the lanes as its source of records.
    fn reader<'a>(&'a mut self, member: &'a mut dyn Member) -> (&'a mut Lanes, LaneReader<'a>) {
        let Self { slots, lanes, record_bytes, queues, .. } = self;
        (queues, LaneReader { member, slots, lanes, record_bytes })
    }

    /// Whether a critical record, or a fact that follows from one, waits to be processed.
    pub(super) fn critical_waits(
        &mut self,
        member: &mut dyn Member,
    ) -> Result<bool, CommitFailure> {
        let (queues, mut reader) = self.reader(member);
        for lane in Lane::URGENT {
            let waits = queues.has_waiting(lane, &mut reader);
            if waits.map_err(|error| EngineError::of_log("reading the lanes", error))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The lanes that were processed up to these ends, which the log reports.
    pub(super) fn ended(
        &self,
        member: &mut dyn Member,
        ends: &[Option<Offset>; Lane::COUNT],
    ) -> Result<LaneSet, LogError> {
        let mut ended = LaneSet::default();
        for lane in Lane::ALL.into_iter().filter(|lane| self.queues.is_empty(*lane)) {
            let Some(end) = ends[lane.index()] else { continue };
            if member.position(self.slots[lane.index()])? >= end {
                ended.insert(lane);
            }
        }
        Ok(ended)
    }

    /// When the task needs its next tick, for its first timer or to settle its time; `None` if it
    /// needs none before its next record.
    pub(super) fn tick_due(&mut self, now: Millis) -> Option<Millis> {
        // If the clock was set back, settling must not wait until it has caught up.
        self.settle_from = self.settle_from.min(now);
        let is_behind = self.times.settled() < self.times.latest();
        let settles = is_behind.then(|| Millis(self.settle_from.0.saturating_add(SETTLE_MS)));
        self.timers.first().into_iter().chain(self.intervals.first()).chain(settles).min()
    }

    /// Whether a timer, or a change that waits for the end of an interval, is due at these times.
    pub(super) fn is_due(&self, times: &LaneTimes) -> bool {
        let ends = self.intervals.first().is_some_and(|first| first <= times.latest());
        ends || self.timers.is_due(times)
    }

    /// The tick that fires what the last one has left. It moves no lane, so it needs no end.
    pub(super) fn tick_again(&self) -> Option<TickTime> {
        let again = TickTime { at: self.times.latest(), ended: LaneSet::default() };
        self.has_due_timers.then_some(again)
    }

    /// Whether a tick makes a timer due, or settles time when that is due.
    pub(super) fn needs(&mut self, tick: TickTime) -> bool {
        let settled = self.times.settled();
        let mut times = self.times;
        times.tick(tick.at, tick.ended);
        let asked = tick.at.0.saturating_sub(self.settle_from.0) >= SETTLE_MS;
        if asked {
            self.settle_from = tick.at;
        }
        self.is_due(&times) || (asked && times.settled() > settled)
    }

    /// Writes to the state what is kept decoded while the transaction is open.
    pub(super) fn seal(&mut self) {
        self.sources.write(&mut self.state);
    }

    /// Reads the next accepted ids of the store for their filter. Returns whether there were any to
    /// read.
    pub(super) fn load_ids(&mut self) -> Result<bool, StoreError> {
        self.ids.load(self.state.store(), self.progress.times.settled())
    }

    /// Whether committed state or progress waits to be handed over.
    pub(super) fn has_unwritten(&self) -> bool {
        self.progress_moved || self.state.has_pending()
    }

    /// Hands committed state and its progress to the store's writer.
    pub(super) fn hand_over(&mut self) -> Result<(), StoreError> {
        self.state.hand_over(self.progress.encode())?;
        self.progress_moved = false;
        Ok(())
    }

    /// Bytes of uncommitted outputs, of their audit and of state changes.
    pub(super) fn uncommitted_bytes(&self) -> usize {
        self.batch.bytes() + self.batch.audit.bytes() + self.state.uncommitted_bytes()
    }

    /// The append time of a lane's next fetched record.
    pub(super) fn oldest(&self, lane: Lane) -> Option<Millis> {
        self.queues.oldest(lane)
    }

    /// The task's partition of a lane.
    pub(super) fn lane(&self, lane: Lane) -> &TopicPartition {
        &self.lanes[lane.index()]
    }

    /// Promotes the batch after its commit. `ends` are those that the transactor returned.
    pub(super) fn apply(&mut self, rules: Rules<'_>, ends: &[(TopicPartition, Offset)]) {
        for (at, end) in ends.iter().filter(|(at, _)| at.partition == self.partition) {
            if at.topic == *rules.topology.state() {
                self.progress.state = *end;
            } else if at.topic == *rules.topology.windows() {
                self.progress.windows = *end;
            } else if at.topic == *rules.topology.order() {
                self.progress.order = *end;
            }
        }
        let next = self.batch.successor();
        let batch = std::mem::replace(&mut self.batch, next);
        for lane in Lane::ALL {
            let position = &mut self.progress.lanes[lane.index()];
            *position = batch.next(lane).or(*position);
        }
        self.progress.times = self.times;
        self.settle_from_committed = self.settle_from;
        self.state.apply();
        self.ids.expire(self.progress.times.settled());
        telemetry::batch_committed(&batch.counts, batch.failed_calls(), batch.dropped());
    }

    /// Rolls back to the last commit after an abort, and reads the lanes from there again.
    pub(super) fn discard(&mut self, member: &mut dyn Member) -> Result<(), EngineError> {
        self.batch = TaskBatch::default();
        self.state.discard();
        self.sources.discard();
        self.queues.clear();
        self.pack = None;
        self.has_due_timers = false;
        self.times = self.progress.times;
        self.settle_from = self.settle_from_committed;
        for (slot, position) in self.slots.iter().zip(self.progress.lanes) {
            let to = position.expect("a running task has a position in every lane");
            repeat(|| member.seek(*slot, to))
                .map_err(|error| EngineError::of_log("going back after an abort", error))?;
        }
        self.intervals
            .load(&mut self.state)
            .map_err(|error| EngineError::of_store("reading intervals", error))?;
        self.timers
            .load(&mut self.state)
            .map_err(|error| EngineError::of_store("reading timers", error))
    }

    /// Stops reading the lanes; returns the state and its progress.
    pub(super) fn stop(self, member: &mut dyn Member) -> (TaskState, TaskProgress) {
        for slot in self.slots {
            member.remove(slot);
        }
        (self.state, self.progress)
    }
}

/// The lanes of one task as the scheduler's source of records.
struct LaneReader<'a> {
    member: &'a mut dyn Member,
    slots: &'a [ReaderSlot; Lane::COUNT],
    lanes: &'a [TopicPartition; Lane::COUNT],
    record_bytes: &'a mut [u64; Lane::COUNT],
}

impl Refill for LaneReader<'_> {
    type Error = LogError;

    fn refill(&mut self, lane: Lane, into: &mut Vec<Record>) -> Result<(), LogError> {
        let slot = self.slots[lane.index()];
        match repeat(|| self.member.take(slot, FETCH, into)) {
            Ok(_) => {
                let bytes: usize = into.iter().map(|record| record.body.as_bytes().len()).sum();
                if let Some(mean) = bytes.checked_div(into.len()) {
                    self.record_bytes[lane.index()] = mean as u64;
                }
                Ok(())
            }
            Err(LogError::OutOfRange { asked, start, .. }) if asked < start => {
                telemetry::records_lost("lane", &self.lanes[lane.index()], start - asked);
                self.member.seek(slot, Offset(start))
            }
            Err(error) => Err(error),
        }
    }
}
