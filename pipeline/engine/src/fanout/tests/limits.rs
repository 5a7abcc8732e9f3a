//! Tests of the bounds: memory per connection, encodings per event, reads per sweep.
//!
//! Each bound is asserted by a figure, so that a change that costs more fails here before a
//! benchmark shows it.

use proptest::prelude::*;

use super::super::config::FanoutConfig;
use super::super::identity::Accounts;
use super::super::protocol::native::StartAt;
use super::super::shard::Filled;
use super::super::shard::channels::ListId;
use super::super::shard::conn::{Conn, Subscription};
use super::super::shard::mirror::EntryRef;
use super::fixture::{ClientConnection, FanoutFixture, identity, numbers};

/// Bytes that the fan-out may hold for a WebSocket connection with two subscriptions, without the
/// lists of channels. The target for the whole connection is 5 KiB.
const CONN_MAX_BYTES: usize = 512;

#[test]
fn a_connection_with_two_subscriptions_is_small_while_it_is_idle() {
    let mut fixture = FanoutFixture::new(1, &FanoutConfig::default());
    let mut connection = ClientConnection::open(&mut fixture, 0, &identity(Accounts::All));
    for channel in ["posts:a", "posts:b"] {
        connection.subscribe(&mut fixture, channel, "earliest");
        fixture.append(channel, 1);
    }
    assert_eq!(numbers(&connection.read_all(&mut fixture)).len(), 2);
    let conn = fixture.gateways[0].shard.conn(connection.conn.slot).unwrap();
    let heap = conn.subs.capacity() * size_of::<Subscription>()
        + conn.feeds.capacity() * size_of::<usize>()
        + conn.control.capacity()
        + conn.partition_offsets.capacity();
    assert!(size_of::<Conn>() + heap <= CONN_MAX_BYTES, "{} + {heap}", size_of::<Conn>());
}

#[test]
fn each_event_is_encoded_at_most_once_per_framing() {
    let config = FanoutConfig { pending_max_refs: 8, ..FanoutConfig::default() };
    let mut fixture = FanoutFixture::new(1, &config);
    let mut connections: Vec<ClientConnection> = Vec::new();
    for _ in 0..20 {
        let mut connection = ClientConnection::open(&mut fixture, 0, &identity(Accounts::All));
        connection.subscribe(&mut fixture, "posts:a", "latest");
        connections.push(connection);
        connections.push(ClientConnection::stream(
            &mut fixture,
            0,
            &["posts:a".to_owned()],
            StartAt::Latest,
        ));
    }
    for _ in 0..50 {
        fixture.append("posts:a", 1);
        fixture.append("posts:nobody", 1);
        fixture.settle();
        // Half of them read each event, the others fall behind and read the ring.
        for connection in connections.iter_mut().step_by(4) {
            connection.fill(&mut fixture, 1 << 20);
        }
    }
    for connection in &mut connections {
        assert_eq!(numbers(&connection.read_all(&mut fixture)).len(), 50);
    }
    assert_eq!(fixture.gateways[0].hub.encodes(), 100);
    assert_eq!(fixture.gateways[0].shard.stats().deliveries, 2_000);
}

#[test]
fn an_event_without_a_subscriber_is_never_encoded() {
    let mut fixture = FanoutFixture::new(1, &FanoutConfig::default());
    fixture.append("posts:a", 1);
    fixture.settle();
    assert_eq!(fixture.gateways[0].hub.encodes(), 0);
}

#[test]
fn the_rings_stay_within_their_budget_and_lists_within_their_bound() {
    let config =
        FanoutConfig { ring_max_bytes: 50_000, pending_max_refs: 64, ..FanoutConfig::default() };
    let mut fixture = FanoutFixture::new(1, &config);
    let mut stalled = ClientConnection::open(&mut fixture, 0, &identity(Accounts::All));
    let mut reading = ClientConnection::open(&mut fixture, 0, &identity(Accounts::All));
    for connection in [&mut stalled, &mut reading] {
        connection.subscribe(&mut fixture, "posts:a", "latest");
    }
    let mut seen = 0;
    for _ in 0..500 {
        fixture.append("posts:a", 1);
        fixture.append("posts:b", 0);
        fixture.settle();
        seen += numbers(&reading.read(&mut fixture)).len();
        let gateway = &fixture.gateways[0];
        assert!(gateway.hub.ring_bytes() <= 50_000 + 2_000, "{}", gateway.hub.ring_bytes());
        let list = gateway.shard.channels.list(ListId(0));
        assert!(list.len() <= 64, "{} references", list.len());
    }
    assert_eq!(seen, 500);
    assert_eq!(numbers(&stalled.read_all(&mut fixture)).len(), 500);
}

