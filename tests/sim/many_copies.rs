//! Large critical events that name many users, while the log fails and processes crash.
//!
//! The copies of one such event are more than a transaction may hold and more than may be urgent.
//! Every user is notified once all the same, nothing becomes a dead letter, and no transaction and
//! no event exceeds its limit.

use std::collections::BTreeMap;

use tidewire_engine::derive::{CAUSE_MAX_BYTES, URGENT_FACTS_MAX};
use tidewire_engine::operators::OPERATORS;
use tidewire_engine::topology::Lane;
use tidewire_schemas::Priority;
use tidewire_schemas::event::{Event, EventView};

use crate::one_machine::OneMachine;

/// Histories in one run.
const HISTORIES: u64 = 4;

/// Events in each.
const EVENTS: usize = 3;

/// Users that each names.
const MENTIONS: usize = 40;

/// Bytes of each text.
const TEXT_BYTES: usize = 150 << 10;

/// Turns with faults after each event.
const TURNS: u64 = 60;

/// Turns without faults after which everything must be done.
const QUIET_TURNS: usize = 600;

fn event(n: usize) -> Event {
    let names: Vec<_> = (0..MENTIONS).map(|user| format!("\"u{user}\"")).collect();
    let (names, text) = (names.join(","), "x".repeat(TEXT_BYTES));
    Event {
        event_id: format!("e-{n}"),
        event_type: "post.created".to_owned(),
        account_id: "acc".to_owned(),
        timestamp_ms: 1_000_000,
        correlation_id: format!("e-{n}"),
        priority: Priority::Critical,
        key: format!("author{n}"),
        source: None,
        alias: None,
        data: format!(
            r#"{{"post_id":"p{n}","author_id":"author{n}","text":"{text}","mentions":[{names}]}}"#
        ),
    }
}

/// How often each user was told of each post.
fn told(machine: &OneMachine) -> BTreeMap<(String, String), usize> {
    let mut told = BTreeMap::new();
    let topology = &machine.topology;
    for topic in [topology.out_stream(), topology.out_urgent()] {
        for record in machine.records(topic) {
            let event = EventView::decode(record.body.value().expect("a value")).expect("an event");
            if event.event_type == "notification.created" {
                let of = event.correlation_id.to_owned();
                *told.entry((event.key.to_owned(), of)).or_default() += 1;
            }
        }
    }
    told
}

/// The urgent copies of each event.
fn urgent_copies(machine: &OneMachine) -> BTreeMap<String, usize> {
    let mut urgent = BTreeMap::new();
    for body in machine.facts(Lane::FactsUrgent) {
        let event = EventView::decode(body.value().expect("a value")).expect("an event");
        if body.header("tw-for").is_some() {
            *urgent.entry(event.event_id.to_owned()).or_default() += 1;
        }
    }
    urgent
}

#[test]
fn everybody_whom_a_large_critical_event_names_is_notified_once() {
    const { assert!(MENTIONS * TEXT_BYTES > CAUSE_MAX_BYTES && MENTIONS > URGENT_FACTS_MAX) };
    for seed in 0..HISTORIES {
        let mut machine = OneMachine::new(seed, OPERATORS);
        for n in 0..EVENTS {
            machine.append(Lane::Critical, &event(n));
            machine.turn_with_faults(TURNS);
        }
        machine.settle(QUIET_TURNS);
        let letters = machine.records(machine.topology.dead_letters());
        assert_eq!(letters.len(), 0, "history {seed}");
        let told = told(&machine);
        for (user, n) in (0..MENTIONS).flat_map(|user| (0..EVENTS).map(move |n| (user, n))) {
            let once = told.get(&(format!("u{user}"), format!("e-{n}")));
            assert_eq!(once, Some(&1), "history {seed}: u{user} of e-{n}");
        }
        assert_eq!(told.len(), MENTIONS * EVENTS, "history {seed}");
        let urgent = urgent_copies(&machine);
        let most = urgent.values().max();
        assert_eq!(most, Some(&URGENT_FACTS_MAX), "history {seed}: {urgent:?}");
    }
}
