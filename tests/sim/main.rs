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
mod replay;
mod world;

use std::collections::BTreeMap;
use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::world::World;

/// Histories in one run of the tests.
const HISTORIES: u64 = 1_000;

/// The variable that picks one history.
const SEED: &str = "TIDEWIRE_SIM_SEED";

/// The variable that asks for more or fewer histories.
const COUNT: &str = "TIDEWIRE_SIM_HISTORIES";

fn number_in(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

type Tally = BTreeMap<&'static str, u64>;

/// Runs these histories, each on one thread and several side by side: what happened in them, or
/// what one of them does not keep.
fn run(seeds: Range<u64>) -> Result<Tally, String> {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut tally = Tally::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return Ok(tally);
            }
            let mut world = World::new(seed);
            if let Err(why) = world.run() {
                return Err(format!(
                    "history {seed}: {why}\nrepeat it with: {SEED}={seed} cargo test --release \
                     -p tidewire-tests --test sim every_history"
                ));
            }
            add(&mut tally, &world.log.inner().tally);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut tally = Tally::new();
        for worker in workers {
            add(&mut tally, &worker.join().expect("a history panicked; its words are above")?);
        }
        Ok(tally)
    })
}

fn add(tally: &mut Tally, more: &Tally) {
    for (what, times) in more {
        *tally.entry(what).or_default() += times;
    }
}

#[test]
fn every_history_keeps_its_promises() {
    let seeds = match number_in(SEED) {
        Some(seed) => seed..seed + 1,
        None => 0..number_in(COUNT).unwrap_or(HISTORIES),
    };
    let several = seeds.end - seeds.start > 100;
    let tally = run(seeds).unwrap_or_else(|why| panic!("{why}"));
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
            "machines down",
            "offsets undecided",
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
