//! The cause of an operator call: an event or a due timer.
//!
//! Ids of emitted events and of timers are derived from it, so that executing the same cause again
//! gives the same ids. Each fact, each emitted event that moves another operator and each timer
//! costs a hop, so that operators can't cause each other without end. Only a timer that its
//! operator's timer sets costs none: it recurs, as often as it likes, and what it causes is as far
//! from the first event as before.

use std::borrow::Cow;

use tidewire_schemas::Priority;
use tidewire_schemas::event::EventView;
use tidewire_schemas::id::{hash128, hex};

use crate::derive::taken_record::{LaneRecord, TakenRecord};
use crate::derive::timer_cause::TimerCause;
use crate::derive::timers::{TimerKey, TimerKind};
use crate::record::{Millis, Partition};
use crate::topology::Lane;
use crate::verdict::Verdict;

/// When a record of a lane was appended to the input: the verdict of ADMIT or the fact's header
/// says it. Any other record has only the time at which it was appended to the lane.
pub(super) fn append_time(
    lane: Lane,
    record: &TakenRecord<'_>,
    verdict: Option<&Verdict>,
) -> Millis {
    let of_fact = || if lane.has_facts() { record.cause_time() } else { None };
    let stated = verdict.map(|verdict| verdict.append_time);
    stated.or_else(of_fact).unwrap_or(record.timestamp)
}

/// What a fact inherits from its cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inherited {
    /// Its lane.
    pub(super) lane: Lane,
    /// The hops that lead to it, itself included.
    pub(super) hops: u8,
    /// The append time.
    pub(super) time: Millis,
}

/// The cause of the current operator call.
#[derive(Clone, Copy)]
pub(super) enum Trigger<'a> {
    /// An event, its encoded form, and the number of hops that led to it; it is urgent if it is
    /// critical, or a fact that follows from a critical event. `task` is there for a type of which
    /// every task has a copy.
    Event {
        event: &'a EventView<'a>,
        value: &'a [u8],
        hops: u8,
        urgent: bool,
        task: Option<Partition>,
    },
    /// A timer.
    Timer { cause: &'a TimerCause },
    /// A change that is sent when the transaction is sealed, or at the end of an interval.
    Update { cause: &'a TimerCause },
    /// A part of a total that is sent to the owner of its key.
    Part { cause: &'a TimerCause },
}

/// What operators are called with.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) trigger: Trigger<'a>,
    /// The entity they run for.
    pub(super) key: &'a str,
    /// The append time of the cause, or when a timer was due.
    pub(super) time: Millis,
}

impl<'a> Subject<'a> {
    /// A timer that was due at this time.
    pub(super) fn of_timer(cause: &'a TimerCause, time: Millis) -> Self {
        Self { trigger: Trigger::Timer { cause }, key: &cause.entity, time }
    }

    /// A part of a total that is sent now, of this append time.
    pub(super) fn of_part(cause: &'a TimerCause, time: Millis) -> Self {
        Self { trigger: Trigger::Part { cause }, key: &cause.entity, time }
    }

    /// A change that is sent now, of this append time.
    pub(super) fn of_update(cause: &'a TimerCause, time: Millis) -> Self {
        Self { trigger: Trigger::Update { cause }, key: &cause.entity, time }
    }
}

/// What an operator keeps of the cause of an event that it emits later: that event belongs to it,
/// and not to what lets it be emitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptCause {
    /// Its append time.
    pub time: Millis,
    /// The facts and timers that led to it.
    pub hops: u8,
    /// Its correlation id.
    pub correlation: String,
}

/// What emitted events inherit from their cause.
pub(super) struct CauseNames<'a> {
    pub(super) account: &'a str,
    /// The id from which theirs are derived.
    pub(super) id: Cow<'a, str>,
    pub(super) correlation: &'a str,
}

