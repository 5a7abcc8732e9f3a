//! Which entity an event belongs to: its catalogue key decides, whatever key the producer sends.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidewire_tests::event_source::EventSource;
use tidewire_tests::server::Server;

const LIMIT: Duration = Duration::from_secs(30);

/// How long nothing must arrive after the last copy was dropped.
const QUIET: Duration = Duration::from_millis(500);

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
    // On a busy machine all copies may be dropped before the first one was read here.
    let wait = |received: &[_]| if received.is_empty() { LIMIT } else { QUIET };
    while let Some(event) = stream.next_event(wait(&received)).expect("it is open") {
        received.push(event);
    }
    assert_eq!(received.len(), 1, "one copy is delivered");
}

/// Accounts number what they own alike. Their `1`s must not all be in one task.
#[test]
fn one_key_of_64_accounts_is_in_all_lane_partitions() {
    let server = Server::start(&[]);
    let event = |account: usize| {
        json!({
            "event_type": "post.created", "account_id": format!("a{account}"),
            "data": {"post_id": "p", "author_id": "1", "text": "hello"},
        })
        .to_string()
    };
    let events: Vec<String> = (0..64).map(event).collect();
    let mut http = server.http();
    let answer = http
        .post("/v1/events", "application/x-ndjson", events.join("\n").as_bytes())
        .expect("an answer");
    assert_eq!((answer.status, answer.json()["accepted"].clone()), (202, json!(64)));
    let until = Instant::now() + LIMIT;
    loop {
        let stats = http.get("/v1/stats").expect("an answer").json();
        let ends = ends_by_topic(&stats);
        let lane = &ends["tw.lane.normal"];
        if lane.iter().sum::<u64>() == 64 {
            assert!(lane.len() == 8 && lane.iter().all(|end| *end > 0), "{lane:?}");
            // Over HTTP the entity's key is the record's, which alone decides there.
            let inputs = ends["tw.in"].iter().filter(|end| **end > 0).count();
            assert_eq!(inputs, 1, "{:?}", ends["tw.in"]);
            return;
        }
        assert!(Instant::now() < until, "{lane:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The end of each partition by topic, as `/v1/stats` reports them.
fn ends_by_topic(stats: &Value) -> BTreeMap<String, Vec<u64>> {
    let topics = stats["topics"].as_array().expect("a list of topics");
    let ends = |topic: &Value| {
        let offsets = topic["offsets"].as_array().expect("a list of partitions");
        offsets.iter().map(|bounds| bounds[1].as_u64().expect("an offset")).collect()
    };
    let name = |topic: &Value| topic["topic"].as_str().expect("a name").to_owned();
    topics.iter().map(|topic| (name(topic), ends(topic))).collect()
}
