//! What the dead-letter tests share: a log with dead letters, and checks of the outputs.
//!
//! The dead letters are written as ADMIT writes them. They hold numbered events without an id, as
//! refused by a build that did not know their type yet. So an event that is requeued twice is
//! delivered twice, and nothing downstream hides it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidewire_connectors::embedded::{Config, EmbeddedLog};
use tidewire_engine::admit::{Admit, AdmitConfig, AdmitInput, PoisonBreaker, WaitingPartitions};
use tidewire_engine::dead_letters::record::{Diagnosis, dead_letter};
use tidewire_engine::port::{Isolation, Log, ReadLimit};
use tidewire_engine::record::{
    Body, Millis, Offset, Outgoing, Partition, Record, Topic, TopicPartition,
};
use tidewire_engine::topics_layout::{LayoutNumber, create_topics};
use tidewire_engine::topology::Topology;
use tidewire_engine::value_level::ValueLevel;
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::event::EventView;
use tidewire_tests::server;
use tidewire_tests::wall_clock::SystemWallClock;

/// How long anything may take on a machine under load.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(120);

/// Entity keys, so that some share a partition.
const KEYS: usize = 40;

/// The append time of the first refused record.
pub(crate) const FIRST_TIME: i64 = 1_767_607_200_000;

/// Channels that carry one of our events.
const CHANNELS: [&str; 3] = ["account", "posts", "timeline"];

