//! Verifies a replay: executes one transaction at a time and compares its results with the log.
//!
//! The sandbox gets the records of the lanes in the recorded order, and the ticks between them.
//! Then everything it makes is compared with the log. Verification ends at the first difference,
//! since results after it prove nothing.

use crate::derive::order::{LaneSpan, OrderRecord};
use crate::derive::progress::TaskProgress;
use crate::derive::{
    DEDUP_FILTER_BYTES, DeriveConfig, Executed, Sandbox, StoredTask, TickTime, table_specs,
};
use crate::port::{Isolation, LogError, Store, StoreError, Stores};
use crate::record::{Millis, Offset, Record, TopicPartition};
use crate::replay::ReadOnlyLog;
use crate::replay::cursor::PartitionCursor;
use crate::replay::divergence::{Divergence, DivergenceKind, ReplayError};
use crate::replay::log_matcher::{ChangelogMatcher, LogMatcher, OutputMatch};
use crate::replay::plan::{ReplayPlan, decode};
use crate::replay::task_spec::TaskSpec;
use crate::topology::Lane;
use crate::turn::repeat;

/// Counts of what was executed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Transactions before the span, executed for its state.
    pub before: u64,
    /// Transactions of the span.
    pub transactions: u64,
    /// Records read by them.
    pub records: u64,
    /// Outputs of them, all equal; their audit is equal too, and is not counted.
    pub outputs: u64,
    /// Outputs that retention or compaction has removed: only their hash was compared.
    pub only_hashed: u64,
}

/// The result of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyStep {
    /// A transaction is equal.
    Same,
    /// All transactions are equal.
    Done,
    /// The first difference.
    Differs(Box<Divergence>),
}

/// A replay under way.
pub struct Verification {
    log: ReadOnlyLog,
    task: TaskSpec,
    plan: ReplayPlan,
    order: PartitionCursor,
    lanes: [Option<PartitionCursor>; Lane::COUNT],
    sandbox: Sandbox,
    matcher: LogMatcher,
    changelog: ChangelogMatcher,
    replayed: Replayed,
    /// The last executed transaction, and its append time.
    last: (Offset, Millis),
}

impl Verification {
    /// Starts a plan. `stores` opens a copy of its checkpoint, or an empty store if it has none;
    /// the replay writes to it.
    pub fn begin(
        log: &ReadOnlyLog,
        task: &TaskSpec,
        plan: ReplayPlan,
        stores: &dyn Stores,
    ) -> Result<Self, ReplayError> {
        let mut store = stores.open(task.partition, &table_specs(task.operators))?;
        let progress = progress(&mut *store, &plan)?;
        let config = DeriveConfig {
            topology: task.topology.clone(),
            catalogue: task.catalogue,
            instance: String::new(),
            thread: 0,
            build: task.build.clone(),
            settings_hash: task.settings_hash,
            standby: false,
            dedup_filter_bytes: DEDUP_FILTER_BYTES,
            hash_seed: 0,
        };
        let state = TopicPartition::new(task.topology.state(), task.partition);
        let changelog = ChangelogMatcher::open(log, &state, progress.state)?;
        let stored = StoredTask { partition: task.partition, store, progress };
        Ok(Self {
            order: PartitionCursor::open(log, &task.order(), plan.start())?,
            lanes: [const { None }; Lane::COUNT],
            matcher: LogMatcher::new(log, &task.topology, plan.since),
            changelog,
            sandbox: Sandbox::new(config, task.operators, stored)?,
            replayed: Replayed::default(),
            last: (plan.start(), Millis::default()),
            log: log.clone(),
            task: task.clone(),
            plan,
        })
    }

    /// Counts of what was executed so far.
    pub fn replayed(&self) -> Replayed {
        self.replayed
    }

