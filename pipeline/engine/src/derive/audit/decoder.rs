//! Decodes a part of the audit of a transaction; the layout is in `layout.rs`.
//!
//! A damaged part is refused whole. Nothing is allocated by a count that was not compared with the
//! bytes left.

use std::borrow::Cow;

use tidewire_schemas::catalogue::OPERATOR_SOURCE;
use tidewire_schemas::id::hex;

use super::layout::{
    AuditCause, AuditEntry, AuditError, AuditItem, AuditPart, AuditedCopy, AuditedEvent, CalledFor,
    VERSION,
};
use crate::derive::encoding::FieldDecoder;
use crate::record::{Millis, Offset};
use crate::topology::Lane;

impl<'a> AuditPart<'a> {
    /// Decodes the value of a record of `out.audit`.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, AuditError> {
        let from = FieldDecoder(bytes);
        let mut decoder =
            AuditDecoder { from, texts: Vec::new(), time: 0, offsets: [0; Lane::COUNT] };
        decoder.part().ok_or(AuditError { len: bytes.len() })
    }
}

/// Decodes a part.
struct AuditDecoder<'a> {
    from: FieldDecoder<'a>,
    texts: Vec<&'a str>,
    time: i64,
    offsets: [u64; Lane::COUNT],
}

impl<'a> AuditDecoder<'a> {
    fn part(&mut self) -> Option<AuditPart<'a>> {
        if self.from.byte()? != VERSION {
            return None;
        }
        let (part, parts) = (self.from.number()?, self.from.number()?);
        let mut entries = Vec::new();
        while self.from.end().is_none() {
            entries.push(self.entry()?);
        }
        (part < parts).then_some(AuditPart { part, parts, entries })
    }

    fn entry(&mut self) -> Option<AuditEntry<'a>> {
        let cause = match self.from.byte()? {
            1 => {
                let lane = self.lane()?;
                let offset = &mut self.offsets[lane.index()];
                *offset = offset.wrapping_add(self.from.signed()? as u64);
                let offset = Offset(*offset);
                let entry =
                    if lane.has_facts() { self.from.number()?.checked_sub(1) } else { None };
                AuditCause::Record { lane, offset, entry }
            }
            2 => AuditCause::Timer(self.call()?),
            3 => AuditCause::Update(self.call()?),
            4 => AuditCause::EndOfLife,
            _ => return None,
        };
        self.time = self.time.wrapping_add(self.from.signed()?);
        let (time, mut items) = (Millis(self.time), Vec::new());
        loop {
            match self.from.byte()? {
                0 => return Some(AuditEntry { cause, time, items }),
                tag => items.push(self.item(tag)?),
            }
        }
    }

    fn item(&mut self, tag: u8) -> Option<AuditItem<'a>> {
        Some(match tag {
            0x02 => AuditItem::Rejected,
            0x05 => AuditItem::Event(self.event()?),
            0x08 => AuditItem::SecondCopy,
            0x09 => AuditItem::Duplicate,
            0x0a => AuditItem::Called(self.from.byte()?),
            0x0b => AuditItem::Emitted(self.event()?),
            0x0c => AuditItem::ToOperators,
            0x0d => AuditItem::ToKey(self.lane()?),
            0x0e => AuditItem::Copied(self.copy()?),
            0x0f => AuditItem::ToChannel(self.text()?),
            0x10 => AuditItem::ToUrgentChannel(self.text()?),
            0x11 => AuditItem::ToState(self.text()?, self.text()?),
            0x12 => AuditItem::StateRemoved(self.text()?, self.text()?),
            0x19 => AuditItem::NextEmission,
            0x1a => AuditItem::Forwarded(self.copy()?),
            other => return self.longer_item(other),
        })
    }

    /// The other items.
    fn longer_item(&mut self, tag: u8) -> Option<AuditItem<'a>> {
        Some(match tag {
            0x01 => {
                let (input, partition) = (self.from.byte()?, self.from.number()?);
                AuditItem::Source(input, partition, Offset(self.from.varint()?))
            }
            0x03 => {
                let count = self.from.count(1)?;
                let rules = (0..count).map(|_| self.from.number()).collect::<Option<_>>()?;
                AuditItem::Rules(Cow::Owned(rules))
            }
            0x04 => AuditItem::Hops(u8::try_from(self.from.number()?).ok()?),
            0x06 => AuditItem::ForOtherKey(self.text()?, self.from.bytes()?),
            0x07 => AuditItem::Requeued(self.text()?),
            0x13 => {
                let at = Millis(self.time.wrapping_add(self.from.signed()?));
                AuditItem::TimerSet(at, self.from.u64()?)
            }
            0x14 => AuditItem::Marked(self.from.u64()?),
            0x15 => AuditItem::Amended(self.text()?),
            0x16 => AuditItem::Dropped(self.text()?),
            0x17 => AuditItem::Failed(self.text()?, self.text()?, self.text()?),
            0x18 => AuditItem::DeadLetter(self.text()?, self.text()?, self.text()?),
            0x1b => AuditItem::Omitted(self.from.varint()?),
            0x1c => AuditItem::StatePut(self.text()?, self.text()?),
            0x1d => AuditItem::FurtherCopies(self.text()?),
            _ => return None,
        })
    }

    fn call(&mut self) -> Option<CalledFor<'a>> {
        let (operator, link) = (self.from.byte()?, self.from.u64()?);
        Some(CalledFor { operator, link, account: self.text()?, entity: self.text()? })
    }

    fn copy(&mut self) -> Option<AuditedCopy<'a>> {
        let (key, lane) = (self.text()?, self.lane()?);
        Some(AuditedCopy { key, lane, operators: self.from.bytes()? })
    }

    fn event(&mut self) -> Option<AuditedEvent<'a>> {
        let id = self.id()?;
        let (event_type, account, key) = (self.text()?, self.text()?, self.text()?);
        Some(AuditedEvent { id, event_type, account, key })
    }

    fn id(&mut self) -> Option<Cow<'a, str>> {
        Some(match self.from.varint()? {
            0 => {
                let name = self.text()?;
                Cow::Owned(format!("{OPERATOR_SOURCE}{name}/{}", hex(self.from.take(16)?)))
            }
            1 => Cow::Owned(uuid(self.from.take(16)?)),
            2 => Cow::Owned(hex(self.from.take(16)?)),
            len => {
                let text = self.from.take(usize::try_from(len - 3).ok()?)?;
                Cow::Borrowed(std::str::from_utf8(text).ok()?)
            }
        })
    }

    fn text(&mut self) -> Option<&'a str> {
        match self.from.varint()? {
            0 => {
                let text = self.from.text()?;
                self.texts.push(text);
                Some(text)
            }
            n => self.texts.get(usize::try_from(n - 1).ok()?).copied(),
        }
    }

    fn lane(&mut self) -> Option<Lane> {
        Lane::from_number(self.from.byte()?)
    }
}

fn uuid(bytes: &[u8]) -> String {
    let digits = hex(bytes);
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}
