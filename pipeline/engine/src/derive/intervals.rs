//! The intervals of a task's coalesced updates: which keys were sent lately, and what waits.
//!
//! ```text
//! table 3  00 · slot, 4 bytes → pack
//!          01 · end of the interval, 8 bytes · marked key → cause that waits (`timer_cause.rs`)
//! pack     01 · each key that was sent: end of its interval z · marked key (LEB128 length, bytes)
//! ```
//!
//! Slots are big-endian, ends too, with the sign flipped; `z` is a zigzag LEB128 number. A marked
//! key is the operator's number, account and key (texts as in keys of stores), and the operator's
//! own bytes.
//!
//! A key that is sent would cost two rows and their removal. So the keys that a transaction sends
//! are one row, a pack, and all of them are in memory: what is in memory follows from the table. A
//! pack is over once its intervals have ended by the latest time; the next one takes its slot, the
//! smallest that is free. So the table has the same keys again and again, and collects no removals
//! that a scan would have to pass. Only a change that waits has a row of its own.
//!
//! A task remembers at most [`SENT_MAX`] keys. Beyond them a key is sent with each transaction that
//! marks it, and nothing waits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, Hasher};
use std::ops::ControlFlow;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::derive::encoding::{FieldDecoder, put_bytes, put_signed};
use crate::derive::table_decl::{Changelog, TableDecl};
use crate::port::{KeyRange, StoreError, Table, TableExpiry, TableSpec};
use crate::record::Millis;
use crate::task_state::TaskState;
use crate::value_level::ValueLevel;

/// The declaration of the table.
pub(super) const INTERVALS: TableDecl = TableDecl {
    spec: TableSpec { table: Table(3), name: "intervals", expiry: TableExpiry::Never },
    changelog: Changelog::State,
    window_ms: 0,
    level: ValueLevel::FIRST,
};

/// Keys that a task remembers as sent; some MiB.
const SENT_MAX: usize = 50_000;

/// Bytes after which the keys of a transaction are continued in another pack.
const PACK_BYTES: usize = 64 << 10;

/// The only version of a pack. Another one is to be written from a value level on, as those of a
/// `StoreValue`, and the declaration of the table then names that level.
const VERSION: u8 = 1;

const OF_PACK: u8 = 0;
const OF_WAITING: u8 = 1;

/// A key that was sent: when its interval ends, and whether a change waits for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SentKey {
    end: Millis,
    waits: bool,
}

/// A change whose interval has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EndedInterval {
    pub(super) end: Millis,
    /// The marked key.
    pub(super) key: Bytes,
    /// The cause, encoded.
    pub(super) cause: Bytes,
}

/// What is due of a marked key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coalesced {
    /// It is sent now.
    Send,
    /// Its interval has not ended.
    Wait,
}

/// Hashes keys in one call per key, with the seed of the task's state.
struct MarkedKeyHasher(u64);

#[derive(Clone, Copy, Debug, Default)]
struct HashSeed(u64);

impl BuildHasher for HashSeed {
    type Hasher = MarkedKeyHasher;

    fn build_hasher(&self) -> MarkedKeyHasher {
        MarkedKeyHasher(self.0)
    }
}

impl Hasher for MarkedKeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_usize(&mut self, value: usize) {
        self.0 = self.0.wrapping_add(value as u64);
    }
}

type SentKeys = HashMap<Bytes, SentKey, HashSeed>;

/// The intervals of one task.
#[derive(Default)]
pub(super) struct Intervals {
    /// For each key of a pack the latest interval. It is never iterated.
    sent: SentKeys,
    /// The causes that wait, by the end of the interval and marked key.
    waiting: BTreeMap<(Millis, Bytes), Bytes>,
    /// The keys of each pack, by its latest end and slot.
    packs: BTreeMap<(Millis, u32), Vec<(Bytes, Millis)>>,
    /// The slots of packs.
    slots: BTreeSet<u32>,
    /// No slot below this one is free.
    free_from: u32,
    /// What the open transaction has sent; in no pack yet.
    new: Vec<(Bytes, Millis)>,
    /// Keys of all packs and of `new`.
    remembered: usize,
    /// The latest time of the task.
    latest: Millis,
}

