//! A soak round on a real broker: two of most roles, one process killed at a time.

use std::thread;
use std::time::Duration;

use tidewire_tests::broker::Broker;
use tidewire_tests::server::command;
use tidewire_tests::test_rng::TestRng;

use crate::LIFE_MS_MAX;
use crate::fixture::{EventWriter, TopicNamespace, check, serve};

const PREFIX: &str = "tw.";

/// Events per second: a transaction is open at almost any moment.
const RATE: u32 = 400;

/// Kills this many times, checks the outputs and returns the number of events.
pub(crate) fn round(mut rng: TestRng, kills: usize) -> usize {
    let broker = Broker::start();
    let bootstrap = broker.bootstrap();
    let at = TopicNamespace::new(&bootstrap, PREFIX);
    let created = command()
        .args(["topics", "create", "--log", &format!("kafka://{bootstrap}")])
        .output()
        .expect("the binary starts");
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    let roles = [("admit", "a1"), ("admit", "a2"), ("derive", "d1"), ("derive", "d2")];
    let mut servers = Vec::from(roles.map(|(verb, instance)| serve(verb, at, instance)));
    servers.push(serve("gateway", at, "g1"));
    let writer = EventWriter::start(at, RATE);
    for _ in 0..kills {
        thread::sleep(Duration::from_millis(rng.below(LIFE_MS_MAX)));
        let victim = rng.index(servers.len());
        servers[victim].kill9();
        if rng.one_in(4) {
            // Long enough for work to pile up and for sessions to expire.
            thread::sleep(Duration::from_millis(rng.below(3 * LIFE_MS_MAX)));
        }
        servers[victim].restart();
    }
    assert!(writer.written() > kills, "there was load");
    let numbers = writer.finish();
    check(at, numbers);
    numbers
}
