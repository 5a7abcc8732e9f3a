//! ADMIT's loop: take, judge, append, commit.
//!
//! The order is the promise: offsets are committed after the log has answered for everything made
//! of the records before them. A failure in between leaves them uncommitted; the loop that takes
//! its place says those events again, in the same order. Before anything is appended the brake is
//! asked: a batch that is too much poison is left in the input, and so is all behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::codec::Registry;

use crate::admit::classify::{AdmitCounts, AdmitOutput, Classifier, InputRecord, SourcePartition};
use crate::admit::poison_breaker::{BatchSample, PoisonBreaker};
use crate::port::{
    Appender, Change, Committed, Isolation, Log, LogError, Member, MemberSpec, ReadLimit,
    ReaderSlot, Wake,
};
use crate::record::{Millis, Offset, Outgoing, Record, TopicPartition};
use crate::telemetry;
use crate::topology::Topology;
use crate::turn::{EngineError, TurnOutcome, repeat};

/// What a turn takes of a partition at most: enough to make an append cheap, little enough that
/// what waits behind it waits for some milliseconds only.
const TAKE: ReadLimit = ReadLimit { records: 2_048, bytes: 2 << 20 };

/// Bytes taken in one turn over all partitions, after which the rest waits for the next turn.
const TURN_BYTES: usize = 8 << 20;

/// Which input a loop reads; each has a thread of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmitInput {
    /// `in`.
    Main,
    /// `in.urgent`.
    Urgent,
}

impl AdmitInput {
    /// Its name in metrics and in the group.
    pub fn name(self) -> &'static str {
        match self {
            Self::Main => "in",
            Self::Urgent => "urgent",
        }
    }
}

/// What an ADMIT loop is told.
#[derive(Clone, Debug)]
pub struct AdmitConfig {
    /// The topics.
    pub topology: Topology,
    /// Which input.
    pub source: AdmitInput,
    /// A name for this process, stable over restarts and unlike any other's.
    pub instance: String,
    /// What the settings in force hash to; travels with every event as its verdict.
    pub settings_hash: u64,
    /// Whom to ask for schemas, if there is somebody.
    pub registry: Option<Arc<dyn Registry>>,
    /// What stops it before too much poison; one per loop, kept while the loop is made anew.
    pub breaker: PoisonBreaker,
}

/// A partition being read.
struct InputSlot {
    at: TopicPartition,
    /// `topic/partition/`, the beginning of every position in it.
    name: String,
    slot: ReaderSlot,
}

/// What one turn took.
#[derive(Default)]
struct AdmitBatch {
    taken: usize,
    /// Where each partition goes on.
    offsets: Vec<(TopicPartition, Committed)>,
    /// What the brake counts.
    counts: AdmitCounts,
    counted: u64,
    newest: Millis,
    /// What it doesn't.
    exempt: AdmitCounts,
}

impl AdmitBatch {
    /// Where to note what becomes of a record.
    fn counts_of(&mut self, record: &Record, counted_from: Offset) -> &mut AdmitCounts {
        if record.offset < counted_from {
            return &mut self.exempt;
        }
        self.counted += 1;
        self.newest = self.newest.max(record.timestamp);
        &mut self.counts
    }

    fn sample(&self) -> BatchSample<'_> {
        BatchSample { newest: self.newest, taken: self.counted, rejected: &self.counts.rejected }
    }
}

/// ADMIT's loop: `turn` it until told to stop, then drop it.
pub struct Admit {
    source: AdmitInput,
    group: String,
    log: Arc<dyn Log>,
    classifier: Classifier,
    member: Box<dyn Member>,
    appender: Box<dyn Appender>,
    inputs: BTreeMap<TopicPartition, InputSlot>,
    breaker: PoisonBreaker,
    /// Ours, and not read while the brake is on.
    paused: BTreeSet<TopicPartition>,
    /// Whether the group has said which partitions are ours.
    joined: bool,
    /// Which partition is taken from first, so that none is always last.
    first: usize,
    /// Kept for their capacity.
    taken: Vec<Record>,
    outgoing: Vec<Outgoing>,
}

