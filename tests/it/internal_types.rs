//! Internal types: refused on every way in but `in.internal`, which takes nothing else.

use serde_json::{Value, json};
use tidewire_engine::record::{Body, Outgoing, Topic};
use tidewire_engine::topology::Topology;
use tidewire_tests::server::Server;

use crate::dead_letters::fixture::{append, open, wait_until};

fn called(id: &str) -> Value {
    json!({
        "event_id": id, "event_type": "operator.called", "account_id": "acc",
        "data": {"actor": "ann", "action": "resume", "target": "admit"},
    })
}

fn lease(id: &str) -> Value {
    json!({
        "event_id": id, "event_type": "gateway.lease", "account_id": "acc",
        "data": {"gateway_id": "g1", "expires_at": "2026-01-05T09:00:15Z"},
    })
}

fn liked(id: &str) -> Value {
    json!({
        "event_id": id, "event_type": "post.liked", "account_id": "acc",
        "data": {"post_id": "p1", "user_id": "u1"},
    })
}

fn record(topology: &Topology, topic: &Topic, event: &Value) -> Outgoing {
    Outgoing {
        topic: topic.clone(),
        partition: topology.partition_of(b"acc"),
        body: Body::new(Some(b"acc"), Some(event.to_string().as_bytes()), &[]),
    }
}

/// An internal event by each input, and a broadcast and an ordinary one by `in.internal`.
pub(crate) fn records(topology: &Topology) -> [Outgoing; 5] {
    let internal = topology.input_internal();
    [
        record(topology, topology.input(), &called("by-in")),
        record(topology, topology.input_urgent(), &called("by-urgent")),
        record(topology, internal, &called("by-internal")),
        record(topology, internal, &lease("broadcast")),
        record(topology, internal, &liked("ordinary")),
    ]
}

/// Source topic and reason of each open dead letter.
fn dead_letters(server: &Server) -> Vec<(String, String)> {
    let (status, out) = server.run_verb(&["dead-letters", "list", "--json"], None);
    assert!(status.success(), "{out}");
    let lines = out.lines().filter(|line| line.starts_with('{'));
    let read = |line: &str| {
        let entry: Value = serde_json::from_str(line).expect("JSON");
        let text = |name: &str| entry[name].as_str().expect("a text").to_owned();
        let topic = text("id").split('/').next().expect("a topic").to_owned();
        (topic, text("reason"))
    };
    let mut all: Vec<_> = lines.map(read).collect();
    all.sort();
    all
}

/// What a process must have made of [`records`], and of an internal event by HTTP.
pub(crate) fn check(server: &Server, topology: &Topology) {
    let body = called("by-http").to_string();
    let answer = server.http().post("/v1/events", "application/json", body.as_bytes());
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert!(answer.text().contains("reserved_type"), "{}", answer.text());
    wait_until("four are refused", || dead_letters(server).len() == 4);
    let mut expected = [
        (topology.input().as_str(), "reserved_type"),
        (topology.input_urgent().as_str(), "reserved_type"),
        (topology.input_internal().as_str(), "not_internal"),
        ("http", "reserved_type"),
    ]
    .map(|(topic, reason)| (topic.to_owned(), reason.to_owned()));
    expected.sort();
    assert_eq!(dead_letters(server), expected);
    wait_until("the event by in.internal is in DERIVE", || {
        server.metric("tidewire_derive_events_total{lane=\"normal\"}") == Some(1.0)
    });
    wait_until("each of the eight tasks has the broadcast event", || {
        server.metric("tidewire_derive_events_total{lane=\"critical\"}") == Some(8.0)
    });
    // A requeue leads back to `in.internal`, where the event is refused again.
    let requeue = ["dead-letters", "requeue", "--reason", "not_internal"];
    let (status, out) = server.run_verb(&requeue, None);
    assert!(status.success(), "{out}");
    wait_until("it is refused again", || dead_letters(server) == expected);
    let admitted = server.metric("tidewire_admit_rejected_total{reason=\"not_internal\"}");
    assert_eq!(admitted, Some(2.0));
}

#[test]
fn internal_types_enter_the_embedded_log_by_their_topic_alone() {
    let mut server = Server::start(&[]);
    server.stop();
    let topology = Topology::default();
    append(&*open(&server.data_dir()), &records(&topology));
    server.restart();
    check(&server, &topology);
}
