//! One sweep: reads a partition's log topics up to the ring's floor.
//!
//! It serves every feed that joined before it passed the feed's offsets. A step reads one bounded
//! chunk of one topic, urgent first, keeps only the records that some member wants, and sends each
//! member the indexes of its own in one shared segment. A sweep waits for members that do not write
//! their shares in time, but for none of them longer than `sweep_wait_max_ms` in all: then that one
//! is left behind as soon as it is slow. So no rate of reading delays the others by more, and no
//! member pays for another. A step that the log does not answer is repeated after a wait, from the
//! same offsets.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::feed_cursor::{FeedCursor, ReplyOutbox, ScanKey};
use super::retry_wait::RetryWait;
use crate::fanout::channel_hash::{BuildPassThrough, channel_hash};
use crate::fanout::hub::Hub;
use crate::fanout::messages::{FeedKey, FeedUpdate, LostSpan};
use crate::fanout::offsets::{LOG_TOPICS, PartitionOffsets};
use crate::fanout::protocol::names::GapReason;
use crate::fanout::segment::{Segment, SegmentEntry, SegmentSpec};
use crate::fanout::unanswered::UnansweredCall;
use crate::port::{LogError, ReadLimit, Reader, ReaderSlot};
use crate::record::{MonotonicMillis, Offset, Partition, Record};
use crate::telemetry;

/// Shares a member may have outstanding before the sweep waits for it. With the bytes of a step
/// this bounds what a sweep keeps in memory.
const SHARES_OUTSTANDING_MAX: u32 = 4;

/// Bytes of a step while the memory for connections is full. At most one sweep per partition and
/// depth class is under way, so with eight partitions and four shares each they keep 4 MiB.
const STEP_FULL_BYTES: usize = 32 << 10;

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScanStep {
    Advanced,
    /// Nothing to do: it waits for a member or for the log.
    Idle,
    Finished,
}

/// What a step reads and changes.
pub(super) struct ScanContext<'a> {
    pub(super) hub: &'a Hub,
    pub(super) reader: &'a mut dyn Reader,
    pub(super) cursors: &'a mut HashMap<FeedKey, FeedCursor>,
    pub(super) replies: &'a mut ReplyOutbox,
    pub(super) now: MonotonicMillis,
    /// The epoch of the topics that the reader reads.
    pub(super) epoch: u32,
}

/// A sweep over one partition.
pub(super) struct CatchUpScan {
    key: ScanKey,
    at: PartitionOffsets,
    slots: [Option<ReaderSlot>; LOG_TOPICS],
    members: BTreeSet<FeedKey>,
    /// Members by the hash of a channel they want.
    index: HashMap<u64, BTreeSet<FeedKey>, BuildPassThrough>,
    /// Whether it waits for a member.
    stalled: bool,
    records: Vec<Record>,
    retry: RetryWait,
    /// What `/readyz` says about the last step, if it failed.
    failure: Option<String>,
}

impl CatchUpScan {
    pub(super) fn new(key: ScanKey, at: PartitionOffsets) -> Self {
        Self {
            key,
            at,
            slots: [None; LOG_TOPICS],
            members: BTreeSet::new(),
            index: HashMap::default(),
            stalled: false,
            records: Vec::new(),
            retry: RetryWait::default(),
            failure: None,
        }
    }

    pub(super) fn key(&self) -> ScanKey {
        self.key
    }

    pub(super) fn at(&self) -> PartitionOffsets {
        self.at
    }

    /// Whether this sweep has not read anything from `offsets` on yet.
    pub(super) fn serves(&self, partition: Partition, offsets: &PartitionOffsets) -> bool {
        self.key.partition == partition && offsets.reaches(&self.at)
    }

    pub(super) fn join(&mut self, key: FeedKey, cursor: &FeedCursor) {
        self.members.insert(key);
        for (hash, _) in &cursor.filter.channels {
            self.index.entry(*hash).or_default().insert(key);
        }
    }

