//! Tests of participation: cases, idle life, pages, the order of lanes, and a model without rows.
//!
//! They go from the events of threads and conversations to the entries of users.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;
use tidewire_schemas::Priority;
use tidewire_schemas::event::Event;

use super::*;
use crate::derive::{START, TopologyDriver};
use crate::operators::participation::{LIFE_MS, Participation};
use crate::operators::testing::{
    appended, at, dead_letters, event, event_of, latest, lines, pipe, pipe_facts, pipe_interleaved,
    state,
};
use crate::port::Table;
use crate::topology::Lane;

/// Every table of both operators, and the timers.
const TABLES: [Table; 7] =
    [Table(0), Table(5), Table(125), Table(126), Table(127), Table(128), Table(129)];

/// An event of a thread, as `al writes t1`, or of a conversation, as `c1 has al,bo`.
fn act(event_id: &str, text: &str) -> Event {
    let words: Vec<&str> = text.split(' ').collect();
    let [subject, verb, object] = words[..] else { panic!("{text}") };
    let of_thread = json!({"thread_id": object, "user_id": subject, "text": "hi"});
    let users: Vec<&str> = object.split(',').filter(|user| !user.is_empty()).collect();
    let of_conversation = json!({"conversation_id": subject, "participants": users});
    match verb {
        "writes" => event(event_id, "chat.message", of_thread),
        "joins" => event(event_id, "thread.joined", of_thread),
        "leaves" => event(event_id, "thread.left", of_thread),
        "has" => event(event_id, "conversation.updated", of_conversation),
        _ => event(event_id, "conversation.created", json!({"conversation_id": subject})),
    }
}

/// Events a second apart, in this order.
fn acts(texts: &[&str]) -> Vec<Event> {
    let act = |(n, text): (usize, &&str)| at(1_000 * n as i64, act(&format!("e{n}"), text));
    texts.iter().enumerate().map(act).collect()
}

fn driver() -> TopologyDriver {
    TopologyDriver::new(&[&Threads, &Participation])
}

/// The entries that are left: `al: thread/t1`.
fn entries(keys: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let kind = "participation:";
    let entry = |(channel, key): (String, String)| {
        format!("{}: {key}", channel.strip_prefix(kind).expect("a channel of participations"))
    };
    keys.map(entry).collect()
}

fn entries_after(events: &[Event]) -> Vec<String> {
    let mut driver = driver();
    pipe(&mut driver, events);
    let written = state(&mut driver);
    assert_eq!(dead_letters(&mut driver), [""; 0]);
    driver.replay().unwrap();
    entries(latest(&written).into_keys())
}

#[test]
fn who_takes_part_follows_from_the_last_event() {
    let cases: &[(&[&str], &[&str])] = &[
        (&["al joins t1"], &["al: thread/t1"]),
        (&["al writes t1", "bo writes t1"], &["al: thread/t1", "bo: thread/t1"]),
        (&["al joins t1", "bo joins t2", "al leaves t1"], &["bo: thread/t2"]),
        (&["al writes t1", "al leaves t1", "al writes t1"], &["al: thread/t1"]),
        (&["al leaves t1"], &[]),
        (&["c1 has al,bo"], &["al: conversation/c1", "bo: conversation/c1"]),
        (&["c1 has al,bo", "c1 has bo,cy"], &["bo: conversation/c1", "cy: conversation/c1"]),
        (&["c1 has al,bo", "c1 created -"], &["al: conversation/c1", "bo: conversation/c1"]),
        (&["c1 has al,bo", "c1 has "], &[]),
        (&["c1 has al,al"], &["al: conversation/c1"]),
        (&["x has al", "bo writes x"], &["al: conversation/x", "bo: thread/x"]),
        (&["al writes al"], &["al: thread/al"]),
    ];
    for (texts, expected) in cases {
        assert_eq!(entries_after(&acts(texts)), *expected, "{texts:?}");
    }
}

#[test]
fn an_older_event_that_comes_late_changes_nothing() {
    let late = [at(2, act("e1", "al leaves t1")), at(1, act("e2", "al writes t1"))];
    assert_eq!(entries_after(&late), [""; 0]);
    let late = [at(2, act("e1", "c1 has al")), at(1, act("e2", "c1 has bo"))];
    assert_eq!(entries_after(&late), ["al: conversation/c1"]);
    let same_time = [act("e1", "al writes t1"), act("e0", "al leaves t1")];
    assert_eq!(entries_after(&same_time), ["al: thread/t1"], "the greater id counts");
}

#[test]
fn an_entry_says_what_the_user_takes_part_in_and_no_more() {
    let mut driver = driver();
    pipe(&mut driver, &acts(&["al writes t1", "al writes t1", "c1 has al", "al leaves t1"]));
    let thread = r#"participation.changed {"user_id":"al","thread_id":"t1","present":true}"#;
    let conversation =
        r#"participation.changed {"user_id":"al","conversation_id":"c1","present":true}"#;
    let expected = [
        format!("participation:al[thread/t1] = {thread}"),
        format!("participation:al[conversation/c1] = {conversation}"),
        "participation:al[thread/t1] removed".to_owned(),
    ];
    assert_eq!(lines(&state(&mut driver)), expected);
    driver.replay().unwrap();
}

