//! Simulates whole histories of ADMIT and DERIVE on an in-memory log and disks that fail.
//!
//! The loops run with the same `turn` as in production. One seed is one history, so a failure can
//! be repeated: a failing history prints the command for it.

#[path = "../conformance/mod.rs"]
mod conformance;
mod contract;
mod crash;
mod dead_letters;
mod derive_turns;
mod explain;
mod failing_operator;
mod fake;
mod histories;
mod many_copies;
mod model;
mod mutants;
mod one_machine;
mod one_partition;
mod operators;
mod outage;
mod partials;
mod product_failures;
mod products;
mod quiet_partitions;
mod replay;
mod second_copies;
mod topics_layout;
mod upgrade;
mod value_level;
mod world;

use tidewire_tests::test_rng;

use crate::histories::{SEED, run};
use crate::world::World;

/// Histories in one run of the tests.
const HISTORIES: u64 = 10_000;

/// The variable that sets the number of histories.
const COUNT: &str = "TIDEWIRE_SIM_HISTORIES";

/// What must have happened in some of many histories; otherwise the faults are not injected.
const FAULTS: &[&str] = &[
    "crashes",
    "retries",
    "outages",
    "aborts requested",
    "responses lost",
    "appends cut short",
    "records refused",
    "inputs created again",
    "deliveries failed",
    "unknown, committed",
    "unknown, committed later",
    "unknown, not committed",
    "transactions timed out",
    "sessions expired",
    "machines down",
    "offsets undecided",
    "stores failed",
    "stores rebuilt",
    "clocks jumped ahead",
    "stopped for a day",
    "clocks set ahead",
    "clocks set back",
    "dead letters of operators requeued",
];

fn number_in(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn every_history_holds_its_invariants() {
    let seeds = match number_in(SEED) {
        Some(seed) => seed..seed + 1,
        None => 0..number_in(COUNT).unwrap_or(HISTORIES),
    };
    let many = seeds.end - seeds.start > 100;
    let counts = run(seeds).unwrap_or_else(|why| panic!("{why}"));
    eprintln!("what happened in these histories: {counts:?}");
    for what in FAULTS.iter().filter(|_| many) {
        assert!(counts.contains_key(what), "no history had {what}: the faults are not injected");
    }
}

#[test]
fn one_seed_is_one_history() {
    for seed in 1..20 {
        let [first, second] = [(); 2].map(|()| {
            let mut world = World::new(seed);
            world.run().expect("checked by the other test");
            world.log.fingerprint()
        });
        assert_eq!(first, second, "seed {seed}");
    }
}
