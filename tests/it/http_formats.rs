//! Events over HTTP that other servers confuse: ids that collide, units of time, quoted attributes.

use std::time::Duration;

use serde_json::{Value, json};
use tidewire_tests::event_source::EventSource;
use tidewire_tests::server::Server;

const LIMIT: Duration = Duration::from_secs(30);

fn post(server: &Server, kind: &str, body: &str) -> (u16, Value) {
    let answer = server.http().post("/v1/events", kind, body.as_bytes()).expect("an answer");
    (answer.status, answer.json())
}

fn data() -> Value {
    json!({"post_id": "p", "author_id": "ann", "text": "t"})
}

#[test]
fn source_and_id_never_join_to_the_id_of_another_event() {
    let server = Server::start(&[]);
    let path = "/v1/sse?user=u&channels=posts:ann";
    let mut stream = EventSource::open(server.addr(), path, None, None).expect("a stream");
    let cloudevent = |source: &str, id: &str| {
        json!({"specversion": "1.0", "id": id, "source": source, "type": "post.created",
            "accountid": "a", "data": data()})
    };
    let batch = json!([cloudevent("/studio", "web/100"), cloudevent("/studio/web", "100")]);
    let kind = "application/cloudevents-batch+json";
    assert_eq!(post(&server, kind, &batch.to_string()).1["accepted"], 2);
    let plain = json!({"event_type": "post.created", "account_id": "a",
        "event_id": "/studio/web/100", "data": data()});
    assert_eq!(post(&server, "application/json", &plain.to_string()).0, 202);
    // All again, which are duplicates, and one that ends the wait.
    assert_eq!(post(&server, kind, &batch.to_string()).1["accepted"], 2);
    assert_eq!(post(&server, "application/json", &plain.to_string()).0, 202);
    let last = plain.to_string().replace("/studio/web/100", "last");
    assert_eq!(post(&server, "application/json", &last).0, 202);
    let mut received = Vec::new();
    while received.last().is_none_or(|id| id != "last") {
        let event = stream.next_event(LIMIT).expect("it is open").expect("all are delivered");
        received.push(event.event_id);
    }
    let expected = ["ce_/studio|web/100", "ce_/studio/web|100", "/studio/web/100", "last"];
    assert_eq!(received, expected);
}

#[test]
fn a_timestamp_in_another_unit_is_refused_with_the_right_one() {
    let server = Server::start(&[]);
    for (timestamp, part) in [
        ("1767607200", Some("multiply seconds by 1000")),
        ("1767607200000000", Some("divide it by 1000,")),
        ("1767607200000", None),
        ("\"1970-01-01T00:00:01Z\"", None),
    ] {
        let body = format!(
            r#"{{"event_type":"custom.x","account_id":"a","timestamp":{timestamp},"data":{{}}}}"#
        );
        let (status, answer) = post(&server, "application/json", &body);
        let Some(part) = part else {
            assert_eq!(status, 202, "{timestamp}: {answer}");
            continue;
        };
        assert_eq!(status, 422, "{timestamp}: {answer}");
        let error = &answer["events"][0]["error"];
        assert_eq!(error["reason"], "timestamp_invalid", "{answer}");
        assert!(error["message"].as_str().is_some_and(|text| text.contains(part)), "{answer}");
    }
}

#[test]
fn what_json_does_not_have_is_named_with_its_place() {
    let server = Server::start(&[]);
    let event = r#"{"event_type":"custom.x","account_id":"a","data":{"score":NaN}}"#;
    let (status, answer) = post(&server, "application/json", event);
    assert_eq!(status, 400, "{answer}");
    let text = answer.to_string();
    assert!(text.contains("at byte 58: NaN is not JSON; send null or a string"), "{answer}");
    let (_, answer) = post(&server, "application/x-ndjson", event);
    let error = &answer["events"][0]["error"];
    assert_eq!((&error["reason"], &error["field"]), (&json!("not_json"), &json!("data.score")));
    assert!(error["message"].as_str().is_some_and(|text| text.contains("NaN")), "{answer}");
}
