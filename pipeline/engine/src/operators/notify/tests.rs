//! Tests of `notify`: a table of cases, recipients, once a day, the order of lanes, and a model.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};
use tidewire_schemas::Priority;
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::event::Event;
use tidewire_schemas::fields::Fields;

use super::rules::{NotificationRule, RULES};
use super::{DAY_MS, Notify};
use crate::derive::{Operator, START, TopologyDriver};
use crate::operators::follows::Follows;
use crate::operators::testing::{
    ACCOUNT, Appended, Written, appended, at, chance, dead_letters, event, event_of, pipe,
    pipe_interleaved, stream,
};
use crate::port::Table;
use crate::record::Millis;
use crate::topology::Lane;

mod end_to_end;

const OPERATORS: &[&dyn Operator] = &[&Follows, &Notify];

const DONE: Table = Table(115);

/// A notification as `channel kind: title`.
fn line(written: &Written) -> String {
    let event = written.event.as_ref().expect("a stream has no tombstones");
    let fields = Fields::of(&event.data).expect("data is an object");
    let text = |name| fields.text(name).unwrap_or_default().into_owned();
    format!("{} {}: {}", written.channel, text("kind"), text("title"))
}

fn notified(driver: &mut TopologyDriver) -> Vec<String> {
    stream(driver).iter().map(line).collect()
}

/// What the events give, one after the other.
fn check(events: &[Event], expected: &[&str]) {
    let mut driver = TopologyDriver::new(OPERATORS);
    pipe(&mut driver, events);
    let mut lines = notified(&mut driver);
    lines.sort();
    assert_eq!(lines, expected, "{events:?}");
    assert_eq!(dead_letters(&mut driver), [""; 0]);
    driver.replay().unwrap();
}

fn one(event_type: &str, data: Value) -> Vec<Event> {
    vec![event("e1", event_type, data)]
}

fn act(event_id: &str, event_type: &str, user: &str, author: &str) -> Event {
    let data = json!({
        "post_id": "p1", "user_id": user, "author_id": author, "user_name": "Bob",
        "reply_id": event_id, "quote_id": event_id, "text": "hi",
    });
    event(event_id, event_type, data)
}

#[test]
fn each_type_gives_its_kind_to_its_recipient() {
    let liked = |event_type| vec![act("e1", event_type, "bob", "al")];
    check(&liked("post.liked"), &["notifications:al like: Bob liked your post"]);
    check(&liked("post.replied"), &["notifications:al reply: Bob replied to your post"]);
    check(&liked("post.reposted"), &["notifications:al retweet: Bob reposted your post"]);
    check(&liked("post.quoted"), &["notifications:al quote: Bob quoted your post"]);
    let due = json!({"user_id": "al", "kind": "quote", "post_id": "p1", "actor_id": "bob"});
    check(&one("notify.due", due), &["notifications:al quote: bob quoted your post"]);
    let followed = json!({"user_id": "bob", "target_id": "al"});
    check(&one("user.followed", followed), &["notifications:al follow: bob followed you"]);
    let author = json!({"id": "bob", "name": "Bob B."});
    let post = json!({"post_id": "p1", "author_id": "bob", "text": "hi", "author": author,
        "mentions": ["al", "bob", "cy", 7]});
    let lines = [
        "notifications:al mention: Bob B. mentioned you",
        "notifications:cy mention: Bob B. mentioned you",
    ];
    check(&one("post.created", post), &lines);
    let message = json!({"message_id": "m1", "conversation_id": "c1", "sender_id": "x7",
        "sender_name": "Li", "text": "hi"});
    check(&one("message.received", message), &["notices:acc message: New message from Li"]);
    let rating = json!({"review_id": "r1", "rating": 2, "text": "cold"});
    check(&one("review.received", rating), &["notices:acc review: New review, rating 2"]);
}

