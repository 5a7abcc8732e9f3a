//! The lookup worker: makes the fan-out's blocking calls to the log, on a thread of its own.
//!
//! It answers the lookups in the hub's mailbox, a bounded number per turn, and compares the output
//! topics with those of the hub every few seconds. Nothing that delivers events waits for it.
//!
//! A partition without a leader fails its lookups, each after seconds. They are tried again with
//! growing waits, one at the end of a turn. After a failed call none of them is tried for as long
//! as that call took, so that all failing partitions together take half of the time at most.
//!
//! A difference counts when it is found twice without a failed check in between, because brokers
//! learn of changes one after the other, and one that just started reports all topics as missing.
//! Checks that fail for longer are reported. Topics that were created again
//! get a new epoch, which the hub reader follows. Topics that stay missing, or that have another
//! number of partitions, end the process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::retry_wait::RetryWait;
use crate::fanout::hub::Hub;
use crate::fanout::lookup_mailbox::{Lookup, LookupAnswer};
use crate::fanout::offsets::LOG_TOPICS;
use crate::fanout::topics_check::{self, TopicsState};
use crate::fanout::unanswered::UnansweredCall;
use crate::port::{Bounds, Cause, Isolation, Log, LogError, Reader};
use crate::record::{MonotonicMillis, Offset, Partition, TopicPartition};
use crate::telemetry;
use crate::topology::unlisted_sentence;
use crate::turn::EngineError;

/// Lookups answered in one turn; a stop and a check of the topics wait for at most so many calls.
const LOOKUPS_PER_TURN: usize = 16;

/// Milliseconds between two checks of the topics. A check is three requests on Kafka.
const TOPICS_CHECK_MS: i64 = 10_000;

/// Milliseconds until a difference is looked at again.
const TOPICS_RECHECK_MS: i64 = 1_000;

/// Milliseconds after which missing topics are taken for deleted ones: longer than brokers take to
/// start and to learn of all topics.
const TOPICS_MISSING_MS: i64 = 60_000;

/// Milliseconds of failed checks after which they are reported.
const UNLISTED_REPORTED_MS: i64 = 30_000;

/// Milliseconds between two log lines about failed checks.
const UNLISTED_LOG_EVERY_MS: i64 = 60_000;

/// Makes blocking calls for a hub. One per process; the app's thread repeats
/// [`LookupWorker::turn`].
pub struct LookupWorker {
    hub: Arc<Hub>,
    log: Arc<dyn Log>,
    /// Reads no partition: it waits.
    reader: Box<dyn Reader>,
    /// When the topics are compared next.
    check_at: Option<MonotonicMillis>,
    /// The difference that the last check found, and when it was found first.
    difference: Option<(TopicsState, MonotonicMillis)>,
    /// Since when checks fail, and when that was logged last.
    unlisted: Option<(MonotonicMillis, MonotonicMillis)>,
    /// Partitions whose last lookup failed.
    failing: BTreeMap<Partition, FailingPartition>,
    /// When the last turn began, if a call failed in it.
    failed_from: Option<MonotonicMillis>,
    /// Before this time no failing partition is tried.
    failing_rest_until: MonotonicMillis,
}

/// A partition whose lookups fail.
struct FailingPartition {
    retry: RetryWait,
    /// What `/readyz` says.
    sentence: String,
}

/// A lookup that failed.
struct FailedLookup {
    at: TopicPartition,
    error: LogError,
}

impl LookupWorker {
    /// A worker for the hub's mailbox.
    pub fn open(log: Arc<dyn Log>, hub: &Arc<Hub>) -> Result<Self, EngineError> {
        let reader = log
            .reader(Isolation::Committed)
            .map_err(|e| EngineError::of_log("starting the lookup worker", e))?;
        hub.lookups.set_worker(reader.waker());
        hub.unanswered.set(UnansweredCall::Lookup, BTreeMap::new());
        hub.unanswered.set_topics(None);
        Ok(Self {
            hub: Arc::clone(hub),
            log,
            reader,
            check_at: None,
            difference: None,
            unlisted: None,
            failing: BTreeMap::new(),
            failed_from: None,
            failing_rest_until: MonotonicMillis::NEVER,
        })
    }

