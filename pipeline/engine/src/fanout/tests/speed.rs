//! Prints the cost of a delivery in the fan-out alone, without sockets.
//!
//! It runs with the other tests so that it keeps working; the published figure is that of
//! `bench-fanout`, over real sockets.

use std::time::Instant;

use super::super::config::FanoutConfig;
use super::super::identity::Accounts;
use super::super::out_buffer::OutBuffer;
use super::fixture::{ClientConnection, FanoutFixture, identity};

/// Connections; the ceiling of the fan-out benchmark.
const CONNECTIONS: usize = 9_900;
/// Events per batch, as many as arrive while a loop serves every connection once.
const BATCH: usize = 10;

#[test]
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn one_hot_channel_costs_far_below_a_microsecond_per_delivery() {
    let mut fixture = FanoutFixture::new(1, &FanoutConfig::default());
    let identity = identity(Accounts::All);
    let mut connections = Vec::with_capacity(CONNECTIONS);
    let mut out = OutBuffer::with_capacity(1 << 20);
    for _ in 0..CONNECTIONS {
        let mut connection = ClientConnection::open(&mut fixture, 0, &identity);
        connection.subscribe(&mut fixture, "posts:a", "latest");
        connection.fill(&mut fixture, 1 << 20);
        connections.push(connection.conn);
    }
    let mut ready = Vec::new();
    fixture.gateways[0].shard.take_ready(&mut ready);
    let before = fixture.gateways[0].shard.stats();
    let (mut pull, mut fill) = (0, 0);
    for _ in 0..5 {
        for _ in 0..BATCH {
            fixture.append("posts:a", 1);
        }
        fixture.read(0);
        let shard = &mut fixture.gateways[0].shard;
        let begun = Instant::now();
        shard.pull();
        ready.clear();
        shard.take_ready(&mut ready);
        pull += begun.elapsed().as_nanos();
        let begun = Instant::now();
        for conn in &ready {
            out.clear();
            shard.fill(*conn, &mut out, 1 << 16);
        }
        fill += begun.elapsed().as_nanos();
    }
    let stats = fixture.gateways[0].shard.stats();
    let deliveries = u128::from(stats.deliveries - before.deliveries);
    assert_eq!(deliveries, (5 * BATCH * CONNECTIONS) as u128);
    eprintln!(
        "fan-out: {} ns per delivery (pull {}, fill {}), {} bytes each, batches of {BATCH}",
        (pull + fill) / deliveries,
        pull / deliveries,
        fill / deliveries,
        u128::from(stats.bytes - before.bytes) / deliveries,
    );
}