#[test]
fn approvals_alerts_posts_and_crises_have_their_titles() {
    let approval = json!({"approval_id": "a1", "requested_by": "bob",
        "approver_ids": ["al", "bob", "cy"]});
    let lines = [
        "notifications:al approval: bob requests approval",
        "notifications:cy approval: bob requests approval",
    ];
    check(&one("approval.requested", approval), &lines);
    let resolved = json!({"approval_id": "a1", "decision": "approved", "user_id": "al",
        "requested_by": "bob"});
    let line = "notifications:bob approval: Approval request: approved";
    check(&one("approval.resolved", resolved), &[line]);
    let alert = json!({"alert_type": "quota", "message": "90 % used", "user_id": "al"});
    check(&one("alert.raised", alert), &["notifications:al alert: Alert: quota"]);
    let sla = json!({"conversation_id": "c1", "message_id": "m1", "level": 1,
        "waiting_seconds": 900, "assignee_id": "al"});
    let line = "notifications:al alert: A message has waited 15 min for an answer";
    check(&one("sla.escalated", sla), &[line]);
    let post = json!({"post_id": "p1", "user_id": "al", "error": "refused"});
    let line = "notifications:al post_published: Your post was published";
    check(&one("post.published", post.clone()), &[line]);
    let line = "notifications:al post_failed: Your post was not published";
    check(&one("post.failed", post), &[line]);
    let of_nobody = json!({"post_id": "p1", "error": "refused"});
    let line = "notices:acc post_published: A post was published";
    check(&one("post.published", of_nobody.clone()), &[line]);
    let line = "notices:acc post_failed: A post was not published";
    check(&one("post.failed", of_nobody), &[line]);
    let crisis = json!({"severity": "high", "current": 12});
    let line = "notices:acc crisis: Crisis detected, severity high";
    check(&one("crisis.detected", crisis.clone()), &[line]);
    check(&one("crisis.resolved", crisis), &["notices:acc crisis: Crisis resolved"]);
}

#[test]
fn the_field_that_gave_the_key_decides_between_a_user_and_the_workspace() {
    let user = "notifications:acc";
    let alert = |data: Value| one("alert.raised", data);
    let named = json!({"alert_type": "quota", "message": "m", "user_id": ACCOUNT});
    check(&alert(named), &[&format!("{user} alert: Alert: quota")]);
    let unnamed = json!({"alert_type": "quota", "message": "m"});
    check(&alert(unnamed), &["notices:acc alert: Alert: quota"]);
    // No valid id gives no key.
    let invalid = json!({"alert_type": "quota", "message": "m", "user_id": "a\u{1}b"});
    check(&alert(invalid), &["notices:acc alert: Alert: quota"]);
    let approvers = json!({"approval_id": "a1", "requested_by": "bob", "approver_ids": [ACCOUNT]});
    let line = format!("{user} approval: bob requests approval");
    check(&one("approval.requested", approvers), &[&line]);
    let nobody = json!({"approval_id": "a1", "requested_by": "bob", "approver_ids": []});
    let line = "notices:acc approval: bob requests approval";
    check(&one("approval.requested", nobody), &[line]);
    for (to, expected) in [("recipient_id", user), ("assignee_id", user), ("other", "notices:acc")]
    {
        let message = json!({"message_id": "m1", "conversation_id": "c1", "sender_id": "x7",
            "text": "hi", to: ACCOUNT});
        let line = format!("{expected} message: New message from x7");
        check(&one("message.received", message), &[&line]);
    }
    for (level, expected) in [(1, user), (2, "notices:acc")] {
        let sla = json!({"conversation_id": "c1", "message_id": "m1", "level": level,
            "waiting_seconds": 60, "assignee_id": ACCOUNT});
        let line = format!("{expected} alert: A message has waited 1 min for an answer");
        check(&one("sla.escalated", sla), &[&line]);
    }
}

#[test]
fn a_workspace_and_a_user_of_its_id_are_notified_apart() {
    let post = |id: &str, data: Value| event(id, "post.failed", data);
    let events = [
        post("e1", json!({"post_id": "p1", "error": "x"})),
        post("e2", json!({"post_id": "p1", "error": "x", "user_id": ACCOUNT})),
    ];
    let lines = [
        "notices:acc post_failed: A post was not published",
        "notifications:acc post_failed: Your post was not published",
    ];
    check(&events, &lines);
}

#[test]
fn nobody_is_notified_of_their_own_acts() {
    check(&[act("e1", "post.liked", "al", "al")], &[]);
    check(&one("user.followed", json!({"user_id": "al", "target_id": "al"})), &[]);
    let due = json!({"user_id": "al", "kind": "like", "post_id": "p1", "actor_id": "al"});
    check(&one("notify.due", due), &[]);
}

