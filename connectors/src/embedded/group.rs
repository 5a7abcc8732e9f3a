//! The coordinator of consumer groups: who owns which partitions, and who may still commit.
//!
//! For one process. It does no IO: time is a parameter, and members are signalled by their
//! notifiers.
//!
//! ```text
//!            join, leave, expelled                    all acknowledged
//!   Stable ───────────────────────▶ Preparing ───────────────────────▶ Stable, generation + 1
//!                                   members get Revoked                members get Assigned
//! ```
//!
//! A member acknowledges a revocation with the first call of `changes` after the one that returned
//! it. Until then its generation is valid, so that it can commit its work. A member that does not
//! acknowledge within [`REVOKE_MS_MAX`] is expelled: it gets `Lost` and joins again. The assignment
//! is Kafka's range, so that partition p of every topic goes to the same member.
//!
//! A static member that leaves keeps its partitions for [`ABSENCE_MS_MAX`]: the same name gets them
//! back without a rebalance. If two use one name at once, the newer one fences the older.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use tidewire_engine::port::{Change, LogError, MemberSpec};
use tidewire_engine::record::{Millis, Partition, TopicPartition};

use super::config::{ABSENCE_MS_MAX, REVOKE_MS_MAX};
use crate::notify::Notifier;

/// Identifies a membership; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct MemberId(u64);

/// What a member has to present for a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MembershipProof {
    /// Its group.
    pub(super) group: String,
    /// Itself.
    pub(super) member: MemberId,
    /// The generation it was a member of.
    pub(super) generation: u64,
}

/// All groups.
#[derive(Default)]
pub(super) struct Coordinator {
    groups: HashMap<String, Group>,
    next_member: u64,
}

#[derive(Default)]
struct Group {
    generation: u64,
    members: BTreeMap<MemberId, Membership>,
    /// Until when the members have to acknowledge; `None` while stable.
    rebalance_deadline: Option<Millis>,
}

struct Membership {
    spec: MemberSpec,
    partitions: u32,
    notifier: Arc<Notifier>,
    assigned: Vec<TopicPartition>,
    changes: VecDeque<Change>,
    revocation: Revocation,
    /// Since when the static member is absent.
    absent: Option<Millis>,
}

/// How far a member's revocation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Revocation {
    None,
    /// Among its changes, not fetched yet.
    Queued,
    /// Fetched; the next fetch acknowledges.
    Delivered,
    Acknowledged,
    /// Too late: its partitions are assigned to others.
    Expelled,
}

impl Coordinator {
    /// Adds a member; `partitions` is the number of partitions of each of its topics.
    pub(super) fn join(
        &mut self,
        spec: &MemberSpec,
        partitions: u32,
        notifier: Arc<Notifier>,
        now: Millis,
    ) -> MemberId {
        self.next_member += 1;
        let id = MemberId(self.next_member);
        let group = self.groups.entry(spec.group.clone()).or_default();
        let mut member = Membership {
            spec: spec.clone(),
            partitions,
            notifier,
            assigned: Vec::new(),
            changes: VecDeque::new(),
            revocation: Revocation::Acknowledged,
            absent: None,
        };
        if let Some(before) = group.same_instance(spec) {
            let previous = group.members.remove(&before).expect("found just now");
            if previous.spec.topics == spec.topics && group.rebalance_deadline.is_none() {
                member.revocation = Revocation::None;
                member.assigned.clone_from(&previous.assigned);
                member.push_change(Change::Assigned(previous.assigned));
                group.members.insert(id, member);
                return id;
            }
        }
        group.members.insert(id, member);
        group.start_rebalance(now);
        group.finish_rebalance(now);
        id
    }

    /// The member was dropped.
    pub(super) fn leave(&mut self, group: &str, id: MemberId, now: Millis) {
        let Some(group) = self.groups.get_mut(group) else { return };
        let Some(member) = group.members.get_mut(&id) else { return };
        if !member.spec.instance.is_empty() && group.rebalance_deadline.is_none() {
            member.absent = Some(now);
            member.changes.clear();
            return;
        }
        group.members.remove(&id);
        group.start_rebalance(now);
        group.finish_rebalance(now);
    }

