//! The one writer: offsets are given out in turns. Whoever wants to write puts its job into the
//! queue and waits for its turn; when it comes, either somebody before did the job along with its
//! own, or it does everything that is waiting, its own included, in one `WriteBatch`. So a disk
//! sync is shared by all who wait for it, and nobody needs a thread for writing.
//!
//! Order of a turn: check fences, give out offsets, write, publish ends, ring the bells. Nothing
//! is published that was not written. When a write fails nothing is known of the disk any more:
//! the log is lost to this process, and every later call says so.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use rocksdb::WriteBatch;
use tidewire_engine::port::{Committed, LogError};
use tidewire_engine::record::{Body, Millis, TopicPartition};

use super::config::{TRANSACTIONAL_IDS_MAX, WRITE_GROUP_BYTES_MAX};
use super::core::Core;
use super::group::MembershipProof;
use super::layout::{self, PartitionHead};
use super::tail::Chunk;
use super::topic::{PartitionLog, TopicLog};
use crate::telemetry;

/// Bodies for one partition, in order.
pub(super) struct PartitionAppend {
    /// Its topic.
    pub(super) topic: Arc<TopicLog>,
    /// The partition.
    pub(super) log: Arc<PartitionLog>,
    /// What to append.
    pub(super) bodies: Vec<Body>,
}

/// What is written together or not at all.
#[derive(Default)]
pub(super) struct AtomicWrite {
    /// Records, at most one run per partition.
    pub(super) appends: Vec<PartitionAppend>,
    /// Bytes of their bodies.
    pub(super) bytes: usize,
    /// Progress of groups.
    pub(super) offsets: Vec<(String, TopicPartition, Committed)>,
    /// The transactional id and its epoch.
    pub(super) epoch: Option<(String, u64)>,
    /// The memberships that must still hold.
    pub(super) proofs: Vec<MembershipProof>,
}

/// The first offset of each run.
type FirstOffsets = Vec<u64>;

/// What each run becomes once it is written.
type Chunks = Vec<(Arc<PartitionLog>, Chunk)>;

struct QueuedWrite {
    write: Mutex<Option<AtomicWrite>>,
    bytes: usize,
    outcome: Mutex<Option<Result<FirstOffsets, LogError>>>,
}

/// The queue and the turn.
#[derive(Default)]
pub(super) struct LogWriter {
    /// As long as there are threads that write: each waits for its job.
    queue: Mutex<VecDeque<Arc<QueuedWrite>>>,
    state: Mutex<WriterState>,
}

/// What only the one whose turn it is may touch.
#[derive(Default)]
pub(super) struct WriterState {
    /// Where each partition stands, by [`PartitionLog::head_index`].
    pub(super) heads: Vec<PartitionHead>,
    /// The current epoch of each transactional id. In memory: no producer outlives the process.
    epochs: HashMap<String, u64>,
    /// The chunks of all tails in the order they came, with their bytes.
    tails: VecDeque<(Arc<PartitionLog>, usize)>,
    tail_bytes: usize,
    /// For a record as it is stored.
    scratch: Vec<u8>,
}

/// A job whose records stand in the batch.
struct Staged {
    queued: Arc<QueuedWrite>,
    first_offsets: FirstOffsets,
    chunks: Chunks,
}

