//! A commit group: half of a loop's tasks, committed in transactions of their own.
//!
//! A transaction spends most of its time waiting for the log. With two groups the log works on the
//! records of one while the tasks of the other are processed. Either everything a group has
//! processed in a transaction is committed or nothing.
//!
//! Two transactional ids of a group alternate, because a broker still completes the last
//! transaction of an id right after it has confirmed it.

use crate::derive::failure::CommitFailure;
use crate::port::{Committed, Log, LogError, Member, Transactor};
use crate::record::{Offset, Outgoing, Partition, TopicPartition};
use crate::turn::{EngineError, repeat};

/// Commit groups of a loop: one is processed while the other waits for the log; a third would have
/// nothing to do.
pub(super) const COMMIT_GROUPS: usize = 2;

/// One of a loop's commit groups.
pub(super) struct CommitGroup {
    transactors: [Box<dyn Transactor>; 2],
    /// The index of the current transactor.
    pub(super) transactor: usize,
    /// Whether the current transactor has an open transaction.
    pub(super) open: bool,
    /// Records that are not appended yet; kept for its capacity.
    pub(super) outgoing: Vec<Outgoing>,
}

impl CommitGroup {
    /// Creates a loop's commit groups. Their transactional ids are initialised, which aborts the
    /// transactions these left open.
    pub(super) fn all(log: &dyn Log, owner: &str) -> Result<[Self; COMMIT_GROUPS], EngineError> {
        let [a, b, c, d] = transactional_ids(owner);
        let make = |id: &str| {
            repeat(|| log.transactor(id))
                .map_err(|error| EngineError::of_log("initialising transactions", error))
        };
        let group =
            |transactors| Self { transactors, transactor: 0, open: false, outgoing: Vec::new() };
        Ok([group([make(&a)?, make(&b)?]), group([make(&c)?, make(&d)?])])
    }

    /// The commit group of a partition's task.
    pub(super) fn of(partition: Partition) -> usize {
        partition.0 as usize % COMMIT_GROUPS
    }

    /// Appends the waiting records, and begins a transaction if none is open.
    pub(super) fn append(&mut self) -> Result<(), CommitFailure> {
        let transactor = &mut self.transactors[self.transactor];
        if !self.open {
            repeat(|| transactor.begin())
                .map_err(|error| CommitFailure::before_commit("opening a transaction", error))?;
            self.open = true;
        }
        repeat(|| transactor.append(&self.outgoing))
            .map_err(|error| CommitFailure::before_commit("writing outputs", error))?;
        self.outgoing.clear();
        Ok(())
    }

    /// Drains, sends the offsets and commits. Returns the new end of every partition written to.
    pub(super) fn finish(
        &mut self,
        member: &mut dyn Member,
        offsets: &[(TopicPartition, Committed)],
    ) -> Result<Vec<(TopicPartition, Offset)>, CommitFailure> {
        let transactor = &mut self.transactors[self.transactor];
        repeat(|| transactor.drain())
            .map_err(|error| CommitFailure::before_commit("draining a transaction", error))?;
        let token = repeat(|| member.token())
            .map_err(|error| CommitFailure::before_commit("proving membership", error))?;
        repeat(|| transactor.send_offsets(&token, offsets))
            .map_err(|error| CommitFailure::before_commit("sending offsets", error))?;
        let ends = repeat(|| transactor.commit()).map_err(CommitFailure::of_commit)?;
        self.open = false;
        self.transactor ^= 1;
        Ok(ends)
    }

    /// Aborts the open transaction, if there is one.
    pub(super) fn abort(&mut self) -> Result<(), LogError> {
        self.outgoing.clear();
        if !std::mem::take(&mut self.open) {
            return Ok(());
        }
        let transactor = &mut self.transactors[self.transactor];
        repeat(|| transactor.abort())
    }
}

/// The transactional ids of an owner, two for each of its commit groups.
pub(super) fn transactional_ids(owner: &str) -> [String; 4] {
    ["a", "b", "c", "d"].map(|letter| format!("{owner}-{letter}"))
}
