//! The fold's loop: reads the state topic into the stores and answers requests for snapshots.
//!
//! A turn reads what is ready, hands changes to the stores, and answers requests that the state
//! read so far is enough for. It reads up to the end that the log had when a snapshot was asked
//! for; one that can't be read within 2 s, as behind a transaction that stays open, is answered
//! with [`SnapshotAnswer::Unavailable`].
//!
//! If the topics were created again, or the log ends before what was read, the turn fails and the
//! loop is to be opened again: that removes the stores that no longer fit. Changes in memory are
//! bounded; above the bound reading waits for the stores.

use std::sync::Arc;
use std::time::Duration;

use super::partition::FoldPartition;
use super::queues::{ReadyRequest, RequestQueues};
use super::recent::RecentSnapshots;
use super::request::SnapshotAnswer;
use super::store_open::FoldStoreLocation;
use crate::fanout::hub::Hub;
use crate::fanout::offsets::STATE_TOPIC;
use crate::fanout::topics_check::{self, TopicsState};
use crate::port::{
    Isolation, Log, LogError, ReadLimit, Reader, ReaderSlot, StoreError, Stores, Wake,
};
use crate::record::{Millis, MonotonicMillis, Offset, Partition, Record};
use crate::telemetry::{self, FoldCounts};
use crate::turn::EngineError;

/// Snapshots that are made in one turn, so that reading goes on.
const SNAPSHOTS_PER_TURN: u64 = 64;

/// Bytes of snapshots after which no other one is made in a turn.
const SNAPSHOT_BYTES_PER_TURN: usize = 8 * 1_024 * 1_024;

/// Bytes of changes in memory, of all partitions together, above which reading waits.
const MEMORY_MAX_BYTES: usize = 8 * 1_024 * 1_024;

/// Milliseconds between two looks at the stores while reading waits for them.
const WRITER_POLL_MS: u64 = 5;

/// What is being done, for errors.
const OPENING: &str = "opening the state of channels";
const FOLDING: &str = "reading the state of channels";

/// Keeps the state of all channels of a hub. One per process; the app's thread repeats
/// [`StateFold::turn`].
pub struct StateFold {
    hub: Arc<Hub>,
    log: Arc<dyn Log>,
    reader: Box<dyn Reader>,
    partitions: Vec<FoldedPartition>,
    requests: RequestQueues,
    recent: RecentSnapshots,
    /// Of the topics that are read.
    epoch: u32,
    /// The epoch that the hub followed at the last turn.
    hub_epoch: u32,
    /// The partition with which the next turn begins, so that none is always the last.
    first: usize,
    taken: Vec<Record>,
    counts: FoldCounts,
    /// Bytes of the snapshots that this turn has made.
    built_bytes: usize,
}

/// A partition and its reader.
struct FoldedPartition {
    slot: ReaderSlot,
    /// The end at start: the partition is warm once it is read up to here.
    warm_at: Offset,
    state: FoldPartition,
}

impl StateFold {
    /// Opens the stores and continues where they are. `now` is the wall clock's.
    pub fn open(
        log: Arc<dyn Log>,
        stores: &dyn Stores,
        hub: &Arc<Hub>,
        now: Millis,
    ) -> Result<Self, EngineError> {
        // Before the topics are listed: one that follows is noticed by the first turn.
        let hub_epoch = followed_epoch(hub);
        let topics = log.topics().map_err(of_log)?;
        let epoch = match topics_check::check(&topics, &hub.topics().each_ref(), hub.partitions()) {
            TopicsState::Fits { epoch } => epoch,
            // The lookup worker decides when that ends the process.
            TopicsState::Missing(text) | TopicsState::Misfit(text) => {
                return Err(EngineError::Retry { doing: OPENING, source: text.into() });
            }
        };
        let of_state = topics.iter().find(|info| info.spec.topic == hub.topics()[STATE_TOPIC]);
        let topic_id = of_state.expect("a missing topic does not fit").id;
        let mut reader = log.reader(Isolation::Committed).map_err(of_log)?;
        let mut partitions = Vec::new();
        for partition in (0..hub.partitions()).map(Partition) {
            let at = hub.topic_partition(STATE_TOPIC, partition);
            let bounds = log.bounds(&at, Isolation::Committed).map_err(of_log)?;
            let opened = FoldStoreLocation { stores, partition, topic_id }.open(bounds, now);
            let opened = opened.map_err(|error| of_store(OPENING, error))?;
            let slot = reader.add(&at, opened.progress.next).map_err(of_log)?;
            let state = FoldPartition::new(opened);
            partitions.push(FoldedPartition { slot, warm_at: bounds.end, state });
        }
        Ok(Self {
            hub: Arc::clone(hub),
            log,
            partitions,
            requests: RequestQueues::new(hub, reader.waker()),
            reader,
            recent: RecentSnapshots::default(),
            epoch,
            hub_epoch,
            first: 0,
            taken: Vec::new(),
            counts: FoldCounts::default(),
            built_bytes: 0,
        })
    }