    /// Answers lookups and compares the topics when that is due. Waits at most `at_most` if there
    /// was nothing to do; returns whether there was. `now` never goes backwards.
    pub fn turn(&mut self, now: MonotonicMillis, at_most: Duration) -> Result<bool, EngineError> {
        let checked = self.check_topics(now);
        checked.map_err(|e| EngineError::of_log("comparing the output topics", e))?;
        let busy = self.answer_lookups(now);
        self.report_failing();
        if busy.map_err(|e| EngineError::of_log("looking up offsets", e))? {
            return Ok(true);
        }
        let due = self.failing.values_mut().map(|failing| failing.retry.due_at(now)).min();
        let due = due.map(|due| due.max(self.failing_rest_until));
        let until_due = due.and_then(|due| u64::try_from(due.since(now)).ok());
        let waited = self
            .reader
            .wait(until_due.map_or(at_most, |ms| at_most.min(Duration::from_millis(ms))));
        waited.map_err(|e| EngineError::of_log("waiting for lookups", e))?;
        Ok(false)
    }

    /// Answers lookups, and tries one again whose wait is over. A failed call may take seconds, so
    /// it ends the turn. Returns whether there was something to do.
    fn answer_lookups(&mut self, now: MonotonicMillis) -> Result<bool, LogError> {
        if let Some(from) = self.failed_from.take() {
            self.failing_rest_until = now.plus(now.since(from));
        }
        let lookups = &self.hub.lookups;
        // Without a lookup nobody waits for the partition.
        self.failing.retain(|partition, _| lookups.first_of(|of| of == *partition).is_some());
        let mut busy = false;
        for _ in 0..LOOKUPS_PER_TURN {
            let works = |partition| !self.failing.contains_key(&partition);
            let Some(lookup) = self.hub.lookups.first_of(works) else { break };
            busy = true;
            if !self.try_lookup(lookup, now)? {
                return Ok(true);
            }
        }
        let due = self.failing.iter_mut().map(|(of, failing)| (failing.retry.due_at(now), *of));
        if let Some((_, partition)) = due.filter(|(at, _)| *at <= now).min()
            && self.failing_rest_until <= now
            && let Some(lookup) = self.hub.lookups.first_of(|of| of == partition)
        {
            busy = true;
            self.try_lookup(lookup, now)?;
        }
        Ok(busy)
    }

    /// Answers a lookup; `false` if the log did not answer.
    fn try_lookup(&mut self, lookup: Lookup, now: MonotonicMillis) -> Result<bool, LogError> {
        match self.look_up(lookup) {
            Ok(answer) => {
                self.hub.answer_lookup(lookup, answer);
                self.failing.remove(&lookup.partition);
                Ok(true)
            }
            // Whether a topic is gone is decided by the check of the topics.
            Err(failed) if matches!(failed.error, LogError::Retry(_) | LogError::Invalid(_)) => {
                self.failed_from = Some(now);
                self.hub.suspect_topics();
                self.hub.lookups.postpone(lookup);
                let sentence = UnansweredCall::Lookup.sentence(&failed.at, &failed.error);
                let before = self.failing.remove(&lookup.partition);
                let mut retry = before.map_or_else(RetryWait::default, |before| before.retry);
                retry.failed();
                self.failing.insert(lookup.partition, FailingPartition { retry, sentence });
                Ok(false)
            }
            Err(failed) => Err(failed.error),
        }
    }

    fn report_failing(&self) {
        let listed = self.failing.iter().filter(|(_, failing)| failing.retry.is_listed());
        let sentences = listed.map(|(partition, failing)| (*partition, failing.sentence.clone()));
        self.hub.unanswered.set(UnansweredCall::Lookup, sentences.collect());
    }

