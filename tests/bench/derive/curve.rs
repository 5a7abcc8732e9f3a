//! The curve phase: the cost of an event by the number of keys in the state.

use std::io;

use crate::backlog::{self, BacklogFigures};
use crate::fixture::BenchFixture;
use crate::row;
use crate::sides::Side;

/// Keys in the state, over all tasks.
const KEYS: [usize; 4] = [10_000, 100_000, 1_000_000, 10_000_000];

/// Processes `records` of random keys at each size and prints the table. Another process fills the
/// state first, so that the measured one finds it on disk, as after a restart.
pub(crate) fn run(bootstrap: &str, records: usize) -> io::Result<()> {
    let mut all = Vec::new();
    for keys in KEYS {
        let mut fixture = BenchFixture::make(bootstrap, &format!("curve{keys}."))?;
        fixture.produce(keys.max(records), keys)?;
        backlog::run(&fixture, Side::Tidewire)?;
        fixture.produce(records, keys)?;
        all.push((keys, backlog::run(&fixture, Side::Tidewire)?));
    }
    println!("\n| keys | events/s | CPU µs/event | peak MiB |\n|---:|---:|---:|---:|");
    for (keys, BacklogFigures { rate, cpu_us, peak_mib, .. }) in &all {
        row(&keys.to_string(), &[*rate, *cpu_us, *peak_mib]);
    }
    Ok(())
}
