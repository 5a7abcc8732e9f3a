//! The operator interface: a value without fields that declares tables and handles events and
//! timers.
//!
//! All that an operator remembers is in its task's tables, and everything it causes goes through
//! its [`Context`]. So an aborted transaction undoes all of it, and a task can move to another
//! machine.
//!
//! An operator never reads a clock (time is a value), never fails because of timing, never
//! iterates over anything unordered, and sees only the state of its own event's key.

use std::ops::ControlFlow;

use bytes::Bytes;
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::event::EventView;

use crate::derive::accepted_id::AcceptedId;
use crate::derive::audit::layout::AuditItem;
use crate::derive::audit::{AuditMode, timer_link, update_link};
use crate::derive::batch::TaskBatch;
use crate::derive::effect_limits::{row_excess, row_fits};
use crate::derive::id_filter::IdFilter;
use crate::derive::input::Input;
use crate::derive::intervals::INTERVALS;
use crate::derive::lane_times::LaneTimes;
use crate::derive::partial_decl::{PartialDecl, PartialSpec};
use crate::derive::plan::{Events, OperatorPlan, PlannedOperator};
use crate::derive::table_decl::TableDecl;
use crate::derive::timers::{TIMERS, TaskTimers, TimerKey, TimerKind, TimerOwner};
use crate::derive::trigger::{KeptCause, Trigger};
use crate::derive::updates::{Mark, Updates};
use crate::port::{KeyRange, StoreError, Table};
use crate::record::{Millis, Partition};
use crate::task_state::TaskState;
use crate::telemetry::DroppedByOperator;
use crate::topology::Topology;
use crate::value_level::ValueLevel;

/// What happens to an event after an operator has processed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The next operator processes it.
    Continue,
    /// It is a duplicate; no further operator processes it.
    Duplicate,
}

/// Why an operator failed.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The store failed; the loop ends. Bytes that can't be decoded are none of its failures.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operator can't process the event or timer. That becomes a dead letter at once: an
    /// operator depends on nothing that a retry could change.
    #[error("{0}")]
    Failed(String),
}

/// What a failed call of an operator rolls back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// The effects of the call; delivery and the other operators go on.
    RollBackCall,
    /// Everything that the event has caused, so that it passes as a whole once it is requeued. For
    /// operators without which the event must not be processed.
    RollBackEvent,
}

/// A step of a task: it gets events and timers.
pub trait Operator: Sync {
    /// Its stable number, from 1; timers are stored under it.
    fn number(&self) -> u8;

    /// Its name in dead letters and metrics: lower-case letters, digits and underscores.
    fn name(&self) -> &'static str;

    /// The tables it keeps.
    fn tables(&self) -> &'static [TableDecl] {
        &[]
    }

    /// Which events it gets.
    fn events(&self) -> Events {
        Events::Every
    }

    /// What a failure on an event rolls back.
    fn on_failure(&self) -> OnFailure {
        OnFailure::RollBackCall
    }

    /// Processes an event.
    fn on_event(&self, event: &Input<'_>, context: &mut Context<'_>)
    -> Result<Flow, OperatorError>;

    /// Its coalesced updates, if it has any.
    fn updates(&self) -> Option<Updates> {
        None
    }

    /// Sends what changed of the current account and key: `own` is what [`Context::mark`] got.
    fn on_commit(&self, _own: &[u8], _context: &mut Context<'_>) -> Result<(), OperatorError> {
        Ok(())
    }

    /// Its partials: totals over many tasks.
    fn partials(&self) -> &'static [&'static dyn PartialDecl] {
        &[]
    }

    /// Handles one of its timers that is due.
    fn on_timer(&self, _key: &[u8], _context: &mut Context<'_>) -> Result<(), OperatorError> {
        Ok(())
    }
}

/// The data that all tasks of a loop share.
#[derive(Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) topology: &'a Topology,
    pub(super) catalogue: &'static Catalogue,
    pub(super) operators: &'static [&'static dyn Operator],
    pub(super) plan: &'a OperatorPlan,
    pub(super) audit: AuditMode,
}

/// The routing plan of a build with these operators. Panics if one of them contradicts the
/// catalogue: that is a bug of the build.
pub(super) fn plan_of(catalogue: &Catalogue, operators: &[&dyn Operator]) -> OperatorPlan {
    for partial in operators.iter().flat_map(|operator| operator.partials()) {
        let PartialSpec { name, event_type, .. } = partial.spec();
        let is_internal = catalogue.resolve(event_type).is_some_and(|known| known.internal);
        assert!(is_internal, "{event_type} of partial {name} is no internal type of the catalogue");
    }
    let planned = |o: &&dyn Operator| PlannedOperator { name: o.name(), events: o.events() };
    OperatorPlan::of(catalogue, operators.iter().map(planned).collect())
}