#[test]
fn equal_threads_of_two_accounts_never_meet() {
    let mut driver = driver();
    let other = json!({"thread_id": "t1", "user_id": "al", "text": "x"});
    let other = event_of("other", "e2", "chat.message", other);
    pipe(&mut driver, &[act("e1", "al writes t1"), other, at(9, act("e3", "al leaves t1"))]);
    let left: Vec<(String, String)> = latest(&state(&mut driver)).into_keys().collect();
    assert_eq!(left, [("other/participation:al".to_owned(), "thread/t1".to_owned())]);
    driver.replay().unwrap();
}

#[test]
fn only_changes_are_told_to_users() {
    let mut driver = driver();
    let input = acts(&["al writes t1", "al writes t1", "bo writes t1", "al writes t1"]);
    let told: Vec<String> = pipe(&mut driver, &input).into_iter().map(|(key, _)| key).collect();
    assert_eq!(told, ["al", "bo"]);
    let input = acts(&["c1 has al,bo", "c1 has al,bo", "c1 has bo", "c1 created -"]);
    let told: Vec<String> = pipe(&mut driver, &input).into_iter().map(|(key, _)| key).collect();
    assert_eq!(told, ["al", "bo", "al"]);
    driver.replay().unwrap();
}

#[test]
fn whoever_only_reads_stays_until_the_thread_is_idle() {
    let mut driver = driver();
    pipe(&mut driver, &acts(&["al joins t1", "bo joins t1", "c1 has al,bo"]));
    for day in 1..=70 {
        driver.advance_wall_clock_time(DAY_MS);
        let writes = at(day * DAY_MS, act(&format!("w{day}"), "al writes t1"));
        let about = at(day * DAY_MS, act(&format!("c{day}"), "c1 created -"));
        pipe(&mut driver, &[writes, about]);
    }
    let mut written = state(&mut driver);
    let all = ["al: conversation/c1", "al: thread/t1", "bo: conversation/c1", "bo: thread/t1"];
    assert_eq!(entries(latest(&written).into_keys()), all);
    driver.advance_wall_clock_time(30 * DAY_MS);
    assert_eq!(lines(&state(&mut driver)), [""; 0], "idle for 30 days");
    driver.advance_wall_clock_time(LIFE_MS - 30 * DAY_MS);
    written.extend(state(&mut driver));
    assert!(latest(&written).is_empty());
    driver.advance_wall_clock_time(3 * DAY_MS);
    for table in TABLES {
        assert_eq!(driver.all(table), [], "{table:?}");
    }
    driver.replay().unwrap();
}

#[test]
fn renewals_are_spread_over_the_day() {
    const HOUR_MS: i64 = DAY_MS / 24;
    for text in ["al writes", "has al"] {
        let act_in = |n: i64, hour: i64| {
            let text = match text {
                "has al" => format!("c{n} has al"),
                _ => format!("{text} t{n}"),
            };
            at(hour * HOUR_MS, act(&format!("e{n}-{hour}"), &text))
        };
        let mut driver = driver();
        pipe(&mut driver, &(0..24).map(|n| act_in(n, 0)).collect::<Vec<_>>());
        let mut renewed = Vec::new();
        for hour in 1..=24 {
            driver.advance_wall_clock_time(HOUR_MS);
            let events: Vec<Event> = (0..24).map(|n| act_in(n, hour)).collect();
            renewed.push(pipe(&mut driver, &events).len());
        }
        assert_eq!(renewed.iter().sum::<usize>(), 24, "{text}: once a day each");
        assert!(renewed.iter().all(|of_hour| *of_hour <= 6), "{text}: {renewed:?}");
        driver.replay().unwrap();
    }
}

#[test]
fn who_was_told_late_is_known_for_as_long_as_the_entry_is_shown() {
    for (enters, leaves) in [("al joins t1", "al leaves t1"), ("c1 has al", "c1 has ")] {
        let mut driver = driver();
        driver.advance_wall_clock_time(10 * DAY_MS);
        driver.tick();
        let enters = act("e1", enters);
        driver.pipe_late(Lane::of(enters.priority), &enters, START);
        pipe_facts(&mut driver);
        let mut written = state(&mut driver);
        assert_eq!(latest(&written).len(), 1);
        driver.advance_wall_clock_time(30 * DAY_MS);
        written.extend(state(&mut driver));
        assert_eq!(latest(&written).len(), 1, "it was shown 30 days ago");
        pipe(&mut driver, &[at(40 * DAY_MS, act("e2", leaves))]);
        written.extend(state(&mut driver));
        assert!(latest(&written).is_empty(), "{leaves}");
        driver.replay().unwrap();
    }
}

