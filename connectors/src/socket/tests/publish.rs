//! `POST /v1/events` through the whole gateway, up to the records it appends.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::codec::{DecodeContext, Registry, RegistryFault, WriterSchema, admit};
use tidewire_schemas::envelope::{RecordOrigin, Writers};

use crate::clock;
use crate::socket::gateway::GatewayParts;
use crate::socket::limits::{ConnectionLimits, RequestTimeouts};

use super::client::RawClient;
use super::fixture::{
    AppendedRecords, GatewayFixture, LIMITS, TIMEOUTS, hooks, publish_parts, start_parts,
};

const POST: &str = r#"{"event_id":"e1","event_type":"post.created","account_id":"acc-1",
    "timestamp":"2026-01-05T10:00:00Z","data":{"post_id":"p1","author_id":"alice","text":"hi"}}"#;

fn with(name: &str, value: &serde_json::Value) -> String {
    let mut event: serde_json::Value = serde_json::from_str(POST).expect("JSON");
    event[name] = value.clone();
    event.to_string()
}

fn connected() -> (GatewayFixture, RawClient) {
    let fixture = GatewayFixture::new(LIMITS);
    let client = RawClient::connect(fixture.address());
    (fixture, client)
}

#[test]
fn an_accepted_event_is_appended_as_it_was_sent() {
    let (fixture, mut client) = connected();
    let response = client.post("application/json", POST);
    assert_eq!(response.status, 202, "{}", response.json());
    let records = fixture.appended.records();
    assert_eq!(records[0].topic.as_str(), "tw.in");
    assert_eq!(records[0].body.value(), Some(POST.as_bytes()));
    assert_eq!(records[0].body.key(), Some(&b"alice"[..]));
    assert_eq!(records[0].body.header("tw-transport"), Some(&b"http"[..]));
    let position = format!("tw.in/{}/0", records[0].partition.0);
    let expected = json!({"accepted": 1, "events": [{"event_id": "e1", "log_position": position}]});
    assert_eq!(response.json(), expected);
}

#[test]
fn a_client_that_ends_its_sending_half_with_its_request_is_answered() {
    let (fixture, mut client) = connected();
    fixture.appended.shut();
    client.send(format!(
        "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{POST}",
        POST.len()
    ));
    client.stream.shutdown(std::net::Shutdown::Write).expect("an open connection");
    clock::pause(Duration::from_millis(100));
    fixture.appended.open();
    assert_eq!(client.response().status, 202);
    assert!(client.is_at_end());
}

#[test]
fn each_event_has_its_own_result_in_the_order_sent() {
    let (fixture, mut client) = connected();
    let body = format!("{POST}\nnot json\n{}\n", with("event_id", &json!("e3")).replace('\n', ""));
    let response = client.post("application/x-ndjson", &body.replace("\n    ", " "));
    assert_eq!(response.status, 202, "{}", response.json());
    let response = response.json();
    assert_eq!(response["accepted"], 2);
    assert_eq!(response["events"][0]["event_id"], "e1");
    assert_eq!(response["events"][1]["error"]["reason"], "not_json");
    assert_eq!(response["events"][2]["event_id"], "e3");
    let records = fixture.appended.records();
    assert_eq!(records[1].topic.as_str(), "tw.dead-letters");
    assert_eq!(records[1].body.value(), Some(&b"not json"[..]));
    assert_eq!(records[1].body.header("reason"), Some(&b"not_json"[..]));
    assert!(records[1].body.header("time").is_some(), "every dead letter has a time");
    assert_eq!(
        records[1].body.header("h-tw-transport"),
        Some(&b"http"[..]),
        "a requeue restores it"
    );
}

#[test]
fn critical_events_go_to_the_urgent_topic() {
    let (fixture, mut client) = connected();
    let body = format!("[{},{}]", with("priority", &json!(3)), with("priority", &json!(2)));
    assert_eq!(client.post("application/json", &body).status, 202);
    let topics: Vec<String> =
        fixture.appended.records().iter().map(|r| r.topic.as_str().to_owned()).collect();
    assert_eq!(topics, ["tw.in.urgent", "tw.in"]);
}

