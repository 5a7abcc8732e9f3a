//! The DERIVE loop: group assignments, restores, the transactions of a turn, and standby.
//!
//! The running tasks are split over two commit groups; one transaction covers what a group has
//! processed in a turn. Between turns no transaction is open, so assignments change only then.
//!
//! The loop never sleeps and spawns no threads: it waits only in the log's `wait`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidewire_schemas::catalogue::Catalogue;

use crate::derive::audit::AuditMode;
use crate::derive::commit_group::{COMMIT_GROUPS, CommitGroup};
use crate::derive::failure::CommitFailure;
use crate::derive::lag::Lag;
use crate::derive::operator::{Operator, Rules, plan_of};
use crate::derive::plan::OperatorPlan;
use crate::derive::restore::{RestoreContext, RestoreProgress, RestoringTask};
use crate::derive::standby::Standby;
use crate::derive::tables::TaskTables;
use crate::derive::task::{Assigned, Task, TaskPhase};
use crate::derive::ticks::Ticks;
use crate::lanes::Intake;
use crate::port::{Clock, Log, Member, MemberSpec, Stores, Wake};
use crate::record::{Millis, Partition};
use crate::telemetry;
use crate::topology::Topology;
use crate::turn::{EngineError, TurnOutcome, repeat};
use crate::value_level::ValueLevel;

/// Milliseconds after which committed state is handed to a store's writer.
pub const HAND_OVER_MS: i64 = 1_000;

/// Bytes of committed state after which it is handed over sooner.
pub const HAND_OVER_BYTES: usize = 8 << 20;

/// Milliseconds a turn waits at most while a task is restoring or an answer is to come.
const BUSY_WAIT_MS: u64 = 5;

/// The settings of a DERIVE loop.
#[derive(Clone, Debug)]
pub struct DeriveConfig {
    /// The topics.
    pub topology: Topology,
    /// The catalogue in force.
    pub catalogue: &'static Catalogue,
    /// The name of this process, unique and stable over restarts.
    pub instance: String,
    /// The number of this DERIVE thread in the process, from 0.
    pub thread: u32,
    /// The build's name; a replay refuses records of another build.
    pub build: String,
    /// The hash of the settings in force; [`AuditMode`] is a part of it.
    pub settings_hash: u64,
    /// Whether to follow the changelogs of partitions that another process owns; for one thread per
    /// state folder only.
    pub standby: bool,
    /// Bytes of memory for the filters of accepted ids, all partitions together.
    pub dedup_filter_bytes: usize,
    /// The seed of hash tables in memory, one that nobody can guess. No output depends on it.
    pub hash_seed: u64,
}

impl DeriveConfig {
    /// The share of one partition.
    pub(super) fn id_filter_bytes(&self) -> usize {
        self.dedup_filter_bytes / self.topology.partitions().max(1) as usize
    }
}

/// The ports of a DERIVE loop.
#[derive(Clone)]
pub struct DerivePorts {
    /// The log.
    pub log: Arc<dyn Log>,
    /// Opens the tasks' stores.
    pub stores: Arc<dyn Stores>,
    /// The wall clock, for a batch's deadlines and for ticks.
    pub clock: Arc<dyn Clock>,
}

/// What a loop and its tasks share and never change.
pub(super) struct DeriveShared {
    pub(super) config: DeriveConfig,
    pub(super) ports: DerivePorts,
    pub(super) operators: &'static [&'static dyn Operator],
    pub(super) plan: OperatorPlan,
    pub(super) tables: TaskTables,
    pub(super) group: String,
    /// The base of the transactional ids, and the metadata of committed offsets.
    pub(super) owner: String,
}

