//! Runs many histories in parallel, each on one thread, and prints how to repeat a failed one.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::replay;
use crate::world::World;

/// The variable that selects one history.
pub(crate) const SEED: &str = "TIDEWIRE_SIM_SEED";

/// One history in this many is replayed from what the log holds.
const REPLAYED_EVERY: u64 = 4;

/// How often each counted fault happened.
pub(crate) type HistoryCounts = BTreeMap<&'static str, u64>;

/// Runs these histories; returns the counts, or what failed in one of them.
pub(crate) fn run(seeds: Range<u64>) -> Result<HistoryCounts, String> {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut counts = HistoryCounts::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return Ok(counts);
            }
            match history(seed) {
                Ok(world) => add(&mut counts, &world.log.state().counts),
                Err(why) => {
                    // The result is known; the remaining histories would only take time.
                    next.store(seeds.end, Ordering::Relaxed);
                    return Err(why);
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut counts = HistoryCounts::new();
        for worker in workers {
            add(&mut counts, &worker.join().expect("a history panicked; see the panic above")?);
        }
        Ok(counts)
    })
}

/// Runs the history of this seed. Before a panic, it prints how to repeat the history.
fn history(seed: u64) -> Result<World, String> {
    let repeat = format!(
        "repeat it with: {SEED}={seed} cargo test --release --workspace --locked --test sim \
         every_history"
    );
    let ran = std::panic::catch_unwind(|| -> Result<World, String> {
        let mut world = World::new(seed);
        world.run()?;
        if seed.is_multiple_of(REPLAYED_EVERY) {
            replay::check_replay(&world)?;
        }
        Ok(world)
    });
    match ran {
        Ok(ran) => ran.map_err(|why| format!("history {seed}: {why}\n{repeat}")),
        Err(_) => Err(format!("history {seed} panicked, see the panic above\n{repeat}")),
    }
}

fn add(counts: &mut HistoryCounts, more: &HistoryCounts) {
    for (what, times) in more {
        *counts.entry(what).or_default() += times;
    }
}
