//! A log in memory for the fan-out's tests.
//!
//! Its offsets may have holes, as Kafka's control records leave, and its retention moves when a
//! test asks for it. It only serves reads: any other call is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::port::{
    Appender, Bounds, Committed, Isolation, Log, LogError, Member, MemberSpec, ReadLimit, Reader,
    ReaderSlot, TopicInfo, TopicSpec, Transactor, Wake,
};
use crate::record::{Body, Millis, Offset, Partition, Record, TopicPartition};
use crate::topology::Topology;

/// Records and bounds of one partition.
#[derive(Default)]
struct StoredPartition {
    start: u64,
    end: u64,
    records: BTreeMap<u64, Record>,
}

/// The log.
pub(super) struct MemoryLog {
    topology: Topology,
    topics: Mutex<Vec<TopicInfo>>,
    /// Whether the log answers questions.
    away: AtomicBool,
    /// The partitions for which it answers nothing.
    leaderless: Arc<Mutex<BTreeSet<Partition>>>,
    /// Questions about partitions that it did not answer.
    unanswered: AtomicU64,
    /// Blocking look-ups so far.
    lookups: AtomicU64,
    stored: Arc<Mutex<BTreeMap<TopicPartition, StoredPartition>>>,
    taken: Arc<AtomicU64>,
}

impl MemoryLog {
    pub(super) fn new(topology: &Topology, id: u128) -> Self {
        let log = Self {
            topology: topology.clone(),
            topics: Mutex::default(),
            away: AtomicBool::new(false),
            leaderless: Arc::default(),
            unanswered: AtomicU64::new(0),
            lookups: AtomicU64::new(0),
            stored: Arc::default(),
            taken: Arc::default(),
        };
        log.create_again(id);
        log
    }

    /// Creates every topic again, empty and with this id.
    pub(super) fn create_again(&self, id: u128) {
        let specs = self.topology.specs().into_iter();
        *self.topics.lock().unwrap() = specs.map(|spec| TopicInfo { spec, id }).collect();
        self.stored.lock().unwrap().clear();
    }

    /// Changes what the log says about its topics.
    pub(super) fn change_topics(&self, change: impl FnOnce(&mut Vec<TopicInfo>)) {
        change(&mut self.topics.lock().unwrap());
    }

    /// Makes every question fail, or answers them again.
    pub(super) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::Relaxed);
    }

    /// Takes the leader of a partition away from every topic, or gives it back.
    pub(super) fn set_leader(&self, partition: Partition, exists: bool) {
        let mut leaderless = self.leaderless.lock().unwrap();
        if exists {
            leaderless.remove(&partition)
        } else {
            leaderless.insert(partition)
        };
    }

    /// Questions about partitions that were not answered so far.
    pub(super) fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Relaxed)
    }

    fn ask_about(&self, at: &TopicPartition) -> Result<(), LogError> {
        let asked = self.ask().and_then(|()| require_leader(&self.leaderless, at));
        if asked.is_err() {
            self.unanswered.fetch_add(1, Ordering::Relaxed);
        }
        asked
    }

    /// Blocking look-ups of bounds and times so far.
    pub(super) fn lookups(&self) -> u64 {
        self.lookups.load(Ordering::Relaxed)
    }

    /// Removes the records from `end` on, as an older copy of the data does.
    pub(super) fn truncate(&self, at: &TopicPartition, end: u64) {
        let mut stored = self.stored.lock().unwrap();
        let stored = stored.entry(at.clone()).or_default();
        stored.end = stored.end.min(end);
        drop(stored.records.split_off(&stored.end));
    }

    fn ask(&self) -> Result<(), LogError> {
        match self.away.load(Ordering::Relaxed) {
            true => Err(LogError::Retry("no broker answers".into())),
            false => Ok(()),
        }
    }

    /// Appends and returns the offset.
    pub(super) fn append(&self, at: &TopicPartition, time: Millis, body: Body) -> u64 {
        let mut stored = self.stored.lock().unwrap();
        let stored = stored.entry(at.clone()).or_default();
        let offset = Offset(stored.end);
        stored.records.insert(stored.end, Record { offset, timestamp: time, body });
        stored.end += 1;
        offset.0
    }

    /// Skips an offset, as a control record does.
    pub(super) fn skip(&self, at: &TopicPartition) {
        self.stored.lock().unwrap().entry(at.clone()).or_default().end += 1;
    }

    /// Removes the records before `start`.
    pub(super) fn retain_from(&self, at: &TopicPartition, start: u64) {
        let mut stored = self.stored.lock().unwrap();
        let stored = stored.entry(at.clone()).or_default();
        stored.start = stored.start.max(start.min(stored.end));
        stored.records = stored.records.split_off(&stored.start);
    }

    /// Records that all readers together have read.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    pub(super) fn start(&self, at: &TopicPartition) -> u64 {
        self.stored.lock().unwrap().get(at).map_or(0, |stored| stored.start)
    }
}

