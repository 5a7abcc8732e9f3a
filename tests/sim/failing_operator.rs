//! One operator fails on one type in a hundred and is then fixed; nothing is lost or delayed.
//!
//! Until the fix, delivery and the other operators go on. Then its dead letters are requeued while
//! the log fails and processes crash, and exactly the missing effects come, each once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidewire_engine::dead_letters::{Filter, Resolution, ResolveRequest, list, resolve};
use tidewire_engine::derive::{
    Changelog, ChannelDelivery, Context, Derive, DeriveConfig, DerivePorts, Emission, Flow, Input,
    Operator, OperatorError, TableDecl, dedup::Dedup,
};
use tidewire_engine::port::{Appender, Clock, Isolation, Log, Table, TableExpiry, TableSpec};
use tidewire_engine::record::{Body, Millis, Outgoing, Partition, Record, Topic, TopicPartition};
use tidewire_engine::topology::{Lane, Topology};
use tidewire_engine::value_level::ValueLevel;
use tidewire_schemas::Priority;
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::event::{Event, EventView};

use crate::fake::{FakeLog, FakeStores};

/// Histories in one run.
const HISTORIES: u64 = 40;

/// Events in each; every hundredth is of a type that fails, another hundredth sets a timer that
/// fails.
const EVENTS: usize = 400;

/// Turns with faults, before the fix and after it.
const TURNS: u64 = 120;

/// Attempts to requeue while the log fails.
const ATTEMPTS: u64 = 8;

/// Turns without faults after which everything must be done.
const QUIET_TURNS: usize = 400;

/// Milliseconds of a turn.
const TURN_MS: i64 = 60;

/// Times that the failing operator has processed an event or its timer, by event id.
const DONE: Table = Table(50);

/// The same of the operator beside it.
const BESIDE: Table = Table(51);

/// The type that fails, and the one whose timer fails.
const FAILING: [&str; 2] = ["post.deleted", "post.updated"];

static FIXED: AtomicBool = AtomicBool::new(false);

fn add_one(context: &mut Context<'_>, table: Table, id: &[u8]) -> Result<(), OperatorError> {
    let count = context.get(table, id)?.map_or(0, |value| value[0]) + 1;
    context.put(table, id, &[count]);
    Ok(())
}

const fn table(table: Table, name: &'static str) -> TableDecl {
    TableDecl {
        spec: TableSpec { table, name, expiry: TableExpiry::Never },
        changelog: Changelog::State,
        window_ms: 0,
        level: ValueLevel::FIRST,
    }
}

/// Counts and emits, and fails on one type and on the timers of another until it is fixed.
struct Failing;

impl Failing {
    fn act(&self, id: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        add_one(context, DONE, id)?;
        let account_id = context.account().to_owned();
        context.emit(&Emission {
            event_type: "conversation.updated",
            account_id: &account_id,
            key: "k",
            timestamp_ms: 5,
            priority: Priority::Normal,
            data: &format!(r#"{{"conversation_id":"c1","of":"{}"}}"#, String::from_utf8_lossy(id)),
        })
    }
}

impl Operator for Failing {
    fn number(&self) -> u8 {
        50
    }

    fn name(&self) -> &'static str {
        "failing"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] = &[table(DONE, "done")];
        TABLES
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        if event.event_type == FAILING[1] {
            context.set_timer(Millis(context.time().0 + 100), event.event_id.as_bytes())?;
            return Ok(Flow::Continue);
        }
        self.act(event.event_id.as_bytes(), context)?;
        match event.event_type == FAILING[0] && !FIXED.load(Ordering::SeqCst) {
            true => Err(OperatorError::Failed("this type fails".to_owned())),
            false => Ok(Flow::Continue),
        }
    }

    fn on_timer(&self, key: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        self.act(key, context)?;
        match FIXED.load(Ordering::SeqCst) {
            true => Ok(()),
            false => Err(OperatorError::Failed("this timer fails".to_owned())),
        }
    }
}

/// Counts what it gets.
struct Beside;

impl Operator for Beside {
    fn number(&self) -> u8 {
        51
    }

    fn name(&self) -> &'static str {
        "beside"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] = &[table(BESIDE, "beside")];
        TABLES
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        add_one(context, BESIDE, event.event_id.as_bytes())?;
        Ok(Flow::Continue)
    }
}