impl LogWriter {
    /// Takes the turn without a job: for topics that are made, and epochs.
    pub(super) fn state(&self, core: &Core) -> Result<MutexGuard<'_, WriterState>, LogError> {
        core.check_failure()?;
        self.state.lock().map_err(|_| core.fail("a writer failed in the middle of its turn"))
    }

    /// Writes this and returns the first offset of each run.
    pub(super) fn submit(&self, core: &Core, write: AtomicWrite) -> Result<FirstOffsets, LogError> {
        let queued = Arc::new(QueuedWrite {
            bytes: write.bytes,
            write: Mutex::new(Some(write)),
            outcome: Mutex::new(None),
        });
        self.queue.lock().expect("no holder panics").push_back(queued.clone());
        let mut state = self.state(core)?;
        loop {
            if let Some(outcome) = queued.outcome.lock().expect("no holder panics").take() {
                return outcome;
            }
            let group = self.waiting();
            assert!(!group.is_empty(), "a job is in the queue until it has an outcome");
            state.write(core, group);
        }
    }

    fn waiting(&self) -> Vec<Arc<QueuedWrite>> {
        let mut queue = self.queue.lock().expect("no holder panics");
        let mut bytes = 0;
        let mut group = Vec::new();
        while let Some(queued) = queue.front() {
            bytes += queued.bytes;
            if bytes > WRITE_GROUP_BYTES_MAX && !group.is_empty() {
                break;
            }
            group.extend(queue.pop_front());
        }
        group
    }
}

impl QueuedWrite {
    fn finish(&self, outcome: Result<FirstOffsets, LogError>) {
        *self.outcome.lock().expect("no holder panics") = Some(outcome);
    }
}

impl WriterState {
    /// Gives out the next epoch of a transactional id, which fences the one before.
    pub(super) fn next_epoch(&mut self, id: &str) -> Result<u64, LogError> {
        if self.epochs.len() >= TRANSACTIONAL_IDS_MAX && !self.epochs.contains_key(id) {
            return Err(LogError::Invalid(format!(
                "{TRANSACTIONAL_IDS_MAX} transactional ids are in use; use stable ids, one per \
                 instance and thread"
            )));
        }
        let epoch = self.epochs.entry(id.to_owned()).or_default();
        *epoch += 1;
        Ok(*epoch)
    }

    /// Fails unless this is the newest epoch of the id.
    pub(super) fn check_epoch(&self, (id, epoch): &(String, u64)) -> Result<(), LogError> {
        if self.epochs.get(id) == Some(epoch) {
            return Ok(());
        }
        Err(LogError::Fenced(format!("a newer producer has the transactional id {id}")))
    }

    fn write(&mut self, core: &Core, group: Vec<Arc<QueuedWrite>>) {
        let now = core.clock.now();
        let mut batch =
            WriteBatch::with_capacity_bytes(group.iter().map(|queued| queued.bytes).sum());
        let mut staged = Vec::with_capacity(group.len());
        for queued in group {
            let write = queued.write.lock().expect("no holder panics").take();
            let write = write.expect("a job is taken from the queue once");
            match self.stage(core, write, (now, &mut batch)) {
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

    /// Puts a job's records and offsets into the batch, unless it is fenced. Nothing fails after
    /// the first offset is given out except for a log that is lost anyway.
    fn stage(
        &mut self,
        core: &Core,
        write: AtomicWrite,
        (now, batch): (Millis, &mut WriteBatch),
    ) -> Result<(FirstOffsets, Chunks), LogError> {
        core.check_failure()?;
        write.epoch.as_ref().map_or(Ok(()), |epoch| self.check_epoch(epoch))?;
        if !write.proofs.is_empty() {
            let coordinator = core.coordinator.lock().expect("no holder panics");
            write.proofs.iter().try_for_each(|proof| coordinator.check(proof))?;
        }
        let mut first_offsets = Vec::with_capacity(write.appends.len());
        let mut chunks = Vec::with_capacity(write.appends.len());
        for append in write.appends {
            let (log, chunk) = self.put_append(core, append, (now, batch))?;
            first_offsets.push(chunk.first);
            chunks.push((log, chunk));
        }
        if !write.offsets.is_empty() {
            let meta = core.database.meta()?;
            for (group, at, committed) in &write.offsets {
                let value = layout::encode_committed(committed);
                batch.put_cf(&meta, layout::group_key(group, at), value);
            }
        }
        Ok((first_offsets, chunks))
    }

    fn put_append(
        &mut self,
        core: &Core,
        append: PartitionAppend,
        (now, batch): (Millis, &mut WriteBatch),
    ) -> Result<(Arc<PartitionLog>, Chunk), LogError> {
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
