//! One pass of a sweep: a walk over a partition's served topics up to the ring's floor, for
//! everyone who joined before it came to their place.
//!
//! A step reads one bounded chunk of one topic, the urgent one first, keeps only the records some
//! member wants, and gives each member the indexes of its own. The pass waits for its slowest
//! member for a moment, then goes on without it.

use std::collections::HashMap;

use super::channels::ByHash;
use super::hub::Hub;
use super::place::{Place, SERVED};
use super::segment::{Entry, Segment, SegmentSpec, channel_hash};
use super::sweep::{Answers, Cursor, FeedKey, Item};
use crate::port::{LogError, ReadLimit, Reader, ReaderSlot};
use crate::record::{Millis, Offset, Record};
use crate::telemetry;
use std::sync::Arc;

/// Shares a member may have unread before the pass waits for it. With the step's bytes this bounds
/// what a pass keeps in memory.
const SHARES_OUTSTANDING_MAX: u32 = 4;

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Moved,
    /// Waits for a member or for the log.
    Idle,
    Finished,
}

/// What a step works with.
pub(super) struct Sweeping<'a> {
    pub(super) hub: &'a Hub,
    pub(super) reader: &'a mut dyn Reader,
    pub(super) cursors: &'a mut HashMap<FeedKey, Cursor>,
    pub(super) answers: &'a mut Answers,
    pub(super) now: Millis,
}

/// A walk over one partition.
pub(super) struct Pass {
    partition: u32,
    class: usize,
    at: Place,
    slots: [Option<ReaderSlot>; SERVED],
    members: Vec<FeedKey>,
    /// Members by the hash of a channel they want.
    index: HashMap<u64, Vec<FeedKey>, ByHash>,
    stalled_since: Option<Millis>,
    taken: Vec<Record>,
}

impl Pass {
    pub(super) fn new(partition: u32, class: usize, at: Place) -> Self {
        Self {
            partition,
            class,
            at,
            slots: [None; SERVED],
            members: Vec::new(),
            index: HashMap::default(),
            stalled_since: None,
            taken: Vec::new(),
        }
    }

    pub(super) fn is(&self, partition: u32, class: usize) -> bool {
        self.partition == partition && self.class == class
    }

    pub(super) fn at(&self) -> Place {
        self.at
    }

    /// Whether this pass has yet to come to everything from `place` on.
    pub(super) fn serves(&self, partition: u32, place: &Place) -> bool {
        self.partition == partition && place.reaches(&self.at)
    }

    pub(super) fn join(&mut self, key: FeedKey, cursor: &Cursor) {
        self.members.push(key);
        for (hash, _) in &cursor.wanted.channels {
            self.index.entry(*hash).or_default().push(key);
        }
    }

    pub(super) fn release(self, reader: &mut dyn Reader) {
        for slot in self.slots.into_iter().flatten() {
            reader.remove(slot);
        }
    }

    pub(super) fn step(&mut self, with: &mut Sweeping<'_>) -> Result<Step, LogError> {
        self.members.retain(|key| with.cursors.contains_key(key));
        let floor = with.hub.floor(self.partition);
        let Some(topic) = (0..SERVED).find(|t| self.at.0[*t] < floor.0[*t]) else {
            self.finish(with);
            return Ok(Step::Finished);
        };
        if self.members.is_empty() {
            return Ok(Step::Finished);
        }
        if self.waits(with) {
            return Ok(Step::Idle);
        }
        match self.take(topic, with) {
            Ok(()) => {}
            Err(LogError::OutOfRange { start, .. }) => {
                self.skip_lost(topic, start, with)?;
                return Ok(Step::Moved);
            }
            Err(error) => return Err(error),
        }
        self.share(topic, with)
    }

    /// Everyone has all that stands before the ring.
    fn finish(&mut self, with: &mut Sweeping<'_>) {
        for key in self.members.drain(..) {
            if let Some(mut cursor) = with.cursors.remove(&key) {
                cursor.place.join(&self.at);
                with.answers.put(key, Item::Reached(cursor.place));
            }
        }
    }

