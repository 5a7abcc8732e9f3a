//! The open transaction of one task: records processed, outputs made, and their counts.
//!
//! Outputs are counted and hashed when they are moved to the commit group, in the order they were
//! made. The rest becomes the `order` record. An abort drops all of it.

use xxhash_rust::xxh3::Xxh3;

use crate::derive::accepted_id::AcceptedId;
use crate::derive::lane_times::LaneSet;
use crate::derive::order::{Accepted, LaneSpan, OrderRecord, Tick};
use crate::record::{Millis, Offset, Outgoing};
use crate::telemetry::BatchCounts;
use crate::topology::Lane;

/// A point in a batch to roll back to.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchSavepoint {
    outgoing: usize,
    bytes: usize,
    caused: usize,
    failed_calls: usize,
    accepted: (usize, usize),
    urgent: bool,
    counts: BatchCounts,
}

/// The open transaction of one task.
#[derive(Default)]
pub(super) struct TaskBatch {
    outgoing: Vec<Outgoing>,
    /// Bytes of `outgoing`'s bodies.
    bytes: usize,
    /// Bytes of records that operators have emitted for the current event or timer.
    caused: usize,
    outputs: u32,
    hash: Xxh3,
    spans: [Option<LaneSpan>; Lane::COUNT],
    sequence: Vec<(Lane, u32)>,
    taken: u32,
    ticks: Vec<Tick>,
    dead_letters: Vec<u32>,
    /// The operator of each call that failed.
    failed_calls: Vec<&'static str>,
    accepted: Vec<Accepted>,
    /// Whether an output of a critical event is in the batch.
    pub(super) urgent: bool,
    pub(super) counts: BatchCounts,
}

impl TaskBatch {
    /// Whether there is nothing to commit.
    pub(super) fn is_empty(&self) -> bool {
        self.taken == 0 && self.ticks.is_empty()
    }

    /// Records processed.
    pub(super) fn taken(&self) -> usize {
        self.taken as usize
    }

    /// Bytes of outputs that are still here.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The offset after the last record of a lane; `None` if the batch has none of it.
    pub(super) fn next(&self, lane: Lane) -> Option<Offset> {
        self.spans[lane.index()].map(|span| span.last.next())
    }

    /// Adds a record that is being processed.
    pub(super) fn take(&mut self, lane: Lane, offset: Offset) {
        let span = &mut self.spans[lane.index()];
        *span = Some(LaneSpan { first: span.map_or(offset, |span| span.first), last: offset });
        match self.sequence.last_mut() {
            Some((last, count)) if *last == lane => *count += 1,
            _ => self.sequence.push((lane, 1)),
        }
        self.taken += 1;
        self.counts.taken[lane.index()] += 1;
    }

    /// Adds a tick.
    pub(super) fn tick(&mut self, at: Millis, ended: LaneSet) {
        self.ticks.push(Tick { after: self.taken, at, ended });
    }

    /// Adds an accepted id.
    pub(super) fn accept(&mut self, accepted: AcceptedId, id: [u8; 16]) {
        let AcceptedId { since, at } = accepted;
        match self.accepted.last_mut() {
            Some(run) if (run.at, run.since) == (at, since) => run.ids.push(id),
            _ => self.accepted.push(Accepted { at, since, ids: vec![id] }),
        }
    }

    /// Adds an output.
    pub(super) fn emit(&mut self, record: Outgoing) {
        self.bytes += record.body.as_bytes().len();
        self.outgoing.push(record);
    }

    /// Begins to process an event or a timer.
    pub(super) fn begin_cause(&mut self) {
        self.caused = 0;
    }

    /// Bytes that operators have emitted for the current event or timer.
    pub(super) fn caused(&self) -> usize {
        self.caused
    }

    /// Adds an output that an operator has emitted.
    pub(super) fn emit_caused(&mut self, record: Outgoing) {
        self.caused += record.body.as_bytes().len();
        self.emit(record);
    }

    /// Adds the dead letter of a call that failed.
    pub(super) fn put_failed_call(&mut self, operator: &'static str, record: Outgoing) {
        self.counts.failed += 1;
        self.failed_calls.push(operator);
        self.emit(record);
    }

    /// The operator of each call that failed.
    pub(super) fn failed_calls(&self) -> &[&'static str] {
        &self.failed_calls
    }

    /// Adds the dead letter of the last record.
    pub(super) fn put_dead_letter(&mut self, record: Outgoing) {
        self.dead_letters.push(self.taken.saturating_sub(1));
        self.emit(record);
    }

    /// How many outputs were made since `savepoint`, dead letters of operators aside.
    pub(super) fn made_since(&self, savepoint: BatchSavepoint) -> usize {
        let failed = self.failed_calls.len() - savepoint.failed_calls;
        self.outgoing.len() - savepoint.outgoing - failed
    }

    pub(super) fn savepoint(&self) -> BatchSavepoint {
        let ids = self.accepted.last().map_or(0, |run| run.ids.len());
        BatchSavepoint {
            outgoing: self.outgoing.len(),
            bytes: self.bytes,
            caused: self.caused,
            failed_calls: self.failed_calls.len(),
            accepted: (self.accepted.len(), ids),
            urgent: self.urgent,
            counts: self.counts,
        }
    }

    /// Drops what was made since `savepoint`; the records stay. No output may have been moved out
    /// in between.
    pub(super) fn roll_back(&mut self, savepoint: BatchSavepoint) {
        self.outgoing.truncate(savepoint.outgoing);
        self.bytes = savepoint.bytes;
        self.caused = savepoint.caused;
        self.failed_calls.truncate(savepoint.failed_calls);
        self.accepted.truncate(savepoint.accepted.0);
        if let Some(run) = self.accepted.last_mut() {
            run.ids.truncate(savepoint.accepted.1);
        }
        self.urgent = savepoint.urgent;
        self.counts = savepoint.counts;
    }

    /// Moves the outputs made so far to `into`.
    pub(super) fn take_outputs(&mut self, into: &mut Vec<Outgoing>) {
        for record in &self.outgoing {
            self.hash.update(record.topic.as_str().as_bytes());
            self.hash.update(&record.partition.0.to_be_bytes());
            self.hash.update(record.body.as_bytes());
        }
        self.outputs += u32::try_from(self.outgoing.len()).expect("a batch is bounded");
        self.counts.outputs += self.outgoing.len() as u64;
        self.bytes = 0;
        into.append(&mut self.outgoing);
    }

    /// Fills in the batch's part of its `order` record, once every output was moved out. What only
    /// that record needs is moved there.
    pub(super) fn describe(&mut self, order: &mut OrderRecord) {
        assert!(self.outgoing.is_empty(), "every output is hashed before the order record");
        order.spans = self.spans;
        order.sequence = std::mem::take(&mut self.sequence);
        order.ticks.clone_from(&self.ticks);
        order.dead_letters.clone_from(&self.dead_letters);
        order.accepted = std::mem::take(&mut self.accepted);
        order.outputs = self.outputs;
        order.outputs_hash = self.hash.digest();
    }
}
