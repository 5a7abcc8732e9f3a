//! Facts and forwarded copies: what a task writes to the lanes of facts for tasks of other keys.
//!
//! A copy is an event for the operators that it moves for another key than its own. There is one
//! copy per key, however many operators it is for. Both are written in the transaction of their
//! cause, in packs (`fact_pack.rs`), so they are processed exactly once without de-duplication. A
//! copy is never delivered.

use bytes::Bytes;

use crate::derive::audit::layout::AuditedCopy;
use crate::derive::batch::TaskOutput;
use crate::derive::operator::Rules;
use crate::derive::pending_copies::PendingCopy;
use crate::derive::plan::OperatorSet;
use crate::derive::taken_record::LaneRecord;
use crate::derive::trigger::Inherited;
use crate::fact_pack::PackedFact;
use crate::record::TopicPartition;
use crate::topology::Lane;

/// The key of a forwarded copy, and the operators it is for.
pub(super) struct ForwardedTo<'a> {
    pub(super) key: &'a str,
    pub(super) numbers: &'a [u8],
}

impl<'a> ForwardedTo<'a> {
    /// Reads an entry of a lane; `None` if it is no copy.
    pub(super) fn of(taken: &LaneRecord<'a>) -> Option<Self> {
        if !taken.lane.has_facts() {
            return None;
        }
        let numbers = taken.record.operators()?;
        let key = std::str::from_utf8(taken.record.key().unwrap_or_default()).ok()?;
        Some(Self { key, numbers })
    }

    /// The operators of this build that it is for, and the numbers of those it does not have.
    pub(super) fn operators(&self, rules: Rules<'_>) -> (OperatorSet, Vec<u8>) {
        let (mut known, mut unknown) = (OperatorSet::default(), Vec::new());
        for number in self.numbers {
            match rules.operators.iter().position(|o| o.number() == *number) {
                Some(index) => known = known.with(OperatorSet::of(index)),
                None => unknown.push(*number),
            }
        }
        (known, unknown)
    }
}

/// A fact for a key.
pub(super) fn fact(key: &str, value: Bytes, inherited: Inherited) -> PackedFact {
    let Inherited { hops, time, .. } = inherited;
    let key = Bytes::copy_from_slice(key.as_bytes());
    PackedFact { hops, time, operators: Bytes::new(), key, value }
}

/// A copy of the event `value` for one key.
pub(super) fn copy_for(to: &PendingCopy, value: Bytes, inherited: Inherited) -> PackedFact {
    let operators = Bytes::copy_from_slice(&to.operators);
    PackedFact { operators, ..fact(&to.key, value, inherited) }
}

/// A fact or copy as an output to the task of its account and key.
pub(super) fn fact_output(
    rules: Rules<'_>,
    account: &str,
    lane: Lane,
    fact: PackedFact,
) -> TaskOutput {
    let key = std::str::from_utf8(&fact.key).unwrap_or_default();
    let partition = rules.topology.entity_partition(account, key);
    let to = TopicPartition::new(rules.topology.lane(lane), partition);
    TaskOutput::Fact { to, fact }
}

/// A copy as the audit names it.
pub(super) fn audited_copy(copy: &PendingCopy, lane: Lane) -> AuditedCopy<'_> {
    AuditedCopy { key: &copy.key, lane, operators: &copy.operators }
}
