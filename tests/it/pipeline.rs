//! ADMIT and DERIVE on the embedded log and RocksDB, restarted and killed again and again.
//!
//! A producer's events carry numbers, so the outputs can be compared with the input without knowing
//! when a process was killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidewire_connectors::embedded::{Config, EmbeddedLog};
use tidewire_connectors::rocks::{self, RocksStores};
use tidewire_engine::admit::{
    Admit, AdmitConfig, AdmitInput, PoisonBreaker, PoisonLimit, WaitingPartitions,
};
use tidewire_engine::derive::order::OrderRecord;
use tidewire_engine::derive::{DEDUP_FILTER_BYTES, Derive, DeriveConfig, DerivePorts};
use tidewire_engine::operators::OPERATORS;
use tidewire_engine::port::{Clock, Isolation, Log, ReadLimit};
use tidewire_engine::record::TopicPartition;
use tidewire_engine::record::{Body, Offset, Outgoing, Partition, Record, Topic};
use tidewire_engine::topics_layout::{LayoutNumber, create_topics};
use tidewire_engine::topology::{Lane, Topology};
use tidewire_engine::value_level::ValueLevel;
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::event::EventView;
use tidewire_tests::test_rng::TestRng;
use tidewire_tests::wall_clock::SystemWallClock;

/// The child's folder; unset in every other run of its test.
const DIR_VARIABLE: &str = "TIDEWIRE_TEST_PIPELINE";

/// Children killed in one run.
const ROUNDS: usize = 6;

/// Entity keys, so that some share a partition.
const KEYS: usize = 40;

/// How long anything may take on a machine under load.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A log and stores in one directory.
struct PipelineUnderTest {
    log: Arc<dyn Log>,
    ports: DerivePorts,
    topology: Topology,
}

