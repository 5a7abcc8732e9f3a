//! What a task processes at a time: a record of a lane, or an entry of a pack of facts.
//!
//! An entry is read where it is in its pack. It becomes a record of its own only for a dead letter.

use crate::fact_pack::{FOR, HOPS, PackedFact, TIME};
use crate::record::{Body, Millis, Offset, Record};
use crate::topology::Lane;

/// A whole record of a lane, or an entry of a pack.
#[derive(Clone, Copy)]
pub(super) struct TakenRecord<'a> {
    /// The record's offset.
    pub(super) offset: Offset,
    /// The record's time.
    pub(super) timestamp: Millis,
    pub(super) content: TakenContent<'a>,
    /// The entry's index in its pack.
    pub(super) entry: Option<u32>,
}

/// The bytes of it.
#[derive(Clone, Copy)]
pub(super) enum TakenContent<'a> {
    /// A record, or a requeued record in a pack.
    Record(&'a Body),
    /// A fact, or a copy of an event.
    Fact(&'a PackedFact),
}

impl<'a> TakenRecord<'a> {
    /// A whole record.
    pub(super) fn whole(record: &'a Record) -> Self {
        let Record { offset, timestamp, body } = record;
        let content = TakenContent::Record(body);
        Self { offset: *offset, timestamp: *timestamp, content, entry: None }
    }

    /// The event.
    pub(super) fn value(&self) -> Option<&'a [u8]> {
        match self.content {
            TakenContent::Record(body) => body.value(),
            TakenContent::Fact(fact) => Some(&fact.value),
        }
    }

    /// The key for which a fact or copy is processed.
    pub(super) fn key(&self) -> Option<&'a [u8]> {
        match self.content {
            TakenContent::Record(body) => body.key(),
            TakenContent::Fact(fact) => Some(&fact.key),
        }
    }

    /// The record's body, if it is no fact or copy of a pack.
    pub(super) fn record(&self) -> Option<&'a Body> {
        match self.content {
            TakenContent::Record(body) => Some(body),
            TakenContent::Fact(_) => None,
        }
    }

    /// The hops that led to a fact or copy, itself included.
    pub(super) fn hops(&self) -> Option<u8> {
        match self.content {
            TakenContent::Record(body) => body.header(HOPS)?.first().copied(),
            TakenContent::Fact(fact) => Some(fact.hops),
        }
    }

    /// The append time of the cause of a fact or copy.
    pub(super) fn cause_time(&self) -> Option<Millis> {
        match self.content {
            TakenContent::Record(body) => {
                let time = body.header(TIME)?.try_into().ok()?;
                Some(Millis(i64::from_be_bytes(time)))
            }
            TakenContent::Fact(fact) => Some(fact.time),
        }
    }

    /// The numbers of the operators that a copy is for.
    pub(super) fn operators(&self) -> Option<&'a [u8]> {
        match self.content {
            TakenContent::Record(body) => body.header(FOR),
            TakenContent::Fact(fact) => Some(&fact.operators[..]).filter(|o| !o.is_empty()),
        }
    }

    /// It as a record, as dead letters have it.
    pub(super) fn to_record(self) -> Record {
        let Self { offset, timestamp, content, .. } = self;
        let body = match content {
            TakenContent::Record(body) => body.clone(),
            TakenContent::Fact(fact) => fact.to_body(),
        };
        Record { offset, timestamp, body }
    }
}

/// The record or entry being processed, and the lane it was taken from.
#[derive(Clone, Copy)]
pub(super) struct LaneRecord<'a> {
    pub(super) lane: Lane,
    pub(super) record: TakenRecord<'a>,
    /// When it was appended to the input.
    pub(super) time: Millis,
}

impl LaneRecord<'_> {
    /// The hops that led to it, itself included; `None` if ADMIT wrote it.
    pub(super) fn hops(&self) -> Option<u8> {
        if self.lane.has_facts() { self.record.hops() } else { None }
    }
}
