//! The hub: the newest records of the output topics in memory, one ring per partition.
//!
//! Shards pull. The hub reader appends segments and wakes every shard once per batch; a shard reads
//! what it has not seen when it gets to it. So nothing is queued per shard, and a stalled shard
//! costs no memory. All rings share one byte budget: the oldest segment leaves first, whatever its
//! partition.
//!
//! A ring only moves forward, also over a new hub reader. The exception is a *reset*: the topics
//! were created again, or the log lost records that the hub had read, so that its offsets mean
//! other records. Every shard then announces a gap to the connections concerned.
//!
//! The hub also carries the messages between shards, sweeper, lookup worker and fold, in bounded
//! queues. It never reads the log itself.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use tidewire_schemas::partition::partition_for;

use super::config::FanoutConfig;
use super::fold::request::{SnapshotAnswer, SnapshotMailbox, SnapshotRequest};
use super::identity::Accounts;
use super::lookup_mailbox::{Lookup, LookupAnswer, LookupMailbox};
use super::messages::{HubUpdate, RingUpdate, SnapshotReply, SweepReply, SweepRequest};
use super::offsets::{PartitionOffsets, token};
use super::segment::{Segment, SegmentSpec};
use super::topics_check::{self, TopicsState};
use super::totals::FanoutTotals;
use super::unanswered::UnansweredPartitions;
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
    /// Of the offsets in the rings. Locked for writing while rings are reset, so that a shard sees
    /// all of a reset or nothing.
    epoch: RwLock<u32>,
    /// The epoch of topics that were created again, until a new hub reader follows them.
    next_epoch: Mutex<Option<u32>>,
    /// How often rings were reset.
    resets: AtomicU64,
    rings: Vec<Ring>,
    /// The partitions of the segments in the rings, oldest first.
    order: Mutex<VecDeque<Partition>>,
    totals: Arc<FanoutTotals>,
    inboxes: Mutex<Vec<Arc<ShardInbox>>>,
    requests: Mutex<Vec<SweepRequest>>,
    sweeper_wake: Mutex<Option<Arc<dyn Wake>>>,
    /// Counts the sweepers so far: a new one knows none of the requests to the one before.
    sweeper_generation: AtomicU64,
    pub(super) lookups: LookupMailbox,
    pub(super) snapshots: SnapshotMailbox,
    pub(super) unanswered: UnansweredPartitions,
    warm: AtomicBool,
    fold_warm: AtomicBool,
    /// What is wrong with the topics, while it may pass.
    problem: Mutex<Option<String>>,
    /// Whether the hub reader has a reason to believe that the topics were created again.
    suspects_topics: AtomicBool,
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
    /// Whether a hub reader has set `head`.
    started: bool,
    /// How often it was reset.
    resets: u64,
}

/// Replies of the sweeper and of the fold for one shard. Bounded by what the shard has asked for.
pub(super) struct ShardInbox {
    /// The shard's number.
    pub(super) shard: u32,
    replies: Mutex<Vec<SweepReply>>,
    snapshots: Mutex<Vec<SnapshotReply>>,
    wake: Arc<dyn Wake>,
}

impl ShardInbox {
    pub(super) fn take_replies(&self) -> Vec<SweepReply> {
        std::mem::take(&mut *lock(&self.replies))
    }

    pub(super) fn take_snapshots(&self) -> Vec<SnapshotReply> {
        std::mem::take(&mut *lock(&self.snapshots))
    }

