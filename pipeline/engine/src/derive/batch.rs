//! The open transaction of one task: records processed, outputs made, and their counts.
//!
//! Outputs are counted and hashed when they are moved to the commit group, in the order they were
//! made. Facts are packed then: a pack stays open from one such move to the next, so its entries
//! follow from the outputs and not from when they are moved. The rest becomes the `order` record.
//! An abort drops all of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use crate::derive::accepted_id::AcceptedId;
use crate::derive::audit::layout::AuditItem;
use crate::derive::audit::{AuditLog, AuditSavepoint};
use crate::derive::effect_limits::URGENT_FACTS_MAX;
use crate::derive::lane_times::LaneSet;
use crate::derive::order::{Accepted, LaneSpan, OrderRecord, Tick};
use crate::derive::trigger::Inherited;
use crate::derive::updates::Mark;
use crate::fact_pack::{FactPackBuilder, PackedFact};
use crate::record::{Body, Millis, Offset, Outgoing, Partition, Topic, TopicPartition};
use crate::telemetry::{BatchCounts, DroppedByOperator};
use crate::topology::Lane;

/// Outputs for which memory is kept from one transaction to the next: those of most steps.
const KEPT_OUTPUTS: usize = 1_024;

/// An output of a task.
#[derive(Debug)]
pub(super) enum TaskOutput {
    /// A record.
    Record(Outgoing),
    /// A fact or a copy for a partition of a lane of facts, which becomes an entry of a pack.
    Fact { to: TopicPartition, fact: PackedFact },
}

impl TaskOutput {
    /// Its bytes: a record's body, or those that a fact has in a pack of its own.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Record(record) => record.body.as_bytes().len(),
            Self::Fact { fact, .. } => fact.size(),
        }
    }
}

impl From<Outgoing> for TaskOutput {
    fn from(record: Outgoing) -> Self {
        Self::Record(record)
    }
}

/// A point in a batch to roll back to.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchSavepoint {
    made: usize,
    bytes: usize,
    caused: usize,
    emissions: usize,
    urgent_facts: usize,
    amended: usize,
    marks: usize,
    failed_calls: usize,
    dropped: usize,
    accepted: (usize, usize),
    urgent: bool,
    counts: BatchCounts,
    audit: AuditSavepoint,
}

/// An emitted event that moves operators of the same key, in the same step.
#[derive(Clone, Debug)]
pub(super) struct LocalEmission {
    /// The encoded event.
    pub(super) value: Bytes,
    /// What it inherits from its cause.
    pub(super) inherited: Inherited,
}

/// The open transaction of one task.
#[derive(Default)]
pub(super) struct TaskBatch {
    /// Outputs that were not moved out yet.
    made: Vec<TaskOutput>,
    /// Bytes of `made`.
    bytes: usize,
    /// Facts that were moved out and whose packs are not full. The limits of transactions and of
    /// ticks count bytes when they are made, so all packs together have no more than these.
    packs: BTreeMap<TopicPartition, FactPackBuilder>,
    /// Bytes of records that operators have emitted for the current event or timer.
    caused: usize,
    /// Events that the current event or timer has emitted and that move operators of its key.
    emissions: Vec<LocalEmission>,
    /// How many of them were processed.
    emissions_done: usize,
    /// Facts and copies of the current event that are in the urgent lane.
    urgent_facts: usize,
    /// Fields that operators set in the event being processed, as JSON text.
    amended: Vec<(String, String)>,
    /// The keys whose changes are sent before the transaction is sealed.
    marks: Vec<Mark>,
    outputs: u32,
    hash: Xxh3,
    spans: [Option<LaneSpan>; Lane::COUNT],
    sequence: Vec<(Lane, u32)>,
    taken: u32,
    ticks: Vec<Tick>,
    dead_letters: Vec<u32>,
    /// The operator of each call that failed.
    failed_calls: Vec<&'static str>,
    /// What operators have dropped.
    dropped: Vec<DroppedByOperator>,
    accepted: Vec<Accepted>,
    /// Whether an output of a critical event is in the batch.
    pub(super) urgent: bool,
    /// Whether a partial may have so many parts that some are to be sent before its interval ends.
    pub(super) flush_early: bool,
    pub(super) counts: BatchCounts,
    pub(super) audit: AuditLog,
}

