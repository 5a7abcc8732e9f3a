//! Benchmark of de-duplication: CPU time of a new id by the number of ids that a task has.
//!
//! `bench-dedup [IDS...]`. One task without a log, with its store on disk, takes events with new
//! ids, a thousand per transaction and one per millisecond of event time. At each number of ids it
//! prints the cost of the last ones, with decoding and the order record, and the cost of copies.
//! Then the store is opened again, and the filter of ids read from it.

#![expect(clippy::print_stdout, reason = "a benchmark's output is its figures")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tidewire_connectors::rocks::{Config, RocksStores};
use tidewire_engine::derive::dedup::Dedup;
use tidewire_engine::derive::{
    Context, Events, Flow, Input, Operator, OperatorError, Operators, TopologyDriver, table_specs,
};
use tidewire_engine::port::Stores;
use tidewire_engine::record::Partition;
use tidewire_schemas::Priority;
use tidewire_schemas::event::Event;
use tidewire_tests::{machine, process};

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const IDS: [usize; 3] = [1_000_000, 10_000_000, 50_000_000];
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

fn main() {
    let given: Vec<usize> = std::env::args().skip(1).filter_map(|n| n.parse().ok()).collect();
    let steps = if given.is_empty() { IDS.to_vec() } else { given };
    println!("{}", machine::describe());
    let dir = tempfile::tempdir().expect("a folder for the store");
    let stores = RocksStores::new(Config::new(dir.path()));
    let mut driver = opened(&stores);
    let mut next = 0;
    for ids in steps {
        let measured = (ids / MEASURED_SHARE).clamp(BATCH, MEASURED_MAX);
        take_events(&mut driver, next, ids.saturating_sub(measured));
        let from = ids.saturating_sub(measured).max(next);
        let new = take_events(&mut driver, from, ids);
        next = ids;
        let before = ACCEPTED.load(Ordering::Relaxed);
        assert_eq!(before, ids, "every new id is accepted");
        let copies = take_events(&mut driver, 0, measured.min(ids));
        assert_eq!(ACCEPTED.load(Ordering::Relaxed), before, "every copy is dropped");
        let each = |spent: Duration, of: usize| spent.as_secs_f64() * 1e6 / of as f64;
        println!(
            "  {ids} ids: {:.2} µs CPU and {:.2} µs per new id, {:.2} µs CPU per copy; {} MiB RSS",
            each(new.cpu, ids - from),
            each(new.clock, ids - from),
            each(copies.cpu, measured.min(ids)),
            resident_bytes() >> 20,
        );
    }
    drop(driver);
    let mut driver = opened(&stores);
    let (begun, mut reads) = (Instant::now(), 0);
    while driver.load_ids() {
        reads += 1;
    }
    let ms = begun.elapsed().as_millis();
    println!("  opened again: the ids of the store are read in {reads} steps, {ms} ms in all");
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
