//! Readers of the embedded log: from memory at the tail of a partition, from RocksDB below it.
//!
//! Each partition has its own position, and each `take` decides again where to read, so falling
//! behind and catching up are not states. Below the tail a reader fetches ahead, so that small
//! reads don't seek each time.
//!
//! A missing record is never skipped silently: the start of the partition has passed it, or is
//! moved past it, and the reader gets `OutOfRange`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidewire_engine::port::{LogError, ReadLimit, Reader, ReaderSlot, UnreadRecords, Wake};
use tidewire_engine::record::{Body, Offset, Record, TopicPartition};

use super::config::READ_AHEAD_BYTES;
use super::core::Core;
use super::layout;
use super::tail::Chunk;
use super::topic::{PartitionLog, PartitionRef, TopicLog};
use crate::notify::Notifier;
use crate::telemetry;

/// A reader of any number of partitions.
pub(super) struct EmbeddedReader {
    core: Arc<Core>,
    /// Wakes the reader's wait.
    pub(super) notifier: Arc<Notifier>,
    cursors: BTreeMap<u32, LogCursor>,
    next_slot: u32,
    chunks: Vec<Arc<Chunk>>,
}

struct LogCursor {
    topic: Arc<TopicLog>,
    log: Arc<PartitionLog>,
    /// The next offset to hand out.
    next: u64,
    /// Records from `next` on that were fetched and not handed out.
    ahead: VecDeque<Record>,
    /// Where the next fetch begins once `ahead` is handed out.
    fetched: u64,
}

/// What a `take` may still return.
struct TakeBudget {
    records: usize,
    bytes: usize,
    taken: usize,
}

impl TakeBudget {
    /// Whether this record is within the limit. The first one always is.
    fn admits(&mut self, record: &Record) -> bool {
        let bytes = record.body.as_bytes().len();
        if self.taken > 0 && (self.taken >= self.records || bytes > self.bytes) {
            return false;
        }
        self.taken += 1;
        self.bytes = self.bytes.saturating_sub(bytes);
        true
    }
}

impl EmbeddedReader {
    /// A reader without partitions.
    pub(super) fn new(core: &Arc<Core>) -> Self {
        Self {
            core: core.clone(),
            notifier: Arc::default(),
            cursors: BTreeMap::new(),
            next_slot: 0,
            chunks: Vec::new(),
        }
    }

    /// Waits as [`Reader::wait`] does, and also ends when `pending` returns true.
    pub(super) fn wait_or(&self, at_most: Duration, pending: impl FnOnce() -> bool) {
        let some = || self.cursors.values().any(|cursor| cursor.next < cursor.log.end());
        self.notifier.wait(at_most, || pending() || some());
    }

    fn cursor(&mut self, slot: ReaderSlot) -> Result<&mut LogCursor, LogError> {
        self.cursors.get_mut(&slot.0).ok_or_else(|| {
            LogError::Invalid(format!(
                "slot {} was removed from this reader; add the partition again",
                slot.0
            ))
        })
    }
}

impl LogCursor {
    fn move_to(&mut self, next: u64) {
        self.ahead.clear();
        self.next = next;
        self.fetched = next;
    }

    /// Hands out what was fetched ahead.
    fn take_ahead(&mut self, budget: &mut TakeBudget, out: &mut Vec<Record>) {
        while let Some(record) = self.ahead.pop_front() {
            if !budget.admits(&record) {
                self.ahead.push_front(record);
                return;
            }
            self.next = record.offset.0 + 1;
            out.push(record);
        }
        self.next = self.fetched;
    }

    /// Whether the next record was compacted. Memory may still have records that were removed.
    fn is_compacted(&self) -> bool {
        self.topic.families.keys.is_some() && self.next < self.log.progress().cleaned
    }

    /// Hands out records from memory; `false` if the next record is not in memory.
    fn take_tail(
        &mut self,
        chunks: &mut Vec<Arc<Chunk>>,
        budget: &mut TakeBudget,
        out: &mut Vec<Record>,
    ) -> bool {
        let mut served = false;
        while !self.is_compacted() {
            chunks.clear();
            self.log.tail(self.next, chunks);
            if chunks.is_empty() {
                return served;
            }
            served = true;
            for record in chunks.iter().flat_map(|chunk| chunk.records(self.next)) {
                if !budget.admits(&record) {
                    return true;
                }
                self.fetched = record.offset.0 + 1;
                out.push(record);
            }
            self.next = self.fetched;
        }
        served
    }

