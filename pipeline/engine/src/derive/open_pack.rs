//! A pack of facts whose entries a task is processing.

use crate::derive::taken_record::{TakenContent, TakenRecord};
use crate::fact_pack::PackEntry;
use crate::record::{Millis, Offset, Record};
use crate::topology::Lane;

/// A pack whose entries are being processed.
pub(super) struct OpenPack {
    pub(super) lane: Lane,
    offset: Offset,
    timestamp: Millis,
    /// Those that were not processed yet, and the index of the first of them.
    entries: std::vec::IntoIter<PackEntry>,
    next: u32,
}

impl OpenPack {
    /// The entries of this record.
    pub(super) fn of(lane: Lane, record: &Record, entries: Vec<PackEntry>) -> Self {
        let Record { offset, timestamp, .. } = *record;
        Self { lane, offset, timestamp, entries: entries.into_iter(), next: 0 }
    }

    /// The next entry.
    pub(super) fn take(&mut self) -> Option<OpenEntry> {
        let entry = self.entries.next()?;
        let index = self.next;
        self.next += 1;
        Some(OpenEntry { offset: self.offset, timestamp: self.timestamp, index, entry })
    }

    /// Whether no entry is left.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.as_slice().is_empty()
    }
}

/// An entry of the open pack.
pub(super) struct OpenEntry {
    offset: Offset,
    timestamp: Millis,
    index: u32,
    entry: PackEntry,
}

impl OpenEntry {
    /// It as a task processes it.
    pub(super) fn taken(&self) -> TakenRecord<'_> {
        let content = match &self.entry {
            PackEntry::Fact(fact) => TakenContent::Fact(fact),
            PackEntry::Record(body) => TakenContent::Record(body),
        };
        let Self { offset, timestamp, index, .. } = *self;
        TakenRecord { offset, timestamp, content, entry: Some(index) }
    }
}
