//! The poison breaker: stops ADMIT if too much of a minute's input is invalid.
//!
//! A faulty producer, or a faulty build, would otherwise turn the whole input into dead letters
//! within a second. Nothing of the batch that exceeds the limit is committed, so after a fix
//! processing continues as if nothing had happened.
//!
//! ```text
//! reading ─▶ a batch exceeds the limit ─▶ stopped ─▶ resumed ─▶ reading
//!                                            records in the input at that time are exempt
//! ```
//!
//! The minute is one of append times, never of a clock. A batch counts at its newest record; older
//! records of another partition count as of now, so that none escapes. A batch that is taken again
//! after a failure counts again, valid and invalid records alike.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidewire_schemas::envelope::Reason;

use crate::record::{Millis, Offset, TopicPartition};

/// The window over which the share is computed.
const WINDOW_MS: i64 = 60_000;

/// Batches within such an interval are counted together.
const BUCKET_MS: i64 = 1_000;

/// When ADMIT stops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PoisonLimit {
    /// The share of invalid records above which it stops; 1 means never.
    pub share: f64,
    /// It does not stop below so many records in a minute.
    pub min_records: u64,
}

impl PoisonLimit {
    /// No limit.
    pub const OFF: Self = Self { share: 1.0, min_records: 0 };

    fn is_exceeded(&self, taken: u64, rejected: u64) -> bool {
        taken >= self.min_records && rejected as f64 > self.share * taken as f64
    }
}

/// Rejected records of one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ReasonCount {
    reason: Reason,
    count: u64,
    /// Partition and offset of the newest of them.
    at: TopicPartition,
    offset: Offset,
}

/// Rejected records by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rejected(Vec<ReasonCount>);

impl Rejected {
    pub(super) fn add(&mut self, reason: Reason, at: &TopicPartition, offset: Offset) {
        self.merge(reason, 1, at, offset);
    }

    fn merge(&mut self, reason: Reason, count: u64, at: &TopicPartition, offset: Offset) {
        match self.0.iter_mut().find(|known| known.reason == reason) {
            Some(known) => {
                known.count += count;
                if known.at != *at {
                    known.at = at.clone();
                }
                known.offset = offset;
            }
            None => self.0.push(ReasonCount { reason, count, at: at.clone(), offset }),
        }
    }

    fn merge_all(&mut self, other: &Self) {
        for ReasonCount { reason, count, at, offset } in &other.0 {
            self.merge(*reason, *count, at, *offset);
        }
    }

    pub(super) fn counts(&self) -> impl Iterator<Item = (Reason, u64)> {
        self.0.iter().map(|known| (known.reason, known.count))
    }

    fn total(&self) -> u64 {
        self.counts().map(|(_, count)| count).sum()
    }
}

/// Why ADMIT is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoisonStop {
    /// Records of the minute, including the batch that exceeded the limit.
    pub taken: u64,
    /// How many of them are invalid.
    pub rejected: u64,
    /// The most frequent reason.
    pub reason: &'static str,
    /// The position of the newest record with it.
    pub example: String,
}

impl fmt::Display for PoisonStop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { taken, rejected, reason, example } = self;
        let share = *rejected as f64 * 100.0 / (*taken).max(1) as f64;
        let topic = example.split('/').next().unwrap_or_default();
        write!(
            f,
            "ADMIT stopped reading {topic}: {rejected} of {taken} records ({share:.0} %) of one \
             minute are invalid, most often {reason} (the newest is {example})"
        )
    }
}

/// The counted part of a batch; exempt records are not in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchSample<'a> {
    /// Its newest record's append time.
    pub(super) newest: Millis,
    pub(super) taken: u64,
    pub(super) rejected: &'a Rejected,
}

#[derive(Debug, Default)]
struct Bucket {
    number: i64,
    taken: u64,
    rejected: Rejected,
}

#[derive(Debug, Default)]
struct BreakerState {
    /// Oldest first, each number once.
    window: VecDeque<Bucket>,
    stopped: Option<PoisonStop>,
    /// Resumed, but the loop has not set the exempt offsets yet.
    resumed: bool,
    /// Records below these offsets are not counted.
    exempt: BTreeMap<TopicPartition, Offset>,
}

/// Shared by an ADMIT loop and the code that watches and resumes it. It outlives a rebuild of the
/// loop.
#[derive(Clone, Debug)]
pub struct PoisonBreaker {
    limit: PoisonLimit,
    state: Arc<Mutex<BreakerState>>,
}

impl PoisonBreaker {
    /// A breaker without counts.
    pub fn new(limit: PoisonLimit) -> Self {
        Self { limit, state: Arc::default() }
    }

    /// Why its loop is stopped, if it is.
    pub fn stopped(&self) -> Option<PoisonStop> {
        self.lock().stopped.clone()
    }

    /// Resumes the loop. Records that are in its input when it continues are not counted. Returns
    /// why it was stopped; `None` if it was not.
    pub fn resume(&self) -> Option<PoisonStop> {
        let mut state = self.lock();
        let stopped = state.stopped.take()?;
        state.resumed = true;
        state.window.clear();
        Some(stopped)
    }

    /// Whether it was resumed and [`PoisonBreaker::exempt`] must be called.
    pub(super) fn is_resumed(&self) -> bool {
        self.lock().resumed
    }

    /// Exempts records below these offsets from counting.
    pub(super) fn exempt(&self, ends: Vec<(TopicPartition, Offset)>) {
        let mut state = self.lock();
        state.exempt.extend(ends);
        state.resumed = false;
    }

    /// The first offset of a partition that is counted.
    pub(super) fn counted_from(&self, at: &TopicPartition) -> Offset {
        self.lock().exempt.get(at).copied().unwrap_or(Offset(0))
    }

