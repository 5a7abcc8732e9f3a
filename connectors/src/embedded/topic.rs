//! A topic and its partitions in memory: what readers and writers share. A partition is two
//! numbers, start and end, its tail, and the bells of those who read it.
//!
//! The end is published after the tail has the records, and bells ring after the end moved; so a
//! reader that sees an end finds what is below it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tidewire_engine::port::{Bounds, LogError, TopicInfo, TopicSpec};
use tidewire_engine::record::{Millis, Offset, TopicPartition};

use super::database::ColumnFamilies;
use super::tail::{Chunk, LogTail};
use crate::notify::Notifier;

/// A topic as it is served.
pub(super) struct TopicLog {
    /// What was asked for.
    pub(super) spec: TopicSpec,
    /// Its identity, the incarnation included.
    pub(super) id: u128,
    /// Its column families.
    pub(super) families: ColumnFamilies,
    /// Its partitions by number.
    pub(super) partitions: Vec<Arc<PartitionLog>>,
}

impl TopicLog {
    /// As the port describes it.
    pub(super) fn info(&self) -> TopicInfo {
        TopicInfo { spec: self.spec.clone(), id: self.id }
    }
}

/// A partition together with its topic.
#[derive(Clone, Copy)]
pub(super) struct PartitionRef<'a> {
    pub(super) topic: &'a TopicLog,
    pub(super) log: &'a PartitionLog,
}

/// How much of the upkeep to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UpkeepScope {
    /// What is due.
    Due,
    /// All there is.
    Everything,
}

/// One run of the upkeep.
#[derive(Clone, Copy)]
pub(super) struct UpkeepRun {
    /// The time it applies to.
    pub(super) now: Millis,
    pub(super) scope: UpkeepScope,
}

/// How far upkeep has come.
#[derive(Clone, Copy)]
pub(super) struct UpkeepProgress {
    /// Records below were looked at.
    pub(super) cleaned: u64,
    /// When the last pass was.
    pub(super) at: Millis,
    /// When retention was last looked at.
    pub(super) retained: Millis,
}

/// What a partition is served with from the beginning.
pub(super) struct RecoveredState {
    /// Start and end.
    pub(super) bounds: Bounds,
    /// How far compaction has come.
    pub(super) cleaned: u64,
}

/// A partition as it is served.
pub(super) struct PartitionLog {
    /// Its name.
    pub(super) at: TopicPartition,
    /// The topic's number in keys of meta.
    pub(super) topic: u32,
    /// Its place in the writer's table of heads; partitions of all topics are counted through.
    pub(super) head_index: usize,
    /// The oldest offset readable. Shared with the compaction filters.
    pub(super) start: Arc<AtomicU64>,
    end: AtomicU64,
    progress: Mutex<UpkeepProgress>,
    tail: Mutex<LogTail>,
    readers: Mutex<Vec<Arc<Notifier>>>,
}

impl PartitionLog {
    /// A partition with nothing in its tail.
    pub(super) fn new(
        at: TopicPartition,
        topic: u32,
        head_index: usize,
        recovered: &RecoveredState,
    ) -> Self {
        let never = Millis(i64::MIN);
        let progress = UpkeepProgress { cleaned: recovered.cleaned, at: never, retained: never };
        Self {
            at,
            topic,
            head_index,
            start: Arc::new(AtomicU64::new(recovered.bounds.start.0)),
            end: AtomicU64::new(recovered.bounds.end.0),
            progress: Mutex::new(progress),
            tail: Mutex::default(),
            readers: Mutex::default(),
        }
    }

    /// One past the newest record.
    pub(super) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// The oldest offset readable.
    pub(super) fn start(&self) -> u64 {
        self.start.load(Ordering::Acquire)
    }

    /// Start and end.
    pub(super) fn bounds(&self) -> Bounds {
        let start = self.start();
        Bounds { start: Offset(start), end: Offset(self.end().max(start)) }
    }

    /// Fails unless the log can be read from here.
    pub(super) fn check(&self, from: u64) -> Result<(), LogError> {
        let Bounds { start, end } = self.bounds();
        if (start.0..=end.0).contains(&from) {
            return Ok(());
        }
        Err(LogError::OutOfRange { at: self.at.clone(), asked: from, start: start.0, end: end.0 })
    }

    /// How far upkeep has come.
    pub(super) fn progress(&self) -> UpkeepProgress {
        *self.progress.lock().expect("no holder panics")
    }

    /// Upkeep came further.
    pub(super) fn set_progress(&self, progress: UpkeepProgress) {
        *self.progress.lock().expect("no holder panics") = progress;
    }

    /// Makes a written chunk readable. The bells ring later, in [`Self::notify_readers`].
    pub(super) fn publish(&self, chunk: Arc<Chunk>) {
        let end = chunk.end();
        self.tail.lock().expect("no holder panics").push(chunk);
        self.end.store(end, Ordering::Release);
    }

    /// Wakes those who wait for this partition.
    pub(super) fn notify_readers(&self) {
        for reader in self.readers.lock().expect("no holder panics").iter() {
            reader.signal();
        }
    }

    /// Forgets the oldest chunk of the tail.
    pub(super) fn evict(&self) -> usize {
        self.tail.lock().expect("no holder panics").evict()
    }

    /// Some chunks of the tail from this offset on.
    pub(super) fn tail(&self, from: u64, out: &mut Vec<Arc<Chunk>>) {
        self.tail.lock().expect("no holder panics").from(from, out);
    }

    /// Rings this bell from now on.
    pub(super) fn watch(&self, reader: &Arc<Notifier>) {
        self.readers.lock().expect("no holder panics").push(reader.clone());
    }

    /// Rings this bell no more. One reader may read a partition twice: one entry goes.
    pub(super) fn unwatch(&self, reader: &Arc<Notifier>) {
        let mut readers = self.readers.lock().expect("no holder panics");
        if let Some(at) = readers.iter().position(|r| Arc::ptr_eq(r, reader)) {
            readers.swap_remove(at);
        }
    }
}
