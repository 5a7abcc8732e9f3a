//! Explains events of a history with failures and crashes, over all tasks.

use std::sync::Arc;

use serde_json::Value;
use tidewire_engine::explain::{ExplainQuery, UpdateRequest, explain, update_index};
use tidewire_engine::operators::OPERATORS;
use tidewire_engine::replay::ReadOnlyLog;
use tidewire_engine::topology::Lane;
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::event::{Event, EventView};
use tidewire_schemas::fields::Fields;

use crate::fake::FakeStores;
use crate::one_machine::OneMachine;

/// Posts in the history.
const POSTS: usize = 20;

/// Bytes of the audit that one call reads: several calls are needed.
const BYTES_PER_CALL: usize = 2_000;

fn event(id: &str, event_type: &str, data: &str) -> Event {
    let known = Catalogue::builtin().resolve(event_type).expect("a type");
    let fields = Fields::of(data).expect("an object");
    Event {
        event_id: id.to_owned(),
        event_type: event_type.to_owned(),
        account_id: "acc".to_owned(),
        timestamp_ms: 1_000_000,
        correlation_id: id.to_owned(),
        priority: known.priority_of(&fields),
        key: known.key_of("acc", &fields).expect("it has a key").into_owned(),
        source: None,
        alias: None,
        data: data.to_owned(),
    }
}

/// Every node of a tree.
fn nodes(node: &Value) -> Vec<&Value> {
    let below = node["effects"].as_array().into_iter().flatten().flat_map(nodes);
    [node].into_iter().chain(below).collect()
}

fn texts<'a>(nodes: &[&'a Value], kind: &str, name: &str) -> Vec<&'a str> {
    let of_kind = nodes.iter().filter(|node| node["kind"] == kind);
    of_kind.filter_map(|node| node[name].as_str()).collect()
}

/// A history of posts with a mention, each liked later, with failures and crashes.
fn history() -> OneMachine {
    let mut machine = OneMachine::new(5, OPERATORS);
    let post = |n: usize| {
        let data =
            format!(r#"{{"post_id":"p{n}","author_id":"ann","text":"hello","mentions":["bob"]}}"#);
        event(&format!("post-{n}"), "post.created", &data)
    };
    let like = |n: usize| {
        let data = format!(r#"{{"post_id":"p{n}","user_id":"eve"}}"#);
        event(&format!("like-{n}"), "post.liked", &data)
    };
    for events in [(0..POSTS).map(post).collect::<Vec<_>>(), (0..POSTS).map(like).collect()] {
        for event in events {
            machine.append(Lane::of(event.priority), &event);
            machine.turn_with_faults(12);
        }
        // A like that comes before its post waits for it, and is then a cause of nothing itself.
        machine.settle(1_500);
    }
    machine
}

#[test]
fn an_event_is_explained_over_all_tasks_after_failures_and_crashes() {
    let mut machine = history();
    let log = ReadOnlyLog::new(Arc::new(machine.process()));
    let stores = FakeStores::new(1, &machine.log);
    let topology = &machine.topology;
    let request = UpdateRequest { log: &log, topology, since: None, bytes_max: BYTES_PER_CALL };
    let mut calls = 1;
    while update_index(&stores, request).expect("no faults").left > 0 {
        calls += 1;
    }
    assert!(calls > 2, "{calls}");
    let about = |id: &str| {
        let query = ExplainQuery { log: &log, topology, id, account: Some("acc") };
        explain(&stores, OPERATORS, query).expect("no faults")
    };
    for n in 0..POSTS {
        for (kind, notified) in [("post", "notifications:bob"), ("like", "notifications:ann")] {
            let answer = about(&format!("{kind}-{n}"));
            let events = answer["events"].as_array().expect("a list");
            assert_eq!(events.len(), 1, "{kind}-{n}: {answer:#}");
            assert_eq!(events[0]["outcome"], "accepted");
            let all = nodes(&events[0]);
            let channels = texts(&all, "channel", "channel");
            assert!(channels.contains(&notified), "{kind}-{n}: {answer:#}");
            assert_eq!(answer["truncated"], false);
        }
    }
    for record in machine.records(topology.out_stream()) {
        let event = EventView::decode(record.body.value().expect("a value")).expect("an event");
        let channel = String::from_utf8_lossy(record.body.key().expect("a channel")).into_owned();
        let answer = about(event.event_id);
        let events = answer["events"].as_array().expect("a list");
        let all: Vec<&Value> = events.iter().flat_map(nodes).collect();
        let times = texts(&all, "channel", "channel").iter().filter(|of| **of == channel).count();
        assert!(times >= 1, "{} to {channel}: {answer:#}", event.event_id);
        let causes = answer["causes"].as_array().expect("a list");
        assert_eq!(causes.is_empty(), !event.event_id.starts_with("op/"), "{answer:#}");
    }
    let unknown = about("post-99");
    assert_eq!(unknown["events"].as_array().map(Vec::len), Some(0));
}
