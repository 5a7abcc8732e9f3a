//! The transactions of a DERIVE loop: process, append, drain, send offsets, commit, apply.
//!
//! ```text
//! begin ─▶ append outputs ─▶ append changelog + order ─▶ drain ─▶ send offsets ─▶ commit ─▶ apply
//!    └──────────┴── on failure: abort, discard, read again ──┴───────────┘             │
//!                                  outcome unknown: initialise again, restore ◀────────┘
//! ```
//!
//! Each commit group has a transaction of its own per turn. All are written before the first is
//! drained; a failure aborts every one that is not committed yet.
//!
//! A task's committed state changes only after the log has confirmed the commit, and then all of it
//! at once. The drain precedes the offsets, because offsets of records whose outputs are still in
//! flight could be committed without those outputs.

use std::collections::BTreeMap;

use crate::derive::changelog;
use crate::derive::commit_group::{COMMIT_GROUPS, CommitGroup};
use crate::derive::derive_loop::{Derive, DeriveConfig, DeriveShared, HAND_OVER_MS};
use crate::derive::failure::CommitFailure;
use crate::derive::limits::TransactionLimits;
use crate::derive::order::OrderRecord;
use crate::derive::running::{RunningTask, TickTime};
use crate::derive::table_decl::Changelog;
use crate::derive::tables::TaskTables;
use crate::derive::task::{Task, TaskPhase};
use crate::derive::ticks::Ticks;
use crate::lanes::Intake;
use crate::port::{Committed, LogError};
use crate::record::{Body, Millis, Outgoing, Partition, TopicPartition};
use crate::telemetry;
use crate::topology::{Lane, Topology};
use crate::turn::{EngineError, TurnOutcome};

/// Bytes of outputs that are appended before a transaction is complete, so that the log writes them
/// while more are made.
const APPEND_BYTES: usize = 512 << 10;

/// Bytes of facts that may wait for a task; with more, they come first.
const FACTS_BEHIND_MAX_BYTES: u64 = 64 << 20;

/// Bytes of facts that may wait for a task although they come first; with more, only critical
/// records and facts are processed.
const FACTS_BEHIND_LIMIT_BYTES: u64 = 4 * FACTS_BEHIND_MAX_BYTES;

/// Bytes of facts of critical records that may wait for a task; with more, only facts are
/// processed. A critical record may bring several, and has the same share as they.
const URGENT_FACTS_BEHIND_MAX_BYTES: u64 = FACTS_BEHIND_MAX_BYTES;

/// Transactions aborted in a row after which the loop is rebuilt, with back-off.
const MAX_ABORTS: u32 = 10;

/// What a step takes records from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StepScope {
    /// The lanes.
    Lanes,
    /// The pack that the task has begun: no further record.
    OpenPack,
}

/// The lanes' offsets that a transaction commits.
type Offsets = Vec<(TopicPartition, Committed)>;

impl Derive {
    /// Processes a batch in each commit group and commits those that are not empty.
    pub(super) fn transact(&mut self) -> Result<TurnOutcome, CommitFailure> {
        let mut turned = TurnOutcome::default();
        let mut sealed = Vec::with_capacity(COMMIT_GROUPS);
        self.first = self.first.wrapping_add(1);
        self.ask_for_ticks()?;
        self.decide_intake();
        for n in 0..COMMIT_GROUPS {
            let group = (self.first + n) % COMMIT_GROUPS;
            let mut limits = TransactionLimits::default();
            self.tick(group, &mut limits)?;
            self.take(group, &mut limits)?;
            self.finish_packs(group, &mut limits)?;
            let Some(offsets) = self.seal(group, &mut turned)? else { continue };
            if limits.is_urgent() {
                // An urgent output does not wait for the other group.
                sealed.insert(0, (group, offsets));
                break;
            }
            sealed.push((group, offsets));
        }
        for (group, offsets) in sealed {
            self.commit(group, &offsets)?;
        }
        if turned.written > 0 {
            self.aborts = 0;
        }
        Ok(turned)
    }

    /// Lets facts come first while they have piled up in any task of the loop: any of its tasks may
    /// be the one that writes them.
    fn decide_intake(&mut self) {
        let Self { tasks, member, .. } = self;
        let (mut behind, mut urgent) = (0, 0);
        for running in tasks.values_mut().filter_map(Task::running) {
            let of_critical = running.behind_bytes(Lane::FactsUrgent, &mut **member);
            urgent = urgent.max(of_critical);
            behind = behind.max(of_critical + running.behind_bytes(Lane::Facts, &mut **member));
        }
        let intake = next_intake(self.intake, behind, urgent);
        if intake != self.intake {
            self.intake = intake;
            telemetry::facts_piled_up(self.shared.config.thread, intake, behind);
        }
        for running in self.tasks.values_mut().filter_map(Task::running) {
            running.take_from(intake);
        }
    }

