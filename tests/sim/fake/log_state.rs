//! The state of the in-memory log: topics, transactions, committed offsets and groups.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidewire_engine::port::{Cleanup, Committed, GroupToken, Isolation, LogError, TopicSpec};
use tidewire_engine::record::{Body, Millis, Offset, Outgoing, Partition, Topic, TopicPartition};

use super::faults::{Call, FaultScript};
use super::group::{FakeGroup, FakeGroupProof};
use super::journal::Fact;
use super::partition::{CleanupContext, FakePartition, LogEntry};
use crate::test_rng::TestRng;

/// The end marker of a transaction is delayed in one of this many partitions.
const DELAY_ONCE_IN: u64 = 12;

/// Longest delay, in calls of any process.
const DELAY_CALLS_MAX: u64 = 300;

/// After this time an open transaction is aborted.
const TRANSACTION_MS_MAX: i64 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransactionOutcome {
    Open,
    Committed,
    Aborted,
}

#[derive(Debug)]
pub(super) struct FakeTopic {
    pub(super) spec: TopicSpec,
    pub(super) id: u128,
    pub(super) partitions: Vec<FakePartition>,
}

/// Bytes of a record, as a broker of Kafka limits them by default.
const RECORD_MAX_BYTES: usize = 1_048_588;

/// What a transaction wrote in a partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WrittenSpan {
    pub(crate) first: Offset,
    /// After its last record.
    pub(crate) end: Offset,
}

#[derive(Debug)]
pub(crate) struct FakeTransaction {
    pub(super) outcome: TransactionOutcome,
    pub(crate) spans: BTreeMap<TopicPartition, WrittenSpan>,
    pub(crate) offsets: Vec<(String, TopicPartition, Committed)>,
    pub(super) begun: Millis,
    /// Appended records that have not arrived.
    pub(super) in_flight: Vec<Outgoing>,
    /// Whether everything appended has arrived, as confirmed by a drain.
    pub(super) drained: bool,
    /// Whether something appended will never arrive.
    pub(super) failed: bool,
    /// Whether its commit was requested and delayed: it can only be committed.
    pub(super) prepared: bool,
}

/// An end marker that has not arrived in a partition; readers stop before the transaction until
/// then.
#[derive(Debug)]
struct DelayedEnd {
    at: TopicPartition,
    transaction: usize,
    /// Calls until it arrives.
    calls: u64,
}

#[derive(Debug, Default)]
pub(super) struct TransactionalId {
    pub(super) epoch: u64,
    pub(super) open: Option<usize>,
    /// The newest transaction.
    pub(super) last: Option<usize>,
}

