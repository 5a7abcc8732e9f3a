//! What the log holds: topics, transactions, what groups have committed, and the groups.

use std::collections::{BTreeMap, BTreeSet};

use tidewire_engine::port::{Cleanup, Committed, GroupToken, Isolation, LogError, TopicSpec};
use tidewire_engine::record::{Millis, Offset, Outgoing, Partition, Topic, TopicPartition};

use super::group::{Group, Proof};
use super::part::{Entry, Ground, Part};
use crate::random::Random;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Open,
    Committed,
    Aborted,
}

#[derive(Debug)]
pub(super) struct FakeTopic {
    pub(super) spec: TopicSpec,
    pub(super) id: u128,
    pub(super) parts: Vec<Part>,
}

/// What a transaction wrote in a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) first: Offset,
    /// Behind its last record.
    pub(super) end: Offset,
}

#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) outcome: Outcome,
    pub(super) spans: BTreeMap<TopicPartition, Span>,
    pub(super) offsets: Vec<(String, TopicPartition, Committed)>,
}

#[derive(Debug, Default)]
pub(super) struct Id {
    pub(super) epoch: u64,
    pub(super) open: Option<usize>,
}

/// Everything the log holds.
pub(crate) struct Inner {
    pub(super) topics: BTreeMap<Topic, FakeTopic>,
    pub(super) transactions: Vec<Transaction>,
    /// Those that are open.
    pub(super) open: BTreeSet<usize>,
    pub(super) ids: BTreeMap<String, Id>,
    pub(super) offsets: BTreeMap<(String, TopicPartition), Committed>,
    pub(super) groups: BTreeMap<String, Group>,
    pub(super) dead: BTreeSet<u64>,
    pub(super) next_member: u64,
    /// The clock; append times come from here.
    pub(crate) now: Millis,
    /// Chance, for faults.
    pub(crate) random: Random,
    /// Whether calls fail on purpose.
    pub(crate) faults: bool,
    /// What has happened, counted; a test asserts that faults did happen.
    pub(crate) tally: BTreeMap<&'static str, u64>,
}

