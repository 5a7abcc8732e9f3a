//! ADMIT's second copies: each record is processed once, whatever its age and order.
//!
//! ADMIT's commit fails after its append, so that it appends everything again.

use std::sync::Arc;
use std::time::Duration;

use tidewire_engine::admit::{
    Admit, AdmitConfig, AdmitInput, PoisonBreaker, PoisonLimit, WaitingPartitions,
};
use tidewire_engine::derive::dedup::WINDOW_MS;
use tidewire_engine::derive::{Derive, DeriveConfig, DerivePorts, OPERATORS};
use tidewire_engine::lane_record::VERDICT;
use tidewire_engine::port::{Appender, Clock, Isolation, Log};
use tidewire_engine::record::{Body, Millis, Offset, Outgoing, Partition, Topic, TopicPartition};
use tidewire_engine::topology::{Lane, Topology};
use tidewire_engine::verdict::{Decision, TopicId, Verdict, VerdictSource};
use tidewire_schemas::Priority;
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::event::{Event, EventView};

use crate::fake::{Call, FakeLog, FakeStores};

const PARTITION: Partition = Partition(0);

struct PipelineClock(FakeLog);

impl Clock for PipelineClock {
    fn now(&self) -> Millis {
        self.0.state().now
    }
}

/// One partition, and a DERIVE that processes it.
struct Fixture {
    log: FakeLog,
    topology: Topology,
    stores: FakeStores,
    derive: Option<Derive>,
}

impl Fixture {
    fn new() -> Self {
        let (log, topology) = (FakeLog::new(1), Topology::new("t.", 1));
        for spec in topology.specs() {
            log.create(&spec).expect("a new log");
        }
        log.state().one_thread = true;
        Self { stores: FakeStores::new(0, &log), log, topology, derive: None }
    }

    fn append(&mut self, topic: &Topic, body: Body) {
        let record = Outgoing { topic: topic.clone(), partition: PARTITION, body };
        self.log.append(&[record]).expect("no faults");
    }

