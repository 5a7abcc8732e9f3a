//! Replays of simulated histories, and of histories with damaged or missing records.
//!
//! An intact history replays without a difference; a changed byte, a skipped record, a forged field
//! or a nondeterministic operator is found and located.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidewire_engine::derive::order::OrderRecord;
use tidewire_engine::derive::{
    Changelog, ChannelDelivery, Context, DEDUP_FILTER_BYTES, Derive, DeriveConfig, DerivePorts,
    Flow, Input, Operator, OperatorError, Operators, TableDecl,
};
use tidewire_engine::port::{Appender, Clock, Isolation, Log, Table, TableExpiry, TableSpec};
use tidewire_engine::record::{Body, Millis, Offset, Outgoing, Partition, Record, TopicPartition};
use tidewire_engine::replay::{
    Divergence, DivergenceKind, Nearest, Point, ReadOnlyLog, ReplayError, ReplayRange, Replayed,
    TaskSpec, Verification, VerifyStep,
};
use tidewire_engine::topology::{Lane, Topology};
use tidewire_engine::value_level::ValueLevel;
use tidewire_schemas::Priority;
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::event::Event;

use crate::fake::{FakeLog, FakeStores};
use crate::operators::OPERATORS;
use crate::world::World;

/// Runs a verification to its end.
pub(crate) fn verify(
    log: &FakeLog,
    task: &TaskSpec,
    stores: &FakeStores,
    range: ReplayRange,
) -> Result<(Replayed, Option<Divergence>), ReplayError> {
    let log = ReadOnlyLog::new(Arc::new(log.clone()));
    let plan = task.plan(&log, &BTreeSet::new(), range)?;
    let mut verification = Verification::begin(&log, task, plan, stores)?;
    loop {
        match verification.step()? {
            VerifyStep::Same => {}
            VerifyStep::Done => return Ok((verification.replayed(), None)),
            VerifyStep::Differs(difference) => {
                return Ok((verification.replayed(), Some(*difference)));
            }
        }
    }
}

/// Replays each task's whole history.
pub(crate) fn check_replay(world: &World) -> Result<(), String> {
    let before = world.log.fingerprint();
    let stores = FakeStores::new(0, &world.log);
    for partition in (0..world.topology.partitions()).map(Partition) {
        let task = TaskSpec {
            topology: world.topology.clone(),
            catalogue: Catalogue::builtin(),
            partition,
            build: "sim".to_owned(),
            settings_hash: 7,
            operators: OPERATORS,
        };
        match verify(&world.log, &task, &stores, ReplayRange::default()) {
            Ok((_, None)) => {}
            Ok((_, Some(difference))) => return Err(difference.to_string()),
            Err(error) => return Err(format!("{}: the replay failed: {error:?}", task.order())),
        }
    }
    match before == world.log.fingerprint() {
        true => Ok(()),
        false => Err("a replay has changed the log".to_owned()),
    }
}

/// What one task wrote for some events, with the faults off.
struct ReplayFixture {
    log: FakeLog,
    task: TaskSpec,
}

struct LogClock(FakeLog);

impl Clock for LogClock {
    fn now(&self) -> Millis {
        self.0.state().now
    }
}

