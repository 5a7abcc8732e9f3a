//! The ADMIT loop: take, classify, append, commit.
//!
//! Offsets are committed after the log acknowledged everything made of the records before them.
//! After a failure in between they are uncommitted, and the loop that replaces this one admits
//! those events again, in the same order. The poison limit is checked before the append, so a batch
//! that exceeds it stays in the input, with everything behind it. A record whose schema can't be
//! asked for stays there with everything behind it in its partition, and counts for no limit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::codec::Registry;
use tidewire_schemas::envelope::Writers;

use crate::admit::classify::{AdmitCounts, AdmitOutput, Classifier, SourcePartition, SourceRecord};
use crate::admit::poison_breaker::{BatchSample, PoisonBreaker};
use crate::admit::waiting::{RegistryWaits, WaitingPartitions, WaitingRecord};
use crate::port::{
    Appender, Change, Committed, Isolation, Log, LogError, Member, MemberSpec, ReadLimit,
    ReaderSlot, UnreadRecords, Wake,
};
use crate::record::{Millis, Offset, Outgoing, Record, Topic, TopicPartition};
use crate::telemetry;
use crate::topology::Topology;
use crate::turn::{EngineError, TurnOutcome, repeat};
use crate::verdict::TopicId;

/// The most a turn takes from one partition: enough for a cheap append, and processed within
/// milliseconds, so that the other partitions do not wait long.
const TAKE: ReadLimit = ReadLimit { records: 2_048, bytes: 2 << 20 };

/// Bytes taken in one turn from all partitions; the rest is taken in the next turn.
const TURN_BYTES: usize = 8 << 20;

/// Which input a loop reads; each has a thread of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmitInput {
    /// `in`.
    Main,
    /// `in.urgent`.
    Urgent,
    /// `in.internal`. It shares no thread with the others, so that neither a backlog nor a stop at
    /// the poison limit of what producers write delays the leases of gateways.
    Internal,
}

impl AdmitInput {
    /// All inputs.
    pub const ALL: [Self; 3] = [Self::Main, Self::Urgent, Self::Internal];

    /// Its name in metrics and in the group.
    pub fn name(self) -> &'static str {
        match self {
            Self::Main => "in",
            Self::Urgent => "urgent",
            Self::Internal => "internal",
        }
    }

    /// Its topic.
    pub fn topic(self, topology: &Topology) -> &Topic {
        match self {
            Self::Main => topology.input(),
            Self::Urgent => topology.input_urgent(),
            Self::Internal => topology.input_internal(),
        }
    }

    fn writers(self) -> Writers {
        match self {
            Self::Main | Self::Urgent => Writers::Producers,
            Self::Internal => Writers::OwnProcesses,
        }
    }

    /// Its stable number, which lane records contain ([`Topology::input_of`]).
    pub fn number(self) -> u8 {
        match self {
            Self::Main => 0,
            Self::Urgent => 1,
            Self::Internal => 2,
        }
    }
}

/// The configuration of an ADMIT loop.
#[derive(Clone, Debug)]
pub struct AdmitConfig {
    /// The topics.
    pub topology: Topology,
    /// The input it reads.
    pub source: AdmitInput,
    /// The catalogue in force.
    pub catalogue: &'static Catalogue,
    /// The stable, unique name of the process.
    pub instance: String,
    /// The hash of the settings; each lane record carries it.
    pub settings_hash: u64,
    /// The schema registry, if one is configured.
    pub registry: Option<Arc<dyn Registry>>,
    /// Stops it above the poison limit; one per loop, kept when the loop is rebuilt.
    pub breaker: PoisonBreaker,
    /// Lists the partitions that wait for the registry; one per loop, kept when it is rebuilt.
    pub waiting: WaitingPartitions,
}

