//! A consumer group: its members, their partitions, and who may still commit.
//!
//! It rebalances eagerly: every member gives up all its partitions. A member acknowledges with the
//! call of `changes` after the one that reported the revocation. When all have acknowledged, the
//! next generation assigns each topic by range. Until then the old generation is valid, so that
//! finished work can be committed.
//!
//! A static member that rejoins gets its partitions back without a rebalance. One that does not
//! acknowledge in time is expelled, and learns of its loss at its next call.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tidewire_engine::port::{Change, LogError, MemberSpec};
use tidewire_engine::record::{Millis, Partition, TopicPartition};

/// A member that does not acknowledge a revocation within this time is expelled. Some histories
/// reach it.
const REVOKE_MS_MAX: i64 = 4_000;

/// How long the partitions of a static member that left are kept for it.
const ABSENCE_MS_MAX: i64 = 4_000;

/// The state of a member within the generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MemberState {
    /// It owns its partitions.
    Stable,
    /// The revocation is queued among its changes.
    RevocationQueued,
    /// It has received the revocation; its next call acknowledges it.
    Revoking,
    /// It has no partitions and waits for the next generation.
    Joining,
    /// It lost everything, and rejoins once it has received the loss.
    Expelled,
}

#[derive(Debug)]
struct GroupMember {
    process: u64,
    spec: MemberSpec,
    /// The partition count of its topics.
    partitions: u32,
    state: MemberState,
    assigned: Vec<TopicPartition>,
    changes: VecDeque<Change>,
    /// Since when it has left.
    absent: Option<Millis>,
}

/// A group.
#[derive(Debug, Default)]
pub(super) struct FakeGroup {
    generation: u64,
    members: BTreeMap<u64, GroupMember>,
    /// The deadline for giving up partitions during a rebalance, if there is one.
    preparing: Option<Millis>,
}

/// The proof of membership that a commit needs.
#[derive(Clone, Debug)]
pub(super) struct FakeGroupProof {
    pub(super) member: u64,
    pub(super) generation: u64,
}

/// A request to join.
pub(super) struct JoinRequest<'a> {
    /// Never used before.
    pub(super) member: u64,
    pub(super) process: u64,
    pub(super) spec: &'a MemberSpec,
    pub(super) partitions: u32,
}

impl FakeGroup {
    pub(super) fn join(&mut self, request: &JoinRequest<'_>, now: Millis) {
        let spec = request.spec;
        let mut member = GroupMember {
            process: request.process,
            spec: spec.clone(),
            partitions: request.partitions,
            state: MemberState::Joining,
            assigned: Vec::new(),
            changes: VecDeque::new(),
            absent: None,
        };
        let same = self.members.iter().find(|(_, m)| m.spec.instance == spec.instance);
        if let Some(before) = same.map(|(id, _)| *id) {
            let before = self.members.remove(&before).expect("found just now");
            if before.state == MemberState::Stable && before.spec.topics == spec.topics {
                member.state = MemberState::Stable;
                member.assigned.clone_from(&before.assigned);
                member.changes.push_back(Change::Assigned(before.assigned));
                self.members.insert(request.member, member);
                return;
            }
        }
        self.members.insert(request.member, member);
        self.prepare(now);
        self.finish(now);
    }

    /// The process of this member has closed it.
    pub(super) fn leave(&mut self, id: u64, now: Millis) {
        let Some(member) = self.members.get_mut(&id) else { return };
        if self.preparing.is_none() && member.state == MemberState::Stable {
            member.absent = Some(now);
            member.changes.clear();
            return;
        }
        self.members.remove(&id);
        self.prepare(now);
        self.finish(now);
    }

    /// The queued changes of this member; acknowledges a revocation received before.
    pub(super) fn changes(&mut self, id: u64, now: Millis) -> Result<Vec<Change>, LogError> {
        let away = |m: &GroupMember| m.absent.is_some_and(|at| now.0 - at.0 > ABSENCE_MS_MAX);
        if self.members.values().any(away) {
            self.prepare(now);
        }
        let member = self.member(id)?;
        match member.state {
            MemberState::Revoking => {
                member.state = MemberState::Joining;
                member.assigned.clear();
            }
            MemberState::Expelled => {
                member.state = MemberState::Joining;
                self.prepare(now);
            }
            MemberState::Stable | MemberState::RevocationQueued | MemberState::Joining => {}
        }
        self.finish(now);
        let member = self.member(id)?;
        if member.state == MemberState::RevocationQueued {
            member.state = MemberState::Revoking;
        }
        Ok(member.changes.drain(..).collect())
    }

