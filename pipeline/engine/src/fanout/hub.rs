//! The hub: what the log's tail holds, shared by every shard, one ring per partition.
//!
//! Shards pull. The reader puts segments into the rings and wakes every shard once per batch; a
//! shard takes what it has not seen when it gets to it. So nothing is queued per shard, and a shard
//! that stands still costs no memory. The rings share one byte budget: the oldest segment leaves
//! first, whichever partition it is of.
//!
//! The hub also carries the few words between shards and the sweeper. It reads nothing itself.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::xxh3_64;

use super::catchup::sweeper::{SweepReply, SweepRequest};
use super::config::FanoutConfig;
use super::offsets::PartitionOffsets;
use super::segment::{RingTotals, Segment, SegmentSpec};
use super::shard::Shard;
use crate::port::{Log, LogError, Wake};
use crate::record::{Partition, Topic, TopicPartition};
use crate::topology::Topology;
use crate::turn::EngineError;

/// Questions shards may have open with the sweeper; beyond it they ask again a second later.
const SWEEP_REQUESTS_MAX: usize = 65_536;

/// The rings and the shards that follow them.
pub struct Hub {
    config: FanoutConfig,
    /// By topic index.
    topics: [Topic; 3],
    epoch: u32,
    rings: Vec<Ring>,
    totals: Arc<RingTotals>,
    inboxes: Mutex<Vec<Arc<ShardInbox>>>,
    requests: Mutex<Vec<SweepRequest>>,
    sweeper_wake: Mutex<Option<Arc<dyn Wake>>>,
    /// Counts the sweepers there have been: a new one knows nothing of what the last was asked.
    sweeper_generation: AtomicU64,
    warm: AtomicBool,
}

/// One partition's ring.
struct Ring {
    /// The sequence number behind the newest segment, so that a shard sees without the lock whether
    /// there is news.
    next_seq: AtomicU64,
    inner: Mutex<RingInner>,
}

#[derive(Default)]
struct RingInner {
    segments: VecDeque<Arc<Segment>>,
    /// The oldest segment's number, or `next_seq` if there is none.
    floor_seq: u64,
    next_seq: u64,
    /// Where the reader stands.
    head: PartitionOffsets,
}

/// What a ring has that a shard has not seen.
pub(super) struct RingUpdate {
    /// The oldest segment still in the ring.
    pub(super) floor_seq: u64,
    /// Where the reader stood before the first of `segments`.
    pub(super) before: PartitionOffsets,
    /// The number behind the newest segment.
    pub(super) next_seq: u64,
    /// In order, without a hole.
    pub(super) segments: Vec<Arc<Segment>>,
}

/// What the sweeper has for one shard. Bounded by what the shard has asked for.
pub(super) struct ShardInbox {
    pub(super) replies: Mutex<Vec<SweepReply>>,
    wake: Arc<dyn Wake>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// The hub over the output topics. Their ids become the epoch of every position, so a token of
    /// topics that were made anew is recognised.
    pub fn open(
        log: &dyn Log,
        topology: &Topology,
        config: FanoutConfig,
    ) -> Result<Arc<Self>, EngineError> {
        let topics = [topology.out_urgent(), topology.out_stream(), topology.out_state()];
        let epoch = epoch(log, &topics, topology.partitions())
            .map_err(|e| EngineError::of_log("opening the output topics", e))?;
        let ring = || Ring { next_seq: AtomicU64::new(0), inner: Mutex::default() };
        Ok(Arc::new(Self {
            config,
            topics: topics.map(Clone::clone),
            epoch,
            rings: (0..topology.partitions()).map(|_| ring()).collect(),
            totals: Arc::default(),
            inboxes: Mutex::default(),
            requests: Mutex::default(),
            sweeper_wake: Mutex::default(),
            sweeper_generation: AtomicU64::new(0),
            warm: AtomicBool::new(false),
        }))
    }

    /// A new shard. `wake` is used whenever there is something for [`Shard::pull`].
    pub fn shard(self: &Arc<Self>, wake: Arc<dyn Wake>) -> Shard {
        let inbox = Arc::new(ShardInbox { replies: Mutex::default(), wake });
        let mut inboxes = lock(&self.inboxes);
        inboxes.push(Arc::clone(&inbox));
        Shard::new(Arc::clone(self), (inboxes.len() - 1) as u32, inbox)
    }

    /// The limits.
    pub fn config(&self) -> &FanoutConfig {
        &self.config
    }

    /// Whether the rings have reached the ends the topics had at start.
    pub fn warm(&self) -> bool {
        self.warm.load(Ordering::Acquire)
    }

    /// Bytes of records and frames in the rings.
    pub fn ring_bytes(&self) -> usize {
        self.totals.ring_bytes.load(Ordering::Relaxed)
    }

    /// Frames encoded since the start; each event at most once per wire format.
    pub fn encodes(&self) -> u64 {
        self.totals.encodes.load(Ordering::Relaxed)
    }