#[test]
fn an_event_without_an_id_is_answered_with_its_derived_id() {
    let (_fixture, mut client) = connected();
    let body = POST.replace("\"event_id\":\"e1\",", "");
    let response = client.post("application/json", &body).json();
    assert_eq!(response["events"][0]["event_id"], response["events"][0]["log_position"]);
    assert!(response["events"][0]["event_id"].as_str().expect("text").starts_with("tw.in/"));
}

#[test]
fn a_body_without_a_valid_event_is_422_and_its_events_become_dead_letters() {
    let (fixture, mut client) = connected();
    let response = client.post("application/json", r#"{"event_type":"post.created"}"#);
    assert_eq!(response.status, 422);
    assert_eq!(response.json()["accepted"], 0);
    assert_eq!(fixture.appended.records().len(), 1);
}

#[test]
fn invalid_bodies_are_refused_as_a_whole() {
    let (fixture, mut client) = connected();
    assert_eq!(client.post("application/json", "{").code(), "invalid_json");
    assert_eq!(client.post("text/plain", POST).status, 415);
    let many = format!("[{}]", vec!["{}"; 1_001].join(","));
    assert_eq!(client.post("application/json", &many).status, 413);
    client.send(
        "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: 4194305\r\n\r\n",
    );
    assert_eq!(client.response().status, 413);
    assert!(fixture.appended.records().is_empty());
}

/// Sends a body with these headers.
fn send(client: &mut RawClient, headers: &[(&str, &str)], body: &[u8]) {
    let headers: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    client.send(format!(
        "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n{headers}\r\n"
    ));
    client.send(body);
}

#[test]
fn cloudevents_of_every_mode_are_appended_as_in_the_kafka_binding() {
    let (fixture, mut client) = connected();
    let event = r#"{"specversion":"1.0","id":"1","source":"s","type":"custom.x","accountid":"a",
        "data":{"n":1}}"#;
    send(&mut client, &[("content-type", "application/cloudevents+json")], event.as_bytes());
    assert_eq!(client.response().json()["events"][0]["event_id"], "ce_s|1");
    let batch = format!("[{event},{{\"specversion\":\"1.0\"}}]");
    let kind = ("content-type", "application/cloudevents-batch+json");
    send(&mut client, &[kind], batch.as_bytes());
    let response = client.response().json();
    assert_eq!(response["events"][1]["error"]["field"], "source", "{response}");
    let attributes = [
        ("ce-specversion", "1.0"),
        ("ce-id", "2"),
        ("ce-source", "s"),
        ("ce-type", "custom.x"),
        ("ce-accountid", "a%20b"),
        ("content-type", "application/json"),
    ];
    send(&mut client, &attributes, b"{\"n\":1}");
    assert_eq!(client.response().json()["events"][0]["event_id"], "ce_s|2");
    let records = fixture.appended.records();
    let kind = Some(&b"application/cloudevents+json"[..]);
    assert_eq!(records[0].body.value(), Some(event.as_bytes()));
    assert_eq!(records[0].body.header("content-type"), kind);
    assert_eq!(records[1].body.header("content-type"), kind);
    assert_eq!(records[2].topic.as_str(), "tw.dead-letters");
    assert_eq!(records[2].body.header("h-content-type"), kind, "a requeue restores it");
    assert_eq!(records[3].body.value(), Some(&b"{\"n\":1}"[..]));
    assert_eq!(records[3].body.header("ce_accountid"), Some(&b"a%20b"[..]));
}