/// Everything the log holds.
pub(crate) struct LogState {
    pub(super) topics: BTreeMap<Topic, FakeTopic>,
    pub(super) transactions: Vec<FakeTransaction>,
    /// The open ones.
    pub(super) open: BTreeSet<usize>,
    /// End markers that have not arrived in all partitions.
    delayed: Vec<DelayedEnd>,
    pub(super) ids: BTreeMap<String, TransactionalId>,
    pub(super) offsets: BTreeMap<(String, TopicPartition), Committed>,
    pub(super) groups: BTreeMap<String, FakeGroup>,
    pub(super) dead: BTreeSet<u64>,
    pub(super) next_member: u64,
    /// The clock; append times come from here.
    pub(crate) now: Millis,
    /// Random decisions about faults.
    pub(crate) random: TestRng,
    /// Whether calls fail at random.
    pub(crate) faults: bool,
    /// Whether requests for ends get no answer for now.
    pub(crate) answers_are_late: bool,
    /// Partitions whose ends are not in the answers to requests for ends.
    pub(crate) leaderless: BTreeSet<TopicPartition>,
    /// Calls that fail with `Retry`.
    pub(crate) failing: BTreeSet<Call>,
    /// The longest that the newest wait may take.
    pub(crate) waited: Option<Duration>,
    /// Whether all processes take their turns on one thread.
    pub(crate) one_thread: bool,
    /// What happens to one process, instead of random faults.
    pub(crate) script: Option<FaultScript>,
    /// Calls left in the current outage.
    pub(super) outage: u64,
    /// How far the machines' clocks are ahead of the log's, milliseconds.
    pub(crate) skew: i64,
    /// Processes and the partitions they have lost.
    pub(super) lost: BTreeSet<(u64, u32)>,
    /// What has happened since the model last checked.
    pub(crate) journal: Vec<Fact>,
    /// The first violation of a port's contract by a caller.
    pub(crate) violation: Option<String>,
    /// How often each fault happened; a test asserts that all did.
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

impl LogState {
    /// A log without topics.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            topics: BTreeMap::new(),
            transactions: Vec::new(),
            open: BTreeSet::new(),
            delayed: Vec::new(),
            ids: BTreeMap::new(),
            offsets: BTreeMap::new(),
            groups: BTreeMap::new(),
            dead: BTreeSet::new(),
            next_member: 0,
            now: Millis(1_767_607_200_000),
            random: TestRng::new(seed),
            faults: false,
            answers_are_late: false,
            leaderless: BTreeSet::new(),
            failing: BTreeSet::new(),
            waited: None,
            one_thread: false,
            script: None,
            outage: 0,
            skew: 0,
            lost: BTreeSet::new(),
            journal: Vec::new(),
            violation: None,
            counts: BTreeMap::new(),
        }
    }

    /// Creates a topic unless it exists.
    pub(super) fn create(&mut self, spec: &TopicSpec) -> Result<bool, LogError> {
        if let Some(there) = self.topics.get(&spec.topic) {
            if there.spec == *spec {
                return Ok(false);
            }
            let (name, there) = (&spec.topic, &there.spec);
            return Err(LogError::Invalid(format!("{name} exists as {there:?}, not {spec:?}")));
        }
        let partitions = vec![FakePartition::default(); spec.partitions as usize];
        let id = self.topics.len() as u128 + 1;
        self.topics.insert(spec.topic.clone(), FakeTopic { spec: spec.clone(), id, partitions });
        Ok(true)
    }

    /// Deletes a topic and creates it again, with another id and without records or offsets.
    pub(crate) fn create_again(&mut self, topic: &Topic) {
        let there = self.topics.get_mut(topic).expect("it exists");
        // Above every id that was given so far.
        there.id += 1_000;
        there.partitions.iter_mut().for_each(|partition| *partition = FakePartition::default());
        self.offsets.retain(|(_, at), _| at.topic != *topic);
    }

    pub(super) fn topic(&self, name: &Topic) -> Result<&FakeTopic, LogError> {
        self.topics.get(name).ok_or_else(|| LogError::Invalid(format!("no topic {name}")))
    }

    pub(super) fn partition(&self, at: &TopicPartition) -> Result<&FakePartition, LogError> {
        let partition = self.topic(&at.topic)?.partitions.get(at.partition.0 as usize);
        partition.ok_or_else(|| LogError::Invalid(format!("no partition {at}")))
    }

    /// Counts what has happened.
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// One past the newest record that this isolation level shows: for committed reads, the start
    /// of the first open transaction.
    pub(super) fn end(&self, at: &TopicPartition, isolation: Isolation) -> Result<u64, LogError> {
        let end = self.partition(at)?.end();
        if isolation == Isolation::Uncommitted {
            return Ok(end);
        }
        let delayed = self
            .delayed
            .iter()
            .filter(|delayed| delayed.at == *at)
            .map(|delayed| &delayed.transaction);
        let undecided = self.open.iter().chain(delayed);
        let spans = undecided.filter_map(|n| self.transactions[*n].spans.get(at));
        Ok(spans.map(|span| span.first.0).min().unwrap_or(end))
    }

    pub(super) fn visible(&self, entry: &LogEntry, isolation: Isolation) -> bool {
        match entry {
            LogEntry::Control | LogEntry::Gone => false,
            LogEntry::Record { transaction: None, .. } => true,
            LogEntry::Record { transaction: Some(n), .. } => {
                isolation == Isolation::Uncommitted
                    || self.transactions[*n].outcome == TransactionOutcome::Committed
            }
        }
    }

    /// Fails if this record can't be appended.
    pub(super) fn check_append(&self, record: &Outgoing) -> Result<(), LogError> {
        let at = TopicPartition::new(&record.topic, record.partition);
        self.partition(&at)?;
        let bytes = record.body.as_bytes().len();
        if bytes > RECORD_MAX_BYTES {
            return Err(LogError::Invalid(format!("{at}: a record of {bytes} bytes is too large")));
        }
        let cleanup = self.topic(&record.topic)?.spec.cleanup;
        if !matches!(cleanup, Cleanup::Delete { .. }) && record.body.key().is_none() {
            return Err(LogError::Invalid(format!("{at} is compacted: its records have a key")));
        }
        Ok(())
    }

    /// Appends a record that was checked before.
    pub(super) fn write(&mut self, record: &Outgoing, transaction: Option<usize>) -> Offset {
        let topic = self.topics.get_mut(&record.topic).expect("it may be appended");
        let partition = &mut topic.partitions[record.partition.0 as usize];
        let offset = Offset(partition.end());
        let body = record.body.clone();
        partition.entries.push(LogEntry::Record { time: self.now, body, transaction });
        let at = TopicPartition::new(&record.topic, record.partition);
        match transaction {
            Some(n) => {
                let spans = &mut self.transactions[n].spans;
                let span = spans.entry(at).or_insert(WrittenSpan { first: offset, end: offset });
                span.end = offset.next();
            }
            None => self.journal.push(Fact::Appended(at, offset)),
        }
        offset
    }

    /// Lets this many in-flight records arrive.
    pub(super) fn deliver(&mut self, n: usize, count: usize) {
        let rest = self.transactions[n].in_flight.split_off(count);
        for record in std::mem::replace(&mut self.transactions[n].in_flight, rest) {
            self.write(&record, Some(n));
        }
    }

    /// Lets all in-flight records arrive.
    pub(super) fn deliver_all(&mut self, n: usize) {
        self.deliver(n, self.transactions[n].in_flight.len());
    }

    /// Records that a caller violated the contract of its port.
    pub(super) fn report_violation(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// The record at an offset, unless it was removed.
    pub(crate) fn record(&self, at: &TopicPartition, offset: u64) -> Option<(Millis, &Body)> {
        match self.partition(at).ok()?.entries.get(offset as usize)? {
            LogEntry::Record { time, body, .. } => Some((*time, body)),
            LogEntry::Control | LogEntry::Gone => None,
        }
    }

    /// The first committed record at or after an offset.
    pub(crate) fn next_record(
        &self,
        at: &TopicPartition,
        from: u64,
    ) -> Option<(u64, Millis, &Body)> {
        let entries = self.partition(at).ok()?.entries.iter().enumerate();
        let mut rest = entries.skip(from as usize);
        rest.find_map(|(offset, entry)| match entry {
            LogEntry::Record { time, body, .. } if self.visible(entry, Isolation::Committed) => {
                Some((offset as u64, *time, body))
            }
            _ => None,
        })
    }

    /// The first record at or after an offset that a committed reader gets, at the end of an open
    /// transaction at the latest.
    pub(crate) fn next_pending(&self, at: &TopicPartition, from: u64) -> Option<Offset> {
        let entries = self.partition(at).ok()?.entries.iter().enumerate();
        let mut rest = entries.skip(from as usize);
        let is_pending = |entry: &LogEntry| match entry {
            LogEntry::Control | LogEntry::Gone => false,
            LogEntry::Record { transaction, .. } => transaction
                .is_none_or(|n| self.transactions[n].outcome != TransactionOutcome::Aborted),
        };
        rest.find_map(|(offset, entry)| is_pending(entry).then_some(Offset(offset as u64)))
    }

    /// A transaction.
    pub(crate) fn transaction(&self, n: usize) -> &FakeTransaction {
        &self.transactions[n]
    }

    /// What a transaction wrote in a partition; records of others may lie between.
    pub(crate) fn written<'a>(
        &'a self,
        n: usize,
        at: &TopicPartition,
    ) -> impl Iterator<Item = (u64, &'a Body)> + use<'a> {
        let span = self.transactions[n].spans.get(at);
        let range = span.map_or(0..0, |span| span.first.0..span.end.0);
        let entries = self.partition(at).map_or(&[][..], |partition| &partition.entries);
        range.filter_map(move |offset| match &entries[offset as usize] {
            LogEntry::Record { body, transaction, .. } if *transaction == Some(n) => {
                Some((offset, body))
            }
            _ => None,
        })
    }

    /// Ends transactions that have been open for too long, as their coordinator does. Those of a
    /// DERIVE loop are left alone until it has sent offsets: the next owner must end them itself.
    pub(crate) fn time_out(&mut self) {
        self.arrive(|_| true);
        let mut ids = std::mem::take(&mut self.ids);
        for (id, state) in &mut ids {
            let Some(n) = state.open else { continue };
            let transaction = &self.transactions[n];
            let waited_for = transaction.prepared || !transaction.offsets.is_empty();
            let of_derive = self.groups.keys().any(|group| id.starts_with(group));
            if transaction.begun.0 + TRANSACTION_MS_MAX < self.now.0 && (waited_for || !of_derive) {
                self.end_transaction(n);
                self.count("transactions timed out");
                state.open = None;
                state.epoch += 1;
            }
        }
        self.ids = ids;
    }

    /// Ends a transaction on behalf of its owner.
    pub(super) fn end_transaction(&mut self, n: usize) {
        let prepared = self.transactions[n].prepared;
        self.complete(
            n,
            if prepared { TransactionOutcome::Committed } else { TransactionOutcome::Aborted },
        );
    }

    /// Opens a transaction.
    pub(super) fn begin(&mut self) -> usize {
        let n = self.transactions.len();
        self.transactions.push(FakeTransaction {
            outcome: TransactionOutcome::Open,
            spans: BTreeMap::new(),
            offsets: Vec::new(),
            begun: self.now,
            in_flight: Vec::new(),
            drained: true,
            failed: false,
            prepared: false,
        });
        self.open.insert(n);
        n
    }

    /// Ends a transaction, and returns where it ended in each partition.
    pub(super) fn complete(
        &mut self,
        n: usize,
        outcome: TransactionOutcome,
    ) -> Vec<(TopicPartition, Offset)> {
        let transaction = &mut self.transactions[n];
        assert_eq!(transaction.outcome, TransactionOutcome::Open, "a transaction ends once");
        transaction.outcome = outcome;
        self.open.remove(&n);
        let ends: Vec<_> =
            transaction.spans.iter().map(|(at, span)| (at.clone(), span.end)).collect();
        let offsets = transaction.offsets.clone();
        for (at, _) in &ends {
            let at = at.clone();
            if self.faults && self.random.one_in(DELAY_ONCE_IN) {
                let calls = self.random.below(DELAY_CALLS_MAX);
                self.delayed.push(DelayedEnd { at, transaction: n, calls });
            } else {
                self.mark_end(&at);
            }
        }
        if outcome == TransactionOutcome::Committed {
            self.journal.push(Fact::Committed(n));
            for (group, at, committed) in offsets {
                self.offsets.insert((group, at), committed);
            }
        }
        ends
    }

    fn mark_end(&mut self, at: &TopicPartition) {
        let topic = self.topics.get_mut(&at.topic).expect("it was written to");
        topic.partitions[at.partition.0 as usize].entries.push(LogEntry::Control);
    }

    /// Counts a call: delayed end markers that are due arrive.
    pub(super) fn count_call(&mut self) {
        if !self.delayed.is_empty() {
            self.delayed
                .iter_mut()
                .for_each(|delayed| delayed.calls = delayed.calls.saturating_sub(1));
            self.arrive(|delayed| delayed.calls == 0);
        }
    }

    /// The end markers of a transaction arrive before the next one of its id begins.
    pub(super) fn wait_for_ends(&mut self, id: &str) {
        if let Some(last) = self.ids.get(id).and_then(|id| id.last) {
            self.arrive(|delayed| delayed.transaction == last);
        }
    }

    fn arrive(&mut self, which: impl Fn(&DelayedEnd) -> bool) {
        for delayed in std::mem::take(&mut self.delayed) {
            if which(&delayed) {
                self.mark_end(&delayed.at);
            } else {
                self.delayed.push(delayed);
            }
        }
    }

    /// Whether an open transaction has sent offsets of this group for these partitions.
    pub(super) fn is_undecided(&self, group: &str, of: &[TopicPartition]) -> bool {
        let mut pending = self.open.iter().flat_map(|n| &self.transactions[*n].offsets);
        pending.any(|(name, at, _)| name == group && of.contains(at))
    }

    /// Fails unless this proof is of the group's generation.
    pub(super) fn check(&self, token: &GroupToken) -> Result<(), LogError> {
        let proof = token.proof.downcast_ref::<FakeGroupProof>().expect("our own proof");
        let gone = || LogError::Fenced(format!("there is no group {}", token.group));
        self.groups.get(&token.group).ok_or_else(gone)?.check(proof)
    }

    /// Ends the sessions of a process's members: they lose their partitions and learn it later.
    pub(crate) fn expire(&mut self, process: u64) {
        let mut any = false;
        for group in self.groups.values_mut() {
            any |= group.expire(process, self.now);
        }
        if any {
            self.count("sessions expired");
        }
    }

    /// Ends the sessions of all processes that have died.
    pub(crate) fn expire_dead(&mut self) {
        for process in self.dead.clone() {
            self.expire(process);
        }
    }

    /// Applies retention and compaction to these topics.
    pub(crate) fn clean(&mut self, which: impl Fn(&Topic) -> bool) {
        let names: Vec<_> = self.topics.keys().filter(|name| which(name)).cloned().collect();
        for name in names {
            let stable: Vec<u64> = (0..self.topics[&name].spec.partitions)
                .map(|p| TopicPartition::new(&name, Partition(p)))
                .map(|at| self.end(&at, Isolation::Committed).expect("it is there"))
                .collect();
            let (now, transactions) = (self.now, &self.transactions);
            let aborted = |n: usize| transactions[n].outcome == TransactionOutcome::Aborted;
            let topic = self.topics.get_mut(&name).expect("it is there");
            for (partition, stable) in topic.partitions.iter_mut().zip(stable) {
                partition
                    .clean(topic.spec.cleanup, &CleanupContext { now, stable, aborted: &aborted });
            }
        }
    }
}
