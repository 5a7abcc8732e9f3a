//! Maps the file of posts to events, and says what must be delivered for each.
//!
//! Each status becomes a `post.created`, or a `post.reposted` with the post it repeats, with
//! replies and mentions. Ids stay strings (many JSON readers round the file's numbers). Times are
//! shifted so that the newest status is current. Every other post is sent under its S0 alias with
//! that surface's field names and must be delivered like the rest.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tidewire_schemas::time::parse_rfc3339;

/// Account of all events.
pub(crate) const ACCOUNT: &str = "real";

/// One event to send, and what must be delivered for it.
#[derive(Clone, Debug)]
pub(crate) struct ExpectedEvent {
    /// The envelope as it is posted.
    pub(crate) envelope: Value,
    /// Its id.
    pub(crate) event_id: String,
    /// The type that subscribers see.
    pub(crate) canonical: &'static str,
    /// The exact text.
    pub(crate) text: String,
    /// When it happened, shifted, in ms since the epoch.
    pub(crate) timestamp_ms: i64,
    /// Channels that carry it.
    pub(crate) channels: Vec<String>,
}

/// All events, in the order of the file.
pub(crate) fn real_posts() -> Vec<ExpectedEvent> {
    let file: Value = serde_json::from_str(&read_file()).expect("the package's file is JSON");
    let statuses = file["statuses"].as_array().expect("the file lists statuses");
    let newest = statuses.iter().map(created_ms).max().expect("the file has statuses");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    let shift = i64::try_from(now.as_millis()).expect("it is before the year 292,000,000") - newest;
    let mut mapper = Mapper { shift, originals: BTreeSet::new(), events: Vec::new() };
    for status in statuses {
        mapper.map(status);
    }
    mapper.events
}

fn read_file() -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/data/install-real-posts.sh");
    let output = Command::new(script).output().expect("the script of this repository runs");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {complaint}");
    let path = String::from_utf8(output.stdout).expect("a path in UTF-8");
    fs::read_to_string(path.trim()).expect("the script printed a file's path")
}

struct Mapper {
    shift: i64,
    /// Posts already sent: many statuses repeat the same one.
    originals: BTreeSet<String>,
    events: Vec<ExpectedEvent>,
}

impl Mapper {
    fn map(&mut self, status: &Value) {
        match status.get("retweeted_status") {
            Some(original) => {
                self.post(original);
                self.repost(status, original);
            }
            None => self.post(status),
        }
        self.reply(status);
        self.mentions(status);
    }

    fn post(&mut self, status: &Value) {
        let id = text(status, "id_str");
        if !self.originals.insert(id.clone()) {
            return;
        }
        let author = text(&status["user"], "id_str");
        let by_alias = self.originals.len().is_multiple_of(2);
        let (id_field, text_field) = match by_alias {
            true => ("tweet_id", "content"),
            false => ("post_id", "text"),
        };
        let data = json!({
            id_field: id,
            text_field: status["text"],
            "author_id": author,
            "author": author_of(status),
            "lang": status["lang"],
            "hashtags": names(&status["entities"]["hashtags"], "text"),
            "mentions": names(&status["entities"]["user_mentions"], "id_str"),
        });
        let sent_type = if by_alias { "tweet_create" } else { "post.created" };
        let channels = vec![format!("posts:{author}"), format!("timeline:{ACCOUNT}")];
        self.send(
            status,
            MappedEvent { event_id: format!("post-{id}"), sent_type, data },
            channels,
        );
    }

    fn repost(&mut self, status: &Value, original: &Value) {
        let id = text(status, "id_str");
        let data = json!({
            "post_id": original["id_str"],
            "author_id": original["user"]["id_str"],
            "user_id": status["user"]["id_str"],
            "user_name": status["user"]["name"],
            "repost_id": id,
            "text": status["text"],
        });
        let mapped =
            MappedEvent { event_id: format!("repost-{id}"), sent_type: "post.reposted", data };
        self.send(status, mapped, Vec::new());
    }

