//! Tests of how subscriptions that are behind are served: starts, look-ups, memory, and the end of
//! the log.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidewire_schemas::position::{PartitionPosition, Position};

use super::super::catchup::lookup_worker::LookupWorker;
use super::super::catchup::sweeper::Sweeper;
use super::super::config::FanoutConfig;
use super::super::hub::Hub;
use super::super::identity::Accounts;
use super::super::lookup_mailbox::Lookup;
use super::super::protocol::native::StartAt;
use super::super::reader::HubReader;
use super::super::shard::Framing;
use super::client::ServerFrame;
use super::fixture::{ClientConnection, FanoutFixture, identity, numbers, objects};
use super::log::MemoryLog;
use crate::record::{MonotonicMillis, Partition};
use crate::topology::Topology;

/// A gateway whose ring holds the last of many events.
fn deep(events: usize, config: &FanoutConfig) -> FanoutFixture {
    let mut fixture = FanoutFixture::new(1, config);
    for _ in 0..events {
        fixture.append("posts:a", 1);
    }
    fixture.gateways = vec![fixture.gateway(config)];
    fixture
}

fn connection(fixture: &mut FanoutFixture) -> ClientConnection {
    ClientConnection::open(fixture, 0, &identity(Accounts::All))
}

/// A position of this log, `by` records behind its end.
fn beyond_end(fixture: &FanoutFixture, by: u64) -> String {
    let last = fixture.appended.last().unwrap();
    let mut next = [0; 3];
    next[last.topic] = last.offset + 1 + by;
    let partitions = vec![PartitionPosition { partition: last.partition.0, next }];
    Position { epoch: fixture.gateways[0].hub.epoch(), partitions }.encode()
}

#[test]
fn a_subscription_that_ends_leaves_nothing_in_a_running_sweep() {
    let config = FanoutConfig {
        warmup_records: 5,
        sweep_step_records: 16,
        sweep_wait_max_ms: i32::MAX as u32,
        slow_window_ms: i32::MAX as u32,
        ..FanoutConfig::default()
    };
    let mut fixture = deep(1_000, &config);
    // It reads nothing, so its sweep goes on for as long as it is waited for.
    let mut stalled = connection(&mut fixture);
    stalled.subscribe(&mut fixture, "posts:a", "earliest");
    stalled.fill(&mut fixture, 1 << 20);
    for _ in 0..20 {
        fixture.settle();
    }
    let mut restless = connection(&mut fixture);
    let before = fixture.gateways[0].sweeper.kept_keys();
    for _ in 0..10_000 {
        restless.subscribe(&mut fixture, "posts:a", "earliest");
        restless.read(&mut fixture);
        fixture.sweep(0);
        fixture.gateways[0].shard.pull();
        restless.send(&mut fixture, &json!({"op": "unsubscribe", "channel": "posts:a"}));
        restless.read(&mut fixture);
        fixture.pass_time(40);
        for connection in [&stalled, &restless] {
            fixture.gateways[0].shard.mark_alive(connection.conn);
        }
    }
    fixture.sweep(0);
    assert_eq!(fixture.gateways[0].sweeper.kept_keys(), before);
    assert!(restless.closes(&mut fixture).is_empty());
}

/// It writes a share of the sweep just before it would be left behind, again and again.
#[test]
fn a_client_that_reads_at_a_chosen_rate_delays_others_once_and_not_at_each_step() {
    let config = FanoutConfig {
        warmup_records: 5,
        sweep_step_records: 16,
        sweep_wait_max_ms: 1_000,
        slow_window_ms: i32::MAX as u32,
        ..FanoutConfig::default()
    };
    let mut fixture = deep(1_000, &config);
    let mut slow = connection(&mut fixture);
    slow.subscribe(&mut fixture, "posts:a", "earliest");
    let mut ordinary = connection(&mut fixture);
    ordinary.subscribe(&mut fixture, "posts:a", "earliest");
    let (mut received, mut rounds) = (0, 0);
    while received < 1_000 {
        assert!(rounds < 8, "{received} events in {rounds} rounds");
        rounds += 1;
        fixture.pass_time(900);
        slow.fill(&mut fixture, 2_500);
        for _ in 0..100 {
            fixture.settle();
            received += numbers(&ordinary.read(&mut fixture)).len();
        }
        for connection in [&slow, &ordinary] {
            fixture.gateways[0].shard.mark_alive(connection.conn);
        }
    }
}

