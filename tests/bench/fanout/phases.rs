//! The phases of a run, and what is measured in each.
//!
//! Rest, schedule, saturation, in this order on the same connections; each accounts for every
//! delivery before the next begins.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tidewire_tests::latency::Latencies;
use tidewire_tests::process::{Usage, usage};
use tidewire_tests::publisher::{PublishProgress, Schedule, pace, saturate};
use tidewire_tests::subscriber_pool::{DeliveryTotals, SubscriberPool};

use crate::server_under_test::ServerUnderTest;

/// Members that are parsed even while the server is saturated.
const SAMPLED_SUBSCRIBERS: usize = 20;

/// Deliveries per second of the schedule: the rate at which figures for other servers were
/// published.
const SCHEDULED_DELIVERIES_PER_SECOND: usize = 40_000;

/// Fastest schedule; small numbers of connections would otherwise make it an ingest benchmark.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// Events in flight while saturated: 50 to 120 KB per connection, so that sockets, not memory, are
/// the limit.
const WINDOW_EVENTS: u64 = 256;

/// Pause before a server's memory is read, in phases: with phases of 10 s it is longer than
/// allocators take to return what the warm-up used.
const SETTLE_PHASES: f64 = 1.5;

/// The part of the saturated phase that is not measured.
const RAMP_UP: Duration = Duration::from_secs(1);

/// The size of one run.
pub(crate) struct LoadPlan {
    /// Members.
    pub(crate) connections: usize,
    /// Length of the scheduled and of the saturated phase.
    pub(crate) phase: Duration,
}

/// Everything measured on one server with one number of connections.
pub(crate) struct Figures {
    connections: f64,
    before: Usage,
    at_rest: Usage,
    after_schedule: Usage,
    after: Usage,
    scheduled_cpu: Duration,
    scheduled: Latencies,
    p50: Duration,
    p99: Duration,
    saturated: SaturatedFigures,
}

struct SaturatedFigures {
    deliveries: f64,
    elapsed: Duration,
    cpu: Duration,
    /// CPU of this process meanwhile, publishing included.
    generator_cpu: Duration,
    total: DeliveryTotals,
}

/// The counters at one moment of the saturated phase.
struct SaturationSample {
    delivered: f64,
    at: Instant,
    cpu: Duration,
    generator_cpu: Duration,
}

/// One line of the table.
pub(crate) struct FigureRow {
    /// Its label.
    pub(crate) name: &'static str,
    /// The figure.
    pub(crate) value: f64,
    better: Better,
}

enum Better {
    Higher,
    Lower,
    Neither,
}

impl FigureRow {
    /// The figure with a suitable number of digits.
    pub(crate) fn show(&self, value: f64) -> String {
        if value >= 1_000.0 { format!("{value:.0}") } else { format!("{value:.2}") }
    }

    /// How many times better the second is.
    pub(crate) fn ratio(&self, axum: f64, tidewire: f64) -> Option<f64> {
        match self.better {
            Better::Higher => Some(tidewire / axum),
            Better::Lower => Some(axum / tidewire),
            Better::Neither => None,
        }
    }
}

impl Figures {
    /// The table's lines, always the same ones in the same order.
    pub(crate) fn rows(&self) -> Vec<FigureRow> {
        use Better::{Higher, Lower, Neither};
        let row = |name, better, value| FigureRow { name, better, value };
        let millis = |duration: Duration| duration.as_secs_f64() * 1e3;
        let micros_each = |cpu: Duration, count: f64| cpu.as_secs_f64() * 1e6 / count;
        let kilobytes = |usage: &Usage| {
            let grown = usage.resident_bytes.saturating_sub(self.before.resident_bytes);
            grown as f64 / 1_024.0 / self.connections
        };
        let saturated = &self.saturated;
        let rate = saturated.deliveries / saturated.elapsed.as_secs_f64();
        let scheduled = self.scheduled.count() as f64;
        vec![
            row("deliveries/s, saturated", Higher, rate),
            row(
                "CPU µs per delivery, saturated",
                Lower,
                micros_each(saturated.cpu, saturated.deliveries),
            ),
            row(
                "the generator's, saturated",
                Neither,
                micros_each(saturated.generator_cpu, saturated.deliveries),
            ),
            row(
                "CPU µs per delivery, 40k/s scheduled",
                Lower,
                micros_each(self.scheduled_cpu, scheduled),
            ),
            row("one event to all, p50 ms", Lower, millis(self.p50)),
            row("one event to all, p99 ms", Lower, millis(self.p99)),
            row("KiB per connection, connected", Lower, kilobytes(&self.at_rest)),
            row("KiB per connection, after schedule", Lower, kilobytes(&self.after_schedule)),
            row(
                "MiB grown, all phases",
                Neither,
                kilobytes(&self.after) * self.connections / 1_024.0,
            ),
            row("bytes per event on the wire", Neither, saturated.total.frame_bytes),
            row("MB/s, saturated", Higher, rate * saturated.total.frame_bytes / 1e6),
            row("expected, saturated", Neither, saturated.total.expected as f64),
            row("delivered, saturated", Neither, saturated.total.delivered as f64),
        ]
    }
}

