//! A test driver for operators: records in, outputs and tables out, without a log or threads.
//!
//! It runs one task of one partition. Each input is a transaction of its own, time changes only
//! when the test advances it, and everything the task wrote can be read. It follows Kafka Streams'
//! `TopologyTestDriver`.
//!
//! [`TopologyDriver::replay`] executes all inputs again from an empty store and compares every
//! byte, so it fails for an operator that depends on anything but its input, its tables and task
//! time.

use std::num::NonZeroU32;
use std::ops::ControlFlow;

use bytes::Bytes;
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::event::Event;

use crate::derive::audit::AuditMode;
use crate::derive::derive_loop::DeriveConfig;
use crate::derive::id_filter::DEDUP_FILTER_BYTES;
use crate::derive::lane_times::LaneSet;
use crate::derive::memory_store::MemoryStore;
use crate::derive::order::OrderRecord;
use crate::derive::progress::TaskProgress;
use crate::derive::running::TickTime;
use crate::derive::sandbox::{Executed, Operators, Sandbox, StoredTask};
use crate::fact_pack::{decode, entries_in, pack_of_record};
use crate::lane_record::VERDICT;
use crate::port::{KeyRange, Store, Table};
use crate::record::{Body, Millis, Offset, Outgoing, Partition, Record, Topic};
use crate::topology::{Lane, Topology};
use crate::value_level::ValueLevel;
use crate::verdict::{Decision, TopicId, Verdict, VerdictSource};

mod driven_tasks;

pub use driven_tasks::{DrivenTasks, PackedBatch};

/// The driver's first time, 2026-01-05T10:00:00Z.
pub const START: Millis = Millis(1_767_607_200_000);

/// The partition of a task that is driven alone.
const PARTITION: Partition = Partition(0);

/// Events of [`TopologyDriver::process_batch`] per second of the wall clock.
const EVENTS_PER_SECOND: u32 = 1_000;

/// The reason for every `expect` here.
const NEVER_FAILS: &str = "the store of a test or benchmark never fails";

/// The input of one transaction, and its result.
struct DrivenTransaction {
    input: DriverInput,
    executed: Executed,
}

enum DriverInput {
    Record(Lane, Record),
    Tick(TickTime),
}

/// A record of a lane that waits for the task of its partition.
struct QueuedRecord {
    lane: Lane,
    partition: Partition,
    body: Body,
}

/// What a batch has caused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessedBatch {
    /// Facts and copies that were processed.
    pub facts: usize,
    /// The packs they were in.
    pub packs: usize,
    /// Bytes of these packs.
    pub pack_bytes: usize,
    /// Other outputs, without the audit.
    pub outputs: usize,
    /// Bytes of the audit.
    pub audit_bytes: usize,
}

/// A task to pipe events into.
///
/// ```
/// use tidewire_engine::derive::stores::KeyValue;
/// use tidewire_engine::derive::{
///     Context, Flow, Input, Operator, OperatorError, TableDecl, TopologyDriver,
/// };
/// use tidewire_engine::port::Table;
/// use tidewire_schemas::{Priority, event::Event};
///
/// /// Events per key.
/// const COUNTS: KeyValue<String, u64> = KeyValue::new(200, "counts");
///
/// /// Counts the events of each key.
/// struct Count;
///
/// impl Operator for Count {
///     fn number(&self) -> u8 {
///         200
///     }
///     fn name(&self) -> &'static str {
///         "count"
///     }
///     fn tables(&self) -> &'static [TableDecl] {
///         const TABLES: &[TableDecl] = &[COUNTS.decl()];
///         TABLES
///     }
///     fn on_event(
///         &self,
///         event: &Input<'_>,
///         context: &mut Context<'_>,
///     ) -> Result<Flow, OperatorError> {
///         let key = event.key.to_owned();
///         let count = COUNTS.get(context, &key)?.unwrap_or(0) + 1;
///         COUNTS.put(context, &key, &count);
///         Ok(Flow::Continue)
///     }
/// }
///
/// let mut driver = TopologyDriver::new(&[&Count]);
/// let event = Event {
///     event_id: "e-1".into(),
///     event_type: "post.created".into(),
///     account_id: "acc".into(),
///     timestamp_ms: 0,
///     correlation_id: "e-1".into(),
///     priority: Priority::Normal,
///     key: "alice".into(),
///     source: None,
///     alias: None,
///     data: "{}".into(),
/// };
/// driver.pipe_input(&event);
/// driver.pipe_input(&event);
/// // A version byte, then the count.
/// assert_eq!(driver.get(Table(200), b"alice\0\0").as_deref(), Some(&[1, 2][..]));
/// driver.replay().unwrap();
/// ```
pub struct TopologyDriver {
    operators: Operators,
    config: DeriveConfig,
    partition: Partition,
    sandbox: Sandbox,
    /// The wall clock.
    now: Millis,
    /// The offset of the next record, by [`Lane::index`].
    next: [u64; Lane::COUNT],
    /// The lanes that are consumed to their ends.
    ended: LaneSet,
    events_per_second: u32,
    /// Outputs that [`TopologyDriver::read_output`] has not returned yet.
    outputs: Vec<Outgoing>,
    history: Vec<DrivenTransaction>,
}

