//! Builds of two value levels on one log: what each writes and reads, and who has to stop.

use std::sync::Arc;
use std::time::Duration;

use tidewire_engine::derive::order::OrderRecord;
use tidewire_engine::derive::stores::{FieldDecoder, KeyValue, StoreValue};
use tidewire_engine::derive::{
    ChannelDelivery, Context, DEDUP_FILTER_BYTES, Derive, DeriveConfig, DerivePorts, Flow, Input,
    Operator, OperatorError, Operators, TableDecl, dedup::Dedup, highest_level,
};
use tidewire_engine::port::{Appender, Clock, Isolation, LogError};
use tidewire_engine::record::{Body, Millis, Outgoing, Partition, Record, Topic, TopicPartition};
use tidewire_engine::replay::{DivergenceKind, ReplayRange, TaskSpec};
use tidewire_engine::topics_layout::{LayoutNumber, create_topics};
use tidewire_engine::topology::{Lane, Topology};
use tidewire_engine::turn::EngineError;
use tidewire_engine::value_level::{VALUE_LEVEL_KEY, ValueLevel, finalize, level_in_force};
use tidewire_schemas::Priority;
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::event::Event;

use crate::fake::{FakeLog, FakeStores};
use crate::replay::verify;
use crate::test_rng::TestRng;

/// Histories of administrators in one run.
const HISTORIES: u64 = 1_000;

/// Attempts to raise the level, each in a new process, after which the log stops failing.
const ATTEMPTS: u64 = 8;

/// Turns after which every process has what it gets.
const TURNS: usize = 200;

const NUMBER: u8 = 70;

/// The count of the former build, which has one version.
struct FormerCount(u8);

impl StoreValue for FormerCount {
    fn put(&self, _: u8, out: &mut Vec<u8>) {
        out.push(self.0);
    }

    fn read(_: u8, from: &mut FieldDecoder<'_>) -> Option<Self> {
        from.byte().map(Self)
    }
}

/// That of the later build: from level 2 on it is written twice.
struct LaterCount(u8);

impl StoreValue for LaterCount {
    const LEVELS: &'static [ValueLevel] = &[ValueLevel(1), ValueLevel(2)];

    fn put(&self, version: u8, out: &mut Vec<u8>) {
        out.extend(std::iter::repeat_n(self.0, version.into()));
    }

    fn read(version: u8, from: &mut FieldDecoder<'_>) -> Option<Self> {
        from.take(version.into()).map(|bytes| Self(bytes[0]))
    }
}

const FORMER_COUNTS: KeyValue<String, FormerCount> = KeyValue::new(NUMBER, "counts");
const LATER_COUNTS: KeyValue<String, LaterCount> = KeyValue::new(NUMBER, "counts");

/// Counts the events of each key.
struct FormerCounter;

/// The same of the later build.
struct LaterCounter;

impl Operator for FormerCounter {
    fn number(&self) -> u8 {
        NUMBER
    }

    fn name(&self) -> &'static str {
        "counter"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] = &[FORMER_COUNTS.decl()];
        TABLES
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        let key = event.key.to_owned();
        let count = FORMER_COUNTS.get(context, &key)?.map_or(0, |count| count.0);
        FORMER_COUNTS.put(context, &key, &FormerCount(count + 1));
        Ok(Flow::Continue)
    }
}

impl Operator for LaterCounter {
    fn number(&self) -> u8 {
        NUMBER
    }

    fn name(&self) -> &'static str {
        "counter"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] = &[LATER_COUNTS.decl()];
        TABLES
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        let key = event.key.to_owned();
        let count = LATER_COUNTS.get(context, &key)?.map_or(0, |count| count.0);
        LATER_COUNTS.put(context, &key, &LaterCount(count + 1));
        Ok(Flow::Continue)
    }
}

const FORMER: Operators = &[&Dedup, &FormerCounter, &ChannelDelivery];
const LATER: Operators = &[&Dedup, &LaterCounter, &ChannelDelivery];

struct LevelClock(FakeLog);

impl Clock for LevelClock {
    fn now(&self) -> Millis {
        self.0.state().now
    }
}

/// A log of two partitions, and the events sent so far.
struct TwoPartitions {
    log: FakeLog,
    topology: Topology,
    sent: usize,
}

impl TwoPartitions {
    /// Topics that this build has created.
    fn new(operators: Operators) -> Self {
        let (log, topology) = (FakeLog::new(1), Topology::new("t.", 2));
        let level = highest_level(operators);
        create_topics(&log, &topology, LayoutNumber::CURRENT, level).expect("new topics");
        Self { log, topology, sent: 0 }
    }