/// All phases on a fresh server.
pub(crate) fn run(server: &ServerUnderTest, plan: &LoadPlan) -> io::Result<Figures> {
    let settle = plan.phase.mul_f64(SETTLE_PHASES);
    thread::sleep(settle);
    let before = usage(server.pid())?;
    let begin = Instant::now();
    let mut pool =
        SubscriberPool::connect(&server.endpoint, plan.connections, SAMPLED_SUBSCRIBERS)?;
    println!("{}: {} connected in {:.1?}", server.name, pool.size(), begin.elapsed());
    thread::sleep(settle);
    let at_rest = usage(server.pid())?;
    let (mut scheduled, scheduled_cpu, next_seq) = follow_schedule(server, plan, &mut pool)?;
    let after_schedule = usage(server.pid())?;
    pool.begin_sweeping()?;
    let saturated = flood(server, plan, &mut pool, next_seq)?;
    let after = usage(server.pid())?;
    Ok(Figures {
        connections: plan.connections as f64,
        before,
        at_rest,
        after_schedule,
        after,
        scheduled_cpu,
        p50: scheduled.percentile(50.0),
        p99: scheduled.percentile(99.0),
        scheduled,
        saturated,
    })
}

fn follow_schedule(
    server: &ServerUnderTest,
    plan: &LoadPlan,
    pool: &mut SubscriberPool,
) -> io::Result<(Latencies, Duration, u64)> {
    let per_second = SCHEDULED_DELIVERIES_PER_SECOND as f64 / plan.connections as f64;
    let interval = Duration::from_secs_f64(1.0 / per_second).max(MIN_INTERVAL);
    let count = (plan.phase.as_secs_f64() / interval.as_secs_f64()).ceil() as u64;
    let start = Instant::now() + interval;
    let schedule = Schedule { first_seq: 0, count, start, interval };
    let before = usage(server.pid())?;
    let target = server.target.clone();
    let publisher = thread::spawn(move || pace(&target, schedule));
    let latencies = pool.follow(&schedule)?;
    let cpu = usage(server.pid())?.cpu - before.cpu;
    publisher.join().expect("the publisher returns its errors")?;
    let expected = count * plan.connections as u64;
    let what = "scheduled";
    check(
        server,
        what,
        DeliveryCount { expected, delivered: latencies.count() as u64, odd: pool.repeated() },
    )?;
    Ok((latencies, cpu, count))
}

fn flood(
    server: &ServerUnderTest,
    plan: &LoadPlan,
    pool: &mut SubscriberPool,
    first_seq: u64,
) -> io::Result<SaturatedFigures> {
    let progress = Arc::new(PublishProgress::default());
    let target = server.target.clone();
    let shared = Arc::clone(&progress);
    let publisher = thread::spawn(move || saturate(&target, first_seq, WINDOW_EVENTS, &shared));
    let sweep_for = |pool: &mut SubscriberPool, limit: Duration| -> io::Result<SaturationSample> {
        let deadline = Instant::now() + limit;
        let mut delivered = 0.0;
        while Instant::now() < deadline && !publisher.is_finished() {
            delivered = pool.sweep(&progress)?;
        }
        let generator_cpu = usage(std::process::id())?.cpu;
        Ok(SaturationSample {
            delivered,
            at: Instant::now(),
            cpu: usage(server.pid())?.cpu,
            generator_cpu,
        })
    };
    let ramp_up = sweep_for(pool, RAMP_UP)?;
    let measured = sweep_for(pool, plan.phase)?;
    progress.stop();
    publisher.join().expect("the publisher returns its errors")?;
    let total = pool.drain(&progress)?;
    let odd = total.uneven_subscribers as u64 + pool.repeated();
    let (expected, delivered) = (total.expected, total.delivered);
    check(server, "saturated", DeliveryCount { expected, delivered, odd })?;
    Ok(SaturatedFigures {
        deliveries: measured.delivered - ramp_up.delivered,
        elapsed: measured.at - ramp_up.at,
        cpu: measured.cpu - ramp_up.cpu,
        generator_cpu: measured.generator_cpu - ramp_up.generator_cpu,
        total,
    })
}

/// Compares the deliveries of a phase with the expected number; `odd` counts repeats, and members
/// whose bytes differ from the others'.
struct DeliveryCount {
    expected: u64,
    delivered: u64,
    odd: u64,
}

fn check(server: &ServerUnderTest, phase: &str, account: DeliveryCount) -> io::Result<()> {
    let DeliveryCount { expected, delivered, odd } = account;
    println!("{}: {phase}: expected {expected} = delivered {delivered}, odd {odd}", server.name);
    if expected == delivered && odd == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!("{}: {phase}: deliveries were lost or repeated", server.name)))
}
