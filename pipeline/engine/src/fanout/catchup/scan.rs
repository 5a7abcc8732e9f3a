//! One pass of a sweep: a walk over a partition's served topics up to the ring's floor, for
//! everyone who joined before it came to their place.
//!
//! A step reads one bounded chunk of one topic, the urgent one first, keeps only the records some
//! member wants, and gives each member the indexes of its own. The pass waits for its slowest
//! member for a moment, then goes on without it.

use std::collections::HashMap;

use super::sweeper::{FeedCursor, FeedKey, FeedUpdate, ReplyOutbox};
use crate::fanout::hub::Hub;
use crate::fanout::offsets::{PartitionOffsets, SERVED_TOPICS};
use crate::fanout::segment::{Segment, SegmentEntry, SegmentSpec, channel_hash};
use crate::fanout::shard::channels::BuildPassThrough;
use crate::port::{LogError, ReadLimit, Reader, ReaderSlot};
use crate::record::{Millis, Offset, Record};
use crate::telemetry;
use std::sync::Arc;

/// Shares a member may have unread before the pass waits for it. With the step's bytes this bounds
/// what a pass keeps in memory.
const SHARES_OUTSTANDING_MAX: u32 = 4;

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScanStep {
    Advanced,
    /// Waits for a member or for the log.
    Idle,
    Finished,
}

/// What a step works with.
pub(super) struct ScanContext<'a> {
    pub(super) hub: &'a Hub,
    pub(super) reader: &'a mut dyn Reader,
    pub(super) cursors: &'a mut HashMap<FeedKey, FeedCursor>,
    pub(super) replies: &'a mut ReplyOutbox,
    pub(super) now: Millis,
}

/// A walk over one partition.
pub(super) struct CatchUpScan {
    partition: u32,
    class: usize,
    at: PartitionOffsets,
    slots: [Option<ReaderSlot>; SERVED_TOPICS],
    members: Vec<FeedKey>,
    /// Members by the hash of a channel they want.
    index: HashMap<u64, Vec<FeedKey>, BuildPassThrough>,
    stalled_since: Option<Millis>,
    records: Vec<Record>,
}

impl CatchUpScan {
    pub(super) fn new(partition: u32, class: usize, at: PartitionOffsets) -> Self {
        Self {
            partition,
            class,
            at,
            slots: [None; SERVED_TOPICS],
            members: Vec::new(),
            index: HashMap::default(),
            stalled_since: None,
            records: Vec::new(),
        }
    }

    pub(super) fn is_for(&self, partition: u32, class: usize) -> bool {
        self.partition == partition && self.class == class
    }

    pub(super) fn at(&self) -> PartitionOffsets {
        self.at
    }

    /// Whether this pass has yet to come to everything from `offsets` on.
    pub(super) fn serves(&self, partition: u32, offsets: &PartitionOffsets) -> bool {
        self.partition == partition && offsets.reaches(&self.at)
    }

    pub(super) fn join(&mut self, key: FeedKey, cursor: &FeedCursor) {
        self.members.push(key);
        for (hash, _) in &cursor.filter.channels {
            self.index.entry(*hash).or_default().push(key);
        }
    }

    pub(super) fn release(self, reader: &mut dyn Reader) {
        for slot in self.slots.into_iter().flatten() {
            reader.remove(slot);
        }
    }

    pub(super) fn step(&mut self, with: &mut ScanContext<'_>) -> Result<ScanStep, LogError> {
        self.members.retain(|key| with.cursors.contains_key(key));
        let floor = with.hub.floor(self.partition);
        let Some(topic) = (0..SERVED_TOPICS).find(|t| self.at.0[*t] < floor.0[*t]) else {
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
                self.skip_lost(topic, start, with)?;
                return Ok(ScanStep::Advanced);
            }
            Err(error) => return Err(error),
        }
        self.share(topic, with)
    }

    /// Everyone has all that stands before the ring.
    fn finish(&mut self, with: &mut ScanContext<'_>) {
        for key in self.members.drain(..) {
            if let Some(mut cursor) = with.cursors.remove(&key) {
                cursor.offsets.join(&self.at);
                with.replies.put(key, FeedUpdate::Reached(cursor.offsets));
            }
        }
    }

    /// Whether to wait for somebody; whoever was waited for long enough is left behind.
    fn waits_for_member(&mut self, with: &mut ScanContext<'_>) -> bool {
        let slow = |cursors: &HashMap<FeedKey, FeedCursor>, key: &FeedKey| {
            cursors.get(key).is_some_and(|c| c.outstanding >= SHARES_OUTSTANDING_MAX)
        };
        if !self.members.iter().any(|key| slow(with.cursors, key)) {
            self.stalled_since = None;
            return false;
        }
        let since = *self.stalled_since.get_or_insert(with.now);
        if with.now.0 - since.0 < i64::from(with.hub.config().sweep_wait_max_ms) {
            return true;
        }
        self.stalled_since = None;
        let (left, stay): (Vec<_>, _) =
            self.members.drain(..).partition(|key| slow(with.cursors, key));
        self.members = stay;
        for key in left {
            with.cursors.remove(&key);
            self.index.retain(|_, keys| {
                keys.retain(|k| *k != key);
                !keys.is_empty()
            });
            with.replies.put(key, FeedUpdate::LeftBehind);
            telemetry::sweep_left();
        }
        false
    }

    fn read_records(&mut self, topic: usize, with: &mut ScanContext<'_>) -> Result<(), LogError> {
        let from = Offset(self.at.0[topic]);
        let slot = match self.slots[topic] {
            Some(slot) => slot,
            None => {
                let slot =
                    with.reader.add(&with.hub.topic_partition(topic, self.partition), from)?;
                self.slots[topic] = Some(slot);
                slot
            }
        };
        let config = with.hub.config();
        let limit =
            ReadLimit { records: config.sweep_step_records, bytes: config.sweep_step_bytes };
        self.records.clear();
        with.reader.take(slot, limit, &mut self.records)?;
        telemetry::sweep_records(self.records.len() as u64);
        Ok(())
    }

    /// Retention overtook the pass: it goes on at the log's start, and tells those who lost by it.
    fn skip_lost(
        &mut self,
        topic: usize,
        start: u64,
        with: &mut ScanContext<'_>,
    ) -> Result<(), LogError> {
        self.at.0[topic] = start;
        if let Some(slot) = self.slots[topic] {
            with.reader.seek(slot, Offset(start))?;
        }
        for key in &self.members {
            let Some(cursor) = with.cursors.get_mut(key) else { continue };
            if cursor.offsets.0[topic] < start {
                let from = cursor.offsets;
                cursor.offsets.0[topic] = start;
                with.replies.put(*key, FeedUpdate::Gap { from, to: cursor.offsets });
            }
        }
        Ok(())
    }

    fn share(&mut self, topic: usize, with: &mut ScanContext<'_>) -> Result<ScanStep, LogError> {
        let before = self.at;
        let slot = self.slots[topic].expect("take has added the slot");
        // Asked first: once records are picked nothing may fail before they are shared.
        let position = with.reader.position(slot)?;
        let entries = self.pick(topic, with.cursors);
        self.at.0[topic] = self.at.0[topic].max(position.0);
        if self.at == before {
            return Ok(ScanStep::Idle);
        }
        let segment = Arc::new(Segment::new(
            SegmentSpec {
                seq: 0,
                partition: self.partition,
                before,
                after: self.at,
                epoch: with.hub.epoch(),
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

    /// Keeps of the taken records what members want, noting each one's with its cursor.
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
            // The hub has counted those that are no events when it passed them.
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