    fn start(&self, instance: &str, operators: Operators) -> Derive {
        let config = DeriveConfig {
            topology: self.topology.clone(),
            catalogue: Catalogue::builtin(),
            instance: instance.to_owned(),
            thread: 0,
            build: "one".to_owned(),
            settings_hash: 7,
            standby: false,
            dedup_filter_bytes: DEDUP_FILTER_BYTES,
            hash_seed: 0,
        };
        let ports = DerivePorts {
            log: Arc::new(self.log.clone()),
            stores: Arc::new(FakeStores::new(0, &self.log)),
            clock: Arc::new(LevelClock(self.log.clone())),
        };
        Derive::new(config, ports, operators).expect("joined")
    }

    /// Sends an event of a key in this partition.
    fn send(&mut self, partition: u32) {
        let mut keys = (0..).map(|n| format!("k{n}"));
        let is_there =
            |key: &String| self.topology.entity_partition("acc", key) == Partition(partition);
        let key = keys.find(is_there).expect("some key is in each partition");
        self.sent += 1;
        let id = format!("e-{}", self.sent);
        let event = Event {
            event_id: id.clone(),
            event_type: "post.created".to_owned(),
            account_id: "acc".to_owned(),
            timestamp_ms: 0,
            correlation_id: id,
            priority: Priority::Normal,
            key: key.clone(),
            source: None,
            alias: None,
            data: format!(r#"{{"post_id":"p","author_id":"{key}","text":"hello"}}"#),
        };
        let record = Outgoing {
            topic: self.topology.lane(Lane::Normal).clone(),
            partition: Partition(partition),
            body: Body::new(Some(key.as_bytes()), Some(&event.encode()), &[]),
        };
        self.log.clone().append(&[record]).expect("no faults");
    }

    /// Repeats the turns of processes until everything is done; the first error ends it.
    fn turn(&self, processes: &mut [&mut Derive]) -> Result<(), EngineError> {
        for _ in 0..TURNS {
            self.log.state().now.0 += 10;
            for derive in &mut *processes {
                derive.turn(Duration::ZERO)?;
            }
        }
        Ok(())
    }

    /// Lets one process of a build process an event of each partition.
    fn run(&mut self, operators: Operators) -> Result<(), EngineError> {
        let mut derive = self.start("one", operators);
        (0..2).for_each(|partition| self.send(partition));
        let turned = self.turn(&mut [&mut derive]);
        match turned {
            Ok(()) => derive.close(),
            Err(error) => derive.close_without_offsets().and(Err(error)),
        }
    }

    fn records(&self, topic: &Topic, partition: u32) -> Vec<Record> {
        self.log.records(&TopicPartition::new(topic, Partition(partition)), Isolation::Committed)
    }

    /// The newest count of a partition, as it is stored.
    fn count(&self, partition: u32) -> Vec<u8> {
        let records = self.records(self.topology.state(), partition);
        let counts = records.iter().filter(|record| record.body.key().expect("a key")[0] == NUMBER);
        counts.last().and_then(|record| record.body.value()).expect("a count").to_vec()
    }

    /// The levels in `order` of a partition, without repetitions.
    fn levels(&self, partition: u32) -> Vec<u8> {
        let decode = |r: &Record| OrderRecord::decode(r.body.value().expect("a value"));
        let records = self.records(self.topology.order(), partition);
        let mut levels: Vec<u8> =
            records.iter().map(|record| decode(record).expect("own").level.0).collect();
        levels.dedup();
        levels
    }

    fn dead_letters(&self) -> usize {
        let topic = self.topology.dead_letters();
        (0..2).map(|partition| self.records(topic, partition).len()).sum()
    }

    fn raise(&self, operators: Operators) -> Result<ValueLevel, LogError> {
        finalize(&self.log, &self.topology, highest_level(operators))
    }

    fn task(&self, operators: Operators) -> TaskSpec {
        TaskSpec {
            topology: self.topology.clone(),
            catalogue: Catalogue::builtin(),
            partition: Partition(0),
            build: "one".to_owned(),
            settings_hash: 7,
            operators,
        }
    }
}

fn check_refused(error: &EngineError) {
    assert!(matches!(error, EngineError::Fatal { .. }), "{error:?}");
    let text = error.to_string();
    for part in ["value level 2 is in force", "up to level 1", "tidewire finalize"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn builds_take_turns_until_the_level_is_raised_and_then_the_former_one_is_refused() {
    let mut deployment = TwoPartitions::new(FORMER);
    deployment.run(FORMER).expect("the former build");
    assert_eq!(deployment.count(0), [1, 1]);
    deployment.run(LATER).expect("the later build");
    assert_eq!(deployment.count(0), [1, 2], "it writes what the former one reads");
    deployment.run(FORMER).expect("the former build again");
    assert_eq!(deployment.count(0), [1, 3], "it has read what the later one wrote");
    assert_eq!(deployment.raise(LATER).expect("raised"), ValueLevel(1));
    assert_eq!(deployment.raise(LATER).expect("no change"), ValueLevel(2));
    check_refused(&deployment.run(FORMER).expect_err("it could not read all values"));
    deployment.raise(FORMER).expect_err("the level never falls");
    deployment.run(LATER).expect("the later build");
    assert_eq!(deployment.count(0), [2, 5, 5], "the newest version, from the former one");
    assert_eq!(deployment.levels(0), [1, 2]);
    assert_eq!(deployment.dead_letters(), 0);
}

#[test]
fn a_replay_writes_by_the_level_that_was_in_force() {
    let mut deployment = TwoPartitions::new(FORMER);
    deployment.run(LATER).expect("at level 1");
    deployment.raise(LATER).expect("raised");
    deployment.run(LATER).expect("at level 2");
    let task = deployment.task(LATER);
    let stores = || FakeStores::new(0, &deployment.log);
    let difference = || {
        let (_, found) =
            verify(&deployment.log, &task, &stores(), ReplayRange::default()).expect("replayed");
        found.map(|found| found.kind)
    };
    assert_eq!(difference(), None);
    // The last value of version 2 follows from the level alone.
    let at = task.order();
    let orders = deployment.records(&at.topic, 0);
    let decode = |record: &Record| OrderRecord::decode(record.body.value().expect("a value"));
    for level in [ValueLevel(1), ValueLevel(3)] {
        for record in &orders {
            let mut order = decode(record).expect("own");
            if order.level > ValueLevel(1) {
                order.level = level;
                deployment.log.damage(
                    &at,
                    record.offset,
                    Body::new(None, Some(&order.encode()), &[]),
                );
            }
        }
        let found = difference();
        match level {
            ValueLevel(1) => assert!(matches!(found, Some(DivergenceKind::Changelog { .. }))),
            _ => assert!(matches!(found, Some(DivergenceKind::Order { field: "level", .. }))),
        }
    }
}

#[test]
fn a_new_deployment_has_the_level_of_its_build_at_once() {
    let mut deployment = TwoPartitions::new(LATER);
    deployment.run(LATER).expect("the build that created it");
    assert_eq!(deployment.count(1), [2, 1, 1]);
    check_refused(&deployment.run(FORMER).expect_err("a build of a lower level"));
}

#[test]
fn an_older_process_stops_before_it_meets_a_newer_value() {
    let mut deployment = TwoPartitions::new(FORMER);
    let mut former = deployment.start("former", FORMER);
    deployment.send(0);
    deployment.turn(&mut [&mut former]).expect("alone");
    // The administrator was wrong: a process of the former build still runs.
    deployment.raise(LATER).expect("raised");
    let mut later = deployment.start("later", LATER);
    (0..2).for_each(|partition| deployment.send(partition));
    // A partition that the later one had might be the former one's next.
    let error = deployment.turn(&mut [&mut later, &mut former]).expect_err("it is assigned again");
    check_refused(&error);
    former.close_without_offsets().expect("closed");
    let mut replaced = deployment.start("former", LATER);
    deployment.turn(&mut [&mut later, &mut replaced]).expect("each has a partition");
    assert_eq!([deployment.count(0), deployment.count(1)], [vec![2, 2, 2], vec![2, 1, 1]]);
    assert_eq!(deployment.levels(0), [1, 2]);
    assert_eq!(deployment.dead_letters(), 0);
}

/// Lets builds of levels 2 and 3 raise the level while the log fails.
fn history(seed: u64) -> ValueLevel {
    let (log, topology) = (FakeLog::new(seed), Topology::new("t.", 1));
    let first = ValueLevel::FIRST;
    create_topics(&log, &topology, LayoutNumber::CURRENT, first).expect("no faults yet");
    let mut random = TestRng::new(seed);
    log.state().faults = true;
    let mut reached = first;
    for attempt in 1..=ATTEMPTS {
        let highest = [ValueLevel(2), ValueLevel(3)][random.index(2)];
        if let Ok(before) = finalize(&log.as_process(attempt), &topology, highest) {
            assert!(before >= reached, "{before:?} after {reached:?}");
            reached = highest;
        }
    }
    log.state().faults = false;
    log.state().time_out();
    let process = log.as_process(ATTEMPTS + 1);
    let found = level_in_force(&process, &topology, ValueLevel(3)).expect("no faults");
    assert!(found >= reached, "{found:?} after {reached:?}");
    let at = TopicPartition::new(topology.catalogues(), Partition(0));
    let records = log.records(&at, Isolation::Committed);
    let is_level = |record: &&Record| record.body.key() == Some(VALUE_LEVEL_KEY.as_bytes());
    let values = records.iter().filter(is_level).map(|record| record.body.value());
    let values: Vec<_> = values.map(|value| value.expect("a level").to_vec()).collect();
    assert!(values.is_sorted_by(|a, b| a < b), "each level once: {values:?}");
    found
}

#[test]
fn the_level_is_raised_once_and_never_falls_whatever_fails() {
    let mut reached = [0; 4];
    (0..HISTORIES).for_each(|seed| reached[usize::from(history(seed).0)] += 1);
    assert!(reached[2] > 0 && reached[3] > HISTORIES / 4, "{reached:?}");
}
