//! The lookup worker: makes the fan-out's blocking calls to the log, on a thread of its own.
//!
//! It answers the lookups in the hub's mailbox, a bounded number per turn, and compares the output
//! topics with those of the hub every few seconds. Nothing that delivers events waits for it.
//!
//! A difference counts when it is found twice, because brokers learn of changes one after the
//! other, and one that just started reports all topics as missing. Topics that were created again
//! get a new epoch, which the hub reader follows. Topics that stay missing, or that have another
//! number of partitions, end the process.

use std::sync::Arc;
use std::time::Duration;

use crate::fanout::hub::Hub;
use crate::fanout::lookup_mailbox::{Lookup, LookupAnswer};
use crate::fanout::offsets::SERVED_TOPICS;
use crate::fanout::topics_check::{self, TopicsState};
use crate::port::{Bounds, Isolation, Log, LogError, Reader};
use crate::record::{MonotonicMillis, Offset};
use crate::telemetry;
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
}

impl LookupWorker {
    /// A worker for the hub's mailbox.
    pub fn open(log: Arc<dyn Log>, hub: &Arc<Hub>) -> Result<Self, EngineError> {
        let reader = log
            .reader(Isolation::Committed)
            .map_err(|e| EngineError::of_log("starting the lookup worker", e))?;
        hub.lookups.set_worker(reader.waker());
        Ok(Self { hub: Arc::clone(hub), log, reader, check_at: None, difference: None })
    }

    /// Answers lookups and compares the topics when that is due. Waits at most `at_most` if there
    /// was nothing to do; returns whether there was. `now` never goes backwards.
    pub fn turn(&mut self, now: MonotonicMillis, at_most: Duration) -> Result<bool, EngineError> {
        let checked = self.check_topics(now);
        checked.map_err(|e| EngineError::of_log("comparing the output topics", e))?;
        let answered = self.answer_lookups();
        if answered.map_err(|e| EngineError::of_log("looking up offsets", e))? > 0 {
            return Ok(true);
        }
        let waited = self.reader.wait(at_most);
        waited.map_err(|e| EngineError::of_log("waiting for lookups", e))?;
        Ok(false)
    }

    /// Answers lookups. One that can't be answered now stays the first.
    fn answer_lookups(&self) -> Result<usize, LogError> {
        for answered in 0..LOOKUPS_PER_TURN {
            let Some(lookup) = self.hub.lookups.first() else { return Ok(answered) };
            match self.look_up(lookup) {
                Ok(answer) => self.hub.answer_lookup(lookup, answer),
                // Whether a topic is gone is decided by the check of the topics.
                Err(LogError::Retry(_) | LogError::Invalid(_)) => {
                    self.hub.suspect_topics();
                    return Ok(0);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(LOOKUPS_PER_TURN)
    }

    fn look_up(&self, lookup: Lookup) -> Result<LookupAnswer, LogError> {
        let mut bounds = [Bounds { start: Offset(0), end: Offset(0) }; SERVED_TOPICS];
        let mut at_time = [Offset(0); SERVED_TOPICS];
        for topic in 0..SERVED_TOPICS {
            let at = self.hub.topic_partition(topic, lookup.partition);
            bounds[topic] = self.log.bounds(&at, Isolation::Committed)?;
            at_time[topic] = bounds[topic].end;
            telemetry::lookups("bounds");
            if let Some(time) = lookup.time {
                let found = self.log.offset_at(&at, time)?;
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
            // No answer says nothing about the topics.
            Err(LogError::Retry(_)) => {
                self.check_at = Some(MonotonicMillis(now.0 + TOPICS_RECHECK_MS));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
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
