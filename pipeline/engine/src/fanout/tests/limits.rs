//! What is held, encoded and read, at most.

use proptest::prelude::*;

use super::super::channels::Ref;
use super::super::config::FanoutConfig;
use super::super::conn::{Conn, Sub};
use super::super::identity::Accounts;
use super::super::protocol::StartAt;
use super::super::shard::Filled;
use super::world::{Line, World, identity, numbers};

/// Bytes of a WebSocket connection with two subscriptions that this room may hold, the lists of
/// channels apart. The whole connection's target is 5 KiB.
const CONN_MAX_BYTES: usize = 512;

#[test]
fn a_connection_with_two_subscriptions_is_small_while_it_is_idle() {
    let mut world = World::new(1, &FanoutConfig::default());
    let mut line = Line::open(&mut world, 0, &identity(Accounts::All));
    for channel in ["posts:a", "posts:b"] {
        line.subscribe(&mut world, channel, "earliest");
        world.append(channel, 1);
    }
    assert_eq!(numbers(&line.hear_all(&mut world)).len(), 2);
    let conn = world.gateways[0].shard.conn(line.conn.slot).unwrap();
    let heap = conn.subs.capacity() * size_of::<Sub>()
        + conn.feeds.capacity() * size_of::<usize>()
        + conn.control.capacity()
        + conn.cuts.capacity();
    assert!(size_of::<Conn>() + heap <= CONN_MAX_BYTES, "{} + {heap}", size_of::<Conn>());
}

#[test]
fn each_event_is_encoded_at_most_once_per_wire_format() {
    let config = FanoutConfig { pending_max_refs: 8, ..FanoutConfig::default() };
    let mut world = World::new(1, &config);
    let mut lines: Vec<Line> = Vec::new();
    for _ in 0..20 {
        let mut line = Line::open(&mut world, 0, &identity(Accounts::All));
        line.subscribe(&mut world, "posts:a", "latest");
        lines.push(line);
        lines.push(Line::stream(&mut world, 0, &["posts:a".to_owned()], StartAt::Latest));
    }
    for _ in 0..50 {
        world.append("posts:a", 1);
        world.append("posts:nobody", 1);
        world.settle();
        // Half of them read as it comes, the others are left behind and read the ring.
        for line in lines.iter_mut().step_by(4) {
            line.fill(&mut world, 1 << 20);
        }
    }
    for line in &mut lines {
        assert_eq!(numbers(&line.hear_all(&mut world)).len(), 50);
    }
    assert_eq!(world.gateways[0].hub.encodes(), 100);
    assert_eq!(world.gateways[0].shard.stats().deliveries, 2_000);
}

#[test]
fn an_event_nobody_is_subscribed_to_is_never_encoded() {
    let mut world = World::new(1, &FanoutConfig::default());
    world.append("posts:a", 1);
    world.settle();
    assert_eq!(world.gateways[0].hub.encodes(), 0);
}

#[test]
fn the_rings_stay_within_their_budget_and_lists_within_their_bound() {
    let config =
        FanoutConfig { ring_max_bytes: 50_000, pending_max_refs: 64, ..FanoutConfig::default() };
    let mut world = World::new(1, &config);
    let mut stalled = Line::open(&mut world, 0, &identity(Accounts::All));
    let mut reading = Line::open(&mut world, 0, &identity(Accounts::All));
    for line in [&mut stalled, &mut reading] {
        line.subscribe(&mut world, "posts:a", "latest");
    }
    let mut seen = 0;
    for _ in 0..500 {
        world.append("posts:a", 1);
        world.append("posts:b", 0);
        world.settle();
        seen += numbers(&reading.hear(&mut world)).len();
        let gateway = &world.gateways[0];
        assert!(gateway.hub.ring_bytes() <= 50_000 + 2_000, "{}", gateway.hub.ring_bytes());
        let list = gateway.shard.channels.log(0);
        assert!(list.len() <= 64, "{} references", list.len());
    }
    assert_eq!(seen, 500);
    assert_eq!(numbers(&stalled.hear_all(&mut world)).len(), 500);
}