impl TopologyDriver {
    /// A task with these operators and empty tables, at [`START`].
    pub fn new(operators: Operators) -> Self {
        Self::with_store(operators, Box::<MemoryStore>::default())
    }

    /// The same with another catalogue.
    pub fn with_catalogue(operators: Operators, catalogue: &'static Catalogue) -> Self {
        let config = DeriveConfig { catalogue, ..config(1) };
        Self::over(operators, config, PARTITION, Box::<MemoryStore>::default())
    }

    /// A task with the tables of a store, at [`START`]. A replay begins with empty tables.
    pub fn with_store(operators: Operators, store: Box<dyn Store>) -> Self {
        Self::over(operators, config(1), PARTITION, store)
    }

    fn over(
        operators: Operators,
        config: DeriveConfig,
        partition: Partition,
        store: Box<dyn Store>,
    ) -> Self {
        Self {
            sandbox: opened(&config, operators, partition, store),
            operators,
            config,
            partition,
            now: START,
            next: [0; Lane::COUNT],
            ended: LaneSet::ALL,
            events_per_second: EVENTS_PER_SECOND,
            outputs: Vec::new(),
            history: Vec::new(),
        }
    }

    /// The topics, each with one partition; the prefix is `t.`.
    pub fn topology(&self) -> &Topology {
        &self.config.topology
    }

    /// Sets the value level in force, as far as the operators have versions of it. It begins at 1.
    pub fn set_value_level(&mut self, level: ValueLevel) {
        self.sandbox.set_level(level);
    }

    /// Sets whether an audit is written. It is, at first.
    pub fn set_audit(&mut self, mode: AuditMode) {
        self.sandbox.set_settings(mode.in_hash(self.config.settings_hash));
    }

    /// The wall clock, which is also the append time of every input.
    pub fn now(&self) -> Millis {
        self.now
    }

    /// Processes an event in the lane of its priority.
    pub fn pipe_input(&mut self, event: &Event) {
        self.pipe_value(Lane::of(event.priority), Some(&event.encode()));
    }

    /// Processes an event of this lane that was appended to the input at this time, as it comes
    /// after an outage.
    pub fn pipe_late(&mut self, lane: Lane, event: &Event, append_time: Millis) {
        let offset = Offset(self.next.iter().sum());
        let verdict = Verdict {
            decision: Decision::Passed,
            settings_hash: 0,
            control: Offset(0),
            append_time,
            source: VerdictSource {
                input: 0,
                topic: TopicId(1),
                partition: PARTITION,
                offset,
                delivered_from: Offset(0),
                delivered_to: offset,
            },
            rules: Vec::new(),
        };
        let verdict = verdict.encode();
        let body = Body::new(None, Some(&event.encode()), &[(VERDICT, &verdict)]);
        match lane.has_facts() {
            true => self.pipe_fact(lane, &body),
            false => self.pipe_body(lane, body),
        }
    }

    /// From now on records wait in a lane, so that it holds the settled time back.
    pub fn begin_backlog(&mut self, lane: Lane) {
        self.ended.remove(lane);
    }

    /// All records of a lane are processed.
    pub fn end_backlog(&mut self, lane: Lane) {
        self.ended.insert(lane);
    }

    /// Processes a record of a lane with any bytes as its value.
    pub fn pipe_value(&mut self, lane: Lane, value: Option<&[u8]>) {
        self.pipe_body(lane, Body::new(None, value, &[]));
    }

    /// Processes a fact or copy that [`TopologyDriver::read_output`] returned, in its own pack.
    pub fn pipe_fact(&mut self, lane: Lane, fact: &Body) {
        self.pipe_body(lane, pack_of_record(fact));
    }

    /// Processes a record of a lane; those of the lanes of facts are packs.
    pub fn pipe_body(&mut self, lane: Lane, body: Body) {
        let next = &mut self.next[lane.index()];
        let record = Record { offset: Offset(*next), timestamp: self.now, body };
        *next += 1;
        self.transact(DriverInput::Record(lane, record));
    }

