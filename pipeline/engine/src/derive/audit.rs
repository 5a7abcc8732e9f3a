//! The audit of a task's open transaction: what each record, timer and update has caused.
//!
//! It follows from the history alone, so it is one of the task's outputs and a replay makes it
//! again. A call that is rolled back takes its items along; what is left is that it failed, and
//! why. Nothing here is read by operators.
//!
//! It costs every event, so it is appended to one buffer while the event is processed. The buffer
//! counts in the bytes of the transaction, and an entry that grows too long only counts what is
//! left out. What was put aside is not left out: the entry still names its dead letters, which say
//! why.

mod decoder;
mod encoder;
pub mod layout;

use std::borrow::Cow;

use tidewire_schemas::event::EventView;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::port::Table;
use crate::record::{Body, Millis, Outgoing, Partition, Topic};
use crate::verdict::{Decision, Verdict};
use encoder::{AuditEncoder, EncodedUpTo, part_head};
use layout::{AuditCause, AuditItem, AuditedEvent};

/// Bytes of a part: a record that every log accepts, and small enough to read for one event.
pub const PART_MAX_BYTES: usize = 512 << 10;

/// Bytes of an entry after which items are only counted, dead letters aside.
const ENTRY_MAX_BYTES: usize = 128 << 10;

/// Bytes that dead letters may have in an entry beyond that: some hundred, or a thousand with a
/// short prefix of topics. A cause has at most 1,024 emissions on which operators may fail.
const LETTERS_MAX_BYTES: usize = 128 << 10;

/// Bytes of an item: enough for a dead letter's id and its detail. A larger one is only counted.
const ITEM_MAX_BYTES: usize = 32 << 10;

/// Bytes of a part after which the next entry begins another one, so that it has room.
const PART_BYTES: usize = PART_MAX_BYTES - ENTRY_MAX_BYTES - LETTERS_MAX_BYTES - 2 * ITEM_MAX_BYTES;

/// Why something was put aside, if an entry has no room for the reason.
const WHY_IN_LETTER: &str = "its dead letter says why";

/// The bit of the settings' hash that says that no audit is written.
const OFF: u64 = 1 << 63;

/// Whether tasks write an audit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuditMode {
    /// They do.
    #[default]
    On,
    /// They do not.
    Off,
}

impl AuditMode {
    /// The mode that is a part of the hash of the settings in force.
    pub fn of(settings_hash: u64) -> Self {
        if settings_hash & OFF == 0 { Self::On } else { Self::Off }
    }

    /// The hash of settings with this mode. Its highest bit is the mode, so that a replay of a
    /// transaction knows it.
    pub fn in_hash(self, settings_hash: u64) -> u64 {
        match self {
            Self::On => settings_hash & !OFF,
            Self::Off => settings_hash | OFF,
        }
    }
}

/// The audit of an open transaction.
#[derive(Debug, Default)]
pub(super) struct AuditLog {
    encoder: AuditEncoder,
    /// Where each part begins.
    parts: Vec<usize>,
    /// Where the open entry begins; `None`: none is open, and nothing is written.
    entry: Option<usize>,
    /// Items that the open entry leaves out.
    omitted: u64,
}

/// A point in an audit to roll back to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AuditSavepoint {
    to: EncodedUpTo,
    omitted: u64,
}

impl AuditLog {
    /// Bytes that are waiting to be written.
    pub(super) fn bytes(&self) -> usize {
        self.encoder.bytes.len()
    }

    /// Begins an entry.
    pub(super) fn begin(&mut self, mode: AuditMode, cause: AuditCause<'_>, time: Millis) {
        if mode == AuditMode::Off {
            return;
        }
        self.end_entry();
        let begun = self.parts.last().map(|begun| self.bytes() - begun);
        if begun.is_none_or(|bytes| bytes > PART_BYTES) {
            self.parts.push(self.bytes());
            self.encoder.begin_part();
        }
        self.entry = Some(self.bytes());
        self.encoder.begin(cause, time);
    }

    /// Whether what happens now is written.
    pub(super) fn is_open(&self) -> bool {
        self.entry.is_some()
    }

    /// Adds an item to the open entry.
    #[inline]
    pub(super) fn add(&mut self, item: &AuditItem<'_>) {
        if !self.put(item, ENTRY_MAX_BYTES) {
            self.omitted += 1;
        }
    }

    /// Adds an item that names a dead letter, without its reason if there is no room for that.
    fn add_letter(&mut self, item: &AuditItem<'_>, without_reason: &AuditItem<'_>) {
        let with_letters = ENTRY_MAX_BYTES + LETTERS_MAX_BYTES;
        if !self.put(item, ENTRY_MAX_BYTES) && !self.put(without_reason, with_letters) {
            self.omitted += 1;
        }
    }