impl Intervals {
    /// Sets the latest time of the task, before an update is sent or deferred.
    pub(super) fn set_latest(&mut self, latest: Millis) {
        self.latest = latest;
    }

    /// Reads the table, as after a restore or an abort.
    pub(super) fn load(&mut self, state: &mut TaskState) -> Result<(), StoreError> {
        let sent = SentKeys::with_hasher(HashSeed(state.hash_seed()));
        *self = Self { sent, ..Self::default() };
        state.scan(INTERVALS.spec.table, KeyRange::ALL, &mut |key, value| {
            self.read_row(key, value);
            ControlFlow::Continue(())
        })?;
        for (end, key) in self.waiting.keys() {
            self.sent.insert(key.clone(), SentKey { end: *end, waits: true });
        }
        Ok(())
    }

    fn read_row(&mut self, key: &[u8], value: &[u8]) {
        match key.split_first() {
            Some((&OF_PACK, slot)) => {
                let Ok(slot) = slot.try_into().map(u32::from_be_bytes) else { return };
                // One that can't be decoded only forgets what was sent.
                let pack = decode_pack(value).unwrap_or_default();
                for (key, end) in &pack {
                    let before = self.sent.get(key).map(|sent| sent.end);
                    if before.is_none_or(|before| before < *end) {
                        self.sent.insert(key.clone(), SentKey { end: *end, waits: false });
                    }
                }
                self.remembered += pack.len();
                self.slots.insert(slot);
                self.packs.insert((latest_end(&pack), slot), pack);
            }
            Some((&OF_WAITING, rest)) => {
                let Some((end, key)) = rest.split_first_chunk() else { return };
                let at = (end_of(*end), Bytes::copy_from_slice(key));
                self.waiting.insert(at, Bytes::copy_from_slice(value));
            }
            _ => {}
        }
    }

    /// The end of the first interval for which something waits.
    pub(super) fn first(&self) -> Option<Millis> {
        self.waiting.first_key_value().map(|((end, _), _)| *end)
    }

    /// Whether a change of this key can wait although the task is full.
    pub(super) fn is_remembered(&self, key: &Bytes) -> bool {
        self.current(key).is_some()
    }

    /// Whether no further key is remembered.
    pub(super) fn is_full(&self) -> bool {
        self.remembered >= SENT_MAX
    }

    /// What is due of a key that was changed at this time.
    pub(super) fn coalesce(&self, key: &Bytes, changed: Millis) -> Coalesced {
        match self.current(key) {
            Some(sent) if changed < sent.end => Coalesced::Wait,
            _ => Coalesced::Send,
        }
    }

    /// The interval of a key. One that has ended counts only if something waits: whether such a key
    /// is still in memory depends on when the table was read.
    fn current(&self, key: &Bytes) -> Option<SentKey> {
        self.sent.get(key).copied().filter(|sent| sent.waits || sent.end > self.latest)
    }

    /// Begins the interval of a key that is sent now; nothing waits any more.
    pub(super) fn begin(&mut self, state: &mut TaskState, key: &Bytes, end: Millis) {
        let before = self.current(key);
        if before.is_none() && self.is_full() {
            return;
        }
        if let Some(before) = before.filter(|before| before.waits) {
            self.waiting.remove(&(before.end, key.clone()));
            state.put(INTERVALS.spec.table, &waiting_row(before.end, key), None);
        }
        self.sent.insert(key.clone(), SentKey { end, waits: false });
        self.new.push((key.clone(), end));
        self.remembered += 1;
    }

    /// Lets a change wait for the end of the key's interval, or of one that begins now and ends at
    /// `end`. If one waits already, nothing changes. Not for a key without an interval if the task
    /// is full.
    pub(super) fn wait(
        &mut self,
        state: &mut TaskState,
        (key, end): (&Bytes, Millis),
        cause: impl FnOnce() -> Bytes,
    ) {
        let sent = match self.current(key) {
            Some(sent) => sent,
            None if self.is_full() => return,
            None => {
                self.begin(state, key, end);
                // If it ends before now, the change is due at once.
                SentKey { end, waits: false }
            }
        };
        let SentKey { end, waits: false } = sent else { return };
        self.sent.insert(key.clone(), SentKey { end, waits: true });
        let cause = cause();
        state.put(INTERVALS.spec.table, &waiting_row(end, key), Some(cause.clone()));
        self.waiting.insert((end, key.clone()), cause);
    }

