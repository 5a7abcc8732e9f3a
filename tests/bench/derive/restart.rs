//! How long a side takes from having its partitions to working: killed with its state on disk, and
//! with none left, so that all of it comes from the changelog.

use std::io;

use tidewire_connectors::kafka::{Config, KafkaLog};
use tidewire_engine::port::{Isolation, Log as _};
use tidewire_engine::record::{Partition, TopicPartition};

use crate::ground::Ground;
use crate::row;
use crate::sides::{Running, Side};

/// What two restarts came to.
pub(crate) struct Restarts {
    killed_ms: f64,
    empty_ms: f64,
    /// Changelog records a second of the second one.
    rate: f64,
}

pub(crate) fn run(ground: &Ground, side: Side) -> io::Result<Restarts> {
    let running = side.start(ground)?;
    running.hear("running")?;
    ground.wait_for(side)?;
    running.kill9()?;
    let running = side.start(ground)?;
    let (killed_ms, _) = restored(side, &running)?;
    running.stop()?;
    std::fs::remove_dir_all(ground.dir(side.kind()))?;
    let running = side.start(ground)?;
    let (empty_ms, told) = restored(side, &running)?;
    running.stop()?;
    let records = match told {
        Some(records) => records,
        None => changelog(ground)?,
    };
    Ok(Restarts { killed_ms, empty_ms, rate: records / empty_ms * 1e3 })
}

/// Milliseconds until it worked, and how many records it says that took.
fn restored(side: Side, running: &Running) -> io::Result<(f64, Option<f64>)> {
    if side == Side::Tidewire {
        let micros = running.hear("running")?.parse::<f64>().map_err(io::Error::other)?;
        return Ok((micros / 1e3, None));
    }
    let text = running.hear("restored")?;
    let mut words = text.split(' ').filter_map(|word| word.parse::<f64>().ok());
    let records = words.next();
    let ms = words.next().ok_or(io::Error::other("restored: how long it took is missing"))?;
    Ok((ms, records))
}

/// Offsets in Tidewire's changelog.
fn changelog(ground: &Ground) -> io::Result<f64> {
    let topology = &ground.topology;
    let config = Config::new(&ground.bootstrap, topology.prefix());
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
pub(crate) fn report(all: &[(usize, Side, Restarts)]) {
    if all.is_empty() {
        return;
    }
    println!("\n| restart | killed, state there, ms | no state, ms | changelog records/s |");
    println!("|---|---:|---:|---:|");
    for (run, side, restarts) in all {
        let Restarts { killed_ms, empty_ms, rate } = restarts;
        row(&format!("run {run}: {}", side.name()), &[*killed_ms, *empty_ms, *rate]);
    }
}
