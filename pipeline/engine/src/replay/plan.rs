//! Plans a replay: which transactions to execute, and from which state.
//!
//! ```text
//! order   ├──── state ────┼──────────── span ────────────┤
//!       start           from                            to
//! ```
//!
//! The state of a task is known at the start of the log, where it is empty, and at each checkpoint.
//! Transactions between the nearest of these and the span are executed too. `order` alone shows
//! what prevents a replay: transactions of another build, or records that retention has removed.
//! Such a span is refused with a span that can be replayed.

use std::collections::{BTreeMap, BTreeSet};

use tidewire_schemas::time::format_rfc3339;

use crate::derive::AuditMode;
use crate::derive::order::OrderRecord;
use crate::port::Isolation;
use crate::record::{Millis, Offset, Record, TopicPartition};
use crate::replay::cursor::{PartitionCursor, bounds};
use crate::replay::task_spec::TaskSpec;
use crate::replay::{ReadOnlyLog, ReplayError};
use crate::topology::Lane;
use crate::turn::repeat;
use crate::verdict::TopicId;

/// A place in a task's `order`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// This offset.
    Offset(Offset),
    /// The first transaction at or after this append time.
    Time(Millis),
}

/// The requested span.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplayRange {
    /// The first transaction; `None`: the first with a known state.
    pub from: Option<Point>,
    /// The transaction after the last; `None`: the end of the log.
    pub to: Option<Point>,
}

/// The transactions to execute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayPlan {
    /// The checkpoint to start from, by its offset in `order`; `None`: the start of the log.
    pub checkpoint: Option<Offset>,
    /// The first transaction of the span.
    pub from: Offset,
    /// The transaction after its last.
    pub to: Offset,
    /// Transactions to execute, those before the span included.
    pub transactions: u64,
    /// The append time of the first transaction of the span, unless it is the first of the log.
    pub(super) since: Option<Millis>,
}

impl ReplayPlan {
    /// The first offset of `order` to execute.
    pub fn start(&self) -> Offset {
        self.checkpoint.unwrap_or(Offset(0))
    }
}

/// What decides the results of a transaction, besides its records.
#[derive(Clone, PartialEq, Eq)]
struct BuildIdentity {
    build: String,
    settings_hash: u64,
    catalogue_hash: u64,
}

/// The hash of settings without the mode of the audit, which a replay takes from each transaction.
fn without_audit(settings_hash: u64) -> u64 {
    AuditMode::On.in_hash(settings_hash)
}

impl BuildIdentity {
    fn of(order: &OrderRecord) -> Self {
        let OrderRecord { build, settings_hash, catalogue_hash, .. } = order;
        let (settings_hash, catalogue_hash) = (without_audit(*settings_hash), *catalogue_hash);
        Self { build: build.clone(), settings_hash, catalogue_hash }
    }

    fn current(task: &TaskSpec) -> Self {
        let build = task.build.clone();
        let settings_hash = without_audit(task.settings_hash);
        let catalogue_hash = task.catalogue.hash();
        Self { build, settings_hash, catalogue_hash }
    }

    /// Its name: the build, and the hashes that differ from `other`.
    fn name(&self, other: &Self) -> String {
        let mut name = format!("build {}", self.build);
        if self.settings_hash != other.settings_hash {
            name += &format!(", settings {:016x}", self.settings_hash);
        }
        if self.catalogue_hash != other.catalogue_hash {
            name += &format!(", catalogue {:016x}", self.catalogue_hash);
        }
        name
    }
}

impl TaskSpec {
    /// Plans a replay. `checkpoints` are the offsets in `order` of the existing checkpoints.
    pub fn plan(
        &self,
        log: &ReadOnlyLog,
        checkpoints: &BTreeSet<Offset>,
        range: ReplayRange,
    ) -> Result<ReplayPlan, ReplayError> {
        plan(log, self, checkpoints, range)
    }
}

