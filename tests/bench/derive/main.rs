//! Benchmark: DERIVE against Kafka Streams, side by side on one broker.
//!
//! Both count records per key, exactly once, on one thread, from the same topics and records.
//!
//! Backlog: both drain a full lane, one after the other in each run, and the final counts must add
//! up to the records. Steady: a fixed rate, one record per key, from the moment a record was due to
//! its output at a reader of committed records. Restart: each is killed and started on its state,
//! then without any. Urgent: critical events behind a backlog of low ones. Curve: Tidewire's cost
//! per event with ten thousand to ten million keys in the state.
//!
//! Each side is a process, so that its CPU and memory can be measured; Tidewire's is this binary
//! with other arguments (`bench-derive tidewire …`).
//!
//! `bench-derive [--only tidewire|streams] [--phases backlog,steady,restart,urgent,curve]
//! [--runs 3] [--records 1000000] [--keys 100000] [--rate 1000] [--warm-up 10] [--seconds 20]`

#![expect(clippy::print_stdout, reason = "a benchmark's output is its figures")]

mod backlog;
mod curve;
mod fixture;
mod restart;
mod sides;
mod steady;
mod tidewire;
mod urgent;

use std::io;
use std::process::ExitCode;

use tidewire_tests::broker::Broker;
use tidewire_tests::machine;

use fixture::BenchFixture;
use sides::Side;

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Size of the run.
struct Arguments {
    only: Option<String>,
    phases: Vec<String>,
    runs: usize,
    records: usize,
    keys: usize,
    rate: usize,
    /// Seconds of the steady schedule that are not measured: Java compiles while it runs.
    warm_up: usize,
    seconds: usize,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.split_first() {
        Some((first, rest)) if first == tidewire::SUBCOMMAND => tidewire::run(rest),
        _ => match parse(words.into_iter()) {
            Ok(arguments) => measure(&arguments),
            Err(why) => {
                eprintln!("bench-derive: {why}");
                return ExitCode::from(2);
            }
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-derive: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments {
        only: None,
        phases: vec!["backlog".into(), "steady".into()],
        runs: 3,
        records: 1_000_000,
        keys: 100_000,
        rate: 1_000,
        warm_up: 10,
        seconds: 20,
    };
    while let Some(word) = words.next() {
        let value = words.next().ok_or(format!("{word} needs a value"))?;
        match word.as_str() {
            "--only" => arguments.only = Some(value),
            "--phases" => arguments.phases = value.split(',').map(str::to_owned).collect(),
            _ => {
                let number = value.parse().map_err(|_| format!("{word} {value}: no number"))?;
                *match word.as_str() {
                    "--runs" => &mut arguments.runs,
                    "--records" => &mut arguments.records,
                    "--keys" => &mut arguments.keys,
                    "--rate" => &mut arguments.rate,
                    "--warm-up" => &mut arguments.warm_up,
                    "--seconds" => &mut arguments.seconds,
                    _ => {
                        return Err(format!(
                            "{word}: unknown; see the top of tests/bench/derive/main.rs"
                        ));
                    }
                } = number;
            }
        }
    }
    if arguments.rate * (arguments.warm_up + arguments.seconds) > arguments.keys {
        return Err("the steady phase needs a key per record: give more --keys".to_owned());
    }
    Ok(arguments)
}

impl Arguments {
    fn has(&self, phase: &str) -> bool {
        self.phases.iter().any(|named| named == phase)
    }

    /// The sides of this run, in its order: the first one alternates.
    fn sides(&self, all: &[Side], run: usize) -> Vec<Side> {
        let wanted = |side: &&Side| self.only.as_deref().is_none_or(|only| only == side.kind());
        let mut sides: Vec<Side> = all.iter().filter(wanted).copied().collect();
        if run % 2 == 1 {
            sides.reverse();
        }
        sides
    }
}

fn measure(arguments: &Arguments) -> io::Result<()> {
    println!("{}", machine::describe());
    let broker = Broker::for_figures();
    let (mut drained, mut steady, mut restarts) = (Vec::new(), Vec::new(), Vec::new());
    let both = [Side::Tidewire, Side::Streams { commit_ms: 100 }];
    for run in 0..arguments.runs {
        let mut fixture = BenchFixture::make(&broker.bootstrap(), &format!("run{run}."))?;
        if arguments.has("backlog") {
            fixture.produce(arguments.records, arguments.keys)?;
            for side in arguments.sides(&both, run) {
                drained.push((run, side, backlog::run(&fixture, side)?));
            }
        }
        if arguments.has("steady") {
            let all =
                [Side::Tidewire, Side::Streams { commit_ms: 100 }, Side::Streams { commit_ms: 10 }];
            for side in arguments.sides(&all, run) {
                steady.push((run, side, steady::run(&mut fixture, side, arguments)?));
            }
        }
        if arguments.has("restart") {
            for side in arguments.sides(&both, run) {
                restarts.push((run, side, restart::run(&fixture, side)?));
            }
        }
    }
    backlog::report(&drained);
    steady::report(&steady);
    restart::report(&restarts);
    if arguments.has("urgent") {
        urgent::run(&BenchFixture::make(&broker.bootstrap(), "urgent.")?, arguments)?;
    }
    if arguments.has("curve") {
        curve::run(&broker.bootstrap(), arguments.records)?;
    }
    Ok(())
}

/// A line of a table.
fn row(name: &str, values: &[f64]) {
    let cell = |value: &f64| match value {
        value if value.abs() >= 1_000.0 => format!("{value:.0}"),
        value => format!("{value:.1}"),
    };
    println!("| {name} | {} |", values.iter().map(cell).collect::<Vec<_>>().join(" | "));
}

/// The median.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