impl<'a> Trigger<'a> {
    /// The cause that a lane's record is.
    pub(super) fn of(taken: &LaneRecord<'a>, event: &'a EventView<'a>) -> Self {
        let hops = taken.hops().unwrap_or(0);
        let value = taken.record.value().unwrap_or_default();
        let urgent = event.priority == Priority::Critical || taken.lane == Lane::FactsUrgent;
        Self::Event { event, value, hops, urgent, task: None }
    }

    /// The same cause in a task that is not the only one with a copy of it.
    pub(super) fn in_task(self, partition: Partition) -> Self {
        match self {
            Self::Event { event, value, hops, urgent, .. } => {
                Self::Event { event, value, hops, urgent, task: Some(partition) }
            }
            other => other,
        }
    }

    /// What a fact that follows from it inherits, if the cause has this append time.
    pub(super) fn inherited(&self, time: Millis) -> Inherited {
        let lane = if self.is_urgent() { Lane::FactsUrgent } else { Lane::Facts };
        Inherited { lane, hops: self.hops().saturating_add(1), time }
    }

    /// The hops that led to it, itself included.
    pub(super) fn hops(&self) -> u8 {
        match self {
            Self::Event { hops, .. } => *hops,
            Self::Timer { cause } | Self::Update { cause } | Self::Part { cause } => cause.hops,
        }
    }

    /// Whether it is critical, or a fact that follows from a critical event. No timer is.
    pub(super) fn is_urgent(&self) -> bool {
        matches!(self, Self::Event { urgent: true, .. })
    }

    /// The account it belongs to.
    pub(super) fn account(&self) -> &'a str {
        match self {
            Self::Event { event, .. } => event.account_id,
            Self::Timer { cause } | Self::Update { cause } | Self::Part { cause } => &cause.account,
        }
    }

    /// What emitted events inherit.
    pub(super) fn names(&self) -> CauseNames<'a> {
        match self {
            Self::Event { event, .. } => CauseNames {
                account: event.account_id,
                id: match self {
                    // With a space, as no event id has one: no producer can choose it.
                    Self::Event { task: Some(task), .. } => {
                        Cow::Owned(format!("{} task {}", event.event_id, task.0))
                    }
                    _ => Cow::Borrowed(event.event_id),
                },
                correlation: event.correlation_id,
            },
            Self::Timer { cause } | Self::Update { cause } | Self::Part { cause } => CauseNames {
                account: &cause.account,
                // With a space, as no event id has one: no producer can choose it.
                id: Cow::Owned(format!("timer {}", cause.hex())),
                correlation: &cause.correlation,
            },
        }
    }

    /// The cause of an update of a key that is marked now.
    pub(super) fn cause_of_update(&self, operator: u8, entity: &str, own: &[u8]) -> TimerCause {
        let CauseNames { account, id, correlation } = self.names();
        let own = hex(own);
        let (operator, len) = (operator.to_string(), entity.len().to_string());
        let parts = [&id[..], "/update/", &operator, "/", &len, ":", entity, "/", &own].concat();
        TimerCause {
            hops: self.hops(),
            id: hash128(account, &parts),
            account: account.to_owned(),
            entity: entity.to_owned(),
            correlation: correlation.to_owned(),
        }
    }

    /// The cause of a timer that is set now.
    pub(super) fn cause_of(
        &self,
        entity: &str,
        kind: TimerKind,
        timer: TimerKey<'_>,
    ) -> TimerCause {
        let CauseNames { account, id, correlation } = self.names();
        let of_kind = match kind {
            TimerKind::Settled => "",
            TimerKind::Lease => "lease/",
        };
        TimerCause {
            hops: match self {
                Self::Event { hops, .. } => hops.saturating_add(1),
                Self::Timer { cause } | Self::Update { cause } | Self::Part { cause } => cause.hops,
            },
            id: hash128(account, &[&id[..], "/", of_kind, &hex(&timer.encode())].concat()),
            account: account.to_owned(),
            entity: entity.to_owned(),
            correlation: correlation.to_owned(),
        }
    }
}
