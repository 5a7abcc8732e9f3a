//! Packs of facts: the value of every record in the lanes of facts.
//!
//! A transaction writes facts and copies of events for tasks of other keys. Those for one partition
//! of a lane are packed, since a record of its own costs more than most facts. An entry counts as a
//! record: for limits, in statistics, in `order`, and in dead letters, which name it by the
//! record's offset and its index.
//!
//! A pack has at most [`PACK_MAX_BYTES`], unless one entry alone is larger. It begins where the one
//! before it was full, so it follows from the facts of a transaction and not from when they are
//! appended.
//!
//! Layout, version 1 (`n` unsigned LEB128, `z` zigzag LEB128; key, operators and event follow their
//! length `n`). The record has neither key nor headers.
//!
//! ```text
//! 01 · entries minus one, 1 byte · per entry: kind, 1 byte, then
//!   00  fact or copy   hops, 1 byte · append time of its cause minus that of the last entry of
//!                      this kind z (the first: as it is) · operators, 1 byte each (a fact: none)
//!                      · key · event
//!   01  further copy   operators · key; hops, time and event are those of the last entry of 00
//!   02  record         a record's stored form (`record.rs`) after its length n: a requeued one
//! ```
//!
//! A pack that can't be decoded becomes one dead letter with its bytes; none of its entries is
//! processed then.

use bytes::Bytes;

use crate::derive::encoding::{FieldDecoder, put_bytes, put_signed};
use crate::record::{Body, Millis, put_varint};

const VERSION: u8 = 1;
const FACT: u8 = 0;
const FURTHER_COPY: u8 = 1;
const RECORD: u8 = 2;

/// Bytes of a pack with more than one entry: enough that a record's own cost does not count.
pub const PACK_MAX_BYTES: usize = 64 << 10;

/// Entries of a pack. Small copies of one event would be thousands; a transaction ends only after
/// the last entry of a pack.
pub const PACK_ENTRIES_MAX: usize = 256;

/// The header of a fact as a record: one byte, the number of hops that led to it, itself included.
pub(crate) const HOPS: &str = "tw-hops";

/// The header of a fact as a record: the append time of its cause, 8 bytes, big-endian.
pub(crate) const TIME: &str = "tw-time";

/// The header of a copy as a record: the numbers of the operators it is for.
pub(crate) const FOR: &str = "tw-for";

/// A fact, or a copy of an event for another key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedFact {
    /// The hops that led to it, itself included.
    pub hops: u8,
    /// The append time of its cause.
    pub time: Millis,
    /// The numbers of the operators that a copy is for; a fact has none.
    pub operators: Bytes,
    /// The key for which it is processed, UTF-8.
    pub key: Bytes,
    /// The event.
    pub value: Bytes,
}

/// One entry of a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PackEntry {
    /// A fact, or a copy of an event for another key.
    Fact(PackedFact),
    /// A requeued record.
    Record(Body),
}

/// Bytes that are no pack of facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a pack of facts of {len} bytes can't be decoded: it is damaged, or a later build wrote it; \
     requeue it with that build"
)]
pub struct FactPackError {
    /// Their length.
    pub len: usize,
}

impl PackedFact {
    /// Its bytes in a pack of its own, or some more.
    pub fn size(&self) -> usize {
        const REST: usize = 32;
        self.key.len() + self.value.len() + self.operators.len() + REST
    }

    /// It as a record, as operators and dead letters have it.
    pub fn to_body(&self) -> Body {
        let time = self.time.0.to_be_bytes();
        let headers: [(&str, &[u8]); 3] =
            [(FOR, &self.operators), (HOPS, &[self.hops]), (TIME, &time)];
        let headers = if self.operators.is_empty() { &headers[1..] } else { &headers };
        Body::new(Some(&self.key), Some(&self.value), headers)
    }
}

impl PackEntry {
    /// It as a record.
    pub fn to_body(&self) -> Body {
        match self {
            Self::Fact(fact) => fact.to_body(),
            Self::Record(body) => body.clone(),
        }
    }
}

/// The pack that facts of a transaction are added to.
#[derive(Debug, Default)]
pub struct FactPackBuilder {
    entries: usize,
    out: Vec<u8>,
    /// The last entry that is not a further copy.
    last: Option<PackedFact>,
}

impl FactPackBuilder {
    /// Adds a fact. If it does not fit any more, the pack before it is complete and returned.
    pub fn push(&mut self, fact: PackedFact) -> Option<Body> {
        let kind = self.kind_of(&fact);
        // The bytes that it adds, or some more.
        let cost = fact.size() - if kind == FURTHER_COPY { fact.value.len() } else { 0 };
        let is_full = self.entries == PACK_ENTRIES_MAX
            || (self.entries > 0 && self.out.len() + cost > PACK_MAX_BYTES);
        if !is_full {
            self.put(kind, fact);
            return None;
        }
        let complete = self.finish();
        // The first entry of a pack is never a further copy.
        self.put(FACT, fact);
        complete
    }