#[test]
fn nobody_is_notified_of_users_whom_they_block_or_mute_or_who_block_them() {
    let edge = |id: &str, event_type: &str, user: &str, target: &str| {
        event(id, event_type, json!({"user_id": user, "target_id": target}))
    };
    for (event_type, user, target) in
        [("user.blocked", "al", "bob"), ("user.muted", "al", "bob"), ("user.blocked", "bob", "al")]
    {
        let like = act("e2", "post.liked", "bob", "al");
        check(&[edge("e1", event_type, user, target), like], &[]);
    }
    // A mute hides in one direction, and it ends.
    let line = "notifications:al like: Bob liked your post";
    let like = act("e2", "post.liked", "bob", "al");
    check(&[edge("e1", "user.muted", "bob", "al"), like.clone()], &[line]);
    let muted = at(0, edge("e1", "user.muted", "al", "bob"));
    let unmuted = at(1, edge("e3", "user.unmuted", "al", "bob"));
    check(&[muted, unmuted, like], &[line]);
}

/// The ids of the notifications and of their events.
fn ids(written: &[Written]) -> BTreeSet<(String, String)> {
    let ids = written.iter().map(|written| {
        let event = written.event.as_ref().expect("a stream has no tombstones");
        let fields = Fields::of(&event.data).expect("data is an object");
        let id = fields.text("notification_id").expect("it is required").into_owned();
        (id, event.event_id.clone())
    });
    ids.collect()
}

#[test]
fn one_act_gives_one_notification_a_day() {
    let mut driver = TopologyDriver::new(OPERATORS);
    pipe(&mut driver, &[act("e1", "post.liked", "bob", "al")]);
    let first = stream(&mut driver);
    assert_eq!(first.len(), 1);
    let (id, event_id) = ids(&first).pop_first().expect("one");
    assert!(id.starts_with("n_") && id.len() == 34, "{id}");
    assert!(event_id.starts_with("op/notify/"), "{event_id}");
    // Liked again an hour later, and through the other way to the author.
    driver.advance_wall_clock_time(3_600_000);
    let due = json!({"user_id": "al", "kind": "like", "post_id": "p1", "actor_id": "bob"});
    let again = [act("e2", "post.liked", "bob", "al"), event("e3", "notify.due", due)];
    pipe(&mut driver, &again);
    assert_eq!(notified(&mut driver), [""; 0]);
    // Another post, another actor, another kind.
    let data = json!({"post_id": "p2", "user_id": "bob", "author_id": "al"});
    let others = [
        event("e4", "post.liked", data),
        act("e5", "post.liked", "cy", "al"),
        act("e6", "post.reposted", "bob", "al"),
    ];
    pipe(&mut driver, &others);
    assert_eq!(notified(&mut driver).len(), 3);
    driver.advance_wall_clock_time(DAY_MS);
    pipe(&mut driver, &[act("late", "post.liked", "bob", "al")]);
    assert_eq!(notified(&mut driver), [""; 0], "it happened on the day of the first one");
    pipe(&mut driver, &[at(DAY_MS, act("e7", "post.liked", "bob", "al"))]);
    let next = stream(&mut driver);
    assert_eq!(next.len(), 1);
    assert_ne!(ids(&next), ids(&first));
    driver.replay().unwrap();
}

#[test]
fn two_replies_are_two_notifications_and_one_reply_that_is_sent_twice_is_one() {
    let mut driver = TopologyDriver::new(OPERATORS);
    let again = json!({"post_id": "p1", "user_id": "bob", "author_id": "al", "reply_id": "e1"});
    let events = [
        act("e1", "post.replied", "bob", "al"),
        act("e2", "post.replied", "bob", "al"),
        event("e3", "post.replied", again),
    ];
    pipe(&mut driver, &events);
    assert_eq!(ids(&stream(&mut driver)).len(), 2);
    driver.replay().unwrap();
}

#[test]
fn alerts_have_no_entity_but_themselves() {
    let alert = |id| event(id, "alert.raised", json!({"alert_type": "quota", "message": "m"}));
    check(&[alert("e1"), alert("e2")], &["notices:acc alert: Alert: quota"; 2]);
}

#[test]
fn accounts_do_not_share_notifications() {
    let data = json!({"post_id": "p1", "user_id": "bob", "author_id": "al"});
    let mut driver = TopologyDriver::new(OPERATORS);
    for account in ["a", "b"] {
        pipe(&mut driver, &[event_of(account, "e1", "post.liked", data.clone())]);
    }
    assert_eq!(ids(&stream(&mut driver)).len(), 2);
    driver.replay().unwrap();
}