/// Times that the only feed of a connection has asked the sweeper.
fn attempts(fixture: &FanoutFixture, connection: &ClientConnection) -> Option<u32> {
    let conn = fixture.gateways[0].shard.conn(connection.conn.slot).unwrap();
    conn.feeds.first().map(|feed| feed.attempt)
}

#[test]
fn a_steady_reader_that_is_slower_than_the_sweep_gets_everything_and_stays_open() {
    let config = FanoutConfig {
        warmup_records: 5,
        sweep_step_records: 16,
        sweep_wait_max_ms: 100,
        slow_window_ms: i32::MAX as u32,
        ..FanoutConfig::default()
    };
    let mut fixture = deep(8_000, &config);
    let mut steady = connection(&mut fixture);
    steady.subscribe(&mut fixture, "posts:a", "earliest");
    let (mut received, mut asked) = (Vec::new(), 0);
    for _ in 0..3_000 {
        fixture.settle();
        fixture.settle();
        steady.fill(&mut fixture, 5_000);
        received.extend(numbers(&steady.take_frames()));
        assert!(steady.closes(&mut fixture).is_empty(), "closed after {asked} sweeps");
        asked = asked.max(attempts(&fixture, &steady).unwrap_or_default());
        fixture.pass_time(50);
        fixture.gateways[0].shard.mark_alive(steady.conn);
    }
    assert!(received.iter().copied().eq(0..8_000), "{} events", received.len());
    assert!(asked > 65, "it was left behind by {asked} sweeps only");
}

#[test]
fn a_client_that_reads_nothing_spends_only_its_own_time_of_a_sweep() {
    let config = FanoutConfig {
        warmup_records: 5,
        sweep_step_records: 16,
        sweep_wait_max_ms: 1_000,
        slow_window_ms: i32::MAX as u32,
        ..FanoutConfig::default()
    };
    let mut fixture = deep(1_000, &config);
    let mut stalled = connection(&mut fixture);
    stalled.subscribe(&mut fixture, "posts:a", "earliest");
    stalled.fill(&mut fixture, 1 << 20);
    let mut ordinary = connection(&mut fixture);
    ordinary.subscribe(&mut fixture, "posts:a", "earliest");
    ordinary.fill(&mut fixture, 1 << 20);
    let mut received = 0;
    for _ in 0..3 {
        (0..4).for_each(|_| fixture.settle());
        received += numbers(&ordinary.read(&mut fixture)).len();
        fixture.settle();
        fixture.pass_time(400);
    }
    let waited = received;
    assert!(waited < 100, "the sweep waited for the other client: {waited}");
    (0..4).for_each(|_| fixture.settle());
    fixture.pass_time(900);
    (0..4).for_each(|_| fixture.settle());
    for _ in 0..100 {
        received += numbers(&ordinary.read(&mut fixture)).len();
        assert!(attempts(&fixture, &ordinary).is_none_or(|asked| asked == 1), "left behind");
        fixture.settle();
    }
    assert_eq!(received, 1_000);
}

#[test]
fn many_clients_that_start_at_a_time_need_few_lookups_and_sweeps_go_on() {
    let config =
        FanoutConfig { warmup_records: 5, sweep_step_records: 16, ..FanoutConfig::default() };
    let mut fixture = deep(100, &config);
    let mut reading = connection(&mut fixture);
    reading.subscribe(&mut fixture, "posts:a", "earliest");
    reading.fill(&mut fixture, 1 << 20);
    fixture.sweep(0);
    fixture.sweep(0);
    let before = fixture.log.lookups();
    // No answer comes, and the sweep of the first client goes on.
    fixture.log.set_away(true);
    let mut connections: Vec<ClientConnection> = Vec::new();
    for n in 0..1_000 {
        let mut connection = connection(&mut fixture);
        let from = format!("1970-01-01T00:00:00.{n:03}Z");
        connection.subscribe(&mut fixture, "posts:a", &from);
        connection.fill(&mut fixture, 1 << 20);
        connections.push(connection);
    }
    let mut seen = 0;
    for _ in 0..100 {
        fixture.settle();
        fixture.gateways[0].shard.pull();
        seen += numbers(&reading.read(&mut fixture)).len();
    }
    assert_eq!(seen, 100, "the sweep waited for look-ups");
    fixture.log.set_away(false);
    fixture.pass_time(1_000);
    let mut seen = vec![0; connections.len()];
    for _ in 0..10 {
        fixture.settle();
        for (connection, seen) in connections.iter_mut().zip(&mut seen) {
            *seen += numbers(&connection.read(&mut fixture)).len();
        }
    }
    assert!(seen.iter().all(|seen| *seen == 100), "{seen:?}");
    let lookups = fixture.log.lookups() - before;
    assert!(lookups <= 8, "{lookups} look-ups for 1,000 clients");
}

