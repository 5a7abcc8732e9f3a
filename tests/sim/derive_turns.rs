//! One turn of DERIVE: what it asks of the log, and how much it puts into one transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tidewire_engine::derive::order::{OrderRecord, Tick};
use tidewire_engine::derive::{Derive, DeriveConfig, DerivePorts, OPERATORS, TICK_MS};
use tidewire_engine::port::{Appender, Clock, Isolation, Log};
use tidewire_engine::record::{Body, Millis, Outgoing, Partition, TopicPartition};
use tidewire_engine::topology::{Lane, Topology};
use tidewire_schemas::Priority;
use tidewire_schemas::event::Event;

use crate::fake::{Call, CommitOutcome, FakeLog, FakeStores, FaultScript};
use crate::world::World;

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
        world.turn_admit(0).expect("no faults");
        world.turn_admit(1).expect("no faults");
        world.turn_derive(0).expect("no faults");
    }
    assert_eq!(ticks(&world), [], "no timer is due");
    world
}

/// All ticks in the log.
fn ticks(world: &World) -> Vec<Tick> {
    let mut ticks = Vec::new();
    for partition in 0..world.topology.partitions() {
        let at = TopicPartition::new(world.topology.order(), Partition(partition));
        for record in world.log.records(&at, Isolation::Committed) {
            let order = OrderRecord::decode(record.body.value().expect("a value"));
            ticks.extend(order.expect("an order record").ticks);
        }
    }
    ticks
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
    assert!(!ticks.is_empty() && ticks.iter().all(|tick| tick.value == requested), "{ticks:?}");
}

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
    topology: Topology,
    derive: Derive,
}

impl TestLoop {
    fn new(partitions: u32, clock_step: i64) -> Self {
        let (log, topology) = (FakeLog::new(SEED), Topology::new("t.", partitions));
        for spec in topology.specs() {
            log.create(&spec).expect("a new log");
        }
        log.state().one_thread = true;
        let config = DeriveConfig {
            topology: topology.clone(),
            instance: "d0".to_owned(),
            thread: 0,
            build: "sim".to_owned(),
            settings_hash: 7,
            standby: false,
        };
        let now = AtomicI64::new(log.state().now.0);
        let ports = DerivePorts {
            log: Arc::new(log.clone()),
            stores: Arc::new(FakeStores::new(0, &log)),
            clock: Arc::new(ReadClock { now, step: clock_step }),
        };
        let mut derive = Derive::with_operators(config, ports, OPERATORS).expect("no faults");
        let starts = (0..20).map(|_| derive.turn(Duration::ZERO).expect("no faults"));
        assert!(starts.last().is_some_and(|turned| turned.joined && !turned.restoring));
        Self { log, topology, derive }
    }

    /// Writes events into a lane's partition.
    fn write(&mut self, priority: Priority, partition: u32, events: usize) {
        let topic = self.topology.lane(Lane::of(priority));
        let record = |n: usize| {
            let event = Event {
                event_id: format!("e-{partition}-{n}"),
                event_type: "post.created".into(),
                account_id: "acc".into(),
                timestamp_ms: 0,
                correlation_id: "c".into(),
                priority,
                key: format!("k{partition}"),
                source: None,
                alias: None,
                data: format!(r#"{{"post_id":"p{n}","author_id":"a","text":"t"}}"#),
            };
            let body = Body::new(Some(event.key.as_bytes()), Some(&event.encode()), &[]);
            Outgoing { topic: topic.clone(), partition: Partition(partition), body }
        };
        let records: Vec<_> = (0..events).map(record).collect();
        self.log.clone().append(&records).expect("no faults");
    }

    /// The records that one turn processes.
    fn taken(&mut self) -> usize {
        self.derive.turn(Duration::ZERO).expect("no faults").taken
    }
}

#[test]
fn only_outputs_of_critical_events_end_a_batch_early() {
    const BACKLOG: usize = 150;
    let taken = |priority| {
        let mut test_loop = TestLoop::new(1, 1);
        test_loop.write(priority, 0, BACKLOG);
        test_loop.taken()
    };
    assert_eq!(taken(Priority::High), BACKLOG);
    assert_eq!(taken(Priority::Normal), BACKLOG);
    assert!(taken(Priority::Critical) < BACKLOG);
}

#[test]
fn only_outputs_of_critical_events_skip_the_other_commit_group() {
    let taken = |priority| {
        let mut test_loop = TestLoop::new(2, 0);
        (0..2).for_each(|partition| test_loop.write(priority, partition, 10));
        test_loop.taken()
    };
    assert_eq!(taken(Priority::High), 20);
    assert_eq!(taken(Priority::Critical), 10);
}
