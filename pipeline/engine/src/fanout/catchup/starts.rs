//! Feeds whose start is not known yet, grouped by the lookup that they wait for.
//!
//! A start needs the log's bounds, and a time the offsets of that time: both are blocking calls,
//! made by the lookup worker. All feeds that need the same lookup share it, and an answer serves
//! later ones for a moment. Times are rounded down to a second, so that many clients that ask for
//! about the same time need few lookups.
//!
//! A position beyond the log's end is asked for again for a while, because another gateway may have
//! delivered records that this one's broker does not report yet. Then it is taken for a position of
//! another log.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::fanout::lookup_mailbox::{Lookup, LookupAnswer, LookupMailbox};
use crate::fanout::messages::{FeedKey, FeedRequest, FeedStart, LostSpan};
use crate::fanout::offsets::{PartitionOffsets, SERVED_TOPICS};
use crate::fanout::protocol::names::GapReason;
use crate::record::{Millis, MonotonicMillis, Partition};

/// Times are looked up by the second.
const TIME_STEP_MS: i64 = 1_000;

/// Milliseconds for which an answer serves other feeds. Within it the log's ends move on, which
/// only matters to a position beyond them, and that asks again.
const ANSWER_FRESH_MS: i64 = 5_000;

/// Answers that are kept.
const ANSWERS_MAX: usize = 1_024;

/// Milliseconds until a position beyond the log's end is asked for again.
const BEYOND_END_STEP_MS: i64 = 100;

/// A feed whose start is known.
pub(super) struct ResolvedStart {
    pub(super) request: FeedRequest,
    pub(super) offsets: PartitionOffsets,
    /// What the feed misses.
    pub(super) lost: Option<LostSpan>,
}

/// A feed whose start is not known.
struct PendingStart {
    request: FeedRequest,
    /// Until when its position may be beyond the log's end, once it was found there.
    until: Option<MonotonicMillis>,
    /// When it is asked for again.
    again_at: Option<MonotonicMillis>,
}

/// Where a feed can start.
enum StartDecision {
    At {
        offsets: PartitionOffsets,
        lost: Option<LostSpan>,
    },
    /// Its offsets are beyond the end, which may still move.
    BeyondEnd {
        end: PartitionOffsets,
    },
}

/// The feeds that wait for a lookup.
pub(super) struct PendingStarts {
    beyond_end_wait_ms: i64,
    feeds: HashMap<FeedKey, PendingStart>,
    /// The feeds that wait for each lookup that is unasked or in the mailbox.
    waiting: HashMap<Lookup, BTreeSet<FeedKey>>,
    /// By partition, because the mailbox may have room for some partitions only.
    unasked: BTreeMap<Partition, VecDeque<Lookup>>,
    /// Feeds with a position beyond the end, and when to ask again.
    again: BTreeSet<(MonotonicMillis, FeedKey)>,
    answers: HashMap<Lookup, (MonotonicMillis, LookupAnswer)>,
    /// Feeds whose answer was there when they came; resolved in this turn.
    answered: Vec<(FeedKey, LookupAnswer)>,
    resolved: Vec<ResolvedStart>,
}