/// The log in a data folder that no process has open.
pub(crate) fn open(data: &Path) -> Arc<dyn Log> {
    let begun = Instant::now();
    loop {
        // A process that was just killed may not have released it yet.
        match EmbeddedLog::open(Config::new(data.join("log")), Arc::new(SystemWallClock)) {
            Ok(log) => return log,
            Err(error) if begun.elapsed() > TIMEOUT => panic!("{error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// A new log in a temporary folder, with every topic.
pub(crate) fn fresh(topology: &Topology) -> (tempfile::TempDir, Arc<dyn Log>) {
    let dir = tempfile::tempdir().expect("the temporary folder can be written");
    let log = open(dir.path());
    create_topics(&*log, topology, LayoutNumber::CURRENT, ValueLevel::FIRST).expect("new topics");
    (dir, log)
}

pub(crate) fn key(n: usize) -> String {
    format!("k{}", n % KEYS)
}

/// Event number `n`, without an id.
pub(crate) fn event(n: usize) -> Vec<u8> {
    let key = key(n);
    serde_json::json!({
        "event_type": "post.created",
        "account_id": "acc",
        "key": key,
        "data": {"post_id": format!("p{n}"), "author_id": key, "text": n.to_string()},
    })
    .to_string()
    .into_bytes()
}

/// A record of `in`.
pub(crate) fn input(topology: &Topology, key: &str, value: &[u8]) -> Outgoing {
    Outgoing {
        topic: topology.input().clone(),
        partition: topology.partition_of(key.as_bytes()),
        body: Body::new(Some(key.as_bytes()), Some(value), &[("trace", b"t1")]),
    }
}

/// The dead letter of event number `n`.
pub(crate) fn dead_letter_record(topology: &Topology, n: usize) -> Outgoing {
    let record = input(topology, &key(n), &event(n));
    let from = TopicPartition::new(topology.input(), record.partition);
    let record = Record {
        offset: Offset(n as u64),
        timestamp: Millis(FIRST_TIME + n as i64),
        body: record.body,
    };
    let diagnosis = Diagnosis { reason: "unknown_type", field: None, detail: "no such type\nyet" };
    dead_letter(topology, &from, &record, diagnosis)
}

pub(crate) fn append(log: &dyn Log, records: &[Outgoing]) {
    let mut appender = log.appender().expect("an appender");
    for some in records.chunks(1_000) {
        appender.append(some).expect("appended");
    }
}

/// ADMIT on `in`.
pub(crate) fn admit(log: &Arc<dyn Log>, topology: &Topology, breaker: &PoisonBreaker) -> Admit {
    let config = AdmitConfig {
        topology: topology.clone(),
        source: AdmitInput::Main,
        catalogue: Catalogue::builtin(),
        instance: "one".to_owned(),
        settings_hash: 1,
        registry: None,
        breaker: breaker.clone(),
        waiting: WaitingPartitions::default(),
    };
    Admit::new(config, log).expect("joined")
}

/// Turns it until it reads nothing more.
pub(crate) fn settle(admit: &mut Admit) {
    let mut idle = 0;
    while idle < 5 {
        let turned = admit.turn(Duration::from_millis(5)).expect("no faults");
        idle = if turned.taken > 0 { 0 } else { idle + 1 };
    }
}

/// Everything in a topic, by partition.
pub(crate) fn read(
    log: &dyn Log,
    topology: &Topology,
    topic: &Topic,
) -> Vec<(TopicPartition, Record)> {
    let mut reader = log.reader(Isolation::Committed).expect("a reader");
    let limit = ReadLimit { records: 10_000, bytes: 64 << 20 };
    let mut all = Vec::new();
    let spec = topology.specs().into_iter().find(|spec| spec.topic == *topic);
    for p in 0..spec.expect("a topic of ours").partitions {
        let at = TopicPartition::new(topic, Partition(p));
        let end = log.bounds(&at, Isolation::Committed).expect("bounds").end;
        let slot = reader.add(&at, Offset(0)).expect("from the start");
        let mut records = Vec::new();
        while reader.position(slot).expect("a position") < end {
            if reader.take(slot, limit, &mut records).expect("taken") == 0 {
                reader.wait(Duration::from_millis(20)).expect("waited");
            }
        }
        all.extend(records.into_iter().map(|record| (at.clone(), record)));
    }
    all
}

/// The number in the text of an event's data.
fn number_in(data: &str) -> usize {
    let data: serde_json::Value = serde_json::from_str(data).expect("JSON");
    data["text"].as_str().expect("a text").parse().expect("a number")
}

/// The numbers of the events in `in`, in the order of each partition.
pub(crate) fn numbers_in_input(log: &dyn Log, topology: &Topology) -> Vec<usize> {
    let number = |record: &Record| {
        let value: serde_json::Value =
            serde_json::from_slice(record.body.value().expect("a value")).expect("JSON");
        number_in(&value["data"].to_string())
    };
    read(log, topology, topology.input()).iter().map(|(_, record)| number(record)).collect()
}

/// Every number below was delivered once to each of its channels, in order per channel and key.
pub(crate) fn check_delivered(log: &dyn Log, topology: &Topology, numbers: usize) {
    let mut times = BTreeMap::<(String, usize), u32>::new();
    let mut last = BTreeMap::new();
    for topic in [topology.out_stream(), topology.out_urgent()] {
        for (_, record) in read(log, topology, topic) {
            let channel = String::from_utf8_lossy(record.body.key().expect("a key")).into_owned();
            let event = EventView::decode(record.body.value().expect("a value")).expect("an event");
            let n = number_in(event.data);
            let kind = channel.split(':').next().expect("a kind").to_owned();
            *times.entry((kind, n)).or_default() += 1;
            let before = last.insert((channel, event.key.to_owned()), n);
            assert!(before.is_none_or(|before| before < n), "{n} comes after {before:?}");
        }
    }
    let doubled: Vec<_> = times.iter().filter(|(_, times)| **times > 1).take(5).collect();
    assert!(doubled.is_empty(), "delivered more than once: {doubled:?}");
    let missing = (0..numbers)
        .filter(|n| CHANNELS.iter().any(|kind| !times.contains_key(&((*kind).to_owned(), *n))))
        .collect::<Vec<_>>();
    assert!(missing.is_empty(), "{} missing, the first: {:?}", missing.len(), missing.first());
    assert_eq!(times.len(), numbers * CHANNELS.len(), "nothing else was delivered");
}

/// How many records the outputs hold.
pub(crate) fn delivered(log: &dyn Log, topology: &Topology) -> usize {
    [topology.out_stream(), topology.out_urgent()]
        .iter()
        .map(|topic| read(log, topology, topic).len())
        .sum()
}

/// The result of a verb.
pub(crate) struct VerbOutput {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs a verb to its end.
pub(crate) fn run(args: &[&str]) -> VerbOutput {
    let mut command = server::command();
    let Output { status, stdout, stderr } =
        command.args(args).stdin(Stdio::null()).output().expect("the binary starts");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    VerbOutput { code: status.code(), out: text(&stdout), err: text(&stderr) }
}

/// Polls until a condition holds.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < TIMEOUT, "waited too long: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