/// Channels of partitions 0 and 1.
fn channel_of_each_partition(fixture: &FanoutFixture) -> [String; 2] {
    [0, 1].map(|partition| {
        let mut names = (0..).map(|n| format!("posts:{n}"));
        let is_there =
            |name: &String| fixture.topology.partition_of(name.as_bytes()) == Partition(partition);
        names.find(is_there).expect("some channel is there")
    })
}

/// Events in both partitions, behind the rings.
fn deep_in_both_partitions(config: &FanoutConfig) -> (FanoutFixture, [String; 2]) {
    let mut fixture = FanoutFixture::new(1, config);
    let channels = channel_of_each_partition(&fixture);
    for channel in &channels {
        for _ in 0..50 {
            fixture.append(channel, 1);
        }
    }
    fixture.gateways = vec![fixture.gateway(config)];
    (fixture, channels)
}

/// A turn of look-ups and sweeps each second, while these connections stay alive.
fn sweep_for(fixture: &mut FanoutFixture, seconds: u32, connections: &[ClientConnection]) {
    for _ in 0..seconds {
        fixture.pass_time(1_000);
        fixture.sweep(0);
        for connection in connections {
            fixture.gateways[0].shard.mark_alive(connection.conn);
        }
    }
}

#[test]
fn lookups_in_a_partition_without_a_leader_delay_no_other_partition() {
    let config = FanoutConfig {
        warmup_records: 5,
        slow_window_ms: i32::MAX as u32,
        ..FanoutConfig::default()
    };
    let (mut fixture, [with, without]) = deep_in_both_partitions(&config);
    fixture.log.set_leader(Partition(1), false);
    // More than the mailbox holds.
    let mut waiting: Vec<ClientConnection> = Vec::new();
    for n in 0..600 {
        let mut connection = connection(&mut fixture);
        let from = format!("1970-01-01T00:{:02}:{:02}Z", n / 60, n % 60);
        connection.subscribe(&mut fixture, &without, &from);
        connection.fill(&mut fixture, 1 << 20);
        waiting.push(connection);
    }
    for _ in 0..1_000 {
        fixture.sweep(0);
    }
    assert_eq!(fixture.log.unanswered(), 1, "attempts while no time passes");
    let mut reading = connection(&mut fixture);
    reading.subscribe(&mut fixture, &with, "earliest");
    assert_eq!(numbers(&reading.read_all(&mut fixture)).len(), 50);
    assert_eq!(fixture.gateways[0].hub.unanswered(), [""; 0], "one failure is no problem");

    sweep_for(&mut fixture, 60, &waiting);
    let attempts = fixture.log.unanswered();
    assert!((5..=12).contains(&attempts), "{attempts} attempts in a minute");
    let [problem] = &fixture.gateways[0].hub.unanswered()[..] else { panic!("one is listed") };
    assert!(problem.contains("t.out.urgent/1") && problem.contains("no leader"), "{problem}");

    fixture.log.set_leader(Partition(1), true);
    sweep_for(&mut fixture, 12, &waiting);
    for _ in 0..100 {
        fixture.settle();
    }
    assert_eq!(fixture.gateways[0].hub.unanswered(), [""; 0]);
    assert_eq!(numbers(&waiting[0].read_all(&mut fixture)).len(), 50);
    assert!(fixture.gateways[0].sweeper.kept_keys() < 600);
}