    /// Ends the pack; `None` if it has no entry.
    pub fn finish(&mut self) -> Option<Body> {
        let last = self.entries.checked_sub(1)?;
        self.out[1] = u8::try_from(last).expect("a pack has at most 256 entries");
        let pack = Body::new(None, Some(&self.out), &[]);
        self.out.clear();
        (self.entries, self.last) = (0, None);
        Some(pack)
    }

    /// Whether it is a further copy of the last entry's event. Compares whole events.
    fn kind_of(&self, fact: &PackedFact) -> u8 {
        let is_same = |last: &PackedFact| {
            (last.hops, last.time) == (fact.hops, fact.time) && last.value == fact.value
        };
        match self.last.as_ref().is_some_and(is_same) && !fact.operators.is_empty() {
            true => FURTHER_COPY,
            false => FACT,
        }
    }

    fn put(&mut self, kind: u8, fact: PackedFact) {
        if self.entries == 0 {
            self.out.extend_from_slice(&[VERSION, 0]);
        }
        self.entries += 1;
        self.out.push(kind);
        if kind == FACT {
            self.out.push(fact.hops);
            let before = self.last.as_ref().map_or(0, |last| last.time.0);
            put_signed(&mut self.out, fact.time.0.wrapping_sub(before));
        }
        put_bytes(&mut self.out, &fact.operators);
        put_bytes(&mut self.out, &fact.key);
        if kind == FACT {
            put_bytes(&mut self.out, &fact.value);
            self.last = Some(fact);
        }
    }
}

/// A pack with this record as its only entry.
pub fn pack_of_record(record: &Body) -> Body {
    let record = record.as_bytes();
    let mut out = Vec::with_capacity(record.len() + 16);
    out.extend_from_slice(&[VERSION, 0, RECORD]);
    put_varint(&mut out, record.len() as u64);
    out.extend_from_slice(record);
    Body::new(None, Some(&out), &[])
}

/// The entries of a pack, without decoding them; 1 for what is no pack.
pub fn entries_in(pack: &Body) -> usize {
    match pack.value() {
        Some([VERSION, last, ..]) => usize::from(*last) + 1,
        _ => 1,
    }
}

/// Decodes a pack's entries, in order.
pub fn decode(pack: &Bytes) -> Result<Vec<PackEntry>, FactPackError> {
    read(pack).ok_or(FactPackError { len: pack.len() })
}

