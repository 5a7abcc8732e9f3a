//! State of channels on a running server: snapshots and changes over each transport.
//!
//! The counts of a post and the edges of a user are read as one document, over WebSocket, over SSE
//! and by `tidewire tail`; all of them must have the same, also after the server was killed.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidewire_tests::event_source::EventSource;
use tidewire_tests::server::Server;
use tidewire_tests::websocket::WebSocketClient;

/// How long the pipeline may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Users that `ann` follows.
const FOLLOWED: usize = 300;

/// Values by key.
type State = BTreeMap<String, Value>;

fn post(server: &Server, events: &[Value]) {
    let body: String = events.iter().map(|event| format!("{event}\n")).collect();
    let answer = server.http().post("/v1/events", "application/x-ndjson", body.as_bytes());
    assert_eq!(answer.unwrap().status, 202);
}

fn follow(event_type: &str, followee: &str, id: &str) -> Value {
    json!({
        "event_id": id, "event_type": event_type, "account_id": "demo",
        "data": { "user_id": "ann", "target_id": followee },
    })
}

fn put_entries(state: &mut State, entries: &Value) {
    for entry in entries.as_array().unwrap() {
        assert_eq!(entry["account_id"], "demo", "{entry}");
        state.insert(entry["key"].as_str().unwrap().to_owned(), entry["value"].clone());
    }
}

/// The state of a channel as one document.
fn fetch(server: &Server, channel: &str) -> State {
    let answer = server.http().get(&format!("/v1/channels/{channel}")).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let document = answer.json();
    assert_eq!(document["channel"], channel);
    assert_eq!(document["truncated"], false);
    assert!(document["position"].is_string(), "{document}");
    let mut state = State::new();
    put_entries(&mut state, &document["state"]);
    state
}

/// Applies a frame or block to what a client knows of a channel.
fn apply(state: &mut State, frame: &Value) {
    if frame["op"] == "snapshot" {
        if frame["first"] == true {
            state.clear();
        }
        put_entries(state, &frame["state"]);
    } else if frame["op"] == "deleted" {
        assert!(state.remove(frame["key"].as_str().unwrap()).is_some(), "{frame}");
    } else if let Some(key) = frame["key"].as_str() {
        assert!(frame["position"].is_null(), "{frame}");
        state.insert(key.to_owned(), frame["data"].clone());
    }
}

/// Reads frames until the state has this many keys.
fn read_websocket(client: &mut WebSocketClient, state: &mut State, keys: usize) {
    let deadline = Instant::now() + LIMIT;
    while state.len() != keys {
        assert!(Instant::now() < deadline, "{} of {keys} keys", state.len());
        if let Some(frame) = client.next_frame(LIMIT).unwrap() {
            apply(state, &frame);
        }
    }
}

fn read_stream(stream: &mut EventSource, state: &mut State, keys: usize) {
    let deadline = Instant::now() + LIMIT;
    while state.len() != keys {
        assert!(Instant::now() < deadline, "{} of {keys} keys", state.len());
        if let Some(message) = stream.next_message(LIMIT).unwrap() {
            apply(state, &serde_json::from_str(&message.data).unwrap());
        }
    }
}

fn tailed(server: &Server, channel: &str, keys: usize) -> State {
    let count = keys.to_string();
    let args = ["tail", channel, "--snapshot", "--json", "--count", &count];
    let (status, printed) = server.run_verb(&args, None);
    assert!(status.success(), "{status}: {printed}");
    let mut state = State::new();
    for line in printed.lines() {
        put_entries(&mut state, &json!([serde_json::from_str::<Value>(line).unwrap()]));
    }
    state
}

