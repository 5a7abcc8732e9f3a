//! Copies of an event that are still to be written: a record in the task's own lane of facts.
//!
//! An event may move operators for a hundred other keys. If it is large, its copies are more than
//! one transaction may hold. So the task writes those that fit, and one record that lists the
//! others. It reads that record again from its lane, and goes on there. The dead letter of copies
//! that were not written is the same record, so one requeue brings all of them.
//!
//! ```text
//! key      the event's key
//! value    the event, byte for byte
//! headers  tw-copies (for each key: length, text, number of operators, their numbers, a byte each)
//!          · tw-hops, tw-time (those of the event) · tw-operator (the operators' names, separated
//!          by commas) · tw-trigger (copies)
//! ```
//!
//! Lengths and numbers are LEB128. A list is at most as long as what one event names. It is never
//! delivered and moves no operator itself.

use crate::dead_letters::operator_failure::{FOR_OPERATOR, FOR_TRIGGER, TriggerKind};
use crate::derive::encoding::{FieldDecoder, put_bytes};
use crate::derive::operator::Rules;
use crate::derive::operator_call::numbered;
use crate::derive::plan::ForKey;
use crate::derive::trigger::Inherited;
use crate::fact_pack::{HOPS, TIME};
use crate::record::Body;

/// The header that lists the copies.
const COPIES: &str = "tw-copies";

/// A copy that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PendingCopy {
    /// The key that it is for.
    pub(super) key: String,
    /// The numbers of the operators that it is for.
    pub(super) operators: Vec<u8>,
}

impl PendingCopy {
    /// The copy for the operators that an event moves for this key.
    pub(super) fn of(rules: Rules<'_>, to: &ForKey) -> Self {
        let operators = to.operators.iter().map(|n| rules.operators[n].number()).collect();
        Self { key: to.key.clone(), operators }
    }
}

/// The record that lists copies of `value`. `inherited` is what the copies inherit.
pub(super) fn pending_body(
    copies: &[PendingCopy],
    (key, value): (&str, &[u8]),
    inherited: Inherited,
) -> Body {
    let (list, hops) = (encode(copies), inherited.hops.saturating_sub(1));
    let time = inherited.time.0.to_be_bytes();
    let headers: &[(&str, &[u8])] = &[(COPIES, &list), (HOPS, &[hops]), (TIME, &time)];
    Body::new(Some(key.as_bytes()), Some(value), headers)
}

/// The same as a record of the lane of facts, for the task that goes on with it.
pub(super) fn pending_record(
    rules: Rules<'_>,
    copies: &[PendingCopy],
    event: (&str, &[u8]),
    inherited: Inherited,
) -> Body {
    let body = pending_body(copies, event, inherited);
    let names = operator_names(rules, copies);
    let trigger = TriggerKind::Copies.as_str().as_bytes();
    let marks = [(FOR_OPERATOR, names.as_bytes()), (FOR_TRIGGER, trigger)];
    let headers: Vec<(&str, &[u8])> = body.headers().chain(marks).collect();
    Body::new(body.key(), body.value(), &headers)
}

/// The copies that a record lists; `None` if it has no list, or a damaged one.
pub(super) fn pending_copies(body: &Body) -> Option<Vec<PendingCopy>> {
    let mut from = FieldDecoder(body.header(COPIES)?);
    let mut copies = Vec::new();
    while !from.0.is_empty() {
        let (key, operators) = (from.text()?.to_owned(), from.bytes()?.to_vec());
        copies.push(PendingCopy { key, operators });
    }
    Some(copies)
}

/// The names of the operators that copies are for, each once, separated by commas.
pub(super) fn operator_names(rules: Rules<'_>, copies: &[PendingCopy]) -> String {
    let mut numbers: Vec<u8> = copies.iter().flat_map(|copy| copy.operators.clone()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let name = |number| {
        let known = rules.operators.iter().find(|o| o.number() == number);
        known.map_or_else(|| numbered(number), |operator| operator.name().to_owned())
    };
    numbers.into_iter().map(name).collect::<Vec<_>>().join(",")
}

fn encode(copies: &[PendingCopy]) -> Vec<u8> {
    let mut list = Vec::new();
    for PendingCopy { key, operators } in copies {
        put_bytes(&mut list, key.as_bytes());
        put_bytes(&mut list, operators);
    }
    list
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::Millis;
    use crate::topology::Lane;

    const INHERITED: Inherited = Inherited { lane: Lane::Facts, hops: 2, time: Millis(7) };

    proptest! {
        #[test]
        fn a_list_of_copies_reads_back(
            copies in proptest::collection::vec((".{0,20}", any::<Vec<u8>>()), 0..9),
        ) {
            let copy = |(key, operators)| PendingCopy { key, operators };
            let copies: Vec<PendingCopy> = copies.into_iter().map(copy).collect();
            let body = pending_body(&copies, ("k", b"v"), INHERITED);
            prop_assert_eq!(pending_copies(&body), Some(copies));
            prop_assert_eq!((body.key(), body.value()), (Some(&b"k"[..]), Some(&b"v"[..])));
            prop_assert_eq!(body.header(HOPS), Some(&[1][..]));
        }

        #[test]
        fn a_damaged_list_is_refused_without_panic(bytes: Vec<u8>) {
            pending_copies(&Body::new(None, None, &[(COPIES, &bytes)]));
        }
    }

    #[test]
    fn a_record_without_a_list_has_no_copies() {
        assert_eq!(pending_copies(&Body::new(None, None, &[])), None);
        assert_eq!(pending_copies(&Body::new(None, None, &[(COPIES, &[9, 1])])), None);
    }
}