impl TaskBatch {
    /// Whether there is nothing to commit.
    pub(super) fn is_empty(&self) -> bool {
        self.taken == 0 && self.ticks.is_empty()
    }

    /// An empty batch that takes over the memory of this one, whose outputs were moved out.
    pub(super) fn successor(&mut self) -> Self {
        let mut next = Self {
            made: std::mem::take(&mut self.made),
            emissions: std::mem::take(&mut self.emissions),
            audit: std::mem::take(&mut self.audit),
            ..Self::default()
        };
        next.made.clear();
        next.made.shrink_to(KEPT_OUTPUTS);
        next.emissions.clear();
        next.audit.clear();
        next
    }

    /// Records processed, each entry of a pack counted.
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

    /// Adds a record that is being processed, or an entry of the pack at this offset.
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
    pub(super) fn emit(&mut self, output: impl Into<TaskOutput>) {
        let output = output.into();
        self.bytes += output.bytes();
        self.made.push(output);
    }

    /// Begins to process an event or a timer.
    pub(super) fn begin_cause(&mut self) {
        self.caused = 0;
        self.emissions.clear();
        self.emissions_done = 0;
        self.urgent_facts = 0;
        self.amended.clear();
    }

    /// The lane of the next fact or copy of the current event, which inherits `lane`: only the
    /// first ones of a critical event are urgent.
    pub(super) fn lane_of_fact(&mut self, lane: Lane) -> Lane {
        if lane != Lane::FactsUrgent {
            return lane;
        }
        if self.urgent_facts >= URGENT_FACTS_MAX {
            return Lane::Facts;
        }
        self.urgent_facts += 1;
        self.urgent = true;
        lane
    }

    /// Begins to process one of the events that the current one has emitted: the first that was
    /// not; `None` if all were.
    pub(super) fn next_emission(&mut self) -> Option<LocalEmission> {
        let next = self.emissions.get(self.emissions_done).cloned()?;
        self.emissions_done += 1;
        self.amended.clear();
        Some(next)
    }

    /// Adds an event that moves operators of the same key.
    pub(super) fn put_emission(&mut self, emission: LocalEmission) {
        self.caused += emission.value.len();
        self.emissions.push(emission);
    }

    /// How many such events the current one has emitted.
    pub(super) fn emissions(&self) -> usize {
        self.emissions.len()
    }

    /// Counts what an operator has dropped.
    pub(super) fn count_dropped(&mut self, dropped: DroppedByOperator) {
        self.audit.add(&AuditItem::Dropped(dropped.reason));
        self.dropped.push(dropped);
    }

    /// What operators have dropped.
    pub(super) fn dropped(&self) -> &[DroppedByOperator] {
        &self.dropped
    }

    /// Adds a key whose change is to be sent.
    pub(super) fn mark(&mut self, mark: Mark) {
        self.marks.push(mark);
    }

    /// Takes the keys whose changes are to be sent.
    pub(super) fn take_marks(&mut self) -> Vec<Mark> {
        std::mem::take(&mut self.marks)
    }

    /// Sets a field of the event being processed, before it is delivered.
    pub(super) fn amend(&mut self, field: &str, json: String) {
        self.audit.add(&AuditItem::Amended(field));
        self.amended.push((field.to_owned(), json));
    }

    /// The fields that were set.
    pub(super) fn amended(&self) -> &[(String, String)] {
        &self.amended
    }

    /// Bytes that operators have emitted for the current event or timer.
    pub(super) fn caused(&self) -> usize {
        self.caused
    }

