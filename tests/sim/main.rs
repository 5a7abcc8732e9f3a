//! The simulation: whole histories of ADMIT and DERIVE on a log and disks in memory that fail on
//! purpose, by the very same `turn`s as in production.
//!
//! The one idea: a seed is a history, so that whatever is found can be had again. A failing history
//! prints the command that repeats it.

#![expect(clippy::print_stdout, reason = "a test says what it went through")]

mod check;
#[path = "../conformance/mod.rs"]
mod conformance;
mod contract;
mod fake;
mod letters;
mod operators;
mod random;
mod world;

use std::collections::BTreeMap;

use crate::world::World;

/// Histories in one run of the tests.
const HISTORIES: u64 = 300;

/// The variable that picks one history.
const SEED: &str = "TIDEWIRE_SIM_SEED";

/// The variable that asks for more or fewer histories.
const COUNT: &str = "TIDEWIRE_SIM_HISTORIES";

fn number_in(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn every_history_keeps_its_promises() {
    let seeds = match number_in(SEED) {
        Some(seed) => seed..seed + 1,
        None => 0..number_in(COUNT).unwrap_or(HISTORIES),
    };
    let several = seeds.end - seeds.start > 100;
    let mut tally = BTreeMap::<&'static str, u64>::new();
    for seed in seeds {
        let mut world = World::new(seed);
        if let Err(why) = world.run() {
            panic!(
                "history {seed}: {why}\nrepeat it with: {SEED}={seed} cargo test --release \
                 -p tidewire-tests --test sim every_history"
            );
        }
        for (what, times) in &world.log.inner().tally {
            *tally.entry(what).or_default() += times;
        }
    }
    println!("what happened in these histories: {tally:?}");
    if several {
        for what in [
            "crashes",
            "retries",
            "aborts asked for",
            "appends cut short",
            "unknown, committed",
            "unknown, not committed",
            "sessions expired",
        ] {
            assert!(tally.contains_key(what), "no history had {what}: the faults are not injected");
        }
    }
}

#[test]
fn one_seed_is_one_history() {
    for seed in [1, 2, 3] {
        let [first, second] = [(); 2].map(|()| {
            let mut world = World::new(seed);
            world.run().expect("checked by the other test");
            world.log.fingerprint()
        });
        assert_eq!(first, second, "seed {seed}");
    }
}
