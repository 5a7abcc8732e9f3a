//! Tests of the bounds: memory per connection, encodings per event, reads per sweep.
//!
//! Each bound is asserted by a figure, so that a change that costs more fails here before a
//! benchmark shows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::super::config::FanoutConfig;
use super::super::identity::Accounts;
use super::super::out_buffer::OutBuffer;
use super::super::protocol::native::{CloseReason, StartAt};
use super::super::shard::channels::ListId;
use super::super::shard::conn::{Conn, Subscription};
use super::super::shard::mirror::EntryRef;
use super::super::shard::{ConnectionMemory, Filled};
use super::fixture::{ClientConnection, FanoutFixture, FanoutGateway, identity, numbers};

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

/// The largest event of the pipeline.
const LARGE_BYTES: usize = 256 * 1024;

/// Ten thousand connections that do not read hold a large event once, also after it has left the
/// ring, and nothing once they are gone.
#[test]
fn a_large_event_that_nobody_reads_is_held_once() {
    let config = FanoutConfig { ring_max_bytes: 3 * LARGE_BYTES, ..FanoutConfig::default() };
    let mut fixture = FanoutFixture::new(1, &config);
    let identity = identity(Accounts::All);
    let mut connections = Vec::new();
    for _ in 0..10_000 {
        let mut connection = ClientConnection::open(&mut fixture, 0, &identity);
        connection.subscribe(&mut fixture, "posts:a", "latest");
        connection.fill(&mut fixture, 1 << 20);
        connections.push(connection.conn);
    }
    fixture.append_large("posts:a", LARGE_BYTES);
    fixture.settle();
    let FanoutGateway { hub, shard, .. } = &mut fixture.gateways[0];
    let hub = Arc::clone(hub);
    let mut unsent = Vec::new();
    for conn in &connections {
        let mut out = OutBuffer::default();
        assert_eq!(shard.fill(*conn, &mut out, 32 * 1024), Filled::Drained);
        shard.set_unsent(*conn, out.len());
        unsent.push(out);
    }
    assert!(unsent.iter().all(|out| out.len() > LARGE_BYTES));
    let own: usize = unsent.iter().map(OutBuffer::own_bytes).sum();
    assert!(own < 1_000_000, "{own} bytes are copied");
    assert_eq!(hub.bytes_beside_rings(), 0, "the ring has it");
    for _ in 0..6 {
        fixture.append_large("posts:b", LARGE_BYTES);
        fixture.settle();
    }
    let beside = hub.bytes_beside_rings();
    assert!((LARGE_BYTES..LARGE_BYTES + 2_000).contains(&beside), "{beside} bytes beside the ring");
    let pieces = unsent.pop().expect("one of many");
    assert_eq!(pieces.pieces().concat().len(), pieces.len(), "it can still be sent");
    drop((unsent, pieces));
    assert_eq!(hub.bytes_beside_rings(), 0);
}

/// A token that differs from the hub's is written into a copy of the frame's beginning only.
#[test]
fn a_large_event_with_another_token_is_referenced_too() {
    let mut fixture = FanoutFixture::new(1, &FanoutConfig::default());
    let names = ["posts:a", "posts:b", "posts:c", "posts:d"].map(str::to_owned);
    let mut stream = ClientConnection::stream(&mut fixture, 0, &names, StartAt::Latest);
    fixture.append_large("posts:a", LARGE_BYTES);
    fixture.settle();
    let mut out = OutBuffer::default();
    fixture.gateways[0].shard.fill(stream.conn, &mut out, 1 << 20);
    assert!(out.len() > LARGE_BYTES && out.own_bytes() < 2_000, "{}", out.own_bytes());
    stream.bytes.extend(out.pieces().concat());
    assert_eq!(numbers(&stream.take_frames()), [0]);
}

