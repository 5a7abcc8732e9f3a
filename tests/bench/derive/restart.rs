//! The restart phase: the time from an assignment to the first work.
//!
//! A side is killed and started with its state on disk, then with none, so that all of it comes
//! from the changelog.

use std::io;

use tidewire_connectors::kafka::{Config, KafkaLog};
use tidewire_engine::port::{Isolation, Log as _};
use tidewire_engine::record::{Partition, TopicPartition};

use crate::fixture::BenchFixture;
use crate::row;
use crate::sides::{Side, SideProcess};

/// The figures of two restarts.
pub(crate) struct RestartFigures {
    killed_ms: f64,
    empty_ms: f64,
    /// Changelog records per second in the second one.
    rate: f64,
}

pub(crate) fn run(fixture: &BenchFixture, side: Side) -> io::Result<RestartFigures> {
    let running = side.start(fixture)?;
    running.wait_for_line("running")?;
    fixture.wait_for(side)?;
    running.kill9()?;
    let running = side.start(fixture)?;
    let (killed_ms, _) = restored(side, &running)?;
    running.stop()?;
    std::fs::remove_dir_all(fixture.dir(side.kind()))?;
    let running = side.start(fixture)?;
    let (empty_ms, reported) = restored(side, &running)?;
    running.stop()?;
    let records = match reported {
        Some(records) => records,
        None => changelog(fixture)?,
    };
    Ok(RestartFigures { killed_ms, empty_ms, rate: records / empty_ms * 1e3 })
}

/// Milliseconds until it worked, and how many records it reports for that.
fn restored(side: Side, running: &SideProcess) -> io::Result<(f64, Option<f64>)> {
    if side == Side::Tidewire {
        let micros = running.wait_for_line("running")?.parse::<f64>().map_err(io::Error::other)?;
        return Ok((micros / 1e3, None));
    }
    let text = running.wait_for_line("restored")?;
    let mut words = text.split(' ').filter_map(|word| word.parse::<f64>().ok());
    let records = words.next();
    let ms = words.next().ok_or(io::Error::other("restored: how long it took is missing"))?;
    Ok((ms, records))
}

/// Offsets in Tidewire's changelog.
fn changelog(fixture: &BenchFixture) -> io::Result<f64> {
    let topology = &fixture.topology;
    let config = Config::new(&fixture.bootstrap, topology.prefix());
    let log = KafkaLog::open(config).map_err(io::Error::other)?;
    let mut records = 0;
    for partition in 0..topology.partitions() {
        let at = TopicPartition::new(topology.state(), Partition(partition));
        let bounds = log.bounds(&at, Isolation::Committed).map_err(io::Error::other)?;
        records += bounds.end.0 - bounds.start.0;
    }
    Ok(records as f64)
}

/// Prints the table.
pub(crate) fn report(all: &[(usize, Side, RestartFigures)]) {
    if all.is_empty() {
        return;
    }
    println!("\n| restart | killed, state there, ms | no state, ms | changelog records/s |");
    println!("|---|---:|---:|---:|");
    for (run, side, restarts) in all {
        let RestartFigures { killed_ms, empty_ms, rate } = restarts;
        row(&format!("run {run}: {}", side.name()), &[*killed_ms, *empty_ms, *rate]);
    }
}