impl Inner {
    /// A log without topics.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            topics: BTreeMap::new(),
            transactions: Vec::new(),
            open: BTreeSet::new(),
            ids: BTreeMap::new(),
            offsets: BTreeMap::new(),
            groups: BTreeMap::new(),
            dead: BTreeSet::new(),
            next_member: 0,
            now: Millis(1_767_607_200_000),
            random: Random::new(seed),
            faults: false,
            tally: BTreeMap::new(),
        }
    }

    /// Makes a topic, unless it is there.
    pub(super) fn create(&mut self, spec: &TopicSpec) -> Result<bool, LogError> {
        if let Some(there) = self.topics.get(&spec.topic) {
            if there.spec == *spec {
                return Ok(false);
            }
            let (name, there) = (&spec.topic, &there.spec);
            return Err(LogError::Invalid(format!("{name} is there as {there:?}, not {spec:?}")));
        }
        let parts = vec![Part::default(); spec.partitions as usize];
        let id = self.topics.len() as u128 + 1;
        self.topics.insert(spec.topic.clone(), FakeTopic { spec: spec.clone(), id, parts });
        Ok(true)
    }

    pub(super) fn topic(&self, name: &Topic) -> Result<&FakeTopic, LogError> {
        self.topics.get(name).ok_or_else(|| LogError::Invalid(format!("no topic {name}")))
    }

    pub(super) fn part(&self, at: &TopicPartition) -> Result<&Part, LogError> {
        let part = self.topic(&at.topic)?.parts.get(at.partition.0 as usize);
        part.ok_or_else(|| LogError::Invalid(format!("no partition {at}")))
    }

    /// Counts what has happened.
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    /// One past the newest record this isolation shows: for committed ones, where the first open
    /// transaction begins.
    pub(super) fn end(&self, at: &TopicPartition, isolation: Isolation) -> Result<u64, LogError> {
        let end = self.part(at)?.end();
        if isolation == Isolation::Uncommitted {
            return Ok(end);
        }
        let spans = self.open.iter().filter_map(|n| self.transactions[*n].spans.get(at));
        Ok(spans.map(|span| span.first.0).min().unwrap_or(end))
    }

    pub(super) fn visible(&self, entry: &Entry, isolation: Isolation) -> bool {
        match entry {
            Entry::Control | Entry::Gone => false,
            Entry::Record { transaction: None, .. } => true,
            Entry::Record { transaction: Some(n), .. } => {
                isolation == Isolation::Uncommitted
                    || self.transactions[*n].outcome == Outcome::Committed
            }
        }
    }

    pub(super) fn write(
        &mut self,
        record: &Outgoing,
        transaction: Option<usize>,
    ) -> Result<Offset, LogError> {
        let at = TopicPartition::new(&record.topic, record.partition);
        self.part(&at)?;
        let topic = self.topics.get_mut(&record.topic).expect("it has this partition");
        if !matches!(topic.spec.cleanup, Cleanup::Delete { .. }) && record.body.key().is_none() {
            return Err(LogError::Invalid(format!("{at} is compacted: its records have a key")));
        }
        let part = &mut topic.parts[at.partition.0 as usize];
        let offset = Offset(part.end());
        let body = record.body.clone();
        part.entries.push(Entry::Record { time: self.now, body, transaction });
        if let Some(n) = transaction {
            let spans = &mut self.transactions[n].spans;
            let span = spans.entry(at).or_insert(Span { first: offset, end: offset });
            span.end = offset.next();
        }
        Ok(offset)
    }

    /// Opens a transaction.
    pub(super) fn begin(&mut self) -> usize {
        let n = self.transactions.len();
        let (spans, offsets) = (BTreeMap::new(), Vec::new());
        self.transactions.push(Transaction { outcome: Outcome::Open, spans, offsets });
        self.open.insert(n);
        n
    }

    /// Ends a transaction, and says where it ended in each partition.
    pub(super) fn settle(&mut self, n: usize, outcome: Outcome) -> Vec<(TopicPartition, Offset)> {
        let transaction = &mut self.transactions[n];
        assert_eq!(transaction.outcome, Outcome::Open, "a transaction ends once");
        transaction.outcome = outcome;
        self.open.remove(&n);
        let ends: Vec<_> =
            transaction.spans.iter().map(|(at, span)| (at.clone(), span.end)).collect();
        let offsets = std::mem::take(&mut transaction.offsets);
        for (at, _) in &ends {
            let topic = self.topics.get_mut(&at.topic).expect("it was written to");
            topic.parts[at.partition.0 as usize].entries.push(Entry::Control);
        }
        if outcome == Outcome::Committed {
            for (group, at, committed) in offsets {
                self.offsets.insert((group, at), committed);
            }
        }
        ends
    }

    /// Whether an open transaction will decide what the group has committed of these.
    pub(super) fn is_undecided(&self, group: &str, of: &[TopicPartition]) -> bool {
        let mut pending = self.open.iter().flat_map(|n| &self.transactions[*n].offsets);
        pending.any(|(name, at, _)| name == group && of.contains(at))
    }

    /// Fails unless this proof is of the group's generation.
    pub(super) fn check(&self, token: &GroupToken) -> Result<(), LogError> {
        let proof = token.proof.downcast_ref::<Proof>().expect("our own proof");
        let gone = || LogError::Fenced(format!("there is no group {}", token.group));
        self.groups.get(&token.group).ok_or_else(gone)?.check(proof)
    }

    /// Ends the session of a process's members: they lose what they have, and learn it later.
    pub(crate) fn expire(&mut self, process: u64) {
        let mut any = false;
        for group in self.groups.values_mut() {
            any |= group.expire(process, self.now);
        }
        if any {
            self.count("sessions expired");
        }
    }

    /// Takes away what these topics do not keep.
    pub(crate) fn clean(&mut self, which: impl Fn(&Topic) -> bool) {
        let names: Vec<_> = self.topics.keys().filter(|name| which(name)).cloned().collect();
        for name in names {
            let stable: Vec<u64> = (0..self.topics[&name].spec.partitions)
                .map(|p| TopicPartition::new(&name, Partition(p)))
                .map(|at| self.end(&at, Isolation::Committed).expect("it is there"))
                .collect();
            let (now, transactions) = (self.now, &self.transactions);
            let aborted = |n: usize| transactions[n].outcome == Outcome::Aborted;
            let topic = self.topics.get_mut(&name).expect("it is there");
            for (part, stable) in topic.parts.iter_mut().zip(stable) {
                part.clean(topic.spec.cleanup, &Ground { now, stable, aborted: &aborted });
            }
        }
    }
}
