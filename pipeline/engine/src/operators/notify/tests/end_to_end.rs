//! Tests of a notification's whole way: an act, its author, the notification, the unread count.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tidewire_schemas::event::Event;

use crate::derive::dedup::Dedup;
use crate::derive::{ChannelDelivery, Operator, TopologyDriver};
use crate::operators::engagement::Engagement;
use crate::operators::follows::Follows;
use crate::operators::notify::Notify;
use crate::operators::posts::{NotifyResolve, Posts};
use crate::operators::testing::{
    Written, appended, at, dead_letters, event, latest, pipe, pipe_interleaved, state, stream,
};
use crate::operators::unread::Unread;

const OPERATORS: &[&dyn Operator] =
    &[&Dedup, &Posts, &NotifyResolve, &Engagement, &Follows, &Notify, &Unread, &ChannelDelivery];

fn post(post_id: &str, author: &str) -> Event {
    let data = json!({"post_id": post_id, "author_id": author, "text": "hello"});
    event(&format!("post-{post_id}"), "post.created", data)
}

fn like(post_id: &str, user: &str) -> Event {
    let data = json!({"post_id": post_id, "user_id": user, "user_name": "Bob"});
    event(&format!("like-{post_id}-{user}"), "post.liked", data)
}

/// What was delivered to the notifications of `al`.
fn delivered(driver: &mut TopologyDriver) -> Vec<Event> {
    let of_al = stream(driver).into_iter().filter(|w| w.channel == "notifications:al");
    of_al.filter_map(|written| written.event).collect()
}

fn data(event: &Event) -> Value {
    serde_json::from_str(&event.data).expect("data is JSON")
}

/// The state of the notifications of `al` after the interval of updates.
fn published(driver: &mut TopologyDriver, before: &mut Vec<Written>) -> BTreeMap<String, Value> {
    driver.advance_wall_clock_time(1_000);
    before.extend(state(driver));
    let entries = latest(before).into_iter().filter(|((channel, _), _)| channel.ends_with(":al"));
    let notifications = entries.filter(|((channel, _), _)| channel.starts_with("notifications"));
    let value = |data: String| serde_json::from_str(&data).expect("data is JSON");
    notifications.map(|((_, key), data)| (key, value(data))).collect()
}

#[test]
fn a_like_becomes_a_notification_of_the_author_that_counts_until_it_is_read() {
    let mut driver = TopologyDriver::new(OPERATORS);
    let mut written = Vec::new();
    pipe(&mut driver, &[post("p1", "al"), like("p1", "bob")]);
    let created = delivered(&mut driver);
    assert_eq!(created.len(), 1);
    let notification = data(&created[0]);
    let id = notification["notification_id"].as_str().expect("a text").to_owned();
    let expected = json!({"notification_id": id, "user_id": "al", "kind": "like",
        "title": "Bob liked your post", "actor_id": "bob", "actor_name": "Bob", "post_id": "p1",
        "unread_count": 1});
    assert_eq!(notification, expected);
    let entries = published(&mut driver, &mut written);
    assert_eq!(entries["al"], json!({"user_id": "al", "unread_count": 1}));
    assert_eq!(entries[&format!("n/{id}")]["read"], json!(false));
    // The same like with its author, which does not pass the post's key.
    let again = json!({"post_id": "p1", "user_id": "bob", "author_id": "al"});
    pipe(&mut driver, &[event("again", "post.liked", again)]);
    assert_eq!(delivered(&mut driver), []);
    let read = event("read", "notification.read", json!({"user_id": "al", "notification_id": id}));
    pipe(&mut driver, &[read]);
    assert_eq!(data(&delivered(&mut driver)[0])["unread_count"], json!(0));
    let entries = published(&mut driver, &mut written);
    assert_eq!(entries["al"], json!({"user_id": "al", "unread_count": 0}));
    assert_eq!(entries[&format!("n/{id}")]["read"], json!(true));
    assert_eq!(dead_letters(&mut driver), [""; 0]);
    driver.replay().unwrap();
}

#[test]
fn nobody_is_notified_of_a_deleted_post_unless_the_event_names_the_author() {
    let mut driver = TopologyDriver::new(OPERATORS);
    let deleted = json!({"post_id": "p1", "author_id": "al"});
    driver.pipe_input(&post("p1", "al"));
    driver.pipe_facts();
    driver.advance_wall_clock_time(1_000);
    pipe(&mut driver, &[event("d1", "post.deleted", deleted)]);
    driver.advance_wall_clock_time(1_000);
    let of_al = json!({"post_id": "p1", "user_id": "cy", "author_id": "al"});
    pipe(&mut driver, &[like("p1", "bob"), event("named", "post.liked", of_al)]);
    let actors: Vec<Value> =
        delivered(&mut driver).iter().map(|event| data(event)["actor_id"].clone()).collect();
    assert_eq!(actors, ["cy"]);
    driver.replay().unwrap();
}

#[test]
fn list_count_and_ids_do_not_depend_on_the_order_of_the_lanes() {
    let mut events = Vec::new();
    for n in 0..6 {
        events.push(post(&format!("p{n}"), ["al", "bob"][n % 2]));
    }
    for n in 0..40i64 {
        let (post_id, user) = (format!("p{}", n % 6), format!("u{}", n / 6));
        events.push(at(n, like(&post_id, &user)));
        if n % 7 == 0 {
            let data = json!({"user_id": user, "target_id": "al"});
            events.push(at(n, event(&format!("follow-{n}"), "user.followed", data)));
        }
    }
    let all = event("all", "notification.read", json!({"user_id": "al", "all": true}));
    events.push(at(20, all));
    let input = appended(&events, 1_000);
    let mut first = None;
    for seed in 0..24 {
        let mut driver = TopologyDriver::new(OPERATORS);
        pipe_interleaved(&mut driver, &input, seed);
        let created = delivered(&mut driver);
        let created = created.iter().filter(|of| of.event_type == "notification.created");
        let ids: Vec<&String> = created.map(|event| &event.event_id).collect();
        let once: BTreeSet<String> = ids.iter().map(|id| (*id).clone()).collect();
        assert_eq!(once.len(), ids.len(), "seed {seed}");
        let entries = published(&mut driver, &mut Vec::new());
        let read = entries.values().filter(|entry| entry["read"] == json!(true)).count();
        assert!(0 < read && read < entries.len() - 1, "seed {seed}");
        let result = (once, entries);
        assert_eq!(first.get_or_insert_with(|| result.clone()), &result, "seed {seed}");
        assert_eq!(dead_letters(&mut driver), [""; 0]);
        driver.replay().unwrap();
    }
}