    /// Processes all facts and copies that were written, and those that follow from them; returns
    /// how many.
    pub fn pipe_facts(&mut self) -> usize {
        let mut piped = 0;
        for lane in [Lane::FactsUrgent, Lane::Facts].into_iter().cycle() {
            let facts = [Lane::FactsUrgent, Lane::Facts].map(|l| self.topology().lane(l).clone());
            if !self.outputs.iter().any(|output| facts.contains(&output.topic)) {
                break;
            }
            let topic = self.topology().lane(lane).clone();
            for pack in self.read_records(&topic) {
                piped += entries_in(&pack);
                self.pipe_body(lane, pack);
            }
        }
        piped
    }

    /// Sets how many events of [`TopologyDriver::process_batch`] are appended per second of the
    /// wall clock: 1,000 at first.
    pub fn set_events_per_second(&mut self, events: NonZeroU32) {
        self.events_per_second = events.get();
    }

    /// Processes events in one transaction, and the facts and copies that follow from them in
    /// further ones; moves the wall clock on before. For benchmarks: nothing is kept for
    /// [`TopologyDriver::replay`] or [`TopologyDriver::read_output`].
    pub fn process_batch(&mut self, events: &[Event]) -> ProcessedBatch {
        let mut done = ProcessedBatch::default();
        let mut waiting: Vec<QueuedRecord> =
            events.iter().map(|event| queued(event, self.partition)).collect();
        self.pass_time_of(events.len());
        while !waiting.is_empty() {
            waiting = self.process_records(waiting, &mut done);
        }
        done
    }

    /// Moves the wall clock on by the time in which this many events are appended.
    fn pass_time_of(&mut self, events: usize) {
        self.now.0 += events as i64 * 1_000 / i64::from(self.events_per_second);
    }

    /// Processes records in one transaction, adds what that has caused, and returns the packs that
    /// it wrote.
    fn process_records(
        &mut self,
        records: Vec<QueuedRecord>,
        done: &mut ProcessedBatch,
    ) -> Vec<QueuedRecord> {
        for QueuedRecord { lane, body, .. } in records {
            let next = &mut self.next[lane.index()];
            let record = Record { offset: Offset(*next), timestamp: self.now, body };
            *next += 1;
            let records = self.sandbox.take(lane, &record).expect(NEVER_FAILS);
            done.facts += if lane.has_facts() { records } else { 0 };
        }
        let tick = TickTime { at: self.now, ended: self.ended };
        self.sandbox.tick(tick).expect(NEVER_FAILS);
        let topology = &self.config.topology;
        let mut packs = Vec::new();
        for Outgoing { topic, partition, body } in self.sandbox.commit().expect(NEVER_FAILS).outputs
        {
            let lanes = [Lane::FactsUrgent, Lane::Facts];
            match lanes.into_iter().find(|lane| *topology.lane(*lane) == topic) {
                Some(lane) => {
                    done.packs += 1;
                    done.pack_bytes += body.as_bytes().len();
                    packs.push(QueuedRecord { lane, partition, body });
                }
                None if topic == *topology.out_audit() => {
                    done.audit_bytes += body.as_bytes().len();
                }
                None => done.outputs += 1,
            }
        }
        packs
    }

    /// Advances the wall clock, and injects ticks while a timer is due. Without a backlog in a lane
    /// all of them are consumed to their ends.
    pub fn advance_wall_clock_time(&mut self, ms: i64) {
        self.now.0 += ms;
        let tick = TickTime { at: self.now, ended: self.ended };
        let mut times = self.sandbox.times();
        times.tick(tick.at, tick.ended);
        while self.sandbox.has_due_timers(&times) {
            self.transact(DriverInput::Tick(tick));
        }
    }

    /// Injects a tick now, although no timer is due.
    pub fn tick(&mut self) {
        self.transact(DriverInput::Tick(TickTime { at: self.now, ended: self.ended }));
    }

    fn transact(&mut self, input: DriverInput) {
        let executed = execute(&mut self.sandbox, &input);
        self.outputs.extend(executed.outputs.iter().cloned());
        self.history.push(DrivenTransaction { input, executed });
    }

    /// Returns what was written to a topic since the last call, facts each by itself.
    pub fn read_output(&mut self, topic: &Topic) -> Vec<Body> {
        let records = self.read_records(topic);
        if !Lane::ALL.iter().any(|lane| lane.has_facts() && self.topology().lane(*lane) == topic) {
            return records;
        }
        let packs = records.iter().filter_map(Body::value_bytes);
        let entries = packs.flat_map(|pack| decode(&pack).expect("the task has written it"));
        entries.map(|entry| entry.to_body()).collect()
    }

