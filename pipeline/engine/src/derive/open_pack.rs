//! A pack of facts whose entries a task is processing, and what a task processes at a time.

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

/// A record as a task processes it.
pub(super) struct TakenRecord<'a> {
    pub(super) lane: Lane,
    /// The record, or the entry of a pack as a record.
    pub(super) record: &'a Record,
    /// The entry's index in its pack.
    pub(super) entry: Option<u32>,
}

impl OpenPack {
    /// The entries of this record.
    pub(super) fn of(lane: Lane, record: &Record, entries: Vec<PackEntry>) -> Self {
        let Record { offset, timestamp, .. } = *record;
        Self { lane, offset, timestamp, entries: entries.into_iter(), next: 0 }
    }

    /// The next entry as a record, with its index.
    pub(super) fn take(&mut self) -> Option<(u32, Record)> {
        let body = self.entries.next()?.to_body();
        let index = self.next;
        self.next += 1;
        Some((index, Record { offset: self.offset, timestamp: self.timestamp, body }))
    }

    /// Whether no entry is left.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.as_slice().is_empty()
    }
}
