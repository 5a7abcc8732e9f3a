//! DERIVE of one machine on a log and stores that fail, with any operators and without ADMIT.

use std::sync::Arc;
use std::time::Duration;

use tidewire_engine::derive::{DEDUP_FILTER_BYTES, Derive, DeriveConfig, DerivePorts, Operator};
use tidewire_engine::fact_pack;
use tidewire_engine::port::{Appender, Clock, Isolation, Log};
use tidewire_engine::record::{Body, Millis, Outgoing, Partition, Record, Topic, TopicPartition};
use tidewire_engine::topology::{Lane, Topology};
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::event::Event;

use crate::fake::{FakeLog, FakeStores};

/// Milliseconds of a turn.
const TURN_MS: i64 = 60;

/// Turns with faults between two crashes.
const CRASH_EVERY: u64 = 40;

struct OneMachineClock(FakeLog);

impl Clock for OneMachineClock {
    fn now(&self) -> Millis {
        self.0.state().now
    }
}

/// A machine whose DERIVE is created again after each crash.
pub(crate) struct OneMachine {
    pub(crate) log: FakeLog,
    pub(crate) topology: Topology,
    operators: &'static [&'static dyn Operator],
    catalogue: &'static Catalogue,
    stores: FakeStores,
    derive: Option<(FakeLog, Derive)>,
    processes: u64,
}

impl OneMachine {
    /// A new log of three partitions.
    pub(crate) fn new(seed: u64, operators: &'static [&'static dyn Operator]) -> Self {
        Self::with_catalogue(seed, operators, Catalogue::builtin())
    }

    /// The same with another catalogue.
    pub(crate) fn with_catalogue(
        seed: u64,
        operators: &'static [&'static dyn Operator],
        catalogue: &'static Catalogue,
    ) -> Self {
        let (log, topology) = (FakeLog::new(seed), Topology::new("t.", 3));
        for spec in topology.specs() {
            log.create(&spec).expect("a new log");
        }
        log.state().one_thread = true;
        let stores = FakeStores::new(0, &log);
        Self { log, topology, operators, catalogue, stores, derive: None, processes: 0 }
    }

    /// Stops DERIVE in order and goes on with other operators, on these stores.
    pub(crate) fn replace(
        &mut self,
        operators: &'static [&'static dyn Operator],
        stores: &FakeStores,
    ) {
        if let Some((_, derive)) = self.derive.take() {
            derive.close().expect("no faults");
        }
        (self.operators, self.stores) = (operators, stores.clone());
    }

    /// Appends an event to a lane, as ADMIT does; only while there are no faults.
    pub(crate) fn append(&self, lane: Lane, event: &Event) {
        let record = Outgoing {
            topic: self.topology.lane(lane).clone(),
            partition: self.topology.entity_partition(&event.account_id, &event.key),
            body: Body::new(Some(event.key.as_bytes()), Some(&event.encode()), &[]),
        };
        self.log.clone().append(&[record]).expect("no faults");
    }

    /// The log as another process sees it.
    pub(crate) fn process(&mut self) -> FakeLog {
        self.processes += 1;
        self.log.as_process(self.processes)
    }

    /// A turn of DERIVE; returns how much it did.
    pub(crate) fn turn(&mut self) -> usize {
        if self.derive.is_none() {
            let process = self.process();
            let config = DeriveConfig {
                topology: self.topology.clone(),
                instance: "one".to_owned(),
                thread: 0,
                build: "sim".to_owned(),
                catalogue: self.catalogue,
                settings_hash: 7,
                standby: false,
                dedup_filter_bytes: DEDUP_FILTER_BYTES,
                hash_seed: self.processes,
            };
            let ports = DerivePorts {
                log: Arc::new(process.clone()),
                stores: Arc::new(self.stores.of_process(&process)),
                clock: Arc::new(OneMachineClock(self.log.clone())),
            };
            let derive = Derive::new(config, ports, self.operators);
            self.derive = derive.ok().map(|derive| (process, derive));
        }
        let mut work = 1;
        if let Some((process, mut derive)) = self.derive.take() {
            let turned = derive.turn(Duration::ZERO);
            match turned {
                Ok(turned) if !process.is_dead() => {
                    work = turned.taken + turned.written + usize::from(turned.restoring);
                    self.derive = Some((process, derive));
                }
                _ => {
                    drop(derive);
                    self.stores.crash(0);
                }
            }
        }
        self.log.state().now.0 += TURN_MS;
        self.stores.write_some();
        work
    }

    /// Turns with faults, and crashes now and then.
    pub(crate) fn turn_with_faults(&mut self, turns: u64) {
        self.log.state().faults = true;
        for n in 0..turns {
            self.turn();
            if n % CRASH_EVERY == CRASH_EVERY - 1 {
                self.log.state().time_out();
                if let Some((process, _)) = &self.derive {
                    process.crash();
                }
            }
        }
        self.log.state().faults = false;
    }

    /// Turns without faults until nothing is left to do.
    pub(crate) fn settle(&mut self, at_most: usize) {
        let mut idle = 0;
        for _ in 0..at_most {
            self.log.state().time_out();
            idle = if self.turn() == 0 { idle + 1 } else { 0 };
            if idle > 20 {
                return;
            }
        }
        panic!("there is still work after {at_most} turns without faults");
    }

    /// The committed records of a topic, by partition.
    pub(crate) fn records(&self, topic: &Topic) -> Vec<Record> {
        let at = |p| TopicPartition::new(topic, Partition(p));
        let partitions = 0..self.topology.partitions();
        partitions.flat_map(|p| self.log.records(&at(p), Isolation::Committed)).collect()
    }

    /// The committed facts and copies of a lane, each by itself, by partition.
    pub(crate) fn facts(&self, lane: Lane) -> Vec<Body> {
        let packs = self.records(self.topology.lane(lane)).into_iter();
        let entries = packs.flat_map(|pack| {
            let bytes = pack.body.value_bytes().expect("a pack has a value");
            fact_pack::decode(&bytes).expect("a task has written it")
        });
        entries.map(|entry| entry.to_body()).collect()
    }
}
