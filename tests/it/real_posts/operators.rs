//! What operators make of the real posts: mentions, notifications, unread counts, counts of posts.
//!
//! The server is killed while it processes them. What it publishes is read from its topics, by
//! subscribers over `tidewire tail` and SSE, and over HTTP, and compared with [`super::expected`].

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;
use tidewire_engine::port::Log;
use tidewire_engine::topology::Topology;
use tidewire_tests::event_source::EventSource;
use tidewire_tests::received_event::query_escape;
use tidewire_tests::server::Server;

use super::expected::{Published, events, expected};
use crate::dead_letters::fixture::{open, read};

/// Events of one request.
const BATCH: usize = 40;

/// Kills while events are posted.
const KILLS: usize = 3;

/// How long everything may take to be processed after the last event, on a busy machine.
const SETTLE_LIMIT: Duration = Duration::from_secs(90);

/// Channels of one subscription.
const CHANNELS: usize = 40;

/// What was published, read from the log of a stopped server.
fn published(log: &dyn Log) -> Published {
    let topology = Topology::default();
    let mut published = Published::default();
    for (_, record) in read(log, &topology, topology.out_state()) {
        let key = String::from_utf8(record.body.key().unwrap().to_vec()).unwrap();
        published.put_state(&key, record.body.value());
    }
    for topic in [topology.out_stream(), topology.out_urgent()] {
        for (_, record) in read(log, &topology, topic) {
            published.put_delivery(record.body.value().unwrap());
        }
    }
    published
}

fn post(server: &Server, events: &[Value]) {
    let body: String = events.iter().map(|event| format!("{event}\n")).collect();
    let answer = server.http().post("/v1/events", "application/x-ndjson", body.as_bytes());
    let answer = answer.unwrap();
    assert!((200..300).contains(&answer.status), "{}", answer.text());
}

/// Posts all events while the server is killed.
fn post_with_kills(server: &mut Server, events: &[Value]) {
    let batches: Vec<_> = events.chunks(BATCH).collect();
    let kill_after = batches.len() / (KILLS + 1);
    for (n, batch) in batches.iter().enumerate() {
        post(server, batch);
        if n % kill_after == kill_after - 1 && n / kill_after < KILLS {
            server.kill9();
            server.restart();
            // A producer that got no answer posts again.
            post(server, batch);
        }
    }
}

/// The channels of notifications, each with the number that must be delivered there.
fn channels(expected: &Published) -> Vec<(String, usize)> {
    let channel = |(user, of): (&String, &Vec<_>)| (format!("notifications:{user}"), of.len());
    expected.notifications.iter().map(channel).collect()
}

/// Reads all notifications by `tidewire tail`.
fn tailed(server: &Server, expected: &Published) -> Published {
    let mut published = Published::default();
    for channels in channels(expected).chunks(CHANNELS) {
        let count: usize = channels.iter().map(|(_, count)| count).sum();
        let count = count.to_string();
        let mut args = vec!["tail", "--from", "earliest", "--json", "--count", &count];
        args.extend(channels.iter().map(|(channel, _)| channel.as_str()));
        let (status, printed) = server.run_verb(&args, None);
        assert!(status.success(), "{status}: {printed}");
        for line in printed.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            put(&mut published, &event["type"], &event["event_id"], &event["data"]);
        }
    }
    published
}

/// Reads all notifications over SSE.
fn streamed(server: &Server, expected: &Published) -> Published {
    let mut published = Published::default();
    for channels in channels(expected).chunks(CHANNELS) {
        let names: Vec<&str> = channels.iter().map(|(channel, _)| channel.as_str()).collect();
        let path = format!("/v1/sse?from=earliest&channels={}", query_escape(&names.join(",")));
        let mut stream = EventSource::open(server.addr(), &path, None, None).unwrap();
        for _ in 0..channels.iter().map(|(_, count)| count).sum() {
            let event = stream.next_event(SETTLE_LIMIT).unwrap().expect("one more must come");
            let (event_type, id) = (event.event_type.into(), event.event_id.into());
            put(&mut published, &event_type, &id, &event.data);
        }
        let surplus = stream.next_event(Duration::from_millis(100)).unwrap();
        assert!(surplus.is_none(), "{surplus:?}");
    }
    published
}

/// The channels that must have state.
fn state_channels(expected: &Published) -> Vec<String> {
    let names: BTreeSet<&String> = expected.state.keys().map(|(channel, _)| channel).collect();
    names.into_iter().cloned().collect()
}

fn put_entry(published: &mut Published, channel: &str, entry: &Value) {
    let key = (channel.to_owned(), entry["key"].as_str().unwrap().to_owned());
    assert!(published.state.insert(key, entry["value"].clone()).is_none(), "{entry} twice");
}

/// Reads the state of all channels over HTTP.
fn fetched_state(server: &Server, expected: &Published) -> Published {
    let mut published = Published::default();
    for channel in state_channels(expected) {
        let path = format!("/v1/channels/{}", channel.replace('%', "%25"));
        let answer = server.http().get(&path).unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        for entry in answer.json()["state"].as_array().unwrap() {
            put_entry(&mut published, &channel, entry);
        }
    }
    published
}

/// Reads as many entries of state by `tidewire tail`.
fn tailed_state(server: &Server, fetched: &Published) -> Published {
    let mut published = Published::default();
    for channels in state_channels(fetched).chunks(CHANNELS) {
        let is_of = |(channel, _): &&(String, String)| channels.contains(channel);
        let count = fetched.state.keys().filter(is_of).count().to_string();
        let mut args = vec!["tail", "--snapshot", "--json", "--count", &count];
        args.extend(channels.iter().map(String::as_str));
        let (status, printed) = server.run_verb(&args, None);
        assert!(status.success(), "{status}: {printed}");
        for line in printed.lines() {
            let entry: Value = serde_json::from_str(line).unwrap();
            put_entry(&mut published, entry["channel"].as_str().unwrap(), &entry);
        }
    }
    published
}

fn put(published: &mut Published, event_type: &Value, event_id: &Value, data: &Value) {
    assert_eq!(event_type, "notification.created");
    published.put_notification(event_id.as_str().unwrap(), data);
}

#[test]
fn operators_say_of_the_real_posts_what_their_rules_say_although_the_server_is_killed() {
    let (mut server, events) = (Server::start(&[]), events());
    post_with_kills(&mut server, &events);
    let expected = expected(&events);
    expected.check_size();
    // These wait for each notification.
    for found in [tailed(&server, &expected), streamed(&server, &expected)] {
        assert_eq!(expected.wrong_notifications(&found), [""; 0]);
    }
    let deadline = Instant::now() + SETTLE_LIMIT;
    loop {
        server.stop();
        let log = open(&server.data_dir());
        let found = published(&*log);
        drop(log);
        let differs = expected.differences(&found);
        if differs.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{differs:#?}");
        server.restart();
        std::thread::sleep(Duration::from_secs(2));
    }
    server.restart();
    let mut fetched = fetched_state(&server, &expected);
    let tailed = tailed_state(&server, &fetched);
    assert_eq!(tailed.state, fetched.state);
    // Of its notifications nothing is read here.
    fetched.take_notifications(&expected);
    assert_eq!(expected.differences(&fetched), [""; 0]);
}
