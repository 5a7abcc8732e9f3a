//! A history: producers, loops, crashes, rebalances and slow disks in an order chosen by a seed,
//! then a quiet time in which everything must come to its end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidewire_engine::admit::{Admit, AdmitConfig, Brake, PoisonLimit, Source};
use tidewire_engine::derive::progress::Progress;
use tidewire_engine::derive::{Derive, DeriveConfig, DerivePorts};
use tidewire_engine::port::{Appender, Clock, Isolation, Log, LogError};
use tidewire_engine::record::{Body, Millis, Offset, Outgoing, Partition, Record, TopicPartition};
use tidewire_engine::topology::{Lane, Topology};
use tidewire_engine::turn::{EngineError, Turned};

use crate::check;
use crate::fake::{Data, FakeLog, FakeStores};
use crate::operators::{FAILING, OPERATORS};
use crate::random::Random;

/// Partitions of every topic: enough for two owners and for keys that share one.
const PARTITIONS: u32 = 3;

/// Steps with faults in one history.
const STEPS: u64 = 400;

/// Crashes of which one leaves its machine down.
const DOWN_ONCE_IN: u64 = 4;

/// Turns a machine stays down at most.
const DOWN_TURNS_MAX: u64 = 40;

/// Turns after which a quiet world must have come to its end.
const MAX_QUIET_ROUNDS: u32 = 2_000;

/// What a producer wrote that can't become an event, by its position.
pub(crate) type Poison = BTreeMap<String, Vec<u8>>;

/// A loop and what it takes to make it anew.
struct Loop<T> {
    instance: usize,
    /// Turns that pass before it is made anew.
    down: u64,
    log: FakeLog,
    running: Option<T>,
}

/// Everything of one history.
pub(crate) struct World {
    /// The log, as an onlooker that never crashes.
    pub(crate) log: FakeLog,
    /// The topics.
    pub(crate) topology: Topology,
    /// The machines' disks.
    pub(crate) machines: Vec<FakeStores>,
    /// What was kept of the disks' past, by task and offset in `order`.
    pub(crate) checkpoints: BTreeMap<(Partition, Offset), (Data, Bytes)>,
    /// What was written to the inputs and can't be admitted.
    pub(crate) poison: Poison,
    /// What was written to a lane and can't be decoded.
    pub(crate) lane_poison: Poison,
    random: Random,
    admits: Vec<(Source, Loop<Admit>)>,
    derives: Vec<Loop<Derive>>,
    processes: u64,
    sequence: u64,
    /// Values of events that may be sent again.
    sent: Vec<(Source, Vec<u8>, Vec<u8>)>,
}

struct FakeClock(FakeLog);

impl Clock for FakeClock {
    fn now(&self) -> Millis {
        self.0.inner().now
    }
}

impl World {
    /// A world of this seed, before anything has happened.
    pub(crate) fn new(seed: u64) -> Self {
        let log = FakeLog::new(seed ^ 0x5eed);
        let topology = Topology::new("t.", PARTITIONS);
        for spec in topology.specs() {
            log.create(&spec).expect("a new log");
        }
        let mut random = Random::new(seed);
        let owners = 1 + random.below(2) as usize;
        let admit = || Loop { instance: 0, down: 0, log: log.clone(), running: None };
        let derive = |instance| Loop { instance, down: 0, log: log.clone(), running: None };
        Self {
            machines: (0..owners).map(|_| FakeStores::default()).collect(),
            admits: vec![(Source::Input, admit()), (Source::Urgent, admit())],
            derives: (0..owners).map(derive).collect(),
            topology,
            checkpoints: BTreeMap::new(),
            poison: Poison::new(),
            lane_poison: Poison::new(),
            random,
            processes: 1,
            sequence: 0,
            sent: Vec::new(),
            log,
        }
    }