/// Each failed call takes ten seconds, as one to Kafka may.
#[test]
fn many_partitions_without_a_leader_take_half_of_the_time_of_lookups_at_most() {
    const FAILED_CALL_MS: i64 = 10_000;
    const TURN_MS: i64 = 50;
    let topology = Topology::new("t.", 21);
    let log = Arc::new(MemoryLog::new(&topology, 7));
    let hub = Hub::open(&*log, &topology, FanoutConfig::default()).unwrap();
    let mut worker = LookupWorker::open(Arc::<MemoryLog>::clone(&log), &hub).unwrap();
    for partition in (1..21).map(Partition) {
        log.set_leader(partition, false);
        assert!(hub.lookups.ask(Lookup { partition, time: None }));
    }
    let mut now = MonotonicMillis(0);
    let (mut failed_ms, mut answered) = (0, 0);
    let mut turn = || {
        while hub.lookups.ask(Lookup { partition: Partition(0), time: None }) {}
        let before = log.unanswered();
        worker.turn(now, Duration::ZERO).unwrap();
        let failed = log.unanswered() > before;
        failed_ms += if failed { FAILED_CALL_MS } else { 0 };
        now = now.plus(if failed { FAILED_CALL_MS } else { TURN_MS });
        answered += hub.lookups.take_answers().len();
        (now, failed_ms, answered)
    };
    // Until each of them is known to fail.
    while turn().1 < 20 * FAILED_CALL_MS {}
    let (from, failed_before, answered_before) = turn();
    loop {
        let (now, failed_ms, answered) = turn();
        let (passed, failed_ms) = (now.since(from), failed_ms - failed_before);
        assert!(failed_ms <= passed / 2 + FAILED_CALL_MS, "{failed_ms} of {passed} ms");
        if passed > 600_000 {
            assert!(failed_ms > passed / 3, "they are still tried: {failed_ms} of {passed} ms");
            let answered = answered - answered_before;
            assert!(answered > 50_000, "{answered} answers in ten minutes");
            return;
        }
    }
}

#[test]
fn a_partition_that_nobody_waits_for_any_more_is_no_problem() {
    let config = FanoutConfig { warmup_records: 5, ..FanoutConfig::default() };
    let (mut fixture, [_, without]) = deep_in_both_partitions(&config);
    fixture.log.set_leader(Partition(1), false);
    let mut waiting = connection(&mut fixture);
    waiting.subscribe(&mut fixture, &without, "earliest");
    waiting.fill(&mut fixture, 1 << 20);
    sweep_for(&mut fixture, 10, &[waiting]);
    assert_eq!(fixture.gateways[0].hub.unanswered().len(), 1);
    // A new sweeper has no feeds yet.
    fixture.gateways[0].sweeper = Sweeper::open(&*fixture.log, &fixture.gateways[0].hub).unwrap();
    fixture.gateways[0].lookups.turn(fixture.monotonic, Duration::ZERO).unwrap();
    assert_eq!(fixture.gateways[0].hub.unanswered(), [""; 0]);
}

#[test]
fn a_sweep_over_a_partition_without_a_leader_delays_no_other_sweep() {
    let config =
        FanoutConfig { warmup_records: 5, sweep_step_records: 16, ..FanoutConfig::default() };
    let (mut fixture, [with, without]) = deep_in_both_partitions(&config);
    let mut waiting = connection(&mut fixture);
    waiting.subscribe(&mut fixture, &without, "earliest");
    waiting.fill(&mut fixture, 1 << 20);
    // The look-up is answered, then the leader goes.
    fixture.sweep(0);
    fixture.gateways[0].lookups.turn(fixture.monotonic, Duration::ZERO).unwrap();
    fixture.log.set_leader(Partition(1), false);
    fixture.sweep(0);
    assert_eq!(fixture.gateways[0].sweeper.scans(), 1, "its sweep is the first");
    let mut reading = connection(&mut fixture);
    reading.subscribe(&mut fixture, &with, "earliest");
    assert_eq!(numbers(&reading.read_all(&mut fixture)).len(), 50);
    let connections = [waiting];
    sweep_for(&mut fixture, 10, &connections);
    let [problem] = &fixture.gateways[0].hub.unanswered()[..] else { panic!("one is listed") };
    assert!(problem.contains("/1") && problem.contains("no leader"), "{problem}");
    fixture.log.set_leader(Partition(1), true);
    sweep_for(&mut fixture, 12, &connections);
    let [mut waiting] = connections;
    assert_eq!(numbers(&waiting.read_all(&mut fixture)).len(), 50);
    assert_eq!(fixture.gateways[0].hub.unanswered(), [""; 0]);
}