/// A partition being read.
struct InputSlot {
    at: TopicPartition,
    slot: ReaderSlot,
    /// The id of its topic.
    topic: TopicId,
    /// The first offset read since it was assigned.
    delivered_from: Offset,
    /// What was committed since then, or the same.
    delivered_to: Offset,
}

impl InputSlot {
    fn source(&self, input: AdmitInput) -> SourcePartition<'_> {
        let Self { at, topic, delivered_from, delivered_to, .. } = self;
        let (input, topic) = (input.number(), *topic);
        let (delivered_from, delivered_to) = (*delivered_from, *delivered_to);
        SourcePartition { at, input, topic, delivered_from, delivered_to }
    }
}

/// What one turn took.
#[derive(Default)]
struct AdmitBatch {
    taken: usize,
    /// The offsets to commit.
    offsets: Vec<(TopicPartition, Committed)>,
    /// Offset and time of the first record of each of these partitions.
    firsts: Vec<(Offset, Millis)>,
    /// Records that the poison limit counts.
    counts: AdmitCounts,
    counted: u64,
    newest: Millis,
    /// Records that it does not.
    exempt: AdmitCounts,
    /// Partitions whose next record waits for the registry.
    waiting: Vec<(TopicPartition, WaitingRecord)>,
}

impl AdmitBatch {
    /// The counts that a record's results are added to.
    fn counts_of(&mut self, record: &Record, counted_from: Offset) -> &mut AdmitCounts {
        if record.offset < counted_from { &mut self.exempt } else { &mut self.counts }
    }

    /// Counts a record that was classified.
    fn count(&mut self, record: &Record, counted_from: Offset) {
        self.taken += 1;
        if record.offset >= counted_from {
            self.counted += 1;
            self.newest = self.newest.max(record.timestamp);
        }
    }

    /// What is left to read in a partition if this batch is not committed; `behind` is what is left
    /// behind it.
    fn with_taken(&self, at: &TopicPartition, behind: UnreadRecords) -> UnreadRecords {
        let Some(index) = self.offsets.iter().position(|(of, _)| of == at) else { return behind };
        let (next, oldest) = self.firsts[index];
        let records = behind.records + behind.next.0.saturating_sub(next.0);
        UnreadRecords { next, records, open_transaction: false, oldest: Some(oldest) }
    }

    fn sample(&self) -> BatchSample<'_> {
        BatchSample { newest: self.newest, taken: self.counted, rejected: &self.counts.rejected }
    }
}

/// The ADMIT loop: call `turn` repeatedly, then drop it.
pub struct Admit {
    source: AdmitInput,
    group: String,
    log: Arc<dyn Log>,
    classifier: Classifier,
    member: Box<dyn Member>,
    appender: Box<dyn Appender>,
    inputs: BTreeMap<TopicPartition, InputSlot>,
    breaker: PoisonBreaker,
    /// Assigned, but not read while stopped; with what was left to read at the stop.
    paused: BTreeMap<TopicPartition, Option<UnreadRecords>>,
    /// Assigned, but not read until the registry answers.
    waits: RegistryWaits,
    /// Whether the group has assigned partitions.
    joined: bool,
    /// The first partition of the next turn; it rotates, so that none is always last.
    first: usize,
    /// Buffers, kept for their capacity.
    taken: Vec<Record>,
    outgoing: Vec<Outgoing>,
}

impl Admit {
    /// Joins the group; partitions are assigned in the first turns.
    pub fn new(config: AdmitConfig, log: &Arc<dyn Log>) -> Result<Self, EngineError> {
        let starting = |error| EngineError::of_log("starting ADMIT", error);
        let topology = config.topology;
        let input = config.source.topic(&topology);
        let group = topology.admit_group();
        let spec = MemberSpec {
            group: group.clone(),
            topics: vec![input.clone()],
            instance: format!("{}-{}", config.instance, config.source.name()),
        };
        if config.breaker.stopped().is_none() {
            telemetry::admit_running(config.source.name());
        }
        Ok(Self {
            source: config.source,
            group,
            log: log.clone(),
            member: repeat(|| log.member(&spec)).map_err(starting)?,
            appender: repeat(|| log.appender()).map_err(starting)?,
            classifier: Classifier {
                topology,
                catalogue: config.catalogue,
                writers: config.source.writers(),
                settings_hash: config.settings_hash,
                registry: config.registry,
            },
            inputs: BTreeMap::new(),
            breaker: config.breaker,
            paused: BTreeMap::new(),
            waits: RegistryWaits::new(config.source.name(), config.waiting),
            joined: false,
            first: 0,
            taken: Vec::new(),
            outgoing: Vec::new(),
        })
    }

