//! Benchmark of DERIVE's operators: CPU time per event on one thread, without a log.
//!
//! `bench-operators [EVENTS] [--tasks 8]`. The mix of `tidewire generate` passes one task whose
//! store is in memory, a thousand events per transaction, with all facts and copies that follow.
//! First with de-duplication and delivery alone; then with twenty operators that no event moves,
//! with each operator alone, and with those of every deployment, also without the audit. The best
//! of several rounds counts.
//!
//! Last, the packs of facts of eight tasks that share the events, by the events per task and
//! transaction; with `--tasks` only those, of this many tasks.

#![expect(clippy::print_stdout, reason = "a benchmark's output is its figures")]

use std::process::ExitCode;
use std::time::Duration;

use tidewire_app::synthetic::Generator;
use tidewire_engine::derive::dedup::Dedup;
use tidewire_engine::derive::{
    AuditMode, ChannelDelivery, Context, DrivenTasks, Events, Flow, Input, Operator, OperatorError,
    Operators, PackedBatch, ProcessedBatch, START, TopologyDriver,
};
use tidewire_engine::operators::OPERATORS;
use tidewire_engine::operators::follows::Follows;
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::codec::{DecodeContext, HeaderLookup, admit};
use tidewire_schemas::envelope::{RecordOrigin, Writers};
use tidewire_schemas::event::Event;
use tidewire_tests::machine;

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const EVENTS: usize = 100_000;
const ROUNDS: usize = 3;
const BATCH: usize = 1_000;

/// Tasks whose packs are counted.
const TASKS: u32 = 8;

/// Events per task and transaction for which packs are counted.
const TASK_BATCHES: [usize; 3] = [125, 12, 1];

/// Microseconds that twenty operators without events may cost.
const IDLE_MAX_US: f64 = 0.3;

/// Microseconds that the audit of an event and its facts may cost.
const AUDIT_MAX_US: f64 = 1.5;

/// Bytes of the audit of a record, on average.
const AUDIT_MAX_BYTES: usize = 120;

/// An operator that no event of the mix moves.
struct Idle(u8);

impl Operator for Idle {
    fn number(&self) -> u8 {
        self.0
    }

    fn name(&self) -> &'static str {
        "commands"
    }

    fn events(&self) -> Events {
        Events::Moved
    }

    fn on_event(&self, _: &Input<'_>, _: &mut Context<'_>) -> Result<Flow, OperatorError> {
        Ok(Flow::Continue)
    }
}

struct HeaderlessRecord;

impl HeaderLookup for HeaderlessRecord {
    fn each_header<'a>(&'a self, _: &mut dyn FnMut(&'a str, &'a [u8])) {}
}

/// CPU time and outputs of a round.
#[derive(Clone, Copy)]
struct Round {
    cpu: Duration,
    facts: usize,
    packs: usize,
    pack_bytes: usize,
    outputs: usize,
    audit_bytes: usize,
}

struct Arguments {
    count: usize,
    /// Measure only the packs of this many tasks.
    tasks: Option<u32>,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("bench-operators: {why}");
            return ExitCode::from(2);
        }
    };
    println!("{}", machine::describe());
    let events = events(arguments.count);
    println!("{} events of the mix of `generate`, no log", arguments.count);
    if arguments.tasks.is_none() {
        measure_operators(&events);
    }
    measure_packs(&events, arguments.tasks.unwrap_or(TASKS));
    ExitCode::SUCCESS
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments { count: EVENTS, tasks: None };
    while let Some(word) = words.next() {
        if word == "--tasks" {
            let tasks = words.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
            arguments.tasks = Some(tasks.ok_or("--tasks needs a number from 1")?);
        } else {
            let wrong = |_| format!("{word}: unknown; see the top of tests/bench/operators.rs");
            arguments.count = word.parse().map_err(wrong)?;
        }
    }
    Ok(arguments)
}

