//! Stores of partitions to which nothing was written for longer than tombstones stay.
//!
//! The simulated log has a control record at the end of every transaction, as Kafka does, so the
//! progress that a commit gives is never the end of a changelog.

use tidewire_engine::derive::QUIET_MS;
use tidewire_engine::topology::{ORDER_RETENTION_MS, TOMBSTONE_RETENTION_MS};

use crate::fake::{Call, CommitOutcome, FakeStores, FaultScript};
use crate::world::{ADMITS, World};

/// The seed of the producers; every partition gets events.
const SEED: u64 = 11;

/// Turns of each loop in which a world processes all that it was given.
const TURNS: usize = 60;

/// Milliseconds between two of them: state is handed over.
const TURN_MS: i64 = 600;

/// A world of three machines, none of which is up.
fn world() -> World {
    let mut world = World::with_owners(SEED, 3);
    (0..3).for_each(|machine| world.loops.keep_down(machine, u64::MAX));
    world
}

/// Only this machine is up, and it processes new events.
fn process(world: &mut World, machine: usize) {
    world.loops.keep_down(machine, 0);
    for _ in 0..8 {
        world.produce();
    }
    for _ in 0..TURNS {
        turn(world, machine);
    }
}

fn turn(world: &mut World, machine: usize) {
    for n in 0..ADMITS {
        world.turn_admit(n).expect("no faults");
    }
    world.turn_derive(machine).expect("no faults");
    world.machines.iter().for_each(FakeStores::write_some);
    pass(world, TURN_MS);
    world.check_facts().unwrap_or_else(|why| panic!("{why}"));
}

fn pass(world: &World, ms: i64) {
    world.log.state().now.0 += ms;
}

/// Crashes this machine; every batch that it has handed over is written.
fn crash(world: &mut World, machine: usize) {
    let process = world.loops.process(machine);
    world.batches_written_at_crash = usize::MAX;
    world.loops.crash(ADMITS + machine);
    // The turn in which its crash is noticed.
    world.turn_derive(machine).expect("a crash is tolerated");
    world.log.state().expire(process);
    world.loops.keep_down(machine, u64::MAX);
}

/// Restarts a machine and lets everything finish; returns how many stores were rebuilt.
fn restarted(mut world: World, machine: usize) -> u64 {
    world.loops.keep_down(machine, 0);
    world.settle_and_check().unwrap_or_else(|why| panic!("{why}"));
    let log_state = world.log.state();
    log_state.counts.get("stores rebuilt").copied().unwrap_or(0)
}

/// Passes a time in which tombstones and the records of `order` leave the log.
fn pass_and_clean(world: &World, ms: u64) {
    let topology = world.topology.clone();
    let mut log_state = world.log.state();
    log_state.clean(|topic| topic == topology.state());
    log_state.now.0 += ms.cast_signed();
    log_state.clean(|topic| topic == topology.state() || topic == topology.order());
}

#[test]
fn a_complete_store_is_kept_after_a_quiet_time_longer_than_tombstones_stay() {
    for close in [true, false] {
        let mut world = world();
        process(&mut world, 0);
        if close {
            world.close_derive(0).expect("no faults");
            world.loops.keep_down(0, u64::MAX);
        } else {
            crash(&mut world, 0);
        }
        pass_and_clean(&world, TOMBSTONE_RETENTION_MS + 1);
        assert_eq!(restarted(world, 0), 0, "closed: {close}");
    }
}

#[test]
fn a_complete_store_is_kept_although_order_was_emptied_while_its_task_ran() {
    let mut world = world();
    process(&mut world, 0);
    pass(&world, QUIET_MS);
    for _ in 0..TURNS {
        turn(&mut world, 0);
    }
    pass_and_clean(&world, ORDER_RETENTION_MS + 1);
    turn(&mut world, 0);
    crash(&mut world, 0);
    pass_and_clean(&world, ORDER_RETENTION_MS + 1);
    assert_eq!(restarted(world, 0), 0);
}

#[test]
fn a_store_that_misses_records_for_longer_than_tombstones_stay_is_rebuilt() {
    let mut world = world();
    process(&mut world, 0);
    crash(&mut world, 0);
    process(&mut world, 2);
    crash(&mut world, 2);
    pass_and_clean(&world, TOMBSTONE_RETENTION_MS + 1);
    assert!(restarted(world, 0) > 0, "a store missed tombstones and was kept");
}

#[test]
fn a_store_that_misses_records_for_a_short_time_is_kept() {
    let mut world = world();
    process(&mut world, 0);
    crash(&mut world, 0);
    process(&mut world, 2);
    crash(&mut world, 2);
    pass(&world, 3_600_000);
    assert_eq!(restarted(world, 0), 0);
}

#[test]
fn a_log_that_does_not_answer_is_asked_about_one_quiet_task_per_minute() {
    let mut world = world();
    process(&mut world, 0);
    pass(&world, QUIET_MS);
    world.log.state().failing.insert(Call::Bounds);
    let asked = |world: &mut World| {
        let process = world.loops.process(0);
        let (injected, commit_outcome) = (None, CommitOutcome::Committed);
        let script = FaultScript { process, injected, commit_outcome, calls: Vec::new() };
        world.log.state().script = Some(script);
        world.turn_derive(0).expect("no faults");
        let calls = world.log.state().script.take().expect("it was put there").calls;
        calls.iter().filter(|call| **call == Call::Bounds).count()
    };
    // The clock stands still: the lag of a lane is sampled in the first turn at most.
    let first = asked(&mut world);
    assert!((1..=2).contains(&first), "{first} calls");
    for _ in 0..TURNS {
        assert_eq!(asked(&mut world), 0);
    }
}