    fn member(&mut self, id: u64) -> Result<&mut GroupMember, LogError> {
        let taken_over = || LogError::Fenced("another member of this name joined".to_owned());
        self.members.get_mut(&id).ok_or_else(taken_over)
    }

    /// The current proof of membership, checked when it is used.
    pub(super) fn proof(&self, member: u64) -> FakeGroupProof {
        FakeGroupProof { member, generation: self.generation }
    }

    /// Fails unless this member may commit.
    pub(super) fn check(&self, proof: &FakeGroupProof) -> Result<(), LogError> {
        let holds = |m: &GroupMember| {
            m.absent.is_none()
                && matches!(
                    m.state,
                    MemberState::Stable | MemberState::RevocationQueued | MemberState::Revoking
                )
        };
        let member = self.members.get(&proof.member);
        if proof.generation == self.generation && member.is_some_and(holds) {
            return Ok(());
        }
        Err(LogError::Fenced("the group has gone on to another generation".to_owned()))
    }

    /// Ends the sessions of a process's members; returns whether it had any.
    pub(super) fn expire(&mut self, process: u64, now: Millis) -> bool {
        let mut any = false;
        for member in self.members.values_mut() {
            if member.process == process && member.state != MemberState::Expelled {
                member.expel();
                any = true;
            }
        }
        if any {
            self.prepare(now);
            self.finish(now);
        }
        any
    }

    /// Starts a rebalance: asks every member to give up its partitions.
    fn prepare(&mut self, now: Millis) {
        if self.preparing.is_some() {
            return;
        }
        self.preparing = Some(Millis(now.0 + REVOKE_MS_MAX));
        // No process commits for a member that has left.
        self.members.retain(|_, member| member.absent.is_none());
        for member in self.members.values_mut().filter(|m| m.state == MemberState::Stable) {
            if member.assigned.is_empty() || member.has_unread_changes() {
                member.changes.clear();
                member.assigned.clear();
                member.state = MemberState::Joining;
            } else {
                member.state = MemberState::RevocationQueued;
                member.changes.push_back(Change::Revoked(member.assigned.clone()));
            }
        }
    }

    /// Starts the next generation once no member has to give up anything.
    fn finish(&mut self, now: Millis) {
        let Some(deadline) = self.preparing else { return };
        let mut waiting = false;
        for member in self.members.values_mut() {
            if matches!(member.state, MemberState::RevocationQueued | MemberState::Revoking) {
                if now >= deadline {
                    member.expel();
                } else {
                    waiting = true;
                }
            }
        }
        if !waiting {
            self.preparing = None;
            self.generation += 1;
            self.assign();
        }
    }

    fn assign(&mut self) {
        let stand = |m: &&mut GroupMember| m.state == MemberState::Joining;
        let mut members: Vec<_> = self.members.values_mut().filter(stand).collect();
        members.sort_by(|a, b| a.spec.instance.cmp(&b.spec.instance));
        let topics: BTreeSet<_> = members.iter().flat_map(|m| m.spec.topics.clone()).collect();
        for topic in topics {
            let takers: Vec<_> =
                members.iter_mut().filter(|m| m.spec.topics.contains(&topic)).collect();
            let count = takers.len() as u32;
            let mut next = 0;
            for (nth, member) in takers.into_iter().enumerate() {
                let more = u32::from((nth as u32) < member.partitions % count);
                let end = next + member.partitions / count + more;
                let own = (next..end).map(|p| TopicPartition::new(&topic, Partition(p)));
                member.assigned.extend(own);
                next = end;
            }
        }
        for member in members {
            member.state = MemberState::Stable;
            member.changes.push_back(Change::Assigned(member.assigned.clone()));
        }
    }
}

impl GroupMember {
    /// Whether it has not received its assignment yet, so that it has begun nothing.
    fn has_unread_changes(&self) -> bool {
        matches!(self.changes.back(), Some(Change::Assigned(_)))
    }

    fn expel(&mut self) {
        let lost = std::mem::take(&mut self.assigned);
        let nothing = lost.is_empty() || self.has_unread_changes();
        self.changes.clear();
        if !nothing {
            self.changes.push_back(Change::Lost(lost));
        }
        self.state = MemberState::Expelled;
    }
}