fn mention(data: Value) -> Event {
    event("e2", "mention.created", data)
}

#[test]
fn a_notification_has_the_fields_of_its_type_and_short_texts() {
    let long = "ä".repeat(5_000);
    let data = json!({"message_id": "m1", "conversation_id": "c1", "sender_id": "x7",
        "sender_name": long, "text": long, "recipient_id": "al", "platform": long});
    let message = at(7, event("e1", "message.received", data));
    let mut driver = TopologyDriver::new(OPERATORS);
    pipe(&mut driver, &[message]);
    let written = stream(&mut driver);
    let event = written[0].event.as_ref().unwrap();
    let data: Value = serde_json::from_str(&event.data).unwrap();
    let name = format!("{}…", "ä".repeat(80));
    assert_eq!(data["title"], format!("New message from {name}"));
    assert_eq!(data["text"], format!("{}…", "ä".repeat(280)));
    assert_eq!((&data["user_id"], &data["actor_id"]), (&json!("al"), &json!("x7")));
    assert_eq!(data["actor_name"], name);
    assert_eq!(data["data"], json!({"conversation_id": "c1", "message_id": "m1"}));
    assert_eq!((event.timestamp_ms, event.key.as_str()), (START.0 + 7, "al"));
    assert_eq!(event.correlation_id, "e1");
    let url = format!("https://x/{long}");
    let data = json!({"author_id": "bob", "text": "hi", "mentioned_user_id": "al", "url": url});
    pipe(&mut driver, &[mention(data)]);
    let written = stream(&mut driver);
    assert!(written[0].event.as_ref().unwrap().data.len() < 300, "no link of 10 kB");
    driver.replay().unwrap();
}

#[test]
fn what_is_important_has_a_higher_priority() {
    let approval = json!({"approval_id": "a1", "requested_by": "bob", "approver_ids": ["al"]});
    let mut driver = TopologyDriver::new(OPERATORS);
    let events =
        [event("e1", "approval.requested", approval), act("e2", "post.liked", "bob", "al")];
    pipe(&mut driver, &events);
    let priorities: Vec<Priority> =
        stream(&mut driver).iter().map(|w| w.event.as_ref().unwrap().priority).collect();
    assert_eq!(priorities, [Priority::High, Priority::Normal]);
}

#[test]
fn every_type_that_moves_notify_has_a_rule_of_fields_that_it_has() {
    let types = Catalogue::builtin().types().iter();
    let moved = types.filter(|of| of.moves.iter().any(|entry| entry.operator == "notify"));
    let moved: BTreeSet<&str> = moved.map(|of| of.name.as_str()).collect();
    let ruled: BTreeSet<&str> = RULES.iter().map(|rule| rule.event_type).collect();
    assert_eq!(ruled, moved);
    assert_eq!(ruled.len(), RULES.len());
    for rule in RULES {
        let of = Catalogue::builtin().resolve(rule.event_type).expect("a type");
        let named = rule.fields();
        let unknown: Vec<&&str> = named.iter().filter(|name| of.field(name).is_none()).collect();
        assert_eq!(unknown, [&""; 0], "{}", rule.event_type);
    }
    assert!(NotificationRule::of("poll.updated").is_none());
}

const USERS: [&str; 4] = ["al", "bob", "cy", "acc"];

/// Events of a day and a half, in random lanes.
fn random_acts(seed: u64, count: usize) -> Vec<Appended> {
    let step_ms = 3 * DAY_MS / 2 / count as i64;
    let pick = |n: usize, salt: usize, below: usize| chance(seed, n * 10 + salt, below);
    let random = |n: usize| {
        let event_id = format!("e{n}");
        let [user, other] = [1, 2].map(|salt| USERS[pick(n, salt, USERS.len())]);
        let post = format!("p{}", pick(n, 3, 2));
        let (event_type, data) = match pick(n, 0, 5) {
            0 => ("user.followed", json!({"user_id": user, "target_id": other})),
            1 => ("post.failed", json!({"post_id": post, "error": "x", "user_id": other})),
            2 => ("post.failed", json!({"post_id": post, "error": "x"})),
            3 => (
                "post.created",
                json!({"post_id": post, "author_id": user, "text": "x", "mentions": USERS}),
            ),
            _ => ("post.liked", json!({"post_id": post, "user_id": user, "author_id": other})),
        };
        let priority = Priority::ALL[pick(n, 4, Priority::ALL.len())];
        // Up to an hour before the append.
        let ms = step_ms * n as i64 - pick(n, 5, 60) as i64 * 60_000;
        Event { priority, ..at(ms, event(&event_id, event_type, data)) }
    };
    let events: Vec<Event> = (0..count).map(random).collect();
    appended(&events, step_ms)
}

