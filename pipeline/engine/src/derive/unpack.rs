//! Takes the records of the lanes into a task: packs of facts entry by entry, others whole.
//!
//! A pack belongs to one transaction: the lane's offset moves past it, so all of its entries are
//! processed before the transaction is sealed. Steps and the appending of outputs may come between
//! two of them, ticks never do.
//!
//! A pack that can't be decoded is one dead letter with its bytes.

use tidewire_schemas::envelope::Reason;

use crate::derive::failure::CommitFailure;
use crate::derive::open_pack::OpenPack;
use crate::derive::operator::Rules;
use crate::derive::running::RunningTask;
use crate::derive::taken_record::TakenRecord;
use crate::fact_pack::decode;
use crate::record::Record;
use crate::topology::Lane;

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
        let whole = TakenRecord::whole(record);
        let pack = if lane.has_facts() { record.body.value_bytes() } else { None };
        let Some(pack) = pack else { return self.process_one(rules, lane, whole) };
        match decode(&pack) {
            Ok(entries) => {
                self.pack = Some(OpenPack::of(lane, record, entries));
                self.process_entry(rules).map(drop)
            }
            Err(error) => {
                let taken = self.take(rules, (lane, whole), None);
                self.put_dead_letter(rules, taken, Reason::AvroDecode, &error.to_string());
                Ok(())
            }
        }
    }

    /// Processes the next entry of the open pack; `false` if there is none.
    pub(super) fn process_entry(&mut self, rules: Rules<'_>) -> Result<bool, CommitFailure> {
        let Some(pack) = &mut self.pack else { return Ok(false) };
        let lane = pack.lane;
        let Some(entry) = pack.take() else {
            self.pack = None;
            return Ok(false);
        };
        self.process_one(rules, lane, entry.taken())?;
        Ok(true)
    }

    /// Whether entries of a pack were not processed yet.
    pub(super) fn is_within_pack(&self) -> bool {
        self.pack.as_ref().is_some_and(|pack| !pack.is_empty())
    }
}