struct HistoryClock(FakeLog);

impl Clock for HistoryClock {
    fn now(&self) -> Millis {
        self.0.state().now
    }
}

/// A history of one machine.
struct FailingHistory {
    log: FakeLog,
    topology: Topology,
    stores: FakeStores,
    derive: Option<(FakeLog, Derive)>,
    processes: u64,
}

fn id(n: usize) -> String {
    format!("e-{n}")
}

fn event_type(n: usize) -> &'static str {
    match n % 100 {
        7 => FAILING[0],
        57 => FAILING[1],
        _ => "post.created",
    }
}

impl FailingHistory {
    fn new(seed: u64) -> Self {
        let (log, topology) = (FakeLog::new(seed), Topology::new("t.", 3));
        for spec in topology.specs() {
            log.create(&spec).expect("a new log");
        }
        log.state().one_thread = true;
        let stores = FakeStores::new(0, &log);
        let history = Self { log, topology, stores, derive: None, processes: 0 };
        for n in 0..EVENTS {
            history.append(n);
        }
        history
    }

    fn append(&self, n: usize) {
        let key = format!("k{}", n % 7);
        let event = Event {
            event_id: id(n),
            event_type: event_type(n).to_owned(),
            account_id: "acc".to_owned(),
            timestamp_ms: 0,
            correlation_id: id(n),
            priority: Priority::Normal,
            key: key.clone(),
            source: None,
            alias: None,
            data: format!(
                r#"{{"post_id":"p{n}","author_id":"{key}","user_id":"u","text":"hello"}}"#
            ),
        };
        let record = Outgoing {
            topic: self.topology.lane(Lane::Normal).clone(),
            partition: self.topology.entity_partition(&event.account_id, &key),
            body: Body::new(Some(key.as_bytes()), Some(&event.encode()), &[]),
        };
        self.log.clone().append(&[record]).expect("no faults yet");
    }

    fn process(&mut self) -> FakeLog {
        self.processes += 1;
        self.log.as_process(self.processes)
    }

    /// A turn of DERIVE, which is created again after a crash.
    fn turn(&mut self) -> usize {
        if self.derive.is_none() {
            let process = self.process();
            let config = DeriveConfig {
                topology: self.topology.clone(),
                instance: "one".to_owned(),
                thread: 0,
                build: "sim".to_owned(),
                catalogue: Catalogue::builtin(),
                settings_hash: 7,
                standby: false,
            };
            let ports = DerivePorts {
                log: Arc::new(process.clone()),
                stores: Arc::new(self.stores.of_process(&process)),
                clock: Arc::new(HistoryClock(self.log.clone())),
            };
            const OPERATORS: &[&dyn Operator] = &[&Dedup, &Failing, &Beside, &ChannelDelivery];
            let derive = Derive::with_operators(config, ports, OPERATORS);
            self.derive = derive.ok().map(|derive| (process, derive));
        }
        let mut work = 1;
        if let Some((process, mut derive)) = self.derive.take() {
            let turned = derive.turn(Duration::ZERO);
            match turned {
                Ok(turned) if !process.is_dead() => {
                    work = turned.taken + turned.written + usize::from(turned.restoring);
                    self.derive = Some((process, derive));
                }
                _ => {
                    drop(derive);
                    self.stores.crash(0);
                }
            }
        }
        self.log.state().now.0 += TURN_MS;
        self.stores.write_some();
        work
    }

    /// Turns with faults, and crashes now and then.
    fn turn_with_faults(&mut self, turns: u64) {
        self.log.state().faults = true;
        for n in 0..turns {
            self.turn();
            if n % 40 == 39 {
                self.log.state().time_out();
                if let Some((process, _)) = &self.derive {
                    process.crash();
                }
            }
        }
        self.log.state().faults = false;
    }

    /// Turns without faults until nothing is left to do.
    fn settle(&mut self) {
        let mut idle = 0;
        for _ in 0..QUIET_TURNS {
            self.log.state().time_out();
            idle = if self.turn() == 0 { idle + 1 } else { 0 };
            if idle > 20 {
                return;
            }
        }
        panic!("there is still work after {QUIET_TURNS} turns without faults");
    }

