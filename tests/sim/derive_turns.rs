//! One turn of DERIVE: what it asks of the log, and how much it puts into one transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tidewire_engine::derive::dedup::Dedup;
use tidewire_engine::derive::order::{OrderRecord, Tick};
use tidewire_engine::derive::{
    ChannelDelivery, Context, DEDUP_FILTER_BYTES, Derive, DeriveConfig, DerivePorts, Flow, Input,
    MAX_OPEN_MS, Operator, OperatorError, SETTLE_MS, TICK_MS,
};
use tidewire_engine::fact_pack::{FactPackBuilder, PackedFact, pack_of_record};
use tidewire_engine::port::{Appender, Clock, Isolation, Log};
use tidewire_engine::record::{Body, Millis, Outgoing, Partition, TopicPartition};
use tidewire_engine::topology::{Lane, Topology};
use tidewire_schemas::Priority;
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::event::Event;

use crate::fake::{Call, CommitOutcome, FakeLog, FakeStores, FaultScript};
use crate::world::{ADMITS, World};

/// The seed of the producers: timers are set in every partition.
const SEED: u64 = 11;

/// Turns in which a world processes all that it was given.
const TURNS: usize = 20;

/// Milliseconds after which all timers are due that a world has set.
const TIMERS_MS: i64 = 2_000;

/// A world of one machine whose tasks have set timers, none of which is due.
fn with_timers() -> World {
    let mut world = World::with_owners(SEED, 1);
    for _ in 0..12 {
        world.produce();
    }
    for _ in 0..TURNS {
        for n in 0..ADMITS {
            world.turn_admit(n).expect("no faults");
        }
        world.turn_derive(0).expect("no faults");
    }
    assert_eq!(ticks(&world), [], "no timer is due");
    world
}

/// All ticks in the log.
fn ticks(world: &World) -> Vec<Tick> {
    let partitions = 0..world.topology.partitions();
    partitions.flat_map(|partition| ticks_of(&world.log, &world.topology, partition)).collect()
}

/// The ticks of one task.
fn ticks_of(log: &FakeLog, topology: &Topology, partition: u32) -> Vec<Tick> {
    orders_of(log, topology, partition).into_iter().flat_map(|order| order.ticks).collect()
}

/// The transactions of one task.
fn orders_of(log: &FakeLog, topology: &Topology, partition: u32) -> Vec<OrderRecord> {
    let at = TopicPartition::new(topology.order(), Partition(partition));
    let records = log.records(&at, Isolation::Committed).into_iter();
    let orders = records.map(|record| OrderRecord::decode(record.body.value().expect("a value")));
    orders.map(|order| order.expect("an order record")).collect()
}

