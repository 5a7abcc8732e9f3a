//! The persisted format of the embedded log: every key and value in words, encoders and decoders.
//!
//! All numbers are big-endian, so that keys sort as the numbers do.
//!
//! ```text
//! column family   key                              value
//! records         partition u32 · offset u64       time i64 · bytes before it u64 · body
//! keys (compact)  partition u32 · 0 · key          newest offset u64
//!                 partition u32 · 1 · offset u64   of a tombstone: compacted at i64 · key
//! meta            "format"                         version u32
//!                 "boot"                           see `incarnation`
//!                 "t/" topic                       see `TopicRow`
//!                 "h/" topic u32 · partition u32   next offset u64 · newest time i64 · bytes u64
//!                 "s/" topic u32 · partition u32   log start u64
//!                 "c/" topic u32 · partition u32   compacted up to u64
//!                 "k/" topic u32 · partition u32   keys that were compacted u64
//!                 "o/" group 0 topic 0 partition   next offset u64 · metadata
//! ```
//!
//! "Bytes before it" counts the bodies of a partition since its creation, so that retention by size
//! is a binary search, as retention by age is. Decoding never panics: `None` means damage.

use tidewire_engine::port::{Cleanup, Committed};
use tidewire_engine::record::{Millis, Offset, Partition, TopicPartition};

/// The version of everything in this file.
pub(super) const FORMAT: u32 = 1;

/// Bytes before the body in a record's value.
pub(super) const RECORD_HEAD_BYTES: usize = 16;

/// The head of a partition: what the writer continues from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PartitionHead {
    /// The next offset.
    pub(super) next: u64,
    /// The newest record's time. Times never decrease.
    pub(super) time: i64,
    /// Bytes of bodies appended so far.
    pub(super) bytes: u64,
}

/// A topic's persisted description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TopicRow {
    /// Its number, used in other keys.
    pub(super) number: u32,
    /// Random bits given at creation; the low 32 are zero.
    pub(super) creation: u128,
    /// Its partitions.
    pub(super) partitions: u32,
    /// Its cleanup policy.
    pub(super) cleanup: Cleanup,
}

/// Reads big-endian numbers off the front of bytes.
struct RowReader<'a>(&'a [u8]);

impl RowReader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn optional(&mut self) -> Option<Option<u64>> {
        let there = self.u8()?;
        let value = self.u64()?;
        Some((there == 1).then_some(value))
    }
}

/// The key of a record.
pub(super) fn record_key(partition: Partition, offset: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&partition.0.to_be_bytes());
    key[4..].copy_from_slice(&offset.to_be_bytes());
    key
}

/// Partition and offset of a record's key.
pub(super) fn split_record_key(key: &[u8]) -> Option<(Partition, u64)> {
    let mut reader = RowReader(key);
    let split = (Partition(reader.u32()?), reader.u64()?);
    reader.0.is_empty().then_some(split)
}

/// The bytes before a record's body.
pub(super) fn record_head(time: i64, bytes_before: u64) -> [u8; RECORD_HEAD_BYTES] {
    let mut head = [0; RECORD_HEAD_BYTES];
    head[..8].copy_from_slice(&time.to_be_bytes());
    head[8..].copy_from_slice(&bytes_before.to_be_bytes());
    head
}

/// A stored record's time, the bytes before it, and its body.
pub(super) fn split_record(value: &[u8]) -> Option<(Millis, u64, &[u8])> {
    let mut reader = RowReader(value);
    let time = i64::from_be_bytes(reader.take()?);
    Some((Millis(time), reader.u64()?, reader.0))
}

/// The row of a key in the key index.
pub(super) fn index_key(partition: Partition, key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(5 + key.len());
    row.extend_from_slice(&partition.0.to_be_bytes());
    row.push(0);
    row.extend_from_slice(key);
    row
}

/// The row of a tombstone in the key index.
pub(super) fn tombstone_key(partition: Partition, offset: u64) -> [u8; 13] {
    let mut row = [1; 13];
    row[..4].copy_from_slice(&partition.0.to_be_bytes());
    row[5..].copy_from_slice(&offset.to_be_bytes());
    row
}