    /// Removes a feed, if it is a member, so that no record is compared with it any more.
    pub(super) fn leave(&mut self, key: FeedKey, cursor: &FeedCursor) {
        if !self.members.remove(&key) {
            return;
        }
        for (hash, _) in &cursor.filter.channels {
            if let Some(keys) = self.index.get_mut(hash) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.index.remove(hash);
                }
            }
        }
    }

    /// How many keys of feeds it keeps.
    #[cfg(test)]
    pub(super) fn kept_keys(&self) -> usize {
        self.members.len() + self.index.values().map(|keys| 1 + keys.len()).sum::<usize>()
    }

    pub(super) fn release(&mut self, reader: &mut dyn Reader) {
        for slot in self.slots.iter_mut().filter_map(Option::take) {
            reader.remove(slot);
        }
    }

    /// Its partition and what is wrong with it, if steps repeatedly failed.
    pub(super) fn problem(&self) -> Option<(Partition, String)> {
        let failure = self.failure.clone().filter(|_| self.retry.is_listed())?;
        Some((self.key.partition, failure))
    }

    /// Whether it waits for a member.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// A step, or nothing while it waits after one that the log did not answer.
    pub(super) fn step(&mut self, with: &mut ScanContext<'_>) -> Result<ScanStep, LogError> {
        if !self.members.is_empty() && self.retry.due_at(with.now) > with.now {
            return Ok(ScanStep::Idle);
        }
        match self.try_step(with) {
            Err(error @ LogError::Retry(_)) => {
                self.retry.failed();
                let topic = self.unfinished_topic(with.hub).unwrap_or_default();
                let at = with.hub.topic_partition(topic, self.key.partition);
                self.failure = Some(UnansweredCall::Sweep.sentence(&at, &error));
                // The reader may be past records that were not shared.
                self.release(with.reader);
                Ok(ScanStep::Idle)
            }
            done => {
                self.retry = RetryWait::default();
                self.failure = None;
                done
            }
        }
    }

    /// The topic to read next; `None` at the ring's floor.
    fn unfinished_topic(&self, hub: &Hub) -> Option<usize> {
        let floor = hub.floor(self.key.partition);
        (0..LOG_TOPICS).find(|topic| self.at.0[*topic] < floor.0[*topic])
    }

    fn try_step(&mut self, with: &mut ScanContext<'_>) -> Result<ScanStep, LogError> {
        let Some(topic) = self.unfinished_topic(with.hub) else {
            self.finish(with);
            return Ok(ScanStep::Finished);
        };
        if self.members.is_empty() {
            return Ok(ScanStep::Finished);
        }
        if self.waits_for_member(with) {
            return Ok(ScanStep::Idle);
        }
        match self.read_records(topic, with) {
            Ok(()) => {}
            Err(LogError::OutOfRange { start, .. }) => {
                let before = self.at;
                self.skip_lost(topic, start, with);
                let skipped = self.at != before;
                return Ok(if skipped { ScanStep::Advanced } else { ScanStep::Idle });
            }
            Err(error) => return Err(error),
        }
        self.share(topic, with)
    }

    /// Sends every member `Reached`: the ring has the rest.
    fn finish(&mut self, with: &mut ScanContext<'_>) {
        self.index.clear();
        for key in std::mem::take(&mut self.members) {
            if let Some(mut cursor) = with.cursors.remove(&key) {
                cursor.offsets.join(&self.at);
                with.replies.put(key, FeedUpdate::Reached(cursor.offsets));
            }
        }
    }

    /// Whether to wait for slow members. One that was waited for long enough is left behind.
    fn waits_for_member(&mut self, with: &mut ScanContext<'_>) -> bool {
        let wait_max_ms = i64::from(with.hub.config().sweep_wait_max_ms);
        let mut left: Vec<FeedKey> = Vec::new();
        self.stalled = false;
        for key in &self.members {
            let Some(cursor) = with.cursors.get_mut(key) else { continue };
            // Also if it has written a share by now: the sweep waited for it until then.
            if let Some(at) = cursor.stalled_at.take() {
                cursor.waited_ms = cursor.waited_ms.saturating_add(with.now.since(at));
            }
            if cursor.outstanding < SHARES_OUTSTANDING_MAX {
                continue;
            }
            if cursor.waited_ms < wait_max_ms {
                cursor.stalled_at = Some(with.now);
                self.stalled = true;
            } else {
                left.push(*key);
            }
        }
        for key in left {
            if let Some(cursor) = with.cursors.remove(&key) {
                self.leave(key, &cursor);
            }
            with.replies.put(key, FeedUpdate::LeftBehind);
            telemetry::sweep_left();
        }
        self.stalled
    }

    fn read_records(&mut self, topic: usize, with: &mut ScanContext<'_>) -> Result<(), LogError> {
        let from = Offset(self.at.0[topic]);
        let slot = match self.slots[topic] {
            Some(slot) => slot,
            None => {
                let slot =
                    with.reader.add(&with.hub.topic_partition(topic, self.key.partition), from)?;
                self.slots[topic] = Some(slot);
                slot
            }
        };
        let config = with.hub.config();
        let bytes = match with.hub.totals().memory_full.load(Ordering::Relaxed) {
            true => config.sweep_step_bytes.min(STEP_FULL_BYTES),
            false => config.sweep_step_bytes,
        };
        let limit = ReadLimit { records: config.sweep_step_records, bytes };
        self.records.clear();
        with.reader.take(slot, limit, &mut self.records)?;
        telemetry::sweep_records(self.records.len() as u64);
        Ok(())
    }

    /// Retention overtook the sweep: it goes on at the log's start, and sends a gap to the members
    /// that lost records.
    fn skip_lost(&mut self, topic: usize, start: u64, with: &mut ScanContext<'_>) {
        if start < self.at.0[topic] {
            // The log lost records at its end. The hub reader finds out and resets the ring; the
            // sweep ends with it.
            return;
        }
        self.at.0[topic] = start;
        // The next step adds it again, at the start.
        if let Some(slot) = self.slots[topic].take() {
            with.reader.remove(slot);
        }
        for key in &self.members {
            let Some(cursor) = with.cursors.get_mut(key) else { continue };
            if cursor.offsets.0[topic] < start {
                let from = cursor.offsets;
                cursor.offsets.0[topic] = start;
                let lost = LostSpan { reason: GapReason::Retention, from, to: cursor.offsets };
                with.replies.put(*key, FeedUpdate::Gap(lost));
            }
        }
    }

    fn share(&mut self, topic: usize, with: &mut ScanContext<'_>) -> Result<ScanStep, LogError> {
        let before = self.at;
        let slot = self.slots[topic].expect("read_records added the slot");
        // Asked first: nothing may fail between picking records and sharing them.
        let position = with.reader.position(slot)?;
        let entries = self.pick(topic, with.cursors);
        self.at.0[topic] = self.at.0[topic].max(position.0);
        if self.at == before {
            return Ok(ScanStep::Idle);
        }
        let segment = Arc::new(Segment::new(
            SegmentSpec {
                seq: 0,
                partition: self.key.partition,
                before,
                after: self.at,
                epoch: with.epoch,
                entries,
            },
            with.hub.totals(),
        ));
        for key in &self.members {
            let Some(cursor) = with.cursors.get_mut(key) else { continue };
            cursor.offsets.0[topic] = cursor.offsets.0[topic].max(self.at.0[topic]);
            if !cursor.picks.is_empty() {
                let picks = std::mem::take(&mut cursor.picks);
                cursor.outstanding += 1;
                with.replies.put(*key, FeedUpdate::Share { segment: Arc::clone(&segment), picks });
            }
        }
        Ok(ScanStep::Advanced)
    }

    /// Keeps those of the read records that members want, and notes each member's picks.
    fn pick(
        &mut self,
        topic: usize,
        cursors: &mut HashMap<FeedKey, FeedCursor>,
    ) -> Vec<SegmentEntry> {
        let mut entries = Vec::new();
        for record in self.records.drain(..) {
            self.at.0[topic] = record.offset.next().0;
            let key = record.body.key().and_then(|key| std::str::from_utf8(key).ok());
            let Some(hash) = key.map(channel_hash) else { continue };
            let Some(members) = self.index.get(&hash) else { continue };
            // Values that are no events were counted by the hub reader.
            let Ok(entry) = SegmentEntry::new(topic, record, self.at) else { continue };
            let number = entries.len() as u32;
            let mut picked = false;
            for member in members {
                let Some(cursor) = cursors.get_mut(member) else { continue };
                if entry.offset >= cursor.offsets.0[topic] && cursor.filter.matches(hash, &entry) {
                    cursor.picks.push(number);
                    picked = true;
                }
            }
            if picked {
                entries.push(entry);
            }
        }
        entries
    }
}