/// Both requests reach the sweeper in one turn, and the answer for the first is known already.
#[test]
fn a_subscription_that_ends_before_the_sweeper_sees_it_is_not_served() {
    let config = FanoutConfig { warmup_records: 5, ..FanoutConfig::default() };
    let mut fixture = deep(100, &config);
    let mut connection = connection(&mut fixture);
    for _ in 0..3 {
        connection.subscribe(&mut fixture, "posts:a", "earliest");
        connection.fill(&mut fixture, 1 << 20);
        connection.send(&mut fixture, &json!({"op": "unsubscribe", "channel": "posts:a"}));
        fixture.settle();
        assert_eq!(fixture.gateways[0].sweeper.kept_keys(), 0);
        connection.subscribe(&mut fixture, "posts:a", "earliest");
        assert_eq!(numbers(&connection.read_all(&mut fixture)).len(), 100);
        connection.send(&mut fixture, &json!({"op": "unsubscribe", "channel": "posts:a"}));
    }
}

#[test]
fn more_starts_than_the_mailbox_holds_are_all_answered() {
    let config = FanoutConfig { warmup_records: 1, ..FanoutConfig::default() };
    let mut fixture = deep(50, &config);
    let mut connections: Vec<ClientConnection> = Vec::new();
    for n in 0..600 {
        let mut connection = connection(&mut fixture);
        let from = format!("1970-01-01T00:{:02}:{:02}Z", n / 60, n % 60);
        connection.subscribe(&mut fixture, "posts:a", &from);
        connection.fill(&mut fixture, 1 << 20);
        connections.push(connection);
    }
    for _ in 0..100 {
        fixture.settle();
    }
    for connection in &mut connections {
        assert_eq!(objects(&connection.read(&mut fixture), "ok").len(), 1);
    }
    assert_eq!(fixture.gateways[0].sweeper.kept_keys(), 0);
}

#[test]
fn a_reader_that_is_created_again_continues_where_the_one_before_was() {
    let config = FanoutConfig { warmup_records: 3, ..FanoutConfig::default() };
    let mut fixture = FanoutFixture::new(1, &config);
    let mut follower = connection(&mut fixture);
    follower.subscribe(&mut fixture, "posts:a", "latest");
    for _ in 0..10 {
        fixture.append("posts:a", 1);
        fixture.append("posts:a", 0);
    }
    fixture.settle();
    // It failed; meanwhile more was appended than a new reader reads back.
    for _ in 0..10 {
        fixture.append("posts:a", 1);
    }
    let log = fixture.log.clone();
    let hub = fixture.gateways[0].hub.clone();
    fixture.gateways[0].reader = HubReader::open(&*log, &hub).unwrap();
    fixture.gateways[0].shard.pull();
    let mut late = connection(&mut fixture);
    late.subscribe(&mut fixture, "posts:a", "latest");
    let lookups = fixture.log.lookups();
    assert_eq!(numbers(&follower.read_all(&mut fixture)).len(), 30, "each once");
    let seen = numbers(&late.read_all(&mut fixture));
    assert!(seen.iter().all(|number| *number >= 20), "older than the subscribe: {seen:?}");
    assert_eq!(fixture.gateways[0].shard.stats().behind, 0);
    assert_eq!(fixture.log.lookups(), lookups, "nobody had to read the log");
}

#[test]
fn a_position_beyond_the_end_is_waited_for() {
    let mut fixture = FanoutFixture::new(1, &FanoutConfig::default());
    fixture.append("posts:a", 1);
    fixture.settle();
    let token = beyond_end(&fixture, 1);
    let mut connection = connection(&mut fixture);
    connection.subscribe(&mut fixture, "posts:a", &token);
    assert_eq!(objects(&connection.read_all(&mut fixture), "ok").len(), 0);
    fixture.append("posts:a", 1);
    fixture.append("posts:a", 1);
    fixture.pass_time(200);
    let frames = connection.read_all(&mut fixture);
    assert_eq!(numbers(&frames), [2], "events before the token are not repeated");
    assert_eq!(objects(&frames, "gap").len(), 0);
}

