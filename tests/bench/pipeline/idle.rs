//! The cost of an idle process: its CPU, the broker's, and the records it writes.

use std::io;
use std::thread;
use std::time::Duration;

use tidewire_tests::broker::Broker;
use tidewire_tests::process::usage;
use tidewire_tests::server::Server;

use crate::row;

/// How long the last events have to be committed everywhere.
const SETTLE: Duration = Duration::from_secs(3);

pub(crate) fn run(seconds: u64, server: &Server, broker: &Broker) -> io::Result<()> {
    thread::sleep(SETTLE);
    let ends = ends(server)?;
    let before = (usage(server.pid())?, usage(broker.pid())?);
    thread::sleep(Duration::from_secs(seconds));
    let after = (usage(server.pid())?, usage(broker.pid())?);
    let percent = |cpu: Duration| cpu.as_secs_f64() * 100.0 / seconds as f64;
    println!("| idle, nobody connected | |");
    row("CPU of the process, % of a core", percent(after.0.cpu - before.0.cpu));
    row("CPU of the broker, % of a core", percent(after.1.cpu - before.1.cpu));
    row("records written per second", (self::ends(server)? - ends) as f64 / seconds as f64);
    Ok(())
}

/// The sum of all end offsets.
fn ends(server: &Server) -> io::Result<u64> {
    let stats = server.http().get("/v1/stats")?.json();
    let topics = stats["topics"].as_array().ok_or_else(|| io::Error::other(stats.to_string()))?;
    let offsets = topics.iter().flat_map(|topic| topic["offsets"].as_array()).flatten();
    Ok(offsets.filter_map(|bounds| bounds[1].as_u64()).sum())
}
