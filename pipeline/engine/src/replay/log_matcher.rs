//! Finds the outputs and changes of a replayed task in the log.
//!
//! Other tasks write to the same partitions of the outputs, so a task's outputs are a subsequence
//! of a partition: a record that matches is passed, with everything before it. The changelog is the
//! task's alone, but compaction removes records: what is left is a subsequence of the replayed
//! changes.
//!
//! Outputs to compacted topics have both properties, so only their hash in `order` is compared.

use std::collections::BTreeMap;

use crate::port::{Cleanup, LogError};
use crate::record::{Millis, Offset, Outgoing, Record, Topic, TopicPartition};
use crate::replay::ReadOnlyLog;
use crate::replay::cursor::{PartitionCursor, bounds};
use crate::replay::divergence::Nearest;
use crate::topology::Topology;
use crate::turn::repeat;

/// The most milliseconds between append times of one transaction in different partitions: the
/// longest open transaction, and the skew of brokers' clocks.
const SKEW_MS_MAX: i64 = 60_000;

/// How an output compares with the log.
pub(super) enum OutputMatch {
    /// It is in its topic.
    Present,
    /// It is so old that retention may have removed it.
    Expired,
    /// Its topic is compacted.
    Compacted,
    /// It is not in its topic.
    Missing(Option<Nearest>),
}

/// Reads the partitions of the outputs along with the replay.
pub(super) struct LogMatcher {
    log: ReadOnlyLog,
    /// Topics without compaction.
    whole: Vec<Topic>,
    /// The append time at which the span begins; `None`: the start of the log.
    since: Option<Millis>,
    partitions: BTreeMap<TopicPartition, PartitionMatcher>,
}

struct PartitionMatcher {
    cursor: PartitionCursor,
    /// The append time up to which retention may have removed records.
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
        self.partitions.get_mut(&to).expect("it was just inserted").find(output, at)
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

/// Compares a changelog, as compaction has left it, with the replayed changes.
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

    /// Moves past the remaining records of a transaction's changes.
    pub(super) fn pass(&mut self, changes: &[Outgoing]) -> Result<(), LogError> {
        for change in changes {
            if self.left.peek()?.is_some_and(|record| record.body == change.body) {
                self.left.next()?;
            }
        }
        Ok(())
    }

    /// A remaining record that no change matched: one appended well before `at`, or any if `None`.
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