    /// Adds an output that an operator has emitted.
    pub(super) fn emit_caused(&mut self, output: TaskOutput) {
        self.caused += output.bytes();
        self.emit(output);
    }

    /// Adds the dead letter of a call that failed.
    pub(super) fn put_failed_call(&mut self, operator: &'static str, record: Outgoing) {
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
        self.made.len() - savepoint.made - failed
    }

    pub(super) fn savepoint(&self) -> BatchSavepoint {
        let ids = self.accepted.last().map_or(0, |run| run.ids.len());
        BatchSavepoint {
            made: self.made.len(),
            bytes: self.bytes,
            caused: self.caused,
            emissions: self.emissions.len(),
            urgent_facts: self.urgent_facts,
            amended: self.amended.len(),
            marks: self.marks.len(),
            failed_calls: self.failed_calls.len(),
            dropped: self.dropped.len(),
            accepted: (self.accepted.len(), ids),
            urgent: self.urgent,
            counts: self.counts,
            audit: self.audit.savepoint(),
        }
    }

    /// Drops what was made since `savepoint`; the records stay. No output may have been moved out
    /// in between.
    pub(super) fn roll_back(&mut self, savepoint: BatchSavepoint) {
        self.made.truncate(savepoint.made);
        self.bytes = savepoint.bytes;
        self.caused = savepoint.caused;
        self.emissions.truncate(savepoint.emissions);
        self.urgent_facts = savepoint.urgent_facts;
        self.amended.truncate(savepoint.amended);
        self.marks.truncate(savepoint.marks);
        self.failed_calls.truncate(savepoint.failed_calls);
        self.dropped.truncate(savepoint.dropped);
        self.accepted.truncate(savepoint.accepted.0);
        if let Some(run) = self.accepted.last_mut() {
            run.ids.truncate(savepoint.accepted.1);
        }
        self.urgent = savepoint.urgent;
        self.counts = savepoint.counts;
        self.audit.roll_back(savepoint.audit);
    }

    /// Adds the audit to the outputs, once everything else was added.
    pub(super) fn seal_audit(&mut self, topic: &Topic, partition: Partition) {
        for record in self.audit.seal(topic, partition) {
            self.counts.audit_records += 1;
            self.counts.audit_bytes += record.body.as_bytes().len() as u64;
            self.emit(record);
        }
    }

    /// Moves the outputs made so far to `into`, facts as far as their packs are full.
    pub(super) fn take_outputs(&mut self, into: &mut Vec<Outgoing>) {
        self.outputs += u32::try_from(self.made.len()).expect("a batch is bounded");
        self.counts.outputs += self.made.len() as u64;
        self.bytes = 0;
        let mut made = std::mem::take(&mut self.made);
        for output in made.drain(..) {
            match output {
                TaskOutput::Record(record) => self.move_out(record, into),
                TaskOutput::Fact { to, fact } => {
                    let pack = match self.packs.get_mut(&to) {
                        Some(open) => open.push(fact),
                        None => self.packs.entry(to.clone()).or_default().push(fact),
                    };
                    if let Some(pack) = pack {
                        self.move_out(packed(to, pack), into);
                    }
                }
            }
        }
        self.made = made;
    }

    /// Moves all outputs to `into`, and ends the packs.
    pub(super) fn take_all_outputs(&mut self, into: &mut Vec<Outgoing>) {
        self.take_outputs(into);
        for (to, mut open) in std::mem::take(&mut self.packs) {
            if let Some(pack) = open.finish() {
                self.move_out(packed(to, pack), into);
            }
        }
    }

    fn move_out(&mut self, record: Outgoing, into: &mut Vec<Outgoing>) {
        self.hash.update(record.topic.as_str().as_bytes());
        self.hash.update(&record.partition.0.to_be_bytes());
        self.hash.update(record.body.as_bytes());
        into.push(record);
    }