impl PendingStarts {
    pub(super) fn new(beyond_end_wait_ms: u32) -> Self {
        Self {
            beyond_end_wait_ms: beyond_end_wait_ms.into(),
            feeds: HashMap::new(),
            waiting: HashMap::new(),
            unasked: BTreeMap::new(),
            again: BTreeSet::new(),
            answers: HashMap::new(),
            answered: Vec::new(),
            resolved: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, request: FeedRequest, now: MonotonicMillis) {
        let known = self.answers.get(&lookup_of(&request));
        let pending = PendingStart { request, until: None, again_at: None };
        match known.filter(|(at, _)| now.0 - at.0 < ANSWER_FRESH_MS) {
            // Not resolved at once: the feed may be forgotten by the next request of this turn.
            Some((_, answer)) => {
                self.answered.push((pending.request.key, *answer));
                self.feeds.insert(pending.request.key, pending);
            }
            None => self.wait(pending),
        }
    }

    /// Lets a feed wait for its lookup.
    fn wait(&mut self, pending: PendingStart) {
        let (key, lookup) = (pending.request.key, lookup_of(&pending.request));
        self.feeds.insert(key, pending);
        let unasked = &mut self.unasked;
        let waiting = self.waiting.entry(lookup).or_insert_with(|| {
            unasked.entry(lookup.partition).or_default().push_back(lookup);
            BTreeSet::new()
        });
        waiting.insert(key);
    }

    pub(super) fn remove(&mut self, key: FeedKey) {
        let Some(pending) = self.feeds.remove(&key) else { return };
        // An empty set stays: it says that the lookup is on its way.
        if let Some(waiting) = self.waiting.get_mut(&lookup_of(&pending.request)) {
            waiting.remove(&key);
        }
        if let Some(at) = pending.again_at {
            self.again.remove(&(at, key));
        }
    }

    /// Whether a feed asks again soon.
    pub(super) fn is_timed(&self) -> bool {
        !self.again.is_empty()
    }

    /// Asks for what is due and returns the feeds whose start is known now.
    pub(super) fn turn(
        &mut self,
        mailbox: &LookupMailbox,
        now: MonotonicMillis,
    ) -> Vec<ResolvedStart> {
        for (key, answer) in std::mem::take(&mut self.answered) {
            let Some(pending) = self.feeds.remove(&key) else { continue };
            match decide(&pending.request, &answer) {
                StartDecision::At { offsets, lost } => {
                    let request = pending.request;
                    self.resolved.push(ResolvedStart { request, offsets, lost });
                }
                // The end has moved on since the answer was given.
                StartDecision::BeyondEnd { .. } => self.wait(pending),
            }
        }
        for (lookup, answer) in mailbox.take_answers() {
            self.keep(lookup, answer, now);
            for key in self.waiting.remove(&lookup).unwrap_or_default() {
                if let Some(pending) = self.feeds.remove(&key) {
                    self.resolve(pending, &answer, now);
                }
            }
        }
        while self.again.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, key)) = self.again.pop_first() else { break };
            if let Some(pending) = self.feeds.remove(&key) {
                self.wait(PendingStart { again_at: None, ..pending });
            }
        }
        self.ask(mailbox);
        std::mem::take(&mut self.resolved)
    }

    /// Posts what the mailbox has room for.
    fn ask(&mut self, mailbox: &LookupMailbox) {
        let waiting = &mut self.waiting;
        self.unasked.retain(|_, unasked| {
            while let Some(lookup) = unasked.front() {
                let needed = waiting.get(lookup).is_some_and(|feeds| !feeds.is_empty());
                if needed && !mailbox.ask(*lookup) {
                    return true;
                }
                if !needed {
                    waiting.remove(lookup);
                }
                unasked.pop_front();
            }
            false
        });
    }

    fn keep(&mut self, lookup: Lookup, answer: LookupAnswer, now: MonotonicMillis) {
        if self.answers.len() >= ANSWERS_MAX {
            self.answers.retain(|_, (at, _)| now.0 - at.0 < ANSWER_FRESH_MS);
        }
        if self.answers.len() < ANSWERS_MAX {
            self.answers.insert(lookup, (now, answer));
        }
    }

    fn resolve(&mut self, mut pending: PendingStart, answer: &LookupAnswer, now: MonotonicMillis) {
        let (offsets, lost) = match decide(&pending.request, answer) {
            StartDecision::At { offsets, lost } => (offsets, lost),
            StartDecision::BeyondEnd { end } => {
                let wait = self.beyond_end_wait_ms;
                let until = *pending.until.get_or_insert(MonotonicMillis(now.0 + wait));
                if now < until {
                    let (key, at) =
                        (pending.request.key, MonotonicMillis(now.0 + BEYOND_END_STEP_MS));
                    pending.again_at = Some(at);
                    self.feeds.insert(key, pending);
                    self.again.insert((at, key));
                    return;
                }
                let FeedStart::At(from) = pending.request.start else { return };
                (end, Some(LostSpan { reason: GapReason::Epoch, from, to: end }))
            }
        };
        self.resolved.push(ResolvedStart { request: pending.request, offsets, lost });
    }

    /// How many feeds and lookups it keeps.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.feeds.len()
            + self.waiting.values().map(|feeds| 1 + feeds.len()).sum::<usize>()
            + self.unasked.values().map(VecDeque::len).sum::<usize>()
            + self.again.len()
            + self.answered.len()
    }
}

fn lookup_of(request: &FeedRequest) -> Lookup {
    let time = match request.start {
        FeedStart::Time(time) => Some(Millis(time.0.div_euclid(TIME_STEP_MS) * TIME_STEP_MS)),
        FeedStart::Earliest | FeedStart::At(_) => None,
    };
    Lookup { partition: request.partition, time }
}

fn decide(request: &FeedRequest, answer: &LookupAnswer) -> StartDecision {
    let mut offsets = PartitionOffsets::default();
    let mut end = PartitionOffsets::default();
    let (mut is_lost, mut is_beyond) = (false, false);
    for topic in 0..SERVED_TOPICS {
        let bounds = &answer.bounds[topic];
        end.0[topic] = bounds.end.0;
        let next = match request.start {
            FeedStart::At(asked) => {
                offsets.0[2] = asked.0[2];
                let asked = asked.0[topic];
                is_beyond |= asked > bounds.end.0;
                is_lost |= asked < bounds.start.0;
                asked
            }
            FeedStart::Earliest => 0,
            FeedStart::Time(_) => answer.at_time[topic].0,
        };
        offsets.0[topic] = next.max(bounds.start.0);
    }
    if is_beyond {
        return StartDecision::BeyondEnd { end };
    }
    let lost = match request.start {
        FeedStart::At(from) if is_lost => {
            Some(LostSpan { reason: GapReason::Retention, from, to: offsets })
        }
        _ => None,
    };
    StartDecision::At { offsets, lost }
}