    /// Requests the ends of the lanes of the tasks that need a tick; takes the answer.
    fn ask_for_ticks(&mut self) -> Result<(), EngineError> {
        let asking = |error| EngineError::of_log("reading the ends of the lanes", error);
        let now = self.shared.now();
        if self.ticks.may_request(now) {
            let mut lanes = Vec::new();
            for running in self.tasks.values_mut().filter_map(Task::running) {
                if running.tick_due(now).is_some_and(|due| due <= now) {
                    lanes.extend(Lane::ALL.map(|lane| running.lane(lane).clone()));
                }
            }
            if !lanes.is_empty() {
                self.ticks.request(&*self.shared.ports.log, &lanes, now).map_err(asking)?;
            }
        }
        self.ticks.poll().map_err(asking)
    }

    /// Injects a tick into each task of a commit group that needs it, once enough of its lanes are
    /// processed up to the ends that the log reported, and into those whose last tick has left
    /// timers that are due.
    fn tick(&mut self, group: usize, limits: &mut TransactionLimits) -> Result<(), CommitFailure> {
        let due = self.ticks.take(group);
        let shared = self.shared.clone();
        let Self { tasks, member, .. } = self;
        for (partition, task) in tasks {
            let Some(running) = task.running() else { continue };
            let mut next = running.tick_again().filter(|_| CommitGroup::of(*partition) == group);
            if let Some((due, ends)) = due.as_ref().and_then(|due| due.of(*partition)) {
                let ended = running.ended(&mut **member, ends);
                let doing = "reading the position of a lane";
                let ended = ended.map_err(|error| EngineError::of_log(doing, error))?;
                let tick = TickTime { at: due, ended };
                next = running.needs(tick).then_some(tick).or(next);
            }
            if let Some(tick) = next {
                running.tick(shared.rules(), tick)?;
                limits.opened(shared.now());
            }
        }
        Ok(())
    }

    /// Steps a commit group's running tasks in turn until no record is left, a limit is reached or
    /// a critical record waits in the other group.
    fn take(&mut self, group: usize, limits: &mut TransactionLimits) -> Result<(), CommitFailure> {
        let mut running: Vec<Partition> = self
            .tasks
            .iter()
            .filter(|(partition, task)| {
                CommitGroup::of(**partition) == group && matches!(task.phase, TaskPhase::Running(_))
            })
            .map(|(partition, _)| *partition)
            .collect();
        if running.is_empty() {
            return Ok(());
        }
        let first = self.first / COMMIT_GROUPS % running.len();
        running.rotate_left(first);
        loop {
            let mut taken = 0;
            for partition in &running {
                taken += self.step(*partition, limits, StepScope::Lanes)?;
                if limits.reached(self.shared.now()) {
                    return Ok(());
                }
            }
            if taken == 0 || (!limits.is_urgent() && self.critical_waits_elsewhere(group)?) {
                return Ok(());
            }
        }
    }

    /// Processes the rest of the packs that a commit group's tasks have begun: a lane's offset
    /// moves past a whole pack.
    fn finish_packs(
        &mut self,
        group: usize,
        limits: &mut TransactionLimits,
    ) -> Result<(), CommitFailure> {
        let of_group = |partition: &&Partition| CommitGroup::of(**partition) == group;
        for partition in self.tasks.keys().filter(of_group).copied().collect::<Vec<_>>() {
            while self.is_within_pack(partition) {
                self.step(partition, limits, StepScope::OpenPack)?;
            }
        }
        Ok(())
    }

    fn is_within_pack(&mut self, partition: Partition) -> bool {
        let running = self.tasks.get_mut(&partition).and_then(Task::running);
        running.is_some_and(|running| running.is_within_pack())
    }