    /// Fetches from RocksDB what the budget allows, and ahead of it.
    fn fetch(&mut self, core: &Core, budget: &TakeBudget) -> Result<(), LogError> {
        let (start, end) = (self.next, self.log.end());
        let gaps = self.topic.families.keys.is_some();
        let bytes_max = budget.bytes.max(READ_AHEAD_BYTES);
        let mut bytes = 0;
        let mut reached = end;
        let ahead = &mut self.ahead;
        let mut hole = false;
        let of = PartitionRef { topic: &self.topic, log: &self.log };
        core.scan(of, start..end, &mut |offset, value| {
            if ahead.is_empty() && offset != start && !gaps {
                hole = true;
                return Ok(false);
            }
            let corruption = || core.database.corruption(&format!("a record at offset {offset}"));
            let (timestamp, _, body) = layout::split_record(value).ok_or_else(corruption)?;
            bytes += body.len();
            let body = Body::from_stored(Bytes::copy_from_slice(body)).map_err(|_| corruption())?;
            ahead.push_back(Record { offset: Offset(offset), timestamp, body });
            let more = bytes < bytes_max;
            if !more {
                reached = offset + 1;
            }
            Ok(more)
        })?;
        if !gaps && (hole || (self.ahead.is_empty() && start < end)) {
            return self.report_hole(core);
        }
        self.fetched = reached;
        telemetry::log_fetched(self.ahead.len());
        Ok(())
    }

    /// Handles that the next record's file was deleted before the start of the partition moved.
    fn report_hole(&mut self, core: &Core) -> Result<(), LogError> {
        let (next, end) = (self.next, self.log.end());
        let of = PartitionRef { topic: &self.topic, log: &self.log };
        let first = core.first_stored(of, next..end)?.unwrap_or(end);
        if first > next {
            core.move_start(&self.log, first)?;
            telemetry::log_removed("missing", first - next);
        }
        self.log.check(next)
    }
}

impl Reader for EmbeddedReader {
    fn add(&mut self, at: &TopicPartition, from: Offset) -> Result<ReaderSlot, LogError> {
        let (topic, log) = self.core.partition(at)?;
        log.check(from.0)?;
        log.watch(&self.notifier);
        let slot = self.next_slot;
        self.next_slot += 1;
        let (next, fetched) = (from.0, from.0);
        self.cursors.insert(slot, LogCursor { topic, log, next, ahead: VecDeque::new(), fetched });
        Ok(ReaderSlot(slot))
    }

    fn remove(&mut self, slot: ReaderSlot) {
        if let Some(cursor) = self.cursors.remove(&slot.0) {
            cursor.log.unwatch(&self.notifier);
        }
    }

    fn seek(&mut self, slot: ReaderSlot, to: Offset) -> Result<(), LogError> {
        let cursor = self.cursor(slot)?;
        cursor.log.check(to.0)?;
        cursor.move_to(to.0);
        Ok(())
    }

    fn take(
        &mut self,
        slot: ReaderSlot,
        limit: ReadLimit,
        out: &mut Vec<Record>,
    ) -> Result<usize, LogError> {
        let core = self.core.clone();
        let mut chunks = std::mem::take(&mut self.chunks);
        let mut budget = TakeBudget { records: limit.records, bytes: limit.bytes, taken: 0 };
        let cursor = self.cursor(slot)?;
        cursor.log.check(cursor.next)?;
        if cursor.ahead.is_empty() && !cursor.take_tail(&mut chunks, &mut budget, out) {
            if cursor.next == cursor.log.end() {
                return Ok(0);
            }
            cursor.fetch(&core, &budget)?;
        }
        cursor.take_ahead(&mut budget, out);
        chunks.clear();
        self.chunks = chunks;
        Ok(budget.taken)
    }

    fn position(&mut self, slot: ReaderSlot) -> Result<Offset, LogError> {
        Ok(Offset(self.cursor(slot)?.next))
    }

    /// Nothing of an open transaction is in the log before its commit.
    fn backlog(&mut self, slot: ReaderSlot) -> Option<UnreadRecords> {
        let cursor = self.cursor(slot).ok()?;
        let oldest = cursor.ahead.front().map(|record| record.timestamp);
        let records = cursor.log.end().saturating_sub(cursor.next);
        Some(UnreadRecords { next: Offset(cursor.next), records, open_transaction: false, oldest })
    }

    fn wait(&mut self, at_most: Duration) -> Result<(), LogError> {
        self.core.check_failure()?;
        self.wait_or(at_most, || false);
        Ok(())
    }

    fn wait_for_waker(&mut self, at_most: Duration) -> Result<(), LogError> {
        self.core.check_failure()?;
        self.notifier.wait(at_most, || false);
        Ok(())
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.notifier.clone()
    }
}

impl Drop for EmbeddedReader {
    fn drop(&mut self) {
        for cursor in self.cursors.values() {
            cursor.log.unwatch(&self.notifier);
        }
    }
}
