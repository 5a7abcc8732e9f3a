//! The dead letter of one operator's failure, and the record that it is requeued as.
//!
//! The event or timer itself was processed: delivery and the other operators have done their part.
//! So only this operator gets it again.
//!
//! ```text
//! dead letter
//!   key      position of the lane's record/operator, as in tw.lane.normal/3/7/engagement; of a
//!            timer, of an emitted event and of a copy for another key that could not be written
//!            tw.order/partition/its time/operator/its id, 32 hex digits; so it is of a part of a
//!            total that could not be sent
//!   value    the record's bytes; of a timer or update its cause (derive/timer_cause.rs); of a part
//!            its stored value (derive/partial_rows.rs)
//!   headers  those of every dead letter, where source-key is the timer's key, or the part's behind
//!            the number of its table
//!            · operator (its name) · trigger (event, timer, update or part) · account
//!            · emission (decimal: events the call had emitted before it failed)
//!
//! requeued record, in lane.facts
//!   key      the record's key, the timer's or part's, or what the operator marked
//!   value    as in the dead letter
//!   headers  the record's own · requeued-from · requeued-reason · tw-operator (its name)
//!            · tw-trigger (event, timer, update or part)
//! ```

use crate::dead_letters::record::{Diagnosis, dead_letter_body_with};
use crate::record::{Body, Millis, Outgoing, Partition, Record, TopicPartition};
use crate::topology::Topology;

/// Header of a dead letter: the operator that failed.
pub const OPERATOR: &str = "operator";
/// Header of a dead letter: `event`, `timer`, `update` or `part`.
pub const TRIGGER: &str = "trigger";
/// Header of a dead letter: the account of the event or timer.
pub const ACCOUNT: &str = "account";
/// Header of a dead letter: events the call had emitted before it failed.
pub const EMISSION: &str = "emission";

/// Header of a requeued record: the only operator that gets it.
pub const FOR_OPERATOR: &str = "tw-operator";
/// Header of a requeued record: `event`, `timer`, `update` or `part`.
pub const FOR_TRIGGER: &str = "tw-trigger";

/// What an operator was called with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TriggerKind {
    /// An event.
    Event,
    /// One of its timers.
    Timer,
    /// A change that it sends when a transaction is sealed, or at the end of an interval.
    Update,
    /// A part of a total that it sends to the owner of its key.
    Part,
}

/// All of them.
const KINDS: [TriggerKind; 4] =
    [TriggerKind::Event, TriggerKind::Timer, TriggerKind::Update, TriggerKind::Part];

impl TriggerKind {
    /// Its name in headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Timer => "timer",
            Self::Update => "update",
            Self::Part => "part",
        }
    }

    fn read(name: &[u8]) -> Option<Self> {
        KINDS.into_iter().find(|kind| kind.as_str().as_bytes() == name)
    }
}

/// Which call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperatorFailure<'a> {
    /// The operator's name.
    pub operator: &'a str,
    /// What it was called with.
    pub trigger: TriggerKind,
    /// The account of that.
    pub account: &'a str,
    /// Events it had emitted in this call.
    pub emission: u32,
}

impl<'a> OperatorFailure<'a> {
    /// Decodes a dead letter; `None` if it is not of one operator.
    pub fn decode(letter: &'a Body) -> Option<Self> {
        let text = |name| letter.header(name).and_then(|value| std::str::from_utf8(value).ok());
        Some(Self {
            operator: text(OPERATOR)?,
            trigger: TriggerKind::read(letter.header(TRIGGER)?)?,
            account: text(ACCOUNT)?,
            emission: text(EMISSION)?.parse().ok()?,
        })
    }
}

/// The event or timer on which an operator failed.
#[derive(Clone, Copy, Debug)]
pub enum FailedCause<'a> {
    /// A record of a lane.
    Record {
        /// The lane's partition.
        at: &'a TopicPartition,
        /// The record.
        record: &'a Record,
    },
    /// What the task itself has made: a timer that was due, an emitted event, or a copy for another
    /// key that could not be written.
    Derived {
        /// The task's partition.
        partition: Partition,
        /// Its append time, or when the timer was due. An offset of `order` would depend on control
        /// records between transactions, which a replay can't know.
        time: Millis,
        /// Its id, 32 hex digits.
        id: &'a str,
        /// The record as it is requeued.
        body: &'a Body,
    },
}

/// Encodes the dead letter of an operator's failure.
pub fn operator_dead_letter(
    topology: &Topology,
    cause: FailedCause<'_>,
    failure: OperatorFailure<'_>,
    detail: &str,
) -> Outgoing {
    let OperatorFailure { operator, trigger, account, emission } = failure;
    let (key, time, own) = match cause {
        FailedCause::Record { at, record } => {
            (format!("{at}/{}/{operator}", record.offset.0), record.timestamp, &record.body)
        }
        FailedCause::Derived { partition, time, id, body } => {
            let (order, partition, at) = (topology.order(), partition.0, time.0.unsigned_abs());
            (format!("{order}/{partition}/{at}/{operator}/{id}"), time, body)
        }
    };
    let emission = emission.to_string();
    let more: [(&str, &[u8]); 4] = [
        (OPERATOR, operator.as_bytes()),
        (TRIGGER, trigger.as_str().as_bytes()),
        (ACCOUNT, account.as_bytes()),
        (EMISSION, emission.as_bytes()),
    ];
    let reason = tidewire_schemas::envelope::Reason::ProcessingFailed.as_str();
    let diagnosis = Diagnosis { reason, field: None, detail };
    Outgoing {
        topic: topology.dead_letters().clone(),
        partition: topology.partition_of(key.as_bytes()),
        body: dead_letter_body_with(&more, (&key, time), own, diagnosis),
    }
}

