//! The audit record: what a task did with each record, timer and update of one transaction.
//!
//! It is written to the task's partition of `out.audit`, without a key, in parts of at most 512 KiB
//! that can each be read alone. Layout, version 1 (`n` unsigned LEB128, `z` zigzag LEB128, `u64`
//! big-endian, lanes by number):
//!
//! ```text
//! part    01 · number of the part n, from 0 · parts n · entries
//! entry   cause · items · 00
//! cause   01 lane byte · offset z, minus the one before of this lane · in a lane of facts the
//!         entry of its pack n, from 1, or 0 for the whole record · time z
//!         02 timer, 03 update or part: operator byte · link u64 · account t · entity t · time z
//!         04 end of a state entry's life: time z
//! time    append time, or when a timer was due, minus the time of the entry before
//! item    01 source: input byte · partition n · offset n      02 rejected by ADMIT
//!         03 rules: count n · numbers n                       04 hops n
//!         05 event: id · type t · account t · key t
//!         06 for other key: key t · operators                 07 requeued: operator's name t
//!         08 second copy of ADMIT     09 duplicate            0a called: operator byte
//!         0b emitted: id · type t · account t · key t, then where it goes:
//!            0c operators of this key                         0d fact: lane byte
//!            0e copied: key t · lane byte · operators
//!         0f to a channel: t                                  10 to an urgent channel: t
//!         11 state: channel t · state key t                   12 state removed: the same
//!         13 timer set: due z, minus the entry's time · link u64
//!         14 update marked: link u64                          15 field amended: t
//!         16 dropped: reason t                                1d further copies: names t
//!         17 operator failed: its name t · dead letter t · reason t
//!         18 dead letter of the record: reason t · dead letter t · detail t
//!         19 the next emission for operators of this key is processed
//!         1a forwarded, the event itself: as 0e               1b not listed: items n
//!         1c state written by the operator itself: channel t · state key t
//! id      0 operator's name t · 16 bytes: op/NAME/hex · 1 16 bytes: a UUID · 2 16 bytes: hex
//!         · n + 3: n bytes of text
//! t       0 · length n · text: the next text of the part; n: its n-th text
//! operators  count n · numbers, a byte each
//! ```
//!
//! Items 0f to 11 are of the last event emitted in the call; without one, of the emission that is
//! processed, or of the entry's event. A timer or update has the link with which it was set.

use std::borrow::Cow;

use crate::record::{Millis, Offset};
use crate::topology::Lane;

/// The only version.
pub(super) const VERSION: u8 = 1;

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditCause<'a> {
    /// A record of a lane.
    Record {
        /// The lane.
        lane: Lane,
        /// Its offset.
        offset: Offset,
        /// The index of the entry in its pack; `None`: the whole record.
        entry: Option<u32>,
    },
    /// A timer that was due.
    Timer(CalledFor<'a>),
    /// Coalesced changes, or a part of a total, that are sent.
    Update(CalledFor<'a>),
    /// The end of the life of an entry of a state channel.
    EndOfLife,
}

/// Which timer or update it is, and whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CalledFor<'a> {
    /// The operator's number.
    pub operator: u8,
    /// The same as where it was set or marked.
    pub link: u64,
    /// The account.
    pub account: &'a str,
    /// The key.
    pub entity: &'a str,
}

/// An event as the audit names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditedEvent<'a> {
    /// Its id.
    pub id: Cow<'a, str>,
    /// Its type.
    pub event_type: &'a str,
    /// Its account.
    pub account: &'a str,
    /// Its key.
    pub key: &'a str,
}

/// A copy for the operators of another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditedCopy<'a> {
    /// The key.
    pub key: &'a str,
    /// Its lane.
    pub lane: Lane,
    /// The operators' numbers.
    pub operators: &'a [u8],
}

/// Something that is known of an entry's cause, or that it has caused, in the order it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditItem<'a> {
    /// Where the record was in the inputs: number of the input, partition and offset.
    Source(u8, u32, Offset),
    /// ADMIT has rejected the event.
    Rejected,
    /// The rules that matched.
    Rules(Cow<'a, [u32]>),
    /// Facts and timers in a row that led here.
    Hops(u8),
    /// The event.
    Event(AuditedEvent<'a>),
    /// It is a copy for this key and operators.
    ForOtherKey(&'a str, &'a [u8]),
    /// It was requeued for this operator alone.
    Requeued(&'a str),
    /// It is ADMIT's own second copy, and was dropped.
    SecondCopy,
    /// It is a duplicate, and was dropped.
    Duplicate,
    /// An operator was called; what follows is of this call.
    Called(u8),
    /// An event was emitted; where it goes follows.
    Emitted(AuditedEvent<'a>),
    /// To operators of this key, in the same step.
    ToOperators,
    /// To the task of its key.
    ToKey(Lane),
    /// To operators of another key.
    Copied(AuditedCopy<'a>),
    /// To a channel in `out.stream`.
    ToChannel(&'a str),
    /// To a channel in `out.urgent`.
    ToUrgentChannel(&'a str),
    /// To the state key of a channel in `out.state`.
    ToState(&'a str, &'a str),
    /// The operator itself has written the state key of a channel.
    StatePut(&'a str, &'a str),
    /// It has removed it, or its life has ended.
    StateRemoved(&'a str, &'a str),
    /// A timer was set: when it is due, and its link.
    TimerSet(Millis, u64),
    /// A change, or what was added to a part of a total, waits to be sent: its link.
    Marked(u64),
    /// A field was set before delivery.
    Amended(&'a str),
    /// The operator has dropped something, with its reason.
    Dropped(&'a str),
    /// An operator's call failed: its name, the id of the dead letter, and why.
    Failed(&'a str, &'a str, &'a str),
    /// The record became a dead letter: the reason, the id of the dead letter, and the detail.
    DeadLetter(&'a str, &'a str, &'a str),
    /// The next event emitted [`AuditItem::ToOperators`] is processed; what follows is of it.
    NextEmission,
    /// The event of the entry, or the emission being processed, to operators of another key.
    Forwarded(AuditedCopy<'a>),
    /// Further copies follow in another transaction: the names of the operators they are for.
    FurtherCopies(&'a str),
    /// The entry is too long: so many items are not listed.
    Omitted(u64),
}

/// What is known of one record, timer or update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry<'a> {
    /// What it is about.
    pub cause: AuditCause<'a>,
    /// The append time, or when a timer was due.
    pub time: Millis,
    /// In the order they happened.
    pub items: Vec<AuditItem<'a>>,
}

/// A part of the audit of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditPart<'a> {
    /// Its number, from 0.
    pub part: u32,
    /// The parts of the transaction.
    pub parts: u32,
    /// The entries, in order.
    pub entries: Vec<AuditEntry<'a>>,
}

/// An audit record that can't be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an audit record of {len} bytes can't be decoded: it is damaged, or a later build wrote it; \
     run the command of that build"
)]
pub struct AuditError {
    /// Its length in bytes.
    pub len: usize,
}