    /// Executes one transaction and compares it.
    pub fn step(&mut self) -> Result<VerifyStep, ReplayError> {
        let to = self.plan.to;
        let Some(record) = self.order.next()?.filter(|record| record.offset < to) else {
            return self.conclude();
        };
        let order = decode(&self.order.at, &record)?;
        self.last = (record.offset, record.timestamp);
        let (kind, outputs) = match self.execute(&order)? {
            Err(kind) => (Some(kind), 0),
            Ok(executed) => {
                let audit = self.audit_records(&executed);
                let outputs = u64::from(order.outputs).saturating_sub(audit);
                (self.compare(&order, &executed)?, outputs)
            }
        };
        if let Some(kind) = kind {
            return Ok(self.differs(kind));
        }
        if record.offset < self.plan.from {
            self.replayed.before += 1;
        } else {
            self.replayed.transactions += 1;
            self.replayed.records += order.sequence.iter().map(|(_, n)| u64::from(*n)).sum::<u64>();
            self.replayed.outputs += outputs;
        }
        Ok(VerifyStep::Same)
    }

    /// How many records the audit has.
    fn audit_records(&self, executed: &Executed) -> u64 {
        let audit = self.task.topology.out_audit();
        executed.outputs.iter().filter(|output| output.topic == *audit).count() as u64
    }

    fn differs(&self, kind: DivergenceKind) -> VerifyStep {
        VerifyStep::Differs(Box::new(Divergence {
            transaction: (self.order.at.clone(), self.last.0),
            kind,
        }))
    }

    /// Executes the transaction in the sandbox.
    fn execute(
        &mut self,
        order: &OrderRecord,
    ) -> Result<Result<Executed, DivergenceKind>, ReplayError> {
        self.sandbox.set_lane_ids(order.lane_ids);
        self.sandbox.set_level(order.level);
        self.sandbox.set_settings(order.settings_hash);
        let mut ticks = order.ticks.iter().peekable();
        let mut taken = 0;
        for (lane, count) in &order.sequence {
            let mut left = *count as usize;
            while left > 0 {
                while let Some(tick) = ticks.next_if(|tick| tick.after as usize <= taken) {
                    self.sandbox.tick(TickTime { at: tick.at, ended: tick.ended })?;
                }
                match self.next_of(*lane, order.spans[lane.index()])? {
                    Ok(record) => {
                        // More than were left are reported as a difference of what was read.
                        let entries = self.sandbox.take(*lane, &record)?;
                        left = left.saturating_sub(entries);
                        taken += entries;
                    }
                    Err(kind) => return Ok(Err(kind)),
                }
            }
        }
        for tick in ticks {
            self.sandbox.tick(TickTime { at: tick.at, ended: tick.ended })?;
        }
        Ok(Ok(self.sandbox.commit()?))
    }

    /// The next record of a lane, if the transaction read it.
    fn next_of(
        &mut self,
        lane: Lane,
        span: Option<LaneSpan>,
    ) -> Result<Result<Record, DivergenceKind>, ReplayError> {
        let at = TopicPartition::new(self.task.topology.lane(lane), self.task.partition);
        let wrong = |text| Ok(Err(DivergenceKind::Lane { text }));
        let Some(LaneSpan { first, last }) = span else {
            return wrong(format!("the transaction read from {at}, but has no offsets of it"));
        };
        let place = &mut self.lanes[lane.index()];
        if place.is_none() {
            let from = self.sandbox.progress().lanes[lane.index()].unwrap_or(first);
            *place = Some(open_lane(&self.log, &at, from)?);
        }
        let cursor = place.as_mut().expect("it was just opened");
        match cursor.next().map_err(|error| expired_meanwhile(&at, error))? {
            Some(record) if record.offset < first => wrong(format!(
                "{at}/{} was skipped: the transaction read from {} on",
                record.offset.0, first.0
            )),
            Some(record) if record.offset <= last => Ok(Ok(record)),
            _ => wrong(format!(
                "the transaction read more records of {at} up to {} than exist",
                last.0
            )),
        }
    }

    /// The first difference.
    fn compare(
        &mut self,
        order: &OrderRecord,
        executed: &Executed,
    ) -> Result<Option<DivergenceKind>, ReplayError> {
        let field = first_field(order, &executed.order);
        let about_outputs =
            matches!(field, None | Some(DivergenceKind::Order { field: "outputs", .. }));
        if !about_outputs {
            return Ok(field);
        }
        if self.last.0 >= self.plan.from {
            for (index, output) in executed.outputs.iter().enumerate() {
                let to = TopicPartition::new(&output.topic, output.partition);
                match self.matcher.find(output, self.last.1)? {
                    OutputMatch::Present => {}
                    OutputMatch::Expired | OutputMatch::Compacted => self.replayed.only_hashed += 1,
                    OutputMatch::Missing(nearest) => {
                        return Ok(Some(DivergenceKind::Output { index, to, nearest }));
                    }
                }
            }
        }
        self.changelog.pass(&executed.changelog)?;
        let unmatched = self.changelog.unmatched(Some(self.last.1))?;
        Ok(field.or(unmatched.map(|at| DivergenceKind::Changelog { at })))
    }