    /// Admits the records that are ready, or waits for at most `wait`. While stopped it only keeps
    /// its group membership and waits.
    pub fn turn(&mut self, wait: Duration) -> Result<TurnOutcome, EngineError> {
        self.follow_assignments()?;
        if self.breaker.stopped().is_some() {
            self.pause(&AdmitBatch::default());
            return self.idle(wait);
        }
        self.unpause()
            .map_err(|error| EngineError::of_log("reading paused partitions again", error))?;
        self.end_waits()?;
        self.outgoing.clear();
        let mut batch = self.take()?;
        for (at, record) in std::mem::take(&mut batch.waiting) {
            self.wait_at(at, record);
        }
        if batch.taken == 0 {
            return self.idle(wait);
        }
        if let Err(stopped) = self.breaker.count(batch.sample()) {
            telemetry::admit_stopped(self.source.name(), &stopped);
            self.pause(&batch);
            return Ok(TurnOutcome { joined: self.joined, ..TurnOutcome::default() });
        }
        let written = self.outgoing.len();
        repeat(|| self.appender.append(&self.outgoing))
            .map_err(|error| EngineError::of_log("writing to the lanes", error))?;
        repeat(|| self.member.commit(&batch.offsets))
            .map_err(|error| EngineError::of_log("committing offsets of the input", error))?;
        self.delivered(&batch.offsets);
        telemetry::admit_records(self.source.name(), batch.taken as u64);
        batch.counts.report();
        batch.exempt.report();
        Ok(TurnOutcome { taken: batch.taken, written, restoring: false, joined: self.joined })
    }

    /// Records that everything before these offsets was delivered and committed.
    fn delivered(&mut self, offsets: &[(TopicPartition, Committed)]) {
        for (at, committed) in offsets {
            if let Some(input) = self.inputs.get_mut(at) {
                input.delivered_to = committed.offset;
            }
        }
    }

    fn idle(&mut self, wait: Duration) -> Result<TurnOutcome, EngineError> {
        self.member
            .wait(wait)
            .map_err(|error| EngineError::of_log("waiting for records", error))?;
        Ok(TurnOutcome { joined: self.joined, ..TurnOutcome::default() })
    }

    /// Stops reading; the batch, which is not committed, is read again later.
    fn pause(&mut self, batch: &AdmitBatch) {
        for (at, behind) in self.waits.take_all() {
            let unread = batch.with_taken(&at, behind);
            self.paused.insert(at, Some(unread));
        }
        for (at, input) in std::mem::take(&mut self.inputs) {
            let behind = self.member.backlog(input.slot);
            self.member.remove(input.slot);
            let unread = behind.map(|behind| batch.with_taken(&at, behind));
            self.paused.insert(at, unread);
        }
    }

    /// Reads the paused partitions again. After a resume, the records now in the input are exempt
    /// from the poison limit; without partitions the resume waits until some are assigned.
    fn unpause(&mut self) -> Result<(), LogError> {
        if self.breaker.is_resumed() && !(self.paused.is_empty() && self.inputs.is_empty()) {
            let ours = self.paused.keys().chain(self.inputs.keys());
            let end = |at: &TopicPartition| {
                let bounds = repeat(|| self.log.bounds(at, Isolation::Uncommitted))?;
                Ok((at.clone(), bounds.end))
            };
            self.breaker.exempt(ours.map(end).collect::<Result<_, LogError>>()?);
            telemetry::admit_resumed(self.source.name());
        }
        if !self.paused.is_empty() {
            let paused: Vec<TopicPartition> = self.paused.keys().cloned().collect();
            self.assign(&paused)?;
            self.paused.clear();
        }
        Ok(())
    }