/// The value of a tombstone's row: when it was compacted, and its key.
pub(super) fn encode_tombstone(seen_at: Millis, key: &[u8]) -> Vec<u8> {
    [&seen_at.0.to_be_bytes()[..], key].concat()
}

/// When a tombstone was compacted, and its key.
pub(super) fn split_tombstone(value: &[u8]) -> Option<(Millis, &[u8])> {
    let (seen_at, key) = value.split_first_chunk::<8>()?;
    Some((Millis(i64::from_be_bytes(*seen_at)), key))
}

/// The offset of a tombstone's row.
pub(super) fn tombstone_offset(row: &[u8]) -> Option<u64> {
    let mut reader = RowReader(row.get(5..)?);
    reader.u64()
}

/// Partition and offset that a row of the key index refers to.
pub(super) fn index_row(key: &[u8], value: &[u8]) -> Option<(Partition, u64)> {
    let mut reader = RowReader(key);
    let partition = Partition(reader.u32()?);
    let offset = match reader.u8()? {
        0 => decode_u64(value)?,
        _ => reader.u64()?,
    };
    Some((partition, offset))
}

/// A value that is one number.
pub(super) fn decode_u64(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_be_bytes)
}

/// The meta row of a topic.
pub(super) fn topic_key(topic: &str) -> Vec<u8> {
    [b"t/", topic.as_bytes()].concat()
}

/// One of a partition's rows: `h`ead, `s`tart, `c`ompacted or `k`eys.
pub(super) fn partition_key(kind: u8, topic: u32, partition: Partition) -> [u8; 10] {
    let mut key = [b'/'; 10];
    key[0] = kind;
    key[2..6].copy_from_slice(&topic.to_be_bytes());
    key[6..].copy_from_slice(&partition.0.to_be_bytes());
    key
}

/// The meta row of a group's offset. Neither name holds a zero byte.
pub(super) fn group_key(group: &str, at: &TopicPartition) -> Vec<u8> {
    let mut key = Vec::with_capacity(group.len() + at.topic.as_str().len() + 8);
    key.extend_from_slice(b"o/");
    key.extend_from_slice(group.as_bytes());
    key.push(0);
    key.extend_from_slice(at.topic.as_str().as_bytes());
    key.push(0);
    key.extend_from_slice(&at.partition.0.to_be_bytes());
    key
}

/// The value of a group's offset.
pub(super) fn encode_committed(committed: &Committed) -> Vec<u8> {
    [&committed.offset.0.to_be_bytes()[..], committed.metadata.as_bytes()].concat()
}

/// A group's offset as stored.
pub(super) fn decode_committed(value: &[u8]) -> Option<Committed> {
    let mut reader = RowReader(value);
    let offset = Offset(reader.u64()?);
    Some(Committed { offset, metadata: std::str::from_utf8(reader.0).ok()?.to_owned() })
}

impl PartitionHead {
    /// The stored form.
    pub(super) fn encode(&self) -> [u8; 24] {
        let mut out = [0; 24];
        out[..8].copy_from_slice(&self.next.to_be_bytes());
        out[8..16].copy_from_slice(&self.time.to_be_bytes());
        out[16..].copy_from_slice(&self.bytes.to_be_bytes());
        out
    }

    /// Decodes the stored form.
    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let mut reader = RowReader(value);
        let next = reader.u64()?;
        let time = i64::from_be_bytes(reader.take()?);
        Some(Self { next, time, bytes: reader.u64()? })
    }
}

