//! A topic and its partitions in memory: what readers and the writer share.
//!
//! A partition is a start, an end, its tail, and the notifiers of its readers. The end moves
//! together with the tail, and readers are signalled after that. So a reader that sees an end finds
//! every record below it, and none reads beyond it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tidewire_engine::port::{Bounds, LogError, TopicInfo, TopicSpec};
use tidewire_engine::record::{Millis, Offset, TopicPartition};

use super::database::ColumnFamilies;
use super::tail::{Chunk, LogTail};
use crate::notify::Notifier;

/// An open topic.
pub(super) struct TopicLog {
    /// The specification it was created with.
    pub(super) spec: TopicSpec,
    /// Its identity, the incarnation included.
    pub(super) id: u128,
    /// Its column families.
    pub(super) families: ColumnFamilies,
    /// Its partitions by number.
    pub(super) partitions: Vec<Arc<PartitionLog>>,
}

impl TopicLog {
    /// Its description for the port.
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
    /// Records below this offset are compacted.
    pub(super) cleaned: u64,
    /// Keys of these records, removed ones included as long as their tombstones stay.
    pub(super) keys: u64,
    /// When the last pass of compaction was.
    pub(super) at: Millis,
    /// When retention was last checked.
    pub(super) retained: Millis,
}

/// The stored state of a partition when it is opened.
pub(super) struct RecoveredState {
    /// Start and end.
    pub(super) bounds: Bounds,
    /// Records below this offset are compacted.
    pub(super) cleaned: u64,
    /// Keys of these records.
    pub(super) keys: u64,
}

/// An open partition.
pub(super) struct PartitionLog {
    /// Its name.
    pub(super) at: TopicPartition,
    /// The topic's number in keys of meta.
    pub(super) topic: u32,
    /// Its index in the writer's table of heads, which has the partitions of all topics.
    pub(super) head_index: usize,
    /// The oldest readable offset. Shared with the compaction filters.
    pub(super) start: Arc<AtomicU64>,
    end: AtomicU64,
    progress: Mutex<UpkeepProgress>,
    tail: Mutex<LogTail>,
    readers: Mutex<Vec<Arc<Notifier>>>,
}

impl PartitionLog {
    /// A partition with an empty tail.
    pub(super) fn new(
        at: TopicPartition,
        topic: u32,
        head_index: usize,
        recovered: &RecoveredState,
    ) -> Self {
        let never = Millis(i64::MIN);
        let RecoveredState { cleaned, keys, .. } = *recovered;
        let progress = UpkeepProgress { cleaned, keys, at: never, retained: never };
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

    /// The oldest readable offset.
    pub(super) fn start(&self) -> u64 {
        self.start.load(Ordering::Acquire)
    }

    /// Start and end.
    pub(super) fn bounds(&self) -> Bounds {
        let start = self.start();
        Bounds { start: Offset(start), end: Offset(self.end().max(start)) }
    }

    /// Fails unless the partition can be read from this offset.
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

    /// Stores how far upkeep has come.
    pub(super) fn set_progress(&self, progress: UpkeepProgress) {
        *self.progress.lock().expect("no holder panics") = progress;
    }

    /// Makes a written chunk readable. [`Self::notify_readers`] signals the readers afterwards.
    pub(super) fn publish(&self, chunk: Arc<Chunk>) {
        let end = chunk.end();
        // The end moves under the lock: a reader that took the chunk would be beyond the old one.
        let mut tail = self.tail.lock().expect("no holder panics");
        tail.push(chunk);
        self.end.store(end, Ordering::Release);
    }

    /// Signals the readers of this partition.
    pub(super) fn notify_readers(&self) {
        for reader in self.readers.lock().expect("no holder panics").iter() {
            reader.signal();
        }
    }

    /// Evicts the oldest chunk of the tail; returns its bytes.
    pub(super) fn evict(&self) -> usize {
        self.tail.lock().expect("no holder panics").evict()
    }

    /// Chunks of the tail from this offset on.
    pub(super) fn tail(&self, from: u64, out: &mut Vec<Arc<Chunk>>) {
        self.tail.lock().expect("no holder panics").from(from, out);
    }

    /// Signals this reader from now on.
    pub(super) fn watch(&self, reader: &Arc<Notifier>) {
        self.readers.lock().expect("no holder panics").push(reader.clone());
    }

    /// Stops signalling this reader. A reader may read a partition twice: one entry is removed.
    pub(super) fn unwatch(&self, reader: &Arc<Notifier>) {
        let mut readers = self.readers.lock().expect("no holder panics");
        if let Some(at) = readers.iter().position(|r| Arc::ptr_eq(r, reader)) {
            readers.swap_remove(at);
        }
    }
}