    fn records(&self, topic: &Topic) -> Vec<Record> {
        let at = |p| TopicPartition::new(topic, Partition(p));
        let partitions = 0..self.topology.partitions();
        partitions.flat_map(|p| self.log.records(&at(p), Isolation::Committed)).collect()
    }

    /// The counts of a table, from its changelog.
    fn counts(&self, table: Table) -> BTreeMap<String, u8> {
        let mut counts = BTreeMap::new();
        for record in self.records(self.topology.state()) {
            let key = record.body.key().expect("a compacted topic has keys");
            if let (true, Some(value)) = (key[0] == table.0, record.body.value()) {
                counts.insert(String::from_utf8_lossy(&key[1..]).into_owned(), value[0]);
            }
        }
        counts
    }

    /// How often each event was delivered to each channel, by event id or by what an emitted event
    /// is of.
    fn delivered(&self) -> BTreeMap<(String, String), usize> {
        let mut delivered = BTreeMap::new();
        for record in self.records(self.topology.out_stream()) {
            let event = EventView::decode(record.body.value().expect("a value")).expect("an event");
            let of = event
                .data
                .split_once(r#""of":""#)
                .map(|(_, rest)| rest.trim_end_matches(['"', '}']));
            let id = of.map_or(event.event_id.to_owned(), |of| format!("emitted {of}"));
            let channel = String::from_utf8_lossy(record.body.key().expect("a key")).into_owned();
            *delivered.entry((id, channel)).or_default() += 1;
        }
        delivered
    }

    fn open_letters(&self) -> usize {
        let filter = Filter { operators: vec!["failing".to_owned()], ..Filter::default() };
        let log: &dyn Log = &self.log;
        let open = list(log, &self.topology, &filter).expect("no faults").open();
        open.entries.len()
    }

    fn requeue(&mut self) -> bool {
        let request = ResolveRequest {
            filter: Filter { operators: vec!["failing".to_owned()], ..Filter::default() },
            resolution: Resolution::Requeued,
            because: None,
            limit: Some(3),
        };
        let process = self.process();
        resolve(&process, &self.topology, &request).is_ok_and(|done| done.left == 0)
    }
}

/// Each of these events, counted once.
fn once(events: impl Iterator<Item = usize>) -> BTreeMap<String, u8> {
    events.map(|n| (id(n), 1)).collect()
}

#[test]
fn one_failing_operator_delays_nothing_and_its_effects_come_once_when_it_is_fixed() {
    for seed in 0..HISTORIES {
        FIXED.store(false, Ordering::SeqCst);
        let mut history = FailingHistory::new(seed);
        history.turn_with_faults(TURNS);
        history.settle();
        let passing = || (0..EVENTS).filter(|n| event_type(*n) == "post.created");
        assert_eq!(history.counts(BESIDE), once(0..EVENTS), "history {seed}");
        assert_eq!(history.counts(DONE), once(passing()), "history {seed}");
        let before = history.delivered();
        for n in 0..EVENTS {
            assert!(before.keys().any(|(event, _)| *event == id(n)), "history {seed}: {n}");
        }
        assert!(before.values().all(|times| *times == 1), "history {seed}: {before:?}");
        assert_eq!(history.open_letters(), EVENTS / 50, "history {seed}");

        FIXED.store(true, Ordering::SeqCst);
        for _ in 0..ATTEMPTS {
            history.log.state().faults = true;
            // Whatever the outcome, the next attempt must complete the rest.
            history.requeue();
            history.turn_with_faults(TURNS / ATTEMPTS);
        }
        history.settle();
        while !history.requeue() {}
        history.settle();
        assert_eq!(history.open_letters(), 0, "history {seed}");
        assert_eq!(history.counts(BESIDE), once(0..EVENTS), "history {seed}");
        assert_eq!(history.counts(DONE), once(0..EVENTS), "history {seed}");
        let mut after = history.delivered();
        assert!(after.values().all(|times| *times == 1), "history {seed}: {after:?}");
        after.retain(|event, _| !before.contains_key(event));
        let new: BTreeSet<_> = after.keys().map(|(event, _)| event.clone()).collect();
        let failing = (0..EVENTS).filter(|n| event_type(*n) != "post.created");
        let wanted: BTreeSet<_> = failing.map(|n| format!("emitted {}", id(n))).collect();
        assert_eq!(new, wanted, "history {seed}: exactly the missing effects");
    }
}
