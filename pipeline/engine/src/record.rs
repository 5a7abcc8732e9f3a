//! Records of a log, their positions, and the encoded form of a record.
//!
//! A record's key, value and headers are in one shared buffer, the [`Body`]: reading a record costs
//! one allocation on every log, and keeping one costs a reference. The embedded log stores a body
//! byte for byte; the Kafka connector builds one per message.
//!
//! Nothing here reads a clock or depends on the log behind the port.
//!
//! Body, version 1, all lengths unsigned LEB128:
//!
//! ```text
//! key length + 1 (0: no key) · key · value length + 1 (0: no value, a tombstone) · value
//! · header count · per header: name length · name · value length · value
//! ```

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// A topic's name. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

impl Topic {
    /// A topic of this name; names follow Kafka's rules (`[A-Za-z0-9._-]`, at most 249 bytes).
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A partition's number within its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub u32);

/// A record's offset within its partition, from 0. A *position* is the offset of the next record to
/// read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Milliseconds since the Unix epoch, UTC. Negative before 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub i64);

/// Milliseconds on a clock that never goes back and that nobody sets, from an arbitrary start.
///
/// For deadlines and windows only. It is not a [`Millis`], so that setting the wall clock can't end
/// or extend one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonotonicMillis(pub i64);

impl MonotonicMillis {
    /// Before every time that such a clock shows.
    pub const NEVER: Self = Self(i64::MIN);

    /// Milliseconds since `earlier`; negative if that is later.
    pub fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This many milliseconds later.
    pub fn plus(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// One partition of one topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Topic,
    /// The partition within it.
    pub partition: Partition,
}

impl TopicPartition {
    /// Partition `partition` of `topic`.
    pub fn new(topic: &Topic, partition: Partition) -> Self {
        Self { topic: topic.clone(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition.0)
    }
}

/// Key, value and headers of a record in one shared buffer (layout in the module's header).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body(Bytes);

/// Stored bytes that do not follow the layout: they are damaged or not a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record's stored bytes are damaged at byte {at}")]
pub struct BodyError {
    /// Where reading stopped.
    pub at: usize,
}

impl Body {
    /// Encodes a body.
    pub fn new(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, &[u8])]) -> Self {
        let size = 16
            + key.map_or(0, <[u8]>::len)
            + value.map_or(0, <[u8]>::len)
            + headers.iter().map(|(n, v)| n.len() + v.len() + 10).sum::<usize>();
        let mut out = Vec::with_capacity(size);
        put_optional(&mut out, key);
        put_optional(&mut out, value);
        put_varint(&mut out, headers.len() as u64);
        for (name, value) in headers {
            put_varint(&mut out, name.len() as u64);
            out.extend_from_slice(name.as_bytes());
            put_varint(&mut out, value.len() as u64);
            out.extend_from_slice(value);
        }
        Self(out.into())
    }

    /// A body from stored bytes. Every length is checked, so that reading it later can't fail.
    pub fn from_stored(bytes: Bytes) -> Result<Self, BodyError> {
        let mut at = BodyReader { bytes: &bytes, at: 0 };
        at.optional().ok_or(BodyError { at: at.at })?;
        at.optional().ok_or(BodyError { at: at.at })?;
        let count = at.varint().ok_or(BodyError { at: at.at })?;
        for _ in 0..count {
            at.header().ok_or(BodyError { at: at.at })?;
        }
        if at.at == bytes.len() { Ok(Self(bytes)) } else { Err(BodyError { at: at.at }) }
    }

    /// The stored form.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The key, if there is one.
    pub fn key(&self) -> Option<&[u8]> {
        BodyReader { bytes: &self.0, at: 0 }.optional().flatten()
    }

    /// The value; `None` is a tombstone.
    pub fn value(&self) -> Option<&[u8]> {
        let mut reader = BodyReader { bytes: &self.0, at: 0 };
        reader.optional()?;
        reader.optional().flatten()
    }

    /// The value as a slice of the body's buffer.
    pub fn value_bytes(&self) -> Option<Bytes> {
        self.value().map(|value| self.0.slice_ref(value))
    }

