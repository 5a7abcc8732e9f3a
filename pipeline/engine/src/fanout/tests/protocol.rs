//! What a client is told, frame by frame.

use serde_json::{Value, json};
use tidewire_schemas::position::{PartitionPosition, Position};

use super::super::config::{BAD_FRAMES_MAX, FanoutConfig, SUBSCRIPTIONS_MAX};
use super::super::identity::{Accounts, Identity, Roles};
use super::super::protocol::{CloseReason, StartAt};
use super::super::shard::{BadFrame, Filled, Shard};
use super::client::Heard;
use super::world::{Line, World, identity, numbers, objects};

fn world() -> World {
    World::new(1, &FanoutConfig::default())
}

fn line(world: &mut World) -> Line {
    Line::open(world, 0, &identity(Accounts::All))
}

/// What a fresh connection answers to one request, `welcome` apart.
#[track_caller]
fn check(request: &str, expected: Value) {
    let mut world = world();
    let mut line = line(&mut world);
    line.hear(&mut world);
    world.gateways[0].shard.input(line.conn, request);
    let heard = line.hear_all(&mut world);
    let [Heard::Object { json, .. }] = &heard[..] else { panic!("{heard:?}") };
    for (name, value) in expected.as_object().unwrap() {
        let said = &json[name];
        match (said.as_str(), value.as_str().and_then(|v| v.strip_prefix("..."))) {
            (Some(said), Some(part)) => assert!(said.contains(part), "{name}: {said}"),
            _ => assert_eq!(said, value, "{name} of {json}"),
        }
    }
}

#[test]
fn every_request_is_answered_by_what_was_done_or_what_is_right() {
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
    check(&subscribe("posts:a", "yesterday"), json!({"code": "invalid_position"}));
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
        &subscribe("engagement:p1", "latest"),
        json!({"code": "not_found", "message": "...state channels are not served yet"}),
    );
}

#[test]
fn a_connection_is_welcomed_with_its_name_and_limits() {
    let mut world = world();
    let heard = line(&mut world).hear(&mut world);
    let [welcome] = objects(&heard, "welcome")[..] else { panic!("{heard:?}") };
    assert_eq!(welcome["user"], "u1");
    assert_eq!(welcome["heartbeat_ms"], 30_000);
    assert_eq!(welcome["limits"]["subscriptions"], SUBSCRIPTIONS_MAX);
}

#[test]
fn an_event_frame_carries_the_event_and_its_position() {
    let mut world = world();
    let mut line = line(&mut world);
    line.subscribe(&mut world, "posts:a", "latest");
    world.append("posts:a", 0);
    let heard = line.hear_all(&mut world);
    let [event] = objects(&heard, "event")[..] else { panic!("{heard:?}") };
    assert_eq!(event["channel"], "posts:a");
    assert_eq!(event["type"], "post.created");
    assert_eq!(event["account_id"], "a1");
    assert_eq!(event["timestamp"], "1970-01-01T00:00:01.000Z");
    assert_eq!(event["priority"], 1);
    assert_eq!(event["data"]["n"], 0);
    let partition = world.written[0].partition;
    let position = Position::decode(event["position"].as_str().unwrap()).unwrap();
    assert_eq!(position.partitions, [PartitionPosition { partition, next: [1, 0, 0] }]);
}

#[test]
fn a_stream_begins_with_its_position_and_every_event_has_an_id() {
    let mut world = world();
    let channels = ["posts:a".to_owned(), "posts:b".to_owned()];
    let mut line = Line::stream(&mut world, 0, &channels, StartAt::Latest);
    assert!(matches!(&line.hear(&mut world)[..], [Heard::Id(_)]));
    world.append("posts:a", 1);
    world.append("posts:b", 1);
    let heard = line.hear_all(&mut world);
    assert_eq!(numbers(&heard).len(), 2);
    for heard in &heard {
        let Heard::Object { op, id, json } = heard else { panic!("{heard:?}") };
        assert_eq!((op.as_str(), json["op"].as_str()), ("post.created", None));
        assert!(id.is_some(), "an event without an id");
    }
}

#[test]
fn a_record_of_another_account_never_arrives() {
    let check = |accounts: Accounts, expected: &[usize]| {
        let mut world = world();
        for account in ["a1", "a2", "a3"] {
            world.append_for(account, "posts:a", 1);
        }
        let mut line = Line::open(&mut world, 0, &identity(accounts.clone()));
        line.subscribe(&mut world, "posts:a", "earliest");
        let mut seen = numbers(&line.hear_all(&mut world));
        for account in ["a1", "a2", "a3"] {
            world.append_for(account, "posts:a", 1);
        }
        seen.extend(numbers(&line.hear_all(&mut world)));
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
        let said = Shard::check(&identity, channel, &StartAt::Latest);
        assert_eq!(said.err().map(|refusal| refusal.code.as_str()), expected, "{channel}");
    };
    check("dm:u1", Roles::CLIENT, None);
    check("dm:u2", Roles::CLIENT, Some("forbidden"));
    check("dm:u2", Roles::ADMIN, None);
    check("account:a1", Roles::CLIENT, Some("forbidden"));
    check("account:a1", Roles::MEMBER, None);
    check("posts:x", Roles::CLIENT, None);
}