#[test]
fn avro_is_known_by_its_content_type_and_an_unknown_schema_is_rejected() {
    let (fixture, mut client) = connected();
    let of_ours = tidewire_schemas::event::Event {
        event_id: "e1".to_owned(),
        event_type: "custom.x".to_owned(),
        account_id: "a".to_owned(),
        timestamp_ms: 1_000,
        correlation_id: "c".to_owned(),
        priority: tidewire_schemas::Priority::Normal,
        key: "k".to_owned(),
        source: None,
        alias: None,
        data: "{}".to_owned(),
    };
    send(&mut client, &[("content-type", "application/avro")], &of_ours.encode());
    assert_eq!(client.response().json()["events"][0]["event_id"], "e1");
    send(&mut client, &[("content-type", "application/avro")], b"\0\0\0\0\x07rest");
    let response = client.response();
    assert_eq!(response.status, 422);
    assert_eq!(response.json()["events"][0]["error"]["reason"], "registry_unavailable");
    assert_eq!(fixture.appended.records()[1].body.value(), Some(&b"\0\0\0\0\x07rest"[..]));
}

#[test]
fn a_source_in_a_header_is_read_alike_by_the_gateway_and_from_the_log() {
    let schema = r#"{"type":"record","name":"note","fields":[{"name":"n","type":"int"}]}"#;
    let schema = Arc::new(WriterSchema::avro(schema, &[]).expect("a schema"));
    let appended = Arc::new(AppendedRecords::default());
    let registry = OneSchema(schema);
    let publish = publish_parts(&appended, Some(Arc::new(registry.clone())));
    let parts =
        GatewayParts { publish: Some(publish), hooks: hooks(), workers: Vec::new(), hub: None };
    let gateway = start_parts(LIMITS, parts);
    let mut client = RawClient::connect(gateway.local_addr());
    let fields = [
        ("content-type", "application/avro"),
        ("tw-event-type", "custom.x"),
        ("tw-event-id", "e1"),
        ("tw-account-id", "a"),
    ];
    for (source, headers) in [
        (Some("pos-7"), [&fields[..], &[("tw-source", "pos-7")]].concat()),
        (None, fields.to_vec()),
    ] {
        send(&mut client, &headers, b"\0\0\0\0\x07\x02");
        let response = client.response();
        assert_eq!(response.status, 202, "{}", response.json());
        let record = appended.records().pop().expect("a record");
        assert_eq!(record.topic.as_str(), "tw.in");
        let origin = RecordOrigin {
            topic: "tw.in",
            partition: 0,
            offset: 0,
            append_time_ms: 1_000,
            writers: Writers::Producers,
        };
        let context = DecodeContext {
            catalogue: Catalogue::builtin(),
            registry: Some(&registry),
            origin: &origin,
        };
        let event = admit(&context, record.body.value(), &record.body).expect("an event");
        assert_eq!(event.event.source.as_deref(), source);
        assert_eq!(event.event.event_id, "e1");
    }
}

/// A registry whose every schema is the same.
#[derive(Clone, Debug)]
struct OneSchema(Arc<WriterSchema>);

impl Registry for OneSchema {
    fn schema(&self, _: u32) -> Result<Arc<WriterSchema>, RegistryFault> {
        Ok(Arc::clone(&self.0))
    }

    fn schema_by_guid(&self, _: u128) -> Result<Arc<WriterSchema>, RegistryFault> {
        self.schema(0)
    }
}

/// A registry that does not answer.
#[derive(Debug)]
struct SilentRegistry;

impl Registry for SilentRegistry {
    fn schema(&self, _: u32) -> Result<Arc<WriterSchema>, RegistryFault> {
        Err(RegistryFault::Unavailable("no answer; check registry.url".to_owned()))
    }

    fn schema_by_guid(&self, _: u128) -> Result<Arc<WriterSchema>, RegistryFault> {
        self.schema(0)
    }
}

