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

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use crate::fanout::lookup_mailbox::{Lookup, LookupAnswer, LookupMailbox};
use crate::fanout::messages::{FeedKey, FeedRequest, FeedStart, LostSpan};
use crate::fanout::offsets::{LOG_TOPICS, PartitionOffsets, STATE_TOPIC};
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

/// The feeds that wait for one lookup.
struct LookupWaiters {
    feeds: BTreeSet<FeedKey>,
    /// The number of the lookup among those that are unasked; `None` if it is in the mailbox.
    unasked: Option<u64>,
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
    waiting: HashMap<Lookup, LookupWaiters>,
    /// By partition, because the mailbox may have room for some partitions only, and in the order
    /// in which they came. A feed waits for each of them.
    unasked: BTreeMap<(Partition, u64), Lookup>,
    /// The number of the next lookup that is unasked.
    next_unasked: u64,
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
            next_unasked: 0,
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
        let Self { unasked, next_unasked, waiting, .. } = self;
        let waiters = waiting.entry(lookup).or_insert_with(|| {
            let number = *next_unasked;
            *next_unasked += 1;
            unasked.insert((lookup.partition, number), lookup);
            LookupWaiters { feeds: BTreeSet::new(), unasked: Some(number) }
        });
        waiters.feeds.insert(key);
    }

    pub(super) fn remove(&mut self, key: FeedKey) {
        let Some(pending) = self.feeds.remove(&key) else { return };
        let lookup = lookup_of(&pending.request);
        if let Some(waiters) = self.waiting.get_mut(&lookup) {
            waiters.feeds.remove(&key);
            // In the mailbox, which is bounded, a lookup stays, and so does its empty set: it says
            // that the answer is on its way.
            if waiters.feeds.is_empty()
                && let Some(number) = waiters.unasked
            {
                self.unasked.remove(&(lookup.partition, number));
                self.waiting.remove(&lookup);
            }
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
            let waiters = self.waiting.remove(&lookup);
            for key in waiters.map(|waiters| waiters.feeds).unwrap_or_default() {
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
        let mut next = self.unasked.first_key_value().map(|(at, lookup)| (*at, *lookup));
        while let Some((at, lookup)) = next {
            let after = if mailbox.ask(lookup) {
                self.unasked.remove(&at);
                if let Some(waiters) = self.waiting.get_mut(&lookup) {
                    waiters.unasked = None;
                }
                at
            } else {
                (at.0, u64::MAX)
            };
            let mut rest = self.unasked.range((Bound::Excluded(after), Bound::Unbounded));
            next = rest.next().map(|(at, lookup)| (*at, *lookup));
        }
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
            + self.waiting.values().map(|waiters| 1 + waiters.feeds.len()).sum::<usize>()
            + self.unasked.len()
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
    for topic in 0..LOG_TOPICS {
        let bounds = &answer.bounds[topic];
        end.0[topic] = bounds.end.0;
        let next = match request.start {
            FeedStart::At(asked) => {
                offsets.0[STATE_TOPIC] = asked.0[STATE_TOPIC];
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fanout::identity::{Accounts, Identity, Roles};
    use crate::fanout::messages::{ConnId, FeedFilter, FeedNumber};
    use crate::port::Bounds;
    use crate::record::Offset;

    /// A start at a time; each feed is of a connection of its own.
    fn request(slot: u32, partition: u32, second: i64) -> FeedRequest {
        let (conn, feed) = (ConnId { slot, generation: 0 }, FeedNumber::default());
        let identity = Identity { user: "u1".into(), accounts: Accounts::All, roles: Roles::ALL };
        FeedRequest {
            key: FeedKey { shard: 0, conn, feed, attempt: 0 },
            partition: Partition(partition),
            start: FeedStart::Time(Millis(second * TIME_STEP_MS)),
            filter: Arc::new(FeedFilter { channels: Vec::new(), identity: Arc::new(identity) }),
        }
    }

    fn answer_all(mailbox: &LookupMailbox) {
        let bounds = Bounds { start: Offset(0), end: Offset(9) };
        let answer =
            LookupAnswer { bounds: [bounds; LOG_TOPICS], at_time: [Offset(5); LOG_TOPICS] };
        while let Some(lookup) = mailbox.first_of(|_| true) {
            mailbox.answer(lookup, answer);
        }
    }

    #[test]
    fn feeds_that_come_and_go_while_the_mailbox_is_full_leave_nothing() {
        let (mut starts, mailbox) = (PendingStarts::new(2_000), LookupMailbox::default());
        let now = MonotonicMillis(0);
        for n in 0..100 {
            starts.add(request(n, 0, n.into()), now);
        }
        assert!(starts.turn(&mailbox, now).is_empty());
        let before = starts.len();
        for n in 0..100_000 {
            let restless = request(1_000, 0, 1_000 + n);
            let key = restless.key;
            starts.add(restless, now);
            if n % 2 == 0 {
                assert!(starts.turn(&mailbox, now).is_empty());
            }
            starts.remove(key);
        }
        assert_eq!(starts.len(), before);
        assert!(starts.turn(&mailbox, now).is_empty());
        // Those that stayed are served, and so are other partitions and shared lookups.
        starts.add(request(200, 0, 99), now);
        starts.add(request(201, 1, 99), now);
        starts.remove(request(99, 0, 99).key);
        let mut resolved = Vec::new();
        for _ in 0..10 {
            resolved.extend(starts.turn(&mailbox, now));
            answer_all(&mailbox);
        }
        let mut slots: Vec<u32> = resolved.iter().map(|one| one.request.key.conn.slot).collect();
        slots.sort_unstable();
        let expected: Vec<u32> = (0..99).chain([200, 201]).collect();
        assert_eq!(slots, expected);
        assert_eq!(starts.len(), 0);
    }
}
