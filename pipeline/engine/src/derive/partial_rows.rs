//! The rows of a partial: parts that were not sent yet, and what the task knows of them all.
//!
//! ```text
//! head  00 → 01 · round n · first round with parts left n · parts n
//! part  round, 8 bytes · account (text as in keys of stores) · key
//!       → 01 · hops byte · append time z · value, its version first
//! ```
//!
//! Every flush begins a round. What is added meanwhile is of the next one, so a key of a round is
//! sent once, and a scan never passes the removed parts of former rounds. The number of a round
//! never returns, so it is a part of the ids of what is sent.
//!
//! Hops and append time are the greatest of the causes, so the order of additions changes nothing.

use bytes::Bytes;

use crate::derive::encoding::{FieldDecoder, put_signed};
use crate::derive::stores::StoreKey;
use crate::record::{Millis, put_varint};

/// The key of the head. A part's key is longer.
pub(super) const HEAD: &[u8] = &[0];

/// The only version of both rows. Another one is to be written from a value level on, as those of a
/// `StoreValue`, and the declaration of the table then names that level.
const VERSION: u8 = 1;

/// What a task knows of all parts of a partial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PartialHead {
    /// The round of what is added now.
    pub(super) round: u64,
    /// The first round of which parts may be left. Parts of earlier rounds than `round` are being
    /// sent.
    pub(super) first: u64,
    /// Parts of all rounds.
    pub(super) parts: u64,
}

impl PartialHead {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut out = vec![VERSION];
        for number in [self.round, self.first, self.parts] {
            put_varint(&mut out, number);
        }
        out
    }

    /// `None`: the bytes are damaged, or a later build wrote them.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = FieldDecoder(bytes);
        from.byte().filter(|version| *version == VERSION)?;
        let head = Self { round: from.varint()?, first: from.varint()?, parts: from.varint()? };
        from.end()?;
        Some(head)
    }

    /// Begins another round, unless parts of former ones are left.
    pub(super) fn begin_round(&mut self) {
        if !self.is_flushing() {
            self.round += 1;
        }
    }

    /// Whether parts of former rounds are being sent.
    pub(super) fn is_flushing(&self) -> bool {
        self.first < self.round
    }

    /// Notes that no part of a former round is left.
    pub(super) fn end_flush(&mut self) {
        self.first = self.round;
    }
}

/// The key of a part.
pub(super) struct PartKey<'a> {
    pub(super) round: u64,
    pub(super) account: String,
    /// The encoded key within the account.
    pub(super) key: &'a [u8],
}

impl<'a> PartKey<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(12 + self.account.len() + self.key.len());
        self.round.put(&mut out);
        self.account.put(&mut out);
        out.extend_from_slice(self.key);
        out
    }

    /// `None`: the bytes are damaged.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut from = FieldDecoder(bytes);
        let (round, account) = (u64::read(&mut from)?, String::read(&mut from)?);
        Some(Self { round, account, key: from.0 })
    }
}

/// The parts of these rounds, as a range of keys.
pub(super) fn rounds(from: u64, to: u64) -> (Vec<u8>, Vec<u8>) {
    (from.to_be_bytes().to_vec(), to.to_be_bytes().to_vec())
}

/// What was added to a key and not sent yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The most hops of a cause.
    pub(super) hops: u8,
    /// The latest append time of a cause.
    pub(super) time: Millis,
    /// The value, its version first.
    pub(super) value: Bytes,
}

impl Part {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(12 + self.value.len());
        out.extend_from_slice(&[VERSION, self.hops]);
        put_signed(&mut out, self.time.0);
        out.extend_from_slice(&self.value);
        out
    }

    /// `None`: the bytes are damaged, or a later build wrote them.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = FieldDecoder(bytes);
        from.byte().filter(|version| *version == VERSION)?;
        let (hops, time) = (from.byte()?, Millis(from.signed()?));
        Some(Self { hops, time, value: Bytes::copy_from_slice(from.0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn heads_keys_and_parts_read_back(
            numbers: [u64; 3],
            account in ".{0,20}",
            key: Vec<u8>,
            hops: u8,
            time: i64,
            value: Vec<u8>,
        ) {
            let [round, first, parts] = numbers;
            let head = PartialHead { round, first, parts };
            prop_assert_eq!(PartialHead::decode(&head.encode()), Some(head));
            let bytes = PartKey { round, account: account.clone(), key: &key }.encode();
            let read = PartKey::decode(&bytes).expect("its own bytes");
            prop_assert_eq!((read.round, read.account, read.key), (round, account, &key[..]));
            let part = Part { hops, time: Millis(time), value: value.into() };
            prop_assert_eq!(Part::decode(&part.encode()), Some(part));
        }

        #[test]
        fn damaged_rows_are_refused_without_panic(mut bytes: Vec<u8>) {
            let _ = (PartialHead::decode(&bytes), Part::decode(&bytes), PartKey::decode(&bytes));
            if let Some(version) = bytes.first_mut() {
                *version = VERSION + 1;
                prop_assert_eq!(PartialHead::decode(&bytes), None);
                prop_assert_eq!(Part::decode(&bytes), None);
            }
        }
    }
}
