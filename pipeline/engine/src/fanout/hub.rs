//! The hub: the newest records of the output topics in memory, one ring per partition.
//!
//! Shards pull. The hub reader appends segments and wakes every shard once per batch; a shard reads
//! what it has not seen when it gets to it. So nothing is queued per shard, and a stalled shard
//! costs no memory. All rings share one byte budget: the oldest segment leaves first, whatever its
//! partition.
//!
//! The hub also carries the messages between shards and the sweeper, in bounded queues. It never
//! reads the log itself.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidewire_schemas::partition::partition_for;
use xxhash_rust::xxh3::xxh3_64;

use super::config::FanoutConfig;
use super::messages::{RingUpdate, SweepReply, SweepRequest};
use super::offsets::PartitionOffsets;
use super::segment::{Segment, SegmentSpec};
use super::totals::FanoutTotals;
use crate::port::{Log, LogError, Wake};
use crate::record::{Partition, Topic, TopicPartition};
use crate::topology::Topology;
use crate::turn::EngineError;

/// Requests that may wait for the sweeper. Above it a shard asks again a second later.
const SWEEP_REQUESTS_MAX: usize = 65_536;

/// The rings and the shards that follow them.
pub struct Hub {
    config: FanoutConfig,
    /// By topic index.
    topics: [Topic; 3],
    epoch: u32,
    rings: Vec<Ring>,
    totals: Arc<FanoutTotals>,
    inboxes: Mutex<Vec<Arc<ShardInbox>>>,
    requests: Mutex<Vec<SweepRequest>>,
    sweeper_wake: Mutex<Option<Arc<dyn Wake>>>,
    /// Counts the sweepers so far: a new one knows none of the requests to the one before.
    sweeper_generation: AtomicU64,
    warm: AtomicBool,
}

/// One partition's ring.
struct Ring {
    /// The number after the newest segment, so that a shard sees without the lock whether there are
    /// new ones.
    next_seq: AtomicU64,
    inner: Mutex<RingInner>,
}

#[derive(Default)]
struct RingInner {
    segments: VecDeque<Arc<Segment>>,
    /// The oldest segment's number, or `next_seq` if there is none.
    floor_seq: u64,
    next_seq: u64,
    /// The hub reader's offsets.
    head: PartitionOffsets,
}

/// Replies of the sweeper for one shard. Bounded by what the shard has asked for.
pub(super) struct ShardInbox {
    /// The shard's number.
    pub(super) shard: u32,
    replies: Mutex<Vec<SweepReply>>,
    wake: Arc<dyn Wake>,
}

impl ShardInbox {
    pub(super) fn take_replies(&self) -> Vec<SweepReply> {
        std::mem::take(&mut *lock(&self.replies))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// The hub over the output topics. Their ids become the epoch of every position, so that a
    /// token of topics that were deleted and created again is recognised.
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

    /// The limits.
    pub fn config(&self) -> &FanoutConfig {
        &self.config
    }

    /// Whether the rings have reached the ends that the topics had at start.
    pub fn warm(&self) -> bool {
        self.warm.load(Ordering::Acquire)
    }

    /// Bytes of records and frames in the rings.
    pub fn ring_bytes(&self) -> usize {
        self.totals.ring_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that connections cause beside the rings: segments and frames that have left a ring and
    /// are still referred to, each once, what sweeps have read, and small frames that wait.
    pub fn bytes_beside_rings(&self) -> usize {
        self.totals.bytes_beside_rings()
    }

    /// Frames encoded since the start; each event at most once per framing.
    pub fn encodes(&self) -> u64 {
        self.totals.encodes.load(Ordering::Relaxed)
    }

    /// The inbox of a new shard. `wake` is called when the shard has something to pull.
    pub(super) fn add_inbox(&self, wake: Arc<dyn Wake>) -> Arc<ShardInbox> {
        let mut inboxes = lock(&self.inboxes);
        let shard = inboxes.len() as u32;
        let inbox = Arc::new(ShardInbox { shard, replies: Mutex::default(), wake });
        inboxes.push(Arc::clone(&inbox));
        inbox
    }

    pub(super) fn set_warm(&self) {
        self.warm.store(true, Ordering::Release);
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(super) fn totals(&self) -> &Arc<FanoutTotals> {
        &self.totals
    }

    pub(super) fn partitions(&self) -> u32 {
        self.rings.len() as u32
    }

    /// The partition of a channel's outputs.
    pub(super) fn partition_of(&self, channel: &str) -> Partition {
        Partition(partition_for(channel.as_bytes(), self.partitions()))
    }

    pub(super) fn topic_partition(&self, topic: usize, partition: Partition) -> TopicPartition {
        TopicPartition::new(&self.topics[topic], partition)
    }

    fn ring(&self, partition: Partition) -> &Ring {
        &self.rings[partition.0 as usize]
    }

    /// Adds a segment to its partition's ring. `spec.seq` is set here.
    pub(super) fn publish(&self, mut spec: SegmentSpec) {
        let ring = self.ring(spec.partition);
        let mut inner = lock(&ring.inner);
        spec.seq = inner.next_seq;
        inner.head = spec.after;
        let segment = Segment::new(spec, &self.totals);
        segment.enter_ring();
        inner.segments.push_back(Arc::new(segment));
        inner.next_seq += 1;
        ring.next_seq.store(inner.next_seq, Ordering::Release);
    }

    /// Empties a ring and goes on at `head`: the reader starts there, or the log lost records that
    /// the reader had not read.
    pub(super) fn restart(&self, partition: Partition, head: PartitionOffsets) {
        let ring = self.ring(partition);
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
    pub(super) fn evict(&self, partition: Partition) -> bool {
        let mut inner = lock(&self.ring(partition).inner);
        let Some(segment) = inner.segments.pop_front() else { return false };
        segment.leave_ring();
        inner.floor_seq += 1;
        true
    }

    /// The offsets from which on a partition's ring has everything.
    pub(super) fn floor(&self, partition: Partition) -> PartitionOffsets {
        let inner = lock(&self.ring(partition).inner);
        inner.segments.front().map_or(inner.head, |segment| segment.before)
    }

    /// What a ring has from segment `seen` on; `None` if nothing.
    pub(super) fn update_since(&self, partition: Partition, seen: u64) -> Option<RingUpdate> {
        let ring = self.ring(partition);
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

    /// Sends a request to the sweeper; `false` if too many wait already.
    pub(super) fn request(&self, request: SweepRequest) -> bool {
        let mut requests = lock(&self.requests);
        if requests.len() >= SWEEP_REQUESTS_MAX && matches!(request, SweepRequest::Serve(_)) {
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

    /// Registers a sweeper in place of the one before. Every shard sends its requests again.
    pub(super) fn set_sweeper(&self, wake: Arc<dyn Wake>) {
        *lock(&self.sweeper_wake) = Some(wake);
        self.take_requests();
        self.sweeper_generation.fetch_add(1, Ordering::Release);
        self.wake_shards();
    }

    pub(super) fn sweeper_generation(&self) -> u64 {
        self.sweeper_generation.load(Ordering::Acquire)
    }

    /// Moves replies to a shard's inbox and wakes it.
    pub(super) fn reply(&self, shard: u32, replies: &mut Vec<SweepReply>) {
        let Some(inbox) = lock(&self.inboxes).get(shard as usize).cloned() else { return };
        lock(&inbox.replies).append(replies);
        inbox.wake.wake();
    }
}

/// Hashes the topics' ids, and checks their partition counts.
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