    /// Runs a whole history and checks it; an error says what does not hold.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        self.log.inner().faults = true;
        for step in 0..STEPS {
            self.step()?;
            if step % 50 == 49 {
                check::progress(self)?;
                self.keep_checkpoints();
            }
        }
        self.log.inner().faults = false;
        self.settle()?;
        check::progress(self)?;
        check::end(self)
    }

    fn step(&mut self) -> Result<(), String> {
        match self.random.below(100) {
            0..30 => self.produce(),
            30..45 => drop(self.turn_admit(0)?),
            45..52 => drop(self.turn_admit(1)?),
            52..84 => {
                let n = self.random.below(self.derives.len() as u64) as usize;
                self.turn_derive(n)?;
            }
            84..92 => self.advance(),
            92..97 => {
                let n = self.random.below(self.machines.len() as u64) as usize;
                self.machines[n].write_some();
            }
            97 => {
                let n = self.random.below(self.derives.len() as u64) as usize;
                if self.derives[n].running.is_some() {
                    self.derives[n].log.crash();
                }
            }
            98 => {
                let n = self.random.below(self.derives.len() as u64) as usize;
                if let Some(derive) = self.derives[n].running.take() {
                    let closed = derive.close();
                    self.after(&closed.map(|()| Turned::default()), n)?;
                }
            }
            _ => {
                let process = self.random.below(self.processes + 1);
                self.log.inner().expire(process);
            }
        }
        Ok(())
    }

    /// Keeps the stores as they are: every batch in these histories ends on a transaction's
    /// boundary, since none restores as much as would be handed over in pieces.
    fn keep_checkpoints(&mut self) {
        for (of, disk) in self.machines.iter().flat_map(|m| m.disks().clone()) {
            if let Some(progress) = &disk.progress {
                let order = Progress::decode(progress).expect("it was written").order;
                // Before the first transaction there is nothing to keep.
                if order > Offset(0) {
                    self.checkpoints.insert((Partition(of), order), (disk.data, progress.clone()));
                }
            }
        }
    }

    fn advance(&mut self) {
        let ms = match self.random.below(10) {
            0 => 5_000,
            1..4 => 150,
            _ => 3,
        };
        let mut inner = self.log.inner();
        inner.now.0 += ms;
        if ms == 5_000 {
            // Restores meet gaps. The other compacted topics are compared record by record.
            inner.clean(|topic| topic == self.topology.state());
        }
    }

    fn produce(&mut self) {
        for _ in 0..1 + self.random.below(8) {
            let (source, key, value) = match self.random.below(20) {
                0 => self.poisoned(),
                1 => return self.poison_lane(),
                2..5 if !self.sent.is_empty() => {
                    let n = self.random.below(self.sent.len() as u64) as usize;
                    self.sent[n].clone()
                }
                _ => {
                    let event = self.event();
                    // Without an id of its own a second sending is another event.
                    if has_id(&event.2) {
                        self.sent.push(event.clone());
                    }
                    event
                }
            };
            let topic = match source {
                Source::Input => self.topology.input().clone(),
                Source::Urgent => self.topology.input_urgent().clone(),
            };
            let partition = self.topology.partition_of(&key);
            let record = Outgoing {
                topic: topic.clone(),
                partition,
                body: Body::new(Some(&key), Some(&value), &[("trace", b"t")]),
            };
            let offset = self.write(&record);
            if value.starts_with(b"!") {
                let at = TopicPartition::new(&topic, partition);
                self.poison.insert(format!("{at}/{offset}"), value);
            }
        }
    }

    fn event(&mut self) -> (Source, Vec<u8>, Vec<u8>) {
        self.sequence += 1;
        let author = self.random.below(7);
        // A key has one input, so that its order is one.
        let source = if author == 6 { Source::Urgent } else { Source::Input };
        let priority = self.random.below(4);
        let sequence = self.sequence;
        let mut value = serde_json::json!({
            "event_type": "post.created",
            "account_id": "acc",
            "timestamp": "2026-01-05T09:00:00Z",
            "priority": priority,
            "key": format!("k{author}"),
            "data": {
                "post_id": format!("p{sequence}"),
                "author_id": format!("k{author}"),
                "text": sequence.to_string(),
            },
        });
        match self.random.below(12) {
            0 => {}
            1 => value["event_id"] = format!("{FAILING}-{sequence}").into(),
            _ => value["event_id"] = format!("e-{sequence}").into(),
        }
        let value = value.to_string();
        (source, format!("k{author}").into_bytes(), value.into_bytes())
    }

    fn poisoned(&mut self) -> (Source, Vec<u8>, Vec<u8>) {
        self.sequence += 1;
        let key = format!("k{}", self.random.below(7)).into_bytes();
        (Source::Input, key, format!("!{}", self.sequence).into_bytes())
    }

    fn poison_lane(&mut self) {
        self.sequence += 1;
        let lane = Lane::ALL[self.random.below(5) as usize];
        let key = format!("k{}", self.random.below(7));
        let value = format!("no avro {}", self.sequence).into_bytes();
        let at = TopicPartition::new(
            self.topology.lane(lane),
            self.topology.partition_of(key.as_bytes()),
        );
        let record = Outgoing {
            topic: at.topic.clone(),
            partition: at.partition,
            body: Body::new(Some(key.as_bytes()), Some(&value), &[]),
        };
        let offset = self.write(&record);
        self.lane_poison.insert(format!("{at}/{offset}"), value);
    }

    /// Producers are not what is tested: their writes never fail.
    fn write(&mut self, record: &Outgoing) -> u64 {
        let faults = std::mem::replace(&mut self.log.inner().faults, false);
        let offsets = self.log.append(std::slice::from_ref(record)).expect("no faults");
        self.log.inner().faults = faults;
        offsets[0].0
    }

    fn next_process(&mut self) -> FakeLog {
        self.processes += 1;
        self.log.as_process(self.processes)
    }

    fn turn_admit(&mut self, n: usize) -> Result<Turned, String> {
        let source = self.admits[n].0;
        if self.admits[n].1.running.is_none() {
            self.admits[n].1.log = self.next_process();
            let log: Arc<dyn Log> = Arc::new(self.admits[n].1.log.clone());
            let config = AdmitConfig {
                topology: self.topology.clone(),
                source,
                instance: "a0".to_owned(),
                settings_hash: 7,
                registry: None,
                brake: Brake::new(PoisonLimit::OFF),
            };
            match Admit::new(config, &log) {
                Ok(admit) => self.admits[n].1.running = Some(admit),
                Err(error) => return self.excuse(&self.admits[n].1.log, &error),
            }
        }
        let of = &mut self.admits[n].1;
        let turned = of.running.as_mut().expect("just made").turn(Duration::ZERO);
        let log = of.log.clone();
        if turned.is_err() {
            of.running = None;
        }
        turned.or_else(|error| self.excuse(&log, &error))
    }

    fn turn_derive(&mut self, n: usize) -> Result<Turned, String> {
        if self.derives[n].down > 0 {
            self.derives[n].down -= 1;
            return Ok(Turned::default());
        }
        if self.derives[n].running.is_none() {
            self.derives[n].log = self.next_process();
            let log = self.derives[n].log.clone();
            let config = DeriveConfig {
                topology: self.topology.clone(),
                instance: format!("d{}", self.derives[n].instance),
                thread: 0,
                build: "sim".to_owned(),
                settings_hash: 7,
            };
            let ports = DerivePorts {
                log: Arc::new(log.clone()),
                stores: Arc::new(self.machines[n].clone()),
                clock: Arc::new(FakeClock(log.clone())),
            };
            match Derive::with_operators(config, ports, OPERATORS) {
                Ok(derive) => self.derives[n].running = Some(derive),
                Err(error) => return self.excuse(&log, &error),
            }
        }
        let derive = self.derives[n].running.as_mut().expect("just made");
        let turned = derive.turn(Duration::ZERO);
        self.after(&turned, n)?;
        Ok(turned.unwrap_or_default())
    }

    /// What the app does with a turn's end: nothing, or make the loop anew the next time.
    fn after(&mut self, turned: &Result<Turned, EngineError>, n: usize) -> Result<(), String> {
        if let Err(error) = turned {
            let log = self.derives[n].log.clone();
            self.excuse(&log, error)?;
            self.derives[n].running = None;
            if log.is_dead() {
                self.machines[n].crash();
                self.stay_down(n);
            }
        }
        Ok(())
    }

    /// Some machines stay down for so long that others take over what they had.
    fn stay_down(&mut self, n: usize) {
        if self.derives.len() > 1 && self.random.once_in(DOWN_ONCE_IN) {
            let of = &mut self.derives[n];
            of.down = 1 + self.random.below(DOWN_TURNS_MAX);
            let mut inner = of.log.inner();
            inner.expire(of.log.process());
            inner.count("machines down");
        }
    }

    /// A loop may end by a crash, or say that it wants to be made anew; anything else is a finding.
    fn excuse(&self, log: &FakeLog, error: &EngineError) -> Result<Turned, String> {
        match error {
            EngineError::Fatal { .. } if !log.is_dead() => Err(format!("fatal: {error:?}")),
            _ => Ok(Turned::default()),
        }
    }

    /// Runs everything without faults until nothing is left to do.
    fn settle(&mut self) -> Result<(), String> {
        let mut idle = 0;
        for _ in 0..MAX_QUIET_ROUNDS {
            let mut busy = false;
            for n in 0..self.admits.len() {
                busy |= self.turn_admit(n)?.taken > 0;
            }
            for n in 0..self.derives.len() {
                let turned = self.turn_derive(n)?;
                busy |= turned.taken > 0 || turned.written > 0 || turned.restoring;
            }
            self.log.inner().now.0 += 50;
            self.machines.iter().for_each(FakeStores::write_some);
            idle = if busy { 0 } else { idle + 1 };
            // Long enough for every timer to come due and every hand-over to be written.
            if idle > 60 {
                return Ok(());
            }
        }
        Err("the world does not come to rest".to_owned())
    }

    /// What a partition of the log holds, committed.
    pub(crate) fn records(&self, at: &TopicPartition) -> Vec<Record> {
        self.log.records(at, Isolation::Committed)
    }

    /// What the group has committed of a partition.
    pub(crate) fn committed(&self, group: &str, at: &TopicPartition) -> Option<u64> {
        let faults = std::mem::replace(&mut self.log.inner().faults, false);
        let committed: Result<_, LogError> = self.log.committed(group, std::slice::from_ref(at));
        self.log.inner().faults = faults;
        committed.expect("no faults")[0].as_ref().map(|committed| committed.offset.0)
    }
}

fn has_id(value: &[u8]) -> bool {
    String::from_utf8_lossy(value).contains("\"event_id\"")
}