/// An event of a lane; facts have normal priority.
fn event(lane: Lane, partition: u32, n: usize) -> Event {
    let priority = Priority::ALL.into_iter().find(|priority| Lane::of(*priority) == lane);
    Event {
        event_id: format!("e-{}-{partition}-{n}", lane.index()),
        event_type: "post.created".into(),
        account_id: "acc".into(),
        timestamp_ms: 0,
        correlation_id: "c".into(),
        priority: priority.unwrap_or(Priority::Normal),
        key: format!("k{partition}"),
        source: None,
        alias: None,
        data: format!(r#"{{"post_id":"p{n}","author_id":"a","text":"t"}}"#),
    }
}

/// The partitions with ticks in the log.
fn ticking_partitions(log: &FakeLog, topology: &Topology) -> Vec<u32> {
    let ticks = |partition: &u32| !ticks_of(log, topology, *partition).is_empty();
    (0..topology.partitions()).filter(ticks).collect()
}

/// The same world after its timers were due.
fn with_due_timers() -> World {
    let mut world = with_timers();
    world.log.state().now.0 += TIMERS_MS;
    watched_turn(&mut world);
    world
}

/// Makes a turn; returns how often it started a restore or the loop.
fn restored_in_turn(world: &mut World) -> usize {
    let calls = watched_turn(world);
    count(&calls, Call::Transactor) + count(&calls, Call::StoreOpen) + count(&calls, Call::Member)
}

/// Makes a turn; returns the calls of its process.
fn watched_turn(world: &mut World) -> Vec<Call> {
    let process = world.loops.process(0);
    let commit_outcome = CommitOutcome::Committed;
    let script = FaultScript { process, injected: None, commit_outcome, calls: Vec::new() };
    world.log.state().script = Some(script);
    world.turn_derive(0).expect("no faults");
    world.log.state().script.take().expect("it was put there").calls
}

fn count(calls: &[Call], of: Call) -> usize {
    calls.iter().filter(|call| **call == of).count()
}

#[test]
fn one_request_that_does_not_block_serves_the_ticks_of_all_tasks() {
    let mut world = with_timers();
    world.log.state().now.0 += TIMERS_MS;
    let calls = watched_turn(&mut world);
    assert!(ticks(&world).len() > 1, "more than one task had a timer due");
    assert_eq!(count(&calls, Call::RequestEnds), 1);
    // The lag of one lane is sampled now and then.
    assert!(count(&calls, Call::Bounds) <= 1, "{calls:?}");
    world.log.state().now.0 += TICK_MS - 1;
    let calls = watched_turn(&mut world);
    assert_eq!(count(&calls, Call::RequestEnds), 0, "the next one is not due");
}

#[test]
fn a_tick_has_the_time_at_which_the_ends_were_requested() {
    let mut world = with_timers();
    world.log.state().answers_are_late = true;
    world.log.state().now.0 += TIMERS_MS;
    let requested = world.log.state().now;
    watched_turn(&mut world);
    world.log.state().now.0 += 10 * TICK_MS;
    let calls = watched_turn(&mut world);
    assert_eq!(count(&calls, Call::RequestEnds), 0, "one request is pending");
    assert_eq!(ticks(&world), [], "there is no answer yet");
    world.log.state().answers_are_late = false;
    watched_turn(&mut world);
    let ticks = ticks(&world);
    assert!(!ticks.is_empty() && ticks.iter().all(|tick| tick.at == requested), "{ticks:?}");
}

#[test]
fn lanes_without_a_leader_hold_up_only_the_ticks_of_their_task() {
    let mut world = with_timers();
    world.log.state().now.0 += TIMERS_MS;
    let due = with_due_timers();
    let ticked = ticking_partitions(&due.log, &due.topology);
    assert!(ticked.len() > 1, "more than one task has a timer due");
    let without_leader = ticked[0];
    // Parts of totals wait for no lane in particular.
    let lane = |lane| TopicPartition::new(world.topology.lane(lane), Partition(without_leader));
    let lanes = Lane::ALL.map(lane);
    world.log.state().leaderless.extend(lanes);
    for _ in 0..TURNS {
        assert_eq!(restored_in_turn(&mut world), 0);
        world.log.state().now.0 += TICK_MS;
    }
    let others = ticking_partitions(&world.log, &world.topology);
    assert_eq!(others, ticked[1..], "all tasks but the one tick");
    world.log.state().leaderless.clear();
    watched_turn(&mut world);
    assert_eq!(ticking_partitions(&world.log, &world.topology), ticked, "its time has come");
}

#[test]
fn requests_for_ends_that_fail_restore_nothing() {
    for call in [Call::RequestEnds, Call::PollEnds] {
        let mut world = with_timers();
        world.log.state().now.0 += TIMERS_MS;
        world.log.state().failing.insert(call);
        for _ in 0..TURNS {
            assert_eq!(restored_in_turn(&mut world), 0, "{call:?}");
            world.log.state().now.0 += TICK_MS;
        }
        assert_eq!(ticks(&world), []);
        world.log.state().failing.clear();
        watched_turn(&mut world);
        assert_ne!(ticks(&world), []);
    }
}

/// Sets a timer for each key, which waits for every lane.
struct KeyAlarm;

impl Operator for KeyAlarm {
    fn number(&self) -> u8 {
        60
    }

    fn name(&self) -> &'static str {
        "alarm"
    }

    fn on_event(&self, _: &Input<'_>, context: &mut Context<'_>) -> Result<Flow, OperatorError> {
        context.set_timer(Millis(context.time().0 + TIMERS_MS / 2), b"")?;
        Ok(Flow::Continue)
    }
}

const ALARMS: &[&dyn Operator] = &[&Dedup, &KeyAlarm, &ChannelDelivery];

/// A clock that advances by this many milliseconds per reading.
struct ReadClock {
    now: AtomicI64,
    step: i64,
}

impl Clock for ReadClock {
    fn now(&self) -> Millis {
        Millis(self.now.fetch_add(self.step, Ordering::Relaxed))
    }
}

/// A loop with all partitions, and its log.
struct TestLoop {
    log: FakeLog,
    clock: Arc<ReadClock>,
    topology: Topology,
    derive: Derive,
}

impl TestLoop {
    fn new(partitions: u32, clock_step: i64) -> Self {
        Self::with_operators(partitions, clock_step, &[&Dedup, &ChannelDelivery])
    }

    /// A loop of two tasks, one per commit group, with a timer each that is due.
    fn with_due_timers() -> Self {
        let mut test_loop = Self::with_operators(2, 0, ALARMS);
        (0..2).for_each(|partition| test_loop.write(Lane::Normal, partition, 10));
        assert_eq!((0..4).map(|_| test_loop.taken()).sum::<usize>(), 20);
        test_loop.clock.now.fetch_add(TIMERS_MS, Ordering::Relaxed);
        test_loop
    }