    /// Counts a batch unless it exceeds the limit; then it must not be appended or committed.
    pub(super) fn count(&self, batch: BatchSample<'_>) -> Result<(), PoisonStop> {
        if batch.taken == 0 || self.limit.share >= 1.0 {
            return Ok(());
        }
        let mut state = self.lock();
        let newest = state.window.back().map_or(i64::MIN, |bucket| bucket.number);
        let number = batch.newest.0.div_euclid(BUCKET_MS).max(newest);
        let begin = number.saturating_sub(WINDOW_MS / BUCKET_MS);
        while state.window.front().is_some_and(|bucket| bucket.number <= begin) {
            state.window.pop_front();
        }
        let mut rejected = Rejected::default();
        state.window.iter().for_each(|bucket| rejected.merge_all(&bucket.rejected));
        rejected.merge_all(batch.rejected);
        let before: u64 = state.window.iter().map(|bucket| bucket.taken).sum();
        let taken = before + batch.taken;
        if !batch.rejected.0.is_empty() && self.limit.is_exceeded(taken, rejected.total()) {
            let stopped = explain(taken, &rejected);
            state.stopped = Some(stopped.clone());
            return Err(stopped);
        }
        if number > newest {
            state.window.push_back(Bucket { number, ..Bucket::default() });
        }
        let bucket = state
            .window
            .back_mut()
            .expect("the window has a bucket: one was pushed above if it was empty");
        bucket.taken += batch.taken;
        bucket.rejected.merge_all(batch.rejected);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BreakerState> {
        // A thread that panicked left it consistent: every change is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn explain(taken: u64, rejected: &Rejected) -> PoisonStop {
    let most = rejected.0.iter().max_by_key(|known| known.count);
    let ReasonCount { reason, at, offset, .. } =
        most.expect("the limit is exceeded only by rejected records");
    PoisonStop {
        taken,
        rejected: rejected.total(),
        reason: reason.as_str(),
        example: format!("{at}/{}", offset.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Partition, Topic};

    const LIMIT: PoisonLimit = PoisonLimit { share: 0.5, min_records: 100 };

    /// Counts batches of (second, taken, rejected) and returns which exceeded the limit.
    fn first_stop(limit: PoisonLimit, batches: &[(i64, u64, u64)]) -> Option<usize> {
        let breaker = PoisonBreaker::new(limit);
        batches
            .iter()
            .position(|&(second, taken, bad)| count(&breaker, second, taken, bad).is_err())
    }

    fn count(breaker: &PoisonBreaker, second: i64, taken: u64, bad: u64) -> Result<(), PoisonStop> {
        let at = TopicPartition::new(&Topic::new("t.in"), Partition(0));
        let mut rejected = Rejected::default();
        (0..bad).for_each(|n| rejected.add(Reason::NotJson, &at, Offset(n)));
        breaker.count(BatchSample {
            newest: Millis(second * 1_000 + 7),
            taken,
            rejected: &rejected,
        })
    }

    #[test]
    fn it_stops_only_above_the_share_of_a_minute() {
        assert_eq!(first_stop(LIMIT, &[(0, 100, 50)]), None, "half is not more than half");
        assert_eq!(first_stop(LIMIT, &[(0, 100, 51)]), Some(0));
        assert_eq!(first_stop(LIMIT, &[(0, 99, 99)]), None, "too few records");
        assert_eq!(first_stop(LIMIT, &[(0, 99, 99), (59, 1, 1)]), Some(1), "within a minute");
        assert_eq!(first_stop(LIMIT, &[(0, 99, 99), (60, 1, 1)]), None, "the minute is over");
        assert_eq!(first_stop(LIMIT, &[(0, 1_000, 0), (1, 400, 400)]), None);
        assert_eq!(first_stop(LIMIT, &[(0, 1_000, 0), (70, 400, 400)]), Some(1));
    }

    #[test]
    fn late_records_count_as_of_now_and_valid_ones_never_stop_it() {
        assert_eq!(first_stop(LIMIT, &[(500, 60, 0), (3, 90, 90)]), Some(1));
        assert_eq!(first_stop(LIMIT, &[(0, 99, 99), (1, 10, 0)]), None);
    }

    #[test]
    fn a_share_of_one_disables_it_and_zero_stops_at_the_first() {
        let with = |share| PoisonLimit { share, min_records: 1 };
        assert_eq!(first_stop(with(1.0), &[(0, 500, 500)]), None);
        assert_eq!(first_stop(with(0.0), &[(0, 500, 0), (0, 500, 1)]), Some(1));
    }

    #[test]
    fn it_gives_the_cause_and_counts_from_zero_once_resumed() {
        let breaker = PoisonBreaker::new(LIMIT);
        assert_eq!(breaker.resume(), None);
        assert!(!breaker.is_resumed());
        let stopped = count(&breaker, 0, 200, 150).expect_err("too much");
        assert_eq!(breaker.stopped(), Some(stopped.clone()));
        let text = stopped.to_string();
        for part in ["t.in:", "150 of 200 records (75 %)", "not_json", "t.in/0/149"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(breaker.resume(), Some(stopped));
        assert_eq!(breaker.stopped(), None);
        assert!(breaker.is_resumed());
        let at = TopicPartition::new(&Topic::new("t.in"), Partition(0));
        breaker.exempt(vec![(at.clone(), Offset(9))]);
        assert!(!breaker.is_resumed());
        assert_eq!(breaker.counted_from(&at), Offset(9));
        assert_eq!(count(&breaker, 1, 99, 99), Ok(()), "the window is empty");
    }
}
