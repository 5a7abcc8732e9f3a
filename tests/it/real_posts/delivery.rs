//! Real posts over every transport: subscribers get what the file holds, in each author's order.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;
use tidewire_schemas::time::parse_rfc3339;
use tidewire_tests::event_source::EventSource;
use tidewire_tests::received_event::{ReceivedEvent, query_escape};
use tidewire_tests::server::Server;
use tidewire_tests::websocket::WebSocketClient;

use super::mapper::{ACCOUNT, ExpectedEvent, real_posts};

/// How long all events may take to arrive on a busy machine.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(60);

/// How long a subscriber waits after its last expected event for one that should not come.
const QUIET: Duration = Duration::from_millis(300);

/// Channels in one SSE address; servers and proxies refuse long ones.
const SSE_CHANNELS: usize = 20;

#[test]
fn every_subscriber_gets_the_posts_of_its_channels_unchanged() {
    check_subscribers(&Server::start(&[]), |server, expected| {
        let (first, second) = expected.split_at(expected.len() / 2);
        post(server, first);
        produce(server, second);
    });
}

/// Every kind of subscriber gets what `send` sends: all real posts.
pub(crate) fn check_subscribers(server: &Server, send: impl FnOnce(&Server, &[ExpectedEvent])) {
    let expected = real_posts();
    let authors = author_channels(&expected);
    let whole = [format!("timeline:{ACCOUNT}"), format!("account:{ACCOUNT}")];
    let mut by_author = open_websocket(server, &authors);
    let mut all = open_websocket(server, &whole);
    let mut sse_by_author = open_sse(server, &authors[..SSE_CHANNELS]);
    let mut sse_all = open_sse(server, &whole);
    send(server, &expected);

    check(&expected, &authors, |limit| by_author.next_event(limit).unwrap());
    check(&expected, &whole, |limit| all.next_event(limit).unwrap());
    check(&expected, &authors[..SSE_CHANNELS], |limit| sse_by_author.next_event(limit).unwrap());
    check(&expected, &whole, |limit| sse_all.next_event(limit).unwrap());
}

/// The channels of all authors.
pub(crate) fn author_channels(expected: &[ExpectedEvent]) -> Vec<String> {
    let channels = expected.iter().flat_map(|event| &event.channels);
    let authors: BTreeSet<_> = channels.filter(|channel| channel.starts_with("posts:")).collect();
    authors.into_iter().cloned().collect()
}

fn open_websocket(server: &Server, channels: &[String]) -> WebSocketClient {
    let mut client = WebSocketClient::connect(server.addr(), "reader", None).unwrap();
    for channel in channels {
        client.subscribe(channel, "latest").unwrap();
    }
    client
}

fn open_sse(server: &Server, channels: &[String]) -> EventSource {
    let path = format!("/v1/sse?from=latest&channels={}", query_escape(&channels.join(",")));
    EventSource::open(server.addr(), &path, None, None).unwrap()
}

/// Posts the events in one request; all must be accepted.
pub(crate) fn post(server: &Server, events: &[ExpectedEvent]) {
    let envelopes: Vec<&Value> = events.iter().map(|event| &event.envelope).collect();
    let body = serde_json::to_vec(&envelopes).unwrap();
    let response = server.http().post("/v1/events", "application/json", &body).unwrap();
    assert_eq!(response.status, 202, "{}", response.text());
    let answer = response.json();
    assert_eq!(answer["accepted"], events.len(), "{answer}");
    for (event, entry) in events.iter().zip(answer["events"].as_array().unwrap()) {
        assert_eq!(entry["event_id"], event.event_id, "answers come in the order of the events");
    }
}

fn produce(server: &Server, events: &[ExpectedEvent]) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("posts.ndjson");
    let lines: Vec<String> = events.iter().map(|event| format!("{}\n", event.envelope)).collect();
    fs::write(&file, lines.concat()).unwrap();
    let (status, printed) = server.run_verb(&["produce", file.to_str().unwrap()], None);
    assert!(status.success(), "{status}: {printed}");
}

/// Reads events until these channels have delivered all they must, compares each with the file,
/// and waits a little longer for surplus ones.
pub(crate) fn check(
    expected: &[ExpectedEvent],
    channels: &[String],
    mut next: impl FnMut(Duration) -> Option<ReceivedEvent>,
) {
    let mut missing: BTreeMap<(String, String), &ExpectedEvent> = BTreeMap::new();
    for event in expected {
        let carried = event.channels.iter().filter(|channel| channels.contains(channel));
        missing.extend(carried.map(|channel| ((channel.clone(), event.event_id.clone()), event)));
    }
    let total = missing.len();
    assert!(total > 0, "these channels must carry something: {channels:?}");
    let deadline = Instant::now() + ARRIVAL_LIMIT;
    let mut order: BTreeMap<String, Vec<String>> = BTreeMap::new();
    while !missing.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let Some(got) = next(left) else {
            panic!("{} of {total} lost: {missing:#?}", missing.len())
        };
        let key = (got.channel.clone(), got.event_id.clone());
        let Some(event) = missing.remove(&key) else {
            panic!("delivered twice, or not subscribed to: {got:?}")
        };
        compare(&got, event);
        if got.channel.starts_with("posts:") {
            order.entry(got.channel).or_default().push(got.event_id);
        }
    }
    let surplus = next(QUIET);
    assert!(surplus.is_none(), "more than the file holds: {surplus:?}");
    for (channel, got) in order {
        let carried = expected.iter().filter(|event| event.channels.contains(&channel));
        let sent: Vec<&String> = carried.map(|event| &event.event_id).collect();
        assert!(got.iter().eq(sent.iter().copied()), "{channel}: {got:?} instead of {sent:?}");
    }
}

fn compare(got: &ReceivedEvent, event: &ExpectedEvent) {
    assert_eq!(got.event_type, event.canonical);
    assert_eq!(got.data_str("text").as_bytes(), event.text.as_bytes(), "{}", event.event_id);
    let at = parse_rfc3339(&got.timestamp);
    assert_eq!(at, Some(event.timestamp_ms), "{}: {}", event.event_id, got.timestamp);
    let sent = &event.envelope["data"];
    for field in ["author_id", "author", "hashtags", "mentions", "repost_id", "mentioned_user_id"] {
        assert_eq!(got.data.get(field), sent.get(field), "{field} of {}", event.event_id);
    }
    let post_id = sent.get("tweet_id").or(sent.get("post_id"));
    assert_eq!(got.data.get("post_id"), post_id, "{}", event.event_id);
}
