//! Requeues dead letters while the log fails and processes crash.
//!
//! Whatever the history, each dead letter is requeued exactly once.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidewire_engine::dead_letters::record::{Diagnosis, dead_letter};
use tidewire_engine::dead_letters::{Filter, Resolution, ResolveRequest, resolve};
use tidewire_engine::port::{Appender, Isolation, Log};
use tidewire_engine::record::{Body, Millis, Offset, Partition, Record, TopicPartition};
use tidewire_engine::topology::Topology;

use crate::fake::FakeLog;

/// Histories in one run.
const HISTORIES: u64 = 400;

/// Dead letters in each.
const DEAD_LETTERS: u64 = 40;

/// Attempts, each in a new process, after which the log stops failing.
const ATTEMPTS: u64 = 12;

fn history(seed: u64) -> BTreeMap<String, u32> {
    let mut log = FakeLog::new(seed);
    let topology = Topology::new("t.", 3);
    for spec in topology.specs() {
        log.create(&spec).expect("a new log");
    }
    let from = TopicPartition::new(topology.input(), Partition(1));
    for n in 0..DEAD_LETTERS {
        let text = n.to_string();
        let body = Body::new(None, Some(text.as_bytes()), &[]);
        let record = Record { offset: Offset(n), timestamp: Millis(5), body };
        let diagnosis = Diagnosis { reason: "not_json", field: None, detail: "send JSON" };
        let record = dead_letter(&topology, &from, &record, diagnosis);
        log.append(&[record]).expect("no faults yet");
    }
    let request = ResolveRequest {
        filter: Filter::default(),
        resolution: Resolution::Requeued,
        because: None,
        limit: Some(DEAD_LETTERS as usize / 3),
    };
    log.state().faults = true;
    for attempt in 1..=ATTEMPTS {
        let process: Arc<dyn Log> = Arc::new(log.as_process(attempt));
        // Whatever the outcome, the next attempt must complete the rest.
        resolve(&*process, &topology, &request).ok();
    }
    log.state().faults = false;
    let process = log.as_process(ATTEMPTS + 1);
    let request = ResolveRequest { limit: None, ..request };
    resolve(&process, &topology, &request).expect("no faults any more");
    let mut back = BTreeMap::new();
    for p in 0..topology.partitions() {
        let at = TopicPartition::new(topology.input(), Partition(p));
        for record in log.records(&at, Isolation::Committed) {
            let value = String::from_utf8_lossy(record.body.value().expect("a value")).into_owned();
            *back.entry(value).or_default() += 1;
        }
    }
    back
}

#[test]
fn each_dead_letter_is_requeued_once_whatever_fails() {
    let wanted: BTreeMap<String, u32> = (0..DEAD_LETTERS).map(|n| (n.to_string(), 1)).collect();
    for seed in 0..HISTORIES {
        assert_eq!(history(seed), wanted, "history {seed}");
    }
}