    /// Fills in the batch's part of its `order` record, once every output was moved out. What only
    /// that record needs is moved there.
    pub(super) fn describe(&mut self, order: &mut OrderRecord) {
        let all_moved = self.made.is_empty() && self.packs.is_empty();
        assert!(all_moved, "every output is hashed before the order record");
        order.spans = self.spans;
        order.sequence = std::mem::take(&mut self.sequence);
        order.ticks.clone_from(&self.ticks);
        order.dead_letters.clone_from(&self.dead_letters);
        order.accepted = std::mem::take(&mut self.accepted);
        order.outputs = self.outputs;
        order.outputs_hash = self.hash.digest();
    }
}

/// The record of a pack.
fn packed(to: TopicPartition, pack: Body) -> Outgoing {
    let TopicPartition { topic, partition } = to;
    Outgoing { topic, partition, body: pack }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact_pack::entries_in;
    use crate::record::{Partition, Topic};
    use proptest::prelude::*;

    /// Of three partitions, some of them facts, with values of these lengths.
    fn output(n: usize, len: usize) -> TaskOutput {
        let partition = Partition((n % 3) as u32);
        let value = vec![b'x'; len];
        if n.is_multiple_of(5) {
            let body = Body::new(None, Some(&value), &[]);
            return Outgoing { topic: Topic::new("out"), partition, body }.into();
        }
        let fact = PackedFact {
            hops: 1,
            time: Millis(n as i64),
            operators: Bytes::new(),
            key: n.to_string().into(),
            value: value.into(),
        };
        TaskOutput::Fact { to: TopicPartition::new(&Topic::new("facts"), partition), fact }
    }

    proptest! {
        #[test]
        fn packs_do_not_depend_on_when_outputs_are_moved_out(
            outputs in proptest::collection::vec((0..30_000usize, any::<bool>()), 0..40),
        ) {
            let execute = |moves: bool| {
                let (mut batch, mut moved) = (TaskBatch::default(), Vec::new());
                for (n, (len, is_moved)) in outputs.iter().enumerate() {
                    batch.emit(output(n, *len));
                    if moves && *is_moved {
                        batch.take_outputs(&mut moved);
                    }
                }
                batch.take_all_outputs(&mut moved);
                let mut order = OrderRecord::default();
                batch.describe(&mut order);
                (moved, order)
            };
            let (moved, order) = execute(true);
            prop_assert_eq!(order.outputs as usize, outputs.len());
            prop_assert!(execute(false) == (moved, order));
        }
    }

    proptest! {
        #[test]
        fn packs_have_no_more_bytes_than_were_counted_when_their_facts_were_made(
            lens in proptest::collection::vec(0..2_000usize, 0..300),
        ) {
            let (mut batch, mut moved, mut counted) = (TaskBatch::default(), Vec::new(), 0);
            for (n, len) in lens.into_iter().enumerate() {
                let before = batch.bytes();
                batch.emit(output(n, len));
                counted += batch.bytes() - before;
                if n.is_multiple_of(7) {
                    batch.take_outputs(&mut moved);
                    prop_assert_eq!(batch.bytes(), 0);
                }
            }
            batch.take_all_outputs(&mut moved);
            let bytes: usize = moved.iter().map(|record| record.body.as_bytes().len()).sum();
            prop_assert!(bytes <= counted, "{bytes} of {counted}");
        }
    }

    #[test]
    fn facts_of_a_call_that_is_rolled_back_are_in_no_pack() {
        let (mut batch, mut moved) = (TaskBatch::default(), Vec::new());
        batch.emit(output(1, 10));
        batch.take_outputs(&mut moved);
        assert_eq!(moved, [], "its pack is not full");
        let savepoint = batch.savepoint();
        batch.emit(output(4, 10));
        batch.roll_back(savepoint);
        batch.take_all_outputs(&mut moved);
        let entries: usize = moved.iter().map(|pack| entries_in(&pack.body)).sum();
        assert_eq!((moved.len(), entries), (1, 1));
    }
}
