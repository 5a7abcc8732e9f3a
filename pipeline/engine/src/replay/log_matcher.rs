//! What stands in the log of what a task wrote: each output that comes out again is looked for in
//! its topic, and each record of the changelog among those that come out again.
//!
//! Other tasks write to the same partitions of the outputs, so a task's records are part of what
//! stands there, in the task's order: a record that fits is passed, and so is everything before it.
//! The changelog is the task's alone, but compaction takes records out: what is left is part of
//! what came out.
//!
//! Outputs to compacted topics have both, and are held to the hash in `order` alone.

use std::collections::BTreeMap;

use crate::port::{Cleanup, LogError};
use crate::record::{Millis, Offset, Outgoing, Record, Topic, TopicPartition};
use crate::replay::ReadOnlyLog;
use crate::replay::cursor::{PartitionCursor, bounds};
use crate::replay::divergence::Nearest;
use crate::topology::Topology;
use crate::turn::repeat;

/// Milliseconds between the append times of records of one transaction in different partitions, at
/// most: the longest a transaction may stay open, and clocks of brokers that are apart.
const SKEW_MS_MAX: i64 = 60_000;

/// What became of an output.
pub(super) enum OutputMatch {
    /// It stands in its topic.
    Present,
    /// It was as old as what retention has taken.
    Expired,
    /// Its topic keeps the latest per key only.
    Compacted,
    /// It is not there.
    Missing(Option<Nearest>),
}

/// The topics of the outputs, read along.
pub(super) struct LogMatcher {
    log: ReadOnlyLog,
    /// Topics that keep every record for its time.
    whole: Vec<Topic>,
    /// When the span begins; none: with the log.
    since: Option<Millis>,
    partitions: BTreeMap<TopicPartition, PartitionMatcher>,
}

struct PartitionMatcher {
    cursor: PartitionCursor,
    /// Up to when retention may have taken something.
    expired_until: Option<Millis>,
}

impl LogMatcher {
    pub(super) fn new(log: &ReadOnlyLog, topology: &Topology, since: Option<Millis>) -> Self {
        let specs = topology.specs().into_iter();
        let whole = specs.filter(|spec| matches!(spec.cleanup, Cleanup::Delete { .. }));
        let whole = whole.map(|spec| spec.topic).collect();
        Self { log: log.clone(), whole, since, partitions: BTreeMap::new() }
    }

    /// Looks for an output of a transaction whose `order` record was appended at `at`.
    pub(super) fn find(&mut self, output: &Outgoing, at: Millis) -> Result<OutputMatch, LogError> {
        if !self.whole.contains(&output.topic) {
            return Ok(OutputMatch::Compacted);
        }
        let to = TopicPartition::new(&output.topic, output.partition);
        if !self.partitions.contains_key(&to) {
            let partition = PartitionMatcher::open(&self.log, &to, self.since)?;
            self.partitions.insert(to.clone(), partition);
        }
        self.partitions.get_mut(&to).expect("it was just put there").find(output, at)
    }
}

impl PartitionMatcher {
    fn open(
        log: &ReadOnlyLog,
        at: &TopicPartition,
        since: Option<Millis>,
    ) -> Result<Self, LogError> {
        let bounds = bounds(log, at)?;
        let from = match since {
            None => bounds.start,
            Some(since) => {
                let time = Millis(since.0.saturating_sub(SKEW_MS_MAX));
                repeat(|| log.offset_at(at, time))?.unwrap_or(bounds.end).max(bounds.start)
            }
        };
        let mut cursor = PartitionCursor::open(log, at, from)?;
        let mut expired_until = None;
        if bounds.start > Offset(0) && from == bounds.start {
            let first = cursor.peek()?.map_or(i64::MAX, |record| record.timestamp.0);
            expired_until = Some(Millis(first.saturating_add(SKEW_MS_MAX)));
        }
        Ok(Self { cursor, expired_until })
    }

    fn find(&mut self, output: &Outgoing, at: Millis) -> Result<OutputMatch, LogError> {
        if self.expired_until.is_some_and(|until| at <= until) {
            return Ok(OutputMatch::Expired);
        }
        let mut nearest = None;
        while let Some(record) = self.cursor.peek()? {
            if record.body == output.body {
                self.cursor.next()?;
                return Ok(OutputMatch::Present);
            }
            if record.timestamp.0 > at.0.saturating_add(SKEW_MS_MAX) {
                break;
            }
            nearest = nearer(nearest, alike(record, output));
            self.cursor.next()?;
        }
        Ok(OutputMatch::Missing(nearest))
    }
}

/// How a record differs from an output that has the same key and length.
fn alike(record: &Record, output: &Outgoing) -> Option<Nearest> {
    let (one, other) = (record.body.as_bytes(), output.body.as_bytes());
    if one.len() != other.len() || record.body.key() != output.body.key() {
        return None;
    }
    let mut differing = one.iter().zip(other).enumerate().filter(|(_, (a, b))| a != b);
    let (first, _) = differing.next()?;
    Some(Nearest { offset: record.offset, bytes: 1 + differing.count(), first })
}

fn nearer(one: Option<Nearest>, other: Option<Nearest>) -> Option<Nearest> {
    one.into_iter().chain(other).min_by_key(|nearest| nearest.bytes)
}

/// What compaction has left of a changelog.
pub(super) struct ChangelogMatcher {
    left: PartitionCursor,
}

impl ChangelogMatcher {
    pub(super) fn open(
        log: &ReadOnlyLog,
        at: &TopicPartition,
        from: Offset,
    ) -> Result<Self, LogError> {
        let from = from.max(bounds(log, at)?.start);
        Ok(Self { left: PartitionCursor::open(log, at, from)? })
    }

    /// Passes what is left of a transaction's changes.
    pub(super) fn pass(&mut self, changes: &[Outgoing]) -> Result<(), LogError> {
        for change in changes {
            if self.left.peek()?.is_some_and(|record| record.body == change.body) {
                self.left.next()?;
            }
        }
        Ok(())
    }

    /// A record that should have been passed by now: by the transaction appended at `at`, if others
    /// follow; of all that is there if none does.
    pub(super) fn unmatched(
        &mut self,
        at: Option<Millis>,
    ) -> Result<Option<(TopicPartition, Offset)>, LogError> {
        let partition = self.left.at.clone();
        let old = |record: &&Record| {
            at.is_none_or(|at| record.timestamp.0.saturating_add(SKEW_MS_MAX) < at.0)
        };
        Ok(self.left.peek()?.filter(old).map(|record| (partition, record.offset)))
    }
}