#[test]
fn an_event_is_refused_and_not_stored_while_the_registry_does_not_answer() {
    let appended = Arc::new(AppendedRecords::default());
    let publish = publish_parts(&appended, Some(Arc::new(SilentRegistry)));
    let parts =
        GatewayParts { publish: Some(publish), hooks: hooks(), workers: Vec::new(), hub: None };
    let gateway = start_parts(LIMITS, parts);
    let mut client = RawClient::connect(gateway.local_addr());
    let binary = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-type", "custom.x")];
    for headers in [&[("content-type", "application/avro")][..], &binary] {
        send(&mut client, headers, b"\0\0\0\0\x07rest");
        let response = client.response();
        assert_eq!((response.status, response.code().as_str()), (503, "not_ready"));
        assert!(response.head.to_ascii_lowercase().contains("retry-after: 5"), "{}", response.head);
        let message = response.json()["error"]["message"].to_string();
        for part in ["schema 7", "registry does not answer", "registry.url", "Nothing was stored"] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
    assert_eq!(client.post("application/json", POST).status, 202, "it needs no registry");
    assert_eq!(appended.records().len(), 1);
    // A line is JSON whatever it begins with.
    let lines = format!("\0\0\0\0\x07rest\n{}", POST.replace('\n', ""));
    let response = client.post("application/x-ndjson", &lines);
    assert_eq!(response.status, 202, "{}", response.json());
    assert_eq!(response.json()["events"][0]["error"]["reason"], "not_json");
    assert_eq!(response.json()["accepted"], 1);
}

#[test]
fn a_compressed_body_is_unpacked_up_to_the_size_limit() {
    let gzip = |body: &[u8]| {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut packer, body).expect("memory");
        packer.finish().expect("memory")
    };
    // Packed first: an unused connection does not stay open for long.
    let bomb = gzip(&vec![b' '; 16 << 20]);
    let (fixture, mut client) = connected();
    let headers = [("content-type", "application/json"), ("content-encoding", "gzip")];
    send(&mut client, &headers, &gzip(POST.as_bytes()));
    assert_eq!(client.response().status, 202);
    assert_eq!(fixture.appended.records()[0].body.value(), Some(POST.as_bytes()));
    send(&mut client, &headers, &bomb);
    let response = client.response();
    assert_eq!((response.status, response.code().as_str()), (413, "too_large"));
    send(&mut client, &headers, b"no gzip");
    assert_eq!(client.response().code(), "invalid_message");
    assert_eq!(client.get("/healthz").status, 200, "the connection goes on");
}

#[test]
fn a_chunked_body_over_the_limit_is_answered_although_it_never_ends() {
    let (_fixture, mut client) = connected();
    client.send(
        "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n",
    );
    let chunk = [b"40000\r\n".to_vec(), vec![b' '; 0x40000], b"\r\n".to_vec()].concat();
    for _ in 0..17 {
        client.send(&chunk);
    }
    assert_eq!(client.response().status, 413);
}

#[test]
fn queued_requests_are_appended_together() {
    let (fixture, mut first) = connected();
    fixture.appended.shut();
    let begin = |client: &mut RawClient| {
        client.send(format!(
            "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{POST}",
            POST.len()
        ));
    };
    begin(&mut first);
    let mut others: Vec<RawClient> =
        (0..8).map(|_| RawClient::connect(fixture.address())).collect();
    others.iter_mut().for_each(begin);
    // Time for all of them to arrive; if it isn't enough, there are only more batches.
    clock::pause(Duration::from_millis(300));
    fixture.appended.open();
    assert_eq!(first.response().status, 202);
    for client in &mut others {
        assert_eq!(client.response().status, 202);
    }
    let sizes: Vec<usize> = fixture.appended.batches.lock().unwrap().iter().map(Vec::len).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 9);
    assert!(sizes.len() < 9, "{sizes:?}");
}

