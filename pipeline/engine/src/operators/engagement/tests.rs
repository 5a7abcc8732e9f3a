//! Tests of the operator `engagement`: cases, a model, interleaved lanes, and limits.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};
use tidewire_schemas::event::Event;

use super::*;
use crate::derive::{ChannelDelivery, START, TopologyDriver};
use crate::operators::testing::{
    Written, appended, at, chance, dead_letters, dropped, event, event_of, latest, lines, pipe,
    pipe_interleaved, state, stream,
};
use crate::port::Table;
use crate::topology::Lane;

const OPERATORS: &[&dyn Operator] = &[&Engagement];

/// The engine's table of timers.
const TIMERS: Table = Table(0);

fn driver() -> TopologyDriver {
    TopologyDriver::new(OPERATORS)
}

/// Something that a user does with post p1.
fn act(id: &str, event_type: &str, user: &str) -> Event {
    event(id, event_type, json!({"post_id": "p1", "user_id": user}))
}

fn reacted(id: &str, event_type: &str, (user, reaction): (&str, &str)) -> Event {
    let data = json!({"post_id": "p1", "user_id": user, "reaction_type": reaction});
    event(id, event_type, data)
}

fn reported(id: &str, counts: Value) -> Event {
    let mut data = json!({"post_id": "p1"});
    data.as_object_mut().unwrap().extend(counts.as_object().unwrap().clone());
    event(id, "engagement.reported", data)
}

fn deleted(id: &str) -> Event {
    event(id, "post.deleted", json!({"post_id": "p1", "author_id": "al"}))
}

/// The counts of post p1 that its channel has in the end: likes, replies, retweets, quotes, views.
fn counts(written: &[Written]) -> Option<[i64; 5]> {
    let latest = latest(written);
    let data = latest.get(&("engagement:p1".to_owned(), "p1".to_owned()))?;
    let data: Value = serde_json::from_str(data).unwrap();
    Some(COUNTED.map(|name| data[name].as_i64().unwrap()))
}

/// The reactions of post p1 that its channel has in the end.
fn reactions(written: &[Written]) -> BTreeMap<String, i64> {
    let of_post = |((channel, reaction), data): ((String, String), String)| {
        let data: Value = serde_json::from_str(&data).unwrap();
        (channel == "reactions:p1").then(|| (reaction, data["count"].as_i64().unwrap()))
    };
    latest(written).into_iter().filter_map(of_post).collect()
}

/// What is written in all, once the last interval has ended.
fn written(driver: &mut TopologyDriver, events: &[Event]) -> Vec<Written> {
    pipe(driver, events);
    driver.advance_wall_clock_time(INTERVAL_MS);
    state(driver)
}