impl DeriveShared {
    pub(super) fn rules(&self) -> Rules<'_> {
        Rules {
            topology: &self.config.topology,
            catalogue: self.config.catalogue,
            operators: self.operators,
            plan: &self.plan,
            audit: AuditMode::of(self.config.settings_hash),
        }
    }

    /// What a restore reads.
    pub(super) fn restore_context(&self) -> RestoreContext<'_> {
        RestoreContext {
            rules: self.rules(),
            tables: &self.tables,
            log: &*self.ports.log,
            stores: &*self.ports.stores,
            group: &self.group,
            owner: &self.owner,
            id_filter_bytes: self.config.id_filter_bytes(),
            hash_seed: self.config.hash_seed,
            now: self.now(),
        }
    }

    pub(super) fn now(&self) -> Millis {
        self.ports.clock.now()
    }
}

/// The DERIVE loop: repeat [`Derive::turn`], then call [`Derive::close`].
pub struct Derive {
    pub(super) shared: Arc<DeriveShared>,
    pub(super) member: Box<dyn Member>,
    pub(super) commit_groups: [CommitGroup; COMMIT_GROUPS],
    pub(super) tasks: BTreeMap<Partition, Task>,
    pub(super) assigned: BTreeMap<Partition, Assigned>,
    /// Former owners whose transactions were aborted since the last change of the group: none of
    /// them can have begun another one on an assigned partition.
    pub(super) fenced: BTreeSet<String>,
    /// The value level in force; `None` until it is read again after a change of the group.
    pub(super) level: Option<ValueLevel>,
    /// Whether the group has assigned partitions, even if none.
    pub(super) joined: bool,
    /// Turns so far: they rotate which commit group and which of its tasks is first, so that none
    /// is always last.
    pub(super) first: usize,
    /// Transactions aborted in a row.
    pub(super) aborts: u32,
    pub(super) ticks: Ticks,
    /// Which lanes records are taken from.
    pub(super) intake: Intake,
    /// When a question about a quiet task failed last.
    pub(super) quiet_failed_at: Option<Millis>,
    /// The lag of the lanes, for metrics.
    lag: Lag,
    /// The partitions followed as a standby, if that is configured.
    pub(super) standby: Option<Standby>,
}