#[test]
fn a_position_beyond_the_end_is_waited_for_and_then_refused() {
    let mut world = world();
    world.append("posts:a", 1);
    world.settle();
    let mut line = line(&mut world);
    line.subscribe(&mut world, "posts:a", "latest");
    let ok = line.hear_all(&mut world);
    let mut position =
        Position::decode(objects(&ok, "ok")[0]["position"].as_str().unwrap()).unwrap();
    position.partitions[0].next[1] += 1;
    let token = position.encode();
    let resume = |world: &mut World| {
        let mut line = Line::open(world, 0, &identity(Accounts::All));
        line.subscribe(world, "posts:a", &token);
        assert_eq!(objects(&line.hear_all(world), "ok").len(), 0);
        line
    };
    let mut line = resume(&mut world);
    world.append("posts:a", 1);
    world.append("posts:a", 1);
    assert_eq!(numbers(&line.hear_all(&mut world)), [2], "what the token passed is not repeated");
    position.partitions[0].next[1] += 5;
    let token = position.encode();
    let mut line = Line::open(&mut world, 0, &identity(Accounts::All));
    line.subscribe(&mut world, "posts:a", &token);
    line.hear_all(&mut world);
    world.pass_time(2_000);
    let heard = line.hear_all(&mut world);
    assert_eq!(objects(&heard, "error")[0]["code"], "invalid_position");
    assert_eq!(world.gateways[0].shard.stats().subscriptions, 2);
}

#[test]
fn a_position_of_topics_made_anew_meets_a_gap() {
    let mut world = world();
    let token = Position { epoch: 1, partitions: vec![] }.encode();
    let mut line = line(&mut world);
    line.subscribe(&mut world, "posts:a", &token);
    world.append("posts:a", 1);
    let heard = line.hear_all(&mut world);
    let gap = objects(&heard, "gap")[0];
    assert_eq!((gap["reason"].as_str(), gap["from"].as_str()), (Some("epoch"), Some(&*token)));
    assert_eq!(numbers(&heard), [0]);
}

#[test]
fn a_position_retention_has_passed_meets_a_gap_and_the_rest() {
    let mut world = World::new(1, &FanoutConfig { warmup_records: 0, ..Default::default() });
    for _ in 0..10 {
        world.append("posts:a", 1);
    }
    let partition = world.written[0].partition;
    let epoch = world.gateways[0].hub.epoch();
    world.log.retain_from(&world.at(1, partition), 4);
    let config = FanoutConfig { warmup_records: 2, ..Default::default() };
    world.gateways = vec![world.gateway(&config)];
    let token =
        Position { epoch, partitions: vec![PartitionPosition { partition, next: [0, 1, 0] }] }
            .encode();
    let mut line = line(&mut world);
    line.subscribe(&mut world, "posts:a", &token);
    let heard = line.hear_all(&mut world);
    assert_eq!(objects(&heard, "gap").len(), 1);
    assert_eq!(objects(&heard, "gap")[0]["reason"], "retention");
    assert_eq!(numbers(&heard), [4, 5, 6, 7, 8, 9]);
}

#[test]
fn a_time_starts_at_the_first_record_appended_since() {
    let mut world = World::new(1, &FanoutConfig { warmup_records: 1, ..Default::default() });
    for _ in 0..5 {
        world.append("posts:a", 1);
        world.pass_time(1_000);
    }
    let mut line = line(&mut world);
    line.subscribe(&mut world, "posts:a", "1970-01-01T00:00:03.500Z");
    assert_eq!(numbers(&line.hear_all(&mut world)), [3, 4]);
}

#[test]
fn a_quiet_websocket_is_pinged_and_told_its_position() {
    let mut world = world();
    let mut line = line(&mut world);
    line.subscribe(&mut world, "posts:a", "latest");
    line.hear_all(&mut world);
    world.append("posts:b", 1);
    world.settle();
    world.pass_time(30_000);
    let heard = line.hear(&mut world);
    assert!(matches!(heard[0], Heard::Ping), "{heard:?}");
    assert_eq!(objects(&heard, "position").len(), 1, "{heard:?}");
    world.pass_time(30_000);
    world.pass_time(30_000);
    let closes = line.closes(&mut world);
    assert_eq!(closes[0].reason, CloseReason::Silent);
}