    fn with_operators(
        partitions: u32,
        clock_step: i64,
        operators: &'static [&'static dyn Operator],
    ) -> Self {
        let (log, topology) = (FakeLog::new(SEED), Topology::new("t.", partitions));
        for spec in topology.specs() {
            log.create(&spec).expect("a new log");
        }
        log.state().one_thread = true;
        let config = DeriveConfig {
            topology: topology.clone(),
            catalogue: Catalogue::builtin(),
            instance: "d0".to_owned(),
            thread: 0,
            build: "sim".to_owned(),
            settings_hash: 7,
            standby: false,
            dedup_filter_bytes: DEDUP_FILTER_BYTES,
            hash_seed: 0,
        };
        let now = AtomicI64::new(log.state().now.0);
        let clock = Arc::new(ReadClock { now, step: clock_step });
        let ports = DerivePorts {
            log: Arc::new(log.clone()),
            stores: Arc::new(FakeStores::new(0, &log)),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
        };
        let mut derive = Derive::new(config, ports, operators).expect("no faults");
        let starts = (0..20).map(|_| derive.turn(Duration::ZERO).expect("no faults"));
        assert!(starts.last().is_some_and(|turned| turned.joined && !turned.restoring));
        Self { log, clock, topology, derive }
    }

    /// Writes events into a lane's partition, facts in a pack each.
    fn write(&mut self, lane: Lane, partition: u32, events: usize) {
        let topic = self.topology.lane(lane);
        let record = |n: usize| {
            let event = event(lane, partition, n);
            let body = Body::new(Some(event.key.as_bytes()), Some(&event.encode()), &[]);
            let is_fact = matches!(lane, Lane::Facts | Lane::FactsUrgent);
            let body = if is_fact { pack_of_record(&body) } else { body };
            Outgoing { topic: topic.clone(), partition: Partition(partition), body }
        };
        let records: Vec<_> = (0..events).map(record).collect();
        self.log.clone().append(&records).expect("no faults");
    }

    /// Writes a pack of as many facts into a partition.
    fn write_pack(&mut self, partition: u32, entries: usize) {
        let mut builder = FactPackBuilder::default();
        for n in 0..entries {
            let value = event(Lane::Facts, partition, n).encode().into();
            let (key, operators) = (format!("k{partition}").into(), Bytes::new());
            let fact = PackedFact { hops: 1, time: Millis(n as i64), operators, key, value };
            assert_eq!(builder.push(fact), None, "it fits");
        }
        let body = builder.finish().expect("it has entries");
        let topic = self.topology.facts().clone();
        let pack = Outgoing { topic, partition: Partition(partition), body };
        self.log.clone().append(&[pack]).expect("no faults");
    }

    /// A loop of one task that was given nothing in five of its lanes.
    fn with_idle_lanes() -> Self {
        let mut test_loop = Self::new(1, 0);
        test_loop.write(Lane::Normal, 0, 10);
        assert_eq!(test_loop.taken(), 10);
        test_loop
    }

    /// The times of the task's ticks.
    fn ticked(&self) -> Vec<Millis> {
        ticks_of(&self.log, &self.topology, 0).iter().map(|tick| tick.at).collect()
    }

    /// Moves the clock by these milliseconds and makes a turn.
    fn turn_after(&mut self, ms: i64) {
        self.clock.now.fetch_add(ms, Ordering::Relaxed);
        self.taken();
    }

    /// The records that one turn processes.
    fn taken(&mut self) -> usize {
        self.derive.turn(Duration::ZERO).expect("no faults").taken
    }
}

#[test]
fn only_outputs_of_critical_events_end_a_batch_early() {
    const BACKLOG: usize = 150;
    let taken = |lane| {
        let mut test_loop = TestLoop::new(1, 1);
        test_loop.write(lane, 0, BACKLOG);
        test_loop.taken()
    };
    for lane in [Lane::High, Lane::Normal, Lane::Facts] {
        assert_eq!(taken(lane), BACKLOG, "{lane:?}");
    }
    for lane in Lane::URGENT {
        assert!(taken(lane) < BACKLOG, "{lane:?}");
    }
}

#[test]
fn a_pack_of_facts_is_processed_whole_in_one_transaction() {
    const ENTRIES: usize = 200;
    // Every look at the clock takes as long as a transaction may be open.
    let mut test_loop = TestLoop::new(1, MAX_OPEN_MS);
    test_loop.write(Lane::Normal, 0, 2 * ENTRIES);
    test_loop.write_pack(0, ENTRIES);
    let taken: usize = (0..20).map(|_| test_loop.taken()).sum();
    assert_eq!(taken, 3 * ENTRIES);
    let orders = orders_of(&test_loop.log, &test_loop.topology, 0);
    assert!(orders.len() > 3, "the limit of time ends transactions");
    let facts = orders.iter().flat_map(|order| &order.sequence);
    let facts: Vec<_> = facts.filter(|(lane, _)| *lane == Lane::Facts).collect();
    assert_eq!(facts, [&(Lane::Facts, ENTRIES as u32)]);
}