    /// A producer writes these events.
    fn produce(&mut self, ids: &[&str]) {
        let topic = self.topology.input().clone();
        for id in ids {
            let value = format!(
                r#"{{"event_id":"{id}","event_type":"post.created","account_id":"acc",
                "data":{{"post_id":"p","author_id":"ann","text":"hello"}}}}"#
            );
            self.append(&topic, Body::new(Some(b"ann"), Some(value.as_bytes()), &[]));
        }
    }

    /// A process of ADMIT takes what is there. If its commit fails, it ends.
    fn admit(&self, commit_fails: bool) {
        let config = AdmitConfig {
            topology: self.topology.clone(),
            source: AdmitInput::Main,
            instance: "a".to_owned(),
            settings_hash: 7,
            catalogue: Catalogue::builtin(),
            registry: None,
            breaker: PoisonBreaker::new(PoisonLimit::OFF),
            waiting: WaitingPartitions::default(),
        };
        let log: Arc<dyn Log> = Arc::new(self.log.clone());
        let mut admit = Admit::new(config, &log).expect("no faults");
        if commit_fails {
            self.log.state().failing.insert(Call::CommitOffsets);
        }
        let turns: Vec<_> = (0..3).map(|_| admit.turn(Duration::ZERO)).collect();
        assert_eq!(turns.iter().any(Result::is_err), commit_fails);
        self.log.state().failing.clear();
    }

    /// DERIVE processes all that is in the lanes.
    fn derive(&mut self) {
        if self.derive.is_none() {
            let config = DeriveConfig {
                topology: self.topology.clone(),
                instance: "d".to_owned(),
                thread: 0,
                build: "sim".to_owned(),
                settings_hash: 7,
                catalogue: Catalogue::builtin(),
                standby: false,
            };
            let ports = DerivePorts {
                log: Arc::new(self.log.clone()),
                stores: Arc::new(self.stores.clone()),
                clock: Arc::new(PipelineClock(self.log.clone())),
            };
            self.derive = Some(Derive::with_operators(config, ports, OPERATORS).expect("joined"));
        }
        let derive = self.derive.as_mut().expect("just made");
        for _ in 0..10 {
            derive.turn(Duration::ZERO).expect("no faults");
            self.stores.write_some();
            self.log.state().now.0 += 10;
        }
    }

    /// DERIVE stops in order and starts again with the next call.
    fn restart_derive(&mut self) {
        self.derive.take().expect("it ran").close().expect("no faults");
    }

    fn pass(&self, ms: i64) {
        self.log.state().now.0 += ms;
    }

    /// The ids of the events on one channel, in order.
    fn delivered(&self) -> Vec<String> {
        let at = TopicPartition::new(self.topology.out_stream(), PARTITION);
        let records = self.log.records(&at, Isolation::Committed);
        let of_channel = records.iter().filter(|r| r.body.key() == Some(b"posts:ann"));
        let id = |value| EventView::decode(value).expect("an event").event_id.to_owned();
        of_channel.map(|record| id(record.body.value().expect("a value"))).collect()
    }

    /// A lane record as an ADMIT that had delivered everything before `delivered` writes it.
    fn write_lane(&mut self, id: &str, offset: u64, delivered: u64) {
        let event = Event {
            event_id: id.to_owned(),
            event_type: "post.created".to_owned(),
            account_id: "acc".to_owned(),
            timestamp_ms: 0,
            correlation_id: id.to_owned(),
            priority: Priority::Normal,
            key: "ann".to_owned(),
            source: None,
            alias: None,
            data: r#"{"post_id":"p","author_id":"ann","text":"hello"}"#.to_owned(),
        };
        let verdict = Verdict {
            decision: Decision::Passed,
            settings_hash: 7,
            control: Offset(0),
            append_time: self.log.state().now,
            source: VerdictSource {
                input: 0,
                topic: TopicId(1),
                partition: PARTITION,
                offset: Offset(offset),
                delivered_from: Offset(0),
                delivered_to: Offset(delivered),
            },
            rules: Vec::new(),
        };
        let verdict = verdict.encode();
        let body = Body::new(Some(b"ann"), Some(&event.encode()), &[(VERDICT, &verdict)]);
        let topic = self.topology.lane(Lane::Normal).clone();
        self.append(&topic, body);
    }
}

#[test]
fn a_copy_that_admit_writes_after_the_window_of_ids_is_dropped() {
    let mut fixture = Fixture::new();
    fixture.produce(&["e-1", "e-2"]);
    fixture.admit(true);
    fixture.derive();
    fixture.pass(2 * WINDOW_MS);
    fixture.restart_derive();
    fixture.produce(&["e-3"]);
    fixture.admit(false);
    fixture.derive();
    assert_eq!(fixture.delivered(), ["e-1", "e-2", "e-3"]);
}

#[test]
fn a_first_occurrence_behind_a_higher_offset_is_delivered() {
    let mut fixture = Fixture::new();
    // The broker refused 5 and accepted what came after it; ADMIT then appended all of them again.
    for (offset, delivered) in [(6, 5), (7, 5), (5, 5), (6, 5), (7, 5), (8, 8)] {
        fixture.write_lane(&format!("e-{offset}"), offset, delivered);
    }
    fixture.derive();
    assert_eq!(fixture.delivered(), ["e-6", "e-7", "e-5", "e-8"]);
}

#[test]
fn an_input_that_was_created_again_has_no_copies_of_the_former_one() {
    let mut fixture = Fixture::new();
    fixture.produce(&["e-1", "e-2", "e-3"]);
    fixture.admit(false);
    fixture.derive();
    let input = fixture.topology.input().clone();
    fixture.log.state().create_again(&input);
    fixture.produce(&["e-4", "e-5"]);
    fixture.admit(false);
    fixture.derive();
    assert_eq!(fixture.delivered(), ["e-1", "e-2", "e-3", "e-4", "e-5"]);
}