fn plan(
    log: &ReadOnlyLog,
    task: &TaskSpec,
    checkpoints: &BTreeSet<Offset>,
    range: ReplayRange,
) -> Result<ReplayPlan, ReplayError> {
    let at = task.order();
    let stable = repeat(|| log.bounds(&at, Isolation::Committed))?;
    let place = |point| resolve(log, &at, point, stable.end);
    let from = range.from.map(place).transpose()?;
    let to = range.to.map(place).transpose()?.unwrap_or(stable.end);
    // The state is known at the start of the log and at each checkpoint.
    let mut starts: BTreeSet<Offset> =
        checkpoints.iter().copied().filter(|c| *c >= stable.start && *c <= to).collect();
    let at_start = (stable.start == Offset(0)).then_some(Offset(0));
    starts.extend(at_start);
    let nearest = from.and_then(|from| starts.range(..=from).next_back().copied());
    let suffixes = starts.iter().copied().chain(from).collect();
    let range = SurveyRange { start: nearest.unwrap_or(stable.start), end: to, suffixes };
    let survey = Survey::read(log, task, range)?;
    let start = match from {
        Some(from) if from > to => {
            let text = format!("the span ends at {at}/{}, before its start at {}", to.0, from.0);
            return Err(ReplayError::Refused(text));
        }
        Some(_) => nearest,
        None => starts.range(survey.readable_from(stable.start)..).next().copied(),
    };
    let Some(start) = start else {
        return Err(ReplayError::Refused(no_known_state(&at, from, &survey.possible(&starts))));
    };
    survey.check(start, &starts)?;
    let from = from.unwrap_or(start);
    let first = survey.suffixes[&from].first.filter(|_| from > Offset(0));
    Ok(ReplayPlan {
        checkpoint: (at_start != Some(start)).then_some(start),
        from,
        to,
        transactions: survey.suffixes[&start].transactions,
        since: first.map(|(_, time)| time),
    })
}

fn resolve(
    log: &ReadOnlyLog,
    at: &TopicPartition,
    point: Point,
    end: Offset,
) -> Result<Offset, ReplayError> {
    match point {
        Point::Offset(offset) if offset > end => Err(ReplayError::Refused(format!(
            "{at} ends at {}; it has no offset {}",
            end.0, offset.0
        ))),
        Point::Offset(offset) => Ok(offset),
        Point::Time(time) => Ok(repeat(|| log.offset_at(at, time))?.unwrap_or(end).min(end)),
    }
}

fn no_known_state(at: &TopicPartition, from: Option<Offset>, possible: &str) -> String {
    let from = from.map_or(String::new(), |from| format!(" at or before {at}/{}", from.0));
    format!("no state of this task is known{from}: {possible}")
}

/// The transactions from an offset on.
#[derive(Default)]
struct OrderSuffix {
    transactions: u64,
    /// The first, and its append time.
    first: Option<(Offset, Millis)>,
}

/// The offsets of `order` to read.
struct SurveyRange {
    start: Offset,
    end: Offset,
    /// Offsets from which transactions are counted.
    suffixes: BTreeSet<Offset>,
}

/// Why records of a lane are gone.
#[derive(Clone, Copy, Debug)]
enum Gone {
    /// Retention has removed those before this start.
    Expired(Offset),
    /// The topic was created again.
    CreatedAgain,
}

/// A lane as it is now.
struct LaneNow {
    at: TopicPartition,
    start: Offset,
    id: TopicId,
}

/// What `order` contains in a range, read once.
struct Survey {
    at: TopicPartition,
    current: BuildIdentity,
    /// Transactions from some offsets on.
    suffixes: BTreeMap<Offset, OrderSuffix>,
    /// Transactions at which the build changes: the offset, the build before, the new build.
    changes: Vec<(Offset, Option<BuildIdentity>, BuildIdentity)>,
    /// The last transaction of another build.
    foreign: Option<Offset>,
    /// The last transaction that read records which are gone, and of which lane.
    expired: Option<(Offset, TopicPartition, Gone)>,
}

impl Survey {
    fn read(log: &ReadOnlyLog, task: &TaskSpec, range: SurveyRange) -> Result<Self, ReplayError> {
        let at = task.order();
        let topics = repeat(|| log.topics())?;
        let mut lanes = Vec::new();
        for lane in Lane::ALL {
            let at = TopicPartition::new(task.topology.lane(lane), task.partition);
            let start = bounds(log, &at)?.start;
            let id = topics.iter().find(|topic| topic.spec.topic == at.topic).map(TopicId::of);
            lanes.push(LaneNow { at, start, id: id.unwrap_or_default() });
        }
        let mut survey = Self {
            current: BuildIdentity::current(task),
            suffixes: (range.suffixes.into_iter())
                .map(|suffix| (suffix, OrderSuffix::default()))
                .collect(),
            changes: Vec::new(),
            foreign: None,
            expired: None,
            at,
        };
        let mut cursor = PartitionCursor::open(log, &survey.at, range.start)?;
        let mut before = None;
        while let Some(record) = cursor.next()?.filter(|record| record.offset < range.end) {
            before = Some(survey.look(&record, before, &lanes)?);
        }
        Ok(survey)
    }