impl PipelineUnderTest {
    fn open(dir: &Path) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemWallClock);
        let log: Arc<dyn Log> =
            EmbeddedLog::open(Config::new(dir.join("log")), clock.clone()).expect("the log opens");
        let stores = RocksStores::new(rocks::Config::new(dir.join("state")));
        let topology = Topology::new("t.", 4);
        create_topics(&*log, &topology, LayoutNumber::CURRENT, ValueLevel::FIRST)
            .expect("as asked");
        Self { ports: DerivePorts { log: log.clone(), stores, clock }, log, topology }
    }

    fn admit(&self) -> Admit {
        let config = AdmitConfig {
            topology: self.topology.clone(),
            source: AdmitInput::Main,
            catalogue: Catalogue::builtin(),
            instance: "one".to_owned(),
            settings_hash: 1,
            registry: None,
            breaker: PoisonBreaker::new(PoisonLimit::OFF),
            waiting: WaitingPartitions::default(),
        };
        Admit::new(config, &self.log).expect("joined")
    }

    fn derive(&self) -> Derive {
        let config = DeriveConfig {
            topology: self.topology.clone(),
            catalogue: Catalogue::builtin(),
            instance: "one".to_owned(),
            thread: 0,
            build: "test".to_owned(),
            settings_hash: 1,
            standby: false,
            dedup_filter_bytes: DEDUP_FILTER_BYTES,
            hash_seed: 0,
        };
        Derive::new(config, self.ports.clone(), OPERATORS).expect("joined")
    }

    /// Runs both loops until nothing is left to do, and closes them.
    fn settle(&self) {
        let (mut admit, mut derive) = (self.admit(), self.derive());
        let begun = Instant::now();
        let mut idle = 0;
        while idle < 5 {
            assert!(begun.elapsed() < TIMEOUT, "the pipeline does not come to rest");
            let admitted = admit.turn(Duration::from_millis(5)).expect("no faults");
            let derived = derive.turn(Duration::from_millis(5)).expect("no faults");
            let busy = admitted.taken + derived.taken + derived.written > 0 || derived.restoring;
            idle = if busy { 0 } else { idle + 1 };
        }
        derive.close().expect("closed");
        self.check_left_in_order();
    }

    /// After an orderly end no offset names an owner: the next one must not wait to fence it.
    fn check_left_in_order(&self) {
        let group = self.topology.derive_group();
        for topic in self.topology.lanes() {
            for p in 0..self.topology.partitions() {
                let at = TopicPartition::new(topic, Partition(p));
                let committed = self.log.committed(&group, &[at]).expect("offsets");
                let owner = committed[0].as_ref().map(|committed| committed.metadata.as_str());
                assert!(matches!(owner, None | Some("")), "{topic}/{p} still belongs to {owner:?}");
            }
        }
    }

    /// Everything in a topic, by partition.
    fn read(&self, topic: &Topic) -> Vec<(TopicPartition, Record)> {
        let mut reader = self.log.reader(Isolation::Committed).expect("a reader");
        let limit = ReadLimit { records: 10_000, bytes: 64 << 20 };
        let mut all = Vec::new();
        for p in 0..self.topology.partitions() {
            let at = TopicPartition::new(topic, Partition(p));
            let end = self.log.bounds(&at, Isolation::Committed).expect("bounds").end;
            let slot = reader.add(&at, Offset(0)).expect("from the start");
            let mut records = Vec::new();
            while reader.position(slot).expect("a position") < end {
                reader.take(slot, limit, &mut records).expect("taken");
            }
            all.extend(records.into_iter().map(|record| (at.clone(), record)));
        }
        all
    }

    /// Appends events of these numbers; sometimes repeats the one before, as a producer would.
    fn produce(&self, numbers: std::ops::Range<usize>, rng: &mut TestRng) {
        let mut appender = self.log.appender().expect("an appender");
        let mut batch = Vec::new();
        for n in numbers {
            batch.push(self.event(n));
            if n > KEYS && rng.one_in(10) {
                batch.push(self.event(n - 1));
            }
        }
        appender.append(&batch).expect("appended");
    }

    fn event(&self, n: usize) -> Outgoing {
        let key = format!("k{}", n % KEYS);
        let value = serde_json::json!({
            "event_id": format!("e-{n}"),
            "event_type": "post.created",
            "account_id": "acc",
            "priority": n / KEYS % 4,
            "timestamp": "2026-01-05T09:00:00Z",
            "key": key,
            "data": {"post_id": format!("p{n}"), "author_id": key, "text": n.to_string()},
        })
        .to_string();
        Outgoing {
            topic: self.topology.input().clone(),
            partition: self.topology.partition_of(key.as_bytes()),
            body: Body::new(Some(key.as_bytes()), Some(value.as_bytes()), &[]),
        }
    }

    /// One more than the largest number in `in`.
    fn next_number(&self) -> usize {
        let number = |record: &Record| {
            let value: serde_json::Value =
                serde_json::from_slice(record.body.value().expect("a value")).expect("JSON");
            value["data"]["text"].as_str().expect("a text").parse::<usize>().expect("a number")
        };
        self.read(self.topology.input()).iter().map(|(_, r)| number(r) + 1).max().unwrap_or(0)
    }

    /// Every number was delivered once to each channel, in order per channel, key and priority.
    fn check(&self, numbers: usize) {
        let mut got = BTreeMap::<String, Vec<u32>>::new();
        let mut last = BTreeMap::new();
        for topic in [self.topology.out_urgent(), self.topology.out_stream()] {
            for (at, record) in self.read(topic) {
                let event = EventView::decode(record.body.value().expect("a value"));
                let event = event.expect("an event");
                let n: usize = event.event_id[2..].parse().expect("a number");
                let channel =
                    String::from_utf8(record.body.key().expect("a key").to_vec()).expect("text");
                let kind = channel.split(':').next().expect("a kind").to_owned();
                got.entry(kind).or_insert_with(|| vec![0; numbers])[n] += 1;
                let order = (channel, event.key.to_owned(), event.priority.number());
                let before = last.insert(order, n);
                assert!(before.is_none_or(|b| b < n), "{at}: {n} comes after {before:?}");
            }
        }
        assert_eq!(got.keys().collect::<Vec<_>>(), ["account", "posts", "timeline"]);
        for (kind, times) in got {
            let wrong = times.iter().position(|times| *times != 1);
            assert_eq!(wrong, None, "{kind}: {:?} deliveries of it", wrong.map(|n| times[n]));
        }
        assert!(self.read(self.topology.dead_letters()).is_empty());
        self.check_order(numbers);
    }

    /// The order records cover each lane without a gap, and accept each id once.
    fn check_order(&self, numbers: usize) {
        let mut next = BTreeMap::new();
        let mut accepted = 0;
        for (at, record) in self.read(self.topology.order()) {
            let order = OrderRecord::decode(record.body.value().expect("a value")).expect("ours");
            accepted += order.accepted.iter().map(|run| run.ids.len()).sum::<usize>();
            for lane in Lane::ALL {
                let Some(span) = order.spans[lane.index()] else { continue };
                let next = next.entry((at.partition, lane)).or_insert(Offset(0));
                assert_eq!(span.first, *next, "{at}/{}: {lane:?}", record.offset.0);
                *next = span.last.next();
            }
        }
        assert_eq!(accepted, numbers, "ids accepted");
    }
}