/// A sweep that waits for a client keeps four steps. While memory is full they are small.
#[test]
fn without_memory_sweeps_keep_little() {
    let config = FanoutConfig {
        ring_max_bytes: 20_000,
        warmup_records: 5,
        sweep_wait_max_ms: i32::MAX as u32,
        slow_window_ms: i32::MAX as u32,
        ..FanoutConfig::default()
    };
    let mut kept = [ConnectionMemory::Available, ConnectionMemory::Full].map(|memory| {
        let mut fixture = FanoutFixture::new(1, &config);
        fixture.memory = memory;
        for _ in 0..1_500 {
            fixture.append_large("posts:a", 4_000);
        }
        fixture.gateways = vec![fixture.gateway(&config)];
        fixture.pass_time(1_000);
        let mut connection = ClientConnection::open(&mut fixture, 0, &identity(Accounts::All));
        connection.subscribe(&mut fixture, "posts:a", "earliest");
        connection.fill(&mut fixture, 4_000);
        (0..4).for_each(|_| fixture.settle());
        let kept = fixture.gateways[0].hub.bytes_beside_rings();
        let mut read = numbers(&connection.read(&mut fixture));
        while read.len() < 1_500 {
            fixture.settle();
            read.extend(numbers(&connection.read(&mut fixture)));
        }
        assert_eq!(read, (0..1_500).collect::<Vec<_>>());
        kept
    });
    kept.sort_unstable();
    assert!(kept[1] > 4 * 512 * 1_024 && kept[0] < 4 * 40_000, "{kept:?}");
}

/// Answers that wait are counted until they are written or their connection is gone.
#[test]
fn small_frames_that_wait_are_counted() {
    let mut fixture = FanoutFixture::new(1, &FanoutConfig::default());
    let mut one = ClientConnection::open(&mut fixture, 0, &identity(Accounts::All));
    let other = ClientConnection::open(&mut fixture, 0, &identity(Accounts::All));
    let hub = Arc::clone(&fixture.gateways[0].hub);
    let welcomes = hub.bytes_beside_rings();
    assert!(welcomes > 0);
    one.subscribe(&mut fixture, "posts:a", "latest");
    assert!(hub.bytes_beside_rings() > welcomes);
    let waiting = |fixture: &FanoutFixture| {
        [one.conn, other.conn].map(|conn| fixture.gateways[0].shard.waiting_bytes(conn))
    };
    assert_eq!(waiting(&fixture).iter().sum::<usize>(), hub.bytes_beside_rings());
    one.fill(&mut fixture, 1 << 20);
    fixture.gateways[0].shard.close(other.conn);
    assert_eq!(hub.bytes_beside_rings(), 0);
}

/// What a connection has accepted counts, not what it was given: one that takes a large event
/// slowly is served on, one that has stopped is closed although nothing else waits for it.
#[test]
fn a_connection_is_slow_by_what_its_socket_accepts() {
    let mut fixture = FanoutFixture::new(1, &FanoutConfig::default());
    let mut connections: Vec<_> =
        (0..2).map(|_| ClientConnection::open(&mut fixture, 0, &identity(Accounts::All))).collect();
    for connection in &mut connections {
        connection.subscribe(&mut fixture, "posts:a", "latest");
        connection.fill(&mut fixture, 1 << 20);
    }
    fixture.append_large("posts:a", 2 * LARGE_BYTES);
    fixture.settle();
    for connection in &mut connections {
        connection.fill(&mut fixture, 1 << 20);
        fixture.gateways[0].shard.set_unsent(connection.conn, connection.bytes.len());
    }
    let mut left = connections[0].bytes.len();
    let mut closed = Vec::new();
    for _ in 0..70 {
        left -= 6_000;
        fixture.gateways[0].shard.set_unsent(connections[0].conn, left);
        fixture.gateways[0].shard.mark_alive(connections[1].conn);
        fixture.pass_time(1_000);
        closed.extend(connections[0].closes(&mut fixture));
    }
    assert_eq!(closed.len(), 1, "{closed:?}");
    assert_eq!((closed[0].conn, closed[0].reason), (connections[1].conn, CloseReason::Slow));
}

