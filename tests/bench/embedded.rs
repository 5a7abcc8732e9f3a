//! Benchmark of the embedded log alone: appends, reads, and the wake-up of a sleeping reader.
//!
//! `bench-embedded [RECORDS]`: 300-byte records in batches of 1,000, appended on one thread, read
//! at the tail and below it. Compare ratios, not the figures of one machine. Latency is measured
//! from before the append to after the take.

#![expect(clippy::print_stdout, reason = "a benchmark's output is its figures")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidewire_connectors::embedded::{Config, Durability, EmbeddedLog};
use tidewire_engine::port::{Cleanup, Isolation, Log, ReadLimit, TopicSpec};
use tidewire_engine::record::{Body, Offset, Outgoing, Partition, Topic, TopicPartition};
use tidewire_tests::wall_clock::SystemWallClock;

const RECORDS: usize = 2_000_000;
const BATCH: usize = 1_000;
const BODY_BYTES: usize = 300;
const PARTITIONS: u32 = 8;
const WAKE_UPS: usize = 2_000;

struct LogBench {
    log: Arc<EmbeddedLog>,
    topic: Topic,
    batches: usize,
}

fn main() {
    let records = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(RECORDS);
    let batches = (records / BATCH).max(1);
    let dir = tempfile::tempdir().expect("a directory");
    for durability in [Durability::Process, Durability::Host] {
        let dir = dir.path().join(format!("{durability:?}"));
        let batches = if durability == Durability::Host { batches.min(200) } else { batches };
        let config = Config { durability, ..Config::new(dir) };
        let log = EmbeddedLog::open(config, Arc::new(SystemWallClock)).expect("the log opens");
        let bench = LogBench { log, topic: Topic::new("bench"), batches };
        bench.create();
        println!("durability {durability:?}, records of {BODY_BYTES} B, {PARTITIONS} partitions");
        bench.append(&batch(&bench.topic, |_| 0), "one partition");
        bench.append(&batch(&bench.topic, |n| n as u32 % PARTITIONS), "all partitions");
        bench.read("scan from the start, below the tail", 0);
        bench.follow();
        bench.wake();
    }
}

fn batch(topic: &Topic, partition: impl Fn(usize) -> u32) -> Vec<Outgoing> {
    let record = |n: usize| {
        let value: Vec<u8> = (0..BODY_BYTES).map(|at| (n * 31 + at * 7) as u8).collect();
        let body = Body::new(Some(format!("key-{n}").as_bytes()), Some(&value), &[]);
        Outgoing { topic: topic.clone(), partition: Partition(partition(n)), body }
    };
    (0..BATCH).map(record).collect()
}

fn rate(what: &str, count: usize, since: Instant) {
    let seconds = since.elapsed().as_secs_f64();
    println!("  {what}: {:.0} thousand records/s", count as f64 / seconds / 1e3);
}

impl LogBench {
    fn create(&self) {
        let cleanup = Cleanup::Delete { retention_ms: Some(86_400_000), retention_bytes: None };
        let spec = TopicSpec { topic: self.topic.clone(), partitions: PARTITIONS, cleanup };
        self.log.create(&spec).expect("the topic is made");
    }

    fn at(&self, partition: u32) -> TopicPartition {
        TopicPartition::new(&self.topic, Partition(partition))
    }

    fn append(&self, batch: &[Outgoing], what: &str) {
        let mut appender = self.log.appender().expect("an appender");
        let since = Instant::now();
        for _ in 0..self.batches {
            appender.append(batch).expect("appended");
        }
        rate(&format!("append, one thread, {what}"), self.batches * BATCH, since);
    }

    fn read(&self, what: &str, from: u64) {
        let mut reader = self.log.reader(Isolation::Committed).expect("a reader");
        let at = self.at(0);
        let end = self.log.bounds(&at, Isolation::Committed).expect("bounds").end;
        let slot = reader.add(&at, Offset(from)).expect("added");
        let mut out = Vec::new();
        let limit = ReadLimit { records: 10_000, bytes: 8 << 20 };
        let (since, mut count) = (Instant::now(), 0);
        while reader.position(slot).expect("a position") < end {
            out.clear();
            count += reader.take(slot, limit, &mut out).expect("taken");
        }
        rate(what, count, since);
    }

    /// A reader that takes each batch right after its append; only its takes are timed.
    fn follow(&self) {
        let batch = batch(&self.topic, |_| 0);
        let mut appender = self.log.appender().expect("an appender");
        let mut reader = self.log.reader(Isolation::Committed).expect("a reader");
        let at = self.at(0);
        let end = self.log.bounds(&at, Isolation::Committed).expect("bounds").end;
        let slot = reader.add(&at, end).expect("added");
        let limit = ReadLimit { records: 10_000, bytes: 8 << 20 };
        let (mut out, mut count, mut taking) = (Vec::new(), 0, Duration::ZERO);
        for _ in 0..self.batches.min(500) {
            appender.append(&batch).expect("appended");
            let since = Instant::now();
            out.clear();
            count += reader.take(slot, limit, &mut out).expect("taken");
            taking += since.elapsed();
        }
        let rate = count as f64 / taking.as_secs_f64() / 1e6;
        println!("  tail reads, one thread: {rate:.1} million records/s");
    }

    /// A sleeping reader, one record at a time.
    fn wake(&self) {
        let at = self.at(1);
        let wake_ups = WAKE_UPS.min(self.batches * 10);
        let seen = AtomicU64::new(0);
        let since = Instant::now();
        let nanos = || u64::try_from(since.elapsed().as_nanos()).expect("not for centuries");
        let mut took = Vec::with_capacity(wake_ups);
        std::thread::scope(|scope| {
            let end = self.log.bounds(&at, Isolation::Committed).expect("bounds").end;
            let mut reader = self.log.reader(Isolation::Committed).expect("a reader");
            let slot = reader.add(&at, end).expect("added");
            let (seen, nanos) = (&seen, &nanos);
            scope.spawn(move || {
                let limit = ReadLimit { records: 100, bytes: 1 << 20 };
                let (mut count, mut out) = (0, Vec::new());
                while count < wake_ups {
                    reader.wait(Duration::from_secs(1)).expect("waited");
                    count += reader.take(slot, limit, &mut out).expect("taken");
                    seen.store(nanos(), Ordering::Release);
                }
            });
            let mut appender = self.log.appender().expect("an appender");
            let record = [batch(&self.topic, |_| 1).swap_remove(0)];
            for _ in 0..wake_ups {
                // Long enough for the reader to sleep.
                std::thread::sleep(Duration::from_micros(300));
                let before = nanos();
                appender.append(&record).expect("appended");
                while seen.load(Ordering::Acquire) < before {
                    std::thread::yield_now();
                }
                took.push(seen.load(Ordering::Acquire) - before);
            }
        });
        took.sort_unstable();
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize] as f64 / 1e3;
        println!("  append to a sleeping reader: p50 {:.0} µs, p99 {:.0} µs", at(0.5), at(0.99));
    }
}