impl Admit {
    /// Joins the group; the first turns take up its partitions.
    pub fn new(config: AdmitConfig, log: &Arc<dyn Log>) -> Result<Self, EngineError> {
        let starting = |error| EngineError::of_log("starting ADMIT", error);
        let topology = config.topology;
        let input = match config.source {
            AdmitInput::Main => topology.input(),
            AdmitInput::Urgent => topology.input_urgent(),
        };
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
                catalogue: Catalogue::builtin(),
                verdict: config.settings_hash.to_be_bytes(),
                registry: config.registry,
            },
            inputs: BTreeMap::new(),
            breaker: config.breaker,
            paused: BTreeSet::new(),
            joined: false,
            first: 0,
            taken: Vec::new(),
            outgoing: Vec::new(),
        })
    }

    /// Takes what is there, or waits for it for at most `wait`, and admits it. While the brake is
    /// on it keeps its place in the group and waits.
    pub fn turn(&mut self, wait: Duration) -> Result<TurnOutcome, EngineError> {
        self.follow_assignments()?;
        if self.breaker.stopped().is_some() {
            self.pause();
            return self.idle(wait);
        }
        self.unpause().map_err(|error| EngineError::of_log("going on after a stop", error))?;
        self.outgoing.clear();
        let batch = self.take()?;
        if batch.taken == 0 {
            return self.idle(wait);
        }
        if let Err(stopped) = self.breaker.count(batch.sample()) {
            telemetry::admit_stopped(self.source.name(), &stopped);
            self.pause();
            return Ok(TurnOutcome { joined: self.joined, ..TurnOutcome::default() });
        }
        let written = self.outgoing.len();
        repeat(|| self.appender.append(&self.outgoing))
            .map_err(|error| EngineError::of_log("writing to the lanes", error))?;
        repeat(|| self.member.commit(&batch.offsets))
            .map_err(|error| EngineError::of_log("committing offsets of the input", error))?;
        telemetry::admit_records(self.source.name(), batch.taken as u64);
        batch.counts.report();
        batch.exempt.report();
        Ok(TurnOutcome { taken: batch.taken, written, restoring: false, joined: self.joined })
    }

    fn idle(&mut self, wait: Duration) -> Result<TurnOutcome, EngineError> {
        self.member
            .wait(wait)
            .map_err(|error| EngineError::of_log("waiting for records", error))?;
        Ok(TurnOutcome { joined: self.joined, ..TurnOutcome::default() })
    }

    /// Reads nothing more: what was taken and not committed is read again from there.
    fn pause(&mut self) {
        for (at, input) in std::mem::take(&mut self.inputs) {
            self.member.remove(input.slot);
            self.paused.insert(at);
        }
    }

    /// Takes up what was parked. Once resumed, what stands in the input by now is exempt; who has
    /// no partitions yet keeps that for when it has.
    fn unpause(&mut self) -> Result<(), LogError> {
        if self.breaker.is_resumed() && !(self.paused.is_empty() && self.inputs.is_empty()) {
            let ours = self.paused.iter().chain(self.inputs.keys());
            let end = |at: &TopicPartition| {
                let bounds = repeat(|| self.log.bounds(at, Isolation::Uncommitted))?;
                Ok((at.clone(), bounds.end))
            };
            self.breaker.exempt(ours.map(end).collect::<Result<_, LogError>>()?);
            telemetry::admit_resumed(self.source.name());
        }
        if !self.paused.is_empty() {
            let paused: Vec<TopicPartition> = self.paused.iter().cloned().collect();
            self.assign(&paused)?;
            self.paused.clear();
        }
        Ok(())
    }

    /// Ends a turn's wait from another thread.
    pub fn waker(&self) -> Arc<dyn Wake> {
        self.member.waker()
    }

    /// Takes from each partition and judges.
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
            let Some(last) = self.taken.last() else { continue };
            let committed = Committed { offset: last.offset.next(), metadata: String::new() };
            batch.offsets.push((input.at.clone(), committed));
            let from = SourcePartition { at: &input.at, name: &input.name };
            let counted_from = self.breaker.counted_from(&input.at);
            for record in &self.taken {
                bytes += record.size();
                let counts = batch.counts_of(record, counted_from);
                let mut output = AdmitOutput { records: &mut self.outgoing, counts };
                self.classifier.classify(InputRecord { from: &from, record }, &mut output);
            }
            batch.taken += self.taken.len();
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
                // Between turns nothing is uncommitted, so both are answered by letting go.
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
        self.paused.retain(|at| !of.contains(at));
        for input in of.iter().filter_map(|at| self.inputs.remove(at)) {
            self.member.remove(input.slot);
        }
    }

    fn assign(&mut self, of: &[TopicPartition]) -> Result<(), LogError> {
        let committed = repeat(|| self.log.committed(&self.group, of))?;
        for (at, committed) in of.iter().zip(committed) {
            let start = repeat(|| self.log.bounds(at, Isolation::Committed))?.start;
            let from = committed.map_or(start, |committed| committed.offset);
            if from < start {
                telemetry::records_lost("input", at, start.0 - from.0);
            }
            let slot = repeat(|| self.member.add(at, from.max(start)))?;
            let name = format!("{at}/");
            self.inputs.insert(at.clone(), InputSlot { at: at.clone(), name, slot });
        }
        Ok(())
    }
}

/// Takes what is ready; records that left the log before they were read are announced.
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