/// The notifications that the events give, recomputed without state: channel, kind, actor, entity
/// and day.
fn model(input: &[Appended]) -> BTreeSet<(String, String, String, String, i64)> {
    let mut expected = BTreeSet::new();
    for Appended { event, .. } in input {
        let fields = Fields::of(&event.data).expect("data is an object");
        let field = |name| fields.text(name).unwrap_or_default().into_owned();
        let (user, post) = (field("user_id"), field("post_id"));
        let day = event.timestamp_ms.div_euclid(DAY_MS);
        let mut add = |to: String, kind: &str, actor: &str, entity: &str| {
            if to != format!("notifications:{actor}") {
                expected.insert((to, kind.to_owned(), actor.to_owned(), entity.to_owned(), day));
            }
        };
        match event.event_type.as_str() {
            "user.followed" => {
                add(format!("notifications:{}", field("target_id")), "follow", &user, "");
            }
            "post.failed" if user.is_empty() => add("notices:acc".into(), "post_failed", "", &post),
            "post.failed" => add(format!("notifications:{user}"), "post_failed", "", &post),
            "post.created" => {
                for other in USERS {
                    add(format!("notifications:{other}"), "mention", &field("author_id"), &post);
                }
            }
            _ => add(format!("notifications:{}", field("author_id")), "like", &user, &post),
        }
    }
    expected
}

/// The same of what was written.
fn summary(written: &[Written]) -> Vec<(String, String, String, String)> {
    let one = |written: &Written| {
        let event = written.event.as_ref().expect("a stream has no tombstones");
        let fields = Fields::of(&event.data).expect("data is an object");
        let field = |name| fields.text(name).unwrap_or_default().into_owned();
        let of_data = fields.object("data").unwrap_or_default();
        let post = of_data.text("post_id").unwrap_or_default().into_owned();
        let entity = if post.is_empty() { field("post_id") } else { post };
        (written.channel.clone(), field("kind"), field("actor_id"), entity)
    };
    let mut all: Vec<_> = written.iter().map(one).collect();
    all.sort();
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_notifications_are_those_of_a_model_in_any_order_of_the_lanes(seed: u64) {
        let input = random_acts(seed, 60);
        let expected = model(&input).into_iter().map(|(a, b, c, d, _)| (a, b, c, d));
        let mut expected: Vec<_> = expected.collect();
        expected.sort();
        let mut first = None;
        for order in [0, 1, 2, seed | 3] {
            let mut driver = TopologyDriver::new(OPERATORS);
            pipe_interleaved(&mut driver, &input, order);
            let written = stream(&mut driver);
            prop_assert_eq!(&summary(&written), &expected, "order {}", order);
            prop_assert_eq!(ids(&written).len(), written.len(), "no id is there twice");
            let result = (ids(&written), driver.all(DONE));
            let first = first.get_or_insert_with(|| result.clone());
            prop_assert_eq!(&result, &*first, "order {}", order);
            prop_assert_eq!(dead_letters(&mut driver).len(), 0);
            driver.replay().map_err(TestCaseError::fail)?;
        }
    }
}

#[test]
fn a_fact_that_comes_days_late_gives_its_notification_again_with_the_same_ids() {
    let mut driver = TopologyDriver::new(OPERATORS);
    pipe(&mut driver, &[act("e1", "post.liked", "bob", "al")]);
    let first = ids(&stream(&mut driver));
    driver.advance_wall_clock_time(3 * DAY_MS);
    driver.tick();
    pipe(&mut driver, &[at(3 * DAY_MS, act("e2", "post.liked", "bob", "al"))]);
    assert_eq!(notified(&mut driver).len(), 1);
    let late = Millis(START.0 + 5);
    driver.pipe_late(Lane::Low, &act("e3", "post.liked", "bob", "al"), late);
    driver.pipe_facts();
    assert_eq!(ids(&stream(&mut driver)), first);
    driver.replay().unwrap();
}