impl Derive {
    /// Initialises the transactional ids, then joins the group; the first turns restore the tasks.
    pub fn new(
        config: DeriveConfig,
        ports: DerivePorts,
        operators: &'static [&'static dyn Operator],
    ) -> Result<Self, EngineError> {
        let topology = &config.topology;
        let group = topology.derive_group();
        let owner = format!("{group}-{}-{}", config.instance, config.thread);
        let starting = |error| EngineError::of_log("starting DERIVE", error);
        let commit_groups = CommitGroup::all(&*ports.log, &owner)?;
        let spec = MemberSpec {
            group: group.clone(),
            topics: topology.lanes().to_vec(),
            instance: format!("{}-{}", config.instance, config.thread),
        };
        let member = repeat(|| ports.log.member(&spec)).map_err(starting)?;
        let tables = TaskTables::of(operators);
        let standby = config.standby.then(Standby::default);
        let plan = plan_of(config.catalogue, operators);
        let shared = DeriveShared { config, ports, operators, plan, tables, group, owner };
        Ok(Self {
            shared: Arc::new(shared),
            member,
            commit_groups,
            tasks: BTreeMap::new(),
            assigned: BTreeMap::new(),
            fenced: BTreeSet::new(),
            level: None,
            joined: false,
            first: 0,
            aborts: 0,
            ticks: Ticks::default(),
            intake: Intake::default(),
            quiet_failed_at: None,
            lag: Lag::default(),
            standby,
        })
    }

    /// Processes and commits one batch per commit group, and advances restoring tasks. If there is
    /// nothing to do it waits for at most `wait`.
    pub fn turn(&mut self, wait: Duration) -> Result<TurnOutcome, EngineError> {
        self.follow_assignments()?;
        let moved = self.advance_tasks()?;
        let mut turned = match self.transact() {
            Ok(turned) => turned,
            Err(CommitFailure::Stop(error)) => return Err(error),
            Err(CommitFailure::Abort(error)) => {
                self.abort(error)?;
                TurnOutcome::default()
            }
            Err(CommitFailure::Unknown(error)) => {
                telemetry::transaction_unknown(&error);
                self.reinitialise()?;
                TurnOutcome::default()
            }
        };
        if let Some(standby) = self.standby.as_mut().filter(|_| self.joined) {
            let ours = |partition| self.tasks.contains_key(&partition);
            standby.follow(self.shared.restore_context(), ours)?;
        }
        self.pass_control_records();
        self.lag.sample(&*self.shared.ports.log, self.shared.now(), &self.tasks);
        turned.joined = self.joined;
        turned.restoring = self.waiting().next().is_some()
            || self.tasks.values().any(|task| matches!(task.phase, TaskPhase::Restoring(_)));
        if turned.taken == 0 && turned.written == 0 && !moved {
            self.idle(wait)?;
        }
        Ok(turned)
    }

    /// The progress of each restore, by partition.
    pub fn restores(&self) -> Vec<RestoreProgress> {
        let now = self.shared.now();
        let progress = |task: &Task| match &task.phase {
            TaskPhase::Restoring(restoring) => Some(restoring.progress(now)),
            _ => None,
        };
        self.tasks.values().filter_map(progress).collect()
    }

    /// Writes all committed state to the stores and closes them; blocks on the disk.
    pub fn close(mut self) -> Result<(), EngineError> {
        let tasks = std::mem::take(&mut self.tasks).into_values().collect();
        let left = self.close_tasks(tasks)?;
        self.release_offsets(&left);
        Ok(())
    }

    /// The same without a commit of offsets, for a process that failed: if topics were created
    /// again, its offsets mean other records there.
    pub fn close_without_offsets(mut self) -> Result<(), EngineError> {
        let tasks = std::mem::take(&mut self.tasks).into_values().collect();
        self.close_tasks(tasks).map(drop)
    }

    /// Ends a turn's wait from another thread.
    pub fn waker(&self) -> Arc<dyn Wake> {
        self.member.waker()
    }

    /// Resolves a commit of unknown outcome: initialising the transactional ids again completes or
    /// aborts it, and every running task restores and so reads the outcome from the log.
    pub(super) fn reinitialise(&mut self) -> Result<(), EngineError> {
        self.commit_groups = CommitGroup::all(&*self.shared.ports.log, &self.shared.owner)?;
        for partition in self.tasks.keys().copied().collect::<Vec<_>>() {
            let Some(mut task) = self.tasks.remove(&partition) else { continue };
            match task.leave() {
                TaskPhase::Running(running) => {
                    let (state, _) = running.stop(&mut *self.member);
                    state
                        .close()
                        .map_err(|e| EngineError::of_store("closing a task's store", e))?;
                    let context = self.shared.restore_context();
                    let restoring =
                        RestoringTask::begin(context, partition, None, &mut self.fenced)?;
                    task.enter(TaskPhase::Restoring(Box::new(restoring)));
                }
                phase => task.phase = phase,
            }
            self.tasks.insert(partition, task);
        }
        Ok(())
    }

    /// Waits until a record, a tick or a hand-over is due, for at most `wait`.
    fn idle(&mut self, wait: Duration) -> Result<(), EngineError> {
        let waiting = |error| EngineError::of_log("waiting for records", error);
        let now = self.shared.now();
        let mut at_most = wait;
        if self.ticks.is_pending() {
            at_most = at_most.min(Duration::from_millis(BUSY_WAIT_MS));
        }
        for task in self.tasks.values_mut() {
            let until = match &mut task.phase {
                TaskPhase::Restoring(restoring) => {
                    let busy = Duration::from_millis(BUSY_WAIT_MS).min(wait);
                    return restoring.wait(busy).map_err(waiting);
                }
                TaskPhase::Running(running) => running.wanted_at(&self.ticks, task.handed, now),
                TaskPhase::Draining(_) | TaskPhase::Closed => continue,
            };
            let ms = u64::try_from(until.saturating_sub(now.0)).unwrap_or(0);
            at_most = at_most.min(Duration::from_millis(ms));
        }
        self.member.wait(at_most).map_err(waiting)
    }
}