    /// Adds an item unless it is too large, or the open entry has these bytes already.
    #[inline]
    fn put(&mut self, item: &AuditItem<'_>, limit: usize) -> bool {
        let Some(begun) = self.entry else { return true };
        let before = self.encoder.up_to();
        if before.bytes - begun >= limit {
            return false;
        }
        self.encoder.put(item);
        let fits = self.bytes() - before.bytes <= ITEM_MAX_BYTES;
        if !fits {
            self.encoder.roll_back(before);
        }
        fits
    }

    /// Adds what ADMIT decided about the record.
    pub(super) fn verdict(&mut self, verdict: &Verdict) {
        let source = &verdict.source;
        self.add(&AuditItem::Source(source.input, source.partition.0, source.offset));
        if verdict.decision == Decision::Rejected {
            self.add(&AuditItem::Rejected);
        }
        if !verdict.rules.is_empty() {
            self.add(&AuditItem::Rules(Cow::Borrowed(&verdict.rules)));
        }
    }

    /// Adds the event of the entry.
    pub(super) fn event(&mut self, event: &EventView<'_>, hops: Option<u8>) {
        if let Some(hops) = hops {
            self.add(&AuditItem::Hops(hops));
        }
        self.add(&AuditItem::Event(named(event)));
    }

    /// Adds an emitted event.
    pub(super) fn emitted(&mut self, event: &EventView<'_>) {
        self.add(&AuditItem::Emitted(named(event)));
    }

    /// Adds an entry of a state channel that an operator has written, or its removal. `key` is the
    /// key in `out.state`.
    pub(super) fn state_written(&mut self, record: &Outgoing) {
        if !self.is_open() {
            return;
        }
        let key = std::str::from_utf8(record.body.key().unwrap_or_default()).unwrap_or_default();
        let mut parts = key.splitn(3, '\0');
        let channel = parts.next().unwrap_or_default();
        let state_key = parts.nth(1).unwrap_or_default();
        self.add(&match record.body.value() {
            Some(_) => AuditItem::StatePut(channel, state_key),
            None => AuditItem::StateRemoved(channel, state_key),
        });
    }

    /// Adds the dead letter of a failed call.
    pub(super) fn failed(&mut self, operator: &str, letter: &Outgoing, why: &str) {
        let item = |why| AuditItem::Failed(operator, letter_id(letter), why);
        self.add_letter(&item(why), &item(WHY_IN_LETTER));
    }

    /// Adds the dead letter of the record.
    pub(super) fn dead_letter(&mut self, reason: &str, letter: &Outgoing, detail: &str) {
        let item = |detail| AuditItem::DeadLetter(reason, letter_id(letter), detail);
        self.add_letter(&item(detail), &item(WHY_IN_LETTER));
    }

    pub(super) fn savepoint(&self) -> AuditSavepoint {
        AuditSavepoint { to: self.encoder.up_to(), omitted: self.omitted }
    }

    /// Drops what the open entry got since `savepoint`.
    pub(super) fn roll_back(&mut self, savepoint: AuditSavepoint) {
        self.encoder.roll_back(savepoint.to);
        self.omitted = savepoint.omitted;
    }

    /// Ends the audit; returns its records for the task's partition of the topic.
    pub(super) fn seal(&mut self, topic: &Topic, partition: Partition) -> Vec<Outgoing> {
        self.end_entry();
        let Self { encoder, parts, .. } = self;
        let ends = parts.iter().skip(1).copied().chain([encoder.bytes.len()]);
        let records = parts.iter().zip(ends).enumerate().map(|(n, (from, to))| {
            let mut value = part_head(n, parts.len());
            value.extend_from_slice(&encoder.bytes[*from..to]);
            let body = Body::new(None, Some(&value), &[]);
            Outgoing { topic: topic.clone(), partition, body }
        });
        let records = records.collect();
        self.clear();
        records
    }

    /// Drops everything and keeps the memory for the next transaction, unless one that was large
    /// has left much of it.
    pub(super) fn clear(&mut self) {
        self.encoder.clear();
        self.parts.clear();
        (self.entry, self.omitted) = (None, 0);
    }

    fn end_entry(&mut self) {
        if self.entry.take().is_none() {
            return;
        }
        if self.omitted > 0 {
            self.encoder.put(&AuditItem::Omitted(std::mem::take(&mut self.omitted)));
        }
        self.encoder.end();
    }
}

/// The link of a timer, by its key in the table of timers.
pub(super) fn timer_link(stored: &[u8]) -> u64 {
    xxh3_64_with_seed(stored, 0)
}

/// The link of an operator's update, by the key of its mark.
pub(super) fn update_link(key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, 1)
}

/// The link of a part of a total, by its table and its row, which has the round.
pub(super) fn part_link(table: Table, row: &[u8]) -> u64 {
    xxh3_64_with_seed(row, 2 + u64::from(table.0))
}

fn named<'a>(event: &EventView<'a>) -> AuditedEvent<'a> {
    AuditedEvent {
        id: Cow::Borrowed(event.event_id),
        event_type: event.event_type,
        account: event.account_id,
        key: event.key,
    }
}

fn letter_id(letter: &Outgoing) -> &str {
    std::str::from_utf8(letter.body.key().unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
