//! Tests of admission through its public functions: one record in, an event or a rejection out.
//!
//! `admitted` and `refused` read a text with the built-in catalogue.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::admit::no_key;
use super::*;
use crate::Priority;
use crate::catalogue::{Catalogue, Field, FieldKind};
use crate::channel::Channel;
use crate::event::{Event, EventView};

const NOW_MS: i64 = 1_767_607_200_000;
const ORIGIN: RecordOrigin<'static> = RecordOrigin {
    topic: "tw.in",
    partition: 3,
    offset: 42,
    append_time_ms: NOW_MS,
    writers: Writers::Producers,
};

fn run(text: &str) -> Result<Admitted, Rejection> {
    admit(Catalogue::builtin(), Some(text.as_bytes()), &ORIGIN)
}

fn admitted(event: Value) -> Event {
    run(&event.to_string()).unwrap_or_else(|rejection| panic!("{rejection}")).event
}

fn refused(text: &str) -> (Reason, Option<String>) {
    let rejection = run(text).expect_err(text);
    assert!(!rejection.message.is_empty());
    (rejection.reason, rejection.field)
}

/// An event of this type and data.
fn sent(event_type: &str, data: Value) -> Value {
    json!({ "event_id": "e1", "event_type": event_type, "account_id": "acc", "data": data })
}

/// The data of an event of this type after admission.
fn data_of(event_type: &str, data: Value) -> Value {
    serde_json::from_str(&admitted(sent(event_type, data)).data).expect("JSON")
}

/// A like, with one envelope field set.
fn like_with(field: &str, value: Value) -> Value {
    let mut event = sent("post.liked", json!({ "post_id": "p1", "user_id": "u1" }));
    event[field] = value;
    event
}

fn check_refused(event: Value, reason: Reason, field: &str) {
    assert_eq!(refused(&event.to_string()), (reason, Some(field.to_owned())), "{event}");
}

#[test]
fn absent_fields_are_set_from_the_catalogue_and_the_position() {
    let event = json!({
        "event_type": "tweet_create", "account_id": 7,
        "data": { "post_id": 12345678901234567890u64, "author_id": "alice", "text": "hi" },
    });
    assert_eq!(
        admitted(event),
        Event {
            event_id: "tw.in/3/42".into(),
            event_type: "post.created".into(),
            account_id: "7".into(),
            timestamp_ms: NOW_MS,
            correlation_id: "tw.in/3/42".into(),
            priority: Priority::Normal,
            key: "alice".into(),
            source: None,
            alias: Some("tweet_create".into()),
            data: r#"{"author_id":"alice","post_id":12345678901234567890,"text":"hi"}"#.into(),
        }
    );
}

#[test]
fn what_the_producer_sets_in_the_envelope_is_kept() {
    let event = json!({
        "event_id": "e-1", "event_type": "post.liked", "account_id": "acc", "priority": 3,
        "timestamp": "2026-01-05T09:00:00.5Z", "correlation_id": "c-1", "key": "k", "source": "app",
        "data": { "post_id": "p1", "user_id": "u1" },
    });
    let event = admitted(event);
    assert_eq!((event.event_id.as_str(), event.correlation_id.as_str()), ("e-1", "c-1"));
    assert_eq!(event.priority, Priority::Critical);
    assert_eq!((event.timestamp_ms, event.source.as_deref()), (1_767_603_600_500, Some("app")));
    assert_eq!(event.alias, None);
}

#[test]
fn the_key_of_the_catalogue_owns_the_state_whatever_key_is_sent() {
    for (sent_key, kept) in [
        (json!("k"), Some("k")),
        (json!("p2"), Some("p2")),
        (json!(7), Some("7")),
        (Value::Null, None),
    ] {
        let event = like_with("key", sent_key);
        let admitted = run(&event.to_string()).expect("fine");
        assert_eq!(admitted.event.key, "p1");
        assert_eq!(admitted.sent_key.as_deref(), kept);
    }
    let own = |key: Value| {
        let mut event = sent("custom.order", json!({ "n": 1 }));
        event["key"] = key;
        admitted(event).key
    };
    for key in [json!("order-7"), Value::Null] {
        assert_eq!(own(key), "acc");
    }
}

#[test]
fn types_that_producers_may_not_send_are_reserved_under_every_name() {
    let mut names = Vec::new();
    for event_type in Catalogue::builtin().types().iter().filter(|known| !known.producers) {
        names.push(event_type.name.clone());
        names.extend(event_type.aliases.iter().map(|alias| alias.name.clone()));
    }
    for wanted in ["incident.opened", "gateway.lease", "sla.escalated", "operator.called"] {
        assert!(names.iter().any(|name| name == wanted), "{wanted}");
    }
    for name in names {
        let sent = sent(&name, json!({}));
        let rejection = run(&sent.to_string()).expect_err(&name);
        // An alias may depend on its data, and then an empty object has no type.
        if rejection.reason != Reason::UnknownType || !name.contains(':') {
            assert_eq!(rejection.reason, Reason::ReservedType, "{name}: {rejection:?}");
            assert!(rejection.message.contains("custom."), "{rejection:?}");
        }
    }
}