    /// Takes the first change whose interval has ended.
    pub(super) fn take_ended(&mut self, state: &mut TaskState) -> Option<EndedInterval> {
        let first = self.waiting.first_entry().filter(|first| first.key().0 <= self.latest)?;
        let ((end, key), cause) = first.remove_entry();
        state.put(INTERVALS.spec.table, &waiting_row(end, &key), None);
        if let Some(sent) = self.sent.get_mut(&key).filter(|sent| sent.end == end) {
            sent.waits = false;
        }
        Some(EndedInterval { end, key, cause })
    }

    /// Stores what the transaction has sent, and removes the packs whose intervals have all
    /// ended, and for which nothing waits.
    pub(super) fn seal(&mut self, state: &mut TaskState) {
        let mut free = self.take_ended_packs();
        let mut new = std::mem::take(&mut self.new).into_iter().peekable();
        while new.peek().is_some() {
            let (mut pack, mut keys) = (vec![VERSION], Vec::new());
            while let Some((key, end)) = new.next_if(|_| pack.len() < PACK_BYTES) {
                put_signed(&mut pack, end.0);
                put_bytes(&mut pack, &key);
                keys.push((key, end));
            }
            let slot = self.take_slot();
            free.remove(&slot);
            state.put(INTERVALS.spec.table, &pack_row(slot), Some(pack.into()));
            self.packs.insert((latest_end(&keys), slot), keys);
        }
        for slot in free {
            state.put(INTERVALS.spec.table, &pack_row(slot), None);
        }
    }

    /// Forgets the packs that are over. Their slots are free.
    fn take_ended_packs(&mut self) -> BTreeSet<u32> {
        let ended = self.packs.range(..=(self.latest, u32::MAX));
        let is_over = |keys: &[(Bytes, Millis)]| {
            let waits = |(key, end): &(Bytes, Millis)| {
                self.sent.get(key).is_some_and(|sent| sent.end == *end && sent.waits)
            };
            !keys.iter().any(waits)
        };
        let over = ended.filter(|(_, keys)| is_over(keys)).map(|(at, _)| *at);
        let mut free = BTreeSet::new();
        for at in over.collect::<Vec<_>>() {
            let keys = self.packs.remove(&at).unwrap_or_default();
            self.remembered -= keys.len();
            for (key, end) in keys {
                if self.sent.get(&key).is_some_and(|sent| sent.end == end) {
                    self.sent.remove(&key);
                }
            }
            self.slots.remove(&at.1);
            self.free_from = self.free_from.min(at.1);
            free.insert(at.1);
        }
        free
    }

    /// Takes the smallest free slot, so that it depends on nothing but the table.
    fn take_slot(&mut self) -> u32 {
        let mut slot = self.free_from;
        // There are fewer packs than keys, so this ends. It passes each slot once.
        while !self.slots.insert(slot) {
            slot += 1;
        }
        self.free_from = slot + 1;
        slot
    }
}

/// The time by which the intervals of a pack have ended.
fn latest_end(keys: &[(Bytes, Millis)]) -> Millis {
    keys.iter().map(|(_, end)| *end).max().unwrap_or_default()
}

fn decode_pack(value: &[u8]) -> Option<Vec<(Bytes, Millis)>> {
    let mut from = FieldDecoder(value);
    from.byte().filter(|version| *version == VERSION)?;
    let mut keys = Vec::new();
    while from.end().is_none() {
        let end = Millis(from.signed()?);
        keys.push((Bytes::copy_from_slice(from.bytes()?), end));
    }
    Some(keys)
}

fn pack_row(slot: u32) -> Bytes {
    [&[OF_PACK], &slot.to_be_bytes()[..]].concat().into()
}

fn waiting_row(end: Millis, key: &[u8]) -> Bytes {
    [&[OF_WAITING], &sorted(end)[..], key].concat().into()
}

/// A time whose bytes sort as it does.
fn sorted(time: Millis) -> [u8; 8] {
    (time.0 ^ i64::MIN).to_be_bytes()
}

fn end_of(sorted: [u8; 8]) -> Millis {
    Millis(i64::from_be_bytes(sorted) ^ i64::MIN)
}

#[cfg(test)]
mod tests;
