//! A process that is frozen past its session while another takes over its partitions.
//!
//! When it resumes, its writes are refused, and it rejoins by itself.

use std::thread;
use std::time::{Duration, Instant};

use tidewire_tests::broker::Broker;
use tidewire_tests::server::Server;

use super::fixture::{EventWriter, OutputReader, TIMEOUT, TopicNamespace, check, serve};

/// Longer than the session and transaction time-outs of 10 s each.
const FROZEN: Duration = Duration::from_secs(14);

#[test]
fn a_process_frozen_past_its_session_is_fenced_and_recovers() {
    let broker = Broker::start();
    let bootstrap = broker.bootstrap();
    let at = TopicNamespace::new(&bootstrap, "tw.");
    let zombie = serve("dev", at, "zombie");
    let other = serve("dev", at, "other");
    let writer = EventWriter::start(at, 300);
    let mut outputs = OutputReader::open(at, &["out.stream", "out.urgent"]);
    assert!(outputs.read(1_500, Duration::from_secs(60)), "both work");
    until_it_has_tasks(&zombie);
    zombie.pause();
    thread::sleep(FROZEN);
    let before = outputs.all.len();
    assert!(
        outputs.read(before + 900, Duration::from_secs(30)),
        "the other has taken over everything"
    );
    zombie.resume();
    let rebuilt = || zombie.metric("tidewire_loop_rebuilds_total{thread=\"derive\"}");
    until("the zombie was fenced", || rebuilt().is_some_and(|times| times >= 1.0));
    assert!(zombie.printed().contains("another instance took over"), "it logs why");
    until_it_has_tasks(&zombie);
    thread::sleep(Duration::from_secs(2));
    check(at, writer.finish());
    drop((zombie, other));
}

fn until_it_has_tasks(server: &Server) {
    let has = || server.metric("tidewire_derive_tasks").is_some_and(|tasks| tasks > 0.0);
    until("it has tasks", has);
}

pub(super) fn until(what: &str, holds: impl Fn() -> bool) {
    let give_up = Instant::now() + TIMEOUT;
    while !holds() {
        assert!(Instant::now() < give_up, "waited too long: {what}");
        thread::sleep(Duration::from_millis(100));
    }
}