#[test]
fn a_record_that_the_log_does_not_take_fails_only_its_own_request() {
    let (fixture, mut first) = connected();
    *fixture.appended.refused_key.lock().unwrap() = Some(b"mallory");
    fixture.appended.shut();
    let begin = |client: &mut RawClient, body: &str| {
        send(client, &[("content-type", "application/json")], body.as_bytes());
    };
    begin(&mut first, POST);
    let mut others: Vec<RawClient> =
        (0..4).map(|_| RawClient::connect(fixture.address())).collect();
    let guilty = POST.replace("alice", "mallory");
    for (number, client) in others.iter_mut().enumerate() {
        begin(client, if number == 2 { &guilty } else { POST });
    }
    // Time for all of them to arrive; if it isn't enough, there are only more batches.
    clock::pause(Duration::from_millis(300));
    fixture.appended.open();
    assert_eq!(first.response().status, 202);
    for (number, client) in others.iter_mut().enumerate() {
        let response = client.response();
        if number == 2 {
            assert_eq!((response.status, response.code().as_str()), (503, "internal"));
            let text = response.json().to_string();
            assert!(text.contains("does not take an event of this request"), "{text}");
        } else {
            assert_eq!(response.status, 202, "{}", response.json());
        }
    }
    assert_eq!(fixture.appended.records().len(), 4);
}

#[test]
fn an_event_too_large_for_a_dead_letter_is_answered_and_not_stored() {
    let (fixture, mut client) = connected();
    let large = with("correlation_id", &json!("x".repeat(1_000_000)));
    let kept = with("correlation_id", &json!("x".repeat(300_000)));
    let response = client.post("application/json", &format!("[{large},{kept},{POST}]"));
    assert_eq!(response.status, 202, "{}", response.json());
    let response = response.json();
    assert_eq!(response["accepted"], 1);
    for number in [0, 1] {
        assert_eq!(response["events"][number]["error"]["reason"], "too_large");
    }
    let message = response["events"][0]["error"]["message"].to_string();
    assert!(message.contains("no dead letter keeps it"), "{message}");
    assert_eq!(response["events"][2]["event_id"], "e1");
    let topics: Vec<String> =
        fixture.appended.records().iter().map(|r| r.topic.as_str().to_owned()).collect();
    assert_eq!(topics, ["tw.dead-letters", "tw.in"]);
    assert_eq!(client.post("application/json", &large).status, 422);
}

