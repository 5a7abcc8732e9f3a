//! Forwarded copies: an event in a lane of facts, for the operators that it moves for another key.
//!
//! ```text
//! key      the key for which the operators run, not the event's own
//! value    the event, byte for byte
//! headers  tw-for (the operators' numbers, a byte each) · tw-hops · tw-time
//! ```
//!
//! There is one copy per key, however many operators it is for. It is written in the transaction of
//! the event, so it is processed exactly once without de-duplication, and it is never delivered.

use crate::derive::audit::layout::AuditedCopy;
use crate::derive::operator::Rules;
use crate::derive::plan::{ForKey, OperatorSet};
use crate::derive::trigger::{HOPS, Inherited, TIME};
use crate::record::{Body, Outgoing, Record};
use crate::topology::Lane;

/// The header of a forwarded copy: the numbers of the operators it is for.
pub(super) const FOR: &str = "tw-for";

/// The key of a forwarded copy, and the operators it is for.
pub(super) struct ForwardedTo<'a> {
    pub(super) key: &'a str,
    pub(super) numbers: &'a [u8],
}

impl<'a> ForwardedTo<'a> {
    /// Reads a record of a lane; `None` if it is no copy.
    pub(super) fn of(lane: Lane, record: &'a Record) -> Option<Self> {
        if !matches!(lane, Lane::Facts | Lane::FactsUrgent) {
            return None;
        }
        let numbers = record.body.header(FOR)?;
        let key = std::str::from_utf8(record.body.key().unwrap_or_default()).ok()?;
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

/// The body of a copy of `value` for one key.
pub(super) fn forwarded_body(
    rules: Rules<'_>,
    to: &ForKey,
    value: &[u8],
    inherited: Inherited,
) -> Body {
    let numbers: Vec<u8> = to.operators.iter().map(|n| rules.operators[n].number()).collect();
    let time = inherited.time.0.to_be_bytes();
    let headers: &[(&str, &[u8])] = &[(FOR, &numbers), (HOPS, &[inherited.hops]), (TIME, &time)];
    Body::new(Some(to.key.as_bytes()), Some(value), headers)
}

/// The record of a copy, in the task of its account and of the body's key.
pub(super) fn forwarded_record(
    rules: Rules<'_>,
    account: &str,
    inherited: Inherited,
    body: Body,
) -> Outgoing {
    let key = std::str::from_utf8(body.key().unwrap_or_default()).unwrap_or_default();
    let topology = rules.topology;
    let topic = topology.lane(inherited.lane).clone();
    let partition = topology.entity_partition(account, key);
    Outgoing { topic, partition, body }
}

/// A copy as the audit names it.
pub(super) fn audited_copy(record: &Outgoing, lane: Lane) -> AuditedCopy<'_> {
    let key = std::str::from_utf8(record.body.key().unwrap_or_default()).unwrap_or_default();
    AuditedCopy { key, lane, operators: record.body.header(FOR).unwrap_or_default() }
}
