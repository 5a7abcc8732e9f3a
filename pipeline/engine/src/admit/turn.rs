//! ADMIT's loop: take, judge, append, commit.
//!
//! The order is the promise: offsets are committed after the log has answered for everything made
//! of the records before them. A failure in between leaves them uncommitted; the loop that takes
//! its place says those events again, in the same order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::codec::Registry;

use crate::admit::judge::{Counts, Judge, Source as From};
use crate::port::{
    Appender, Change, Committed, Isolation, Limit, Log, LogError, Member, MemberSpec, Slot, Wake,
};
use crate::record::{Offset, Outgoing, Record, TopicPartition};
use crate::telemetry;
use crate::topology::Topology;
use crate::turn::{EngineError, Turned, repeat};

/// What a turn takes of a partition at most: enough to make an append cheap, little enough that
/// what waits behind it waits for some milliseconds only.
const TAKE: Limit = Limit { records: 2_048, bytes: 2 << 20 };

/// Bytes taken in one turn over all partitions, after which the rest waits for the next turn.
const TURN_BYTES: usize = 8 << 20;

/// Which input a loop reads; each has a thread of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `in`.
    Input,
    /// `in.urgent`.
    Urgent,
}

impl Source {
    /// Its name in metrics and in the group.
    pub fn name(self) -> &'static str {
        match self {
            Self::Input => "in",
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
    pub source: Source,
    /// A name for this process, stable over restarts and unlike any other's.
    pub instance: String,
    /// What the settings in force hash to; travels with every event as its verdict.
    pub settings_hash: u64,
    /// Whom to ask for schemas, if there is somebody.
    pub registry: Option<Arc<dyn Registry>>,
}

/// A partition being read.
struct Reading {
    at: TopicPartition,
    /// `topic/partition/`, the beginning of every position in it.
    name: String,
    slot: Slot,
}

/// ADMIT's loop: `turn` it until told to stop, then drop it.
pub struct Admit {
    source: Source,
    group: String,
    log: Arc<dyn Log>,
    judge: Judge,
    member: Box<dyn Member>,
    appender: Box<dyn Appender>,
    readings: BTreeMap<TopicPartition, Reading>,
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
            Source::Input => topology.input(),
            Source::Urgent => topology.input_urgent(),
        };
        let group = topology.admit_group();
        let spec = MemberSpec {
            group: group.clone(),
            topics: vec![input.clone()],
            instance: format!("{}-{}", config.instance, config.source.name()),
        };
        Ok(Self {
            source: config.source,
            group,
            log: log.clone(),
            member: repeat(|| log.member(&spec)).map_err(starting)?,
            appender: repeat(|| log.appender()).map_err(starting)?,
            judge: Judge {
                topology,
                catalogue: Catalogue::builtin(),
                verdict: config.settings_hash.to_be_bytes(),
                registry: config.registry,
            },
            readings: BTreeMap::new(),
            joined: false,
            first: 0,
            taken: Vec::new(),
            outgoing: Vec::new(),
        })
    }

    /// Takes what is there, or waits for it for at most `wait`, and admits it.
    pub fn turn(&mut self, wait: Duration) -> Result<Turned, EngineError> {
        self.follow_assignments()?;
        self.outgoing.clear();
        let mut counts = Counts::default();
        let (taken, offsets) = self.take(&mut counts)?;
        if taken == 0 {
            self.member
                .wait(wait)
                .map_err(|error| EngineError::of_log("waiting for records", error))?;
            return Ok(Turned { joined: self.joined, ..Turned::default() });
        }
        let written = self.outgoing.len();
        repeat(|| self.appender.append(&self.outgoing))
            .map_err(|error| EngineError::of_log("writing to the lanes", error))?;
        repeat(|| self.member.commit(&offsets))
            .map_err(|error| EngineError::of_log("committing offsets of the input", error))?;
        telemetry::admit_records(self.source.name(), taken as u64);
        counts.report();
        Ok(Turned { taken, written, restoring: false, joined: self.joined })
    }

    /// Ends a turn's wait from another thread.
    pub fn waker(&self) -> Arc<dyn Wake> {
        self.member.waker()
    }

    /// Takes from each partition and judges; returns how many and where each partition goes on.
    fn take(
        &mut self,
        counts: &mut Counts,
    ) -> Result<(usize, Vec<(TopicPartition, Committed)>), EngineError> {
        let (mut total, mut bytes) = (0, 0);
        let mut offsets = Vec::new();
        self.first = (self.first + 1) % self.readings.len().max(1);
        for reading in self.readings.values().cycle().skip(self.first).take(self.readings.len()) {
            if bytes >= TURN_BYTES {
                break;
            }
            self.taken.clear();
            take_from(&mut *self.member, reading, &mut self.taken)
                .map_err(|error| EngineError::of_log("reading the input", error))?;
            let Some(last) = self.taken.last() else { continue };
            let committed = Committed { offset: last.offset.next(), metadata: String::new() };
            offsets.push((reading.at.clone(), committed));
            let from = From { at: &reading.at, name: &reading.name };
            for record in &self.taken {
                bytes += record.size();
                self.judge.judge(&from, record, &mut self.outgoing, counts);
            }
            total += self.taken.len();
        }
        Ok((total, offsets))
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
                Change::Revoked(of) => self.let_go(&of),
                Change::Lost(of) => {
                    self.joined = false;
                    self.let_go(&of);
                }
            }
        }
        Ok(())
    }

    fn let_go(&mut self, of: &[TopicPartition]) {
        for reading in of.iter().filter_map(|at| self.readings.remove(at)) {
            self.member.remove(reading.slot);
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
            self.readings.insert(at.clone(), Reading { at: at.clone(), name, slot });
        }
        Ok(())
    }
}

/// Takes what is ready; records that left the log before they were read are announced.
fn take_from(
    member: &mut dyn Member,
    reading: &Reading,
    into: &mut Vec<Record>,
) -> Result<(), LogError> {
    match repeat(|| member.take(reading.slot, TAKE, into)) {
        Ok(_) => Ok(()),
        Err(LogError::OutOfRange { asked, start, .. }) if asked < start => {
            telemetry::records_lost("input", &reading.at, start - asked);
            member.seek(reading.slot, Offset(start))
        }
        Err(error) => Err(error),
    }
}