    pub(super) fn set_warm(&self) {
        self.warm.store(true, Ordering::Release);
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(super) fn totals(&self) -> &Arc<RingTotals> {
        &self.totals
    }

    pub(super) fn partitions(&self) -> u32 {
        self.rings.len() as u32
    }

    pub(super) fn topic_partition(&self, topic: usize, partition: u32) -> TopicPartition {
        TopicPartition::new(&self.topics[topic], Partition(partition))
    }

    /// Adds what the reader took to a partition's ring. `spec.seq` is set here.
    pub(super) fn publish(&self, mut spec: SegmentSpec) {
        let ring = &self.rings[spec.partition as usize];
        let mut inner = lock(&ring.inner);
        spec.seq = inner.next_seq;
        inner.head = spec.after;
        let segment = Segment::new(spec, &self.totals);
        segment.enter_ring();
        inner.segments.push_back(Arc::new(segment));
        inner.next_seq += 1;
        ring.next_seq.store(inner.next_seq, Ordering::Release);
    }

    /// Empties a ring and goes on at `head`: the reader starts there, or the log lost what the
    /// reader had not read yet.
    pub(super) fn restart(&self, partition: u32, head: PartitionOffsets) {
        let ring = &self.rings[partition as usize];
        let mut inner = lock(&ring.inner);
        for segment in inner.segments.drain(..) {
            segment.leave_ring();
        }
        inner.next_seq += 1;
        inner.floor_seq = inner.next_seq;
        inner.head = head;
        ring.next_seq.store(inner.next_seq, Ordering::Release);
    }

    /// Drops a partition's oldest segment; `false` if it has none.
    pub(super) fn evict(&self, partition: u32) -> bool {
        let mut inner = lock(&self.rings[partition as usize].inner);
        let Some(segment) = inner.segments.pop_front() else { return false };
        segment.leave_ring();
        inner.floor_seq += 1;
        true
    }

    /// From where on a partition's ring holds everything.
    pub(super) fn floor(&self, partition: u32) -> PartitionOffsets {
        let inner = lock(&self.rings[partition as usize].inner);
        inner.segments.front().map_or(inner.head, |segment| segment.before)
    }

    /// What a ring has from segment `seen` on; `None` if nothing.
    pub(super) fn update_since(&self, partition: u32, seen: u64) -> Option<RingUpdate> {
        let ring = &self.rings[partition as usize];
        if ring.next_seq.load(Ordering::Acquire) == seen {
            return None;
        }
        let inner = lock(&ring.inner);
        let skip = seen.saturating_sub(inner.floor_seq) as usize;
        let segments: Vec<_> = inner.segments.iter().skip(skip).cloned().collect();
        Some(RingUpdate {
            floor_seq: inner.floor_seq,
            before: segments.first().map_or(inner.head, |segment| segment.before),
            next_seq: inner.next_seq,
            segments,
        })
    }

    /// Wakes every shard.
    pub(super) fn wake_shards(&self) {
        for shard in &*lock(&self.inboxes) {
            shard.wake.wake();
        }
    }

    /// Asks the sweeper for something; `false` if it has too much to do.
    pub(super) fn request(&self, request: SweepRequest) -> bool {
        let mut requests = lock(&self.requests);
        if requests.len() >= SWEEP_REQUESTS_MAX && matches!(request, SweepRequest::Serve { .. }) {
            return false;
        }
        requests.push(request);
        drop(requests);
        if let Some(wake) = &*lock(&self.sweeper_wake) {
            wake.wake();
        }
        true
    }

    pub(super) fn take_requests(&self) -> Vec<SweepRequest> {
        std::mem::take(&mut *lock(&self.requests))
    }

    /// A sweeper begins, in place of the one before: every shard asks it again.
    pub(super) fn set_sweeper(&self, wake: Arc<dyn Wake>) {
        *lock(&self.sweeper_wake) = Some(wake);
        self.take_requests();
        self.sweeper_generation.fetch_add(1, Ordering::Release);
        self.wake_shards();
    }

    pub(super) fn sweeper_generation(&self) -> u64 {
        self.sweeper_generation.load(Ordering::Acquire)
    }

    /// Hands answers to a shard and wakes it.
    pub(super) fn reply(&self, shard: u32, replies: &mut Vec<SweepReply>) {
        let Some(inbox) = lock(&self.inboxes).get(shard as usize).cloned() else { return };
        lock(&inbox.replies).append(replies);
        inbox.wake.wake();
    }
}

/// Folds the topics' ids, and checks their partition counts on the way.
fn epoch(log: &dyn Log, topics: &[&Topic; 3], partitions: u32) -> Result<u32, LogError> {
    let infos = log.topics()?;
    let mut ids = Vec::with_capacity(48);
    for topic in topics {
        let Some(info) = infos.iter().find(|info| info.spec.topic == **topic) else {
            let text = format!("topic {topic} is missing: run `tidewire topics create`");
            return Err(LogError::Invalid(text));
        };
        if info.spec.partitions != partitions {
            return Err(LogError::Invalid(format!(
                "topic {topic} has {} partitions and topics.partitions is {partitions}: set \
                 topics.partitions to {}, or give another topics.prefix",
                info.spec.partitions, info.spec.partitions
            )));
        }
        ids.extend_from_slice(&info.id.to_le_bytes());
    }
    Ok(xxh3_64(&ids) as u32)
}
