//! Everything a running server sends conforms to its documents, and wrong values do not.
//!
//! For this test every object in the documents is closed: a field that is sent and not described
//! fails it.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tidewire_engine::fanout::protocol::names::FrameName;
use tidewire_schemas::catalogue::{Catalogue, Class, EventType, Field, FieldKind};
use tidewire_schemas::position::{PartitionPosition, Position};
use tidewire_tests::event_source::EventSource;
use tidewire_tests::received_event::query_escape;
use tidewire_tests::server::Server;

use super::raw_socket::{Incoming, RawSocket, TIMEOUT};
use super::validator::{Kind, Sample, check_samples};

/// Every id of the events below: the id of each channel they go to.
const ID: &str = "x1";

/// The path of the state of channels, before a channel.
const CHANNELS: &str = "/v1/channels/";

/// A server sends a position to an idle connection every 30 s.
const POSITION_LIMIT: Duration = Duration::from_secs(45);

/// Nothing for this long means that everything has arrived.
const QUIET: Duration = Duration::from_secs(2);

/// Types that a subscriber receives here; the catalogue may grow, not shrink.
const TYPES_MIN: usize = 60;

fn sample(what: impl Into<String>, schema: impl Into<String>, value: Value) -> Sample {
    Sample { what: what.into(), schema: schema.into(), value, valid: true }
}

fn component(name: &str) -> String {
    format!("/components/schemas/{name}")
}

fn fetch(server: &Server, kind: Kind) -> Value {
    server.http().get(kind.path()).expect("an answer").json()
}

fn check(document: &Value, samples: &[Sample]) {
    let wrong: Vec<Sample> = counter_examples(samples);
    let all = [samples, &wrong].concat();
    check_samples(document, &all).unwrap_or_else(|found| panic!("\n{found}"));
}

/// For each schema that samples conform to: a sample with an undescribed field, and one without
/// any field, which must not conform. Documents and producers' objects are left out.
fn counter_examples(samples: &[Sample]) -> Vec<Sample> {
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for sample in samples.iter().filter(|sample| sample.valid && sample.value.is_object()) {
        let open = sample.schema.contains("json/get") || sample.schema.ends_with("Envelope");
        if open || !seen.insert(&sample.schema) {
            continue;
        }
        let mut more = sample.value.clone();
        more["not_described"] = json!(1);
        for (how, value) in [("with a field more", more), ("empty", json!({}))] {
            let what = format!("{} {how}", sample.what);
            wrong.push(Sample { what, schema: sample.schema.clone(), value, valid: false });
        }
    }
    wrong
}

fn data_of(event_type: &EventType, wanted: impl Fn(&Field) -> bool) -> Map<String, Value> {
    let fields = event_type.fields.iter();
    fields
        .map(|field| {
            (field.name.clone(), if wanted(field) { value_of(field) } else { Value::Null })
        })
        .collect()
}

fn value_of(field: &Field) -> Value {
    if let Some(value) = field.values.first() {
        return json!(value);
    }
    let least = field.range.map_or(1.0, |(least, _)| least);
    match field.kind {
        FieldKind::Id => json!(ID),
        FieldKind::Text if field.identifies => json!(ID),
        FieldKind::Text => json!("text"),
        FieldKind::Integer => json!(least as i64),
        FieldKind::Number => json!(least),
        FieldKind::Bool => json!(true),
        FieldKind::Time => json!("2026-01-05T10:00:00Z"),
        FieldKind::Object => json!({ "id": ID }),
        FieldKind::Texts => json!(["text"]),
        FieldKind::Objects => json!([{ "id": ID }]),
    }
}

/// Two events of every type that producers send, one with every field and one with null for the
/// optional ones; and one of a producer's own type.
fn events() -> Vec<Value> {
    let envelope = |event_type: &str, data: Value| {
        let event_type = event_type.to_owned();
        json!({ "event_type": event_type, "account_id": ID, "data": data })
    };
    let mut all = vec![envelope("custom.own", json!({ "anything": [1, null] }))];
    for event_type in Catalogue::builtin().types() {
        if !event_type.producers || event_type.internal || event_type.name.ends_with('*') {
            continue;
        }
        let named = |field: &Field| event_type.one_of.iter().any(|g| g.contains(&field.name));
        let every = data_of(event_type, |_| true);
        let few = data_of(event_type, |field| field.required || named(field));
        for data in [every, few] {
            all.push(envelope(&event_type.name, Value::Object(data)));
        }
    }
    for (n, event) in all.iter_mut().enumerate() {
        event["event_id"] = json!(format!("event-{n}"));
    }
    all
}

