//! The steady phase: the time from a record to its output at a fixed rate.
//!
//! Each key occurs once, so caching leaves no output out, and a key identifies its record.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::Offset;
use tidewire_schemas::Priority;
use tidewire_tests::latency::Latencies;

use crate::fixture::{BenchFixture, LaneWriter, counted, key_number};
use crate::sides::Side;
use crate::{Arguments, median, row};

/// How long a side may take for the last output.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A schedule: record `n` is due at `start + n × interval`.
#[derive(Clone, Copy)]
struct Pacing {
    start: Instant,
    interval: Duration,
    first: usize,
    count: usize,
}

/// The figures of a steady rate.
pub(crate) struct SteadyFigures {
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    cpu_us: f64,
}

pub(crate) fn run(
    fixture: &mut BenchFixture,
    side: Side,
    arguments: &Arguments,
) -> io::Result<SteadyFigures> {
    let running = side.start(fixture)?;
    running.wait_for_line("running")?;
    fixture.wait_for(side)?;
    let reader = fixture.reader(side.output(fixture).as_str(), Offset::End)?;
    let interval = Duration::from_secs(1) / u32::try_from(arguments.rate).unwrap_or(u32::MAX);
    let count = arguments.rate * (arguments.warm_up + arguments.seconds);
    let warm = arguments.rate * arguments.warm_up;
    let start = Instant::now() + Duration::from_millis(500);
    let pace = Pacing { start, interval, first: 0, count: warm };
    // One writer for both: a new one needs time to find the leaders.
    let writer = fixture.writer(Priority::Normal, "0")?;
    follow(&writer, &reader, pace)?;
    let before = running.usage()?;
    let start = Instant::now() + interval;
    let pace = Pacing { start, interval, first: warm, count: count - warm };
    let mut latencies = follow(&writer, &reader, pace)?;
    let cpu = running.usage()?.cpu - before.cpu;
    fixture.written += count;
    running.stop()?;
    let millis = |latency: Duration| latency.as_secs_f64() * 1e3;
    Ok(SteadyFigures {
        p50_ms: millis(latencies.percentile(50.0)),
        p99_ms: millis(latencies.percentile(99.0)),
        max_ms: millis(latencies.percentile(100.0)),
        cpu_us: cpu.as_secs_f64() * 1e6 / latencies.count() as f64,
    })
}

/// Writes on schedule and reads until every record has one output.
fn follow(writer: &LaneWriter, reader: &BaseConsumer, pace: Pacing) -> io::Result<Latencies> {
    thread::scope(|scope| {
        let writing = scope.spawn(|| write(writer, pace));
        let latencies = listen(reader, pace)?;
        writing.join().expect("the writer returns its errors")?;
        Ok(latencies)
    })
}

/// Reads until every record has its output.
fn listen(reader: &BaseConsumer, pace: Pacing) -> io::Result<Latencies> {
    let (mut latencies, mut seen) = (Latencies::default(), vec![false; pace.count]);
    let due = |n: usize| pace.start + pace.interval * u32::try_from(n).expect("few records");
    let patience = due(pace.count) + TIMEOUT;
    while latencies.count() < pace.count {
        match reader.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let now = Instant::now();
                let (key, _) = counted(&message)?;
                let n = key_number(key).and_then(|key| key.checked_sub(pace.first));
                let first =
                    n.and_then(|n| seen.get_mut(n)).map(|seen| std::mem::replace(seen, true));
                let (Some(n), Some(false)) = (n, first) else {
                    return Err(io::Error::other(format!("{key} came again")));
                };
                latencies.record(now.saturating_duration_since(due(n)));
            }
            Some(Err(KafkaError::PartitionEOF(_))) | None => {}
            Some(Err(error)) => return Err(io::Error::other(error)),
        }
        if Instant::now() > patience {
            let left = pace.count - latencies.count();
            return Err(io::Error::other(format!("{left} outputs are missing")));
        }
    }
    Ok(latencies)
}

fn write(writer: &LaneWriter, pace: Pacing) -> io::Result<()> {
    for n in 0..pace.count {
        let due = pace.start + pace.interval * u32::try_from(n).expect("few records");
        thread::sleep(due.saturating_duration_since(Instant::now()));
        writer.write(pace.first + n, pace.first + n)?;
        writer.serve(Duration::ZERO);
    }
    writer.finish()
}

/// Prints the table, and the ratios between the sides in each run.
pub(crate) fn report(all: &[(usize, Side, SteadyFigures)]) {
    if all.is_empty() {
        return;
    }
    println!("\n| steady | p50 ms | p99 ms | max ms | CPU µs/event |\n|---|---:|---:|---:|---:|");
    for (run, side, steady) in all {
        let SteadyFigures { p50_ms, p99_ms, max_ms, cpu_us } = steady;
        row(&format!("run {run}: {}", side.name()), &[*p50_ms, *p99_ms, *max_ms, *cpu_us]);
    }
    for commit_ms in [100, 10] {
        let peer = Side::Streams { commit_ms };
        let of = |side| all.iter().filter(move |entry| entry.1 == side);
        let mut ratios = Vec::new();
        for (run, _, ours) in of(Side::Tidewire) {
            let Some((_, _, peer)) = of(peer).find(|entry| entry.0 == *run) else { continue };
            let (p50, p99) = (peer.p50_ms / ours.p50_ms, peer.p99_ms / ours.p99_ms);
            ratios.push([p50, p99, peer.max_ms / ours.max_ms, peer.cpu_us / ours.cpu_us]);
        }
        if !ratios.is_empty() {
            let column = |n: usize| median(ratios.iter().map(|ratio| ratio[n]).collect());
            let name = format!("median: times better than {}", peer.name());
            row(&name, &[0, 1, 2, 3].map(column));
        }
    }
}