/// Without memory a connection that does not read is closed after seconds, one that reads is not.
#[test]
fn without_memory_slow_connections_are_closed_sooner() {
    let mut fixture = FanoutFixture::new(1, &FanoutConfig::default());
    fixture.memory = ConnectionMemory::Full;
    let mut stopped = ClientConnection::open(&mut fixture, 0, &identity(Accounts::All));
    let mut reading = ClientConnection::open(&mut fixture, 0, &identity(Accounts::All));
    for connection in [&mut stopped, &mut reading] {
        connection.subscribe(&mut fixture, "posts:a", "latest");
        connection.fill(&mut fixture, 1 << 20);
    }
    let mut closed = Vec::new();
    for n in 0..12 {
        fixture.append_large("posts:a", LARGE_BYTES);
        fixture.settle();
        if n == 0 {
            stopped.fill(&mut fixture, 1);
            fixture.gateways[0].shard.set_unsent(stopped.conn, stopped.bytes.len());
        }
        while reading.fill(&mut fixture, 1) == Filled::More {}
        fixture.pass_time(1_000);
        closed.extend(stopped.closes(&mut fixture));
    }
    assert_eq!(closed.len(), 1, "{closed:?}");
    assert_eq!((closed[0].conn, closed[0].reason), (stopped.conn, CloseReason::Slow));
    assert_eq!(numbers(&reading.take_frames()), (0..12).collect::<Vec<_>>());
}

/// Without memory a connection is given one frame at a time. However little that is, one whose
/// socket accepts all of it is not slow.
#[test]
fn a_connection_that_accepts_all_it_is_given_is_not_slow() {
    let mut fixture = FanoutFixture::new(1, &FanoutConfig::default());
    fixture.memory = ConnectionMemory::Full;
    let mut reading = ClientConnection::open(&mut fixture, 0, &identity(Accounts::All));
    reading.subscribe(&mut fixture, "posts:a", "latest");
    reading.fill(&mut fixture, 1 << 20);
    for _ in 0..40 {
        for _ in 0..4 {
            fixture.append("posts:a", 1);
        }
        fixture.settle();
        for _ in 0..2 {
            assert_eq!(reading.fill(&mut fixture, 1), Filled::More);
        }
        fixture.gateways[0].shard.mark_alive(reading.conn);
        fixture.pass_time(1_000);
        let closes = reading.closes(&mut fixture);
        assert!(closes.is_empty(), "{closes:?}");
    }
}

/// Without memory a connection is given one frame at a time, old and new events in turn.
#[test]
fn without_memory_new_events_do_not_wait_for_all_old_ones() {
    let mut fixture = FanoutFixture::new(1, &FanoutConfig::default());
    for _ in 0..200 {
        fixture.append("posts:a", 1);
    }
    let mut connection = ClientConnection::open(&mut fixture, 0, &identity(Accounts::All));
    connection.subscribe(&mut fixture, "posts:b", "latest");
    connection.subscribe(&mut fixture, "posts:a", "earliest");
    for _ in 0..20 {
        fixture.settle();
        connection.fill(&mut fixture, 1);
    }
    assert!(!numbers(&connection.take_frames()).is_empty(), "old events are on their way");
    let new: Vec<usize> = (0..3).map(|_| fixture.append("posts:b", 1)).collect();
    fixture.settle();
    for _ in 0..8 {
        let before = connection.bytes.len();
        assert_eq!(connection.fill(&mut fixture, 1), Filled::More);
        assert!(connection.bytes.len() - before < 1_000, "more than one frame");
    }
    let (came, old): (Vec<usize>, Vec<usize>) =
        numbers(&connection.take_frames()).into_iter().partition(|n| new.contains(n));
    assert_eq!((came, old.len()), (new, 5));
}

/// A frame may be encoded just while its segment leaves the ring.
#[test]
fn the_rings_bytes_are_never_below_zero() {
    let mut fixture = FanoutFixture::new(1, &FanoutConfig::default());
    let mut connection = ClientConnection::open(&mut fixture, 0, &identity(Accounts::All));
    connection.subscribe(&mut fixture, "posts:a", "latest");
    connection.read_all(&mut fixture);
    for round in 0..4_000u32 {
        fixture.append("posts:a", 1);
        fixture.settle();
        let hub = Arc::clone(&fixture.gateways[0].hub);
        let filling = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !filling.load(Ordering::Acquire) {
                    std::hint::spin_loop();
                }
                (0..round % 400 * 20).for_each(|_| std::hint::spin_loop());
                assert!(hub.evict_oldest());
                let left = hub.ring_bytes();
                assert!(left < 1 << 20, "{left} bytes");
            });
            filling.store(true, Ordering::Release);
            connection.fill(&mut fixture, 1 << 20);
        });
        assert_eq!(hub.ring_bytes(), 0);
        connection.take_frames();
    }
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