#[test]
fn the_topic_of_own_processes_takes_internal_types_and_no_others() {
    let from = |writers, event: Value| {
        let origin = RecordOrigin { topic: "tw.in.internal", writers, ..ORIGIN };
        admit(Catalogue::builtin(), Some(event.to_string().as_bytes()), &origin)
    };
    let called =
        sent("operator.called", json!({ "actor": "a", "action": "resume", "target": "t" }));
    let lease = sent("gateway.lease", json!({ "gateway_id": "g1", "expires_at": NOW_MS }));
    for (event, key) in [(called, "acc"), (lease, "g1")] {
        let admitted = from(Writers::OwnProcesses, event.clone()).expect("an internal type");
        assert_eq!(admitted.event.key, key);
        let refused = from(Writers::Producers, event).expect_err("internal");
        assert_eq!(refused.reason, Reason::ReservedType);
    }
    let like = sent("post.liked", json!({ "post_id": "p1", "user_id": "u1" }));
    let emitted = sent("incident.opened", json!({}));
    for (event, named) in [
        (like, "`post.liked`"),
        (emitted, "`incident.opened`"),
        (sent("custom.x", json!({})), "custom"),
    ] {
        let refused = from(Writers::OwnProcesses, event).expect_err("not internal");
        assert_eq!(
            (refused.reason, refused.field.as_deref()),
            (Reason::NotInternal, Some("event_type"))
        );
        assert!(refused.message.contains(named), "{refused}");
        assert!(refused.message.contains("tw.in.internal"), "{refused}");
    }
}

#[test]
fn null_counts_as_absent() {
    for field in ["event_id", "timestamp", "correlation_id", "priority", "key", "source"] {
        admitted(like_with(field, Value::Null));
    }
    check_refused(like_with("account_id", Value::Null), Reason::MissingField, "account_id");
    let data = data_of("post.liked", json!({ "post_id": "p", "user_id": "u", "author_id": null }));
    assert_eq!(data["author_id"], Value::Null);
}

#[test]
fn unknown_envelope_fields_are_ignored_and_counted() {
    let mut event = like_with("trace", json!({ "a": [1, 2] }));
    event["version"] = json!(2);
    assert_eq!(run(&event.to_string()).expect("fine").ignored_fields, 2);
}