#[test]
fn a_transaction_that_has_reached_its_limit_begins_no_further_pack() {
    const ENTRIES: usize = 200;
    const PACKS: usize = 6;
    let mut test_loop = TestLoop::new(1, MAX_OPEN_MS);
    test_loop.write(Lane::Critical, 0, 1);
    (0..PACKS).for_each(|_| test_loop.write_pack(0, ENTRIES));
    let taken: usize = (0..20).map(|_| test_loop.taken()).sum();
    assert_eq!(taken, 1 + PACKS * ENTRIES);
    let orders = orders_of(&test_loop.log, &test_loop.topology, 0);
    let most = orders.iter().map(|order| order.sequence.iter().map(|(_, n)| n).sum::<u32>()).max();
    assert!(most <= Some(2 * ENTRIES as u32), "{most:?} records in one transaction");
}

#[test]
fn only_outputs_of_critical_events_skip_the_other_commit_group() {
    let taken = |lane| {
        let mut test_loop = TestLoop::new(2, 0);
        (0..2).for_each(|partition| test_loop.write(lane, partition, 10));
        test_loop.taken()
    };
    for lane in [Lane::High, Lane::Facts] {
        assert_eq!(taken(lane), 20, "{lane:?}");
    }
    for lane in Lane::URGENT {
        assert_eq!(taken(lane), 10, "{lane:?}");
    }
}

#[test]
fn a_turn_waits_while_an_answer_is_late() {
    let mut test_loop = TestLoop::with_due_timers();
    test_loop.log.state().answers_are_late = true;
    // State is handed over in the first turn.
    (0..2).for_each(|_| assert_eq!(test_loop.taken(), 0));
    test_loop.clock.now.fetch_add(2 * TICK_MS, Ordering::Relaxed);
    test_loop.log.state().waited = None;
    test_loop.derive.turn(Duration::from_secs(1)).expect("no faults");
    let waited = test_loop.log.state().waited.expect("there is nothing to do");
    assert!(!waited.is_zero(), "the loop spins");
    assert!(waited < Duration::from_secs(1), "the answer is not noticed");
}

#[test]
fn a_transaction_that_is_open_in_a_lane_holds_up_the_ticks_of_its_task() {
    let mut test_loop = TestLoop::with_due_timers();
    let topic = test_loop.topology.facts().clone();
    let body = Body::new(Some(b"k0"), Some(b"open"), &[]);
    let mut other = test_loop.log.as_process(1).transactor("other").expect("no faults");
    other.begin().expect("no faults");
    other.append(&[Outgoing { topic, partition: Partition(0), body }]).expect("no faults");
    other.drain().expect("no faults");
    (0..3).for_each(|_| test_loop.turn_after(TICK_MS));
    let ticking = |test_loop: &TestLoop| ticking_partitions(&test_loop.log, &test_loop.topology);
    assert_eq!(ticking(&test_loop), [1]);
    other.abort().expect("no faults");
    // The first one reads up to the end.
    (0..2).for_each(|_| test_loop.turn_after(TICK_MS));
    assert_eq!(ticking(&test_loop), [0, 1]);
}

#[test]
fn time_is_settled_every_ten_minutes_although_the_clock_was_set_back() {
    const DAY_MS: i64 = 24 * 3_600_000;
    let mut test_loop = TestLoop::with_idle_lanes();
    let start = test_loop.clock.now.load(Ordering::Relaxed);
    test_loop.turn_after(-DAY_MS);
    test_loop.turn_after(SETTLE_MS - 1);
    assert_eq!(test_loop.ticked(), []);
    test_loop.turn_after(1);
    let first = Millis(start - DAY_MS + SETTLE_MS);
    assert_eq!(test_loop.ticked(), [first]);
    test_loop.turn_after(SETTLE_MS);
    assert_eq!(test_loop.ticked(), [first, Millis(first.0 + SETTLE_MS)]);
}

#[test]
fn time_is_settled_although_the_transaction_of_the_tick_was_aborted() {
    let mut test_loop = TestLoop::with_idle_lanes();
    let (injected, commit_outcome) = (None, CommitOutcome::Refused);
    let script = FaultScript { process: 0, injected, commit_outcome, calls: Vec::new() };
    test_loop.log.state().script = Some(script);
    test_loop.turn_after(SETTLE_MS);
    let calls = test_loop.log.state().script.take().expect("it was put there").calls;
    assert_eq!((count(&calls, Call::Abort), test_loop.ticked().len()), (1, 0));
    test_loop.turn_after(TICK_MS);
    assert_eq!(test_loop.ticked().len(), 1);
}
