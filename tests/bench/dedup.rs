//! Benchmark of de-duplication: CPU time of a new id by the number of ids that a task has.
//!
//! `bench-dedup [--minutes 15] [IDS...]`. One task without a log, with its store on disk, takes
//! events with new ids, a thousand per transaction, at a rate with which they all are within the
//! window of a day. At each number of ids it prints the cost of the last ones, with decoding and
//! the order record, the cost of copies, and the size of the store. Ids are added for so many
//! minutes at most; then it measures at the number it has reached. Last, the store is opened again,
//! and the filter of ids read from it.

#![expect(clippy::print_stdout, reason = "a benchmark's output is its figures")]

use std::num::NonZeroU32;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tidewire_connectors::rocks::{Config, RocksStores};
use tidewire_engine::derive::dedup::{Dedup, WINDOW_MS};
use tidewire_engine::derive::{
    Context, Events, Flow, Input, Operator, OperatorError, Operators, TopologyDriver, table_specs,
};
use tidewire_engine::port::Stores;
use tidewire_engine::record::Partition;
use tidewire_schemas::Priority;
use tidewire_schemas::event::Event;
use tidewire_tests::folder::bytes_in;
use tidewire_tests::{machine, process};

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const IDS: [usize; 3] = [1_000_000, 20_000_000, 100_000_000];

/// Minutes after which no more ids are added, unless given.
const MINUTES: u64 = 15;

/// The rate of few ids.
const EVENTS_PER_SECOND_MIN: u32 = 1_000;

const BATCH: usize = 1_000;

/// The last part of the ids, which is measured, and at most so many.
const MEASURED_SHARE: usize = 5;
const MEASURED_MAX: usize = 500_000;

const OPERATORS: Operators = &[&Dedup, &AcceptedCounter];

/// How many events were no copies.
static ACCEPTED: AtomicUsize = AtomicUsize::new(0);

/// Counts the events that pass de-duplication.
struct AcceptedCounter;

impl Operator for AcceptedCounter {
    fn number(&self) -> u8 {
        100
    }

    fn name(&self) -> &'static str {
        "accepted"
    }

    fn events(&self) -> Events {
        Events::Admitted
    }

    fn on_event(&self, _: &Input<'_>, _: &mut Context<'_>) -> Result<Flow, OperatorError> {
        ACCEPTED.fetch_add(1, Ordering::Relaxed);
        Ok(Flow::Continue)
    }
}

/// Time of this thread and of the clock, which includes that of RocksDB's threads.
#[derive(Clone, Copy, Default)]
struct Spent {
    cpu: Duration,
    clock: Duration,
}

struct Arguments {
    /// The numbers of ids at which the cost is measured, ascending.
    steps: Vec<usize>,
    /// How long ids are added at most.
    limit: Duration,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("bench-dedup: {why}");
            return ExitCode::from(2);
        }
    };
    println!("{}", machine::describe());
    let dir = tempfile::tempdir().expect("a folder for the store");
    let stores = RocksStores::new(Config::new(dir.path()));
    let mut driver = opened(&stores);
    driver.set_events_per_second(events_per_second(&arguments.steps));
    let deadline = Instant::now() + arguments.limit;
    let mut ids = 0;
    for step in arguments.steps {
        let measured = (step / MEASURED_SHARE).clamp(BATCH, MEASURED_MAX);
        let grown_to = grow(&mut driver, (ids, step.saturating_sub(measured)), deadline);
        let is_late = grown_to + measured < step;
        ids = step.min(grown_to + measured);
        measure(&mut driver, grown_to, ids);
        println!("    the store has {} MiB", bytes_in(dir.path()).expect("it is ours") >> 20);
        if is_late {
            println!("  stopped before {step} ids: raise --minutes");
            break;
        }
    }
    drop(driver);
    let mut driver = opened(&stores);
    let (begun, mut reads) = (Instant::now(), 0);
    while driver.load_ids() {
        reads += 1;
    }
    let ms = begun.elapsed().as_millis();
    println!("  opened again: the ids of the store are read in {reads} steps, {ms} ms in all");
    ExitCode::SUCCESS
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let (mut steps, mut minutes) = (Vec::new(), MINUTES);
    while let Some(word) = words.next() {
        if word == "--minutes" {
            let number = words.next().and_then(|n| n.parse().ok());
            minutes = number.ok_or("--minutes needs a number")?;
        } else {
            let number = word.parse().ok().filter(|n| *n > 0);
            let unknown = || format!("{word}: unknown; see the top of tests/bench/dedup.rs");
            steps.push(number.ok_or_else(unknown)?);
        }
    }
    if steps.is_empty() {
        steps.extend(IDS);
    }
    steps.sort_unstable();
    steps.dedup();
    Ok(Arguments { steps, limit: Duration::from_secs(60 * minutes) })
}

