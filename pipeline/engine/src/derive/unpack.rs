//! Takes the records of the lanes into a task: whole records, and the packs of facts entry by entry.
//!
//! A pack belongs to one transaction: the lane's offset moves past it, so all of its entries are
//! processed before the transaction is sealed. Steps and the appending of outputs may come between
//! two of them, ticks never do.
//!
//! A pack that can't be decoded is one dead letter with its bytes.

use tidewire_schemas::envelope::Reason;

use crate::derive::failure::CommitFailure;
use crate::derive::operator::Rules;
use crate::derive::running::RunningTask;
use crate::fact_pack::{PackEntry, decode};
use crate::record::{Millis, Offset, Record};
use crate::topology::Lane;

/// A pack whose entries are being processed.
pub(super) struct OpenPack {
    lane: Lane,
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
    fn take(&mut self) -> Option<(u32, Record)> {
        let body = self.entries.next()?.to_body();
        let index = self.next;
        self.next += 1;
        Some((index, Record { offset: self.offset, timestamp: self.timestamp, body }))
    }
}

impl RunningTask {
    /// Processes a record of a lane, of a pack all entries; returns how many records that were.
    pub(super) fn process(
        &mut self,
        rules: Rules<'_>,
        lane: Lane,
        record: &Record,
    ) -> Result<usize, CommitFailure> {
        self.begin(rules, lane, record)?;
        let mut taken = 1;
        while self.process_entry(rules)? {
            taken += 1;
        }
        Ok(taken)
    }

    /// Processes a record of a lane, of a pack the first entry.
    pub(super) fn begin(
        &mut self,
        rules: Rules<'_>,
        lane: Lane,
        record: &Record,
    ) -> Result<(), CommitFailure> {
        let whole = TakenRecord { lane, record, entry: None };
        let Some(pack) = record.body.value_bytes().filter(|_| lane.has_facts()) else {
            return self.process_one(rules, &whole);
        };
        match decode(&pack) {
            Ok(entries) => {
                let Record { offset, timestamp, .. } = *record;
                let entries = entries.into_iter();
                self.pack = Some(OpenPack { lane, offset, timestamp, entries, next: 0 });
                self.process_entry(rules).map(drop)
            }
            Err(error) => {
                let taken = self.take(&whole, None);
                self.put_dead_letter(rules, taken, Reason::AvroDecode, &error.to_string());
                Ok(())
            }
        }
    }

    /// Processes the next entry of the open pack; `false` if there is none.
    pub(super) fn process_entry(&mut self, rules: Rules<'_>) -> Result<bool, CommitFailure> {
        let Some(pack) = &mut self.pack else { return Ok(false) };
        let lane = pack.lane;
        let Some((index, record)) = pack.take() else {
            self.pack = None;
            return Ok(false);
        };
        self.process_one(rules, &TakenRecord { lane, record: &record, entry: Some(index) })?;
        Ok(true)
    }

    /// Whether entries of a pack were not processed yet.
    pub(super) fn is_within_pack(&self) -> bool {
        self.pack.as_ref().is_some_and(|pack| !pack.entries.as_slice().is_empty())
    }
}
