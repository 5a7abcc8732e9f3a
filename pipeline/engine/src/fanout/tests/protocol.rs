//! Tests of the frames that a client receives: answers, events, gaps, keepalives and closes.
//!
//! They assert codes in full, because those are the contract, and of texts only an important hint.

use serde_json::{Value, json};
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::position::{PartitionPosition, Position};

use super::super::config::{BAD_FRAMES_MAX, FanoutConfig, SUBSCRIPTIONS_MAX};
use super::super::identity::{Accounts, Identity, Roles};
use super::super::protocol::native::{CloseReason, StartAt};
use super::super::shard::{BadFrame, Filled, Shard};
use super::client::ServerFrame;
use super::fixture::{ClientConnection, FanoutFixture, identity, numbers, objects};

fn fixture() -> FanoutFixture {
    FanoutFixture::new(1, &FanoutConfig::default())
}

fn connection(fixture: &mut FanoutFixture) -> ClientConnection {
    ClientConnection::open(fixture, 0, &identity(Accounts::All))
}

/// Asserts the one frame that a new connection gets for a request, after `welcome`.
#[track_caller]
fn check(request: &str, expected: Value) {
    let mut fixture = fixture();
    let mut connection = connection(&mut fixture);
    connection.read(&mut fixture);
    fixture.gateways[0].shard.input(connection.conn, request);
    let frames = connection.read_all(&mut fixture);
    let [ServerFrame::Object { json, .. }] = &frames[..] else { panic!("{frames:?}") };
    for (name, value) in expected.as_object().unwrap() {
        let actual = &json[name];
        match (actual.as_str(), value.as_str().and_then(|v| v.strip_prefix("..."))) {
            (Some(actual), Some(part)) => assert!(actual.contains(part), "{name}: {actual}"),
            _ => assert_eq!(actual, value, "{name} of {json}"),
        }
    }
}