    /// Takes the answer to a snapshot request of this shard and wakes it.
    pub(super) fn put_snapshot(&self, reply: SnapshotReply) {
        lock(&self.snapshots).push(reply);
        self.wake.wake();
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
        let found =
            log.topics().map(|infos| topics_check::check(&infos, &topics, topology.partitions()));
        let epoch = match found {
            Ok(TopicsState::Fits { epoch }) => Ok(epoch),
            Ok(TopicsState::Missing(text) | TopicsState::Misfit(text)) => {
                Err(LogError::Invalid(text))
            }
            Err(error) => Err(error),
        };
        let epoch = epoch.map_err(|e| EngineError::of_log("opening the output topics", e))?;
        let ring = || Ring { next_seq: AtomicU64::new(0), inner: Mutex::default() };
        Ok(Arc::new(Self {
            config,
            topics: topics.map(Clone::clone),
            epoch: RwLock::new(epoch),
            next_epoch: Mutex::default(),
            resets: AtomicU64::new(0),
            order: Mutex::default(),
            rings: (0..topology.partitions()).map(|_| ring()).collect(),
            totals: Arc::default(),
            inboxes: Mutex::default(),
            requests: Mutex::default(),
            sweeper_wake: Mutex::default(),
            sweeper_generation: AtomicU64::new(0),
            lookups: LookupMailbox::default(),
            snapshots: SnapshotMailbox::default(),
            unanswered: UnansweredPartitions::default(),
            warm: AtomicBool::new(false),
            fold_warm: AtomicBool::new(false),
            problem: Mutex::default(),
            suspects_topics: AtomicBool::new(false),
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

    /// Whether the fold has reached the ends that the state topic had at start.
    pub fn fold_warm(&self) -> bool {
        self.fold_warm.load(Ordering::Acquire)
    }

    /// Asks for the state of a channel, as far as `accounts` may see it. `answer` is called once,
    /// on another thread, and must not wait. `false` if too many requests wait, or if the state is
    /// not read at present.
    pub fn ask_snapshot(
        &self,
        channel: &str,
        accounts: Accounts,
        answer: Box<dyn FnOnce(SnapshotAnswer) + Send>,
    ) -> bool {
        let partition = self.partition_of(channel);
        let request = SnapshotRequest { channel: channel.into(), partition, accounts, answer };
        self.snapshots.ask(request).is_ok()
    }

    /// What is wrong with the output topics, while it may pass. New connections are refused
    /// meanwhile.
    pub fn problem(&self) -> Option<String> {
        lock(&self.problem).clone()
    }

    /// One sentence for each partition whose past the log repeatedly does not return. It is asked
    /// for again.
    pub fn unanswered(&self) -> Vec<String> {
        self.unanswered.sentences()
    }

    pub(super) fn set_problem(&self, problem: Option<String>) {
        *lock(&self.problem) = problem;
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
        let inbox = Arc::new(ShardInbox {
            shard,
            replies: Mutex::default(),
            snapshots: Mutex::default(),
            wake,
        });
        inboxes.push(Arc::clone(&inbox));
        inbox
    }

    pub(super) fn set_warm(&self) {
        self.warm.store(true, Ordering::Release);
    }

    pub(super) fn set_fold_warm(&self) {
        self.fold_warm.store(true, Ordering::Release);
    }

    pub(super) fn epoch(&self) -> u32 {
        *self.read_epoch()
    }

    fn read_epoch(&self) -> RwLockReadGuard<'_, u32> {
        self.epoch.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often rings were reset. A sweeper that knows another number reads other records.
    pub(super) fn resets(&self) -> u64 {
        self.resets.load(Ordering::Acquire)
    }

    /// The epoch that a new hub reader has to follow, if the topics were created again.
    pub(super) fn next_epoch(&self) -> Option<u32> {
        *lock(&self.next_epoch)
    }

    pub(super) fn set_next_epoch(&self, epoch: u32) {
        *lock(&self.next_epoch) = Some(epoch);
    }

    /// Asks the lookup worker to check the topics at once.
    pub(super) fn suspect_topics(&self) {
        self.suspects_topics.store(true, Ordering::Release);
    }

    pub(super) fn take_suspicion(&self) -> bool {
        self.suspects_topics.swap(false, Ordering::AcqRel)
    }

    pub(super) fn topics(&self) -> &[Topic; 3] {
        &self.topics
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

    /// The position of what a channel's subscribers are delivered next.
    pub fn position_of(&self, channel: &str) -> String {
        let partition = self.partition_of(channel);
        token(self.epoch(), partition, &self.head(partition).unwrap_or_default())
    }

    pub(super) fn topic_partition(&self, topic: usize, partition: Partition) -> TopicPartition {
        TopicPartition::new(&self.topics[topic], partition)
    }

    fn ring(&self, partition: Partition) -> &Ring {
        &self.rings[partition.0 as usize]
    }

    /// Adds a segment to its partition's ring. `spec.seq` is set here.
    pub(super) fn publish(&self, mut spec: SegmentSpec) {
        let partition = spec.partition;
        let ring = self.ring(partition);
        let mut inner = lock(&ring.inner);
        spec.seq = inner.next_seq;
        inner.head = spec.after;
        let segment = Segment::new(spec, &self.totals);
        segment.enter_ring();
        inner.segments.push_back(Arc::new(segment));
        inner.next_seq += 1;
        ring.next_seq.store(inner.next_seq, Ordering::Release);
        drop(inner);
        lock(&self.order).push_back(partition);
    }

    /// The hub reader's offsets in a partition; `None` before the first reader.
    pub(super) fn head(&self, partition: Partition) -> Option<PartitionOffsets> {
        let inner = lock(&self.ring(partition).inner);
        inner.started.then_some(inner.head)
    }

    /// Empties a ring and goes on at `head`, which is not before the ring's own: the first reader
    /// starts there, or the log lost records that the reader had not read.
    pub(super) fn restart(&self, partition: Partition, head: PartitionOffsets) {
        self.restart_ring(partition, head, 0);
    }

    /// Resets rings to other offsets, and the epoch with them.
    pub(super) fn reset(&self, epoch: u32, heads: &[(Partition, PartitionOffsets)]) {
        let mut current = self.epoch.write().unwrap_or_else(PoisonError::into_inner);
        for (partition, head) in heads {
            self.restart_ring(*partition, *head, 1);
        }
        *current = epoch;
        self.resets.fetch_add(1, Ordering::Release);
        lock(&self.next_epoch).take_if(|next| *next == epoch);
        drop(current);
        if let Some(wake) = &*lock(&self.sweeper_wake) {
            wake.wake();
        }
        self.wake_shards();
    }

    fn restart_ring(&self, partition: Partition, head: PartitionOffsets, resets: u64) {
        let ring = self.ring(partition);
        let mut inner = lock(&ring.inner);
        for segment in inner.segments.drain(..) {
            segment.leave_ring();
        }
        inner.next_seq += 1;
        inner.floor_seq = inner.next_seq;
        inner.head = head;
        inner.started = true;
        inner.resets += resets;
        ring.next_seq.store(inner.next_seq, Ordering::Release);
        drop(inner);
        lock(&self.order).retain(|listed| *listed != partition);
    }

    /// Drops the oldest segment of all; `false` if there is none.
    pub(super) fn evict_oldest(&self) -> bool {
        let Some(partition) = lock(&self.order).pop_front() else { return false };
        let mut inner = lock(&self.ring(partition).inner);
        if let Some(segment) = inner.segments.pop_front() {
            segment.leave_ring();
            inner.floor_seq += 1;
        }
        true
    }

    /// The offsets from which on a partition's ring has everything.
    pub(super) fn floor(&self, partition: Partition) -> PartitionOffsets {
        let inner = lock(&self.ring(partition).inner);
        inner.segments.front().map_or(inner.head, |segment| segment.before)
    }

    /// What the rings have from the segments `seen` on.
    pub(super) fn updates_since(&self, seen: impl Fn(Partition) -> u64) -> HubUpdate {
        let epoch = self.read_epoch();
        let update = |partition| Some((partition, self.update_since(partition, seen(partition))?));
        let rings = (0..self.partitions()).map(Partition).filter_map(update).collect();
        HubUpdate { epoch: *epoch, rings }
    }

    /// What a ring has from segment `seen` on; `None` if nothing.
    fn update_since(&self, partition: Partition, seen: u64) -> Option<RingUpdate> {
        let ring = self.ring(partition);
        if ring.next_seq.load(Ordering::Acquire) == seen {
            return None;
        }
        let inner = lock(&ring.inner);
        let skip = seen.saturating_sub(inner.floor_seq) as usize;
        let segments: Vec<_> = inner.segments.iter().skip(skip).cloned().collect();
        Some(RingUpdate {
            resets: inner.resets,
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
        self.lookups.clear();
        self.sweeper_generation.fetch_add(1, Ordering::Release);
        self.wake_shards();
    }

    pub(super) fn sweeper_generation(&self) -> u64 {
        self.sweeper_generation.load(Ordering::Acquire)
    }

    /// Passes the answer to a lookup on to the sweeper.
    pub(super) fn answer_lookup(&self, lookup: Lookup, answer: LookupAnswer) {
        self.lookups.answer(lookup, answer);
        if let Some(wake) = &*lock(&self.sweeper_wake) {
            wake.wake();
        }
    }

    /// Moves replies to a shard's inbox and wakes it.
    pub(super) fn reply(&self, shard: u32, replies: &mut Vec<SweepReply>) {
        let Some(inbox) = lock(&self.inboxes).get(shard as usize).cloned() else { return };
        lock(&inbox.replies).append(replies);
        inbox.wake.wake();
    }
}
