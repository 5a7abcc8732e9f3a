//! Fan-out benchmark: one event to thousands of WebSocket subscribers, against an axum server.
//!
//! Each server and this generator are separate processes, so CPU and memory are the server's alone.
//! Three phases per server and number of connections: rest (memory), a schedule of 40,000
//! deliveries/s (latency of one event to all, from the moment it was due), saturation (as many
//! events as possible with a fixed number in flight). Every phase compares the deliveries with the
//! expected number; a difference fails the run.
//!
//! `bench-fanout [--connections 2000,9900] [--seconds 10] [--only tidewire|axum]`

#![expect(clippy::print_stdout, reason = "a benchmark's output is its figures")]

mod baseline;
mod phases;
mod server_under_test;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use tidewire_tests::machine;

use crate::phases::{Figures, LoadPlan};
use crate::server_under_test::ServerUnderTest;

/// Default numbers of connections: one that peers publish figures for, one near the limit of open
/// files.
const CONNECTIONS: [usize; 2] = [2_000, 9_900];

/// Length of the scheduled and of the saturated phase.
const PHASE_SECONDS: u64 = 10;

/// The servers to measure.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Selection {
    Both,
    Tidewire,
    Axum,
}

struct Arguments {
    plans: Vec<LoadPlan>,
    only: Selection,
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).peekable();
    if words.peek().is_some_and(|word| word == baseline::SUBCOMMAND) {
        return ended(baseline::serve());
    }
    match parse(words) {
        Ok(arguments) => ended(compare(&arguments)),
        Err(why) => {
            eprintln!("bench-fanout: {why}");
            ExitCode::from(2)
        }
    }
}

fn ended(outcome: io::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-fanout: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut connections = CONNECTIONS.to_vec();
    let mut seconds = PHASE_SECONDS;
    let mut only = Selection::Both;
    while let Some(word) = words.next() {
        let value = words.next().ok_or(format!("{word} needs a value"))?;
        let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number"));
        match (word.as_str(), value.as_str()) {
            ("--connections", list) => {
                let sizes: Result<_, _> = list.split(',').map(number).collect();
                connections = sizes?;
            }
            ("--seconds", value) => seconds = number(value)? as u64,
            ("--only", "tidewire") => only = Selection::Tidewire,
            ("--only", "axum") => only = Selection::Axum,
            _ => {
                return Err(format!(
                    "{word} {value}: unknown; see the top of tests/bench/fanout/main.rs"
                ));
            }
        }
    }
    let phase = Duration::from_secs(seconds);
    let plans = connections.into_iter().map(|connections| LoadPlan { connections, phase });
    Ok(Arguments { plans: plans.collect(), only })
}

fn compare(arguments: &Arguments) -> io::Result<()> {
    println!("{}", machine::describe());
    for plan in &arguments.plans {
        let axum = match arguments.only {
            Selection::Tidewire => None,
            _ => Some(phases::run(&ServerUnderTest::axum()?, plan)?),
        };
        let tidewire = match arguments.only {
            Selection::Axum => None,
            _ => Some(phases::run(&ServerUnderTest::tidewire()?, plan)?),
        };
        print_table(plan, axum.as_ref(), tidewire.as_ref());
    }
    Ok(())
}

/// One table per number of connections; the last column is how many times better Tidewire is.
fn print_table(plan: &LoadPlan, axum: Option<&Figures>, tidewire: Option<&Figures>) {
    println!("\n| {} connections, 200 B | axum | tidewire | ratio |", plan.connections);
    println!("|---|---:|---:|---:|");
    let rows = axum.or(tidewire).map(Figures::rows).unwrap_or_default();
    for (index, row) in rows.iter().enumerate() {
        let value = |figures: Option<&Figures>| figures.map(|f| f.rows()[index].value);
        let (axum, tidewire) = (value(axum), value(tidewire));
        let show = |value: Option<f64>| value.map_or("–".to_owned(), |v| row.show(v));
        let ratio = axum.zip(tidewire).map(|(axum, tidewire)| row.ratio(axum, tidewire));
        let ratio = ratio.flatten().map_or("–".to_owned(), |ratio| format!("{ratio:.1}×"));
        println!("| {} | {} | {} | {ratio} |", row.name, show(axum), show(tidewire));
    }
}
