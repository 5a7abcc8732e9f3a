//! `POST /v1/events` through the whole gateway, up to the records it appends.

use serde_json::json;

use crate::clock;

use super::client::RawClient;
use super::fixture::{GatewayFixture, LIMITS};

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
    assert_eq!(records[0].body.header("source"), Some(&b"http"[..]));
    let position = format!("tw.in/{}/0", records[0].partition.0);
    let expected = json!({"accepted": 1, "events": [{"event_id": "e1", "log_position": position}]});
    assert_eq!(response.json(), expected);
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
    assert_eq!(records[1].body.header("h-source"), Some(&b"http"[..]), "a requeue restores it");
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
    assert_eq!(client.response().json()["events"][0]["event_id"], "s/1");
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
    assert_eq!(client.response().json()["events"][0]["event_id"], "s/2");
    let records = fixture.appended.records();
    let kind = Some(&b"application/cloudevents+json"[..]);
    assert_eq!(records[0].body.value(), Some(event.as_bytes()));
    assert_eq!(records[0].body.header("content-type"), kind);
    assert_eq!(records[1].body.header("content-type"), kind);
    assert_eq!(records[2].topic.as_str(), "tw.dead-letters");
    assert_eq!(records[2].body.header("h-content-type"), kind, "a requeue restores it");
    assert_eq!(records[3].body.value(), Some(&b"{\"n\":1}"[..]));
    assert_eq!(records[3].body.header("ce_accountid"), Some(&b"a b"[..]));
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
fn a_compressed_body_is_unpacked_up_to_the_size_limit() {
    let (fixture, mut client) = connected();
    let gzip = |body: &[u8]| {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut packer, body).expect("memory");
        packer.finish().expect("memory")
    };
    let headers = [("content-type", "application/json"), ("content-encoding", "gzip")];
    send(&mut client, &headers, &gzip(POST.as_bytes()));
    assert_eq!(client.response().status, 202);
    assert_eq!(fixture.appended.records()[0].body.value(), Some(POST.as_bytes()));
    send(&mut client, &headers, &gzip(&vec![b' '; 64 << 20]));
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
    clock::pause(std::time::Duration::from_millis(300));
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
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn too_many_bodies_at_once_are_503_until_some_end() {
    let (fixture, mut patient) = connected();
    // Sixteen bodies of the largest size are reserved; none of their bytes is sent.
    let mut slow: Vec<RawClient> = (0..16).map(|_| RawClient::connect(fixture.address())).collect();
    for client in &mut slow {
        client.send(
            "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: 4194304\r\nexpect: 100-continue\r\n\r\n",
        );
        client.take_until("\r\n\r\n");
    }
    let response = patient.post("application/json", POST);
    assert_eq!((response.status, response.code().as_str()), (503, "overloaded"));
    assert!(response.head.contains("retry-after"), "{}", response.head);
    drop(slow);
    super::fixture::wait_for(|| {
        (patient.post("application/json", POST).status == 202).then_some(())
    });
}
