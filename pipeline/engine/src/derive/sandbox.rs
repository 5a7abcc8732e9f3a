//! A task without log, group or clock, for replays and for the test driver of operators.
//!
//! What a task makes follows from its state, the records, their order and the ticks, and from
//! nothing else. A caller that has all four can execute the task's transactions again. The sandbox
//! runs the same [`RunningTask`] as production and cannot write anything but its store.

use crate::derive::audit::AuditMode;
use crate::derive::commit::{order_record, put_changelog};
use crate::derive::derive_loop::{DeriveConfig, HAND_OVER_BYTES};
use crate::derive::failure::CommitFailure;
use crate::derive::id_filter::IdFilter;
use crate::derive::lane_times::LaneTimes;
use crate::derive::operator::{Operator, Rules, plan_of};
use crate::derive::order::OrderRecord;
use crate::derive::plan::OperatorPlan;
use crate::derive::progress::TaskProgress;
use crate::derive::running::{RestoredTask, RunningTask, TickTime};
use crate::derive::skipped::KeptRowsMove;
use crate::derive::tables::{TaskTables, task_state};
use crate::port::{Store, StoreError, TableSpec};
#[cfg(test)]
use crate::record::Millis;
use crate::record::{Offset, Outgoing, Partition, Record};
use crate::task_state::TaskState;
use crate::topology::Lane;
use crate::turn::EngineError;
use crate::value_level::ValueLevel;
use crate::verdict::TopicId;

/// The operators of a task.
pub type Operators = &'static [&'static dyn Operator];

/// The results of one transaction.
pub(crate) struct Executed {
    pub(crate) order: OrderRecord,
    pub(crate) outputs: Vec<Outgoing>,
    /// The changelog records.
    pub(crate) changelog: Vec<Outgoing>,
}

/// A task's store and the progress read from it.
pub(crate) struct StoredTask {
    pub(crate) partition: Partition,
    pub(crate) store: Box<dyn Store>,
    pub(crate) progress: TaskProgress,
}

/// A task without a log.
pub(crate) struct Sandbox {
    config: DeriveConfig,
    operators: Operators,
    plan: OperatorPlan,
    tables: TaskTables,
    running: RunningTask,
}

/// The tables in the store of a task with these operators.
pub fn table_specs(operators: Operators) -> Vec<TableSpec> {
    TaskTables::of(operators).specs().to_vec()
}

impl Sandbox {
    /// A task with the state of a store.
    pub(crate) fn new(
        config: DeriveConfig,
        operators: Operators,
        stored: StoredTask,
    ) -> Result<Self, EngineError> {
        let StoredTask { partition, store, progress } = stored;
        let tables = TaskTables::of(operators);
        let mut state = task_state(store, config.hash_seed);
        let moving = |error| EngineError::of_store("moving kept rows to their tables", error);
        let mut rows = KeptRowsMove::begin();
        // Each portion begins behind the one before.
        while rows.step(&mut state, progress.encode(), |of| tables.has(of)).map_err(moving)? {}
        let restored = RestoredTask {
            partition,
            state,
            ids: IdFilter::new(config.id_filter_bytes()),
            progress,
            positions: [Offset(0); Lane::COUNT],
            lane_ids: progress.lane_ids,
            level: ValueLevel::FIRST,
        };
        let plan = plan_of(config.catalogue, operators);
        let running = RunningTask::new(restored, rules(&config, operators, &plan))?;
        Ok(Self { tables, config, operators, plan, running })
    }

    /// The committed offsets and time.
    pub(crate) fn progress(&self) -> &TaskProgress {
        &self.running.progress
    }

    /// Sets the ids of the lanes' topics, which the next transaction writes.
    pub(crate) fn set_lane_ids(&mut self, ids: [TopicId; Lane::COUNT]) {
        self.running.progress.lane_ids = ids;
    }

