//! What an operator is: no fields, declared tables, and two entries.
//!
//! The one idea: all an operator remembers is in the task's tables, and all it causes is a value
//! handed to its [`Context`]; so a transaction that aborts takes everything back, and a task can
//! move to another machine.
//!
//! An operator never reads a clock (task time is a value), never fails on timing, never iterates
//! over anything unordered, and sees only the state of its own event's key.

use std::ops::ControlFlow;

use bytes::Bytes;
use tidewire_schemas::catalogue::{Catalogue, Class, Delivery};
use tidewire_schemas::event::EventView;

use crate::derive::batch::Batch;
use crate::derive::timers::Timers;
use crate::overlay::State;
use crate::port::{StoreError, Table, TableSpec};
use crate::record::{Body, Millis, Outgoing};
use crate::topology::{Lane, Topology};

/// Which topic brings a table back after a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changelog {
    /// `state`: one record per changed key.
    State,
    /// `order`: the ids accepted; the table of de-duplication alone.
    Order,
}

/// A table an operator keeps.
#[derive(Clone, Copy, Debug)]
pub struct TableDecl {
    /// Number, name, and whether values begin with their time.
    pub spec: TableSpec,
    /// What brings it back.
    pub changelog: Changelog,
    /// For a table that expires: milliseconds of task time its values matter.
    pub window_ms: i64,
}

/// What happens to an event after an operator has seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The next operator sees it.
    Continue,
    /// It was seen before; no further operator sees it.
    Duplicate,
}

/// Why an operator could not do its part.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The store failed; the task stops.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The event can't be processed; it becomes a dead letter at once, since a repetition would
    /// depend on timing.
    #[error("{0}")]
    Failed(String),
}

/// One step every event of a task goes through.
pub trait Operator: Sync {
    /// Its stable number; timers are persisted under it.
    fn number(&self) -> u8;

    /// Its name in dead letters and metrics.
    fn name(&self) -> &'static str;

    /// The tables it keeps.
    fn tables(&self) -> &'static [TableDecl] {
        &[]
    }

    /// An event of a key of this task.
    fn on_event(
        &self,
        event: &EventView<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError>;

    /// A timer it has set is due.
    fn on_timer(&self, _key: &[u8], _context: &mut Context<'_>) -> Result<(), OperatorError> {
        Ok(())
    }
}

/// What all tasks of a loop share: pure data.
#[derive(Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) topology: &'a Topology,
    pub(super) catalogue: &'static Catalogue,
    pub(super) operators: &'static [&'static dyn Operator],
}

/// What an operator may see and do while it handles one event or timer.
pub struct Context<'a> {
    pub(super) rules: Rules<'a>,
    pub(super) operator: u8,
    /// The encoded event, passed on as it is.
    pub(super) value: &'a [u8],
    pub(super) time: Millis,
    pub(super) state: &'a mut State,
    pub(super) batch: &'a mut Batch,
    pub(super) timers: &'a mut Timers,
}

impl Context<'_> {
    /// Task time.
    pub fn time(&self) -> Millis {
        self.time
    }

    /// The catalogue in force.
    pub fn catalogue(&self) -> &'static Catalogue {
        self.rules.catalogue
    }

    /// A value of a table.
    pub fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Bytes>, OperatorError> {
        Ok(self.state.get(table, key)?)
    }

    /// Sets a key of a table.
    pub fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        self.state.put(table, key, Some(value));
    }

    /// Removes a key of a table.
    pub fn remove(&mut self, table: Table, key: &[u8]) {
        self.state.put(table, Bytes::copy_from_slice(key), None);
    }

    /// Visits a table's keys in `from..to` in order.
    pub fn scan(
        &mut self,
        table: Table,
        range: (&[u8], Option<&[u8]>),
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), OperatorError> {
        Ok(self.state.scan(table, range, visit)?)
    }

    /// Asks for [`Operator::on_timer`] with this key once task time has reached `at`. The same
    /// time and key again is the same timer.
    pub fn set_timer(&mut self, at: Millis, key: &[u8]) {
        self.timers.set(self.state, (at, self.operator), key);
    }

    /// Takes back a timer.
    pub fn remove_timer(&mut self, at: Millis, key: &[u8]) {
        self.timers.remove(self.state, (at, self.operator), key);
    }

    /// Sets an accepted id's time; the `order` record carries it.
    pub(super) fn accept(&mut self, table: Table, id: [u8; 16]) {
        self.put(table, &id, &self.time.0.to_be_bytes());
        self.batch.accept(self.time, id);
    }

    /// Writes what an event makes the latest value of a channel's state key to `out.state`.
    pub fn publish(
        &mut self,
        event: &EventView<'_>,
        (channel, state_key): (&str, &str),
        value: &[u8],
    ) {
        let topology = self.rules.topology;
        let key = [channel, event.account_id, state_key].join("\0");
        let body = Body::new(Some(key.as_bytes()), Some(value), &[]);
        let partition = topology.partition_of(channel.as_bytes());
        self.batch.emit(Outgoing { topic: topology.out_state().clone(), partition, body });
        self.batch.urgent |= matches!(Lane::of(event.priority), Lane::Critical | Lane::High);
    }

    /// Writes the event to one channel. Ephemeral and derived classes are nothing to write here:
    /// ADMIT has written the first, nobody writes the second.
    pub(super) fn deliver(&mut self, event: &EventView<'_>, to: &Delivery) {
        let topology = self.rules.topology;
        let lane = Lane::of(event.priority);
        let topic = match to.class {
            Class::Ephemeral | Class::Derived => return,
            Class::State => {
                let state_key = to.state_key.as_deref().unwrap_or_default();
                return self.publish(event, (&to.channel, state_key), self.value);
            }
            Class::Stream if lane == Lane::Critical => topology.out_urgent(),
            Class::Stream => topology.out_stream(),
        };
        let channel = to.channel.as_bytes();
        let body = Body::new(Some(channel), Some(self.value), &[]);
        let partition = topology.partition_of(channel);
        self.batch.emit(Outgoing { topic: topic.clone(), partition, body });
        self.batch.urgent |= matches!(lane, Lane::Critical | Lane::High);
    }
}
