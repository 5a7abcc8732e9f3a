//! Which entity an event belongs to: its catalogue key decides, whatever key the producer sends.

use std::time::{Duration, Instant};

use serde_json::json;
use tidewire_tests::event_source::EventSource;
use tidewire_tests::server::Server;

const LIMIT: Duration = Duration::from_secs(30);

/// Copies of one event under 40 keys, which are in all 8 partitions of the input: one task must
/// process them all, or each task keeps its own state of the post.
#[test]
fn copies_under_other_keys_meet_in_the_task_of_their_entity() {
    let server = Server::start(&[]);
    let path = "/v1/sse?user=u&channels=account:a";
    let mut stream = EventSource::open(server.addr(), path, None, None).expect("a stream");
    let event = |id: &str, key: usize| {
        json!({
            "event_type": "post.liked", "account_id": "a", "event_id": id,
            "key": format!("k{key}"), "data": {"post_id": "p1", "user_id": "u1"},
        })
        .to_string()
    };
    let copies: Vec<String> = (0..40).map(|key| event("copied", key)).collect();
    let answer = server
        .http()
        .post("/v1/events", "application/x-ndjson", copies.join("\n").as_bytes())
        .expect("an answer");
    assert_eq!((answer.status, answer.json()["accepted"].clone()), (202, json!(40)));
    let drops = "tidewire_derive_duplicates_total{reason=\"id\"}";
    let mut received = Vec::new();
    let until = Instant::now() + LIMIT;
    while server.metric(drops).is_none_or(|dropped| dropped < 39.0) {
        assert!(Instant::now() < until, "{:?} copies are dropped", server.metric(drops));
        received.extend(stream.next_event(Duration::from_millis(100)).expect("it is open"));
    }
    assert_eq!(received.len(), 1, "one copy is delivered");
}
