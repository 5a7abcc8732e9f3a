//! The rules of the operators applied to the real posts, and how what was published differs.
//!
//! Likes and follows are made up beside the posts, some of them twice or withdrawn. What must be
//! published is computed from all events at once, by the rules of the catalogue and without
//! anything of the operators.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tidewire_schemas::event::EventView;

use super::mapper::{ACCOUNT, real_posts};

/// Entries of state channels by channel and state key, and ids of notifications by recipient.
#[derive(Debug, Default)]
pub(crate) struct Published {
    pub(crate) state: BTreeMap<(String, String), Value>,
    /// Kind, actor and entity of each.
    pub(crate) notifications: BTreeMap<String, Vec<(String, String, String)>>,
    /// The unread counts that came with them.
    pub(crate) unread: BTreeMap<String, Vec<u64>>,
    ids: BTreeSet<String>,
}

impl Published {
    /// Takes a record of `out.state`.
    pub(crate) fn put_state(&mut self, key: &str, value: Option<&[u8]>) {
        let mut parts = key.split('\0');
        let mut next = || parts.next().unwrap().to_owned();
        let (channel, account, state_key) = (next(), next(), next());
        assert_eq!(account, ACCOUNT);
        let key = (channel, state_key);
        match value {
            None => drop(self.state.remove(&key)),
            Some(value) => {
                let event = EventView::decode(value).unwrap();
                let data = serde_json::from_str(event.data).unwrap();
                self.state.insert(key, data);
            }
        }
    }

    /// Takes a record of `out.stream` or `out.urgent`.
    pub(crate) fn put_delivery(&mut self, value: &[u8]) {
        let event = EventView::decode(value).unwrap();
        if event.event_type == "notification.created" {
            let data = serde_json::from_str(event.data).unwrap();
            self.put_notification(event.event_id, &data);
        }
    }

    /// Takes a delivered `notification.created`.
    pub(crate) fn put_notification(&mut self, event_id: &str, data: &Value) {
        assert!(self.ids.insert(event_id.to_owned()), "{event_id} is there twice");
        let kind = text(data, "kind");
        let entity = match kind {
            "reply" => text(&data["data"], "reply_id"),
            "follow" => text(data, "user_id"),
            _ => text(data, "post_id"),
        };
        let user = text(data, "user_id").to_owned();
        let count = data["unread_count"].as_u64().unwrap();
        self.unread.entry(user.clone()).or_default().push(count);
        let of = self.notifications.entry(user).or_default();
        of.push((kind.to_owned(), text(data, "actor_id").to_owned(), entity.to_owned()));
    }

    /// Has the notifications of another one.
    pub(crate) fn take_notifications(&mut self, other: &Self) {
        self.notifications = other.notifications.clone();
        let counts =
            |(user, of): (&String, &Vec<_>)| (user.clone(), (1..=of.len() as u64).collect());
        self.unread = other.notifications.iter().map(counts).collect();
    }

    /// What differs in the notifications, in words: no user has another one, and the counts that
    /// come with a user's are 1, 2, 3 and so on.
    pub(crate) fn wrong_notifications(&self, found: &Self) -> Vec<String> {
        let mut differs = Vec::new();
        let users = self.notifications.keys().chain(found.notifications.keys());
        for user in users.collect::<BTreeSet<_>>() {
            let sorted = |published: &Self| {
                let mut of = published.notifications.get(user).cloned().unwrap_or_default();
                of.sort();
                of
            };
            let (wanted, got) = (sorted(self), sorted(found));
            if wanted != got {
                differs.push(format!("{user}: {wanted:?}, not {got:?}"));
                continue;
            }
            let mut counts = found.unread.get(user).cloned().unwrap_or_default();
            counts.sort_unstable();
            if !counts.iter().copied().eq(1..=wanted.len() as u64) {
                differs.push(format!("{user}: the unread counts are {counts:?}"));
            }
        }
        differs
    }

    /// The same of notifications and state.
    pub(crate) fn differences(&self, found: &Self) -> Vec<String> {
        let mut differs = self.wrong_notifications(found);
        for (key, wanted) in &self.state {
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
        let kinds = ["engagement:", "follows:"];
        let extra = found.state.keys().filter(|key| !self.state.contains_key(*key));
        let extra = extra.filter(|(channel, _)| kinds.iter().any(|kind| channel.starts_with(kind)));
        differs.extend(extra.map(|key| format!("{key:?} is there")));
        differs
    }

    /// Panics unless this is enough to prove anything.
    pub(crate) fn check_size(&self) {
        let users = self.notifications.len();
        assert!(users > 40 && self.state.len() > 100, "{users} users, {}", self.state.len());
    }
}

fn text<'a>(data: &'a Value, name: &str) -> &'a str {
    data[name].as_str().unwrap_or_default()
}

/// The real posts, with made-up likes and follows.
pub(crate) fn events() -> Vec<Value> {
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
pub(crate) fn expected(events: &[Value]) -> Published {
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