    /// Whether a critical record waits in another commit group.
    fn critical_waits_elsewhere(&mut self, group: usize) -> Result<bool, CommitFailure> {
        for (partition, task) in &mut self.tasks {
            if CommitGroup::of(*partition) != group
                && let Some(running) = task.running()
                && running.critical_waits(&mut *self.member)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn step(
        &mut self,
        partition: Partition,
        limits: &mut TransactionLimits,
        scope: StepScope,
    ) -> Result<usize, CommitFailure> {
        let shared = self.shared.clone();
        let now = self.shared.now();
        let Some(running) = self.tasks.get_mut(&partition).and_then(Task::running) else {
            return Ok(0);
        };
        let before = running.uncommitted_bytes();
        let taken = match scope {
            StepScope::Lanes => running.step(shared.rules(), &mut *self.member, now)?,
            StepScope::OpenPack => running.step_in_pack(shared.rules())?,
        };
        if taken > 0 {
            limits.opened(now);
        }
        limits.records += taken;
        limits.bytes += running.uncommitted_bytes().saturating_sub(before);
        if running.batch.urgent {
            limits.urgent(now);
        }
        if running.batch.bytes() >= APPEND_BYTES {
            let group = &mut self.commit_groups[CommitGroup::of(partition)];
            running.batch.take_outputs(&mut group.outgoing);
            group.append()?;
        }
        Ok(taken)
    }

    /// Appends everything a commit group's batches have made, with their changelogs and `order`
    /// records. Returns the offsets to commit; `None` if all batches are empty.
    fn seal(
        &mut self,
        group: usize,
        turned: &mut TurnOutcome,
    ) -> Result<Option<Offsets>, CommitFailure> {
        let mut offsets = Vec::new();
        let shared = self.shared.clone();
        let outgoing = &mut self.commit_groups[group].outgoing;
        let mut empty = true;
        for running in batches(&mut self.tasks, group) {
            empty = false;
            running.commit_updates(shared.rules())?;
            running.batch.seal_audit(shared.config.topology.out_audit(), running.partition);
            turned.taken += running.batch.taken();
            running.batch.take_all_outputs(outgoing);
            turned.written += running.batch.counts.outputs as usize;
            put_offsets(running, &shared.owner, &mut offsets);
            seal(&shared, running, outgoing);
            turned.written += 1;
        }
        if empty {
            return Ok(None);
        }
        self.commit_groups[group].append()?;
        Ok(Some(offsets))
    }

    /// Commits a commit group's transaction, and then promotes the batches of its tasks.
    fn commit(&mut self, group: usize, offsets: &Offsets) -> Result<(), CommitFailure> {
        let ends = self.commit_groups[group].finish(&mut *self.member, offsets)?;
        telemetry::transaction_committed(ends.len());
        let now = self.shared.now();
        for running in batches(&mut self.tasks, group) {
            running.apply(self.shared.rules(), &ends);
            running.committed_at = Some(now);
        }
        Ok(())
    }

    /// Aborts the open transactions; every running task goes back to its committed state.
    pub(super) fn abort(&mut self, why: LogError) -> Result<(), EngineError> {
        telemetry::transaction_aborted(&why);
        self.aborts += 1;
        if self.aborts > MAX_ABORTS {
            return Err(EngineError::Retry {
                doing: "repeating an aborted transaction",
                source: why.into(),
            });
        }
        for group in &mut self.commit_groups {
            match group.abort() {
                Ok(()) => {}
                Err(LogError::Unknown(_) | LogError::Abort(_) | LogError::Retry(_)) => {
                    return self.reinitialise();
                }
                Err(error) => return Err(EngineError::of_log("aborting a transaction", error)),
            }
        }
        for task in self.tasks.values_mut() {
            if let TaskPhase::Running(running) = &mut task.phase {
                running.discard(&mut *self.member)?;
            }
        }
        Ok(())
    }
}

/// Which lanes records are taken from next, if so many facts wait, and so many of critical records.
fn next_intake(before: Intake, facts: u64, urgent: u64) -> Intake {
    match before {
        _ if urgent > URGENT_FACTS_BEHIND_MAX_BYTES => Intake::FactsAlone,
        Intake::FactsAlone if urgent > URGENT_FACTS_BEHIND_MAX_BYTES / 2 => Intake::FactsAlone,
        _ if facts > FACTS_BEHIND_LIMIT_BYTES => Intake::FactsOnly,
        Intake::All if facts > FACTS_BEHIND_MAX_BYTES => Intake::FactsFirst,
        Intake::FactsAlone | Intake::FactsOnly if facts < FACTS_BEHIND_LIMIT_BYTES / 2 => {
            Intake::FactsFirst
        }
        Intake::FactsAlone => Intake::FactsOnly,
        Intake::FactsFirst if facts < FACTS_BEHIND_MAX_BYTES / 2 => Intake::All,
        unchanged => unchanged,
    }
}

/// The tasks of a commit group that have something to commit.
fn batches(
    tasks: &mut BTreeMap<Partition, Task>,
    group: usize,
) -> impl Iterator<Item = &mut RunningTask> {
    tasks
        .iter_mut()
        .filter(move |(partition, _)| CommitGroup::of(**partition) == group)
        .filter_map(|(_, task)| task.running())
        .filter(|running| !running.batch.is_empty())
}

/// Adds the offsets of the lanes a task has read, under the owner's name.
fn put_offsets(running: &RunningTask, owner: &str, offsets: &mut Offsets) {
    for lane in Lane::ALL {
        if let Some(offset) = running.batch.next(lane) {
            let committed = Committed { offset, metadata: owner.to_owned() };
            offsets.push((running.lane(lane).clone(), committed));
        }
    }
}

/// Adds the task's changelog and its `order` record.
fn seal(shared: &DeriveShared, running: &mut RunningTask, outgoing: &mut Vec<Outgoing>) {
    running.seal();
    let topology = &shared.config.topology;
    put_changelog(running, topology, &shared.tables, outgoing);
    let order = order_record(running, &shared.config);
    outgoing.push(Outgoing {
        topic: topology.order().clone(),
        partition: running.partition,
        body: Body::new(None, Some(&order.encode()), &[]),
    });
}

/// Adds the task's changelog, one record per changed key.
pub(super) fn put_changelog(
    running: &RunningTask,
    topology: &Topology,
    tables: &TaskTables,
    outgoing: &mut Vec<Outgoing>,
) {
    for (table, key, value) in running.state.writes() {
        let topic = match tables.changelog(table) {
            Changelog::State => topology.state(),
            Changelog::Windows => topology.windows(),
            Changelog::Order => continue,
        };
        outgoing.push(Outgoing {
            topic: topic.clone(),
            partition: running.partition,
            body: changelog::encode(table, key, value.map(|value| &value[..])),
        });
    }
}

/// The `order` record of a batch, once every output was moved out.
pub(super) fn order_record(running: &mut RunningTask, config: &DeriveConfig) -> OrderRecord {
    let mut order = OrderRecord {
        build: config.build.clone(),
        settings_hash: config.settings_hash,
        catalogue_hash: config.catalogue.hash(),
        level: running.level,
        lane_ids: running.progress.lane_ids,
        before: running.progress.times,
        after: running.times,
        ..OrderRecord::default()
    };
    running.batch.describe(&mut order);
    order
}

impl RunningTask {
    /// When the task needs its next tick or hand-over, milliseconds since the epoch.
    pub(super) fn wanted_at(&mut self, ticks: &Ticks, handed: Millis, now: Millis) -> i64 {
        if self.has_due_timers {
            return now.0;
        }
        let tick = self.tick_due(now).map_or(i64::MAX, |first| ticks.wanted_at(first));
        let hand_over = if self.has_unwritten() { handed.0 + HAND_OVER_MS } else { i64::MAX };
        tick.min(hand_over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_follows_from_the_facts_that_wait_and_changes_back_at_half_of_a_limit() {
        let (few, many, most) = (100, FACTS_BEHIND_MAX_BYTES + 1, FACTS_BEHIND_LIMIT_BYTES + 1);
        let urgent = URGENT_FACTS_BEHIND_MAX_BYTES + 1;
        for (before, facts, of_critical, after) in [
            (Intake::All, few, 0, Intake::All),
            (Intake::All, many, 0, Intake::FactsFirst),
            (Intake::FactsFirst, many / 2 + 1, 0, Intake::FactsFirst),
            (Intake::FactsFirst, few, 0, Intake::All),
            (Intake::FactsFirst, most, 0, Intake::FactsOnly),
            (Intake::FactsOnly, most / 2, 0, Intake::FactsOnly),
            (Intake::FactsOnly, many, 0, Intake::FactsFirst),
            (Intake::All, urgent, urgent, Intake::FactsAlone),
            (Intake::FactsOnly, most, urgent, Intake::FactsAlone),
            (Intake::FactsAlone, many, urgent - 1, Intake::FactsAlone),
            (Intake::FactsAlone, most, urgent / 2, Intake::FactsOnly),
            (Intake::FactsAlone, few, 0, Intake::FactsFirst),
        ] {
            let found = next_intake(before, facts, of_critical);
            assert_eq!(found, after, "{before:?} with {facts} facts, {of_critical} urgent");
        }
    }
}