    /// Whether to wait for somebody; whoever was waited for long enough is left behind.
    fn waits(&mut self, with: &mut Sweeping<'_>) -> bool {
        let slow = |cursors: &HashMap<FeedKey, Cursor>, key: &FeedKey| {
            cursors.get(key).is_some_and(|c| c.outstanding >= SHARES_OUTSTANDING_MAX)
        };
        if !self.members.iter().any(|key| slow(with.cursors, key)) {
            self.stalled_since = None;
            return false;
        }
        let since = *self.stalled_since.get_or_insert(with.now);
        if with.now.0 - since.0 < i64::from(with.hub.config().sweep_patience_ms) {
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
            with.answers.put(key, Item::Left);
            telemetry::sweep_left();
        }
        false
    }

    fn take(&mut self, topic: usize, with: &mut Sweeping<'_>) -> Result<(), LogError> {
        let from = Offset(self.at.0[topic]);
        let slot = match self.slots[topic] {
            Some(slot) => slot,
            None => {
                let slot = with.reader.add(&with.hub.at(topic, self.partition), from)?;
                self.slots[topic] = Some(slot);
                slot
            }
        };
        let config = with.hub.config();
        let limit =
            ReadLimit { records: config.sweep_step_records, bytes: config.sweep_step_bytes };
        self.taken.clear();
        with.reader.take(slot, limit, &mut self.taken)?;
        telemetry::sweep_records(self.taken.len() as u64);
        Ok(())
    }

    /// Retention overtook the pass: it goes on at the log's start, and tells those who lost by it.
    fn skip_lost(
        &mut self,
        topic: usize,
        start: u64,
        with: &mut Sweeping<'_>,
    ) -> Result<(), LogError> {
        self.at.0[topic] = start;
        if let Some(slot) = self.slots[topic] {
            with.reader.seek(slot, Offset(start))?;
        }
        for key in &self.members {
            let Some(cursor) = with.cursors.get_mut(key) else { continue };
            if cursor.place.0[topic] < start {
                let from = cursor.place;
                cursor.place.0[topic] = start;
                with.answers.put(*key, Item::Gap { from, to: cursor.place });
            }
        }
        Ok(())
    }

    fn share(&mut self, topic: usize, with: &mut Sweeping<'_>) -> Result<Step, LogError> {
        let before = self.at;
        let slot = self.slots[topic].expect("take has added the slot");
        // Asked first: once records are picked nothing may fail before they are shared.
        let position = with.reader.position(slot)?;
        let entries = self.pick(topic, with.cursors);
        self.at.0[topic] = self.at.0[topic].max(position.0);
        if self.at == before {
            return Ok(Step::Idle);
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
            with.hub.tally(),
        ));
        for key in &self.members {
            let Some(cursor) = with.cursors.get_mut(key) else { continue };
            cursor.place.0[topic] = cursor.place.0[topic].max(self.at.0[topic]);
            if !cursor.picks.is_empty() {
                let picks = std::mem::take(&mut cursor.picks);
                cursor.outstanding += 1;
                with.answers.put(*key, Item::Share { segment: Arc::clone(&segment), picks });
            }
        }
        Ok(Step::Moved)
    }

    /// Keeps of the taken records what members want, noting each one's with its cursor.
    fn pick(&mut self, topic: usize, cursors: &mut HashMap<FeedKey, Cursor>) -> Vec<Entry> {
        let mut entries = Vec::new();
        for record in self.taken.drain(..) {
            self.at.0[topic] = record.offset.next().0;
            let key = record.body.key().and_then(|key| std::str::from_utf8(key).ok());
            let Some(hash) = key.map(channel_hash) else { continue };
            let Some(members) = self.index.get(&hash) else { continue };
            // The hub has counted those that are no events when it passed them.
            let Ok(entry) = Entry::new(topic, record, self.at) else { continue };
            let number = entries.len() as u32;
            let mut picked = false;
            for member in members {
                let Some(cursor) = cursors.get_mut(member) else { continue };
                if entry.offset >= cursor.place.0[topic] && cursor.wanted.takes(hash, &entry) {
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
