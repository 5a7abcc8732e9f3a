//! The cost of a rebalance: DERIVE from one process to three and back under load.
//!
//! Measures how long partitions have no output, with static members of the classic protocol and
//! with KIP-848. It prints the figures of deploy/RUNBOOK.md.

use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use tidewire_tests::broker::Broker;
use tidewire_tests::server::Server;

use super::fixture::{EventWriter, OutputReader, TopicNamespace, check};
use super::stalls::{Stalls, watch};

/// Longer than a session and the assignment after it.
const LOOK: Duration = Duration::from_secs(12);

#[test]
fn scaling_from_one_to_three_and_back_stalls_for_a_bounded_time() {
    let broker = Broker::start();
    for protocol in ["classic", "consumer"] {
        let [up, down] = scale(&broker, protocol);
        eprintln!("{protocol}: 1 to 3 {up:?}, 3 to 1 {down:?}");
        // In every step there is always some output, except for a moment.
        assert!(up.all < LOOK && down.all < LOOK, "{protocol}: {up:?}, {down:?}");
    }
}

fn scale(broker: &Broker, protocol: &str) -> [Stalls; 2] {
    let bootstrap = broker.bootstrap();
    let prefix = format!("{protocol}.");
    let at = TopicNamespace::new(&bootstrap, &prefix);
    let log = format!("kafka://{bootstrap}");
    let start = |verb: &str, instance: &str| {
        let variables = [
            ("TIDEWIRE_TOPICS_PREFIX", prefix.as_str()),
            ("TIDEWIRE_INSTANCE", instance),
            ("TIDEWIRE_INSECURE_DEV", "true"),
            ("TIDEWIRE_KAFKA_GROUP_PROTOCOL", protocol),
        ];
        Server::start_as(verb, &["--log", &log], &variables)
    };
    let first = start("dev", "first");
    let writer = EventWriter::start(at, 200);
    let mut outputs = OutputReader::open(at, &["out.stream", "out.urgent"]);
    assert!(outputs.read(1_200, Duration::from_secs(60)), "it works");
    let (up, more) = thread::scope(|scope| {
        let starting = scope.spawn(|| ["second", "third"].map(|name| start("derive", name)));
        (watch(&mut outputs, LOOK), starting.join().expect("they start"))
    });
    let shared = more.iter().all(|server| server.metric("tidewire_derive_tasks") > Some(0.0));
    assert!(shared, "{protocol}: each has a share");
    let down = thread::scope(|scope| {
        let stopping = scope.spawn(|| more.map(|mut server| server.stop_by(Signal::TERM)));
        let down = watch(&mut outputs, LOOK);
        let took = stopping.join().expect("they stop");
        eprintln!("{protocol}: they stopped in {took:?}");
        down
    });
    check(at, writer.finish());
    drop(first);
    [up, down]
}
