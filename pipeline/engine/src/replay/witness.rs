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
use crate::replay::ReadOnly;
use crate::replay::cursor::{Cursor, bounds};
use crate::replay::difference::Nearest;
use crate::topology::Topology;
use crate::turn::repeat;

/// Milliseconds between the append times of records of one transaction in different partitions, at
/// most: the longest a transaction may stay open, and clocks of brokers that are apart.
const APART_MS: i64 = 60_000;

/// What became of an output.
pub(super) enum Found {
    /// It stands in its topic.
    There,
    /// It was as old as what retention has taken.
    Gone,
    /// Its topic keeps the latest per key only.
    Compacted,
    /// It is not there.
    Not(Option<Nearest>),
}

/// The topics of the outputs, read along.
pub(super) struct Witness {
    log: ReadOnly,
    /// Topics that keep every record for its time.
    whole: Vec<Topic>,
    /// When the span begins; none: with the log.
    since: Option<Millis>,
    places: BTreeMap<TopicPartition, Place>,
}

struct Place {
    cursor: Cursor,
    /// Up to when retention may have taken something.
    gone_until: Option<Millis>,
}

impl Witness {
    pub(super) fn new(log: &ReadOnly, topology: &Topology, since: Option<Millis>) -> Self {
        let specs = topology.specs().into_iter();
        let whole = specs.filter(|spec| matches!(spec.cleanup, Cleanup::Delete { .. }));
        let whole = whole.map(|spec| spec.topic).collect();
        Self { log: log.clone(), whole, since, places: BTreeMap::new() }
    }

    /// Looks for an output of a transaction whose `order` record was appended at `at`.
    pub(super) fn find(&mut self, output: &Outgoing, at: Millis) -> Result<Found, LogError> {
        if !self.whole.contains(&output.topic) {
            return Ok(Found::Compacted);
        }
        let to = TopicPartition::new(&output.topic, output.partition);
        if !self.places.contains_key(&to) {
            let place = Place::open(&self.log, &to, self.since)?;
            self.places.insert(to.clone(), place);
        }
        self.places.get_mut(&to).expect("it was just put there").find(output, at)
    }
}

impl Place {
    fn open(log: &ReadOnly, at: &TopicPartition, since: Option<Millis>) -> Result<Self, LogError> {
        let bounds = bounds(log, at)?;
        let from = match since {
            None => bounds.start,
            Some(since) => {
                let time = Millis(since.0.saturating_sub(APART_MS));
                repeat(|| log.offset_at(at, time))?.unwrap_or(bounds.end).max(bounds.start)
            }
        };
        let mut cursor = Cursor::open(log, at, from)?;
        let mut gone_until = None;
        if bounds.start > Offset(0) && from == bounds.start {
            let first = cursor.peek()?.map_or(i64::MAX, |record| record.timestamp.0);
            gone_until = Some(Millis(first.saturating_add(APART_MS)));
        }
        Ok(Self { cursor, gone_until })
    }

    fn find(&mut self, output: &Outgoing, at: Millis) -> Result<Found, LogError> {
        if self.gone_until.is_some_and(|until| at <= until) {
            return Ok(Found::Gone);
        }
        let mut nearest = None;
        while let Some(record) = self.cursor.peek()? {
            if record.body == output.body {
                self.cursor.next()?;
                return Ok(Found::There);
            }
            if record.timestamp.0 > at.0.saturating_add(APART_MS) {
                break;
            }
            nearest = nearer(nearest, alike(record, output));
            self.cursor.next()?;
        }
        Ok(Found::Not(nearest))
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
pub(super) struct Changelog {
    left: Cursor,
}

impl Changelog {
    pub(super) fn open(
        log: &ReadOnly,
        at: &TopicPartition,
        from: Offset,
    ) -> Result<Self, LogError> {
        let from = from.max(bounds(log, at)?.start);
        Ok(Self { left: Cursor::open(log, at, from)? })
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
    pub(super) fn stuck(
        &mut self,
        at: Option<Millis>,
    ) -> Result<Option<(TopicPartition, Offset)>, LogError> {
        let place = self.left.at.clone();
        let old = |record: &&Record| {
            at.is_none_or(|at| record.timestamp.0.saturating_add(APART_MS) < at.0)
        };
        Ok(self.left.peek()?.filter(old).map(|record| (place, record.offset)))
    }
}