    /// Stops reading a partition at a record that waits for the registry.
    fn wait_at(&mut self, at: TopicPartition, mut record: WaitingRecord) {
        if let Some(input) = self.inputs.remove(&at) {
            let left = self.member.backlog(input.slot).map_or(0, |left| left.next.0 + left.records);
            record.unread = left.saturating_sub(record.offset.0).max(record.unread);
            self.member.remove(input.slot);
        }
        self.waits.begin(at, record);
    }

    /// Reads the partitions again whose schema the registry gives by now.
    fn end_waits(&mut self) -> Result<(), EngineError> {
        let Some(registry) = self.classifier.registry.as_deref().filter(|_| !self.waits.is_empty())
        else {
            return Ok(());
        };
        let ready = self.waits.ready(registry);
        self.assign(&ready)
            .map_err(|error| EngineError::of_log("reading partitions that waited", error))
    }

    /// What is left to read in each assigned partition, for metrics; `None`: it is not known. Asks
    /// nothing of the log: while stopped, it is what was left at the stop; in a partition that
    /// waits for the registry, at least what was left when the wait began.
    pub fn backlogs(&mut self) -> Vec<(TopicPartition, Option<UnreadRecords>)> {
        let Self { inputs, member, paused, waits, .. } = self;
        let read = inputs.values().map(|input| (input.at.clone(), member.backlog(input.slot)));
        let waiting = waits.backlogs().map(|(at, unread)| (at, Some(unread)));
        let paused = paused.iter().map(|(at, unread)| (at.clone(), *unread));
        read.chain(waiting).chain(paused).collect()
    }

    /// Ends a turn's wait from another thread.
    pub fn waker(&self) -> Arc<dyn Wake> {
        self.member.waker()
    }

    /// Takes records from each partition and classifies them.
    fn take(&mut self) -> Result<AdmitBatch, EngineError> {
        let mut batch = AdmitBatch::default();
        let mut bytes = 0;
        self.first = (self.first + 1) % self.inputs.len().max(1);
        for input in self.inputs.values().cycle().skip(self.first).take(self.inputs.len()) {
            if bytes >= TURN_BYTES {
                break;
            }
            self.taken.clear();
            take_from(&mut *self.member, input, &mut self.taken)
                .map_err(|error| EngineError::of_log("reading the input", error))?;
            let from = input.source(self.source);
            let counted_from = self.breaker.counted_from(&input.at);
            let mut next = None;
            for (index, record) in self.taken.iter().enumerate() {
                bytes += record.size();
                let counts = batch.counts_of(record, counted_from);
                let mut output = AdmitOutput { records: &mut self.outgoing, counts };
                let source = SourceRecord { from: &from, record };
                if let Err(missing) = self.classifier.classify(source, &mut output) {
                    let Record { offset, timestamp, .. } = *record;
                    let unread = (self.taken.len() - index) as u64;
                    let waits = WaitingRecord { offset, timestamp, unread, missing };
                    batch.waiting.push((input.at.clone(), waits));
                    break;
                }
                batch.count(record, counted_from);
                next = Some(record.offset.next());
            }
            if let (Some(offset), Some(first)) = (next, self.taken.first()) {
                batch.firsts.push((first.offset, first.timestamp));
                let committed = Committed { offset, metadata: String::new() };
                batch.offsets.push((input.at.clone(), committed));
            }
        }
        Ok(batch)
    }

