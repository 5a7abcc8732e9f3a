//! Writes queued appends and transactions: gives out offsets, writes one batch, publishes the ends.
//!
//! A thread that wants to write queues its write and takes the writer lock. By then another thread
//! has either written it along with its own, or this one writes everything that waits in one
//! `WriteBatch`. So all waiting threads share one disk sync, and no thread exists only to write.
//!
//! The order is: check fences, give out offsets, write, publish ends, signal readers. Nothing is
//! published before it is written. After a failed write the state on disk is not known: the log is
//! marked as failed, and every later call returns that error.

use std::sync::Arc;

use rocksdb::WriteBatch;
use tidewire_engine::port::LogError;
use tidewire_engine::record::Millis;

use super::core::Core;
use super::layout;
use super::tail::Chunk;
use super::topic::PartitionLog;
use super::write_queue::{AtomicWrite, FirstOffsets, PartitionAppend, QueuedWrite, WriterState};
use crate::telemetry;

/// What each run becomes in memory once it is written.
type Chunks = Vec<(Arc<PartitionLog>, Chunk)>;

/// A write whose records are in the batch.
struct Staged {
    queued: Arc<QueuedWrite>,
    first_offsets: FirstOffsets,
    chunks: Chunks,
}

/// The batch that a group of writes is put into, and the time its records get.
struct Staging<'a> {
    core: &'a Core,
    now: Millis,
    batch: &'a mut WriteBatch,
}

/// Appends the write to the log and returns the first offset of each run.
pub(super) fn submit(core: &Core, write: AtomicWrite) -> Result<FirstOffsets, LogError> {
    let queued = core.write_queue.push(write);
    let mut state = core.lock_writer()?;
    loop {
        if let Some(outcome) = queued.take_outcome() {
            return outcome;
        }
        let group = core.write_queue.take_group();
        assert!(!group.is_empty(), "a write is in the queue until it has an outcome");
        state.write(core, group);
    }
}

impl WriterState {
    fn write(&mut self, core: &Core, group: Vec<Arc<QueuedWrite>>) {
        let now = core.clock.now();
        let mut batch =
            WriteBatch::with_capacity_bytes(group.iter().map(|queued| queued.bytes).sum());
        let mut staged = Vec::with_capacity(group.len());
        for queued in group {
            let staging = Staging { core, now, batch: &mut batch };
            match self.stage(queued.take_write(), staging) {
                Ok((first_offsets, chunks)) => {
                    staged.push(Staged { queued, first_offsets, chunks })
                }
                Err(error) => queued.finish(Err(error)),
            }
        }
        if staged.is_empty() {
            return;
        }
        match self.put_heads(core, &staged, &mut batch).and_then(|()| core.database.write(batch)) {
            Ok(()) => self.publish(core, staged),
            Err(error) => {
                let text = core.fail_by(&error);
                for one in staged {
                    one.queued.finish(Err(LogError::Fatal(text.clone(), None)));
                }
            }
        }
    }

    /// Puts a write's records and offsets into the batch, unless it is fenced. After the first
    /// offset is given out nothing can fail but the log as a whole.
    fn stage(
        &mut self,
        write: AtomicWrite,
        mut staging: Staging<'_>,
    ) -> Result<(FirstOffsets, Chunks), LogError> {
        let core = staging.core;
        core.check_failure()?;
        write.epoch.as_ref().map_or(Ok(()), |epoch| self.check_epoch(epoch))?;
        if !write.proofs.is_empty() {
            let coordinator = core.coordinator.lock().expect("no holder panics");
            write.proofs.iter().try_for_each(|proof| coordinator.check(proof))?;
        }
        let mut first_offsets = Vec::with_capacity(write.appends.len());
        let mut chunks = Vec::with_capacity(write.appends.len());
        for append in write.appends {
            let (log, chunk) = self.put_append(append, &mut staging)?;
            first_offsets.push(chunk.first);
            chunks.push((log, chunk));
        }
        if !write.offsets.is_empty() {
            let meta = core.database.meta()?;
            for (group, at, committed) in &write.offsets {
                let value = layout::encode_committed(committed);
                staging.batch.put_cf(&meta, layout::group_key(group, at), value);
            }
        }
        Ok((first_offsets, chunks))
    }

    fn put_append(
        &mut self,
        append: PartitionAppend,
        staging: &mut Staging<'_>,
    ) -> Result<(Arc<PartitionLog>, Chunk), LogError> {
        let Staging { core, now, batch } = staging;
        let family = core.database.family(&append.topic.families.records)?;
        let head = &mut self.heads[append.log.head_index];
        head.time = head.time.max(now.0);
        let (first, partition) = (head.next, append.log.at.partition);
        for body in &append.bodies {
            let bytes = body.as_bytes();
            self.scratch.clear();
            self.scratch.extend_from_slice(&layout::record_head(head.time, head.bytes));
            self.scratch.extend_from_slice(bytes);
            batch.put_cf(&family, layout::record_key(partition, head.next), &self.scratch);
            head.next += 1;
            head.bytes += bytes.len() as u64;
        }
        Ok((append.log, Chunk::new(first, Millis(head.time), append.bodies)))
    }

    fn put_heads(
        &self,
        core: &Core,
        staged: &[Staged],
        batch: &mut WriteBatch,
    ) -> Result<(), LogError> {
        let meta = core.database.meta()?;
        for (log, _) in staged.iter().flat_map(|one| &one.chunks) {
            let key = layout::partition_key(b'h', log.topic, log.at.partition);
            batch.put_cf(&meta, key, self.heads[log.head_index].encode());
        }
        Ok(())
    }

    fn publish(&mut self, core: &Core, staged: Vec<Staged>) {
        let mut grown = Vec::new();
        let (mut records, mut bytes) = (0, 0);
        for one in staged {
            for (log, chunk) in one.chunks {
                records += chunk.bodies.len();
                bytes += chunk.bytes;
                self.tail_bytes += chunk.bytes;
                self.tails.push_back((log.clone(), chunk.bytes));
                log.publish(Arc::new(chunk));
                grown.push(log);
            }
            one.queued.finish(Ok(one.first_offsets));
        }
        for log in grown {
            log.notify_readers();
        }
        telemetry::log_appended(records, bytes);
        while self.tail_bytes > core.config.tail_bytes {
            let Some((log, _)) = self.tails.pop_front() else { break };
            self.tail_bytes -= log.evict();
        }
    }
}
