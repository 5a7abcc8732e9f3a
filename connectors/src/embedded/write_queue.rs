//! Holds the queue of writes, and the state that only the holder of the writer lock may touch.
//!
//! Both `core` and `writer` import it: the core owns queue and state, the writer uses them. The
//! queue is bounded by the number of threads that write, since each waits for its own write.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use tidewire_engine::port::{Committed, LogError};
use tidewire_engine::record::{Body, TopicPartition};

use super::config::{TRANSACTIONAL_IDS_MAX, WRITE_GROUP_BYTES_MAX};
use super::group::MembershipProof;
use super::layout::PartitionHead;
use super::topic::{PartitionLog, TopicLog};

/// Bodies for one partition, in order.
pub(super) struct PartitionAppend {
    /// Its topic.
    pub(super) topic: Arc<TopicLog>,
    /// The partition.
    pub(super) log: Arc<PartitionLog>,
    /// What to append.
    pub(super) bodies: Vec<Body>,
}

/// A transactional id, and which of its producers: a newer one has a larger epoch.
#[derive(Clone, Debug)]
pub(super) struct ProducerEpoch {
    pub(super) id: String,
    epoch: u64,
}

/// Records and offsets that are written together or not at all.
#[derive(Default)]
pub(super) struct AtomicWrite {
    /// Records, at most one run per partition.
    pub(super) appends: Vec<PartitionAppend>,
    /// Bytes of their bodies.
    pub(super) bytes: usize,
    /// Offsets that groups commit.
    pub(super) offsets: Vec<(String, TopicPartition, Committed)>,
    /// The transactional id and its epoch.
    pub(super) epoch: Option<ProducerEpoch>,
    /// The memberships that must still hold.
    pub(super) proofs: Vec<MembershipProof>,
}

/// The first offset of each run.
pub(super) type FirstOffsets = Vec<u64>;

/// A write in the queue, and its outcome once it has one.
pub(super) struct QueuedWrite {
    write: Mutex<Option<AtomicWrite>>,
    /// Bytes of its records' bodies.
    pub(super) bytes: usize,
    outcome: Mutex<Option<Result<FirstOffsets, LogError>>>,
}

/// Writes that wait, oldest first.
#[derive(Default)]
pub(super) struct WriteQueue(Mutex<VecDeque<Arc<QueuedWrite>>>);

/// What only the thread that holds the writer lock may touch.
#[derive(Default)]
pub(super) struct WriterState {
    /// The head of each partition, by [`PartitionLog::head_index`].
    pub(super) heads: Vec<PartitionHead>,
    /// The current epoch of each transactional id. In memory: no producer outlives the process.
    epochs: HashMap<String, u64>,
    /// The chunks of all tails with their bytes, oldest first, for eviction.
    pub(super) tails: VecDeque<(Arc<PartitionLog>, usize)>,
    pub(super) tail_bytes: usize,
    /// Buffer for a record's stored form.
    pub(super) scratch: Vec<u8>,
}

impl QueuedWrite {
    fn new(write: AtomicWrite) -> Self {
        Self { bytes: write.bytes, write: Mutex::new(Some(write)), outcome: Mutex::new(None) }
    }

    /// Takes the write out; once.
    pub(super) fn take_write(&self) -> AtomicWrite {
        let write = self.write.lock().expect("no holder panics").take();
        write.expect("a write is taken from the queue once")
    }

    /// Stores the outcome for the thread that waits.
    pub(super) fn finish(&self, outcome: Result<FirstOffsets, LogError>) {
        *self.outcome.lock().expect("no holder panics") = Some(outcome);
    }

    /// Takes the outcome, if there is one.
    pub(super) fn take_outcome(&self) -> Option<Result<FirstOffsets, LogError>> {
        self.outcome.lock().expect("no holder panics").take()
    }
}

impl WriteQueue {
    /// Adds a write at the end.
    pub(super) fn push(&self, write: AtomicWrite) -> Arc<QueuedWrite> {
        let queued = Arc::new(QueuedWrite::new(write));
        self.0.lock().expect("no holder panics").push_back(queued.clone());
        queued
    }

    /// Takes the oldest writes, up to [`WRITE_GROUP_BYTES_MAX`] but at least one.
    pub(super) fn take_group(&self) -> Vec<Arc<QueuedWrite>> {
        let mut queue = self.0.lock().expect("no holder panics");
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

impl WriterState {
    /// Gives out the next epoch of a transactional id, which fences the one before.
    pub(super) fn next_epoch(&mut self, id: &str) -> Result<ProducerEpoch, LogError> {
        if self.epochs.len() >= TRANSACTIONAL_IDS_MAX && !self.epochs.contains_key(id) {
            return Err(LogError::Invalid(format!(
                "all {TRANSACTIONAL_IDS_MAX} transactional ids are in use; use stable ids, one per \
                 instance and thread"
            )));
        }
        let epoch = self.epochs.entry(id.to_owned()).or_default();
        *epoch += 1;
        Ok(ProducerEpoch { id: id.to_owned(), epoch: *epoch })
    }

    /// Fails unless this is the newest epoch of the id.
    pub(super) fn check_epoch(&self, producer: &ProducerEpoch) -> Result<(), LogError> {
        let ProducerEpoch { id, epoch } = producer;
        if self.epochs.get(id) == Some(epoch) {
            return Ok(());
        }
        Err(LogError::Fenced(format!("a newer producer has the transactional id {id}")))
    }
}