#[test]
fn a_position_that_stays_beyond_the_end_gets_a_gap_and_then_every_event() {
    let check = |framing: Framing| {
        let mut fixture = FanoutFixture::new(1, &FanoutConfig::default());
        fixture.append("posts:a", 1);
        fixture.settle();
        let token = beyond_end(&fixture, 100);
        let mut connection = match framing {
            Framing::WebSocket => {
                let mut connection = connection(&mut fixture);
                connection.subscribe(&mut fixture, "posts:a", &token);
                connection
            }
            Framing::Sse => {
                let start = StartAt::Token(token.as_str().into());
                ClientConnection::stream(&mut fixture, 0, &["posts:a".to_owned()], start)
            }
        };
        assert_eq!(objects(&connection.read_all(&mut fixture), "gap").len(), 0, "too early");
        let mut frames = Vec::new();
        for _ in 0..25 {
            fixture.pass_time(100);
            frames.extend(connection.read_all(&mut fixture));
        }
        let [gap] = objects(&frames, "gap")[..] else { panic!("{frames:?}") };
        assert_eq!(gap["reason"], "epoch");
        assert_eq!(gap["from"], *token);
        let to = Position::decode(gap["to"].as_str().unwrap()).unwrap();
        assert_eq!(to.partitions[0].next[1], 1);
        assert_eq!(objects(&frames, "error").len(), 0);
        if framing == Framing::Sse {
            let ids = frames.iter().map(|frame| match frame {
                ServerFrame::Object { op, id, .. } => (op.as_str(), id.is_some()),
                ServerFrame::Id(id) => ("id", *id == token),
                ServerFrame::Ping => ("ping", false),
            });
            assert_eq!(ids.collect::<Vec<_>>(), [("id", true), ("gap", true)]);
        }
        // The log grows past the position: nothing is skipped.
        for _ in 0..300 {
            fixture.append("posts:a", 1);
        }
        let seen = numbers(&connection.read_all(&mut fixture));
        assert_eq!(seen, (1..=300).collect::<Vec<_>>());
    };
    check(Framing::WebSocket);
    check(Framing::Sse);
}

#[test]
fn a_log_that_loses_its_end_gives_followers_a_gap_and_then_every_event() {
    let mut fixture = FanoutFixture::new(1, &FanoutConfig::default());
    let mut socket = connection(&mut fixture);
    socket.subscribe(&mut fixture, "posts:a", "latest");
    let mut stream =
        ClientConnection::stream(&mut fixture, 0, &["posts:a".to_owned()], StartAt::Latest);
    for _ in 0..10 {
        fixture.append("posts:a", 1);
    }
    for connection in [&mut socket, &mut stream] {
        assert_eq!(numbers(&connection.read_all(&mut fixture)).len(), 10);
    }
    let at = fixture.topic_partition(1, fixture.appended[0].partition);
    fixture.log.truncate(&at, 4);
    for _ in 0..3 {
        fixture.settle();
    }
    for _ in 0..20 {
        fixture.append("posts:a", 1);
    }
    for connection in [&mut socket, &mut stream] {
        let frames = connection.read_all(&mut fixture);
        let [gap] = objects(&frames, "gap")[..] else { panic!("{frames:?}") };
        assert_eq!(gap["reason"], "epoch");
        assert_eq!(numbers(&frames), (10..30).collect::<Vec<_>>());
    }
}

#[test]
fn the_sweeper_and_the_reader_never_ask_the_log_a_blocking_question() {
    let config = FanoutConfig { warmup_records: 5, ..FanoutConfig::default() };
    let mut fixture = deep(100, &config);
    let mut connection = connection(&mut fixture);
    connection.subscribe(&mut fixture, "posts:a", "earliest");
    connection.fill(&mut fixture, 1 << 20);
    let before = fixture.log.lookups();
    for _ in 0..5 {
        let gateway = &mut fixture.gateways[0];
        gateway.reader.turn(Duration::ZERO).unwrap();
        gateway.sweeper.turn(fixture.monotonic, Duration::ZERO).unwrap();
    }
    assert_eq!(fixture.log.lookups(), before);
    assert_eq!(numbers(&connection.read_all(&mut fixture)).len(), 100);
}
