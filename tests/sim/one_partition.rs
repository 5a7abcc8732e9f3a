//! A pipeline of one partition that a test drives step by step: producers, ADMIT, DERIVE, clock.

use std::sync::Arc;
use std::time::Duration;

use tidewire_engine::admit::{
    Admit, AdmitConfig, AdmitInput, PoisonBreaker, PoisonLimit, WaitingPartitions,
};
use tidewire_engine::derive::{DEDUP_FILTER_BYTES, Derive, DeriveConfig, DerivePorts};
use tidewire_engine::lane_record::VERDICT;
use tidewire_engine::operators::OPERATORS;
use tidewire_engine::port::{Appender, Clock, Isolation, Log};
use tidewire_engine::record::{Body, Millis, Offset, Outgoing, Partition, Topic, TopicPartition};
use tidewire_engine::topology::{Lane, Topology};
use tidewire_engine::verdict::{Decision, TopicId, Verdict, VerdictSource};
use tidewire_schemas::Priority;
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::event::{Event, EventView};

use crate::fake::{Call, FakeLog, FakeStores};

pub(crate) const PARTITION: Partition = Partition(0);

struct PipelineClock(FakeLog);

impl Clock for PipelineClock {
    fn now(&self) -> Millis {
        self.0.state().now
    }
}

/// One partition, and a DERIVE that processes it.
pub(crate) struct OnePartition {
    pub(crate) log: FakeLog,
    pub(crate) topology: Topology,
    stores: FakeStores,
    derive: Option<Derive>,
}

impl OnePartition {
    pub(crate) fn new() -> Self {
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
    pub(crate) fn produce(&mut self, ids: &[&str]) {
        ids.iter().for_each(|id| self.produce_in(Lane::Normal, id));
    }

    /// A producer writes an event whose priority is that of a lane.
    pub(crate) fn produce_in(&mut self, lane: Lane, id: &str) {
        let topic = self.topology.input().clone();
        let priority = 3 - lane.number();
        let value = format!(
            r#"{{"event_id":"{id}","event_type":"post.created","account_id":"acc",
            "priority":{priority},"data":{{"post_id":"p","author_id":"ann","text":"hello"}}}}"#
        );
        self.append(&topic, Body::new(Some(b"ann"), Some(value.as_bytes()), &[]));
    }

    /// A process of ADMIT takes what is there. If its commit fails, it ends.
    pub(crate) fn admit(&self, commit_fails: bool) {
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
    pub(crate) fn derive(&mut self) {
        self.derive_turns(10);
    }

    /// DERIVE takes this many turns.
    pub(crate) fn derive_turns(&mut self, turns: usize) {
        if self.derive.is_none() {
            let config = DeriveConfig {
                topology: self.topology.clone(),
                instance: "d".to_owned(),
                thread: 0,
                build: "sim".to_owned(),
                settings_hash: 7,
                catalogue: Catalogue::builtin(),
                standby: false,
                dedup_filter_bytes: DEDUP_FILTER_BYTES,
                hash_seed: 0,
            };
            let ports = DerivePorts {
                log: Arc::new(self.log.clone()),
                stores: Arc::new(self.stores.clone()),
                clock: Arc::new(PipelineClock(self.log.clone())),
            };
            self.derive = Some(Derive::new(config, ports, OPERATORS).expect("joined"));
        }
        let derive = self.derive.as_mut().expect("just made");
        for _ in 0..turns {
            derive.turn(Duration::ZERO).expect("no faults");
            self.stores.write_some();
            self.log.state().now.0 += 10;
        }
    }

    /// DERIVE stops in order and starts again with the next call.
    pub(crate) fn restart_derive(&mut self) {
        self.derive.take().expect("it ran").close().expect("no faults");
    }

    pub(crate) fn pass(&self, ms: i64) {
        self.log.state().now.0 += ms;
    }

    /// The ids of the events on one channel, in order.
    pub(crate) fn delivered(&self) -> Vec<String> {
        let records = [self.topology.out_urgent(), self.topology.out_stream()].map(|topic| {
            self.log.records(&TopicPartition::new(topic, PARTITION), Isolation::Committed)
        });
        let of_channel = records.iter().flatten().filter(|r| r.body.key() == Some(b"posts:ann"));
        let id = |value| EventView::decode(value).expect("an event").event_id.to_owned();
        of_channel.map(|record| id(record.body.value().expect("a value"))).collect()
    }

    /// A lane record as an ADMIT that had delivered everything before `delivered` writes it.
    pub(crate) fn write_lane(&mut self, id: &str, offset: u64, delivered: u64) {
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