#[test]
fn a_large_thread_is_renewed_in_pages() {
    let many = 2 * RENEWED_AT_ONCE + 100;
    let mut driver = driver();
    let joins = |n: usize| act(&format!("e{n}"), &format!("u{n:04} joins t1"));
    (0..many).for_each(|n| driver.pipe_input(&joins(n)));
    pipe_facts(&mut driver);
    assert_eq!(latest(&state(&mut driver)).len(), many);
    driver.advance_wall_clock_time(20 * DAY_MS);
    driver.pipe_input(&at(20 * DAY_MS, act("w", "u0000 writes t1")));
    assert_eq!(pipe_facts(&mut driver).len(), RENEWED_AT_ONCE);
    driver.advance_wall_clock_time(1_000);
    let told: BTreeSet<String> = pipe_facts(&mut driver).into_iter().map(|(key, _)| key).collect();
    assert_eq!(told.len(), many - RENEWED_AT_ONCE);
    driver.replay().unwrap();
}

#[test]
fn participants_that_cannot_be_kept_are_a_dead_letter_that_says_what_to_do() {
    let mut driver = driver();
    let names: Vec<String> = (0..=PARTICIPANTS_MAX).map(|n| format!("u{n}")).collect();
    let data = json!({"conversation_id": "c1", "participants": names});
    pipe(&mut driver, &[act("e0", "c1 has al"), event("e1", "conversation.created", data)]);
    let found = dead_letters(&mut driver);
    assert!(found.len() == 1 && found[0].contains("1001 participants, and 1000"), "{found:?}");
    pipe(&mut driver, &[act("e2", "c1 has a\u{1}b")]);
    let found = dead_letters(&mut driver);
    assert!(found.len() == 1 && found[0].contains("which is no id"), "{found:?}");
    assert_eq!(latest(&state(&mut driver)).len(), 1, "the list before stays");
    driver.replay().unwrap();
}

/// Who takes part after these events, whatever their order.
fn model(events: &[Event]) -> Vec<String> {
    let stamp = |event: &Event| (event.timestamp_ms, event.event_id.clone());
    let mut sorted: Vec<&Event> = events.iter().collect();
    sorted.sort_by_key(|event| stamp(event));
    let mut present = BTreeSet::new();
    for event in sorted {
        let fields = tidewire_schemas::fields::Fields::of(&event.data).unwrap();
        if let (Some(user), Some(thread)) = (fields.text("user_id"), fields.text("thread_id")) {
            let entry = format!("{user}: thread/{thread}");
            match &event.event_type[..] {
                "thread.left" => present.remove(&entry),
                _ => present.insert(entry),
            };
        } else if fields.raw("participants").is_some() {
            let conversation = fields.text("conversation_id").unwrap();
            let suffix = format!(": conversation/{conversation}");
            present.retain(|entry| !entry.ends_with(&suffix));
            let users = fields.texts("participants").into_iter();
            present.extend(users.map(|user| format!("{user}{suffix}")));
        }
    }
    present.into_iter().collect()
}

fn histories() -> impl Strategy<Value = Vec<Event>> {
    let texts = vec![
        "al writes t1",
        "al leaves t1",
        "bo joins t1",
        "bo leaves t1",
        "al joins t2",
        "c1 has al",
        "c1 has al,bo",
        "c1 has bo,cy",
        "c1 has ",
        "c1 created -",
        "bo leaves t2",
        "bo writes t2",
    ];
    let priority = proptest::sample::select(vec![
        Priority::Low,
        Priority::Normal,
        Priority::High,
        Priority::Critical,
    ]);
    let one = (proptest::sample::select(texts), priority, 0..20i64);
    proptest::collection::vec(one, 0..30).prop_map(|ones| {
        let act = |(n, (text, priority, time)): (usize, (&str, Priority, i64))| {
            let event = at(time * 1_000, act(&format!("e{n}"), text));
            Event { priority, ..event }
        };
        ones.into_iter().enumerate().map(act).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_order_of_the_lanes_ends_as_the_model_says(
        events in histories(),
        step_ms in proptest::sample::select(vec![700, 3 * 3_600_000]),
        seed in 0u64..1_000,
    ) {
        let input = appended(&events, step_ms);
        let result = |seed| {
            let mut driver = driver();
            pipe_interleaved(&mut driver, &input, seed);
            driver.replay().unwrap();
            assert_eq!(dead_letters(&mut driver), [""; 0]);
            latest(&state(&mut driver))
        };
        let found = result(seed);
        prop_assert_eq!(entries(found.clone().into_keys()), model(&events));
        prop_assert_eq!(found, result(0));
    }

    #[test]
    fn lists_read_back(day: u64, users in proptest::collection::vec(".{0,20}", 0..10)) {
        let list = ParticipantList { day, users };
        let mut bytes = Vec::new();
        list.put(1, &mut bytes);
        let mut from = FieldDecoder(&bytes);
        prop_assert_eq!(ParticipantList::read(1, &mut from), Some(list));
        prop_assert_eq!(from.end(), Some(()));
    }

    #[test]
    fn damaged_lists_are_refused_without_panic(bytes: Vec<u8>) {
        let _ = ParticipantList::read(1, &mut FieldDecoder(&bytes));
    }
}
