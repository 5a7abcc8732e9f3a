//! A share of a loop's tasks, and the transactions these are committed in.
//!
//! The one idea: a transaction spends most of its time waiting for the log. The tasks of a loop are
//! split over two lines, each with transactions of its own, so that the log works on the records of
//! one while the tasks of the other are stepped. What a line has taken is its own transaction:
//! either all of it is committed or nothing.
//!
//! Two transactional ids of a line take turns, because a broker is still busy with the last
//! transaction of an id right after it said yes.

use crate::derive::failure::CommitFailure;
use crate::port::{Committed, Log, LogError, Member, Transactor};
use crate::record::{Offset, Outgoing, Partition, TopicPartition};
use crate::turn::{EngineError, repeat};

/// Lines of a loop: one steps while the other waits, and a third would have nothing to do.
pub(super) const COMMIT_GROUPS: usize = 2;

/// One of a loop's lines.
pub(super) struct CommitGroup {
    transactors: [Box<dyn Transactor>; 2],
    /// Which of the two is next.
    pub(super) transactor: usize,
    /// Whether that one has a transaction open.
    pub(super) open: bool,
    /// Records that have not left yet; kept for its capacity.
    pub(super) outgoing: Vec<Outgoing>,
}

impl CommitGroup {
    /// A loop's lines, their transactional ids made anew; what these left open is aborted.
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

    /// The line of a task.
    pub(super) fn of(partition: Partition) -> usize {
        partition.0 as usize % COMMIT_GROUPS
    }

    /// Appends what has not left yet, opening the transaction if it isn't.
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

    /// Drain, offsets, commit. Where every partition written to ends now.
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

    /// Undoes the open transaction, if there is one.
    pub(super) fn abort(&mut self) -> Result<(), LogError> {
        self.outgoing.clear();
        if !std::mem::take(&mut self.open) {
            return Ok(());
        }
        let transactor = &mut self.transactors[self.transactor];
        repeat(|| transactor.abort())
    }
}

/// The transactional ids of an owner, two for each of its lines.
pub(super) fn transactional_ids(owner: &str) -> [String; 4] {
    ["a", "b", "c", "d"].map(|letter| format!("{owner}-{letter}"))
}