/// What an operator can read and cause while it handles one event or timer.
pub struct Context<'a> {
    pub(super) rules: Rules<'a>,
    pub(super) operator: &'a dyn Operator,
    pub(super) trigger: Trigger<'a>,
    /// The entity it runs for: the event's own key, or the one that the event moves it for.
    pub(super) key: &'a str,
    /// The task's partition.
    pub(super) partition: Partition,
    /// How many events the operator has emitted for this cause.
    pub(super) emitted: u32,
    /// The first limit that the operator has exceeded: its call fails.
    pub(super) excess: Option<String>,
    pub(super) time: Millis,
    /// The earlier cause on whose behalf the operator emits.
    pub(super) kept: Option<KeptCause>,
    /// The value level in force, by which stores write.
    pub(super) level: ValueLevel,
    /// The time of the task.
    pub(super) times: LaneTimes,
    pub(super) state: &'a mut TaskState,
    pub(super) batch: &'a mut TaskBatch,
    pub(super) timers: &'a mut TaskTimers,
    pub(super) ids: &'a mut IdFilter,
}

impl<'a> Context<'a> {
    /// The time of the cause: when an event was appended to the input, or when a timer was due. It
    /// does not depend on how far the lanes are processed.
    pub fn time(&self) -> Millis {
        self.time
    }