/// Resume at depth, small: everyone gets everything once, in a few passes, and what a sweep holds
/// does not grow with the number of readers.
#[test]
fn a_crowd_at_depth_shares_its_sweeps() {
    let config = FanoutConfig {
        ring_max_bytes: 100_000,
        warmup_records: 50,
        sweep_step_records: 512,
        ..FanoutConfig::default()
    };
    let mut world = World::new(1, &config);
    let mut wanted = 0;
    for n in 0..30_000 {
        let hot = n % 100 == 0;
        wanted += usize::from(hot);
        world.append(if hot { "posts:a" } else { "posts:b" }, 1);
    }
    world.gateways = vec![world.gateway(&config)];
    let before = world.log.taken();
    let mut lines: Vec<Line> = Vec::new();
    for _ in 0..200 {
        let mut line = Line::open(&mut world, 0, &identity(Accounts::All));
        line.subscribe(&mut world, "posts:a", "earliest");
        line.fill(&mut world, 1 << 20);
        lines.push(line);
    }
    let mut seen = vec![0; lines.len()];
    while seen.iter().any(|seen| *seen < wanted) {
        world.settle();
        assert!(world.gateways[0].sweeper.passes() <= 4);
        for (line, seen) in lines.iter_mut().zip(&mut seen) {
            *seen += numbers(&line.hear(&mut world)).len();
        }
    }
    assert!(seen.iter().all(|seen| *seen == wanted));
    let read = world.log.taken() - before;
    assert!(read <= 2 * 30_000, "{read} records read for 200 clients");
    assert_eq!(world.gateways[0].hub.encodes() as usize, wanted);
}

#[test]
fn a_reader_that_stalls_does_not_hold_up_the_sweep_of_the_others() {
    let config = FanoutConfig {
        ring_max_bytes: 20_000,
        warmup_records: 5,
        sweep_step_records: 16,
        ..FanoutConfig::default()
    };
    let mut world = World::new(1, &config);
    for _ in 0..1_000 {
        world.append("posts:a", 1);
    }
    world.gateways = vec![world.gateway(&config)];
    let mut stalled = Line::open(&mut world, 0, &identity(Accounts::All));
    let mut reading = Line::open(&mut world, 0, &identity(Accounts::All));
    for line in [&mut stalled, &mut reading] {
        line.subscribe(&mut world, "posts:a", "earliest");
        line.fill(&mut world, 1 << 20);
    }
    let mut seen = 0;
    for _ in 0..150 {
        world.settle();
        world.pass_time(100);
        world.gateways[0].shard.heard(stalled.conn);
        world.gateways[0].shard.heard(reading.conn);
        seen += numbers(&reading.hear(&mut world)).len();
    }
    assert_eq!(seen, 1_000);
    assert_eq!(world.gateways[0].sweeper.passes(), 0);
    assert_eq!(
        numbers(&stalled.heard()).len() + numbers(&stalled.hear_all(&mut world)).len(),
        1_000
    );
}

#[test]
fn a_fill_keeps_to_its_budget_within_one_frame() {
    let mut world = World::new(1, &FanoutConfig::default());
    let mut line = Line::open(&mut world, 0, &identity(Accounts::All));
    line.subscribe(&mut world, "posts:a", "latest");
    line.hear_all(&mut world);
    for _ in 0..100 {
        world.append("posts:a", 1);
    }
    world.settle();
    let mut fills = 0;
    while line.fill(&mut world, 1_000) == Filled::More {
        assert!(line.bytes.len() < 1_000 + 500, "{}", line.bytes.len());
        line.heard();
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
        let (x, y) = (Ref::new(a.0, a.1), Ref::new(b.0, b.1));
        prop_assert_eq!((x.seq(), x.index()), a);
        prop_assert_eq!(x.cmp(&y), a.cmp(&b));
    }
}
