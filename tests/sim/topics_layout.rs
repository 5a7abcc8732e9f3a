//! Topics that processes of two builds create at once, with a fault or a crash at any call.

use tidewire_engine::port::{Isolation, Log};
use tidewire_engine::record::{Body, Outgoing, Partition, TopicPartition};
use tidewire_engine::topics_layout::{
    CreateTopicsError, FoundLayout, LAYOUT_KEY, LayoutNumber, create_topics, find_layout,
};
use tidewire_engine::topology::{Lane, Topology};
use tidewire_engine::value_level::{VALUE_LEVEL_KEY, ValueLevel, level_in_force};

use crate::fake::FakeLog;
use crate::test_rng::TestRng;

/// Histories in one run.
const HISTORIES: u64 = 1_000;

/// Attempts, each in a new process, after which the log stops failing.
const ATTEMPTS: u64 = 8;

/// The value level of both builds.
const LEVEL: ValueLevel = ValueLevel(3);

/// The layouts of the two builds.
const LAYOUTS: [LayoutNumber; 2] =
    [LayoutNumber::CURRENT, LayoutNumber(LayoutNumber::CURRENT.0 + 1)];

/// Creates topics until one build has all of them; returns its layout.
fn history(seed: u64) -> LayoutNumber {
    let (log, topology) = (FakeLog::new(seed), Topology::new("t.", 2));
    let mut random = TestRng::new(seed);
    log.state().faults = true;
    let mut completed = None;
    for attempt in 1..=ATTEMPTS {
        let layout = LAYOUTS[random.index(LAYOUTS.len())];
        let process = log.as_process(attempt);
        if create_topics(&process, &topology, layout, LEVEL).is_ok() {
            let first = *completed.get_or_insert(layout);
            assert_eq!(first, layout, "one build after the other has created the topics");
        }
    }
    log.state().faults = false;
    let process = log.as_process(ATTEMPTS + 1);
    let outcomes = LAYOUTS.map(|layout| create_topics(&process, &topology, layout, LEVEL));
    let [first, second] = outcomes.each_ref().map(Result::is_ok);
    assert_ne!(first, second, "{outcomes:?}");
    let layout = if first { LAYOUTS[0] } else { LAYOUTS[1] };
    assert!(completed.is_none_or(|completed| completed == layout), "{completed:?}");
    for outcome in outcomes {
        assert!(matches!(outcome, Ok(_) | Err(CreateTopicsError::Refused(_))), "{outcome:?}");
    }
    let at = TopicPartition::new(topology.catalogues(), Partition(0));
    let records = log.records(&at, Isolation::Committed);
    let values: Vec<_> =
        records.iter().map(|record| (record.body.key(), record.body.value())).collect();
    let number = layout.encode();
    let layout_record = (Some(LAYOUT_KEY.as_bytes()), Some(&number[..]));
    let level_record = (Some(VALUE_LEVEL_KEY.as_bytes()), Some(&b"3"[..]));
    assert_eq!(values, [layout_record, level_record], "one record of each");
    assert_eq!(level_in_force(&process, &topology, LEVEL).expect("no faults"), LEVEL);
    assert_eq!(find_layout(&process, &topology).expect("no faults"), FoundLayout::Marked(layout));
    layout
}

#[test]
fn one_of_two_builds_creates_the_topics_whatever_fails() {
    let first = (0..HISTORIES).filter(|seed| history(*seed) == LAYOUTS[0]).count() as u64;
    assert!(first > HISTORIES / 4 && first < HISTORIES * 3 / 4, "{first} by the first build");
}

/// What a build without layout records left.
fn former_topics(topology: &Topology) -> FakeLog {
    let log = FakeLog::new(1);
    for spec in topology.specs().iter().filter(|spec| spec.topic != *topology.catalogues()) {
        log.create(spec).expect("a new log");
    }
    log
}

fn append(log: &FakeLog, at: &TopicPartition) {
    let body = Body::new(Some(b"k"), Some(b"v"), &[]);
    let record = Outgoing { topic: at.topic.clone(), partition: at.partition, body };
    log.appender().expect("no faults").append(&[record]).expect("no faults");
}

#[test]
fn empty_topics_without_a_layout_record_are_completed_and_topics_in_use_are_refused() {
    let topology = Topology::new("t.", 2);
    let lane = topology.lane(Lane::Low);
    for (topic, is_in_use) in [
        (None, false),
        (Some(topology.input()), false),
        (Some(topology.ephemeral()), false),
        (Some(lane), true),
        (Some(topology.order()), true),
        (Some(topology.dead_letters()), true),
    ] {
        let log = former_topics(&topology);
        if let Some(topic) = topic {
            append(&log, &TopicPartition::new(topic, Partition(1)));
        }
        let before = log.topics().expect("no faults").len();
        let outcome = create_topics(&log, &topology, LayoutNumber::CURRENT, LEVEL);
        match is_in_use {
            false => assert_eq!(outcome.expect("they are completed"), 1, "{topic:?}"),
            true => {
                let refused = matches!(outcome, Err(CreateTopicsError::Refused(_)));
                assert!(refused, "{topic:?}: {outcome:?}");
                assert_eq!(log.topics().expect("no faults").len(), before, "nothing is created");
            }
        }
    }
}