fn wait_for_keys(server: &Server, channel: &str, keys: usize) -> State {
    let deadline = Instant::now() + LIMIT;
    loop {
        let state = fetch(server, channel);
        if state.len() == keys {
            return state;
        }
        assert!(Instant::now() < deadline, "{} of {keys} keys of {channel}", state.len());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn every_transport_tells_the_same_state_and_its_changes_also_after_a_kill() {
    let mut server = Server::start(&[]);
    let name = |n: usize| format!("u{n:03}");
    let follows: Vec<Value> =
        (0..FOLLOWED).map(|n| follow("user.followed", &name(n), &format!("f{n}"))).collect();
    post(&server, &follows);
    let channel = "follows:ann";
    let first = wait_for_keys(&server, channel, FOLLOWED);

    let mut client = WebSocketClient::connect(server.addr(), "ann", None).unwrap();
    let subscribe = json!({"op": "subscribe", "channel": channel, "snapshot": true});
    client.send(&subscribe).unwrap();
    let mut by_websocket = State::new();
    read_websocket(&mut client, &mut by_websocket, FOLLOWED);
    assert_eq!(by_websocket, first);
    let path = format!("/v1/sse?channels={channel}&snapshot=true&user=ann");
    let mut stream = EventSource::open(server.addr(), &path, None, None).unwrap();
    let mut by_stream = State::new();
    read_stream(&mut stream, &mut by_stream, FOLLOWED);
    assert_eq!(by_stream, first);
    assert_eq!(tailed(&server, channel, FOLLOWED), first);

    post(&server, &[follow("user.unfollowed", &name(7), "g7")]);
    post(&server, &[follow("user.followed", "zoe", "g8")]);
    let gone = |state: &State| !state.keys().any(|key| key.contains(&name(7)));
    let deadline = Instant::now() + LIMIT;
    while !(gone(&by_websocket) && by_websocket.keys().any(|key| key.contains("zoe"))) {
        assert!(Instant::now() < deadline, "{by_websocket:?}");
        if let Some(frame) = client.next_frame(LIMIT).unwrap() {
            apply(&mut by_websocket, &frame);
        }
    }
    let second = wait_for_keys(&server, channel, FOLLOWED);
    assert_eq!(by_websocket, second);
    while by_stream != second {
        let message = stream.next_message(LIMIT).unwrap().expect("one more change");
        apply(&mut by_stream, &serde_json::from_str(&message.data).unwrap());
    }

    server.kill9();
    server.restart();
    assert_eq!(fetch(&server, channel), second);
    assert_eq!(tailed(&server, channel, FOLLOWED), second);
}

#[test]
fn a_channel_of_both_classes_gives_its_events_alone_unless_a_snapshot_is_asked_for() {
    let server = Server::start(&[]);
    let campaign = |id: &str, name: &str| {
        json!({
            "event_id": id, "event_type": "campaign.paused", "account_id": "demo",
            "data": { "campaign_id": "c1", "campaign_name": name },
        })
    };
    let mut plain = WebSocketClient::connect(server.addr(), "ann", None).unwrap();
    plain.subscribe("campaign:c1", "latest").unwrap();
    post(&server, &[campaign("e1", "one")]);
    let event = plain.next_event(LIMIT).unwrap().expect("the event");
    assert_eq!(event.event_id, "e1");
    wait_for_keys(&server, "campaign:c1", 1);

    let mut client = WebSocketClient::connect(server.addr(), "ann", None).unwrap();
    client.send(&json!({"op": "subscribe", "channel": "campaign:c1", "snapshot": true})).unwrap();
    let mut seen = Vec::new();
    let read = |client: &mut WebSocketClient, seen: &mut Vec<Value>, until: &str| {
        let deadline = Instant::now() + LIMIT;
        while !seen.iter().any(|frame: &Value| frame["op"] == until) {
            assert!(Instant::now() < deadline, "{seen:?}");
            seen.extend(client.next_frame(LIMIT).unwrap());
        }
    };
    read(&mut client, &mut seen, "snapshot");
    post(&server, &[campaign("e2", "two")]);
    read(&mut client, &mut seen, "event");
    std::thread::sleep(Duration::from_millis(500));
    while let Some(frame) = client.next_frame(Duration::from_millis(100)).unwrap() {
        seen.push(frame);
    }
    let kinds: Vec<&str> = seen.iter().filter_map(|frame| frame["op"].as_str()).collect();
    assert_eq!(kinds, ["welcome", "ok", "snapshot", "event", "event"], "{seen:#?}");
    assert_eq!(seen[2]["state"][0]["value"]["campaign_name"], "one");
    let (events, changes): (Vec<_>, Vec<_>) =
        seen[3..].iter().partition(|frame| frame["key"].is_null());
    let ([event], [change]) = (&events[..], &changes[..]) else { panic!("{seen:#?}") };
    assert_eq!((&event["event_id"], &change["event_id"]), (&json!("e2"), &json!("e2")));
    assert_eq!(change["key"], "c1");
    assert!(event["position"].is_string() && change["position"].is_null(), "{seen:#?}");
}

#[test]
fn what_has_no_state_is_refused_with_the_reason() {
    let server = Server::start(&[]);
    for (path, status, part) in [
        ("/v1/channels/posts:ann", 404, "has events and no state"),
        ("/v1/channels/feed:ann?user=ann", 404, "derived channels are not served yet"),
        ("/v1/channels/nothing:ann", 400, "nothing"),
        ("/v1/channels/follows:ann?usr=ann", 400, "did you mean `user`?"),
        ("/v1/sse?channels=follows:ann&snapshot=yes", 400, "true or false"),
    ] {
        let answer = server.http().get(path).unwrap();
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(answer.text().contains(part), "{path}: {}", answer.text());
    }
    assert_eq!(fetch(&server, "follows:nobody"), State::new());
}