    fn look(
        &mut self,
        record: &Record,
        before: Option<BuildIdentity>,
        lanes: &[LaneNow],
    ) -> Result<BuildIdentity, ReplayError> {
        let order = decode(&self.at, record)?;
        let identity = BuildIdentity::of(&order);
        for suffix in self.suffixes.range_mut(..=record.offset).map(|(_, suffix)| suffix) {
            suffix.transactions += 1;
            suffix.first.get_or_insert((record.offset, record.timestamp));
        }
        if before.as_ref().map_or(identity != self.current, |before| *before != identity) {
            self.changes.push((record.offset, before, identity.clone()));
        }
        if identity != self.current {
            self.foreign = Some(record.offset);
        }
        for lane in Lane::ALL {
            let LaneNow { at, start, id } = &lanes[lane.index()];
            let Some(span) = order.spans[lane.index()] else { continue };
            if order.lane_ids[lane.index()] != *id {
                self.expired = Some((record.offset, at.clone(), Gone::CreatedAgain));
            } else if span.first < *start {
                self.expired = Some((record.offset, at.clone(), Gone::Expired(*start)));
            }
        }
        Ok(identity)
    }

    /// The offset from which on the lanes are complete.
    fn readable_from(&self, start: Offset) -> Offset {
        self.expired.as_ref().map_or(start, |(offset, ..)| offset.next())
    }

    /// Says what this build can replay.
    fn possible(&self, starts: &BTreeSet<Offset>) -> String {
        let behind = |offset: Option<Offset>| offset.map_or(Offset(0), Offset::next);
        let expired = self.expired.as_ref().map(|(offset, ..)| *offset);
        match starts.range(behind(self.foreign).max(behind(expired))..).next() {
            Some(start) => format!("--from {} or later can be verified", start.0),
            None => "nothing can be verified before the next checkpoint; a running task keeps \
                     checkpoints in its data folder at intervals"
                .to_owned(),
        }
    }

    /// Fails if the transactions from `start` on can't be executed.
    fn check(&self, start: Offset, starts: &BTreeSet<Offset>) -> Result<(), ReplayError> {
        let at = &self.at;
        let possible = self.possible(starts);
        if self.foreign.is_some_and(|offset| offset >= start) {
            return Err(ReplayError::Refused(self.name_builds(start, &possible)));
        }
        match &self.expired {
            Some((offset, lane, Gone::Expired(start_of_lane))) if *offset >= start => {
                Err(ReplayError::Refused(format!(
                    "{lane} starts at {}: what {at}/{} read has been removed by retention; \
                     {possible}",
                    start_of_lane.0, offset.0
                )))
            }
            Some((offset, lane, Gone::CreatedAgain)) if *offset >= start => {
                Err(ReplayError::Refused(format!(
                    "{} was created again: what {at}/{} read is gone; {possible}",
                    lane.topic, offset.0
                )))
            }
            _ => Ok(()),
        }
    }

    /// Says which builds wrote the transactions from `start` on.
    fn name_builds(&self, start: Offset, possible: &str) -> String {
        let at = &self.at;
        let first = self.suffixes[&start].first.map_or(start, |(first, _)| first);
        let within = self.changes.iter().find(|(offset, ..)| *offset > first);
        match within {
            Some((offset, Some(before), identity)) => {
                let ours = format!("--to {} can be verified", offset.0);
                format!(
                    "{at} has two builds: {} up to {}, {} from there on; each can verify a span \
                     within its part; by this build ({}) {}",
                    before.name(identity),
                    offset.0,
                    identity.name(before),
                    self.current.build,
                    if *before == self.current { &ours } else { possible }
                )
            }
            _ => {
                let identity = self.changes.iter().rev().find(|(offset, ..)| *offset <= first);
                let identity = identity.map_or(&self.current, |(.., identity)| identity);
                format!(
                    "{at} is of {} from {} on, but this is {}; verify it with that one; {possible}",
                    identity.name(&self.current),
                    first.0,
                    self.current.name(identity)
                )
            }
        }
    }
}

/// Reads a record of `order`.
pub(super) fn decode(at: &TopicPartition, record: &Record) -> Result<OrderRecord, ReplayError> {
    OrderRecord::decode(record.body.value().unwrap_or_default()).map_err(|error| {
        let mut time = String::new();
        format_rfc3339(record.timestamp.0, &mut time);
        ReplayError::Refused(format!("{at}/{} of {time}: {error}", record.offset.0))
    })
}