    /// Reads what is ready, hands it to the stores and answers requests. Waits at most `at_most` if
    /// there was nothing to do; returns whether there was. `now` never goes backwards.
    pub fn turn(&mut self, now: MonotonicMillis, at_most: Duration) -> Result<bool, EngineError> {
        self.check_epoch()?;
        self.built_bytes = 0;
        let read = self.read(now).map_err(of_log)?;
        self.write(now)?;
        let answered = self.answer(now)?;
        telemetry::fold_counts(&std::mem::take(&mut self.counts));
        if read || answered {
            return Ok(true);
        }
        self.wait(now, at_most).map_err(of_log)?;
        Ok(false)
    }

    /// Ends the wait of a turn from another thread.
    pub fn waker(&self) -> Arc<dyn Wake> {
        self.reader.waker()
    }

    /// Writes what is in memory and closes the stores. Requests are answered that the state is not
    /// available.
    pub fn close(mut self) -> Result<(), EngineError> {
        self.requests.end();
        for partition in self.partitions {
            let closed = partition.state.close();
            closed.map_err(|e| EngineError::of_store("closing the state of channels", e))?;
        }
        Ok(())
    }

    /// Fails if the hub follows other topics than those that are read. The fold may be the first to
    /// know of topics that were created again: it does not fail when the hub follows them.
    fn check_epoch(&mut self) -> Result<(), EngineError> {
        let followed = followed_epoch(&self.hub);
        if followed != self.hub_epoch && followed != self.epoch {
            let source = "the topics were created again; the state is read again".into();
            return Err(EngineError::Retry { doing: FOLDING, source });
        }
        self.hub_epoch = followed;
        Ok(())
    }

    /// Takes ready records of all partitions. Returns whether a position has moved.
    fn read(&mut self, now: MonotonicMillis) -> Result<bool, LogError> {
        let mut has_moved = false;
        self.first = (self.first + 1) % self.partitions.len();
        for partition in self.in_turn() {
            if !self.is_memory_full() {
                has_moved |= self.read_partition(partition, now)?;
            }
        }
        let is_warm = |p: &FoldedPartition| p.state.next() >= p.warm_at;
        if !self.hub.fold_warm() && self.partitions.iter().all(is_warm) {
            self.hub.set_fold_warm();
        }
        Ok(has_moved)
    }

    fn read_partition(&mut self, partition: usize, now: MonotonicMillis) -> Result<bool, LogError> {
        let config = self.hub.config();
        let limit = ReadLimit { records: config.take_max_records, bytes: config.take_max_bytes };
        let FoldedPartition { slot, state, .. } = &mut self.partitions[partition];
        let before = state.next();
        self.reader.take(*slot, limit, &mut self.taken)?;
        for record in self.taken.drain(..) {
            let is_state = state.apply(&record);
            self.counts.records += u64::from(is_state);
            self.counts.undecodable += u64::from(!is_state);
            state.advance(record.offset.next(), now);
        }
        state.advance(self.reader.position(*slot)?, now);
        Ok(state.next() > before)
    }

    /// Hands over what is due, and everything if the memory is full.
    fn write(&mut self, now: MonotonicMillis) -> Result<(), EngineError> {
        let is_full = self.is_memory_full();
        for FoldedPartition { state, .. } in &mut self.partitions {
            let mut written = state.acknowledge();
            if is_full || state.is_due(now) {
                written = written.and_then(|()| state.hand_over());
            }
            written.map_err(|error| of_store("writing the state of channels", error))?;
        }
        Ok(())
    }

