//! What operators make of the real posts: mentions, notifications, unread counts, counts of posts.
//!
//! Likes and follows are made up beside the posts, some of them twice or withdrawn. The server is
//! killed while it processes them. The result is compared with one computed here from all events at
//! once, by the rules of the catalogue and without anything of the operators.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidewire_engine::port::{Isolation, Log, ReadLimit};
use tidewire_engine::record::{Offset, Partition, Record, Topic, TopicPartition};
use tidewire_engine::topology::Topology;
use tidewire_schemas::event::EventView;
use tidewire_schemas::fields::Fields;
use tidewire_tests::server::Server;

use super::mapper::{ACCOUNT, real_posts};
use crate::dead_letters::fixture::open;

/// Events of one request.
const BATCH: usize = 40;

/// Kills while events are posted.
const KILLS: usize = 3;

/// How long everything may take to be processed after the last event, on a busy machine.
const SETTLE_LIMIT: Duration = Duration::from_secs(90);

/// Entries of state channels by channel and state key, and ids of notifications by recipient.
#[derive(Debug, Default)]
struct Published {
    state: BTreeMap<(String, String), Value>,
    notifications: BTreeMap<String, Vec<(String, String, String)>>,
}

fn text<'a>(data: &'a Value, name: &str) -> &'a str {
    data[name].as_str().unwrap_or_default()
}

/// The real posts, with made-up likes and follows.
fn events() -> Vec<Value> {
    let posts: Vec<Value> = real_posts().into_iter().map(|event| event.envelope).collect();
    let mut events = Vec::new();
    for (n, post) in posts.into_iter().enumerate() {
        let data = &post["data"];
        let id = [text(data, "post_id"), text(data, "tweet_id")].concat();
        let (author, at) = (text(data, "author_id").to_owned(), post["timestamp"].clone());
        let is_post = post["event_id"].as_str().is_some_and(|id| id.starts_with("post-"));
        let made = |event_type: &str, nth: usize, data: Value| {
            json!({"event_id": format!("{event_type}-{n}-{nth}"), "event_type": event_type,
                "account_id": ACCOUNT, "timestamp": at, "data": data})
        };
        let mut more = Vec::new();
        for nth in 0..(n % 4) * usize::from(is_post) {
            let user = format!("fan-{}", (n + nth) % 5);
            let named = json!({"post_id": id, "user_id": user, "author_id": author});
            more.push(made("post.liked", nth, named.clone()));
            match nth {
                // The author must be found by the post.
                1 => more.push(made("post.liked", 8, json!({"post_id": id, "user_id": "finder"}))),
                2 => more.push(made("post.unliked", nth, named)),
                _ => more.push(made("post.liked", 9, named)),
            }
            more.push(made("user.followed", nth, json!({"user_id": user, "target_id": author})));
        }
        events.push(post);
        events.append(&mut more);
    }
    events
}

/// What must be published, computed from all events at once.
fn expected(events: &[Value]) -> Published {
    let mut published = Published::default();
    let (mut notified, mut likes) = (BTreeSet::new(), BTreeMap::<String, BTreeSet<String>>::new());
    let mut counted = BTreeMap::<String, [BTreeSet<String>; 2]>::new();
    let authors: BTreeMap<String, String> = events
        .iter()
        .filter(|event| text(event, "event_id").starts_with("post-"))
        .map(|event| &event["data"])
        .map(|d| ([text(d, "post_id"), text(d, "tweet_id")].concat(), text(d, "author_id").into()))
        .collect();
    for event in events {
        let (data, id) = (&event["data"], text(event, "event_id"));
        let post = [text(data, "post_id"), text(data, "tweet_id")].concat();
        let (user, author) = (text(data, "user_id").to_owned(), text(data, "author_id"));
        let known = authors.get(&post).cloned().unwrap_or_default();
        let author = if author.is_empty() { known } else { author.to_owned() };
        let kind = id.split('-').next().unwrap();
        match kind {
            "post" => {
                for to in data["mentions"].as_array().into_iter().flatten() {
                    notified.insert((
                        to.as_str().unwrap().into(),
                        "mention",
                        author.clone(),
                        post.clone(),
                    ));
                }
            }
            "mention" => {
                let to = text(data, "mentioned_user_id").to_owned();
                notified.insert((to, "mention", author, post));
            }
            "repost" => {
                let done = &mut counted.entry(post.clone()).or_default()[1];
                done.insert(user.clone());
                notified.insert((author, "retweet", user, post));
            }
            "reply" => {
                let reply = text(data, "reply_id").to_owned();
                counted.entry(post.clone()).or_default()[0].insert(reply.clone());
                notified.insert((author, "reply", user, reply));
            }
            "post.liked" => {
                likes.entry(post.clone()).or_default().insert(user.clone());
                notified.insert((author, "like", user, post));
            }
            "post.unliked" => drop(likes.entry(post).or_default().remove(&user)),
            "user.followed" => {
                let target = text(data, "target_id").to_owned();
                let entry = (format!("follows:{user}"), format!("follows/{target}"));
                published.state.insert(entry, Value::Null);
                notified.insert((target.clone(), "follow", user, target));
            }
            other => panic!("{other} is no event of this test"),
        }
    }
    for (to, kind, actor, entity) in notified.into_iter().filter(|(to, _, by, _)| to != by) {
        let of = published.notifications.entry(to).or_default();
        of.push((kind.to_owned(), actor, entity));
    }
    put_counts(&mut published, &likes, &counted);
    published
}