/// The operator that a requeued record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequeuedFor<'a> {
    /// The operator's name.
    pub operator: &'a str,
    /// What to call it with; `None` if this build does not know the name of it.
    pub trigger: Option<TriggerKind>,
}

impl<'a> RequeuedFor<'a> {
    /// Decodes a record of `lane.facts`; `None` if it is for all operators.
    pub fn decode(record: &'a Body) -> Option<Self> {
        let operator = record.header(FOR_OPERATOR)?;
        let trigger = record.header(FOR_TRIGGER).and_then(TriggerKind::read);
        Some(Self { operator: std::str::from_utf8(operator).unwrap_or_default(), trigger })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letters::{DeadLetter, destination, requeue::requeued_record};
    use crate::record::{Offset, Topic};
    use proptest::prelude::*;

    const OWN: &[(&str, &[u8])] = &[("src", b"t.in/1/2"), ("tw-hops", &[3]), ("verdict", b"v")];

    fn kind() -> impl Strategy<Value = TriggerKind> {
        proptest::sample::select(KINDS.to_vec())
    }

    fn read(out: Outgoing) -> DeadLetter {
        let record = Record { offset: Offset(4), timestamp: Millis(9), body: out.body };
        DeadLetter::of(out.partition, record)
    }

    proptest! {
        #[test]
        fn an_operators_dead_letter_reads_back_and_returns_to_that_operator(
            operator in "[a-z_]{1,20}",
            trigger in kind(),
            account in ".{1,20}",
            emission: u32,
            key in proptest::collection::vec(any::<u8>(), 0..40),
            value in proptest::collection::vec(any::<u8>(), 0..80),
            detail in ".{0,80}",
        ) {
            let topology = Topology::new("t.", 4);
            let body = Body::new(Some(&key), Some(&value), OWN);
            let record = Record { offset: Offset(7), timestamp: Millis(5), body: body.clone() };
            let at = TopicPartition::new(&Topic::new("t.lane.normal"), Partition(3));
            let failure =
                OperatorFailure { operator: &operator, trigger, account: &account, emission };
            for cause in [
                FailedCause::Record { at: &at, record: &record },
                FailedCause::Derived {
                    partition: Partition(3), time: Millis(5), id: "00ff", body: &body,
                },
            ] {
                let letter = read(operator_dead_letter(&topology, cause, failure, &detail));
                prop_assert_eq!(letter.operator_failure(), Some(failure));
                prop_assert_eq!(letter.detail(), detail.as_str());
                let to = destination(&topology, &letter).expect("it can be requeued");
                prop_assert_eq!(&to, &TopicPartition::new(topology.facts(), Partition(3)));
                let again = requeued_record(&letter, &to).body;
                prop_assert_eq!(again.key(), Some(&key[..]));
                prop_assert_eq!(again.value(), Some(&value[..]));
                prop_assert_eq!(again.header("tw-hops"), Some(&[3][..]));
                prop_assert_eq!(again.header("verdict"), Some(&b"v"[..]));
                let wanted = RequeuedFor { operator: &operator, trigger: Some(trigger) };
                prop_assert_eq!(RequeuedFor::decode(&again), Some(wanted));
            }
        }
    }

    #[test]
    fn everything_about_the_call_is_part_of_its_identity() {
        let topology = Topology::new("t.", 4);
        let at = TopicPartition::new(topology.facts(), Partition(0));
        let body = Body::new(Some(b"k"), Some(b"v"), &[]);
        let record = Record { offset: Offset(7), timestamp: Millis(5), body };
        let first = OperatorFailure {
            operator: "unread",
            trigger: TriggerKind::Event,
            account: "acc",
            emission: 0,
        };
        let identity = |failure| {
            let cause = FailedCause::Record { at: &at, record: &record };
            read(operator_dead_letter(&topology, cause, failure, "why")).identity()
        };
        assert_eq!(identity(first), identity(first));
        for other in [
            OperatorFailure { operator: "notify", ..first },
            OperatorFailure { trigger: TriggerKind::Timer, ..first },
            OperatorFailure { account: "other", ..first },
            OperatorFailure { emission: 1, ..first },
        ] {
            assert_ne!(identity(first), identity(other), "{other:?}");
        }
    }

    #[test]
    fn a_record_for_every_operator_is_not_requeued_for_one() {
        assert_eq!(RequeuedFor::decode(&Body::new(None, None, OWN)), None);
        let later = Body::new(None, None, &[(FOR_OPERATOR, b"x"), (FOR_TRIGGER, b"flush")]);
        assert_eq!(RequeuedFor::decode(&later), Some(RequeuedFor { operator: "x", trigger: None }));
        assert_eq!(OperatorFailure::decode(&later), None);
    }
}
