//! Encodes the audit of a transaction; the layout is in `layout.rs`.
//!
//! Everything is appended to one buffer, since this is done for every record. A text that was
//! written before in the part is a number; texts are found by a small table of hashes, whose misses
//! only cost bytes.

use tidewire_schemas::catalogue::OPERATOR_SOURCE;
use xxhash_rust::xxh3::xxh3_64;

use super::layout::{AuditCause, AuditItem, AuditedEvent, CalledFor, VERSION};
use crate::derive::encoding::{put_bytes, put_signed};
use crate::record::{Millis, put_varint};
use crate::topology::Lane;

/// Where the last texts of a part are looked up: a text that is not there is written again.
const SLOTS: usize = 1_024;

/// Bytes of the buffer that are kept for the next transaction.
const KEPT_BYTES: usize = 256 << 10;

/// The head of a part, before its entries.
pub(super) fn part_head(part: usize, parts: usize) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_varint(&mut out, part as u64);
    put_varint(&mut out, parts as u64);
    out
}

/// Encodes the entries of a part.
#[derive(Debug, Default)]
pub(super) struct AuditEncoder {
    pub(super) bytes: Vec<u8>,
    /// Where each text of the part is in `bytes`.
    texts: Vec<(u32, u32)>,
    /// The number of a text by a part of its hash. It may be of another text, so it is compared.
    slots: Vec<u32>,
    time: i64,
    offsets: [u64; Lane::COUNT],
}

/// How far a part was written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EncodedUpTo {
    pub(super) bytes: usize,
    texts: usize,
}

impl AuditEncoder {
    /// Drops what is encoded and keeps the memory, as far as most transactions need it. What the
    /// slots say of earlier texts is compared before it is used, so it may stay.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.texts.clear();
        self.texts.shrink_to(SLOTS);
    }

    /// Begins a part behind what is encoded.
    pub(super) fn begin_part(&mut self) {
        self.texts.clear();
        (self.time, self.offsets) = (0, [0; Lane::COUNT]);
    }

    pub(super) fn up_to(&self) -> EncodedUpTo {
        EncodedUpTo { bytes: self.bytes.len(), texts: self.texts.len() }
    }

    /// Drops items of the current entry.
    pub(super) fn roll_back(&mut self, to: EncodedUpTo) {
        self.bytes.truncate(to.bytes);
        self.texts.truncate(to.texts);
    }

    /// Begins an entry.
    pub(super) fn begin(&mut self, cause: AuditCause<'_>, time: Millis) {
        match cause {
            AuditCause::Record { lane, offset, entry } => {
                self.bytes.extend_from_slice(&[1, lane.number()]);
                let before = std::mem::replace(&mut self.offsets[lane.index()], offset.0);
                put_signed(&mut self.bytes, offset.0.wrapping_sub(before) as i64);
                if lane.has_facts() {
                    put_varint(&mut self.bytes, entry.map_or(0, |index| u64::from(index) + 1));
                }
            }
            AuditCause::Timer(call) => self.put_call(2, call),
            AuditCause::Update(call) => self.put_call(3, call),
            AuditCause::EndOfLife => self.bytes.push(4),
        }
        put_signed(&mut self.bytes, time.0.wrapping_sub(self.time));
        self.time = time.0;
    }

    /// Ends an entry.
    pub(super) fn end(&mut self) {
        self.bytes.push(0);
    }

    /// Adds an item to the current entry.
    #[inline]
    pub(super) fn put(&mut self, item: &AuditItem<'_>) {
        self.bytes.push(tag(item));
        match item {
            AuditItem::Rejected
            | AuditItem::SecondCopy
            | AuditItem::Duplicate
            | AuditItem::ToOperators
            | AuditItem::NextEmission => {}
            AuditItem::Called(byte) => self.bytes.push(*byte),
            AuditItem::ToKey(lane) => self.bytes.push(lane.number()),
            AuditItem::Event(event) | AuditItem::Emitted(event) => self.put_event(event),
            AuditItem::ToChannel(text)
            | AuditItem::ToUrgentChannel(text)
            | AuditItem::Requeued(text)
            | AuditItem::Amended(text)
            | AuditItem::FurtherCopies(text)
            | AuditItem::Dropped(text) => self.put_text(text),
            AuditItem::Copied(copy) | AuditItem::Forwarded(copy) => {
                self.put_text(copy.key);
                self.bytes.push(copy.lane.number());
                put_bytes(&mut self.bytes, copy.operators);
            }
            other => self.put_longer(other),
        }
    }

    /// The items that `put` leaves to it.
    fn put_longer(&mut self, item: &AuditItem<'_>) {
        match item {
            AuditItem::Source(input, partition, offset) => {
                self.bytes.push(*input);
                put_varint(&mut self.bytes, u64::from(*partition));
                put_varint(&mut self.bytes, offset.0);
            }
            AuditItem::Rules(rules) => {
                put_varint(&mut self.bytes, rules.len() as u64);
                rules.iter().for_each(|rule| put_varint(&mut self.bytes, u64::from(*rule)));
            }
            AuditItem::Hops(hops) => put_varint(&mut self.bytes, u64::from(*hops)),
            AuditItem::ForOtherKey(key, operators) => {
                self.put_text(key);
                put_bytes(&mut self.bytes, operators);
            }
            AuditItem::ToState(channel, state_key)
            | AuditItem::StatePut(channel, state_key)
            | AuditItem::StateRemoved(channel, state_key) => {
                self.put_text(channel);
                self.put_text(state_key);
            }
            AuditItem::TimerSet(at, link) => {
                put_signed(&mut self.bytes, at.0.wrapping_sub(self.time));
                self.bytes.extend_from_slice(&link.to_be_bytes());
            }
            AuditItem::Marked(link) => self.bytes.extend_from_slice(&link.to_be_bytes()),
            AuditItem::Failed(one, two, three) | AuditItem::DeadLetter(one, two, three) => {
                [one, two, three].into_iter().for_each(|text| self.put_text(text));
            }
            AuditItem::Omitted(items) => put_varint(&mut self.bytes, *items),
            _ => {}
        }
    }

    fn put_call(&mut self, tag: u8, call: CalledFor<'_>) {
        self.bytes.extend_from_slice(&[tag, call.operator]);
        self.bytes.extend_from_slice(&call.link.to_be_bytes());
        self.put_text(call.account);
        self.put_text(call.entity);
    }

    fn put_event(&mut self, event: &AuditedEvent<'_>) {
        self.put_id(&event.id);
        self.put_text(event.event_type);
        self.put_text(event.account);
        self.put_text(event.key);
    }

    fn put_id(&mut self, id: &str) {
        let emitted = id.strip_prefix(OPERATOR_SOURCE).and_then(|rest| rest.split_once('/'));
        let emitted = emitted.and_then(|(name, hash)| Some((name, from_hex(hash.as_bytes())?)));
        if let Some((name, hash)) = emitted {
            self.bytes.push(0);
            self.put_text(name);
            self.bytes.extend_from_slice(&hash);
        } else if let Some(hash) = from_uuid(id) {
            self.bytes.push(1);
            self.bytes.extend_from_slice(&hash);
        } else if let Some(hash) = from_hex(id.as_bytes()) {
            self.bytes.push(2);
            self.bytes.extend_from_slice(&hash);
        } else {
            put_varint(&mut self.bytes, id.len() as u64 + 3);
            self.bytes.extend_from_slice(id.as_bytes());
        }
    }

    fn put_text(&mut self, text: &str) {
        if self.slots.is_empty() {
            self.slots.resize(SLOTS, 0);
        }
        let slot = &mut self.slots[xxh3_64(text.as_bytes()) as usize % SLOTS];
        if let Some((from, to)) = self.texts.get(*slot as usize)
            && self.bytes[*from as usize..*to as usize] == *text.as_bytes()
        {
            return put_varint(&mut self.bytes, u64::from(*slot) + 1);
        }
        *slot = self.texts.len() as u32;
        self.bytes.push(0);
        put_bytes(&mut self.bytes, text.as_bytes());
        let end = self.bytes.len();
        self.texts.push(((end - text.len()) as u32, end as u32));
    }
}