/// The counts of posts, and how many notifications are unread: all of them.
fn put_counts(
    published: &mut Published,
    likes: &BTreeMap<String, BTreeSet<String>>,
    counted: &BTreeMap<String, [BTreeSet<String>; 2]>,
) {
    let posts: BTreeSet<String> = likes.keys().chain(counted.keys()).cloned().collect();
    for post in posts {
        let [replies, retweets] = counted.get(&post).map_or([0, 0], |c| [c[0].len(), c[1].len()]);
        let likes = likes.get(&post).map_or(0, BTreeSet::len);
        let counts = json!({"likes": likes, "replies": replies, "retweets": retweets});
        published.state.insert((format!("engagement:{post}"), post), counts);
    }
    for (user, of) in &published.notifications {
        let entry = (format!("notifications:{user}"), user.clone());
        published.state.insert(entry, json!({"unread_count": of.len()}));
    }
}

fn records(log: &dyn Log, topology: &Topology, topic: &Topic) -> Vec<Record> {
    let mut all = Vec::new();
    for partition in (0..topology.partitions()).map(Partition) {
        let at = TopicPartition::new(topic, partition);
        let end = log.bounds(&at, Isolation::Committed).unwrap().end;
        let mut reader = log.reader(Isolation::Committed).unwrap();
        let slot = reader.add(&at, Offset(0)).unwrap();
        while reader.position(slot).unwrap() < end {
            let limit = ReadLimit { records: 1_000, bytes: 1 << 20 };
            reader.take(slot, limit, &mut all).unwrap();
        }
    }
    all
}

/// What was published, read from the log of a stopped server.
fn published(log: &dyn Log) -> Published {
    let topology = Topology::default();
    let mut published = Published::default();
    for record in records(log, &topology, topology.out_state()) {
        let key = String::from_utf8(record.body.key().unwrap().to_vec()).unwrap();
        let mut parts = key.split('\0');
        let (channel, account, state_key) =
            (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        assert_eq!(account, ACCOUNT);
        let key = (channel.to_owned(), state_key.to_owned());
        match record.body.value() {
            None => drop(published.state.remove(&key)),
            Some(value) => {
                let event = EventView::decode(value).unwrap();
                drop(published.state.insert(key, serde_json::from_str(event.data).unwrap()));
            }
        }
    }
    let mut ids = BTreeSet::new();
    for topic in [topology.out_stream(), topology.out_urgent()] {
        for record in records(log, &topology, topic) {
            let event = EventView::decode(record.body.value().unwrap()).unwrap();
            if event.event_type != "notification.created" {
                continue;
            }
            assert!(ids.insert(event.event_id.to_owned()), "{} is there twice", event.event_id);
            let fields = Fields::of(event.data).unwrap();
            let inner = fields.object("data").unwrap_or_default();
            let text = |name: &str| fields.text(name).unwrap_or_default().into_owned();
            let entity = match &text("kind")[..] {
                "reply" => inner.text("reply_id").unwrap_or_default().into_owned(),
                "follow" => text("user_id"),
                _ => text("post_id"),
            };
            let of = published.notifications.entry(text("user_id")).or_default();
            of.push((text("kind"), text("actor_id"), entity));
        }
    }
    published.notifications.values_mut().for_each(|of| of.sort());
    published
}

fn post(server: &Server, events: &[Value]) {
    let body: String = events.iter().map(|event| format!("{event}\n")).collect();
    let answer = server.http().post("/v1/events", "application/x-ndjson", body.as_bytes());
    let answer = answer.unwrap();
    assert!((200..300).contains(&answer.status), "{}", answer.text());
}

#[test]
fn operators_say_of_the_real_posts_what_their_rules_say_although_the_server_is_killed() {
    let (mut server, events) = (Server::start(&[]), events());
    let batches: Vec<_> = events.chunks(BATCH).collect();
    let kill_after = batches.len() / (KILLS + 1);
    for (n, batch) in batches.iter().enumerate() {
        post(&server, batch);
        if n % kill_after == kill_after - 1 && n / kill_after < KILLS {
            server.kill9();
            server.restart();
            // A producer that got no answer posts again.
            post(&server, batch);
        }
    }
    let expected = expected(&events);
    let users = expected.notifications.len();
    assert!(users > 40 && expected.state.len() > 100, "{users} users, {}", expected.state.len());
    let deadline = Instant::now() + SETTLE_LIMIT;
    loop {
        thread::sleep(Duration::from_secs(2));
        server.stop();
        let log = open(&server.data_dir());
        let found = published(&*log);
        drop(log);
        let differs = differences(&expected, &found);
        if differs.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "of {users} users: {differs:#?}");
        server.restart();
    }
}

/// What differs, in words.
fn differences(expected: &Published, found: &Published) -> Vec<String> {
    let mut differs = Vec::new();
    for (user, of) in &expected.notifications {
        let mut of = of.clone();
        of.sort();
        if found.notifications.get(user) != Some(&of) {
            differs.push(format!("{user}: {of:?}, not {:?}", found.notifications.get(user)));
        }
    }
    for user in found.notifications.keys().filter(|u| !expected.notifications.contains_key(*u)) {
        differs.push(format!("{user} is notified"));
    }
    for (key, wanted) in &expected.state {
        let Some(value) = found.state.get(key) else {
            differs.push(format!("{key:?} is missing"));
            continue;
        };
        for (name, wanted) in wanted.as_object().into_iter().flatten() {
            if value.get(name) != Some(wanted) {
                differs.push(format!("{key:?}: {name} must be {wanted}: {value}"));
            }
        }
    }
    differs
}