    /// Changes for this member, oldest first; acknowledges the revocation fetched before.
    pub(super) fn changes(
        &mut self,
        group: &str,
        id: MemberId,
        now: Millis,
    ) -> Result<Vec<Change>, LogError> {
        let group = self.groups.get_mut(group).ok_or_else(|| taken_over(group))?;
        group.drop_absent(now);
        let member = group.members.get_mut(&id).ok_or_else(|| taken_over("this membership"))?;
        match member.revocation {
            Revocation::Delivered => {
                member.revocation = Revocation::Acknowledged;
                member.assigned.clear();
            }
            Revocation::Expelled => {
                // It gets `Lost` now and takes part in the next assignment.
                member.revocation = Revocation::Acknowledged;
                group.start_rebalance(now);
            }
            _ => {}
        }
        group.finish_rebalance(now);
        let member = group.members.get_mut(&id).expect("looked up above");
        if member.revocation == Revocation::Queued {
            member.revocation = Revocation::Delivered;
        }
        Ok(member.changes.drain(..).collect())
    }

    /// Whether a call of `changes` is due.
    pub(super) fn pending(&self, group: &str, id: MemberId) -> bool {
        let member = self.groups.get(group).and_then(|group| group.members.get(&id));
        member.is_none_or(|m| !m.changes.is_empty() || m.revocation == Revocation::Delivered)
    }

    /// The proof of this membership, for a commit.
    pub(super) fn proof(&self, group: &str, id: MemberId) -> Result<MembershipProof, LogError> {
        let (name, group) = self.groups.get_key_value(group).ok_or_else(|| taken_over(group))?;
        let proof =
            MembershipProof { group: name.clone(), member: id, generation: group.generation };
        self.check(&proof)?;
        Ok(proof)
    }

    /// Fails unless the member may commit.
    pub(super) fn check(&self, proof: &MembershipProof) -> Result<(), LogError> {
        let group = self.groups.get(&proof.group);
        let member = group.and_then(|group| group.members.get(&proof.member));
        let good = member.is_some_and(|member| {
            member.absent.is_none()
                && !matches!(member.revocation, Revocation::Acknowledged | Revocation::Expelled)
        });
        if good && group.is_some_and(|group| group.generation == proof.generation) {
            return Ok(());
        }
        Err(LogError::Fenced(format!(
            "the partitions of group {} belong to a newer generation",
            proof.group
        )))
    }
}

fn taken_over(what: &str) -> LogError {
    LogError::Fenced(format!("{what}: a member with the same name joined"))
}

impl Membership {
    fn push_change(&mut self, change: Change) {
        self.changes.push_back(change);
        self.notifier.signal();
    }
}

impl Group {
    fn same_instance(&self, spec: &MemberSpec) -> Option<MemberId> {
        let same = |m: &Membership| !spec.instance.is_empty() && m.spec.instance == spec.instance;
        let found = self.members.iter().find(|(_, member)| same(member));
        found.map(|(id, member)| {
            // The older one gets an error at its next call.
            member.notifier.signal();
            *id
        })
    }

    /// Removes members that did not come back in time.
    fn drop_absent(&mut self, now: Millis) {
        let gone = |m: &Membership| m.absent.is_some_and(|at| now.0 - at.0 > ABSENCE_MS_MAX);
        if self.members.values().any(gone) {
            self.members.retain(|_, member| !gone(member));
            self.start_rebalance(now);
        }
    }

    /// Revokes the partitions of every member.
    fn start_rebalance(&mut self, now: Millis) {
        if self.rebalance_deadline.is_some() {
            return;
        }
        self.rebalance_deadline = Some(Millis(now.0 + REVOKE_MS_MAX));
        // An absent member has nothing to commit.
        self.members.retain(|_, member| member.absent.is_none());
        for member in self.members.values_mut() {
            if member.revocation != Revocation::None {
                continue;
            }
            let undelivered = matches!(member.changes.back(), Some(Change::Assigned(_)));
            if member.assigned.is_empty() || undelivered {
                // The member has not seen these partitions, or has none.
                member.changes.pop_back();
                member.assigned.clear();
                member.revocation = Revocation::Acknowledged;
            } else {
                member.revocation = Revocation::Queued;
                let assigned = member.assigned.clone();
                member.push_change(Change::Revoked(assigned));
            }
        }
    }