    fn follow_assignments(&mut self) -> Result<(), EngineError> {
        let following = |error| EngineError::of_log("following the group", error);
        for change in repeat(|| self.member.changes()).map_err(following)? {
            match change {
                Change::Assigned(of) => {
                    self.joined = true;
                    self.assign(&of).map_err(following)?;
                }
                // Between turns nothing is uncommitted, so both need no more than a release.
                Change::Revoked(of) => self.release(&of),
                Change::Lost(of) => {
                    self.joined = false;
                    self.release(&of);
                }
            }
        }
        Ok(())
    }

    fn release(&mut self, of: &[TopicPartition]) {
        self.paused.retain(|at, _| !of.contains(at));
        self.waits.retain(|at| !of.contains(at));
        for input in of.iter().filter_map(|at| self.inputs.remove(at)) {
            self.member.remove(input.slot);
        }
    }

    fn assign(&mut self, of: &[TopicPartition]) -> Result<(), LogError> {
        if of.is_empty() {
            return Ok(());
        }
        let committed = repeat(|| self.log.committed(&self.group, of))?;
        let starts = of.iter().map(|at| repeat(|| self.log.bounds(at, Isolation::Committed)));
        let starts =
            starts.map(|bounds| Ok(bounds?.start)).collect::<Result<Vec<_>, LogError>>()?;
        // The topic's id is read after the offsets. If the topic is created again in between, old
        // offsets get the new id, which is harmless; new ones never get the old id.
        let topic = self.topic_id(&of[0].topic)?;
        for ((at, committed), start) in of.iter().zip(committed).zip(starts) {
            let from = committed.map_or(start, |committed| committed.offset);
            if from < start {
                telemetry::records_lost("input", at, start.0 - from.0);
            }
            let from = from.max(start);
            let slot = repeat(|| self.member.add(at, from))?;
            let at = at.clone();
            let input =
                InputSlot { at: at.clone(), slot, topic, delivered_from: from, delivered_to: from };
            self.inputs.insert(at, input);
        }
        Ok(())
    }

    /// The id of the input's topic.
    fn topic_id(&self, topic: &Topic) -> Result<TopicId, LogError> {
        let topics = repeat(|| self.log.topics())?;
        let of = topics.iter().find(|of| of.spec.topic == *topic).map(TopicId::of);
        of.ok_or_else(|| {
            LogError::Invalid(format!(
                "the log does not list the topic {topic}, which ADMIT reads: it was deleted, or \
                 this user may not describe it; create it with `tidewire topics create`, or grant \
                 Describe"
            ))
        })
    }
}

/// Takes ready records; reports records that retention removed before they were read.
fn take_from(
    member: &mut dyn Member,
    input: &InputSlot,
    into: &mut Vec<Record>,
) -> Result<(), LogError> {
    match repeat(|| member.take(input.slot, TAKE, into)) {
        Ok(_) => Ok(()),
        Err(LogError::OutOfRange { asked, start, .. }) if asked < start => {
            telemetry::records_lost("input", &input.at, start - asked);
            member.seek(input.slot, Offset(start))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Partition;

    #[test]
    fn a_batch_that_is_not_committed_is_left_to_read() {
        let at = |partition| TopicPartition::new(&Topic::new("tw.in"), Partition(partition));
        let committed = Committed { offset: Offset(9), metadata: String::new() };
        let offsets = vec![(at(1), committed)];
        let batch =
            AdmitBatch { offsets, firsts: vec![(Offset(5), Millis(70))], ..AdmitBatch::default() };
        let behind = UnreadRecords {
            next: Offset(9),
            records: 2,
            open_transaction: true,
            oldest: Some(Millis(80)),
        };
        assert_eq!(batch.with_taken(&at(0), behind), behind);
        let (next, oldest) = (Offset(5), Some(Millis(70)));
        let expected = UnreadRecords { next, records: 6, open_transaction: false, oldest };
        assert_eq!(batch.with_taken(&at(1), behind), expected);
    }
}
