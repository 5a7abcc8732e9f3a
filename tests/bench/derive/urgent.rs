//! The urgent phase: critical events while DERIVE works through a backlog of low ones.
//!
//! Kafka Streams has no lanes: there a critical event would wait for the whole backlog.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::consumer::BaseConsumer;
use rdkafka::topic_partition_list::Offset;
use tidewire_engine::topology::Lane;
use tidewire_schemas::Priority;
use tidewire_tests::latency::Latencies;

use crate::fixture::{BenchFixture, key_name};
use crate::sides::Side;
use crate::{Arguments, row};

/// Critical events; each is written after the output of the one before.
const EVENTS: usize = 30;

/// The pause between two of them, so that each arrives at another moment of a transaction.
const PAUSE: Duration = Duration::from_millis(37);

/// How long one may take: as long as the backlog.
const TIMEOUT: Duration = Duration::from_secs(120);

pub(crate) fn run(fixture: &BenchFixture, arguments: &Arguments) -> io::Result<()> {
    fixture.fill(Priority::Low, arguments.records, arguments.keys)?;
    let reader = fixture.reader(fixture.topology.out_urgent().as_str(), Offset::End)?;
    let writer = fixture.writer(Priority::Critical, "0")?;
    let group = Side::Tidewire.group(fixture);
    let observer = fixture.observer(&group, Lane::Low)?;
    let running = Side::Tidewire.start(fixture)?;
    running.wait_for_line("running")?;
    let mut latencies = Latencies::default();
    for n in 0..EVENTS {
        thread::sleep(PAUSE);
        let sent = Instant::now();
        // A key without low events.
        let key = arguments.keys + n;
        writer.write(n, key)?;
        writer.serve(Duration::ZERO);
        wait_for(&reader, &key_name(key))?;
        latencies.record(sent.elapsed());
    }
    let before = observer.committed()?;
    running.stop()?;
    if before >= arguments.records {
        return Err(io::Error::other("the low events were over first: give more --records"));
    }
    println!("\n| {EVENTS} critical events behind {} low ones | |\n|---|---:|", arguments.records);
    let ms = |latency: Duration| latency.as_secs_f64() * 1e3;
    row("from the append to the output, p50 ms", &[ms(latencies.percentile(50.0))]);
    row("the slowest, ms", &[ms(latencies.percentile(100.0))]);
    row("low events committed before the last of them", &[before as f64]);
    Ok(())
}

/// Reads until the output of a key.
fn wait_for(reader: &BaseConsumer, key: &str) -> io::Result<()> {
    let give_up = Instant::now() + TIMEOUT;
    while Instant::now() < give_up {
        let Some(Ok(message)) = reader.poll(PAUSE) else { continue };
        if message.key().is_some_and(|channel| channel.ends_with(key.as_bytes())) {
            return Ok(());
        }
    }
    Err(io::Error::other("a critical event has no output"))
}