    /// Returns the records that were written to a topic since the last call.
    pub fn read_records(&mut self, topic: &Topic) -> Vec<Body> {
        let (taken, left) = std::mem::take(&mut self.outputs)
            .into_iter()
            .partition::<Vec<_>, _>(|output| output.topic == *topic);
        self.outputs = left;
        taken.into_iter().map(|output| output.body).collect()
    }

    /// Reads the next accepted ids of the store for their filter, as a task does once per turn.
    /// `false`: all are read.
    pub fn load_ids(&mut self) -> bool {
        self.sandbox.load_ids().expect(NEVER_FAILS)
    }

    /// Sets a row of a table, as another build would have written it. A replay does not know it.
    pub fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.sandbox.state().put(table, key, Some(Bytes::copy_from_slice(value)));
        self.sandbox.reload_timers().expect(NEVER_FAILS);
    }

    /// A value of a table.
    pub fn get(&mut self, table: Table, key: &[u8]) -> Option<Bytes> {
        self.sandbox.state().get(table, key).expect(NEVER_FAILS)
    }

    /// How many keys scans have passed so far, removed ones included.
    #[cfg(test)]
    pub(crate) fn passed(&mut self) -> u64 {
        self.sandbox.state().passed()
    }

    /// All entries of a table, in order.
    pub fn all(&mut self, table: Table) -> Vec<(Bytes, Bytes)> {
        let mut all = Vec::new();
        let visit = &mut |key: &[u8], value: &[u8]| {
            all.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            ControlFlow::Continue(())
        };
        self.sandbox.state().scan(table, KeyRange::ALL, visit).expect(NEVER_FAILS);
        all
    }

    /// The `order` record of the last transaction; `None` before the first.
    pub fn last_order(&self) -> Option<&OrderRecord> {
        self.history.last().map(|transaction| &transaction.executed.order)
    }

    /// Executes every input again on an empty store; an error names the first difference.
    pub fn replay(&self) -> Result<(), String> {
        let empty = Box::<MemoryStore>::default();
        let config = DeriveConfig { hash_seed: 1, ..self.config.clone() };
        let mut again = opened(&config, self.operators, self.partition, empty);
        for (n, DrivenTransaction { input, executed: first }) in self.history.iter().enumerate() {
            again.set_level(first.order.level);
            again.set_settings(first.order.settings_hash);
            let second = execute(&mut again, input);
            let one = [&first.outputs[..], &first.changelog].concat();
            let other = [&second.outputs[..], &second.changelog].concat();
            if let Some(at) = (0..one.len().max(other.len())).find(|i| one.get(*i) != other.get(*i))
            {
                let (one, other) = (one.get(at), other.get(at));
                return Err(format!("transaction {n}, record {at}: {one:?}, then {other:?}"));
            }
            if first.order != second.order {
                let (one, other) = (&first.order, &second.order);
                return Err(format!("transaction {n}: {one:?}, then {other:?}"));
            }
        }
        Ok(())
    }
}

/// The settings of tasks of this many partitions.
fn config(partitions: u32) -> DeriveConfig {
    DeriveConfig {
        topology: Topology::new("t.", partitions),
        catalogue: Catalogue::builtin(),
        instance: "driver".to_owned(),
        thread: 0,
        build: "test".to_owned(),
        settings_hash: 0,
        standby: false,
        dedup_filter_bytes: DEDUP_FILTER_BYTES,
        hash_seed: 0,
    }
}

/// An event in the lane of its priority.
fn queued(event: &Event, partition: Partition) -> QueuedRecord {
    let body = Body::new(None, Some(&event.encode()), &[]);
    QueuedRecord { lane: Lane::of(event.priority), partition, body }
}

fn opened(
    config: &DeriveConfig,
    operators: Operators,
    partition: Partition,
    mut store: Box<dyn Store>,
) -> Sandbox {
    let progress = store.progress().expect(NEVER_FAILS);
    let progress = progress.and_then(|stored| TaskProgress::decode(&stored)).unwrap_or_default();
    let stored = StoredTask { partition, store, progress };
    Sandbox::new(config.clone(), operators, stored).expect(NEVER_FAILS)
}

fn execute(sandbox: &mut Sandbox, input: &DriverInput) -> Executed {
    match input {
        DriverInput::Record(lane, record) => sandbox.take(*lane, record).map(drop),
        DriverInput::Tick(tick) => sandbox.tick(*tick),
    }
    .expect(NEVER_FAILS);
    sandbox.commit().expect(NEVER_FAILS)
}

#[cfg(test)]
mod letters;
#[cfg(test)]
mod tests;
