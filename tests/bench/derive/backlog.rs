//! The backlog phase: how fast a side processes a full lane, and at what cost.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use tidewire_engine::topology::Lane;
use tidewire_tests::process::Usage;

use crate::fixture::BenchFixture;
use crate::sides::Side;
use crate::{median, row};

/// How often a group's progress is polled.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(50);

/// How long nothing may be committed.
const STALL_LIMIT: Duration = Duration::from_secs(120);

/// The figures of one drain.
pub(crate) struct BacklogFigures {
    /// Events a second, from the first commit seen to the last.
    pub(crate) rate: f64,
    /// CPU of the process per event meanwhile.
    pub(crate) cpu_us: f64,
    /// CPU of the process per event from its start: with what Java compiles on the way.
    life_cpu_us: f64,
    pub(crate) peak_mib: f64,
    /// Output records it wrote.
    outputs: usize,
}

/// One measurement of a side's progress.
struct ProgressSample {
    at: Instant,
    committed: usize,
    usage: Usage,
}

pub(crate) fn run(fixture: &BenchFixture, side: Side) -> io::Result<BacklogFigures> {
    let observer = fixture.observer(&side.group(fixture), Lane::Normal)?;
    let running = side.start(fixture)?;
    let sample = || -> io::Result<ProgressSample> {
        let committed = observer.committed()?;
        Ok(ProgressSample { at: Instant::now(), committed, usage: running.usage()? })
    };
    let mut first = None;
    let mut last = sample()?;
    while last.committed < fixture.written {
        thread::sleep(SAMPLE_INTERVAL);
        let now = sample()?;
        if now.committed > last.committed {
            first.get_or_insert(ProgressSample { ..now });
            last = now;
        } else if now.at - last.at > STALL_LIMIT {
            return Err(io::Error::other(format!("{}: nothing is committed", side.name())));
        }
    }
    let first = first.filter(|first| first.committed < last.committed);
    let first = first.ok_or(io::Error::other("drained at once: give more --records"))?;
    running.stop()?;
    let events = (last.committed - first.committed) as f64;
    let cpu = last.usage.cpu - first.usage.cpu;
    Ok(BacklogFigures {
        rate: events / (last.at - first.at).as_secs_f64(),
        cpu_us: cpu.as_secs_f64() * 1e6 / events,
        life_cpu_us: last.usage.cpu.as_secs_f64() * 1e6 / last.committed as f64,
        peak_mib: last.usage.peak_bytes as f64 / f64::from(1 << 20),
        outputs: fixture.check(side.output(fixture).as_str())?,
    })
}

/// Prints the table, and the ratios between the sides in each run.
pub(crate) fn report(all: &[(usize, Side, BacklogFigures)]) {
    if all.is_empty() {
        return;
    }
    println!("\n| backlog | events/s | CPU µs/event | with its start | peak MiB | outputs |");
    println!("|---|---:|---:|---:|---:|---:|");
    for (run, side, drained) in all {
        let BacklogFigures { rate, cpu_us, life_cpu_us, peak_mib, outputs } = drained;
        let values = [*rate, *cpu_us, *life_cpu_us, *peak_mib, *outputs as f64];
        row(&format!("run {run}: {}", side.name()), &values);
    }
    let mut ratios = Vec::new();
    for (run, _, ours) in all.iter().filter(|(_, side, _)| *side == Side::Tidewire) {
        let other =
            |entry: &&(usize, Side, BacklogFigures)| entry.0 == *run && entry.1 != Side::Tidewire;
        let Some((_, _, peer)) = all.iter().find(other) else { return };
        let cpu = peer.cpu_us / ours.cpu_us;
        let life = peer.life_cpu_us / ours.life_cpu_us;
        ratios.push([ours.rate / peer.rate, cpu, life, peer.peak_mib / ours.peak_mib]);
        row(&format!("run {run}: times better"), ratios.last().expect("just pushed"));
    }
    if !ratios.is_empty() {
        let column = |n: usize| median(ratios.iter().map(|ratio| ratio[n]).collect());
        row("median: times better", &[0, 1, 2, 3].map(column));
    }
}