    /// Starts the next generation once every member acknowledged or the deadline has passed.
    fn finish_rebalance(&mut self, now: Millis) {
        let Some(deadline) = self.rebalance_deadline else { return };
        let late = now >= deadline;
        for member in self.members.values_mut() {
            if late && matches!(member.revocation, Revocation::Queued | Revocation::Delivered) {
                member.revocation = Revocation::Expelled;
                member.changes.clear();
                let lost = std::mem::take(&mut member.assigned);
                member.push_change(Change::Lost(lost));
            }
        }
        let waiting =
            |m: &Membership| matches!(m.revocation, Revocation::Queued | Revocation::Delivered);
        if self.members.values().any(waiting) {
            return;
        }
        self.rebalance_deadline = None;
        self.generation += 1;
        self.assign();
    }

    fn assign(&mut self) {
        let mut topics: Vec<_> =
            self.members.values().flat_map(|m| m.spec.topics.iter().cloned()).collect();
        topics.sort();
        topics.dedup();
        for member in self.members.values_mut() {
            if member.revocation == Revocation::Acknowledged {
                member.revocation = Revocation::None;
                member.assigned.clear();
            }
        }
        for topic in topics {
            let subscribed =
                |m: &Membership| m.revocation == Revocation::None && m.spec.topics.contains(&topic);
            let mut receivers: Vec<_> =
                self.members.iter_mut().filter(|(_, member)| subscribed(member)).collect();
            receivers.sort_by(|(a, x), (b, y)| (&x.spec.instance, a).cmp(&(&y.spec.instance, b)));
            let count = receivers.len();
            for (at, (_, member)) in receivers.into_iter().enumerate() {
                let range = range(member.partitions, count, at);
                member.assigned.extend(range.map(|p| TopicPartition::new(&topic, Partition(p))));
            }
        }
        for member in self.members.values_mut() {
            if member.revocation == Revocation::None && !member.assigned.is_empty() {
                let assigned = member.assigned.clone();
                member.push_change(Change::Assigned(assigned));
            }
        }
    }
}

