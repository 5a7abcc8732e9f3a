//! Benchmark of DERIVE's operators: CPU time per event on one thread, without a log.
//!
//! `bench-operators [EVENTS]`. The mix of `tidewire generate` passes one task whose store is in
//! memory, a thousand events per transaction, with all facts and copies that follow. First with
//! de-duplication and delivery alone; then with twenty operators that no event moves, with each
//! operator alone, and with those of every deployment, also without the audit. The best of several
//! rounds counts.

#![expect(clippy::print_stdout, reason = "a benchmark's output is its figures")]

use std::time::Duration;

use tidewire_app::synthetic::Generator;
use tidewire_engine::derive::dedup::Dedup;
use tidewire_engine::derive::{
    AuditMode, ChannelDelivery, Context, Events, Flow, Input, Operator, OperatorError, Operators,
    ProcessedBatch, START, TopologyDriver,
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

fn main() {
    let count = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(EVENTS);
    println!("{}", machine::describe());
    let events = events(count);
    println!("{count} events of the mix of `generate`, one task, no log:");
    let on = AuditMode::On;
    let none = measure("de-duplication and delivery", &events, (&[&Dedup, &ChannelDelivery], on));
    let idle: Vec<&'static dyn Operator> = (100..120).map(|n| leaked(Idle(n))).collect();
    let idle = measure("with 20 operators that no event moves", &events, (around(&idle), on));
    let more = (idle.cpu.as_secs_f64() - none.cpu.as_secs_f64()) * 1e6 / count as f64;
    println!("  20 idle operators: {more:+.3} µs per event, limit {IDLE_MAX_US}");
    for operator in OPERATORS.iter().filter(|o| o.events() == Events::Moved) {
        let of = measure(&format!("{} alone", operator.name()), &events, (alone(*operator), on));
        let more = (of.cpu.as_secs_f64() - none.cpu.as_secs_f64()) * 1e6 / count as f64;
        println!("  {}: {more:+.2} µs per event of the mix", operator.name());
    }
    let all = measure("all operators", &events, (OPERATORS, on));
    let off = measure("all operators, no audit", &events, (OPERATORS, AuditMode::Off));
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
