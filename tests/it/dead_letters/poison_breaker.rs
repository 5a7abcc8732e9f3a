//! The poison breaker on the embedded log: a stop loses, repeats and reorders nothing.
//!
//! Records before the invalid ones are admitted, those after them wait.

use std::time::Duration;

use tidewire_engine::admit::{PoisonBreaker, PoisonLimit};
use tidewire_engine::record::{Outgoing, Record};
use tidewire_engine::topology::{Lane, Topology};
use tidewire_schemas::event::EventView;

use super::fixture::{admit, append, event, fresh, input, read, settle};

const LIMIT: PoisonLimit = PoisonLimit { share: 0.5, min_records: 100 };

/// All with one key, so that they are in one partition.
fn good(topology: &Topology, numbers: std::ops::Range<usize>) -> Vec<Outgoing> {
    numbers.map(|n| input(topology, "k", &event(n))).collect()
}

fn poison(topology: &Topology, count: usize) -> Vec<Outgoing> {
    (0..count).map(|_| input(topology, "k", b"poison")).collect()
}

fn text_of(record: &Record) -> String {
    let event = EventView::decode(record.body.value().expect("a value")).expect("an event");
    let data: serde_json::Value = serde_json::from_str(event.data).expect("JSON");
    data["text"].as_str().expect("a text").to_owned()
}

#[test]
fn admit_stops_before_the_poison_and_resumes_there() {
    let topology = Topology::new("t.", 4);
    let (_dir, log) = fresh(&topology);
    let breaker = PoisonBreaker::new(LIMIT);
    let mut admit_loop = admit(&log, &topology, &breaker);
    // Sorted: events without a key are spread over the partitions by their id.
    let admitted = || -> Vec<usize> {
        let lane = topology.lane(Lane::Normal);
        let mut all: Vec<usize> = read(&*log, &topology, lane)
            .iter()
            .map(|(_, record)| text_of(record).parse().expect("a number"))
            .collect();
        all.sort_unstable();
        all
    };
    let dead_letters = || read(&*log, &topology, topology.dead_letters()).len();

    append(&*log, &good(&topology, 0..60));
    append(&*log, &poison(&topology, 30));
    settle(&mut admit_loop);
    assert_eq!((admitted().len(), dead_letters()), (60, 30), "below the limit both are written");

    append(&*log, &poison(&topology, 200));
    append(&*log, &good(&topology, 60..80));
    settle(&mut admit_loop);
    let stopped = breaker.stopped().expect("it is stopped");
    assert_eq!((stopped.taken, stopped.rejected), (310, 230));
    assert!(stopped.example.starts_with("t.in/"), "{stopped}");
    assert_eq!((admitted().len(), dead_letters()), (60, 30), "nothing of the batch was admitted");

    // Created again, as after a lost connection, it is still stopped.
    drop(admit_loop);
    admit_loop = admit(&log, &topology, &breaker);
    append(&*log, &good(&topology, 80..90));
    settle(&mut admit_loop);
    assert_eq!((admitted().len(), dead_letters()), (60, 30));
    let turned = admit_loop.turn(Duration::from_millis(1)).expect("no faults");
    assert!(turned.joined, "it stays a member of the group");

    assert_eq!(breaker.resume(), Some(stopped));
    settle(&mut admit_loop);
    assert_eq!(admitted(), (0..90).collect::<Vec<_>>(), "once each");
    assert_eq!(dead_letters(), 230);
    assert_eq!(breaker.stopped(), None);

    append(&*log, &poison(&topology, 100));
    settle(&mut admit_loop);
    assert!(breaker.stopped().is_some(), "records after the resume are checked again");
    assert_eq!(dead_letters(), 230);
}