    /// Answers the requests that can be answered. Returns whether it answered one.
    fn answer(&mut self, now: MonotonicMillis) -> Result<bool, EngineError> {
        self.recent.forget_old(now);
        self.requests.receive(now);
        for partition in self.in_turn() {
            let asked = self.requests.of(partition).ask_for_end(&*self.log, now);
            asked.map_err(of_log)?;
            self.answer_partition(partition, now)?;
        }
        Ok(self.counts.answers() > 0)
    }

    fn answer_partition(
        &mut self,
        partition: usize,
        now: MonotonicMillis,
    ) -> Result<(), EngineError> {
        let position = self.partitions[partition].state.next();
        while self.counts.built < SNAPSHOTS_PER_TURN && self.built_bytes < SNAPSHOT_BYTES_PER_TURN {
            let Some(ready) = self.requests.of(partition).next_ready(position) else {
                self.answer_late(partition, now);
                return Ok(());
            };
            self.answer_ready(partition, ready, now)?;
        }
        Ok(())
    }

    fn answer_ready(
        &mut self,
        partition: usize,
        ready: ReadyRequest,
        now: MonotonicMillis,
    ) -> Result<(), EngineError> {
        let ReadyRequest { request, end } = ready;
        let snapshot = match self.recent.find(&request, end) {
            Some(recent) => {
                self.counts.shared += 1;
                Arc::clone(recent)
            }
            None => {
                self.counts.built += 1;
                let state = &mut self.partitions[partition].state;
                let built = state.snapshot(&request, self.epoch, self.hub.totals());
                let built = built.map_err(|error| of_store(FOLDING, error))?;
                let built = Arc::new(built);
                self.built_bytes += built.bytes();
                self.recent.keep(&request, &built, now);
                built
            }
        };
        self.requests.answer(request, SnapshotAnswer::Found(snapshot));
        Ok(())
    }

    fn answer_late(&mut self, partition: usize, now: MonotonicMillis) {
        while let Some(request) = self.requests.of(partition).next_late(now) {
            self.counts.unavailable += 1;
            self.requests.answer(request, SnapshotAnswer::Unavailable);
        }
    }

    fn wait(&mut self, now: MonotonicMillis, at_most: Duration) -> Result<(), LogError> {
        let hand_over = self.partitions.iter().filter_map(|p| p.state.hand_over_at()).min();
        let due = [hand_over, self.requests.due_at(now), self.recent.due_at()];
        let due = due.into_iter().flatten().min();
        // What is due and could not be done waits for a store's writer.
        let until_due = due.map(|due| u64::try_from(due.since(now)).unwrap_or(0));
        let until_due = until_due.map(|ms| Duration::from_millis(ms.max(1)));
        let at_most = until_due.map_or(at_most, |until| at_most.min(until));
        if self.is_memory_full() {
            // Records are ready, so a wait for records would end at once.
            let poll = Duration::from_millis(WRITER_POLL_MS);
            return self.reader.wait_for_waker(at_most.min(poll));
        }
        self.reader.wait(at_most)
    }

    fn is_memory_full(&self) -> bool {
        let bytes: usize = self.partitions.iter().map(|p| p.state.bytes()).sum();
        bytes >= MEMORY_MAX_BYTES
    }

    /// The partitions in the order of this turn.
    fn in_turn(&self) -> impl Iterator<Item = usize> + use<> {
        let (first, count) = (self.first, self.partitions.len());
        (0..count).map(move |n| (first + n) % count)
    }
}

/// The epoch of the topics that the hub follows, or will follow.
fn followed_epoch(hub: &Hub) -> u32 {
    hub.next_epoch().unwrap_or_else(|| hub.epoch())
}

/// All that a store has is in the log, so the loop is opened again: streams go on meanwhile.
fn of_store(doing: &'static str, error: StoreError) -> EngineError {
    EngineError::Retry { doing, source: Box::new(error) }
}

/// The log has lost what was read, or the topics were created again: the loop is opened again, and
/// the stores with it.
fn of_log(error: LogError) -> EngineError {
    match error {
        LogError::OutOfRange { .. } => {
            EngineError::Retry { doing: FOLDING, source: Box::new(error) }
        }
        error => EngineError::of_log(FOLDING, error),
    }
}