    fn look_up(&self, lookup: Lookup) -> Result<LookupAnswer, FailedLookup> {
        let mut bounds = [Bounds { start: Offset(0), end: Offset(0) }; LOG_TOPICS];
        let mut at_time = [Offset(0); LOG_TOPICS];
        for topic in 0..LOG_TOPICS {
            let at = self.hub.topic_partition(topic, lookup.partition);
            let failed = |error| FailedLookup { at: at.clone(), error };
            bounds[topic] = self.log.bounds(&at, Isolation::Committed).map_err(failed)?;
            at_time[topic] = bounds[topic].end;
            telemetry::lookups("bounds");
            if let Some(time) = lookup.time {
                let found = self.log.offset_at(&at, time).map_err(failed)?;
                at_time[topic] = found.unwrap_or(bounds[topic].end);
                telemetry::lookups("time");
            }
        }
        Ok(LookupAnswer { bounds, at_time })
    }

    fn check_topics(&mut self, now: MonotonicMillis) -> Result<(), LogError> {
        let check_at = *self.check_at.get_or_insert(MonotonicMillis(now.0 + TOPICS_CHECK_MS));
        let soon = self.difference.is_none() && self.hub.take_suspicion();
        if now < check_at && !soon {
            return Ok(());
        }
        let state = match self.log.topics() {
            Ok(infos) => {
                let topics = self.hub.topics();
                topics_check::check(&infos, &topics.each_ref(), self.hub.partitions())
            }
            // No answer says nothing about the topics, nor that a difference lasts.
            Err(LogError::Retry(cause)) => {
                self.difference = None;
                self.check_at = Some(MonotonicMillis(now.0 + TOPICS_RECHECK_MS));
                self.report_unlisted(&cause, now);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if self.unlisted.take().is_some() {
            self.hub.unanswered.set_topics(None);
        }
        let followed = self.hub.next_epoch().unwrap_or_else(|| self.hub.epoch());
        if state == (TopicsState::Fits { epoch: followed }) {
            self.difference = None;
            self.hub.set_problem(None);
            self.check_at = Some(MonotonicMillis(now.0 + TOPICS_CHECK_MS));
            return Ok(());
        }
        self.check_at = Some(MonotonicMillis(now.0 + TOPICS_RECHECK_MS));
        match &self.difference {
            Some((before, since)) if *before == state => self.act_on(state, *since, now),
            _ => {
                self.difference = Some((state, now));
                Ok(())
            }
        }
    }

    /// Reports checks that have failed for a while.
    fn report_unlisted(&mut self, cause: &Cause, now: MonotonicMillis) {
        let (since, logged) = self.unlisted.get_or_insert((now, MonotonicMillis::NEVER));
        if now.since(*since) < UNLISTED_REPORTED_MS {
            return;
        }
        let sentence = unlisted_sentence(cause);
        if now.since(*logged) >= UNLISTED_LOG_EVERY_MS {
            *logged = now;
            telemetry::topics_unlisted(&sentence);
        }
        self.hub.unanswered.set_topics(Some(sentence));
    }

    /// Acts on a difference that was found in two checks.
    fn act_on(
        &mut self,
        state: TopicsState,
        since: MonotonicMillis,
        now: MonotonicMillis,
    ) -> Result<(), LogError> {
        match state {
            TopicsState::Fits { epoch } => {
                self.hub.set_problem(None);
                self.hub.set_next_epoch(epoch);
                self.difference = None;
                Ok(())
            }
            TopicsState::Missing(text) if now.0 - since.0 < TOPICS_MISSING_MS => {
                self.hub.set_problem(Some(text));
                Ok(())
            }
            TopicsState::Missing(text) | TopicsState::Misfit(text) => {
                Err(LogError::Fatal(text, None))
            }
        }
    }
}
