//! The in-memory log as one process sees it.

use std::sync::{Arc, Mutex, MutexGuard};

use tidewire_engine::port::Isolation;
use tidewire_engine::record::{Body, Offset, Record, TopicPartition};

use super::log_state::LogState;
use super::partition::LogEntry;

/// The log as one process sees it.
#[derive(Clone)]
pub(crate) struct FakeLog {
    pub(super) log_state: Arc<Mutex<LogState>>,
    pub(super) process: u64,
}

impl FakeLog {
    /// An empty log.
    pub(crate) fn new(seed: u64) -> Self {
        Self { log_state: Arc::new(Mutex::new(LogState::new(seed))), process: 0 }
    }

    /// The same log as another process sees it.
    pub(crate) fn as_process(&self, process: u64) -> Self {
        Self { log_state: self.log_state.clone(), process }
    }

    /// The state of the log, for the world.
    pub(crate) fn state(&self) -> MutexGuard<'_, LogState> {
        self.log_state.lock().expect("no holder panics")
    }

    /// The process whose view this is.
    pub(crate) fn process(&self) -> u64 {
        self.process
    }

    /// Whether this process has crashed.
    pub(crate) fn is_dead(&self) -> bool {
        self.state().dead.contains(&self.process)
    }

    /// Crashes this process: all its further calls fail.
    pub(crate) fn crash(&self) {
        let process = self.process;
        self.state().dead.insert(process);
    }

    /// The records of a partition at this isolation level.
    pub(crate) fn records(&self, at: &TopicPartition, isolation: Isolation) -> Vec<Record> {
        let log_state = self.state();
        let partition = log_state.partition(at).expect("the topic is there");
        let end = log_state.end(at, isolation).expect("the topic is there");
        let record = |offset: u64| match &partition.entries[offset as usize] {
            entry @ LogEntry::Record { time, body, .. } if log_state.visible(entry, isolation) => {
                Some(Record { offset: Offset(offset), timestamp: *time, body: body.clone() })
            }
            _ => None,
        };
        (partition.start..end).filter_map(record).collect()
    }

    /// Replaces a record's body, as disk corruption would.
    pub(crate) fn damage(&self, at: &TopicPartition, offset: Offset, to: Body) {
        let mut log_state = self.state();
        let topic = log_state.topics.get_mut(&at.topic).expect("the topic is there");
        match &mut topic.partitions[at.partition.0 as usize].entries[offset.0 as usize] {
            LogEntry::Record { body, .. } => *body = to,
            other => panic!("{at}/{} is no record: {other:?}", offset.0),
        }
    }

    /// A hash of everything in the log, and of who has written to it or joined.
    pub(crate) fn fingerprint(&self) -> String {
        let log_state = self.state();
        let mut text = String::new();
        for (name, topic) in &log_state.topics {
            for (p, partition) in topic.partitions.iter().enumerate() {
                let hash = partition.entries.iter().fold(0u64, |hash, entry| {
                    let bytes = format!("{entry:?}");
                    bytes
                        .bytes()
                        .fold(hash, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
                });
                text.push_str(&format!("{name}/{p}: {} {hash:016x}\n", partition.end()));
            }
        }
        text.push_str(&format!("{:?}\n{:?}\n", log_state.offsets, log_state.counts));
        text.push_str(&format!("{:?}\n{}", log_state.ids, log_state.next_member));
        text
    }
}