/// The partitions of the member with index `at` of `members`: shared equally, the first members get
/// one more.
fn range(partitions: u32, members: usize, at: usize) -> std::ops::Range<u32> {
    let (members, at) = (members as u32, at as u32);
    let (each, more) = (partitions / members, partitions % members);
    let start = at * each + at.min(more);
    start..start + each + u32::from(at < more)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidewire_engine::record::Topic;

    struct Case {
        coordinator: Coordinator,
        now: Millis,
    }

    impl Case {
        fn new() -> Self {
            Self { coordinator: Coordinator::default(), now: Millis(1_000) }
        }

        fn join(&mut self, instance: &str) -> MemberId {
            let topics = vec![Topic::new("a"), Topic::new("b")];
            let spec = MemberSpec { group: "g".to_owned(), topics, instance: instance.to_owned() };
            self.coordinator.join(&spec, 3, Arc::default(), self.now)
        }

        /// Changes as text: `+` assigned, `-` revoked, `x` lost, with partition numbers.
        fn changes(&mut self, id: MemberId) -> String {
            let changes = match self.coordinator.changes("g", id, self.now) {
                Ok(changes) => changes,
                Err(error) => return format!("{error}").split(':').next().unwrap().to_owned(),
            };
            let text = |(sign, list): (char, &Vec<TopicPartition>)| {
                let a: Vec<_> = list.iter().filter(|at| at.topic.as_str() == "a").collect();
                assert_eq!(a.len() * 2, list.len(), "both topics alike");
                let numbers: Vec<_> = a.iter().map(|at| at.partition.0.to_string()).collect();
                format!("{sign}{}", numbers.join(""))
            };
            let parts: Vec<String> = changes
                .iter()
                .map(|change| match change {
                    Change::Assigned(list) => ('+', list),
                    Change::Revoked(list) => ('-', list),
                    Change::Lost(list) => ('x', list),
                })
                .map(text)
                .collect();
            parts.join(" ")
        }

        /// Lets both members fetch, acknowledge and fetch again.
        fn settle(&mut self, members: [MemberId; 2]) {
            for id in members.into_iter().cycle().take(4) {
                self.changes(id);
            }
        }

        fn may_commit(&self, proof: &MembershipProof) -> bool {
            self.coordinator.check(proof).is_ok()
        }

        fn proof(&self, id: MemberId) -> MembershipProof {
            self.coordinator.proof("g", id).unwrap()
        }
    }

    #[test]
    fn partitions_are_revoked_and_acknowledged_before_another_gets_them() {
        let mut case = Case::new();
        let a = case.join("a");
        assert_eq!(case.changes(a), "+012");
        let b = case.join("b");
        assert_eq!(case.changes(b), "");
        assert_eq!(case.changes(a), "-012");
        assert_eq!(case.changes(b), "");
        assert_eq!(case.changes(a), "+01");
        assert_eq!(case.changes(b), "+2");
    }

    #[test]
    fn a_member_may_commit_until_it_acknowledged_and_not_after() {
        let mut case = Case::new();
        let a = case.join("a");
        case.changes(a);
        let proof = case.proof(a);
        let b = case.join("b");
        assert_eq!(case.changes(a), "-012");
        assert!(case.may_commit(&proof));
        case.changes(a);
        assert!(!case.may_commit(&proof));
        case.changes(b);
        assert!(case.may_commit(&case.proof(a)));
    }

    #[test]
    fn a_member_that_does_not_answer_is_expelled_and_comes_back() {
        let mut case = Case::new();
        let a = case.join("a");
        case.changes(a);
        let proof = case.proof(a);
        let b = case.join("b");
        assert_eq!(case.changes(b), "");
        case.now.0 += REVOKE_MS_MAX;
        assert_eq!(case.changes(b), "+012");
        assert!(!case.may_commit(&proof));
        assert_eq!(case.changes(a), "x012");
        assert_eq!(case.changes(b), "-012");
        assert_eq!(case.changes(b), "+2");
        assert_eq!(case.changes(a), "+01");
    }

    #[test]
    fn a_static_member_that_comes_back_in_time_causes_no_rebalance() {
        let mut case = Case::new();
        let (a, b) = (case.join("a"), case.join("b"));
        case.settle([a, b]);
        let proof = case.proof(a);
        case.coordinator.leave("g", a, case.now);
        case.now.0 += ABSENCE_MS_MAX;
        assert_eq!(case.changes(b), "");
        assert!(!case.may_commit(&proof));
        let a = case.join("a");
        assert_eq!(case.changes(a), "+01");
        assert_eq!(case.changes(b), "");
    }

    #[test]
    fn the_partitions_of_a_member_that_stays_away_go_to_the_others() {
        let mut case = Case::new();
        let (a, b) = (case.join("a"), case.join("b"));
        case.settle([a, b]);
        case.coordinator.leave("g", a, case.now);
        case.now.0 += ABSENCE_MS_MAX + 1;
        assert_eq!(case.changes(b), "-2");
        assert_eq!(case.changes(b), "+012");
    }

    #[test]
    fn the_newer_of_two_members_with_one_name_fences_the_older() {
        let mut case = Case::new();
        let first = case.join("a");
        case.changes(first);
        let proof = case.proof(first);
        let second = case.join("a");
        assert!(!case.may_commit(&proof));
        assert_eq!(case.changes(first), "another instance took over");
        assert_eq!(case.changes(second), "+012");
    }

    #[test]
    fn ranges_cover_every_partition_once() {
        for members in 1..6 {
            for partitions in 0..12 {
                let all: Vec<u32> =
                    (0..members).flat_map(|at| range(partitions, members, at)).collect();
                assert_eq!(all, (0..partitions).collect::<Vec<_>>());
            }
        }
    }
}