    fn reply(&mut self, status: &Value) {
        let Some(parent) = status["in_reply_to_status_id_str"].as_str() else { return };
        let id = text(status, "id_str");
        let data = json!({
            "post_id": parent,
            "author_id": status["in_reply_to_user_id_str"],
            "user_id": status["user"]["id_str"],
            "reply_id": id,
            "text": status["text"],
        });
        let mapped =
            MappedEvent { event_id: format!("reply-{id}"), sent_type: "post.replied", data };
        self.send(status, mapped, Vec::new());
    }

    fn mentions(&mut self, status: &Value) {
        let id = text(status, "id_str");
        let mentioned: BTreeSet<_> =
            names(&status["entities"]["user_mentions"], "id_str").into_iter().collect();
        for user in mentioned {
            let data = json!({
                "post_id": id,
                "author_id": status["user"]["id_str"],
                "author": author_of(status),
                "mentioned_user_id": user,
                "text": status["text"],
            });
            let event_id = format!("mention-{id}-{user}");
            let mapped = MappedEvent { event_id, sent_type: "mention.created", data };
            self.send(status, mapped, Vec::new());
        }
    }

    fn send(&mut self, status: &Value, mapped: MappedEvent, mut channels: Vec<String>) {
        let timestamp_ms = created_ms(status) + self.shift;
        channels.push(format!("account:{ACCOUNT}"));
        let canonical = match mapped.sent_type {
            "tweet_create" => "post.created",
            canonical => canonical,
        };
        let envelope = json!({
            "event_id": mapped.event_id,
            "event_type": mapped.sent_type,
            "account_id": ACCOUNT,
            "timestamp": timestamp_ms,
            "data": mapped.data,
        });
        self.events.push(ExpectedEvent {
            envelope,
            event_id: mapped.event_id,
            canonical,
            text: text(status, "text"),
            timestamp_ms,
            channels,
        });
    }
}

struct MappedEvent {
    event_id: String,
    sent_type: &'static str,
    data: Value,
}

fn author_of(status: &Value) -> Value {
    let user = &status["user"];
    json!({
        "id": user["id_str"],
        "name": user["name"],
        "handle": user["screen_name"],
        "avatar_url": user["profile_image_url_https"],
    })
}

fn names(list: &Value, field: &str) -> Vec<String> {
    list.as_array().expect("entities are lists").iter().map(|entity| text(entity, field)).collect()
}

fn text(object: &Value, field: &str) -> String {
    object[field].as_str().unwrap_or_else(|| panic!("no {field} in {object}")).to_owned()
}

/// Parses `Sun Aug 31 00:29:15 +0000 2014`, the file's format.
fn created_ms(status: &Value) -> i64 {
    let created = text(status, "created_at");
    let words: Vec<&str> = created.split(' ').collect();
    let [_, month, day, time, "+0000", year] = words[..] else { panic!("created_at {created}") };
    let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = 1 + months.find(month).expect("an English month") / 3;
    let rfc3339 = format!("{year}-{month:02}-{day}T{time}Z");
    parse_rfc3339(&rfc3339).unwrap_or_else(|| panic!("created_at {created}"))
}

#[test]
fn the_file_has_the_expected_posts() {
    let events = real_posts();
    let count = |canonical: &str| events.iter().filter(|e| e.canonical == canonical).count();
    assert_eq!(count("post.reposted"), 73);
    assert!(count("post.created") >= 27, "each status that repeats none is a post");
    let ids: BTreeSet<_> = events.iter().map(|event| &event.event_id).collect();
    assert_eq!(ids.len(), events.len(), "ids are unique");
    let japanese = events.iter().filter(|e| e.text.chars().any(|c| ('ぁ'..='ヿ').contains(&c)));
    assert!(japanese.count() > 150);
}