impl TopicRow {
    /// The stored form: number, creation, partitions, a tag and two optional numbers.
    pub(super) fn encode(&self) -> Vec<u8> {
        let (tag, first, second) = match self.cleanup {
            Cleanup::Delete { retention_ms, retention_bytes } => (0, retention_ms, retention_bytes),
            Cleanup::Compact { delete_retention_ms } => (1, Some(delete_retention_ms), None),
            Cleanup::CompactDelete { delete_retention_ms, retention_ms } => {
                (2, Some(delete_retention_ms), Some(retention_ms))
            }
        };
        let mut out = Vec::with_capacity(43);
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.creation.to_be_bytes());
        out.extend_from_slice(&self.partitions.to_be_bytes());
        out.push(tag);
        for number in [first, second] {
            out.push(u8::from(number.is_some()));
            out.extend_from_slice(&number.unwrap_or(0).to_be_bytes());
        }
        out
    }

    /// Decodes the stored form.
    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let mut reader = RowReader(value);
        let number = reader.u32()?;
        let creation = u128::from_be_bytes(reader.take()?);
        let partitions = reader.u32()?;
        let (tag, first, second) = (reader.u8()?, reader.optional()?, reader.optional()?);
        let cleanup = match tag {
            0 => Cleanup::Delete { retention_ms: first, retention_bytes: second },
            1 => Cleanup::Compact { delete_retention_ms: first? },
            2 => Cleanup::CompactDelete { delete_retention_ms: first?, retention_ms: second? },
            _ => return None,
        };
        Some(Self { number, creation, partitions, cleanup })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidewire_engine::record::Topic;

    fn cleanup() -> impl Strategy<Value = Cleanup> {
        let optional = || proptest::option::of(any::<u64>());
        prop_oneof![
            (optional(), optional()).prop_map(|(retention_ms, retention_bytes)| Cleanup::Delete {
                retention_ms,
                retention_bytes
            }),
            any::<u64>().prop_map(|delete_retention_ms| Cleanup::Compact { delete_retention_ms }),
            (any::<u64>(), any::<u64>()).prop_map(|(delete_retention_ms, retention_ms)| {
                Cleanup::CompactDelete { delete_retention_ms, retention_ms }
            }),
        ]
    }

    proptest! {
        #[test]
        fn rows_read_back_what_was_put_in(
            number: u32, creation: u128, partitions: u32, cleanup in cleanup(),
            next: u64, time: i64, bytes: u64, metadata in "[ -~]{0,40}",
        ) {
            let row = TopicRow { number, creation, partitions, cleanup };
            prop_assert_eq!(TopicRow::decode(&row.encode()), Some(row));
            let head = PartitionHead { next, time, bytes };
            prop_assert_eq!(PartitionHead::decode(&head.encode()), Some(head));
            let committed = Committed { offset: Offset(next), metadata };
            prop_assert_eq!(decode_committed(&encode_committed(&committed)), Some(committed));
            let at = Partition(number);
            prop_assert_eq!(split_record_key(&record_key(at, next)), Some((at, next)));
            prop_assert_eq!(tombstone_offset(&tombstone_key(at, next)), Some(next));
            prop_assert_eq!(index_row(&tombstone_key(at, next), b""), Some((at, next)));
            let tombstone = encode_tombstone(Millis(time), b"k");
            prop_assert_eq!(split_tombstone(&tombstone), Some((Millis(time), &b"k"[..])));
            let row = index_key(at, b"k");
            prop_assert_eq!(index_row(&row, &next.to_be_bytes()), Some((at, next)));
        }

        #[test]
        fn record_keys_sort_as_their_numbers_do(a: (u32, u64), b: (u32, u64)) {
            let key = |(p, o): (u32, u64)| record_key(Partition(p), o);
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
        }

        #[test]
        fn damaged_rows_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let _ = (TopicRow::decode(&bytes), PartitionHead::decode(&bytes));
            let _ = decode_committed(&bytes);
            let _ = (split_record(&bytes), split_record_key(&bytes), index_row(&bytes, &bytes));
        }
    }

    #[test]
    fn group_and_topic_names_that_concatenate_equally_have_different_rows() {
        let at = |name: &str| TopicPartition::new(&Topic::new(name), Partition(0));
        assert_ne!(group_key("a", &at("bc")), group_key("ab", &at("c")));
    }
}