fn tag(item: &AuditItem<'_>) -> u8 {
    match item {
        AuditItem::Source(..) => 0x01,
        AuditItem::Rejected => 0x02,
        AuditItem::Rules(_) => 0x03,
        AuditItem::Hops(_) => 0x04,
        AuditItem::Event(_) => 0x05,
        AuditItem::ForOtherKey(..) => 0x06,
        AuditItem::Requeued(_) => 0x07,
        AuditItem::SecondCopy => 0x08,
        AuditItem::Duplicate => 0x09,
        AuditItem::Called(_) => 0x0a,
        AuditItem::Emitted(_) => 0x0b,
        AuditItem::ToOperators => 0x0c,
        AuditItem::ToKey(_) => 0x0d,
        AuditItem::Copied(_) => 0x0e,
        AuditItem::ToChannel(_) => 0x0f,
        AuditItem::ToUrgentChannel(_) => 0x10,
        AuditItem::ToState(..) => 0x11,
        AuditItem::StateRemoved(..) => 0x12,
        AuditItem::TimerSet(..) => 0x13,
        AuditItem::Marked(_) => 0x14,
        AuditItem::Amended(_) => 0x15,
        AuditItem::Dropped(_) => 0x16,
        AuditItem::Failed(..) => 0x17,
        AuditItem::DeadLetter(..) => 0x18,
        AuditItem::NextEmission => 0x19,
        AuditItem::Forwarded(_) => 0x1a,
        AuditItem::Omitted(_) => 0x1b,
        AuditItem::StatePut(..) => 0x1c,
        AuditItem::FurtherCopies(_) => 0x1d,
    }
}

/// 32 lower-case hexadecimal digits.
fn from_hex(digits: &[u8]) -> Option<[u8; 16]> {
    let digits: &[u8; 32] = digits.try_into().ok()?;
    let mut out = [0; 16];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

fn digit(of: u8) -> Option<u8> {
    match of {
        b'0'..=b'9' => Some(of - b'0'),
        b'a'..=b'f' => Some(of - b'a' + 10),
        _ => None,
    }
}

/// A UUID in its usual form with lower-case digits.
fn from_uuid(text: &str) -> Option<[u8; 16]> {
    let text: &[u8; 36] = text.as_bytes().try_into().ok()?;
    let mut digits = [0; 32];
    let mut left = digits.iter_mut();
    for (at, byte) in text.iter().enumerate() {
        match at {
            8 | 13 | 18 | 23 if *byte == b'-' => {}
            8 | 13 | 18 | 23 => return None,
            _ => *left.next()? = *byte,
        }
    }
    from_hex(&digits)
}