fn require_leader(
    leaderless: &Mutex<BTreeSet<Partition>>,
    at: &TopicPartition,
) -> Result<(), LogError> {
    match leaderless.lock().unwrap().contains(&at.partition) {
        true => Err(LogError::Retry(format!("{at} has no leader").into())),
        false => Ok(()),
    }
}

fn unused<T>() -> Result<T, LogError> {
    Err(LogError::Invalid("the fan-out only reads".to_owned()))
}

impl Log for MemoryLog {
    fn create(&self, _: &TopicSpec) -> Result<bool, LogError> {
        unused()
    }

    fn topics(&self) -> Result<Vec<TopicInfo>, LogError> {
        self.ask()?;
        Ok(self.topics.lock().unwrap().clone())
    }

    fn bounds(&self, at: &TopicPartition, _: Isolation) -> Result<Bounds, LogError> {
        self.ask_about(at)?;
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let stored = self.stored.lock().unwrap();
        let (start, end) = stored.get(at).map_or((0, 0), |stored| (stored.start, stored.end));
        Ok(Bounds { start: Offset(start), end: Offset(end) })
    }

    fn offset_at(&self, at: &TopicPartition, time: Millis) -> Result<Option<Offset>, LogError> {
        self.ask_about(at)?;
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let stored = self.stored.lock().unwrap();
        let mut records = stored.get(at).into_iter().flat_map(|stored| stored.records.values());
        Ok(records.find(|record| record.timestamp >= time).map(|record| record.offset))
    }

    fn committed(&self, _: &str, _: &[TopicPartition]) -> Result<Vec<Option<Committed>>, LogError> {
        unused()
    }

    fn appender(&self) -> Result<Box<dyn Appender>, LogError> {
        unused()
    }

    fn transactor(&self, _: &str) -> Result<Box<dyn Transactor>, LogError> {
        unused()
    }

    fn reader(&self, _: Isolation) -> Result<Box<dyn Reader>, LogError> {
        let (stored, taken) = (Arc::clone(&self.stored), Arc::clone(&self.taken));
        let leaderless = Arc::clone(&self.leaderless);
        Ok(Box::new(MemoryLogReader { stored, taken, leaderless, slots: Vec::new() }))
    }

    fn member(&self, _: &MemberSpec) -> Result<Box<dyn Member>, LogError> {
        unused()
    }
}

struct MemoryLogReader {
    stored: Arc<Mutex<BTreeMap<TopicPartition, StoredPartition>>>,
    taken: Arc<AtomicU64>,
    leaderless: Arc<Mutex<BTreeSet<Partition>>>,
    slots: Vec<(TopicPartition, u64)>,
}

impl Reader for MemoryLogReader {
    fn add(&mut self, at: &TopicPartition, from: Offset) -> Result<ReaderSlot, LogError> {
        require_leader(&self.leaderless, at)?;
        self.slots.push((at.clone(), from.0));
        Ok(ReaderSlot((self.slots.len() - 1) as u32))
    }

    fn remove(&mut self, _: ReaderSlot) {}

    fn seek(&mut self, slot: ReaderSlot, to: Offset) -> Result<(), LogError> {
        self.slots[slot.0 as usize].1 = to.0;
        Ok(())
    }

    fn take(
        &mut self,
        slot: ReaderSlot,
        limit: ReadLimit,
        out: &mut Vec<Record>,
    ) -> Result<usize, LogError> {
        let mut stored = self.stored.lock().unwrap();
        let (at, next) = &mut self.slots[slot.0 as usize];
        let stored = stored.entry(at.clone()).or_default();
        if *next < stored.start || *next > stored.end {
            let (at, asked, start, end) = (at.clone(), *next, stored.start, stored.end);
            return Err(LogError::OutOfRange { at, asked, start, end });
        }
        let (mut taken, mut bytes) = (0, 0);
        let full = |taken, bytes| taken == limit.records || (taken > 0 && bytes >= limit.bytes);
        for (_, record) in stored.records.range(*next..) {
            if full(taken, bytes) {
                break;
            }
            taken += 1;
            bytes += record.body.as_bytes().len();
            out.push(record.clone());
        }
        self.taken.fetch_add(taken as u64, Ordering::Relaxed);
        *next = match full(taken, bytes) {
            true => out[out.len() - 1].offset.0 + 1,
            false => stored.end,
        };
        Ok(taken)
    }

    fn position(&mut self, slot: ReaderSlot) -> Result<Offset, LogError> {
        Ok(Offset(self.slots[slot.0 as usize].1))
    }

    fn wait(&mut self, _: Duration) -> Result<(), LogError> {
        Ok(())
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::new(NoWake)
    }
}

/// Does nothing: tests take every step themselves.
pub(super) struct NoWake;

impl Wake for NoWake {
    fn wake(&self) {}
}