/// What a case is about, its events, and the counts that they give.
type Case = (&'static str, Vec<Event>, [i64; 5]);

fn check_cases(cases: Vec<Case>) {
    for (what, events, expected) in cases {
        let mut driver = driver();
        let written = written(&mut driver, &events);
        assert_eq!(counts(&written), Some(expected), "{what}");
        assert_eq!(dead_letters(&mut driver), [""; 0], "{what}");
        driver.replay().unwrap();
    }
}

fn like(id: &str, user: &str) -> Event {
    act(id, "post.liked", user)
}

fn unlike(id: &str, user: &str) -> Event {
    act(id, "post.unliked", user)
}

#[test]
fn a_user_counts_once_and_can_take_it_back() {
    let repost = |id| act(id, "post.reposted", "bob");
    let unrepost = act("3", "post.unreposted", "bob");
    check_cases(vec![
        ("a like", vec![like("1", "bob")], [1, 0, 0, 0, 0]),
        ("twice", vec![like("1", "bob"), like("2", "bob")], [1, 0, 0, 0, 0]),
        ("of two users", vec![like("1", "bob"), like("2", "eve")], [2, 0, 0, 0, 0]),
        ("taken back", vec![like("1", "bob"), unlike("2", "bob")], [0; 5]),
        (
            "taken back twice",
            vec![like("1", "b"), like("2", "c"), unlike("3", "b"), unlike("4", "b")],
            [1, 0, 0, 0, 0],
        ),
        ("again", vec![like("1", "b"), unlike("2", "b"), like("3", "b")], [1, 0, 0, 0, 0]),
        ("taken back before", vec![at(2, unlike("1", "b")), at(1, like("2", "b"))], [0; 5]),
        ("reposts", vec![repost("1"), repost("2")], [0, 0, 1, 0, 0]),
        ("reposts taken back", vec![repost("1"), unrepost], [0; 5]),
    ]);
}

#[test]
fn replies_quotes_and_responses_count_once_per_id() {
    let with_id = |id: &str, event_type: &str, name: &str, own: &str| {
        event(id, event_type, json!({"post_id": "p1", "user_id": "bob", name: own}))
    };
    let reply = |id, own| with_id(id, "post.replied", "reply_id", own);
    let quote = |id, own| with_id(id, "post.quoted", "quote_id", own);
    let response = |id, own: &str| {
        let data = json!({
            "response_id": own, "post": {}, "persona": {"id": "ai"}, "original_post_id": "p1",
        });
        event(id, "post.ai_responded", data)
    };
    check_cases(vec![
        ("replies", vec![reply("1", "r1"), reply("2", "r1"), reply("3", "r2")], [0, 2, 0, 0, 0]),
        ("quotes", vec![quote("1", "q1"), quote("2", "q2"), quote("3", "q2")], [0, 0, 0, 2, 0]),
        (
            "responses are replies of their own",
            vec![response("1", "r1"), response("2", "r1"), reply("3", "r1")],
            [0, 2, 0, 0, 0],
        ),
    ]);
}

#[test]
fn a_report_sets_counts_and_later_acts_count_from_there() {
    let likes = |id, likes: i64| reported(id, json!({"likes": likes}));
    let both = reported("2", json!({"likes": 9, "views": 3}));
    check_cases(vec![
        ("a report", vec![like("1", "b"), both], [9, 0, 0, 0, 3]),
        ("a like after it", vec![likes("1", 9), like("2", "b")], [10, 0, 0, 0, 0]),
        (
            "a like that it contains is taken back",
            vec![like("1", "b"), likes("2", 9), unlike("3", "b")],
            [8, 0, 0, 0, 0],
        ),
        (
            "a like that it contains is repeated",
            vec![like("1", "b"), likes("2", 9), like("3", "b")],
            [9, 0, 0, 0, 0],
        ),
        ("an older one", vec![at(2, likes("1", 9)), at(1, likes("2", 7))], [9, 0, 0, 0, 0]),
        (
            "one that is processed late",
            vec![at(1, like("1", "b")), at(3, like("2", "c")), at(2, likes("3", 9))],
            [10, 0, 0, 0, 0],
        ),
        ("a negative one", vec![like("1", "b"), likes("2", -4), unlike("3", "b")], [0; 5]),
    ]);
}

#[test]
fn reactions_count_one_by_one() {
    let mut driver = driver();
    let with = |more: Value, event: Event| {
        let mut data: Value = serde_json::from_str(&event.data).unwrap();
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Event { data: data.to_string(), ..event }
    };
    let events = [
        with(json!({"author_id": "al"}), reacted("1", "post.reacted", ("bob", "heart"))),
        reacted("2", "post.reacted", ("eve", "heart")),
        reacted("3", "post.reacted", ("eve", "heart")),
        reacted("4", "post.reacted", ("eve", "a/b,c")),
        reacted("5", "post.unreacted", ("eve", "a/b,c")),
        reacted("6", "post.unreacted", ("eve", "never")),
        with(json!({"count": 41}), reacted("7", "post.reacted", ("bob", "fire"))),
        reacted("8", "post.reacted", ("eve", "fire")),
        reacted("9", "post.unreacted", ("bob", "fire")),
    ];
    let written = written(&mut driver, &events);
    let expected = [("a/b,c", 0), ("fire", 41), ("heart", 2)];
    let expected = expected.map(|(reaction, count)| (reaction.to_owned(), count));
    assert_eq!(reactions(&written), BTreeMap::from(expected));
    assert_eq!(counts(&written), None, "no other count has changed");
    let own = stream(&mut driver);
    assert_eq!(own.len(), 2, "the author was named: {:?}", lines(&own));
    let data = r#"{"post_id":"p1","reaction_type":"heart","count":2,"author_id":"al"}"#;
    assert_eq!(own[1].to_string(), format!("reactions_to:al = reaction.counted {data}"));
    driver.replay().unwrap();
}

#[test]
fn an_update_is_sent_at_once_then_at_most_every_interval_and_the_last_always() {
    let mut driver = driver();
    let like = |n: usize| at(n as i64, act(&format!("e{n}"), "post.liked", &format!("u{n}")));
    pipe(&mut driver, &[like(1)]);
    let zeros = r#""replies":0,"retweets":0,"quotes":0,"views":0}"#;
    let of_post = |likes: usize| {
        format!(
            r#"engagement:p1[p1] = engagement.updated {{"post_id":"p1","likes":{likes},{zeros}"#
        )
    };
    let sent = state(&mut driver);
    assert_eq!(lines(&sent)[0], of_post(1));
    assert_eq!(sent.len(), 2, "the other one is the dashboard's: {:?}", lines(&sent));
    for n in 2..=40 {
        driver.advance_wall_clock_time(10);
        pipe(&mut driver, &[like(n)]);
    }
    let sent: Vec<String> = lines(&state(&mut driver));
    let sent: Vec<&String> = sent.iter().filter(|line| line.starts_with("engagement:")).collect();
    assert_eq!(sent, [&of_post(25)], "after 250 ms");
    driver.advance_wall_clock_time(INTERVAL_MS);
    let sent = state(&mut driver);
    assert_eq!(lines(&sent)[0], of_post(40));
    assert_eq!(sent[0].event.as_ref().unwrap().timestamp_ms, START.0 + 40);
    driver.advance_wall_clock_time(INTERVAL_MS);
    assert_eq!(state(&mut driver), [], "nothing has changed");
    driver.replay().unwrap();
}

#[test]
fn the_deletion_of_a_post_removes_its_entries_and_nothing_counts_until_its_mark_ends() {
    let (drops, driver) = dropped(|| {
        let mut driver = driver();
        let before = [
            act("1", "post.liked", "bob"),
            reacted("2", "post.reacted", ("bob", "heart")),
            reacted("3", "post.reacted", ("bob", "fire")),
        ];
        assert_eq!(written(&mut driver, &before).len(), 4);
        let removed = written(&mut driver, &[act("4", "post.liked", "eve"), deleted("5")]);
        let mut tombstones: Vec<String> =
            removed.iter().filter(|w| w.event.is_none()).map(Written::to_string).collect();
        tombstones.sort();
        let entries = [
            "dashboard:acc[engagement.updated/p1] removed",
            "engagement:p1[p1] removed",
            "reactions:p1[fire] removed",
            "reactions:p1[heart] removed",
        ];
        assert_eq!(tombstones, entries);
        assert!(latest(&removed).is_empty(), "{:?}", lines(&removed));
        assert_eq!(driver.all(REACTIONS.decl().spec.table), []);
        driver.advance_wall_clock_time(KEPT_MS - INTERVAL_MS - 1);
        assert_eq!(written(&mut driver, &[act("6", "post.liked", "eve")]), []);
        driver.advance_wall_clock_time(DAY_MS);
        assert_eq!(driver.all(COUNTS.decl().spec.table), [], "the mark has ended");
        driver
    });
    assert_eq!(drops, ["engagement deleted 1"]);
    driver.replay().unwrap();
}

#[test]
fn a_second_deletion_extends_the_mark_and_an_unknown_post_gets_no_tombstone() {
    let mut driver = driver();
    assert_eq!(written(&mut driver, &[deleted("1")]), []);
    driver.advance_wall_clock_time(KEPT_MS / 2);
    assert_eq!(written(&mut driver, &[deleted("2")]), []);
    driver.advance_wall_clock_time(KEPT_MS / 2 + 1_000);
    assert_eq!(written(&mut driver, &[act("3", "post.liked", "bob")]), []);
    driver.advance_wall_clock_time(KEPT_MS / 2);
    assert_eq!(
        counts(&written(&mut driver, &[act("4", "post.liked", "bob")])),
        Some([1, 0, 0, 0, 0])
    );
    driver.replay().unwrap();
}

#[test]
fn a_post_that_is_deleted_again_and_again_keeps_one_timer() {
    let mut driver = driver();
    for n in 0..5 {
        written(&mut driver, &[deleted(&format!("e{n}"))]);
    }
    let (timers, rows) = (driver.all(TIMERS), driver.all(COUNTS.decl().spec.table));
    assert_eq!((timers.len(), rows.len()), (1, 1));
    driver.advance_wall_clock_time(KEPT_MS + DAY_MS);
    assert_eq!(driver.all(COUNTS.decl().spec.table), []);
    assert_eq!(driver.all(TIMERS), []);
    driver.replay().unwrap();
}

#[test]
fn a_dashboard_entry_is_removed_whatever_characters_the_post_has() {
    let mut driver = driver();
    let post = "a/b, é/";
    let like = event("1", "post.liked", json!({"post_id": post, "user_id": "bob"}));
    let deletion = event("2", "post.deleted", json!({"post_id": post, "author_id": "al"}));
    let written = written(&mut driver, &[like, deletion]);
    assert!(written.iter().any(|w| w.channel == "dashboard:acc" && w.event.is_some()));
    assert!(latest(&written).is_empty(), "{:?}", lines(&written));
}

/// The rows of the operator's tables but those that end by their window, and of timers.
fn left(driver: &mut TopologyDriver) -> usize {
    let tables = [COUNTS.decl(), ACTS.decl(), REACTIONS.decl()];
    let rows: usize = tables.iter().map(|decl| driver.all(decl.spec.table).len()).sum();
    rows + driver.all(TIMERS).len()
}

#[test]
fn an_act_counts_again_after_thirty_days_and_its_row_leaves() {
    let mut driver = driver();
    written(&mut driver, &[act("1", "post.liked", "bob")]);
    driver.advance_wall_clock_time(KEPT_MS / 2);
    written(&mut driver, &[at(KEPT_MS / 2, act("2", "post.liked", "eve"))]);
    driver.advance_wall_clock_time(KEPT_MS / 2);
    let later = at(KEPT_MS, act("3", "post.liked", "bob"));
    assert_eq!(counts(&written(&mut driver, &[later])), Some([3, 0, 0, 0, 0]));
    driver.advance_wall_clock_time(KEPT_MS - DAY_MS);
    let last = at(2 * KEPT_MS - DAY_MS, act("4", "post.liked", "al"));
    assert_eq!(counts(&written(&mut driver, &[last])), Some([4, 0, 0, 0, 0]));
    driver.advance_wall_clock_time(3 * DAY_MS);
    assert_eq!(driver.all(ACTS.decl().spec.table).len(), 1, "the post lives, and old acts leave");
    assert_eq!(driver.all(TIMERS).len(), 1);
    driver.advance_wall_clock_time(KEPT_MS);
    assert_eq!(left(&mut driver), 0);
    driver.replay().unwrap();
}

#[test]
fn a_post_without_acts_for_thirty_days_loses_its_counts_and_entries() {
    let mut driver = driver();
    let first = [
        act("1", "post.liked", "bob"),
        reacted("2", "post.reacted", ("bob", "heart")),
        reported("3", json!({"views": 9})),
    ];
    let mut all = written(&mut driver, &first);
    driver.advance_wall_clock_time(KEPT_MS + DAY_MS);
    all.extend(state(&mut driver));
    assert!(latest(&all).is_empty(), "{:?}", lines(&all));
    assert_eq!(left(&mut driver), 0);
    // The counts end at that time, whether or not their timer has fired.
    written(&mut driver, &[act("4", "post.liked", "bob")]);
    driver.advance_wall_clock_time(KEPT_MS - INTERVAL_MS);
    let again = [at(2 * KEPT_MS + DAY_MS, act("5", "post.liked", "eve"))];
    assert_eq!(counts(&written(&mut driver, &again)), Some([1, 0, 0, 0, 0]));
    driver.advance_wall_clock_time(KEPT_MS + 2 * DAY_MS);
    assert_eq!(left(&mut driver), 0);
    driver.replay().unwrap();
}

#[test]
fn a_withdrawal_of_nothing_leaves_its_act_alone_and_no_entry() {
    let mut driver = driver();
    let nothing = [
        unlike("1", "bob"),
        act("2", "post.unreposted", "eve"),
        reacted("3", "post.unreacted", ("bob", "heart")),
        reported("4", json!({"comments": 4})),
    ];
    assert_eq!(written(&mut driver, &nothing), []);
    for table in [COUNTS.decl(), CHANGES.decl(), REACTIONS.decl()] {
        assert_eq!(driver.all(table.spec.table), [], "{}", table.spec.name);
    }
    assert_eq!((driver.all(ACTS.decl().spec.table).len(), driver.all(TIMERS).len()), (3, 1));
    let early = [at(-1, act("5", "post.liked", "bob"))];
    assert_eq!(counts(&written(&mut driver, &early)), Some([0; 5]), "it was withdrawn");
    driver.advance_wall_clock_time(KEPT_MS + DAY_MS);
    assert_eq!(left(&mut driver), 0);
    driver.replay().unwrap();
}

#[test]
fn acts_of_many_users_are_removed_in_several_calls_by_one_timer() {
    let mut driver = driver();
    for n in 0..2 * SWEPT_MAX + 500 {
        driver.pipe_input(&act(&format!("e{n}"), "post.liked", &format!("u{n}")));
    }
    driver.advance_wall_clock_time(INTERVAL_MS);
    assert_eq!(driver.all(TIMERS).len(), 1, "one of the post");
    driver.advance_wall_clock_time(KEPT_MS + DAY_MS);
    assert_eq!(left(&mut driver), 0);
    assert_eq!(dead_letters(&mut driver), [""; 0]);
    driver.replay().unwrap();
}

#[test]
fn equal_posts_of_two_accounts_count_apart() {
    let mut driver = driver();
    let data = json!({"post_id": "p1", "user_id": "bob"});
    let other = event_of("other", "1", "post.liked", data);
    let written = written(&mut driver, &[act("1", "post.liked", "bob"), other]);
    assert_eq!(counts(&written), Some([1, 0, 0, 0, 0]));
    assert!(latest(&written).contains_key(&("other/engagement:p1".to_owned(), "p1".to_owned())));
}

#[test]
fn a_hundred_reactions_have_counts_and_the_others_are_counted_as_dropped() {
    let (drops, driver) = dropped(|| {
        let mut driver = driver();
        let one = |n: usize| {
            let reaction = format!("r{n:03}");
            let data = json!({
                "post_id": "p1", "user_id": "bob", "reaction_type": &reaction, "count": 3,
            });
            event(&format!("e{n}"), "post.reacted", data)
        };
        let events: Vec<Event> = (0..REACTIONS_MAX as usize + 5).map(one).collect();
        let counted = reactions(&written(&mut driver, &events));
        assert_eq!(counted.len(), REACTIONS_MAX as usize);
        assert!(counted.values().all(|count| *count == 3));
        let removed = written(&mut driver, &[deleted("d")]);
        assert_eq!(removed.len(), REACTIONS_MAX as usize + 2);
        assert_eq!(dead_letters(&mut driver), [""; 0]);
        driver
    });
    assert_eq!(drops, ["engagement reactions_full 5"]);
    driver.replay().unwrap();
}

#[test]
fn no_row_of_a_post_grows_with_its_likes() {
    let mut driver = driver();
    for n in 0..2_000 {
        driver.pipe_input(&act(&format!("e{n}"), "post.liked", &format!("u{n}")));
    }
    for table in Engagement.tables() {
        let rows = driver.all(table.spec.table);
        let longest = rows.iter().map(|(key, value)| key.len() + value.len()).max().unwrap_or(0);
        assert!(longest < 120, "{} has a row of {longest} bytes", table.spec.name);
    }
    assert_eq!(driver.all(COUNTS.decl().spec.table).len(), 1);
    assert_eq!(driver.all(ACTS.decl().spec.table).len(), 2_000);
}

#[test]
fn delivery_and_counting_go_together() {
    let mut driver = TopologyDriver::new(&[&Engagement, &ChannelDelivery]);
    pipe(&mut driver, &[act("1", "post.liked", "bob")]);
    assert_eq!(stream(&mut driver).len(), 1, "the like itself, to account");
    assert_eq!(state(&mut driver).len(), 2);
    driver.replay().unwrap();
}

/// A step of a history: what, by whom, with which event time, and whether in a faster lane.
#[derive(Clone, Debug)]
struct Step {
    what: usize,
    who: usize,
    time_ms: i64,
    hurry: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let time = prop_oneof![0i64..6, 0i64..4_000_000];
    (0usize..13, 0usize..3, time, any::<bool>()).prop_map(|(what, who, time_ms, hurry)| Step {
        what,
        who,
        time_ms,
        hurry,
    })
}

fn history(steps: &[Step]) -> Vec<Event> {
    let made = |(n, step): (usize, &Step)| {
        let (id, user) = (format!("e{n:03}"), format!("u{}", step.who));
        let with_id = |event_type: &str, name: &str| {
            let mut data = json!({"post_id": "p1", "user_id": &user});
            data[name] = json!(format!("i{}", step.who));
            event(&id, event_type, data)
        };
        let made = match step.what {
            0 | 1 => act(&id, "post.liked", &user),
            2 => act(&id, "post.unliked", &user),
            3 => act(&id, "post.reposted", &user),
            4 => act(&id, "post.unreposted", &user),
            5 => with_id("post.replied", "reply_id"),
            6 => with_id("post.quoted", "quote_id"),
            7 | 8 => reacted(&id, "post.reacted", (&user, "heart")),
            9 => reacted(&id, "post.unreacted", (&user, "heart")),
            10 => reported(&id, json!({"likes": n, "replies": 50 + n})),
            11 => reported(&id, json!({"views": n, "retweets": 7, "quotes": n})),
            _ => {
                let data = json!({
                    "post_id": "p1", "user_id": &user, "reaction_type": "heart", "count": n,
                });
                event(&id, "post.reacted", data)
            }
        };
        let priority = if step.hurry { tidewire_schemas::Priority::High } else { made.priority };
        at(step.time_ms, Event { priority, ..made })
    };
    steps.iter().enumerate().map(made).collect()
}

/// The counts that a set of events gives, computed from all of it in order of event time and id:
/// those of posts, and those of the reaction.
fn model(events: &[Event]) -> ([i64; 5], Option<i64>) {
    let mut in_time: Vec<&Event> = events.iter().collect();
    in_time.sort_by_key(|event| (event.timestamp_ms, event.event_id.clone()));
    // Per count: the value, and who holds.
    let mut counts: [(i64, BTreeSet<String>); 6] = Default::default();
    let mut has_reaction = false;
    for event in in_time {
        let data: Value = serde_json::from_str(&event.data).unwrap();
        let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
        let mut turn = |at: usize, who: String, on: bool| {
            let (value, holds) = &mut counts[at];
            *value += match on {
                true => i64::from(holds.insert(who)),
                false => -i64::from(holds.remove(&who)),
            };
        };
        match event.event_type.as_str() {
            "post.liked" => turn(0, text("user_id"), true),
            "post.unliked" => turn(0, text("user_id"), false),
            "post.replied" => turn(1, text("reply_id"), true),
            "post.reposted" => turn(2, text("user_id"), true),
            "post.unreposted" => turn(2, text("user_id"), false),
            "post.quoted" => turn(3, text("quote_id"), true),
            "post.reacted" | "post.unreacted" => {
                has_reaction |= event.event_type == "post.reacted";
                turn(5, text("user_id"), event.event_type == "post.reacted");
                if let Some(count) = data["count"].as_i64() {
                    counts[5].0 = count;
                }
            }
            "engagement.reported" => {
                for (at, name) in COUNTED.iter().enumerate() {
                    counts[at].0 = data[name].as_i64().unwrap_or(counts[at].0);
                }
            }
            other => panic!("{other}"),
        }
    }
    let value = |at: usize| counts[at].0.max(0);
    ([0, 1, 2, 3, 4].map(value), has_reaction.then(|| value(5)))
}

/// The rows of the operator that say what counts.
fn rows(driver: &mut TopologyDriver) -> Vec<String> {
    let tables = [COUNTS.decl(), ACTS.decl(), REACTIONS.decl()].map(|decl| decl.spec.table);
    tables.iter().map(|table| format!("{:?}", driver.all(*table))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn however_lanes_interleave_the_counts_are_those_of_the_set_of_events(
        steps in proptest::collection::vec(step(), 1..40),
        step_ms in proptest::sample::select(vec![0i64, 7, 100, 60_000]),
        seed: u64,
    ) {
        let events = history(&steps);
        let (expected, reaction) = model(&events);
        let input = appended(&events, step_ms);
        let mut first = None;
        for seed in [0, 1, 2, seed] {
            let mut driver = driver();
            pipe_interleaved(&mut driver, &input, seed);
            let written = state(&mut driver);
            let shown = counts(&written);
            prop_assert_eq!(shown.unwrap_or(expected), expected, "seed {}", seed);
            prop_assert_eq!(reactions(&written).get("heart").copied(), reaction, "seed {}", seed);
            prop_assert_eq!(dead_letters(&mut driver), Vec::<String>::new());
            let end = (latest(&written), rows(&mut driver));
            prop_assert_eq!(first.get_or_insert_with(|| end.clone()), &end, "seed {}", seed);
            driver.replay().unwrap();
        }
    }

    #[test]
    fn a_deleted_post_has_no_entries_however_lanes_interleave(
        steps in proptest::collection::vec(step(), 1..30),
        deletion in any::<proptest::sample::Index>(),
        seed: u64,
    ) {
        let mut events = history(&steps);
        events.insert(deletion.index(events.len() + 1), deleted("deletion"));
        for seed in [0, 1, 2, seed] {
            let mut driver = driver();
            pipe_interleaved(&mut driver, &appended(&events, 100), seed);
            let end = latest(&state(&mut driver));
            prop_assert!(end.is_empty(), "seed {}: {:?}", seed, end);
            prop_assert_eq!(driver.all(REACTIONS.decl().spec.table), vec![]);
            prop_assert_eq!(driver.all(COUNTS.decl().spec.table).len(), 1, "the mark");
            driver.replay().unwrap();
        }
    }

    #[test]
    fn a_rebuilt_order_of_many_acts_gives_the_same_report(seed: u64) {
        // More acts than one window of table 107 has, the report first or last.
        let acts = (0..60).map(|n| {
            let time = chance(seed, n, 3_600_000) as i64;
            at(time, act(&format!("e{n:03}"), "post.liked", &format!("u{n}")))
        });
        let report = [at(1_800_000, reported("report", json!({"likes": 1_000})))];
        let acts: Vec<Event> = acts.collect();
        let expected = model(&[&acts[..], &report].concat()).0;
        for events in [[&report, &acts[..]].concat(), [&acts[..], &report].concat()] {
            let mut driver = driver();
            driver.advance_wall_clock_time(3_600_000);
            prop_assert_eq!(counts(&written(&mut driver, &events)), Some(expected));
            driver.replay().unwrap();
        }
    }
}

/// A late report must not read what it does not need: those rows are made unreadable.
#[test]
fn a_late_report_reads_the_acts_of_its_own_minute_and_the_sums_of_later_ones() {
    let mut driver = driver();
    driver.advance_wall_clock_time(3 * 3_600_000);
    // Event times begin with a minute.
    let begin = MINUTE_MS - START.0.rem_euclid(MINUTE_MS);
    let time = |n: i64| match n {
        0..10 => begin + n,
        10..20 => begin + 1_000 + n,
        20..30 => begin + MINUTE_MS + n,
        30..40 => begin + 2 * 3_600_000 + n,
        _ => begin + 2 * 3_600_000 + MINUTE_MS + n,
    };
    let like = |n| at(time(n), act(&format!("e{n:02}"), "post.liked", &format!("u{n}")));
    let mut likes: Vec<Event> = (0..50).map(like).collect();
    likes.insert(50, at(time(25), act("f25", "post.unliked", "u25")));
    likes.insert(51, at(time(35), act("f35", "post.unliked", "u35")));
    likes.insert(52, at(time(45), act("f45", "post.unliked", "u45")));
    written(&mut driver, &likes);
    let table = CHANGES.decl().spec.table;
    for (key, _) in driver.all(table) {
        let has = |text: &str| key.windows(text.len()).any(|part| part == text.as_bytes());
        let is_needed = (10..20).any(|n| has(&format!("e{n}")));
        if !is_needed && !has("sums/") {
            driver.put(table, &key, b"unreadable");
        }
    }
    let report = at(begin + 500, reported("report", json!({"likes": 1_000})));
    let shown = counts(&written(&mut driver, &[report]));
    assert_eq!(dead_letters(&mut driver), [""; 0]);
    assert_eq!(shown, Some([1_000 + 10 + 9 + 9 + 9, 0, 0, 0, 0]));
}

#[test]
fn a_report_that_names_no_count_changes_nothing() {
    let mut driver = driver();
    assert_eq!(written(&mut driver, &[reported("1", json!({"comments": 4}))]), []);
    driver.pipe_value(Lane::Low, Some(&act("2", "post.liked", "bob").encode()));
    assert_eq!(counts(&state(&mut driver)), Some([1, 0, 0, 0, 0]));
}