    /// The account of the current event, or of the event that led to the current timer.
    pub fn account(&self) -> &'a str {
        self.trigger.account()
    }

    /// What to keep of the current event or timer, if events that follow from it are emitted later.
    pub fn kept_cause(&self) -> KeptCause {
        let correlation = self.trigger.names().correlation.to_owned();
        KeptCause { time: self.time, hops: self.trigger.hops(), correlation }
    }

    /// Emits on behalf of an earlier event or timer of this key: what `act` emits has the append
    /// time and the correlation id of that, and more hops than either of the two.
    pub fn on_behalf_of<T>(&mut self, cause: KeptCause, act: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.kept.replace(cause);
        let done = act(self);
        self.kept = before;
        done
    }

    /// The key it runs for. State belongs to it and the account: with another key of the event, by
    /// the routing plan, it is that one.
    pub fn key(&self) -> &'a str {
        self.key
    }

    /// The settled time: no lane of this task holds an earlier record.
    pub fn settled(&self) -> Millis {
        self.times.settled()
    }

    /// The time at which state must have ended to count as expired. It is the cause's, or the
    /// settled time for a cause that is late, since the store may have removed such state.
    pub fn expiry_time(&self) -> Millis {
        self.time.max(self.settled())
    }

    /// The latest time of any record of this task.
    pub(super) fn latest(&self) -> Millis {
        self.times.latest().max(self.time)
    }

    /// The catalogue in force.
    pub fn catalogue(&self) -> &'static Catalogue {
        self.rules.catalogue
    }

    /// A value of a table, of this operator or of another one of the task. An operator reads only
    /// rows of the current account and key: others are in other tasks.
    pub fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Bytes>, OperatorError> {
        self.check_readable(table)?;
        Ok(self.state.get(table, key)?)
    }

    /// Sets a key of a table. If key or value is too large, the call fails.
    pub fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        if !row_fits(key, value) || !self.has(table) {
            return self.exceed(table, key, value);
        }
        self.state.put(table, key, Some(Bytes::copy_from_slice(value)));
    }

    /// Removes a key of a table.
    pub fn remove(&mut self, table: Table, key: &[u8]) {
        if !row_fits(key, &[]) || !self.has(table) {
            return self.exceed(table, key, &[]);
        }
        self.state.put(table, key, None);
    }

    /// Visits a table's keys of a range in order.
    pub fn scan(
        &mut self,
        table: Table,
        range: KeyRange<'_>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), OperatorError> {
        self.check_readable(table)?;
        Ok(self.state.scan(table, range, visit)?)
    }

    /// Sets a timer of the current account and key: [`Operator::on_timer`] is called with `own`
    /// once the settled time has reached `at`. It continues the chain of the current event or
    /// timer: its account, its key, its correlation and its hops. Setting the same again before it
    /// has fired sets no second timer.
    pub fn set_timer(&mut self, at: Millis, own: &[u8]) -> Result<(), OperatorError> {
        self.set_timer_of(TimerKind::Settled, at, own)
    }

    /// Removes a timer of the current account and key.
    pub fn remove_timer(&mut self, at: Millis, own: &[u8]) {
        self.remove_timer_of(TimerKind::Settled, at, own);
    }

    /// Sets a timer like [`Context::set_timer`], which waits for the lease time instead: that of
    /// the critical lane alone. Only for leases of gateways and upstream connections. A lease must
    /// end although another lane has a backlog, and each renewal is a critical event, so that none
    /// can wait when the timer fires.
    pub fn set_lease_timer(&mut self, at: Millis, own: &[u8]) -> Result<(), OperatorError> {
        self.set_timer_of(TimerKind::Lease, at, own)
    }

    /// Removes a timer that [`Context::set_lease_timer`] has set for the current account and key.
    pub fn remove_lease_timer(&mut self, at: Millis, own: &[u8]) {
        self.remove_timer_of(TimerKind::Lease, at, own);
    }

    fn set_timer_of(
        &mut self,
        kind: TimerKind,
        at: Millis,
        own: &[u8],
    ) -> Result<(), OperatorError> {
        if !row_fits(own, &[]) {
            self.exceed(TIMERS.spec.table, own, &[]);
            return Ok(());
        }
        let timer = self.timer(at, own);
        if self.batch.audit.is_open() {
            self.batch.audit.add(&AuditItem::TimerSet(at, timer_link(&timer.encode())));
        }
        let cause = self.trigger.cause_of(self.key, kind, timer);
        Ok(self.timers.of_kind(kind).set_for(self.state, timer, &cause)?)
    }

    fn remove_timer_of(&mut self, kind: TimerKind, at: Millis, own: &[u8]) {
        if !row_fits(own, &[]) {
            return self.exceed(TIMERS.spec.table, own, &[]);
        }
        let timer = self.timer(at, own);
        self.timers.of_kind(kind).remove(self.state, timer);
    }

    /// Says that `own` of the current account and key has changed: [`Operator::on_commit`] is
    /// called with it before the transaction is committed, or, if that was done within the last
    /// interval of the operator's [`Updates`], at the end of the interval.
    pub fn mark(&mut self, own: &[u8]) -> Result<(), OperatorError> {
        let number = self.operator.number();
        if self.operator.updates().is_none() {
            let name = self.operator.name();
            let why = format!("{name} has no updates, so it can't mark a key; declare them");
            return Err(OperatorError::Failed(why));
        }
        let cause = self.trigger.cause_of_update(number, self.key, own);
        let mark = Mark::new((number, own), cause, self.time);
        if row_fits(&mark.key, &[]) {
            if self.batch.audit.is_open() {
                self.batch.audit.add(&AuditItem::Marked(update_link(&mark.key)));
            }
            self.batch.mark(mark);
        } else {
            self.exceed(INTERVALS.spec.table, &mark.key, &[]);
        }
        Ok(())
    }

    /// Counts something that the operator drops by its own rules, once the transaction is
    /// committed. `reason` is a value of the metric's label: one of few, the same in every build.
    pub fn count_dropped(&mut self, reason: &'static str) {
        self.batch.count_dropped(DroppedByOperator { operator: self.operator.name(), reason });
    }

    fn timer<'k>(&self, at: Millis, own: &'k [u8]) -> TimerKey<'k> {
        let owner = TimerOwner::of(self.account(), self.key);
        TimerKey { at, operator: self.operator.number(), owner, key: own }
    }

    /// Fails unless an operator of the task has declared a table.
    fn check_readable(&self, table: Table) -> Result<(), OperatorError> {
        let mut declared = self.rules.operators.iter().flat_map(|operator| operator.tables());
        if self.has(table) || declared.any(|decl| decl.spec.table == table) {
            return Ok(());
        }
        Err(OperatorError::Failed(self.undeclared(table)))
    }

    /// Whether the operator has declared a table.
    fn has(&self, table: Table) -> bool {
        self.operator.tables().iter().any(|decl| decl.spec.table == table)
    }

    fn undeclared(&self, table: Table) -> String {
        format!(
            "table {} is not declared by {}; add it to its tables",
            table.0,
            self.operator.name()
        )
    }

    /// Whether this task is not the one of the event's key: every task has a copy of a broadcast
    /// event.
    pub(super) fn is_copy(&self, event: &EventView<'_>) -> bool {
        matches!(self.trigger, Trigger::Event { task: Some(_), .. })
            && self.partition != self.rules.topology.entity_partition(event.account_id, event.key)
    }

    /// Lets the call fail, since a row is too large.
    fn exceed(&mut self, table: Table, key: &[u8], value: &[u8]) {
        let declared =
            [TIMERS, INTERVALS].into_iter().chain(self.operator.tables().iter().copied());
        let spec = declared.map(|decl| decl.spec).find(|spec| spec.table == table);
        let why = match spec {
            Some(spec) => row_excess(spec.name, key, value),
            None => self.undeclared(table),
        };
        self.excess.get_or_insert(why);
    }

    /// The value of an accepted id; `None` also if it has expired.
    pub(super) fn accepted(
        &mut self,
        table: Table,
        id: &[u8; 16],
    ) -> Result<Option<Bytes>, OperatorError> {
        if !self.ids.may_contain(id) {
            return Ok(None);
        }
        self.batch.counts.ids_read += 1;
        self.get(table, id)
    }

    /// Stores the id of the current event as accepted; its changelog is the `order` record.
    pub(super) fn accept(&mut self, table: Table, id: [u8; 16]) {
        let accepted = AcceptedId { since: self.expiry_time(), at: self.time };
        self.put(table, &id, &accepted.encode());
        self.ids.insert(&id, accepted.since);
        self.batch.accept(accepted, id);
    }
}
