//! What the log holds: records and control records, transactions, groups and their members.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tidewire_engine::port::{Change, Committed, Isolation, LogError, TopicSpec};
use tidewire_engine::record::{Body, Millis, Offset, Outgoing, Partition, Topic, TopicPartition};

use crate::random::Random;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Open,
    Committed,
    Aborted,
}

#[derive(Clone, Debug)]
pub(super) enum Entry {
    Record { time: Millis, body: Body, transaction: Option<usize> },
    Control,
}

#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) outcome: Outcome,
    pub(super) ends: BTreeMap<TopicPartition, Offset>,
    pub(super) offsets: Vec<(String, TopicPartition, Committed)>,
}

#[derive(Debug, Default)]
pub(super) struct Id {
    pub(super) epoch: u64,
    pub(super) open: Option<usize>,
}

#[derive(Debug)]
pub(super) struct GroupMember {
    pub(super) process: u64,
    pub(super) instance: String,
    pub(super) in_group: bool,
    pub(super) changes: VecDeque<Change>,
    pub(super) owns: BTreeSet<u32>,
    /// Told to let go; free once it asks for changes again.
    pub(super) releasing: BTreeSet<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) topics: Vec<Topic>,
    pub(super) members: BTreeMap<u64, GroupMember>,
}

/// Everything the log holds.
pub(crate) struct Inner {
    pub(super) topics: BTreeMap<Topic, (TopicSpec, Vec<Vec<Entry>>)>,
    pub(super) transactions: Vec<Transaction>,
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
    pub(super) fn part(&self, at: &TopicPartition) -> Result<&Vec<Entry>, LogError> {
        self.topics
            .get(&at.topic)
            .and_then(|(_, parts)| parts.get(at.partition.0 as usize))
            .ok_or_else(|| LogError::Invalid(format!("no {at}")))
    }

    pub(super) fn part_mut(&mut self, at: &TopicPartition) -> Result<&mut Vec<Entry>, LogError> {
        self.topics
            .get_mut(&at.topic)
            .and_then(|(_, parts)| parts.get_mut(at.partition.0 as usize))
            .ok_or_else(|| LogError::Invalid(format!("no {at}")))
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    /// The offset behind the last entry that no open transaction precedes.
    pub(super) fn stable_end(&self, at: &TopicPartition) -> Result<u64, LogError> {
        let part = self.part(at)?;
        let open = part.iter().position(|entry| match entry {
            Entry::Record { transaction: Some(n), .. } => {
                self.transactions[*n].outcome == Outcome::Open
            }
            _ => false,
        });
        Ok(open.unwrap_or(part.len()) as u64)
    }

    pub(super) fn visible(&self, entry: &Entry, isolation: Isolation) -> bool {
        match entry {
            Entry::Control => false,
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
        let time = self.now;
        let part = self.part_mut(&at)?;
        let offset = Offset(part.len() as u64);
        part.push(Entry::Record { time, body: record.body.clone(), transaction });
        if let Some(n) = transaction {
            self.transactions[n].ends.insert(at, offset.next());
        }
        Ok(offset)
    }

    pub(super) fn settle(&mut self, n: usize, outcome: Outcome) -> Vec<(TopicPartition, Offset)> {
        let transaction = &mut self.transactions[n];
        assert_eq!(transaction.outcome, Outcome::Open, "a transaction ends once");
        transaction.outcome = outcome;
        let ends: Vec<_> = transaction.ends.clone().into_iter().collect();
        let offsets = std::mem::take(&mut transaction.offsets);
        for (at, _) in &ends {
            self.part_mut(at).expect("it was written to").push(Entry::Control);
        }
        if outcome == Outcome::Committed {
            for (group, at, committed) in offsets {
                self.offsets.insert((group, at), committed);
            }
        }
        ends
    }

    /// Gives every free partition to the member whose turn it is, and asks others to let go.
    pub(super) fn rebalance(&mut self, group: &str) {
        let Some(group) = self.groups.get_mut(group) else { return };
        let partitions = self.topics[&group.topics[0]].0.partitions;
        let ids: Vec<u64> =
            group.members.iter().filter(|(_, m)| m.in_group).map(|(id, _)| *id).collect();
        if ids.is_empty() {
            return;
        }
        for p in 0..partitions {
            let target = ids[p as usize % ids.len()];
            let topics = group.topics.clone();
            let of =
                || topics.iter().map(|topic| TopicPartition::new(topic, Partition(p))).collect();
            let owner = group
                .members
                .iter()
                .find(|(_, m)| m.owns.contains(&p) || m.releasing.contains(&p))
                .map(|(id, _)| *id);
            match owner {
                Some(owner) if owner != target => {
                    let member = group.members.get_mut(&owner).expect("just found");
                    if member.owns.remove(&p) {
                        member.releasing.insert(p);
                        member.changes.push_back(Change::Revoked(of()));
                    }
                }
                Some(_) => {}
                None => {
                    let member = group.members.get_mut(&target).expect("one of the group");
                    member.owns.insert(p);
                    member.changes.push_back(Change::Assigned(of()));
                }
            }
        }
    }

    /// Ends the session of a process's members: they lose what they have, and learn it later.
    pub(crate) fn expire(&mut self, process: u64) {
        self.count("sessions expired");
        for name in self.groups.keys().cloned().collect::<Vec<_>>() {
            let group = self.groups.get_mut(&name).expect("listed");
            let topics = group.topics.clone();
            for member in group.members.values_mut().filter(|m| m.process == process) {
                let lost: BTreeSet<u32> =
                    member.owns.iter().chain(&member.releasing).copied().collect();
                let lost = topics
                    .iter()
                    .flat_map(|t| lost.iter().map(|p| TopicPartition::new(t, Partition(*p))))
                    .collect();
                member.owns.clear();
                member.releasing.clear();
                member.changes = VecDeque::from([Change::Lost(lost)]);
                member.in_group = false;
            }
            self.rebalance(&name);
        }
    }

    /// Whether a member owns a partition of its group.
    pub(super) fn owns(&self, group: &str, member: u64, partition: Partition) -> bool {
        self.groups
            .get(group)
            .and_then(|group| group.members.get(&member))
            .is_some_and(|m| m.in_group && m.owns.contains(&partition.0))
    }
}