/// Publishes them and returns the response.
fn publish(server: &Server, events: &[Value]) -> Value {
    let body = Value::from(events.to_vec()).to_string();
    let answer = server.http().post("/v1/events", "application/json", body.as_bytes());
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.json()
}

/// A channel of every kind that can be subscribed to.
fn channels() -> Vec<String> {
    let kinds = Catalogue::builtin().channel_kinds().iter();
    let served = kinds.filter(|kind| kind.classes.contains(&Class::Stream));
    served.map(|kind| format!("{}:{ID}", kind.name)).collect()
}

/// What arrived on a WebSocket, as samples.
struct Recorded {
    socket: RawSocket,
    samples: Vec<Sample>,
    types: BTreeSet<String>,
}

impl Recorded {
    fn new(server: &Server) -> Self {
        let socket = RawSocket::connect(server.addr(), "/v1/ws?user=ann");
        let mut new = Self { socket, samples: Vec::new(), types: BTreeSet::new() };
        new.read_until(|frame| frame["op"] == "welcome", TIMEOUT);
        new
    }

    /// Sends a valid request, which is a sample too.
    fn send(&mut self, request: &Value) {
        let schema = format!("{}Request", capitalised(&request["op"]));
        self.samples.push(sample(request.to_string(), component(&schema), request.clone()));
        self.socket.send(&request.to_string());
    }

    /// Reads until a frame fits; every frame is a sample.
    fn read_until(&mut self, fits: impl Fn(&Value) -> bool, limit: Duration) -> Option<Value> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.socket.next(left) {
                Incoming::Text(text) => {
                    let frame: Value = serde_json::from_str(&text).expect("frames are JSON");
                    self.types.extend(frame["type"].as_str().map(str::to_owned));
                    let schema = format!("{}Frame", capitalised(&frame["op"]));
                    self.samples.push(sample(text, component(&schema), frame.clone()));
                    if fits(&frame) {
                        return Some(frame);
                    }
                }
                Incoming::Nothing => return None,
                closed @ Incoming::Closed(..) => panic!("{closed:?}"),
            }
        }
    }
}

fn capitalised(op: &Value) -> String {
    let op = op.as_str().expect("every frame has an `op`");
    let (first, rest) = op.split_at(1);
    first.to_uppercase() + rest
}

#[test]
fn every_frame_of_a_websocket_conforms_to_the_asyncapi_document() {
    let mut server = Server::start(&[]);
    let document = fetch(&server, Kind::AsyncApi);
    publish(&server, &events());
    let mut recorded = Recorded::new(&server);
    for (n, channel) in channels().iter().enumerate() {
        recorded.send(&json!({"op": "subscribe", "id": n, "channel": channel, "from": "earliest"}));
        recorded.read_until(|frame| frame["op"] == "ok" && frame["id"] == json!(n), TIMEOUT);
    }
    while recorded.read_until(|_| true, QUIET).is_some() {}
    assert!(recorded.types.len() >= TYPES_MIN, "{:?}", recorded.types);
    provoke_errors(&mut recorded);
    provoke_state(&server, &mut recorded);
    let position = recorded.read_until(|frame| frame["op"] == "position", POSITION_LIMIT);
    let position = position.expect("a quiet connection gets its position");
    provoke_gap(&mut recorded, position["position"].as_str().expect("a position"));
    // Its last frames are read after the process has ended.
    server.stop();
    recorded.read_until(|frame| frame["op"] == "move", TIMEOUT).expect("a stop is announced");
    let ops: BTreeSet<&str> =
        recorded.samples.iter().filter_map(|s| s.value["op"].as_str()).collect();
    for op in FrameName::ALL.map(FrameName::as_str) {
        assert!(ops.contains(op), "no {op} was seen: {ops:?}");
    }
    let samples = [recorded.samples, wrong_data()].concat();
    check(&document, &samples);
}