/// The rate at which all ids and copies are appended within the window, so that none expires. The
/// window is nearly full at the last step then, as at a task that has run for a day.
fn events_per_second(steps: &[usize]) -> NonZeroU32 {
    let all = steps.last().map_or(0, |last| last + steps.len() * MEASURED_MAX) as u64;
    let window_s = WINDOW_MS.unsigned_abs() / 1_000 * 49 / 50;
    let rate = u32::try_from(all / window_s + 1).expect("below billions of ids a second");
    NonZeroU32::new(rate.max(EVENTS_PER_SECOND_MIN)).expect("not zero")
}

/// Adds ids up to a number, or until the deadline; returns how many there are.
fn grow(driver: &mut TopologyDriver, (from, to): (usize, usize), deadline: Instant) -> usize {
    let mut ids = from;
    while ids < to && Instant::now() < deadline {
        let next = to.min(ids + BATCH);
        take_events(driver, ids, next);
        ids = next;
    }
    ids
}

/// Prints the cost of these ids, and of as many copies of the first ones.
fn measure(driver: &mut TopologyDriver, from: usize, to: usize) {
    let count = to - from;
    let new = take_events(driver, from, to);
    let before = ACCEPTED.load(Ordering::Relaxed);
    assert_eq!(before, to, "every new id is accepted");
    let copies = take_events(driver, 0, count);
    assert_eq!(ACCEPTED.load(Ordering::Relaxed), before, "every copy is dropped");
    let each = |spent: Duration| spent.as_secs_f64() * 1e6 / count as f64;
    println!(
        "  {to} ids: {:.2} µs CPU and {:.2} µs per new id, {:.2} µs CPU per copy; {} MiB RSS",
        each(new.cpu),
        each(new.clock),
        each(copies.cpu),
        resident_bytes() >> 20,
    );
}

fn opened(stores: &Arc<RocksStores>) -> TopologyDriver {
    let store = stores.open(Partition(0), &table_specs(OPERATORS)).expect("the store opens");
    TopologyDriver::with_store(OPERATORS, store)
}

/// Processes the events of these numbers. Making them is not measured.
fn take_events(driver: &mut TopologyDriver, from: usize, to: usize) -> Spent {
    let mut spent = Spent::default();
    for first in (from..to).step_by(BATCH) {
        let events: Vec<Event> = (first..to.min(first + BATCH)).map(event).collect();
        let (begun, cpu) = (Instant::now(), machine::thread_cpu_time());
        driver.process_batch(&events);
        spent.cpu += machine::thread_cpu_time() - cpu;
        spent.clock += begun.elapsed();
    }
    spent
}

fn resident_bytes() -> u64 {
    process::usage(std::process::id()).map_or(0, |usage| usage.resident_bytes)
}

fn event(n: usize) -> Event {
    Event {
        event_id: format!("event-{n}"),
        event_type: "post.created".into(),
        account_id: "account".into(),
        timestamp_ms: 0,
        correlation_id: String::new(),
        priority: Priority::Normal,
        key: "key".into(),
        source: None,
        alias: None,
        data: "{}".into(),
    }
}