#[test]
fn invalid_records_are_rejected_with_their_reason() {
    let check = |text: &str, reason| assert_eq!(refused(text).0, reason, "{text}");
    check("", Reason::EmptyValue);
    assert_eq!(
        admit(Catalogue::builtin(), None, &ORIGIN).map_err(|r| r.reason),
        Err(Reason::EmptyValue)
    );
    assert_eq!(
        admit(Catalogue::builtin(), Some(b"{\"a\":\"\xff\"}"), &ORIGIN).map_err(|r| r.reason),
        Err(Reason::NotUtf8)
    );
    check("{", Reason::NotJson);
    check("{} x", Reason::NotJson);
    check(" ", Reason::NotJson);
    check("\u{0}", Reason::NotJson);
    check(r#"{"event_type":"post.liked","data":{"text":"\ud800"}}"#, Reason::NotJson);
    check("[1]", Reason::NotObject);
    check("null", Reason::NotObject);
    check(&format!("\"{}\"", "a".repeat(EVENT_MAX_BYTES)), Reason::TooLarge);
}

#[test]
fn data_may_be_nested_32_levels() {
    let nested = |levels: usize| {
        let inner = "[".repeat(levels - 1) + &"]".repeat(levels - 1);
        format!(r#"{{"event_type":"custom.x","account_id":"a","data":{{"x":{inner}}}}}"#)
    };
    assert!(run(&nested(DATA_MAX_DEPTH)).is_ok());
    assert_eq!(refused(&nested(DATA_MAX_DEPTH + 1)).0, Reason::TooLarge);
    assert_eq!(refused(&nested(100_000)).0, Reason::TooLarge);
}

#[test]
fn data_may_have_1024_fields() {
    let wide = |count: usize| {
        let fields: Vec<String> = (0..count).map(|n| format!("\"f{n}\":0")).collect();
        let fields = fields.join(",");
        format!(r#"{{"event_type":"custom.x","account_id":"a","data":{{{fields}}}}}"#)
    };
    assert!(run(&wide(DATA_MAX_FIELDS)).is_ok());
    assert_eq!(refused(&wide(DATA_MAX_FIELDS + 1)).0, Reason::TooLarge);
}

#[test]
fn data_that_normalisation_makes_too_large_is_rejected() {
    let named = |count: usize| {
        let name = "aB".repeat(count);
        let data = json!({"post_id": "p", "author_id": "u", "text": "t", name: 1});
        run(&sent("post.created", data).to_string())
    };
    assert!(named(60_000).is_ok(), "180,000 bytes in snake_case");
    let rejection = named(100_000).map(|_| 100_000).expect_err("300,000 bytes in snake_case");
    assert_eq!((rejection.reason, rejection.field.as_deref()), (Reason::TooLarge, Some("data")));
    let numbers = ["data has 300", "after normalisation", "at most 262144 bytes"];
    assert!(numbers.iter().all(|part| rejection.message.contains(part)), "{rejection}");
}

#[test]
fn a_duplicate_name_is_rejected() {
    let twice = r#"{"event_type":"custom.x","account_id":"a","account_id":"b","data":{}}"#;
    assert_eq!(refused(twice), (Reason::BadField, Some("account_id".into())));
    let twice = r#"{"event_type":"custom.x","account_id":"a","data":{"x":1,"\u0078":2}}"#;
    assert_eq!(refused(twice), (Reason::BadField, Some("data.x".into())));
}

#[test]
fn a_duplicate_name_among_many_is_rejected() {
    for count in [31, 32, 33, 34, 1_000] {
        let names: String = (0..count).map(|n| format!("\"x{n}\":1,")).collect();
        let with = |last: &str| {
            let data = format!("{{{names}\"{last}\":1}}");
            format!(r#"{{"event_type":"custom.x","account_id":"a","data":{data}}}"#)
        };
        assert!(run(&with("y")).is_ok(), "{count}");
        for last in ["x0".to_owned(), format!("x{}", count - 1), "\\u00780".to_owned()] {
            assert_eq!(refused(&with(&last)).0, Reason::BadField, "{count} {last}");
        }
    }
}

#[test]
fn camel_case_names_among_many_never_make_a_name_occur_twice() {
    for count in [10, 100] {
        let mut data = json!({ "post_id": "p1", "user_id": "u1" });
        for n in 0..count {
            data[format!("field{n}X")] = n.into();
        }
        for name in ["fieldAB", "fieldAb", "field_ab", "otherAB", "otherAb"] {
            data[name] = name.into();
        }
        let text = admitted(sent("post.liked", data)).data;
        for name in ["field_ab", "other_ab", "field0_x", &format!("field{}_x", count - 1)] {
            assert_eq!(text.matches(&format!("\"{name}\":")).count(), 1, "{name} in {text}");
        }
        assert!(text.contains(r#""field_ab":"field_ab""#), "{text}");
    }
}

/// Bodies of 4 KiB, which the HTTP server validates without handing them to another thread: those
/// that take the longest.
fn slow_bodies() -> Vec<(&'static str, Vec<String>)> {
    const BYTES: usize = 4 << 10;
    let event = |kind: &str, data: &str| {
        format!(r#"{{"event_type":"{kind}","account_id":"a","data":{{{data}}}}}"#)
    };
    let post = |others: &str| {
        let data = r#""post_id":"p","author_id":"a","text":"t""#;
        event("post.created", &format!("{data},{others}"))
    };
    // As many as fit beside the rest of an event.
    let fields = |name: &dyn Fn(usize) -> String| {
        let members: Vec<String> = (0..1_000).map(|n| format!("\"{}\":1", name(n))).collect();
        let count = (BYTES - 150) / (members[999].len() + 1);
        members[..count].join(",")
    };
    let repeated = |event: String| vec![event.clone(); BYTES / event.len()];
    vec![
        ("names with a common start", repeated(post(&fields(&|n| format!("{:x<9}{n:04}", ""))))),
        ("camelCase names", repeated(post(&fields(&|n| format!("{:x<9}X{n:04}", ""))))),
        ("short names", repeated(post(&fields(&|n| format!("{n:x}"))))),
        ("small events", repeated(post("\"a\":1"))),
        ("unknown types", repeated(event("post.createdx", ""))),
        ("unknown types with long names", repeated(event(&"customer.updated".repeat(2), ""))),
    ]
}

#[test]
#[expect(clippy::print_stdout, reason = "the figures, with --nocapture")]
fn small_bodies_take_little_time_to_validate() {
    for (what, events) in slow_bodies() {
        let mut times: Vec<std::time::Duration> = Vec::new();
        for _ in 0..9 {
            #[expect(clippy::disallowed_methods, reason = "this test measures")]
            let begun = std::time::Instant::now();
            events.iter().for_each(|event| drop(run(event)));
            times.push(begun.elapsed());
        }
        times.sort();
        println!("{what}: {:?} for {} events", times[4], events.len());
        // The fastest of nine, so that a busy machine does not count.
        assert!(cfg!(debug_assertions) || times[0].as_millis() < 10, "{what}: {:?}", times[0]);
    }
}

#[test]
fn a_rejection_repeats_little_of_what_was_sent() {
    let long = "ä\u{1f600}".repeat(1_000);
    let twice = json!({ "event_type": "custom.x", "account_id": "a", "data": { "other": 1 } });
    let twice = twice.to_string().replace("\"other\":1", &format!("\"{long}\":1,\"{long}\":2"));
    let rejection = run(&twice).expect_err("refused");
    let shown = format!("{}…", "ä\u{1f600}".repeat(40));
    assert_eq!(rejection.field, Some(format!("data.{shown}")));
    assert_eq!(rejection.message, format!("data has `{shown}` twice; send it once"));
    let foreign = Rejection::of(Reason::AvroDecode, long.clone(), long);
    assert_eq!(foreign.field.map(|field| field.chars().count()), Some(81));
    assert_eq!(foreign.message.chars().count(), 513);
}

#[test]
fn the_fields_that_an_entity_follows_from_are_named() {
    let rejection =
        run(&like_with("data", json!({"user_id": "u"})).to_string()).expect_err("no key");
    assert_eq!(rejection.field.as_deref(), Some("data.post_id"));
    let event_type = Catalogue::builtin().resolve("post.liked").expect("a type");
    let rejection = no_key(event_type);
    assert_eq!(rejection.field.as_deref(), Some("data.post_id"));
    assert!(rejection.message.contains("post.liked needs data.post_id, from which"), "{rejection}");
}

#[test]
fn missing_envelope_fields_are_named() {
    for field in ["event_type", "account_id", "data"] {
        let mut event = like_with("source", Value::Null);
        event.as_object_mut().expect("object").remove(field);
        check_refused(event, Reason::MissingField, field);
    }
    check_refused(like_with("data", json!([1])), Reason::BadField, "data");
    check_refused(like_with("event_type", json!(1)), Reason::BadField, "event_type");
    check_refused(like_with("event_type", json!("x".repeat(65))), Reason::BadField, "event_type");
}

#[test]
fn unknown_and_reserved_types_are_rejected() {
    for reserved in ["connection", "heartbeat", "keepalive", "ping", "pong"] {
        check_refused(sent(reserved, json!({})), Reason::ReservedType, "event_type");
    }
    for unknown in ["", "nothing.like.it", "custom.", "custom.a b", "custom.*", "Post.Liked"] {
        check_refused(sent(unknown, json!({})), Reason::UnknownType, "event_type");
    }
    let near = |name: &str| run(&sent(name, json!({})).to_string()).expect_err(name).message;
    assert!(near("post.likd").contains("`post.liked`"), "{}", near("post.likd"));
    assert!(near("tweet_creat").contains("`tweet_create`"));
    assert!(near("POST.LIKED").contains("`post.liked`"));
    assert!(near("nothing.like.it").contains("custom.<name>"));
    for own in ["custom.*", "custom.", "custom.a b", "custom.a*b", "custom.ü"] {
        let message = near(own);
        assert!(message.contains("visible ASCII characters except `*`"), "{message}");
        assert!(!message.contains("did you mean"), "{message}");
    }
    assert!(!near("custm.*").contains("`custom.*`"), "a pattern is no type");
}

#[test]
fn ids_are_short_strings_or_integers() {
    let long = "x".repeat(129);
    for bad in [json!(""), json!(long), json!(1.5), json!({}), json!(true), json!("a\u{0}b")] {
        check_refused(like_with("account_id", bad.clone()), Reason::BadId, "account_id");
        check_refused(like_with("event_id", bad.clone()), Reason::BadId, "event_id");
        let event = sent("post.liked", json!({ "post_id": bad, "user_id": "u" }));
        check_refused(event, Reason::BadId, "data.post_id");
    }
    for bad in [json!("a b"), json!("日本"), json!("e\n")] {
        check_refused(like_with("event_id", bad), Reason::BadId, "event_id");
    }
    check_refused(like_with("event_id", json!("op/unread/1")), Reason::BadId, "event_id");
    check_refused(like_with("account_id", json!("日".repeat(17))), Reason::BadId, "account_id");
    assert_eq!(admitted(like_with("account_id", json!("日".repeat(16)))).account_id.len(), 48);
    assert_eq!(admitted(like_with("account_id", json!(-12))).account_id, "-12");
    admitted(like_with("account_id", json!("x".repeat(128))));
}

#[test]
fn keys_correlation_ids_and_sources_have_length_limits() {
    for bad in [json!(""), json!("x".repeat(129)), json!(true)] {
        check_refused(like_with("key", bad), Reason::BadField, "key");
    }
    check_refused(
        like_with("correlation_id", json!("x".repeat(129))),
        Reason::BadField,
        "correlation_id",
    );
    check_refused(like_with("source", json!("x".repeat(65))), Reason::BadField, "source");
    check_refused(like_with("source", json!("op/inbox")), Reason::BadField, "source");
    assert_eq!(admitted(like_with("correlation_id", json!(""))).correlation_id, "e1");
}

#[test]
fn timestamps_are_rfc_3339_or_epoch_milliseconds_and_not_far_ahead() {
    let at = |value: Value| admitted(like_with("timestamp", value)).timestamp_ms;
    assert_eq!(at(json!("2026-01-05T19:00:00+09:00")), NOW_MS);
    assert_eq!(at(json!(NOW_MS - 1)), NOW_MS - 1);
    assert_eq!(at(json!(1_767_607_199_999.75)), NOW_MS - 1);
    assert_eq!(at(json!(NOW_MS + TIMESTAMP_AHEAD_MAX_MS)), NOW_MS + TIMESTAMP_AHEAD_MAX_MS);
    let far = json!(NOW_MS + TIMESTAMP_AHEAD_MAX_MS + 1);
    check_refused(like_with("timestamp", far), Reason::TimestampFuture, "timestamp");
    for bad in [json!("yesterday"), json!("2026-01-05"), json!(1e30), json!([]), json!(true)] {
        check_refused(like_with("timestamp", bad), Reason::TimestampInvalid, "timestamp");
    }
}

#[test]
fn a_number_that_is_no_time_in_milliseconds_is_refused_with_the_right_unit() {
    let refused = |value: Value| {
        let refused = run(&like_with("timestamp", value.clone()).to_string());
        let refused = refused.expect_err(&value.to_string());
        assert_eq!(refused.reason, Reason::TimestampInvalid);
        assert!(refused.message.contains("RFC 3339"), "{refused}");
        refused.message
    };
    for seconds in [json!(1_767_607_200), json!(1_767_607_200.25), json!(999_999_999_999_i64)] {
        assert!(refused(seconds).contains("multiply seconds by 1000"));
    }
    for early in [json!(0), json!(-1), json!(-1e18)] {
        assert!(refused(early).contains("before 2001-09-09"));
    }
    assert!(refused(json!(1_767_607_200_000_000_i64)).contains("divide it by 1000,"));
    assert!(refused(json!(1_767_607_200_000_000_000_i64)).contains("divide it by 1000000,"));
    assert!(refused(json!(999_999_999_999_999_i64)).contains("epoch milliseconds"));
    let at = |value: Value| admitted(like_with("timestamp", value)).timestamp_ms;
    assert_eq!(at(json!(1_000_000_000_000_i64)), 1_000_000_000_000);
    assert_eq!(at(json!("1970-01-01T00:00:00Z")), 0);
}

#[test]
fn a_number_that_json_does_not_have_is_named_with_its_field() {
    for (number, name) in [
        ("NaN", "NaN"),
        ("nan", "NaN"),
        ("Infinity", "Infinity"),
        ("-Infinity", "-Infinity"),
        ("-inf", "-Infinity"),
    ] {
        let text = format!(
            r#"{{"event_type":"custom.x","account_id":"a","data":{{"a":1,"score":{number}}}}}"#
        );
        let refused = run(&text).expect_err(number);
        let at = text.find(number).expect("it is there");
        let expected = format!("at byte {at}: {name} is not JSON; send null or a string");
        assert_eq!((refused.reason, refused.message), (Reason::NotJson, expected));
        assert_eq!(refused.field.as_deref(), Some("data.score"));
        assert!(non_number(text.as_bytes()).is_some());
    }
    let refused = run(r#"{"event_type":"custom.x","priority":Infinity}"#).expect_err("refused");
    assert_eq!(refused.field.as_deref(), Some("priority"));
    for other in ["nul", "Nanny", "-", "+1", "information"] {
        let text = format!(r#"{{"event_type":{other}}}"#);
        assert!(!run(&text).expect_err(other).message.contains("send null"), "{other}");
        assert_eq!(non_number(text.as_bytes()), None);
    }
}

#[test]
fn priorities_are_0_to_3_or_from_the_catalogue() {
    for number in 0..=3 {
        let event = admitted(like_with("priority", json!(number)));
        assert_eq!(i64::from(event.priority.number()), number);
    }
    for bad in [json!(4), json!(-1), json!(1.0), json!("high"), json!(1e99)] {
        check_refused(like_with("priority", bad), Reason::PriorityInvalid, "priority");
    }
    assert_eq!(admitted(like_with("priority", Value::Null)).priority, Priority::Low);
    let status = |status: &str| {
        let data = json!({ "connection_id": "k1", "status": status });
        admitted(sent("upstream.status", data)).priority
    };
    assert_eq!((status("connected"), status("failed")), (Priority::Normal, Priority::High));
}

#[test]
fn step_1_aliases_become_canonical_with_their_presets() {
    let event = admitted(sent("connectionStarted", json!({ "connection_id": "k1" })));
    assert_eq!(event.event_type, "upstream.status");
    assert_eq!(event.alias.as_deref(), Some("connectionStarted"));
    assert_eq!(event.data, r#"{"connection_id":"k1","status":"connected"}"#);
    let data = json!({ "scraper_id": 1, "current": 5, "total": 20 });
    let event = admitted(sent("scraper:linkedin_progress", data));
    assert!(event.data.contains(r#""source":"linkedin""#), "{}", event.data);
}

#[test]
fn step_1_some_aliases_depend_on_the_data() {
    let typed = |name: &str, data: Value| admitted(sent(name, data)).event_type;
    let typing = json!({ "thread_id": "t", "user_id": "u" });
    assert_eq!(typed("user_typing", typing.clone()), "typing.start");
    for stop in [json!({ "is_typing": false }), json!({ "isTyping": false, "action": "x" })] {
        let mut data = typing.clone();
        data.as_object_mut()
            .expect("object")
            .append(&mut stop.as_object().expect("object").clone());
        for name in ["typing_indicator", "user_typing", "typing", "presence:typing"] {
            assert_eq!(typed(name, data.clone()), "typing.stop", "{name} {data}");
        }
    }
    let read = json!({ "user_id": "u", "notification_id": "n", "read": true, "kind": "like" });
    assert_eq!(typed("notification", read), "notification.read");
    let new = json!({ "user_id": "u", "notification_id": "n", "read": false, "type": "LIKE" });
    assert_eq!(typed("notification", new), "notification.created");
}

#[test]
fn step_2_names_become_snake_case_at_the_top() {
    let data = data_of(
        "post.liked",
        json!({ "postId": "p", "userId": "u", "extraURLList": 1, "Kept": 2, "meta": { "aB": 3 } }),
    );
    let expected = json!({
        "post_id": "p", "user_id": "u", "extra_url_list": 1, "Kept": 2, "meta": { "aB": 3 },
    });
    assert_eq!(data, expected);
    let both = data_of("post.liked", json!({ "post_id": "p", "postId": "q", "user_id": "u" }));
    assert_eq!(both, json!({ "post_id": "p", "postId": "q", "user_id": "u" }));
}

#[test]
fn step_3_nested_objects_fill_flat_fields_and_are_kept() {
    let sent = json!({
        "post": { "id": "p", "content": "text", "hashtags": ["a"], "threadId": "t" },
        "author": { "id": "alice", "name": "Alice" },
    });
    let data = data_of("post_created", sent.clone());
    assert_eq!((&data["post"], &data["author"]), (&sent["post"], &sent["author"]));
    assert_eq!((&data["post_id"], &data["text"]), (&json!("p"), &json!("text")));
    assert_eq!((&data["author_id"], &data["thread_id"]), (&json!("alice"), &json!("t")));
    assert_eq!(data["hashtags"], json!(["a"]));
    let data = data_of("trend_update", json!({ "trend": { "name": "rust", "post_count": 5 } }));
    assert_eq!((&data["topic"], &data["post_count"]), (&json!("rust"), &json!(5)));
}

#[test]
fn step_4_other_spellings_are_renamed() {
    let check = |event_type: &str, given: Value, (field, value): (&str, Value)| {
        assert_eq!(data_of(event_type, given.clone())[field], value, "{event_type} {given}");
    };
    let act = |field: &str| json!({ "tweet_id": "t", field: "u" });
    check("post.liked", act("user_id"), ("post_id", json!("t")));
    check("post.liked", act("actor_id"), ("user_id", json!("u")));
    check("trend.reported", json!({ "topic": "a", "tweet_count": 1 }), ("post_count", json!(1)));
    let follow = json!({ "follower_id": "a", "followed_id": "b" });
    check("FOLLOW", follow.clone(), ("user_id", json!("a")));
    check("FOLLOW", follow, ("target_id", json!("b")));
    let post = json!({ "post_id": "p", "author_id": "a", "content": "c" });
    check("post.created", post, ("text", json!("c")));
    check("notification:system", json!({ "message": "m" }), ("text", json!("m")));
    let reaction = json!({ "post_id": "p", "user_id": "u", "type": "LOVE", "new_count": 3 });
    check("post.reacted", reaction.clone(), ("reaction_type", json!("LOVE")));
    check("post.reacted", reaction, ("count", json!(3)));
    let notification = json!({ "notification_id": "n", "user_id": "u", "type": "LIKE" });
    check("notification.created", notification, ("kind", json!("like")));
    check("typing.start", json!({ "thread_id": "t", "user_id": "u" }), ("scope", json!("t")));
    let metric = json!({ "metric": "m", "value": 1, "account_id": "s" });
    check("metric.updated", metric, ("social_account_id", json!("s")));
    let presence = json!({ "user_id": "u", "status": "online", "currentPage": "/home" });
    check("presence:update", presence, ("page", json!("/home")));
    let feed = json!({ "user_id": "u", "new_tweets": [{}] });
    check("feed_update", feed, ("posts", json!([{}])));
}

#[test]
fn step_4_a_present_field_is_not_replaced() {
    let given = json!({ "post_id": "p", "tweet_id": "t", "user_id": "u" });
    assert_eq!(data_of("post.liked", given.clone()), given);
    let given = json!({ "post_id": null, "tweet_id": "t", "user_id": "u" });
    assert_eq!(data_of("post.liked", given), json!({ "post_id": "t", "user_id": "u" }));
}

#[test]
fn step_5_defaults_fill_absent_fields() {
    let event = admitted(sent("direct_message", json!({ "sender_id": 7, "text": "hi" })));
    assert_eq!(event.key, "dm-7");
    let data: Value = serde_json::from_str(&event.data).expect("JSON");
    assert_eq!((&data["message_id"], &data["conversation_id"]), (&json!("e1"), &json!("dm-7")));
    assert_eq!(admitted(sent("trend_update", json!({ "topic": "a" }))).key, "global");
    assert_eq!(admitted(sent("tweet_delete", json!({ "post_id": "p" }))).key, "acc");
}

#[test]
fn step_6_required_fields_and_types_are_checked() {
    let check = |event_type: &str, data: Value, (reason, field): (Reason, &str)| {
        check_refused(sent(event_type, data), reason, &format!("data.{field}"));
    };
    let with = |field: &str, value: Value| {
        let mut data = json!({ "post_id": "p", "author_id": "a", "text": "t" });
        data[field] = value;
        data
    };
    check("post.created", with("text", Value::Null), (Reason::MissingField, "text"));
    check("post.created", with("text", json!(1)), (Reason::BadField, "text"));
    check("post.created", with("hashtags", json!("a")), (Reason::BadField, "hashtags"));
    check("post.created", with("hashtags", json!(["a", 1])), (Reason::BadField, "hashtags"));
    check("post.created", with("media", json!([[]])), (Reason::BadField, "media"));
    check("post.created", with("author", json!("a")), (Reason::BadField, "author"));
    check("account.login", json!({ "success": "yes" }), (Reason::BadField, "success"));
    for bad in [json!(1.0), json!("1"), json!(1e3), json!(u64::MAX)] {
        let data = json!({ "followers": bad });
        check("account.followers_changed", data, (Reason::BadField, "followers"));
    }
    let huge =
        r#"{"event_type":"metric.updated","account_id":"a","data":{"metric":"m","value":1e999}}"#;
    assert_eq!(refused(huge), (Reason::BadField, Some("data.value".into())));
    let reset = json!({ "endpoint": "e", "reset_at": "soon" });
    check("account.rate_limited", reset, (Reason::BadField, "reset_at"));
    let alert = json!({ "alert_type": "a", "severity": "odd" });
    check("account.health_alert", alert, (Reason::BadField, "severity"));
    let mention = json!({ "author_id": "a", "text": "t", "sentiment": -1.5 });
    check("mention.created", mention, (Reason::BadField, "sentiment"));
    check(
        "notification.read",
        json!({ "user_id": "u" }),
        (Reason::MissingField, "notification_id"),
    );
    admitted(sent("notification.read", json!({ "user_id": "u", "all": true })));
    let ai = json!({ "response_id": "r", "post": {}, "persona": {} });
    check("post.ai_responded", ai, (Reason::MissingField, "persona.id"));
    let region = json!({ "topic": "t", "region": "" });
    check("trend.reported", region, (Reason::BadId, "region"));
}

#[test]
fn custom_types_and_unknown_commands_pass() {
    let text = r#"{"account_id":"a","event_type":"custom.order","data":{"tweetId": 1e2, "x":[ ]}}"#;
    let event = run(text).expect("custom").event;
    assert_eq!((event.event_type.as_str(), event.key.as_str()), ("custom.order", "a"));
    assert_eq!(event.data, r#"{"tweetId":1e2,"x":[]}"#);
    let event = admitted(sent("command.dance", json!({ "connection_id": "k" })));
    assert_eq!((event.event_type.as_str(), event.priority), ("command.dance", Priority::High));
    assert!(event.data.contains(r#""command_id":"e1""#), "{}", event.data);
}

#[test]
fn unchanged_text_is_kept_byte_for_byte() {
    let data = concat!(
        r#"{"post_id":9007199254740993,"author_id":"あ","text":"日本 😀 \ud83d\ude00 \u0000 \/ é","#,
        r#""x":1.10,"y":1E5,"z":[1,{"a":-0}]}"#,
    );
    let text = format!(r#"{{"event_type":"post.created","account_id":"a","data":{data}}}"#);
    assert_eq!(run(&text).expect("fine").event.data, data);
}

#[test]
fn white_space_is_removed_outside_strings() {
    let text = concat!(
        "{ \"event_type\" : \"custom.x\",\n\"account_id\":\"a\", ",
        "\"data\" : { \"a b\" : [ 1 ,\n 2 ] , \"c\":\" \\\" d \" } }",
    );
    assert_eq!(run(text).expect("fine").event.data, r#"{"a b":[1,2],"c":" \" d "}"#);
    let text = text
        .replace("custom.x", "message.read")
        .replace("\"a b\" : ", "\"readerId\":3,\"conversationId\":4,\"x\":");
    assert_eq!(
        run(&text).expect("fine").event.data,
        r#"{"reader_id":3,"conversation_id":4,"x":[1,2],"c":" \" d "}"#
    );
}

#[test]
fn every_reason_has_its_own_name() {
    let names: std::collections::BTreeSet<&str> = Reason::ALL.iter().map(|r| r.as_str()).collect();
    assert_eq!(names.len(), Reason::ALL.len());
}

/// A valid value of a field.
fn valid(field: &Field, n: usize) -> Value {
    match field.kind {
        FieldKind::Id => json!(format!("id,{n}/日")),
        FieldKind::Text => match field.values.first() {
            Some(value) => json!(value),
            None => json!(format!("text {n}")),
        },
        FieldKind::Integer => json!(n),
        FieldKind::Number => json!(0.5),
        FieldKind::Bool => json!(true),
        FieldKind::Time => json!("2026-01-05T10:00:00Z"),
        FieldKind::Object => json!({ "id": n }),
        FieldKind::Texts => json!(["a"]),
        FieldKind::Objects => json!([{}]),
    }
}

#[test]
fn every_type_is_admitted_encoded_and_delivered_to_valid_channels() {
    let catalogue = Catalogue::builtin();
    for event_type in catalogue.types() {
        let fields = event_type.fields.iter().enumerate();
        let data: Value = fields.map(|(n, f)| (f.name.clone(), valid(f, n))).collect();
        let mut event = if event_type.producers {
            admitted(sent(&event_type.name.replace('*', "x"), data))
        } else {
            let emitted = admitted(like_with("source", Value::Null));
            Event { event_type: event_type.name.clone(), data: data.to_string(), ..emitted }
        };
        event.source = Some("op/any".into());
        let bytes = event.encode();
        let view = EventView::decode(&bytes).expect("own encoding");
        assert_eq!(view.to_event(), event);
        let deliveries = catalogue.deliveries(&view).expect("admitted");
        let rules = event_type.channels.iter().filter(|rule| rule.when.is_none());
        assert!(deliveries.len() >= rules.count(), "{}: {deliveries:?}", event_type.name);
        for delivery in deliveries {
            let channel = Channel::parse(Catalogue::builtin(), &delivery.channel).expect("a name");
            assert_eq!(channel.name(), delivery.channel);
            assert!(channel.kind.classes.contains(&delivery.class));
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::btree_map("[a-zA-Z_]{0,8}", inner, 0..5)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn custom_data_is_equal_after_admission(
        fields in proptest::collection::btree_map("\\PC{0,8}", any_json(), 0..8),
        pretty: bool,
    ) {
        let data: Value = fields.into_iter().collect();
        let event = json!({ "event_type": "custom.x", "account_id": "a", "data": data });
        let text = if pretty { format!("{event:#}") } else { event.to_string() };
        let admitted = run(&text).expect("custom data is unchecked").event;
        prop_assert!(!admitted.data.contains('\n'));
        prop_assert_eq!(admitted.data, data.to_string());
    }

    #[test]
    fn texts_survive_normalisation(text: String, name in "\\PC{1,10}") {
        let data = data_of("post_created", json!({
            "postId": 1, "author": { "id": "a", "name": name }, "content": text,
        }));
        prop_assert_eq!(&data["text"], &json!(text));
        prop_assert_eq!(&data["author"]["name"], &json!(name));
    }

    #[test]
    fn no_bytes_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let _ = admit(Catalogue::builtin(), Some(&bytes), &ORIGIN);
    }

    #[test]
    fn no_values_panic(
        at in 0..1000usize, fields in proptest::collection::vec(any_json(), 8),
    ) {
        let types = Catalogue::builtin().types();
        let event_type = &types[at % types.len()];
        let names = event_type.fields.iter().map(|field| field.name.clone());
        let data: Value = names.zip(fields.iter().cycle().cloned()).collect();
        let mut event = sent(&event_type.name.replace('*', "x"), data);
        event["timestamp"] = fields[0].clone();
        event["key"] = fields[1].clone();
        if let Ok(admitted) = run(&event.to_string()) {
            let view = admitted.event.view();
            let deliveries = Catalogue::builtin().deliveries(&view).expect("admitted");
            for delivery in deliveries {
                let parsed = Channel::parse(Catalogue::builtin(), &delivery.channel);
                prop_assert_eq!(parsed.map(|channel| channel.name()), Ok(delivery.channel));
            }
        }
    }
}

#[test]
fn a_long_name_of_a_member_that_is_not_json_is_shortened() {
    let name = "n".repeat(2_000);
    for text in [
        format!("{{\"{name}\":tru}}"),
        format!("{{\"{name}\":1e999}}"),
        format!("{{\"data\":{{\"{name}\":tru}}}}"),
        format!("{{\"data\":{{\"{name}\":1e999}}}}"),
    ] {
        let refused = Envelope::read(&text).expect_err("refused");
        let field = refused.field.expect("a field");
        assert_eq!(field.chars().count(), 81, "{field}");
        assert!(field.ends_with('…'), "{field}");
    }
}