fn event(n: usize) -> Event {
    Event {
        event_id: format!("e-{n}"),
        event_type: "post.created".to_owned(),
        account_id: "acc".to_owned(),
        timestamp_ms: 0,
        correlation_id: format!("e-{n}"),
        priority: Priority::Normal,
        key: "alice".to_owned(),
        source: None,
        alias: None,
        data: format!(r#"{{"post_id":"p{n}","author_id":"alice","text":"hello"}}"#),
    }
}

impl ReplayFixture {
    fn new(operators: Operators) -> Self {
        let (log, topology) = (FakeLog::new(1), Topology::new("t.", 1));
        for spec in topology.specs() {
            log.create(&spec).expect("a new log");
        }
        let (build, settings_hash) = ("one".to_owned(), 7);
        let partition = Partition(0);
        let catalogue = Catalogue::builtin();
        let task = TaskSpec { topology, catalogue, partition, build, settings_hash, operators };
        Self { log, task }
    }

    /// Lets this build process these events.
    fn run(&self, build: &str, numbers: std::ops::Range<usize>) {
        let topology = &self.task.topology;
        let config = DeriveConfig {
            topology: topology.clone(),
            catalogue: Catalogue::builtin(),
            instance: "one".to_owned(),
            thread: 0,
            build: build.to_owned(),
            settings_hash: 7,
            standby: false,
            dedup_filter_bytes: DEDUP_FILTER_BYTES,
            hash_seed: 3,
        };
        let ports = DerivePorts {
            log: Arc::new(self.log.clone()),
            stores: Arc::new(FakeStores::new(0, &self.log)),
            clock: Arc::new(LogClock(self.log.clone())),
        };
        let mut derive = Derive::new(config, ports, self.task.operators).expect("joined");
        for n in numbers {
            let record = Outgoing {
                topic: topology.lane(Lane::Normal).clone(),
                partition: Partition(0),
                body: Body::new(Some(b"alice"), Some(&event(n).encode()), &[]),
            };
            self.log.clone().append(&[record]).expect("no faults");
            for _ in 0..5 {
                self.log.state().now.0 += 10;
                derive.turn(Duration::ZERO).expect("no faults");
            }
        }
        derive.close().expect("closed");
    }

    fn records(&self, topic: &tidewire_engine::record::Topic) -> Vec<Record> {
        self.log.records(&TopicPartition::new(topic, Partition(0)), Isolation::Committed)
    }

    fn orders(&self) -> Vec<(Offset, OrderRecord)> {
        let decode = |r: &Record| OrderRecord::decode(r.body.value().expect("a value"));
        let records = self.records(self.task.topology.order());
        records.iter().map(|r| (r.offset, decode(r).expect("an order record"))).collect()
    }

    /// Replaces a record of `order` by another.
    fn forge(&self, offset: Offset, order: &OrderRecord) {
        let body = Body::new(None, Some(&order.encode()), &[]);
        self.log.damage(&self.task.order(), offset, body);
    }

    fn verify(&self, range: ReplayRange) -> Result<(Replayed, Option<Divergence>), ReplayError> {
        let stores = FakeStores::new(0, &self.log);
        verify(&self.log, &self.task, &stores, range)
    }

    fn difference(&self) -> Divergence {
        let found = self.verify(ReplayRange::default()).expect("it is replayed");
        found.1.expect("a difference")
    }

    fn refusal(&self, range: ReplayRange) -> String {
        match self.verify(range) {
            Err(ReplayError::Refused(text)) => text,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_history_without_faults_replays_and_is_counted() {
    let fixture = ReplayFixture::new(OPERATORS);
    fixture.run("one", 0..20);
    let (whole, difference) = fixture.verify(ReplayRange::default()).expect("replayed");
    assert_eq!(difference, None);
    let orders: Vec<OrderRecord> = fixture.orders().into_iter().map(|(_, order)| order).collect();
    let timers = orders.iter().filter(|order| !order.ticks.is_empty()).count();
    assert!(timers > 0, "timers fired in transactions of their own: {whole:?}");
    let taken = orders.iter().flat_map(|order| &order.sequence).map(|(_, records)| *records);
    let outputs: u64 = orders.iter().map(|order| u64::from(order.outputs)).sum();
    let audit = fixture.records(fixture.task.topology.out_audit()).len() as u64;
    let counted = (orders.len() as u64, u64::from(taken.sum::<u32>()), outputs - audit);
    assert!(audit > 0, "it is compared, and is not counted");
    assert_eq!((whole.transactions, whole.records, whole.outputs), counted);
    assert!(whole.records >= 20 && whole.outputs >= 60, "three channels each: {whole:?}");
    assert_eq!(whole.only_hashed, 0);
    let (from, to) = (fixture.orders()[5].0, fixture.orders()[9].0);
    let span = ReplayRange { from: Some(Point::Offset(from)), to: Some(Point::Offset(to)) };
    let (part, difference) = fixture.verify(span).expect("replayed");
    assert_eq!((part.before, part.transactions, difference), (5, 4, None));
}

#[test]
fn a_changed_byte_of_an_output_is_found_and_located() {
    let fixture = ReplayFixture::new(OPERATORS);
    fixture.run("one", 0..20);
    let topic = fixture.task.topology.out_stream().clone();
    let record = &fixture.records(&topic)[30];
    let mut value = record.body.value().expect("a value").to_vec();
    let last = value.len() - 2;
    value[last] ^= 1;
    let at = TopicPartition::new(&topic, Partition(0));
    let damaged = Body::new(record.body.key(), Some(&value), &[]);
    fixture.log.damage(&at, record.offset, damaged);
    let found = fixture.difference();
    let DivergenceKind::Output { index, to, nearest: Some(Nearest { offset, bytes, .. }) } =
        found.kind
    else {
        panic!("{found}");
    };
    assert_eq!((index, to, offset, bytes), (0, at, record.offset, 1));
    let whose = fixture.orders().into_iter().find(|(at, _)| *at == found.transaction.1);
    let taken = whose.expect("its transaction").1.spans[Lane::Normal.index()].expect("a record");
    assert_eq!(fixture.records(fixture.task.topology.lane(Lane::Normal))[10].offset, taken.first);
}

#[test]
fn a_skipped_record_is_found() {
    let fixture = ReplayFixture::new(OPERATORS);
    fixture.run("one", 0..6);
    // As if the fourth record had been skipped: its transaction claims the fifth.
    let orders = fixture.orders();
    let takes = |(_, order): &&(Offset, OrderRecord)| order.spans[Lane::Normal.index()].is_some();
    let (at, mut order) = orders.iter().filter(takes).nth(3).expect("six were taken").clone();
    let span = order.spans[Lane::Normal.index()].as_mut().expect("one was taken");
    (span.first, span.last) = (span.first.next(), span.last.next());
    fixture.forge(at, &order);
    let found = fixture.difference();
    assert_eq!(found.transaction.1, at);
    assert!(found.to_string().contains("t.lane.normal/0/3 was skipped"), "{found}");
}

#[test]
fn forged_fields_are_found_and_named() {
    type Forge = fn(&mut OrderRecord);
    let forges: [(&str, Forge); 4] = [
        ("time after", |order| order.after.0[0].0 += 1),
        ("accepted", |order| order.accepted.clear()),
        ("dead letters", |order| order.dead_letters.push(0)),
        ("outputs", |order| order.outputs_hash ^= 1),
    ];
    for (name, forge) in forges {
        let fixture = ReplayFixture::new(OPERATORS);
        fixture.run("one", 0..6);
        let (at, mut order) = fixture.orders()[2].clone();
        forge(&mut order);
        fixture.forge(at, &order);
        let found = fixture.difference();
        assert_eq!(found.transaction.1, at, "{name}");
        assert!(
            matches!(found.kind, DivergenceKind::Order { field, .. } if field == name),
            "{found}"
        );
    }
}

/// A count outside the operators' tables, which makes them nondeterministic.
static ASKED: AtomicU64 = AtomicU64::new(0);

const SEEN: Table = Table(90);

/// Fails depending on, or writes, a value from outside its tables.
struct NondeterministicOperator {
    fails: bool,
}

impl Operator for NondeterministicOperator {
    fn number(&self) -> u8 {
        90
    }

    fn name(&self) -> &'static str {
        "fickle"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const SPEC: TableSpec = TableSpec { table: SEEN, name: "seen", expiry: TableExpiry::Never };
        &[TableDecl {
            spec: SPEC,
            changelog: Changelog::State,
            window_ms: 0,
            level: ValueLevel::FIRST,
        }]
    }

    fn on_event(&self, _: &Input<'_>, context: &mut Context<'_>) -> Result<Flow, OperatorError> {
        let asked = ASKED.fetch_add(1, Ordering::SeqCst);
        if self.fails && asked % 7 == 6 {
            return Err(OperatorError::Failed("a nondeterministic failure".to_owned()));
        }
        context.put(SEEN, b"asked", &asked.to_be_bytes());
        Ok(Flow::Continue)
    }
}

#[test]
fn a_nondeterministic_operator_is_found_by_its_outputs_and_by_its_changelog() {
    let failing =
        ReplayFixture::new(&[&NondeterministicOperator { fails: true }, &ChannelDelivery]);
    failing.run("one", 0..10);
    let found = failing.difference();
    assert!(matches!(found.kind, DivergenceKind::Output { index: 0, .. }), "{found}");
    let writing =
        ReplayFixture::new(&[&NondeterministicOperator { fails: false }, &ChannelDelivery]);
    writing.run("one", 0..10);
    let found = writing.difference();
    let first = writing.records(writing.task.topology.state())[0].offset;
    let DivergenceKind::Changelog { at } = &found.kind else { panic!("{found}") };
    assert_eq!(at.1, first, "outputs are the same, and the first change is another");
}

#[test]
fn a_span_of_two_builds_is_refused_with_both_builds_named() {
    let fixture = ReplayFixture::new(OPERATORS);
    fixture.run("one", 0..5);
    let change = fixture.orders().len();
    fixture.run("two", 5..10);
    let at = fixture.orders()[change].0;
    let text = fixture.refusal(ReplayRange::default());
    let ours = format!("by this build (one) --to {} can be verified", at.0);
    for part in ["build one", "build two", &format!("up to {}", at.0), &ours] {
        assert!(text.contains(part), "{part:?}: {text}");
    }
    let (to, from) = (Some(Point::Offset(at)), Some(Point::Offset(at)));
    let (replayed, difference) = fixture.verify(ReplayRange { from: None, to }).expect("one build");
    assert_eq!((replayed.transactions, difference), (change as u64, None));
    let text = fixture.refusal(ReplayRange { from, to: None });
    assert!(text.contains("two builds"), "its state comes from before: {text}");
}

#[test]
fn a_changed_catalogue_or_changed_settings_count_as_another_build() {
    for forge in [(|o| o.settings_hash = 1) as fn(&mut OrderRecord), |o| o.catalogue_hash = 1] {
        let fixture = ReplayFixture::new(OPERATORS);
        fixture.run("one", 0..3);
        for (at, mut order) in fixture.orders() {
            forge(&mut order);
            fixture.forge(at, &order);
        }
        let text = fixture.refusal(ReplayRange::default());
        assert!(text.contains("0000000000000001"), "the other one is named: {text}");
        assert!(text.contains("verify it with that one"), "{text}");
    }
}

#[test]
fn a_span_removed_by_retention_is_refused_with_its_earliest_offset() {
    const DAY_MS: i64 = 24 * 3_600_000;
    let fixture = ReplayFixture::new(OPERATORS);
    fixture.run("one", 0..5);
    fixture.log.state().now.0 += 4 * DAY_MS;
    fixture.run("one", 5..8);
    let order = fixture.task.topology.order().clone();
    let lane = fixture.task.topology.lane(Lane::Normal).clone();
    fixture.log.state().clean(|topic| *topic == order);
    let text = fixture.refusal(ReplayRange::default());
    assert!(text.contains("no state of this task is known"), "{text}");
    let other = ReplayFixture::new(OPERATORS);
    other.run("one", 0..5);
    other.log.state().now.0 += 8 * DAY_MS;
    other.run("one", 5..8);
    other.log.state().clean(|topic| *topic == lane);
    let from = Some(Point::Offset(Offset(0)));
    let text = other.refusal(ReplayRange { from, to: None });
    assert!(text.contains("t.lane.normal/0 starts at 5"), "{text}");
    assert!(text.contains("has been removed by retention"), "{text}");
}