/// Every client gets every event once, in few sweeps, and the records read do not grow with the
/// number of clients.
#[test]
fn clients_far_behind_share_their_sweeps() {
    let config = FanoutConfig {
        ring_max_bytes: 100_000,
        warmup_records: 50,
        sweep_step_records: 512,
        ..FanoutConfig::default()
    };
    let mut fixture = FanoutFixture::new(1, &config);
    let mut wanted = 0;
    for n in 0..30_000 {
        let hot = n % 100 == 0;
        wanted += usize::from(hot);
        fixture.append(if hot { "posts:a" } else { "posts:b" }, 1);
    }
    fixture.gateways = vec![fixture.gateway(&config)];
    let before = fixture.log.taken();
    let mut connections: Vec<ClientConnection> = Vec::new();
    for _ in 0..200 {
        let mut connection = ClientConnection::open(&mut fixture, 0, &identity(Accounts::All));
        connection.subscribe(&mut fixture, "posts:a", "earliest");
        connection.fill(&mut fixture, 1 << 20);
        connections.push(connection);
    }
    let mut seen = vec![0; connections.len()];
    while seen.iter().any(|seen| *seen < wanted) {
        fixture.settle();
        assert!(fixture.gateways[0].sweeper.scans() <= 4);
        for (connection, seen) in connections.iter_mut().zip(&mut seen) {
            *seen += numbers(&connection.read(&mut fixture)).len();
        }
    }
    assert!(seen.iter().all(|seen| *seen == wanted));
    let read = fixture.log.taken() - before;
    assert!(read <= 2 * 30_000, "{read} records read for 200 clients");
    assert_eq!(fixture.gateways[0].hub.encodes() as usize, wanted);
}

#[test]
fn a_reader_that_stalls_does_not_hold_up_the_sweep_of_the_others() {
    let config = FanoutConfig {
        ring_max_bytes: 20_000,
        warmup_records: 5,
        sweep_step_records: 16,
        ..FanoutConfig::default()
    };
    let mut fixture = FanoutFixture::new(1, &config);
    for _ in 0..1_000 {
        fixture.append("posts:a", 1);
    }
    fixture.gateways = vec![fixture.gateway(&config)];
    let mut stalled = ClientConnection::open(&mut fixture, 0, &identity(Accounts::All));
    let mut reading = ClientConnection::open(&mut fixture, 0, &identity(Accounts::All));
    for connection in [&mut stalled, &mut reading] {
        connection.subscribe(&mut fixture, "posts:a", "earliest");
        connection.fill(&mut fixture, 1 << 20);
    }
    let mut seen = 0;
    for _ in 0..150 {
        fixture.settle();
        fixture.pass_time(100);
        fixture.gateways[0].shard.mark_alive(stalled.conn);
        fixture.gateways[0].shard.mark_alive(reading.conn);
        seen += numbers(&reading.read(&mut fixture)).len();
    }
    assert_eq!(seen, 1_000);
    assert_eq!(fixture.gateways[0].sweeper.scans(), 0);
    assert_eq!(
        numbers(&stalled.take_frames()).len() + numbers(&stalled.read_all(&mut fixture)).len(),
        1_000
    );
}

#[test]
fn a_fill_keeps_to_its_budget_within_one_frame() {
    let mut fixture = FanoutFixture::new(1, &FanoutConfig::default());
    let mut connection = ClientConnection::open(&mut fixture, 0, &identity(Accounts::All));
    connection.subscribe(&mut fixture, "posts:a", "latest");
    connection.read_all(&mut fixture);
    for _ in 0..100 {
        fixture.append("posts:a", 1);
    }
    fixture.settle();
    let mut fills = 0;
    while connection.fill(&mut fixture, 1_000) == Filled::More {
        assert!(connection.bytes.len() < 1_000 + 500, "{}", connection.bytes.len());
        connection.take_frames();
        fills += 1;
    }
    assert!(fills > 10);
}

proptest! {
    #[test]
    fn references_order_as_segments_and_then_entries(
        a in (0..1u64 << 40, 0..1usize << 24),
        b in (0..1u64 << 40, 0..1usize << 24),
    ) {
        let (x, y) = (EntryRef::new(a.0, a.1), EntryRef::new(b.0, b.1));
        prop_assert_eq!((x.seq(), x.index()), a);
        prop_assert_eq!(x.cmp(&y), a.cmp(&b));
    }
}