#[test]
fn limits_end_a_connection_with_their_own_code() {
    let check = |reason: CloseReason, code: u16, act: &dyn Fn(&mut World, &mut Line)| {
        let mut world = world();
        let mut line = line(&mut world);
        act(&mut world, &mut line);
        let closes = line.closes(&mut world);
        assert_eq!(closes.iter().map(|close| close.reason).collect::<Vec<_>>(), [reason]);
        assert_eq!(reason.code(), code);
        assert!(reason.text().len() <= 123);
        line.hear(&mut world);
        world.gateways[0].shard.close(line.conn);
        let stats = world.gateways[0].shard.stats();
        assert_eq!((stats.websockets, stats.subscriptions, stats.channels), (0, 0, 0));
        assert_eq!(stats.backlogged, 0);
    };
    check(CloseReason::ProtocolError, 4009, &|world, line| {
        world.gateways[0].shard.bad_frame(line.conn, BadFrame::NotText);
    });
    check(CloseReason::TooLarge, 1009, &|world, line| {
        world.gateways[0].shard.input(line.conn, &" ".repeat(65_537));
    });
    check(CloseReason::ProtocolError, 4009, &|world, line| {
        for _ in 0..BAD_FRAMES_MAX {
            world.gateways[0].shard.input(line.conn, "{");
        }
    });
    check(CloseReason::RateLimited, 4029, &|world, line| {
        for _ in 0..40 {
            for _ in 0..20 {
                line.send(world, &json!({"op": "ping"}));
            }
            line.hear(world);
            world.pass_time(100);
        }
    });
    check(CloseReason::Drain, 1001, &|world, _| world.gateways[0].shard.drain());
}

#[test]
fn a_client_that_takes_too_little_for_too_long_is_closed_as_slow() {
    let mut world = world();
    let mut slow = line(&mut world);
    slow.subscribe(&mut world, "posts:a", "latest");
    let mut steady = line(&mut world);
    steady.subscribe(&mut world, "posts:a", "latest");
    slow.hear_all(&mut world);
    steady.hear_all(&mut world);
    let mut closes = Vec::new();
    while closes.is_empty() {
        for _ in 0..20 {
            world.append("posts:a", 1);
        }
        world.settle();
        assert_eq!(slow.fill(&mut world, 1), Filled::More);
        steady.hear(&mut world);
        world.pass_time(1_000);
        world.gateways[0].shard.heard(slow.conn);
        world.gateways[0].shard.heard(steady.conn);
        closes = slow.closes(&mut world);
        assert!(world.now.0 < 60_000, "nobody was closed");
    }
    assert_eq!(closes.len(), 1);
    assert_eq!((closes[0].conn, closes[0].reason), (slow.conn, CloseReason::Slow));
}

#[test]
fn the_limit_of_subscriptions_holds_and_freed_places_are_used_again() {
    let mut world = world();
    let mut line = line(&mut world);
    for n in 0..SUBSCRIPTIONS_MAX {
        line.subscribe(&mut world, &format!("posts:{n}"), "latest");
        world.pass_time(20);
    }
    line.subscribe(&mut world, "posts:more", "latest");
    let heard = line.hear_all(&mut world);
    assert_eq!(objects(&heard, "ok").len(), SUBSCRIPTIONS_MAX);
    assert_eq!(objects(&heard, "error")[0]["code"], "too_many_subscriptions");
    world.pass_time(1_000);
    line.send(&mut world, &json!({"op": "unsubscribe", "channel": "posts:0"}));
    line.subscribe(&mut world, "posts:more", "latest");
    world.append("posts:more", 1);
    world.append("posts:0", 1);
    world.append("posts:127", 1);
    let mut seen = numbers(&line.hear_all(&mut world));
    seen.sort_unstable();
    assert_eq!(seen, [0, 2]);
}

/// A shared table of slots must not mix up old and new owners.
#[test]
fn a_stale_connection_is_ignored_everywhere() {
    let mut world = world();
    let old = line(&mut world);
    world.gateways[0].shard.close(old.conn);
    let mut new = line(&mut world);
    assert_eq!(old.conn.slot, new.conn.slot);
    old.send(&mut world, &json!({"op": "subscribe", "channel": "posts:a"}));
    world.gateways[0].shard.heard(old.conn);
    world.gateways[0].shard.close(old.conn);
    assert_eq!(objects(&new.hear(&mut world), "welcome").len(), 1);
    assert_eq!(world.gateways[0].shard.stats().subscriptions, 0);
}