fn measure_operators(events: &[Event]) {
    let count = events.len();
    println!("one task:");
    let on = AuditMode::On;
    let none = measure("de-duplication and delivery", events, (&[&Dedup, &ChannelDelivery], on));
    let idle: Vec<&'static dyn Operator> = (100..120).map(|n| leaked(Idle(n))).collect();
    let idle = measure("with 20 operators that no event moves", events, (around(&idle), on));
    let more = (idle.cpu.as_secs_f64() - none.cpu.as_secs_f64()) * 1e6 / count as f64;
    println!("  20 idle operators: {more:+.3} µs per event, limit {IDLE_MAX_US}");
    for operator in OPERATORS.iter().filter(|o| o.events() == Events::Moved) {
        let of = measure(&format!("{} alone", operator.name()), events, (alone(*operator), on));
        let more = (of.cpu.as_secs_f64() - none.cpu.as_secs_f64()) * 1e6 / count as f64;
        println!("  {}: {more:+.2} µs per event of the mix", operator.name());
    }
    let all = measure("all operators", events, (OPERATORS, on));
    let off = measure("all operators, no audit", events, (OPERATORS, AuditMode::Off));
    let audit = (all.cpu.as_secs_f64() - off.cpu.as_secs_f64()) * 1e6 / count as f64;
    let records = (count + all.facts) as f64;
    println!(
        "  audit: {audit:+.2} µs per event, limit {AUDIT_MAX_US}; {:.0} bytes per record of a lane, \
         limit {AUDIT_MAX_BYTES}; {:.0} per event",
        all.audit_bytes as f64 / records,
        all.audit_bytes as f64 / count as f64,
    );
    println!("  ratio to none: {:.2}", all.cpu.as_secs_f64() / none.cpu.as_secs_f64());
}

/// The packs by the events of a transaction.
fn measure_packs(events: &[Event], tasks: u32) {
    println!("{tasks} tasks, all operators:");
    for batch in TASK_BATCHES {
        let mut driven = DrivenTasks::new(OPERATORS, tasks);
        let mut all = PackedBatch::default();
        for events in events.chunks(batch * tasks as usize) {
            let done = driven.process_batch(events);
            all.facts += done.facts;
            all.record_bytes += done.record_bytes;
            all.packs += done.packs;
            all.pack_bytes += done.pack_bytes;
        }
        let each = |n: usize| n as f64 / events.len() as f64;
        println!(
            "  {batch} events per task and transaction: per event {:.2} facts and copies, {:.3} \
             packs; {:.0} bytes packed, {:.0} as records",
            each(all.facts),
            each(all.packs),
            each(all.pack_bytes),
            each(all.record_bytes),
        );
    }
}

fn leaked(operator: Idle) -> &'static dyn Operator {
    Box::leak(Box::new(operator))
}

/// An operator without others, but with `follows` if it reads rows of that: else each call fails.
fn alone(operator: &'static dyn Operator) -> Operators {
    let read: &[&dyn Operator] = if operator.name() == "notify" { &[&Follows] } else { &[] };
    around(&[read, &[operator]].concat())
}

/// These operators between de-duplication and delivery.
fn around(operators: &[&'static dyn Operator]) -> Operators {
    let mut all: Vec<&'static dyn Operator> = vec![&Dedup];
    all.extend(operators);
    all.push(&ChannelDelivery);
    Vec::leak(all)
}

fn events(count: usize) -> Vec<Event> {
    let mut generator = Generator::new(1, "bench");
    let event = |n| {
        let mut line = String::new();
        generator.next_line(&mut line);
        // As the driver's clock: events of one time would be in the order of their ids.
        let append_time_ms = START.0 + n as i64;
        let (topic, writers) = ("in", Writers::Producers);
        let origin = RecordOrigin { topic, partition: 0, offset: 0, append_time_ms, writers };
        let context =
            DecodeContext { catalogue: Catalogue::builtin(), registry: None, origin: &origin };
        admit(&context, Some(line.as_bytes()), &HeaderlessRecord).expect("an event").event
    };
    (0..count).map(event).collect()
}

fn measure(what: &str, events: &[Event], run: (Operators, AuditMode)) -> Round {
    let rounds = (0..ROUNDS).map(|_| round(events, run));
    let best = rounds.min_by_key(|round| round.cpu).expect("several rounds");
    let each = |n: usize| n as f64 / events.len() as f64;
    println!(
        "  {what}: {:.2} µs per event; {:.2} facts and copies in {:.3} packs of {:.0} bytes in all, \
         {:.2} outputs",
        best.cpu.as_secs_f64() * 1e6 / events.len() as f64,
        each(best.facts),
        each(best.packs),
        each(best.pack_bytes),
        each(best.outputs),
    );
    best
}

fn round(events: &[Event], (operators, audit): (Operators, AuditMode)) -> Round {
    let mut driver = TopologyDriver::new(operators);
    driver.set_audit(audit);
    let begun = machine::thread_cpu_time();
    let mut all = ProcessedBatch::default();
    for batch in events.chunks(BATCH) {
        let done = driver.process_batch(batch);
        all.facts += done.facts;
        all.packs += done.packs;
        all.pack_bytes += done.pack_bytes;
        all.outputs += done.outputs;
        all.audit_bytes += done.audit_bytes;
    }
    let ProcessedBatch { facts, packs, pack_bytes, outputs, audit_bytes } = all;
    let cpu = machine::thread_cpu_time() - begun;
    Round { cpu, facts, packs, pack_bytes, outputs, audit_bytes }
}