#[test]
fn a_log_that_does_not_answer_is_503_and_does_not_block_the_shutdown() {
    let (fixture, mut first) = connected();
    fixture.appended.shut();
    let response = first.post("application/json", POST);
    assert_eq!((response.status, response.code().as_str()), (503, "internal"));
    assert!(response.json().to_string().contains("same event_id"), "{}", response.head);
    // The thread still waits for the first; the second times out in the queue and is not appended.
    let mut second = RawClient::connect(fixture.address());
    assert_eq!(second.post("application/json", POST).status, 503);
    fixture.appended.open();
    let mut third = RawClient::connect(fixture.address());
    assert_eq!(third.post("application/json", POST).status, 202);
    assert_eq!(fixture.appended.records().len(), 2);

    fixture.appended.shut();
    assert_eq!(third.post("application/json", POST).status, 503);
    let begun = clock::now();
    fixture.gateway.join();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// Begins a request and sends the start of its body.
fn begin(client: &mut RawClient, headers: &[&str], start: &[u8]) {
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    client.send(format!(
        "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         {headers}\r\n"
    ));
    client.send(start);
}

/// A client with another loopback address than all others, so that it has a share of its own.
fn connect_from(fixture: &GatewayFixture, address: [u8; 4]) -> RawClient {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket.bind(&std::net::SocketAddr::from((address, 0)).into()).expect("a loopback address");
    socket.connect(&fixture.address().into()).expect("a listener");
    RawClient::of(socket.into())
}

#[test]
fn bodies_that_are_announced_and_do_not_come_take_nothing_from_others() {
    let (fixture, mut patient) = connected();
    for headers in [
        &["content-encoding: gzip", "content-length: 4194304"][..],
        &["content-encoding: zstd", "content-length: 4194304"],
        &["content-length: 4194304"],
        &["content-encoding: deflate", "transfer-encoding: chunked"],
        &["transfer-encoding: chunked"],
    ] {
        let is_chunked = headers.iter().any(|line| line.contains("chunked"));
        let start: &[u8] = if is_chunked { b"400000\r\n\x1f\x8b" } else { b"\x1f\x8b" };
        let mut silent: Vec<RawClient> =
            (0..32).map(|_| RawClient::connect(fixture.address())).collect();
        silent.iter_mut().for_each(|client| begin(client, headers, start));
        for _ in 0..20 {
            let response = patient.post("application/json", POST);
            assert_eq!(response.status, 202, "{headers:?}: {}", response.json());
        }
        let response = silent[0].response();
        assert_eq!((response.status, response.code().as_str()), (408, "timeout"), "{headers:?}");
        assert!(response.json().to_string().contains("within 1 s"), "{}", response.json());
    }
}

#[test]
fn bodies_that_stop_before_their_end_give_way_to_others() {
    let fixture = GatewayFixture::new(LIMITS);
    let mut stopped: Vec<RawClient> =
        (0..16).map(|_| RawClient::connect(fixture.address())).collect();
    for client in &mut stopped {
        client.send(
            "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: 4194304\r\n\r\n",
        );
        // Ends early for those that gave way already.
        let _ = std::io::Write::write_all(&mut client.stream, &vec![b' '; 4_194_303]);
    }
    super::fixture::wait_for(|| {
        let mut patient = RawClient::connect(fixture.address());
        let response = patient.post("application/json", POST);
        assert!([202, 503].contains(&response.status), "{}", response.json());
        (response.status == 202).then_some(())
    });
    // Those that made the budget short ended before their window was over.
    let answers: Vec<_> = stopped.iter_mut().map(|client| client.response().json()).collect();
    let gave_way = |answer: &serde_json::Value| answer.to_string().contains("arrives too slowly");
    assert!(answers.iter().any(gave_way), "{answers:?}");
}

#[test]
fn too_many_bodies_at_once_are_503_until_some_end() {
    let fixture = GatewayFixture::new(LIMITS);
    fixture.appended.shut();
    // Whole bodies of the largest size wait for the log, sixteen of which fill the budget.
    let event = POST.replace('\n', "");
    let body = format!("[{event}{}]", " ".repeat(4_194_304 - event.len() - 2));
    let post = |kind: &str, body: &str| RawClient::connect(fixture.address()).post(kind, body);
    let mut waiting = Vec::new();
    let response = super::fixture::wait_for(|| {
        let mut client = RawClient::connect(fixture.address());
        begin(&mut client, &["content-length: 4194304"], b"");
        // Ends early if the budget is full.
        let _ = std::io::Write::write_all(&mut client.stream, body.as_bytes());
        waiting.push(client);
        let response = post("application/json", "{");
        (response.status == 503).then_some(response)
    });
    assert_eq!(response.code(), "overloaded");
    assert!(response.head.contains("retry-after"), "{}", response.head);
    fixture.appended.open();
    super::fixture::wait_for(|| (post("application/json", POST).status == 202).then_some(()));
}

#[test]
fn one_address_has_a_share_of_the_budget() {
    let limits = ConnectionLimits { loopback_exempt: false, ..LIMITS };
    let fixture = GatewayFixture::new(limits);
    let mut greedy: Vec<RawClient> =
        (0..5).map(|_| RawClient::connect(fixture.address())).collect();
    for client in &mut greedy {
        begin(client, &["content-length: 4194304"], &vec![b' '; 4_194_303]);
    }
    // The last of them does not fit into the share. Other addresses have theirs.
    let refused = greedy.iter_mut().map(RawClient::response).collect::<Vec<_>>();
    let limited: Vec<_> = refused.iter().filter(|response| response.status == 429).collect();
    assert!(!limited.is_empty(), "{:?}", refused.iter().map(|r| r.status).collect::<Vec<_>>());
    assert_eq!(limited[0].code(), "rate_limited");
    assert!(limited[0].head.contains("retry-after"), "{}", limited[0].head);
    let mut greedy: Vec<RawClient> =
        (0..8).map(|_| RawClient::connect(fixture.address())).collect();
    for client in &mut greedy {
        // Ends early for those that are refused.
        let _ = std::io::Write::write_all(
            &mut client.stream,
            &[
                b"POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: \
                  application/json\r\ncontent-length: 4194304\r\n\r\n"
                    .to_vec(),
                vec![b' '; 4_194_303],
            ]
            .concat(),
        );
    }
    let mut other = connect_from(&fixture, [127, 0, 0, 2]);
    assert_eq!(other.post("application/json", POST).status, 202);
}

#[test]
fn answers_that_are_not_read_are_in_the_budget_and_end() {
    let limits = ConnectionLimits { loopback_exempt: false, ..LIMITS };
    // The answers have to be made before the first of them ends.
    let long = Duration::from_secs(8);
    let stall = Duration::from_secs(60);
    let timeouts = RequestTimeouts { response: long, head: long, body: long, stall, ..TIMEOUTS };
    let fixture = GatewayFixture::with_timeouts(limits, timeouts);
    // An answer has ten times the bytes of such a body.
    let body = "{\"specversion\":1}\n".repeat(1_000);
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    let narrow = |_| RawClient::connect_narrow(fixture.address());
    let mut unread: Vec<RawClient> = (0..150).map(narrow).collect();
    unread.iter_mut().for_each(|client| client.send(format!("{head}{body}")));
    let refused = unread.iter_mut().any(|client| client.take_until("\r\n").contains("429"));
    assert!(refused, "the answers of an address have a limit");
    let mut other = connect_from(&fixture, [127, 0, 0, 2]);
    assert_eq!(other.post("application/json", POST).status, 202);
    // The clients keep their connections open and do not read on: the gateway ends them.
    super::fixture::wait_for(|| (fixture.gateway.connections() <= 1).then_some(()));
    let mut again = RawClient::connect(fixture.address());
    assert_eq!(again.post("application/json", POST).status, 202);
}

#[test]
fn packed_bodies_that_grow_are_refused_and_leave_the_budget_empty() {
    let fixture = GatewayFixture::new(LIMITS);
    let spaces = vec![b' '; 4 << 20];
    let bomb = zstd::encode_all(&[&spaces[..], &spaces].concat()[..], 1).expect("memory");
    let fits = zstd::encode_all(&spaces[..], 1).expect("memory");
    for _ in 0..20 {
        for (body, status) in [(&bomb, 413), (&fits, 400)] {
            let mut client = RawClient::connect(fixture.address());
            let headers = [("content-type", "application/json"), ("content-encoding", "zstd")];
            send(&mut client, &headers, body);
            assert_eq!(client.response().status, status);
        }
    }
    let mut patient = RawClient::connect(fixture.address());
    assert_eq!(patient.post("application/json", POST).status, 202);
}

#[test]
fn large_bodies_do_not_occupy_the_http_threads() {
    let (fixture, mut patient) = connected();
    // Many small objects take the longest to parse. Those of an unknown type are answered by 422.
    let body =
        format!("[{}]", vec![format!("{{\"a\":[{}1]}}", "1,".repeat(2_000)); 1_000].join(","));
    let mut large: Vec<RawClient> = (0..8).map(|_| RawClient::connect(fixture.address())).collect();
    for client in &mut large {
        begin(client, &[&format!("content-length: {}", body.len())], body.as_bytes());
    }
    let begun = clock::now();
    assert_eq!(patient.get("/healthz").status, 200);
    let health = begun.elapsed();
    for client in &mut large {
        assert_eq!(client.response().status, 422);
    }
    assert!(health * 4 < begun.elapsed(), "{health:?} of {:?}", begun.elapsed());
}

#[test]
fn headers_that_are_contradictory_or_unreadable_are_named() {
    let (fixture, mut client) = connected();
    let binary = |line: &'static [u8]| {
        let kind = b"ce-type: custom.x\r\nce-accountid: a\r\n";
        [b"ce-specversion: 1.0\r\nce-source: s\r\n", &kind[..], line].concat()
    };
    for (lines, name) in [
        (binary(b"ce-id: 1\r\nce-id: 2\r\n"), "ce-id"),
        (binary(b"ce-id: a\xff\r\n"), "ce-id"),
        (binary(b"ce-id: %ff\r\n"), "ce-id"),
        (binary(b"ce-id: 1\r\nce-accountid: b\r\n"), "ce-accountid"),
        (b"content-type: text/plain\r\n".to_vec(), "content-type"),
        (b"content-encoding: gzip\r\ncontent-encoding: zstd\r\n".to_vec(), "content-encoding"),
        (b"content-encoding: gz\xfcp\r\n".to_vec(), "content-encoding"),
    ] {
        client.send(
            b"POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n",
        );
        client.send(lines);
        client.send("content-length: 2\r\n\r\n{}");
        let response = client.response();
        assert_eq!((response.status, response.code().as_str()), (400, "invalid_message"), "{name}");
        let message = response.json().to_string();
        assert!(message.contains(&format!("header {name} ")), "{message}");
    }
    assert!(fixture.appended.records().is_empty());
}

