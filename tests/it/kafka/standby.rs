//! A standby takes over partitions and replays only the end of their changelogs.

use std::time::Duration;

use tidewire_tests::broker::Broker;
use tidewire_tests::server::Server;

use super::fixture::{
    EventWriter, OutputReader, TIMEOUT, TopicNamespace, check, serve, serve_with,
};
use super::zombie::until;

#[test]
fn a_standby_takes_over_with_a_short_tail() {
    let broker = Broker::start();
    let bootstrap = broker.bootstrap();
    let at = TopicNamespace::new(&bootstrap, "tw.");
    let mut owner = serve("dev", at, "owner");
    let standby = serve_with("dev", at, "standby", &[("TIDEWIRE_DERIVE_STANDBY", "true")]);
    let writer = EventWriter::start(at, 500);
    let mut outputs = OutputReader::open(at, &["out.stream", "out.urgent"]);
    assert!(outputs.read(12_000, TIMEOUT), "both work");
    let metric = |name: &str| metric(&standby, name);
    until("it follows the other's partitions", || {
        metric("tidewire_derive_followed_partitions") == 4.0
    });
    assert!(outputs.read(24_000, TIMEOUT), "both work");
    let before = metric("tidewire_derive_restored_records_total");
    owner.stop();
    until("it has taken over", || {
        metric("tidewire_derive_tasks") == 8.0
            && metric("tidewire_derive_followed_partitions") == 0.0
            && metric("tidewire_derive_restore_seconds_count") >= 8.0
    });
    let replayed = metric("tidewire_derive_restored_records_total") - before;
    let mut order = OutputReader::open(at, &["order"]);
    order.read(usize::MAX, Duration::from_secs(3));
    let whole = order.all.len() / 2;
    eprintln!("taken over with {replayed} records to replay, of about {whole}");
    assert!(replayed < whole as f64 / 4.0, "{replayed} of {whole} records were replayed");
    check(at, writer.finish());
    drop((owner, standby));
}

/// Zero before the metric exists.
fn metric(server: &Server, name: &str) -> f64 {
    server.metric(name).unwrap_or(0.0)
}