    /// Ends the span. If nothing follows in `order`, no record of the changelog may be unmatched.
    fn conclude(&mut self) -> Result<VerifyStep, ReplayError> {
        let at = self.task.order();
        let end = repeat(|| self.log.bounds(&at, Isolation::Uncommitted))?.end;
        let followed = (end > self.plan.to).then_some(self.last.1);
        Ok(match self.changelog.unmatched(followed)? {
            Some(at) => self.differs(DivergenceKind::Changelog { at }),
            None => VerifyStep::Done,
        })
    }
}

/// The progress of the state that a plan starts with.
fn progress(store: &mut dyn Store, plan: &ReplayPlan) -> Result<TaskProgress, StoreError> {
    let nothing = TaskProgress::default();
    let stored = store.progress()?;
    let found = match (&stored, plan.checkpoint) {
        (None, None) => Some(nothing),
        (Some(stored), Some(at)) => TaskProgress::decode(stored).filter(|p| p.order == at),
        _ => None,
    };
    found.ok_or_else(|| StoreError {
        message: format!(
            "the checkpoint at {} has another progress than its name says; remove it",
            plan.start().0
        ),
        source: None,
    })
}

fn open_lane(
    log: &ReadOnlyLog,
    at: &TopicPartition,
    from: Offset,
) -> Result<PartitionCursor, ReplayError> {
    PartitionCursor::open(log, at, from).map_err(|error| expired_meanwhile(at, error))
}

/// The plan checked that every record exists, so retention has removed it since.
fn expired_meanwhile(at: &TopicPartition, error: LogError) -> ReplayError {
    match error {
        LogError::OutOfRange { start, .. } => ReplayError::Refused(format!(
            "{at} now starts at {start}: retention removed records meanwhile; run it again from a \
             later point"
        )),
        error => error.into(),
    }
}

/// The first field that differs. Number and hash of the outputs count as one field: `outputs`.
fn first_field(recorded: &OrderRecord, replayed: &OrderRecord) -> Option<DivergenceKind> {
    let OrderRecord { level, before, after, spans, sequence, .. } = recorded;
    let OrderRecord { ticks, dead_letters, accepted, outputs, outputs_hash, .. } = recorded;
    let differs = |field, same: bool, texts: [String; 2]| {
        let [recorded, replayed] = texts;
        (!same).then_some(DivergenceKind::Order { field, recorded, replayed })
    };
    let texts = |one: &dyn std::fmt::Debug, other: &dyn std::fmt::Debug| {
        [format!("{one:?}"), format!("{other:?}")]
    };
    let new = replayed;
    None.or_else(|| differs("level", *level == new.level, texts(level, &new.level)))
        .or_else(|| {
            let same = *before == new.before;
            differs("time before", same, texts(before, &new.before))
        })
        .or_else(|| {
            let same = (spans, sequence) == (&new.spans, &new.sequence);
            differs("records read", same, texts(spans, &new.spans))
        })
        .or_else(|| differs("ticks", *ticks == new.ticks, texts(ticks, &new.ticks)))
        .or_else(|| {
            let same = *after == new.after;
            differs("time after", same, texts(after, &new.after))
        })
        .or_else(|| {
            let same = *dead_letters == new.dead_letters;
            differs("dead letters", same, texts(dead_letters, &new.dead_letters))
        })
        .or_else(|| {
            let ids =
                |order: &OrderRecord| order.accepted.iter().map(|run| run.ids.len()).sum::<usize>();
            let text = |order| format!("{} ids", ids(order));
            differs("accepted", *accepted == new.accepted, [text(recorded), text(new)])
        })
        .or_else(|| {
            let same = (outputs, outputs_hash) == (&new.outputs, &new.outputs_hash);
            let text = |order: &OrderRecord| {
                format!("{} with hash {:016x}", order.outputs, order.outputs_hash)
            };
            differs("outputs", same, [text(recorded), text(new)])
        })
}