/// Every response to a wrong message, and a pong with each kind of id.
fn provoke_errors(recorded: &mut Recorded) {
    for id in [json!(7), json!("seven")] {
        recorded.send(&json!({"op": "ping", "id": id}));
        recorded.read_until(|frame| frame["op"] == "pong", TIMEOUT).expect("a pong");
    }
    recorded.send(&json!({"op": "unsubscribe", "id": 1, "channel": format!("posts:{ID}")}));
    recorded.read_until(|frame| frame["op"] == "ok", TIMEOUT).expect("an ok");
    for (message, code) in [
        ("{", "invalid_json"),
        (r#"{"op":"shout","id":1}"#, "invalid_message"),
        (r#"{"op":"subscribe","id":1,"channel":"nothing:a"}"#, "invalid_channel"),
        (r#"{"op":"subscribe","channel":"posts:b","from":"yesterday"}"#, "invalid_position"),
        (r#"{"op":"subscribe","channel":"posts:b","filter":"n == 1"}"#, "invalid_filter"),
        (r#"{"op":"subscribe","channel":"feed:ann"}"#, "not_found"),
        (r#"{"op":"history","id":"h"}"#, "not_found"),
    ] {
        recorded.socket.send(message);
        let error = recorded.read_until(|frame| frame["op"] == "error", TIMEOUT).expect(message);
        assert_eq!(error["code"], code, "{message}: {error}");
    }
}

/// Follows one user, or no longer, in the name of another.
fn follow(server: &Server, event_type: &str, id: &str) {
    publish(
        server,
        &[json!({
            "event_type": event_type, "event_id": id, "account_id": ID,
            "data": { "user_id": "fay", "target_id": "gus" },
        })],
    );
}

/// A snapshot, a change and a deletion of state.
fn provoke_state(server: &Server, recorded: &mut Recorded) {
    recorded.send(&json!({"op": "subscribe", "channel": "follows:fay", "snapshot": true}));
    recorded.read_until(|frame| frame["op"] == "snapshot", TIMEOUT).expect("a snapshot");
    follow(server, "user.followed", "follow-1");
    recorded.read_until(|frame| frame["key"].is_string(), TIMEOUT).expect("a change");
    follow(server, "user.unfollowed", "follow-2");
    recorded.read_until(|frame| frame["op"] == "deleted", TIMEOUT).expect("a deletion");
    follow(server, "user.followed", "follow-3");
    recorded.read_until(|frame| frame["key"].is_string(), TIMEOUT).expect("a change");
    recorded.send(&json!({"op": "unsubscribe", "channel": "follows:fay"}));
    recorded.send(&json!({"op": "subscribe", "channel": "follows:fay", "snapshot": true}));
    let has_entries = |frame: &Value| !frame["state"].as_array().is_none_or(Vec::is_empty);
    recorded.read_until(has_entries, TIMEOUT).expect("a snapshot with an entry");
}

/// A subscription from a position of other topics.
fn provoke_gap(recorded: &mut Recorded, position: &str) {
    let mine = Position::decode(position).expect("a position");
    let other = Position { epoch: mine.epoch.wrapping_add(1), ..mine };
    recorded.send(&json!({"op": "subscribe", "channel": "posts:b", "from": other.encode()}));
    recorded.read_until(|frame| frame["op"] == "gap", TIMEOUT).expect("a gap");
}

/// Events whose data does not conform to their type.
fn wrong_data() -> Vec<Sample> {
    let event = |data: Value| {
        json!({
            "op": "event", "channel": "posts:a", "type": "post.created", "event_id": "e",
            "account_id": "a", "timestamp": "2026-01-05T10:00:00.000Z", "priority": 1,
            "correlation_id": "e", "position": "AbHz3fEJAQcAAAAMjlKG", "data": data,
        })
    };
    let right = json!({ "post_id": "p", "author_id": 5, "text": "t", "lang": null, "own": 1 });
    let no_author = json!({ "post_id": "p", "text": "t" });
    let no_text = json!({ "post_id": "p", "author_id": "a", "text": 5 });
    [(right, true), (no_author, false), (no_text, false)]
        .map(|(data, valid)| {
            let what = format!("post.created with {data}");
            Sample { valid, ..sample(what, component("EventFrame"), event(data)) }
        })
        .into()
}

#[test]
fn every_block_of_a_stream_conforms_to_the_asyncapi_document() {
    let server = Server::start(&[]);
    let document = fetch(&server, Kind::AsyncApi);
    publish(&server, &events());
    let mut samples = Vec::new();
    let path =
        |rest: &str| format!("/v1/sse?channels={}&{rest}", query_escape(&channels().join(",")));
    let open = |rest: &str, last: Option<&str>| {
        EventSource::open(server.addr(), &path(rest), last, None).expect("a stream")
    };
    let mut source = open("from=earliest", None);
    let mut types = BTreeSet::new();
    while let Some(message) = source.next_message(QUIET).expect("the stream goes on") {
        types.insert(message.event.clone());
        let data = serde_json::from_str(&message.data).expect("JSON");
        samples.push(sample(message.data, component("StreamEvent"), data));
        let fields = json!({ "id": message.id, "event": message.event });
        samples.push(sample(
            "an event's block",
            "/components/messages/stream.event/headers",
            fields,
        ));
    }
    assert!(types.len() >= TYPES_MIN, "{types:?}");
    let last = source.last_event_id().to_owned();
    samples.push(sample("the last id", component("Position"), json!(last)));
    let mine = Position::decode(&last).expect("a position");
    let other = Position { epoch: mine.epoch.wrapping_add(1), ..mine.clone() };
    let far = |at: &PartitionPosition| PartitionPosition { next: [1 << 40; 3], ..*at };
    let beyond = Position { partitions: mine.partitions.iter().map(far).collect(), ..mine };
    for position in [other, beyond] {
        let mut source = open("", Some(&position.encode()));
        let message = source.next_message(TIMEOUT).expect("a stream").expect("a gap");
        assert_eq!(message.event, "gap", "{message:?}");
        let data: Value = serde_json::from_str(&message.data).expect("JSON");
        assert_eq!(data["reason"], "epoch");
        samples.push(sample(message.data, component("GapFrame"), data));
        let fields = json!({ "event": message.event });
        let headers = "/components/messages/stream.gap/headers";
        samples.push(sample("its block", headers, fields));
    }
    samples.extend(state_of_a_stream(&server));
    check(&document, &samples);
}

/// The blocks of a channel's state.
fn state_of_a_stream(server: &Server) -> Vec<Sample> {
    let mut samples = Vec::new();
    follow(server, "user.followed", "follow-1");
    let path = "/v1/sse?channels=follows:fay&snapshot=true";
    let mut source = EventSource::open(server.addr(), path, None, None).expect("a stream");
    let mut take = |name: &str| loop {
        let message = source.next_message(TIMEOUT).expect("a stream").expect("one more block");
        let schema = match message.event.as_str() {
            "snapshot" => "SnapshotFrame",
            "deleted" => "DeletedFrame",
            _ => "StreamEvent",
        };
        let data: Value = serde_json::from_str(&message.data).expect("JSON");
        samples.push(sample(message.data, component(schema), data));
        if message.event == name {
            return;
        }
    };
    take("snapshot");
    follow(server, "user.unfollowed", "follow-2");
    take("deleted");
    follow(server, "user.followed", "follow-3");
    take("user.followed");
    samples
}

/// Where a response's schema is. All responses are JSON or text.
fn answer_schema(path: &str, method: &str, status: u16, media: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    let path = if path.starts_with(CHANNELS) { "/v1/channels/{channel}" } else { path };
    let path = path.replace('/', "~1");
    let media = media.replace('/', "~1");
    format!("/paths/{path}/{method}/responses/{status}/content/{media}/schema")
}

fn exchange(server: &Server, method: &str, path: &str, body: (&str, &[u8])) -> Sample {
    let mut http = server.http();
    let answer = match method {
        "get" => http.get(path),
        _ => http.post(path, body.0, body.1),
    };
    let answer = answer.expect("an answer");
    let (media, value) = match serde_json::from_slice::<Value>(&answer.body) {
        Ok(value) => ("application/json", value),
        Err(_) => ("text/plain", json!(answer.text())),
    };
    let what = format!("{method} {path}: {} {:.200}", answer.status, answer.text());
    sample(what, answer_schema(path, method, answer.status, media), value)
}

#[test]
fn every_answer_over_http_conforms_to_the_openapi_document() {
    let server = Server::start(&[]);
    let document = fetch(&server, Kind::OpenApi);
    let all = events();
    let mut samples: Vec<Sample> = all
        .iter()
        .map(|event| sample(event.to_string(), component("EventEnvelope"), event.clone()))
        .collect();
    let get = |path: &str| exchange(&server, "get", path, ("", b""));
    let post = |path: &str, kind: &str, body: &str| {
        exchange(&server, "post", path, (kind, body.as_bytes()))
    };
    let json = "application/json";
    let mixed =
        r#"[{"event_type":"custom.x","account_id":"a","data":{}},{"event_type":"post.created"}]"#;
    samples.push(post("/v1/events", json, mixed));
    samples.push(post(
        "/v1/events",
        json,
        r#"{"event_type":"post.creatd","account_id":"a","data":{}}"#,
    ));
    samples.push(post("/v1/events", json, "{"));
    samples.push(post("/v1/events", "text/plain", "{}"));
    samples.push(post("/v1/events", json, &format!("[{}]", ["{}"; 1_001].join(","))));
    samples.push(post("/v1/events", json, "[]"));
    follow(&server, "user.followed", "follow-1");
    for path in [
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/stats",
        "/openapi.json",
        "/asyncapi.json",
        "/v1/ws",
        "/v1/sse",
        "/v1/sse?channels=nothing:a",
        "/v1/sse?channels=feed:a",
        "/v1/channels/follows:fay",
        "/v1/channels/posts:ann",
        "/v1/channels/nothing:a",
        "/v1/channels/follows:fay?from=latest",
        "/v1/sse?channels=posts:a&from=yesterday",
        "/v1/dead-letters?limit=nothing",
        "/v1/explain",
        "/v1/explain?id=nothing&account=a&since=2026-01-05T10:00:00Z",
    ] {
        samples.push(get(path));
    }
    samples.extend(dead_letters(&server));
    samples.push(post("/v1/resume", json, ""));
    samples.push(refused_by_the_guard(&server));
    check(&document, &samples);
    described(&document, &samples);
}

/// Every request about dead letters, with every parameter of the document.
fn dead_letters(server: &Server) -> Vec<Sample> {
    let get = |path: &str| exchange(server, "get", path, ("", b""));
    let post = |path: &str| exchange(server, "post", path, ("", b""));
    let list = get("/v1/dead-letters");
    let letters = list.value["dead_letters"].as_array().expect("a list");
    let id = query_escape(letters[0]["id"].as_str().expect("an id"));
    let filter = "reason=unknown_type&reason=missing_field&source=http&since=2026-01-05T10:00:00Z";
    let until = "until=4102444800000";
    let found = get(&format!("/v1/dead-letters?{filter}&{until}&limit=5&all=true"));
    assert!(found.value["matching"].as_u64() >= Some(2), "{found:?}");
    let planned = format!("/v1/dead-letters/requeue?{filter}&{until}&limit=5&dry_run=true");
    let resolve = "/v1/dead-letters/drop?all_open=true&because=a%20test";
    vec![
        get(&format!("/v1/dead-letters?id={id}")),
        get(&format!("/v1/dead-letters/show?id={id}")),
        get("/v1/dead-letters/show"),
        post(&planned),
        post("/v1/dead-letters/requeue"),
        post(resolve),
        // Shows its resolution record too.
        get(&format!("/v1/dead-letters/show?id={id}")),
        list,
        found,
    ]
}

/// A request for a host that is not this one.
fn refused_by_the_guard(server: &Server) -> Sample {
    let mut stream = TcpStream::connect(server.addr()).expect("it listens");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a time limit");
    let request = "GET /v1/stats HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer in UTF-8");
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    let value = serde_json::from_str(body).expect("JSON");
    sample(answer.clone(), answer_schema("/v1/stats", "get", 403, "application/json"), value)
}

/// Every path of the document was requested, apart from those that open a stream.
fn described(document: &Value, samples: &[Sample]) {
    for path in document["paths"].as_object().expect("paths").keys() {
        let prefix = format!("/paths/{}/", path.replace('/', "~1"));
        assert!(samples.iter().any(|sample| sample.schema.starts_with(&prefix)), "{path}");
    }
}