fn read(pack: &Bytes) -> Option<Vec<PackEntry>> {
    let mut fields = FieldDecoder(pack);
    if fields.byte()? != VERSION {
        return None;
    }
    let count = usize::from(fields.byte()?) + 1;
    let mut entries = Vec::with_capacity(count);
    let mut last: Option<PackedFact> = None;
    for _ in 0..count {
        entries.push(match fields.byte()? {
            FACT => {
                let hops = fields.byte()?;
                let before = last.as_ref().map_or(0, |last| last.time.0);
                let time = Millis(before.wrapping_add(fields.signed()?));
                let operators = pack.slice_ref(fields.bytes()?);
                let key = pack.slice_ref(fields.text()?.as_bytes());
                let value = pack.slice_ref(fields.bytes()?);
                let fact = PackedFact { hops, time, operators, key, value };
                PackEntry::Fact(last.insert(fact).clone())
            }
            FURTHER_COPY => {
                let operators = pack.slice_ref(fields.bytes().filter(|o| !o.is_empty())?);
                let key = pack.slice_ref(fields.text()?.as_bytes());
                PackEntry::Fact(PackedFact { operators, key, ..last.clone()? })
            }
            RECORD => {
                let stored = pack.slice_ref(fields.bytes()?);
                PackEntry::Record(Body::from_stored(stored).ok()?)
            }
            _ => return None,
        });
    }
    fields.end().map(|()| entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fact() -> impl Strategy<Value = PackedFact> {
        let bytes = |max| proptest::collection::vec(any::<u8>(), 0..max);
        // Few values, so that neighbours share one.
        let value = prop_oneof![Just(vec![7; 30]), Just(vec![8; 40_000]), bytes(300)];
        (0..5u8, 0..3i64, bytes(3), "[a-zü]{0,12}", value).prop_map(
            |(hops, time, operators, key, value)| PackedFact {
                hops,
                time: Millis(1_767_607_200_000 + time),
                operators: operators.into(),
                key: key.into(),
                value: value.into(),
            },
        )
    }

    fn packs_of(facts: &[PackedFact]) -> Vec<Body> {
        let mut builder = FactPackBuilder::default();
        let mut packs: Vec<Body> =
            facts.iter().filter_map(|fact| builder.push(fact.clone())).collect();
        packs.extend(builder.finish());
        packs
    }

    fn entries_of(pack: &Body) -> Vec<PackEntry> {
        decode(&pack.value_bytes().expect("a value")).expect("our own")
    }

    fn copy(key: &str, value: &Bytes) -> PackedFact {
        let (time, operators) = (Millis(9), Bytes::from_static(&[4]));
        PackedFact { hops: 1, time, operators, key: key.to_owned().into(), value: value.clone() }
    }

    proptest! {
        #[test]
        fn packs_have_the_facts_in_their_order_and_are_small(
            facts in proptest::collection::vec(fact(), 0..20),
        ) {
            let packs = packs_of(&facts);
            let entries: Vec<PackEntry> = packs.iter().flat_map(entries_of).collect();
            let expected: Vec<PackEntry> = facts.into_iter().map(PackEntry::Fact).collect();
            prop_assert_eq!(entries, expected);
            for pack in &packs {
                let (bytes, entries) = (pack.as_bytes().len(), entries_in(pack));
                prop_assert_eq!(entries, entries_of(pack).len());
                prop_assert!(bytes <= PACK_MAX_BYTES + 16 || entries == 1, "{} bytes", bytes);
            }
        }

        #[test]
        fn a_record_in_a_pack_reads_back(
            key: Vec<u8>,
            value: Vec<u8>,
            headers in proptest::collection::vec(("[a-z]{0,9}", "[ -~]{0,50}"), 0..4),
        ) {
            let headers: Vec<(&str, &[u8])> =
                headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
            let record = Body::new(Some(&key), Some(&value), &headers);
            let pack = pack_of_record(&record);
            prop_assert_eq!(entries_in(&pack), 1);
            prop_assert_eq!(entries_of(&pack), [PackEntry::Record(record)]);
        }

        #[test]
        fn damaged_bytes_never_panic(
            bytes: Vec<u8>,
            facts in proptest::collection::vec(fact(), 1..5),
            cut: prop::sample::Index,
        ) {
            let _ = decode(&bytes.into());
            let pack = packs_of(&facts)[0].value_bytes().expect("a value");
            let cut = cut.index(pack.len());
            prop_assert_eq!(decode(&pack.slice(..cut)), Err(FactPackError { len: cut }));
        }
    }

    #[test]
    fn copies_of_one_event_have_its_bytes_once() {
        let value = Bytes::from(vec![5; 1_000]);
        let copies: Vec<_> = (0..50).map(|n| copy(&format!("user-{n}"), &value)).collect();
        let packs = packs_of(&copies);
        let [pack] = &packs[..] else { panic!("{} packs", packs.len()) };
        assert!(pack.as_bytes().len() < 2_000, "{}", pack.as_bytes().len());
        let entries: Vec<_> = copies.into_iter().map(PackEntry::Fact).collect();
        assert_eq!(entries_of(pack), entries);
    }

    #[test]
    fn a_pack_ends_at_its_bytes_and_at_its_entries() {
        let large = Bytes::from(vec![5; 300 << 10]);
        let value = Bytes::from_static(b"v");
        let mut facts: Vec<_> = (0..300).map(|n| copy(&n.to_string(), &value)).collect();
        facts.insert(7, copy("k", &large));
        let entries: Vec<usize> = packs_of(&facts).iter().map(entries_in).collect();
        assert_eq!(entries, [7, 1, PACK_ENTRIES_MAX, 300 - 7 - PACK_ENTRIES_MAX]);
    }

    #[test]
    fn a_pack_of_another_version_or_with_more_bytes_is_refused() {
        let pack = packs_of(&[copy("k", &Bytes::from_static(b"v"))]).remove(0);
        let mut bytes = pack.value().expect("a value").to_vec();
        bytes.push(0);
        assert_eq!(decode(&bytes.clone().into()), Err(FactPackError { len: bytes.len() }));
        bytes.pop();
        bytes[0] = 2;
        let refused = decode(&bytes.into()).expect_err("a later version").to_string();
        assert!(refused.contains("a later build wrote it"), "{refused}");
    }

    #[test]
    fn a_fact_as_a_record_has_its_key_event_hops_and_time() {
        let body = copy("k", &Bytes::from_static(b"v")).to_body();
        assert_eq!((body.key(), body.value()), (Some(&b"k"[..]), Some(&b"v"[..])));
        assert_eq!(body.header(FOR), Some(&[4][..]));
        assert_eq!(body.header(HOPS), Some(&[1][..]));
        assert_eq!(body.header(TIME), Some(&9i64.to_be_bytes()[..]));
        let fact = PackedFact { operators: Bytes::new(), ..copy("k", &Bytes::new()) };
        assert_eq!(fact.to_body().header(FOR), None);
    }
}