#[test]
fn quoted_and_encoded_attributes_are_read_once() {
    let (fixture, mut client) = connected();
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "%2525"),
        ("ce-source", "\"/shop\""),
        ("ce-type", "custom.x"),
        ("ce-accountid", "\"Gr%C3%BC%C3%9Fe\""),
        ("ce-subject", ""),
        ("content-type", "application/json"),
    ];
    send(&mut client, &headers, b"{}");
    let response = client.response();
    assert_eq!(response.status, 202, "{}", response.json());
    let id = response.json()["events"][0]["event_id"].clone();
    assert_eq!(id, "ce_/shop|%25");
    let records = fixture.appended.records();
    let account = records[0].body.header("ce_accountid");
    assert_eq!(account, Some(&b"\"Gr%C3%BC%C3%9Fe\""[..]), "ADMIT decodes it, once");
    assert_eq!(records[0].body.header("ce_subject"), None);
}

#[test]
fn a_structured_event_beside_attributes_in_headers_is_structured() {
    let (fixture, mut client) = connected();
    let event = r#"{"specversion":"1.0","id":"1","source":"s","type":"custom.x","accountid":"a"}"#;
    let stray = [("ce-specversion", "1.0"), ("ce-accountid", "other"), ("ce-id", "9")];
    for (kind, body) in [
        ("application/cloudevents+json", event.to_owned()),
        ("application/cloudevents-batch+json", format!("[{event}]")),
    ] {
        let headers = [&[("content-type", kind)][..], &stray].concat();
        send(&mut client, &headers, body.as_bytes());
        let response = client.response();
        assert_eq!(response.json()["events"][0]["event_id"], "ce_s|1", "{}", response.json());
        let record = fixture.appended.records().pop().expect("a record");
        assert_eq!(record.body.value(), Some(event.as_bytes()));
        assert_eq!(record.body.header("ce_accountid"), None);
    }
}

#[test]
fn an_empty_array_is_accepted_and_a_byte_order_mark_is_ignored() {
    let (fixture, mut client) = connected();
    for kind in ["application/cloudevents-batch+json", "application/json"] {
        let response = client.post(kind, "[]");
        assert_eq!(response.status, 202, "{kind}");
        assert_eq!(response.json(), json!({"accepted": 0, "events": []}));
    }
    assert!(fixture.appended.records().is_empty());
    let line = POST.replace('\n', "");
    for (kind, body) in [
        ("application/json", format!("\u{feff}{line}")),
        ("application/json", format!("\u{feff}[{line}]")),
        ("application/x-ndjson", format!("\u{feff}{line}\n")),
    ] {
        let response = client.post(kind, &body);
        assert_eq!(response.json()["accepted"], 1, "{kind}: {}", response.json());
        let record = fixture.appended.records().pop().expect("a record");
        assert_eq!(record.body.value(), Some(line.as_bytes()));
    }
    let response = client.post("application/cloudevents-batch+json", "{\"id\":\"1\"}");
    assert_eq!((response.status, response.code().as_str()), (400, "invalid_message"));
    let message = response.json().to_string();
    assert!(message.contains("an object, but an array is expected"), "{message}");
}