#[test]
fn events_go_through_lanes_to_channels_once_and_in_order_over_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut rng = TestRng::new(7);
    for round in 1..=2 {
        let pipeline = PipelineUnderTest::open(dir.path());
        pipeline.produce((round - 1) * 2_000..round * 2_000, &mut rng);
        pipeline.settle();
        pipeline.check(round * 2_000);
    }
}

#[test]
#[ignore = "the child of the test below"]
fn child_pipeline() {
    let Ok(dir) = std::env::var(DIR_VARIABLE) else { return };
    let pipeline = PipelineUnderTest::open(Path::new(&dir));
    let first = pipeline.next_number();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut rng = TestRng::new(first as u64);
            for n in (first..).step_by(50) {
                pipeline.produce(n..n + 50, &mut rng);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        scope.spawn(|| {
            let mut admit = pipeline.admit();
            loop {
                admit.turn(Duration::from_millis(50)).expect("no faults");
            }
        });
        let mut derive = pipeline.derive();
        loop {
            let turned = derive.turn(Duration::from_millis(50)).expect("no faults");
            if turned.taken > 0 {
                let mut out = std::io::stdout().lock();
                writeln!(out, "\ncommitted").expect("the parent listens");
                out.flush().expect("the parent listens");
            }
        }
    });
}

#[test]
fn events_of_a_killed_process_are_delivered_once_and_in_order() {
    let seed = std::env::var("TIDEWIRE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    eprintln!("repeat with TIDEWIRE_SEED={seed}");
    let mut rng = TestRng::new(seed);
    let dir = tempfile::tempdir().expect("a directory");
    for round in 0..ROUNDS {
        // Some are killed early, some after their stores were written for the first time.
        let life = Duration::from_millis(rng.below(if round % 3 == 2 { 2_500 } else { 200 }));
        one_child(dir.path(), life);
    }
    let pipeline = PipelineUnderTest::open(dir.path());
    pipeline.settle();
    let numbers = pipeline.next_number();
    assert!(numbers > 100, "the children were killed before they did anything");
    pipeline.check(numbers);
}

/// Runs a child, and kills it this long after its first commit.
fn one_child(dir: &Path, life: Duration) {
    let mut child = Command::new(std::env::current_exe().expect("this binary"))
        .args(["pipeline::child_pipeline", "--exact"])
        .args(["--ignored", "--nocapture", "--test-threads=1"])
        .env(DIR_VARIABLE, dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let begun = Instant::now();
    while !lines.next().is_some_and(|line| line.is_ok_and(|line| line == "committed")) {
        assert!(begun.elapsed() < TIMEOUT && alive(&mut child), "the child commits nothing");
    }
    std::thread::scope(|scope| {
        let rest = scope.spawn(|| lines.map_while(Result::ok).count());
        std::thread::sleep(life);
        child.kill().expect("SIGKILL");
        child.wait().expect("reaped");
        rest.join().expect("the reading thread ends with the child");
    });
}

fn alive(child: &mut Child) -> bool {
    child.try_wait().is_ok_and(|ended| ended.is_none())
}