    /// The headers in the order written; a name may occur more than once.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let mut reader = self.after_value();
        let count = reader.varint().unwrap_or(0);
        (0..count).map_while(move |_| reader.header())
    }

    /// The last header of this name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let mut reader = self.after_value();
        let mut found = None;
        for _ in 0..reader.varint().unwrap_or(0) {
            let Some((of, value)) = reader.header_bytes() else { break };
            if of == name.as_bytes() {
                found = Some(value);
            }
        }
        found
    }

    fn after_value(&self) -> BodyReader<'_> {
        let mut reader = BodyReader { bytes: &self.0, at: 0 };
        reader.optional();
        reader.optional();
        reader
    }
}

impl tidewire_schemas::codec::HeaderLookup for Body {
    fn each_header<'a>(&'a self, visit: &mut dyn FnMut(&'a str, &'a [u8])) {
        self.headers().for_each(|(name, value)| visit(name, value));
    }
}

/// A record as a reader returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its offset in its partition.
    pub offset: Offset,
    /// When the log appended it (on a `CreateTime` topic: the producer's time).
    pub timestamp: Millis,
    /// Key, value and headers.
    pub body: Body,
}

impl Record {
    /// Bytes of memory, for limits.
    pub fn size(&self) -> usize {
        self.body.0.len() + size_of::<Self>()
    }
}

/// A record to append. The caller always chooses the partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: Partition,
    /// Key, value and headers.
    pub body: Body,
}

/// Appends an unsigned LEB128 number.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_optional(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => out.push(0),
        Some(bytes) => {
            put_varint(out, bytes.len() as u64 + 1);
            out.extend_from_slice(bytes);
        }
    }
}

/// Reads stored bytes; every step is `None` beyond their end.
struct BodyReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BodyReader<'a> {
    #[inline]
    fn varint(&mut self) -> Option<u64> {
        let byte = *self.bytes.get(self.at)?;
        if byte < 0x80 {
            self.at += 1;
            return Some(u64::from(byte));
        }
        self.long_varint()
    }

    /// A number of more than one byte.
    fn long_varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn slice(&mut self, len: u64) -> Option<&'a [u8]> {
        let end = self.at.checked_add(usize::try_from(len).ok()?)?;
        let slice = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(slice)
    }

    fn optional(&mut self) -> Option<Option<&'a [u8]>> {
        match self.varint()? {
            0 => Some(None),
            len => self.slice(len - 1).map(Some),
        }
    }

    fn header(&mut self) -> Option<(&'a str, &'a [u8])> {
        let (name, value) = self.header_bytes()?;
        Some((std::str::from_utf8(name).ok()?, value))
    }

    fn header_bytes(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let len = self.varint()?;
        let name = self.slice(len)?;
        let len = self.varint()?;
        Some((name, self.slice(len)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_body_decodes_to_its_parts(
            key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
            value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
            headers in proptest::collection::vec(("[a-z]{0,9}", "[ -~]{0,200}"), 0..4),
        ) {
            let given: Vec<(&str, &[u8])> =
                headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
            let body = Body::new(key.as_deref(), value.as_deref(), &given);
            let stored = Body::from_stored(body.as_bytes().clone()).expect("own encoding");
            prop_assert_eq!(stored.key(), key.as_deref());
            prop_assert_eq!(stored.value(), value.as_deref());
            prop_assert_eq!(stored.headers().collect::<Vec<_>>(), given);
        }

        #[test]
        fn damaged_bytes_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            if let Ok(body) = Body::from_stored(bytes.into()) {
                let _ = (body.key(), body.value(), body.headers().count());
            }
        }
    }

    #[test]
    fn an_empty_value_is_not_a_tombstone() {
        assert_eq!(Body::new(None, Some(b""), &[]).value(), Some(&b""[..]));
        assert_eq!(Body::new(None, None, &[]).value(), None);
    }

    #[test]
    fn the_last_header_of_a_name_is_returned() {
        let body = Body::new(None, None, &[("a", b"1"), ("b", b"2"), ("a", b"3")]);
        assert_eq!(body.header("a"), Some(&b"3"[..]));
        assert_eq!(body.header("c"), None);
    }
}