#[test]
fn every_request_is_answered_with_its_result_or_an_error() {
    check(r#"{"op":"ping","id":5}"#, json!({"op": "pong", "id": 5}));
    check(r#"{"op":"ping","id":"a"}"#, json!({"op": "pong", "id": "a"}));
    check("{", json!({"op": "error", "code": "invalid_json"}));
    check("[]", json!({"code": "invalid_message", "message": "...`op`"}));
    check(r#"{"op":"shout","id":1}"#, json!({"code": "invalid_message", "id": 1}));
    check(r#"{"op":"subscribe","id":1}"#, json!({"code": "invalid_message", "id": 1}));
    let subscribe = |channel, from| {
        json!({"op": "subscribe", "id": 1, "channel": channel, "from": from}).to_string()
    };
    check(&subscribe("posts:a", "latest"), json!({"op": "ok", "id": 1, "channel": "posts:a"}));
    check(&subscribe("posts:a", "earliest"), json!({"op": "ok", "id": 1, "channel": "posts:a"}));
    check(&subscribe("posts:a", "2026-01-05T10:00:00Z"), json!({"op": "ok", "id": 1}));
    let wrong = json!({"code": "invalid_position", "message": "...at `yesterday`: send latest"});
    check(&subscribe("posts:a", "yesterday"), wrong);
    check(&subscribe("nothing:a", "latest"), json!({"code": "invalid_channel"}));
    let filtered = r#"{"op":"subscribe","channel":"posts:a","filter":"data.n == 1"}"#;
    check(filtered, json!({"code": "invalid_filter", "message": "filters are not served yet"}));
    check(r#"{"op":"send","channel":"posts:a","id":3}"#, json!({"code": "not_found", "id": 3}));
    check(r#"{"op":"history","id":6}"#, json!({"code": "not_found", "message": "...from"}));
    check(
        r#"{"op":"unsubscribe","channel":"posts:a","id":2}"#,
        json!({"code": "not_found", "id": 2}),
    );
    check(
        &subscribe("feed:p1", "latest"),
        json!({"code": "not_found", "message": "...derived channels are not served yet"}),
    );
}

#[test]
fn a_connection_is_welcomed_with_its_name_and_limits() {
    let mut fixture = fixture();
    let frames = connection(&mut fixture).read(&mut fixture);
    let [welcome] = objects(&frames, "welcome")[..] else { panic!("{frames:?}") };
    assert_eq!(welcome["user"], "u1");
    assert_eq!(welcome["heartbeat_ms"], 30_000);
    assert_eq!(welcome["limits"]["subscriptions"], SUBSCRIPTIONS_MAX);
}

#[test]
fn an_event_frame_carries_the_event_and_its_position() {
    let mut fixture = fixture();
    let mut connection = connection(&mut fixture);
    connection.subscribe(&mut fixture, "posts:a", "latest");
    fixture.append("posts:a", 0);
    let frames = connection.read_all(&mut fixture);
    let [event] = objects(&frames, "event")[..] else { panic!("{frames:?}") };
    assert_eq!(event["channel"], "posts:a");
    assert_eq!(event["type"], "post.created");
    assert_eq!(event["account_id"], "a1");
    assert_eq!(event["timestamp"], "1970-01-01T00:00:01.000Z");
    assert_eq!(event["priority"], 1);
    assert_eq!(event["data"]["n"], 0);
    let partition = fixture.appended[0].partition;
    let position = Position::decode(event["position"].as_str().unwrap()).unwrap();
    assert_eq!(
        position.partitions,
        [PartitionPosition { partition: partition.0, next: [1, 0, 0] }]
    );
}

#[test]
fn a_stream_begins_with_its_position_and_every_event_has_an_id() {
    let mut fixture = fixture();
    let channels = ["posts:a".to_owned(), "posts:b".to_owned()];
    let mut connection = ClientConnection::stream(&mut fixture, 0, &channels, StartAt::Latest);
    assert!(matches!(&connection.read(&mut fixture)[..], [ServerFrame::Id(_)]));
    fixture.append("posts:a", 1);
    fixture.append("posts:b", 1);
    let frames = connection.read_all(&mut fixture);
    assert_eq!(numbers(&frames).len(), 2);
    for frame in &frames {
        let ServerFrame::Object { op, id, json } = frame else { panic!("{frame:?}") };
        assert_eq!((op.as_str(), json["op"].as_str()), ("post.created", None));
        assert!(id.is_some(), "an event without an id");
    }
}

#[test]
fn a_record_of_another_account_is_never_delivered() {
    let check = |accounts: Accounts, expected: &[usize]| {
        let mut fixture = fixture();
        for account in ["a1", "a2", "a3"] {
            fixture.append_for(account, "posts:a", 1);
        }
        let mut connection = ClientConnection::open(&mut fixture, 0, &identity(accounts.clone()));
        connection.subscribe(&mut fixture, "posts:a", "earliest");
        let mut seen = numbers(&connection.read_all(&mut fixture));
        for account in ["a1", "a2", "a3"] {
            fixture.append_for(account, "posts:a", 1);
        }
        seen.extend(numbers(&connection.read_all(&mut fixture)));
        assert_eq!(seen, expected, "{accounts:?}");
    };
    check(Accounts::All, &[0, 1, 2, 3, 4, 5]);
    check(Accounts::Only(vec!["a2".into()]), &[1, 4]);
    check(Accounts::Only(vec!["a1".into(), "a3".into()]), &[0, 2, 3, 5]);
    check(Accounts::Only(vec![]), &[]);
}

#[test]
fn a_client_without_the_role_or_the_name_is_forbidden() {
    let check = |channel: &str, roles: Roles, expected: Option<&str>| {
        let accounts = Accounts::Only(vec!["a1".into()]);
        let identity = Identity { user: "u1".into(), accounts, roles };
        let actual = Shard::check(Catalogue::builtin(), &identity, channel, &StartAt::Latest);
        assert_eq!(actual.err().map(|refusal| refusal.code.as_str()), expected, "{channel}");
    };
    check("dm:u1", Roles::CLIENT, None);
    check("dm:u2", Roles::CLIENT, Some("forbidden"));
    check("dm:u2", Roles::ADMIN, None);
    check("account:a1", Roles::CLIENT, Some("forbidden"));
    check("account:a1", Roles::MEMBER, None);
    check("posts:x", Roles::CLIENT, None);
}

/// A position that covers one partition, and a channel of each partition.
fn one_covered(fixture: &FanoutFixture) -> (String, [String; 2]) {
    let hub = &fixture.gateways[0].hub;
    let of = |partition: u32| {
        let mut names = (0..).map(|n| format!("posts:{n}"));
        names.find(|name| hub.partition_of(name).0 == partition).unwrap()
    };
    let partitions = vec![PartitionPosition { partition: 0, next: [0, 1, 0] }];
    (Position { epoch: hub.epoch(), partitions }.encode(), [of(0), of(1)])
}

#[test]
fn a_position_used_for_a_channel_it_does_not_cover_gets_a_gap_on_both_transports() {
    let mut fixture = fixture();
    let (token, channels) = one_covered(&fixture);
    for channel in &channels {
        fixture.append(channel, 1);
        fixture.append(channel, 1);
    }
    fixture.settle();
    let mut socket = connection(&mut fixture);
    for channel in &channels {
        socket.subscribe(&mut fixture, channel, &token);
    }
    let start = StartAt::Token(token.as_str().into());
    let mut stream = ClientConnection::stream(&mut fixture, 0, &channels, start);
    for connection in [&mut socket, &mut stream] {
        let mut frames = connection.read_all(&mut fixture);
        let [gap] = objects(&frames, "gap")[..] else { panic!("{frames:?}") };
        assert_eq!((&gap["reason"], &gap["channel"]), (&json!("uncovered"), &json!(channels[1])));
        assert_eq!(gap["from"], *token);
        assert_eq!(numbers(&frames), [1], "what follows the position where it is covered");
        let first = frames.remove(0);
        let own = matches!(&first, ServerFrame::Id(id) if *id == token);
        assert!(own || first != ServerFrame::Ping, "{first:?}");
    }
    let frames = stream_start(&mut fixture, &token, &channels);
    assert_eq!(frames[0], ServerFrame::Id(token), "a client cut off here gets the gap again");
    fixture.append(&channels[1], 1);
    assert_eq!(numbers(&socket.read_all(&mut fixture)), [4]);
    assert_eq!(numbers(&stream.read_all(&mut fixture)), [4]);
}

fn stream_start(fixture: &mut FanoutFixture, token: &str, channels: &[String]) -> Vec<ServerFrame> {
    let start = StartAt::Token(token.into());
    ClientConnection::stream(fixture, 0, channels, start).read_all(fixture)
}

#[test]
fn a_repeated_subscribe_is_an_error_and_no_invalid_frame() {
    let mut fixture = fixture();
    let mut connection = connection(&mut fixture);
    connection.subscribe(&mut fixture, "posts:a", "latest");
    for _ in 0..2 * usize::from(BAD_FRAMES_MAX) {
        connection.subscribe(&mut fixture, "posts:a", "latest");
        fixture.pass_time(20);
    }
    let frames = connection.read_all(&mut fixture);
    let errors = objects(&frames, "error");
    assert_eq!(errors.len(), 2 * usize::from(BAD_FRAMES_MAX));
    assert!(errors.iter().all(|error| error["code"] == "already_subscribed"), "{errors:?}");
    assert!(connection.closes(&mut fixture).is_empty());
    fixture.append("posts:a", 1);
    assert_eq!(numbers(&connection.read_all(&mut fixture)), [0], "the subscription goes on");
}

/// The bytes of a stream, as text.
fn text_of(fixture: &mut FanoutFixture, connection: &mut ClientConnection) -> String {
    fixture.settle();
    while connection.fill(fixture, 1 << 20) == Filled::More {}
    String::from_utf8(std::mem::take(&mut connection.bytes)).unwrap()
}

#[test]
fn a_stream_begins_with_one_block_of_retry_and_id_and_is_kept_open_by_comments() {
    let mut fixture = fixture();
    let channels = ["posts:a".to_owned()];
    let mut stream = ClientConnection::stream(&mut fixture, 0, &channels, StartAt::Latest);
    let first = text_of(&mut fixture, &mut stream);
    let lines: Vec<&str> = first.split('\n').collect();
    let ["", ""] = lines[2..] else { panic!("{first:?}") };
    let retry: u32 = lines[0].strip_prefix("retry: ").unwrap().parse().unwrap();
    assert!((1_000..3_000).contains(&retry), "{retry}");
    assert!(lines[1].starts_with("id: "), "{first:?}");
    // Nothing of this partition for ten minutes: comments only, and no blank line.
    let mut quiet = String::new();
    for _ in 0..40 {
        fixture.pass_time(15_000);
        quiet.push_str(&text_of(&mut fixture, &mut stream));
    }
    assert_eq!(quiet, ": keepalive\n".repeat(40));
    // Its position moves by events of others: one `id:` in five minutes.
    let mut moved = String::new();
    for _ in 0..41 {
        fixture.append("posts:a2", 1);
        fixture.append("posts:a", 0);
        fixture.append("posts:b", 1);
        fixture.append("posts:c", 1);
        let events = text_of(&mut fixture, &mut stream);
        assert!(events.contains("event: post.created"));
        fixture.append("posts:b", 1);
        fixture.append("posts:c", 1);
        fixture.append("posts:d", 1);
        fixture.settle();
        fixture.pass_time(15_000);
        moved.push_str(&text_of(&mut fixture, &mut stream));
    }
    let ids = moved.matches("id: ").count();
    assert!((1..=3).contains(&ids), "{ids} in ten minutes: {moved}");
}

#[test]
fn streams_come_back_at_different_times() {
    let mut fixture = fixture();
    let channels = ["posts:a".to_owned()];
    let mut delays = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let mut stream = ClientConnection::stream(&mut fixture, 0, &channels, StartAt::Latest);
        let first = text_of(&mut fixture, &mut stream);
        delays.insert(first.lines().next().unwrap().to_owned());
    }
    assert!(delays.len() > 50, "{delays:?}");
}

#[test]
fn no_frame_contains_what_a_client_may_take_for_the_end_of_a_line() {
    const TEARS: [char; 3] = ['\u{2028}', '\u{2029}', '\u{85}'];
    let mut fixture = fixture();
    let channels = ["posts:a".to_owned()];
    let mut stream = ClientConnection::stream(&mut fixture, 0, &channels, StartAt::Latest);
    let mut socket = connection(&mut fixture);
    socket.subscribe(&mut fixture, "posts:a", "latest");
    let text: String = TEARS.iter().map(|tear| format!("a{tear}’é\u{a0}€")).collect();
    fixture.append_text("posts:a", &text);
    socket.send(&mut fixture, &json!({"op": "ping", "id": text}));
    socket.send(&mut fixture, &json!({"op": text, "id": 2}));
    socket.subscribe(&mut fixture, &format!("posts:{text}"), "latest");
    let streamed = text_of(&mut fixture, &mut stream);
    assert!(!streamed.contains(TEARS), "{streamed:?}");
    assert!(streamed.contains("a\\u2028’é\u{a0}€a\\u2029"), "{streamed:?}");
    fixture.settle();
    while socket.fill(&mut fixture, 1 << 20) == Filled::More {}
    let bytes = String::from_utf8_lossy(&socket.bytes).into_owned();
    assert!(!bytes.contains(TEARS), "{bytes:?}");
    let frames = socket.take_frames();
    assert_eq!(objects(&frames, "event")[0]["data"]["text"], *text, "the same text for a client");
}

#[test]
fn a_position_of_recreated_topics_gets_a_gap() {
    let mut fixture = fixture();
    let token = Position { epoch: 1, partitions: vec![] }.encode();
    let mut connection = connection(&mut fixture);
    connection.subscribe(&mut fixture, "posts:a", &token);
    fixture.append("posts:a", 1);
    let frames = connection.read_all(&mut fixture);
    let gap = objects(&frames, "gap")[0];
    assert_eq!((gap["reason"].as_str(), gap["from"].as_str()), (Some("epoch"), Some(&*token)));
    assert_eq!(numbers(&frames), [0]);
}

#[test]
fn a_position_before_the_logs_start_gets_a_gap_and_the_rest() {
    let mut fixture =
        FanoutFixture::new(1, &FanoutConfig { warmup_records: 0, ..Default::default() });
    for _ in 0..10 {
        fixture.append("posts:a", 1);
    }
    let partition = fixture.appended[0].partition;
    let epoch = fixture.gateways[0].hub.epoch();
    fixture.log.retain_from(&fixture.topic_partition(1, partition), 4);
    let config = FanoutConfig { warmup_records: 2, ..Default::default() };
    fixture.gateways = vec![fixture.gateway(&config)];
    let token = Position {
        epoch,
        partitions: vec![PartitionPosition { partition: partition.0, next: [0, 1, 0] }],
    }
    .encode();
    let mut connection = connection(&mut fixture);
    connection.subscribe(&mut fixture, "posts:a", &token);
    let frames = connection.read_all(&mut fixture);
    assert_eq!(objects(&frames, "gap").len(), 1);
    assert_eq!(objects(&frames, "gap")[0]["reason"], "retention");
    assert_eq!(numbers(&frames), [4, 5, 6, 7, 8, 9]);
}

#[test]
fn a_time_starts_at_the_first_record_appended_then_or_later() {
    let mut fixture =
        FanoutFixture::new(1, &FanoutConfig { warmup_records: 1, ..Default::default() });
    for _ in 0..5 {
        fixture.append("posts:a", 1);
        fixture.pass_time(1_000);
    }
    let mut connection = connection(&mut fixture);
    connection.subscribe(&mut fixture, "posts:a", "1970-01-01T00:00:04.500Z");
    assert_eq!(numbers(&connection.read_all(&mut fixture)), [3, 4], "rounded down to a second");
}

#[test]
fn a_quiet_websocket_is_pinged_and_sent_its_position() {
    let mut fixture = fixture();
    let mut connection = connection(&mut fixture);
    connection.subscribe(&mut fixture, "posts:a", "latest");
    connection.read_all(&mut fixture);
    fixture.append("posts:b", 1);
    fixture.settle();
    fixture.pass_time(30_000);
    let frames = connection.read(&mut fixture);
    assert!(matches!(frames[0], ServerFrame::Ping), "{frames:?}");
    assert_eq!(objects(&frames, "position").len(), 1, "{frames:?}");
    fixture.pass_time(30_000);
    fixture.pass_time(30_000);
    let closes = connection.closes(&mut fixture);
    assert_eq!(closes[0].reason, CloseReason::Silent);
}

/// It reads what it is sent, so it is not slow, and answers no ping.
#[test]
fn a_silent_websocket_is_closed_after_60_s_whatever_its_slot() {
    let mut fixture = fixture();
    let mut silent: Vec<_> = (0..40).map(|_| connection(&mut fixture)).collect();
    let mut closed = Vec::new();
    for second in 1..=92 {
        if second == 30 {
            fixture.gateways[0].shard.mark_alive(silent[0].conn);
        }
        fixture.pass_time(1_000);
        for connection in &mut silent {
            connection.read(&mut fixture);
        }
        let closes = silent[0].closes(&mut fixture);
        assert!(closes.iter().all(|close| close.reason == CloseReason::Silent), "{closes:?}");
        closed.extend(closes.iter().map(|close| (second, close.conn)));
    }
    let seconds: Vec<_> = closed.iter().map(|(second, _)| *second).collect();
    assert_eq!(seconds, [vec![61; 39], vec![90]].concat());
    assert_eq!(closed[39].1, silent[0].conn);
}

/// The wall clock is in the events only. Setting it neither ends a connection nor delays a check.
#[test]
fn setting_the_wall_clock_changes_no_deadline() {
    for step in [120_000, -3_600_000] {
        let mut fixture = fixture();
        let mut one = connection(&mut fixture);
        one.subscribe(&mut fixture, "posts:a", "latest");
        one.read_all(&mut fixture);
        fixture.pass_time(29_000);
        fixture.now.0 += step;
        fixture.append("posts:a", 1);
        fixture.pass_time(2_000);
        assert_eq!(one.closes(&mut fixture), [], "a step of {step} ms");
        let frames = one.read_all(&mut fixture);
        assert_eq!(numbers(&frames), [0]);
        assert!(frames.contains(&ServerFrame::Ping), "keepalives go on: {frames:?}");
        fixture.pass_time(31_000);
        assert_eq!(one.closes(&mut fixture)[0].reason, CloseReason::Silent);
    }
}

/// While the process itself is paused, nothing that its clients send is read, so that time says
/// nothing about them.
#[test]
fn a_process_that_stood_still_closes_nobody() {
    let mut fixture = fixture();
    let one = connection(&mut fixture);
    fixture.pass_time(10_000);
    fixture.stand_still(600_000);
    fixture.pass_time(1_000);
    assert_eq!(one.closes(&mut fixture), []);
}

#[test]
fn each_limit_closes_a_connection_with_its_own_code() {
    let check = |reason: CloseReason,
                 code: u16,
                 act: &dyn Fn(&mut FanoutFixture, &mut ClientConnection)| {
        let mut fixture = fixture();
        let mut connection = connection(&mut fixture);
        act(&mut fixture, &mut connection);
        let closes = connection.closes(&mut fixture);
        assert_eq!(closes.iter().map(|close| close.reason).collect::<Vec<_>>(), [reason]);
        assert_eq!(reason.code(), code);
        assert!(reason.text().len() <= 123);
        connection.read(&mut fixture);
        fixture.gateways[0].shard.close(connection.conn);
        let stats = fixture.gateways[0].shard.stats();
        assert_eq!((stats.websockets, stats.subscriptions, stats.channels), (0, 0, 0));
        assert_eq!(stats.backlogged, 0);
    };
    check(CloseReason::ProtocolError, 4009, &|fixture, connection| {
        fixture.gateways[0].shard.bad_frame(connection.conn, BadFrame::NotText);
    });
    check(CloseReason::TooLarge, 1009, &|fixture, connection| {
        fixture.gateways[0].shard.input(connection.conn, &" ".repeat(65_537));
    });
    check(CloseReason::ProtocolError, 4009, &|fixture, connection| {
        for _ in 0..BAD_FRAMES_MAX {
            fixture.gateways[0].shard.input(connection.conn, "{");
        }
    });
    check(CloseReason::RateLimited, 4029, &|fixture, connection| {
        for _ in 0..40 {
            for _ in 0..20 {
                connection.send(fixture, &json!({"op": "ping"}));
            }
            connection.read(fixture);
            fixture.pass_time(100);
        }
    });
    check(CloseReason::Drain, 1001, &|fixture, _| fixture.gateways[0].shard.drain());
}

#[test]
fn a_client_that_reads_too_little_for_too_long_is_closed_as_slow() {
    let mut fixture = fixture();
    let mut slow = connection(&mut fixture);
    slow.subscribe(&mut fixture, "posts:a", "latest");
    let mut steady = connection(&mut fixture);
    steady.subscribe(&mut fixture, "posts:a", "latest");
    slow.read_all(&mut fixture);
    steady.read_all(&mut fixture);
    let mut closes = Vec::new();
    while closes.is_empty() {
        for _ in 0..20 {
            fixture.append("posts:a", 1);
        }
        fixture.settle();
        assert_eq!(slow.fill(&mut fixture, 1), Filled::More);
        fixture.gateways[0].shard.set_unsent(slow.conn, slow.bytes.len());
        steady.read(&mut fixture);
        fixture.pass_time(1_000);
        fixture.gateways[0].shard.mark_alive(slow.conn);
        fixture.gateways[0].shard.mark_alive(steady.conn);
        closes = slow.closes(&mut fixture);
        assert!(fixture.now.0 < 60_000, "no connection was closed");
    }
    assert_eq!(closes.len(), 1);
    assert_eq!((closes[0].conn, closes[0].reason), (slow.conn, CloseReason::Slow));
}

#[test]
fn subscriptions_are_limited_and_freed_ones_can_be_used_again() {
    let mut fixture = fixture();
    let mut connection = connection(&mut fixture);
    for n in 0..SUBSCRIPTIONS_MAX {
        connection.subscribe(&mut fixture, &format!("posts:{n}"), "latest");
        fixture.pass_time(20);
    }
    connection.subscribe(&mut fixture, "posts:more", "latest");
    let frames = connection.read_all(&mut fixture);
    assert_eq!(objects(&frames, "ok").len(), SUBSCRIPTIONS_MAX);
    assert_eq!(objects(&frames, "error")[0]["code"], "too_many_subscriptions");
    fixture.pass_time(1_000);
    connection.send(&mut fixture, &json!({"op": "unsubscribe", "channel": "posts:0"}));
    connection.subscribe(&mut fixture, "posts:more", "latest");
    fixture.append("posts:more", 1);
    fixture.append("posts:0", 1);
    fixture.append("posts:127", 1);
    let mut seen = numbers(&connection.read_all(&mut fixture));
    seen.sort_unstable();
    assert_eq!(seen, [0, 2]);
}

/// Slots are reused: an id of the connection before must not reach the new one.
#[test]
fn a_stale_connection_is_ignored_everywhere() {
    let mut fixture = fixture();
    let old = connection(&mut fixture);
    fixture.gateways[0].shard.close(old.conn);
    let mut new = connection(&mut fixture);
    assert_eq!(old.conn.slot, new.conn.slot);
    old.send(&mut fixture, &json!({"op": "subscribe", "channel": "posts:a"}));
    fixture.gateways[0].shard.mark_alive(old.conn);
    fixture.gateways[0].shard.close(old.conn);
    assert_eq!(objects(&new.read(&mut fixture), "welcome").len(), 1);
    assert_eq!(fixture.gateways[0].shard.stats().subscriptions, 0);
}
