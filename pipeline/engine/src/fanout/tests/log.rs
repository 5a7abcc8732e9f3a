//! A log in memory for the fan-out's tests.
//!
//! Its offsets may have holes, as Kafka's control records leave. A test opens and ends transactions
//! and moves its retention. It only serves reads: any other call is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::port::{
    Appender, Bounds, Committed, EndsRequest, Isolation, Log, LogError, Member, MemberSpec,
    ReadLimit, Reader, ReaderSlot, TopicInfo, TopicSpec, Transactor, Wake,
};
use crate::record::{Body, Millis, Offset, Partition, Record, TopicPartition};
use crate::topology::Topology;

/// Records and bounds of one partition.
#[derive(Default)]
struct StoredPartition {
    start: u64,
    end: u64,
    /// Where a transaction is open.
    open_from: Option<u64>,
    records: BTreeMap<u64, Record>,
}

impl StoredPartition {
    /// The end of what can be read.
    fn stable_end(&self) -> u64 {
        self.open_from.unwrap_or(self.end)
    }
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogTransactionEnd {
    Commit,
    Abort,
}

/// Ends that are told later.
struct HeldEnds {
    ends: Vec<Offset>,
    are_held: Arc<AtomicBool>,
}

impl EndsRequest for HeldEnds {
    fn poll(&mut self) -> Result<Option<Vec<Option<Offset>>>, LogError> {
        match self.are_held.load(Ordering::Relaxed) {
            true => Ok(None),
            false => Ok(Some(self.ends.iter().copied().map(Some).collect())),
        }
    }
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
    /// Whether requests for ends stay without an answer.
    ends_are_held: Arc<AtomicBool>,
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
            ends_are_held: Arc::default(),
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

    /// Opens a transaction: what is appended from now on can't be read until it ends.
    pub(super) fn open_transaction(&self, at: &TopicPartition) {
        let mut stored = self.stored.lock().unwrap();
        let stored = stored.entry(at.clone()).or_default();
        stored.open_from = Some(stored.end);
    }

    /// Ends the open transaction; its control record takes an offset.
    pub(super) fn end_transaction(&self, at: &TopicPartition, end: LogTransactionEnd) {
        let mut stored = self.stored.lock().unwrap();
        let stored = stored.entry(at.clone()).or_default();
        let from = stored.open_from.take().expect("one is open");
        if end == LogTransactionEnd::Abort {
            drop(stored.records.split_off(&from));
        }
        stored.end += 1;
    }

    /// Lets requests for ends wait for their answers, or gives these.
    pub(super) fn hold_ends(&self, held: bool) {
        self.ends_are_held.store(held, Ordering::Relaxed);
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

    /// The end, open transactions included.
    pub(super) fn end(&self, at: &TopicPartition) -> u64 {
        self.stored.lock().unwrap().get(at).map_or(0, |stored| stored.end)
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

    fn bounds(&self, at: &TopicPartition, isolation: Isolation) -> Result<Bounds, LogError> {
        self.ask_about(at)?;
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let stored = self.stored.lock().unwrap();
        let (start, end) = stored.get(at).map_or((0, 0), |stored| match isolation {
            Isolation::Committed => (stored.start, stored.stable_end()),
            Isolation::Uncommitted => (stored.start, stored.end),
        });
        Ok(Bounds { start: Offset(start), end: Offset(end) })
    }

    fn request_ends(
        &self,
        of: &[TopicPartition],
        isolation: Isolation,
    ) -> Result<Box<dyn EndsRequest>, LogError> {
        let ends = of.iter().map(|at| Ok(self.bounds(at, isolation)?.end));
        let ends = ends.collect::<Result<_, LogError>>()?;
        Ok(Box::new(HeldEnds { ends, are_held: Arc::clone(&self.ends_are_held) }))
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
        for (_, record) in stored.records.range(*next..stored.stable_end().max(*next)) {
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
            false => stored.stable_end().max(*next),
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