    /// Sets the value level in force, as far as these operators have versions of it.
    pub(crate) fn set_level(&mut self, level: ValueLevel) {
        self.running.level = level.min(self.tables.highest_level());
    }

    /// Sets the hash of the settings in force, and with it whether an audit is written.
    pub(crate) fn set_settings(&mut self, hash: u64) {
        self.config.settings_hash = hash;
    }

    /// The time, records of the open transaction included.
    pub(crate) fn times(&self) -> LaneTimes {
        self.running.times
    }

    /// Processes a record, of a pack all entries; returns how many records that were.
    pub(crate) fn take(&mut self, lane: Lane, record: &Record) -> Result<usize, EngineError> {
        let rules = rules(&self.config, self.operators, &self.plan);
        self.running.process(rules, lane, record).map_err(stopped)
    }

    /// Injects a tick.
    pub(crate) fn tick(&mut self, tick: TickTime) -> Result<(), EngineError> {
        let rules = rules(&self.config, self.operators, &self.plan);
        self.running.tick(rules, tick).map_err(stopped)
    }

    /// The end of the first interval for which a change waits.
    #[cfg(test)]
    pub(crate) fn first_interval(&self) -> Option<Millis> {
        self.running.intervals.first()
    }

    /// Whether a timer is due at these times.
    pub(crate) fn has_due_timers(&self, times: &LaneTimes) -> bool {
        self.running.is_due(times)
    }

    /// Reads the first timers again, after the state was changed from outside.
    pub(crate) fn reload_timers(&mut self) -> Result<(), StoreError> {
        self.running.intervals.load(&mut self.running.state)?;
        self.running.timers.load(&mut self.running.state)
    }

    /// The state, writes of the open transaction included.
    pub(crate) fn state(&mut self) -> &mut TaskState {
        &mut self.running.state
    }

    /// Reads the next accepted ids of the store for their filter; `false`: all are read.
    pub(crate) fn load_ids(&mut self) -> Result<bool, StoreError> {
        self.running.load_ids()
    }

    /// Ends the transaction as a commit would.
    pub(crate) fn commit(&mut self) -> Result<Executed, EngineError> {
        let mut executed =
            Executed { order: OrderRecord::default(), outputs: Vec::new(), changelog: Vec::new() };
        let in_force = rules(&self.config, self.operators, &self.plan);
        self.running.commit_updates(in_force).map_err(stopped)?;
        let topology = &self.config.topology;
        self.running.batch.seal_audit(topology.out_audit(), self.running.partition);
        self.running.batch.take_all_outputs(&mut executed.outputs);
        self.running.seal();
        put_changelog(&self.running, topology, &self.tables, &mut executed.changelog);
        executed.order = order_record(&mut self.running, &self.config);
        self.running.apply(rules(&self.config, self.operators, &self.plan), &[]);
        self.write_behind()
            .map_err(|error| EngineError::of_store("writing a sandbox's state", error))?;
        Ok(executed)
    }

    /// Hands state over once there is much of it, so that memory stays bounded, and reads accepted
    /// ids of the store.
    fn write_behind(&mut self) -> Result<(), StoreError> {
        self.load_ids()?;
        let state = &mut self.running.state;
        if state.pending_bytes() > HAND_OVER_BYTES {
            state.hand_over(self.running.progress.encode())?;
        }
        state.acknowledge().map(drop)
    }
}

fn rules<'a>(config: &'a DeriveConfig, operators: Operators, plan: &'a OperatorPlan) -> Rules<'a> {
    let audit = AuditMode::of(config.settings_hash);
    Rules { topology: &config.topology, catalogue: config.catalogue, operators, plan, audit }
}

fn stopped(failure: CommitFailure) -> EngineError {
    match failure {
        CommitFailure::Stop(error) => error,
        CommitFailure::Abort(error) | CommitFailure::Unknown(error) => {
            EngineError::of_log("running a sandbox", error)
        }
    }
}
