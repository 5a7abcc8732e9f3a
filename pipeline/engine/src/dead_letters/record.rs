//! Encodes a dead letter: the whole record that could not be processed, with its reason.
//!
//! ```text
//! key      topic/partition/offset of the record, of an entry of a pack of facts followed by
//!          /index (http/time/number if it was sent by HTTP and never had a position)
//! value    its original bytes (none if it had none)
//! headers  reason · field (if one caused it) · detail · time (append time, or when HTTP rejected
//!          it; epoch milliseconds) · source-key (if it had one) · cut (decimal: bytes of the
//!          record, if not all of it is here) · its own headers, their names prefixed with "h-"
//! ```
//!
//! So the record can be inspected and requeued as it was. Nothing of it is left out, unless it is
//! larger than the topic accepts: a broker limits compressed bytes, so a record may have any size.
//! Then its beginning is kept, and it can't be requeued.

use std::fmt;

use crate::record::{Body, Millis, Outgoing, Record, TopicPartition};
use crate::topology::Topology;

/// Header: the name of the reason.
pub const REASON: &str = "reason";
/// Header: the field that caused it.
pub const FIELD: &str = "field";
/// Header: what is wrong and what would be valid.
pub const DETAIL: &str = "detail";
/// Header: the record's append time.
pub const TIME: &str = "time";
/// Header: the record's own key.
pub const SOURCE_KEY: &str = "source-key";
/// Header: bytes of the record, if the dead letter has only the beginning of it.
pub(super) const CUT: &str = "cut";

/// Bytes of a dead letter: what its topic accepts of uncompressed records, less a margin.
pub const DEAD_LETTER_MAX_BYTES: usize = 2_000_000;

/// Bytes that a larger record keeps of its value: enough to see what it is.
const CUT_VALUE_BYTES: usize = 1_000_000;

/// Bytes that a larger record keeps of its key, and of its headers.
const CUT_HEADERS_BYTES: usize = 200_000;

/// The prefix of the names of the record's own headers.
pub const HEADER_PREFIX: &str = "h-";

/// Why a record became a dead letter.
#[derive(Clone, Copy, Debug)]
pub struct Diagnosis<'a> {
    /// The name of the reason.
    pub reason: &'static str,
    /// The field that caused it.
    pub field: Option<&'a str>,
    /// What is wrong and what would be valid.
    pub detail: &'a str,
}

/// The source of a record: its position and, of an entry of a pack of facts, its index.
#[derive(Clone, Copy, Debug)]
pub struct SourceAddress<'a> {
    /// The partition.
    pub at: &'a TopicPartition,
    /// The record, or the entry as a record.
    pub record: &'a Record,
    /// The entry's index in its pack.
    pub entry: Option<u32>,
}

impl fmt::Display for SourceAddress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.at, self.record.offset.0)?;
        self.entry.map_or(Ok(()), |index| write!(f, "/{index}"))
    }
}

/// The dead letter of a record of partition `from`.
pub fn dead_letter(
    topology: &Topology,
    from: &TopicPartition,
    record: &Record,
    diagnosis: Diagnosis<'_>,
) -> Outgoing {
    dead_letter_of(topology, SourceAddress { at: from, record, entry: None }, diagnosis)
}

/// The dead letter of a record, or of an entry of a pack.
pub fn dead_letter_of(
    topology: &Topology,
    from: SourceAddress<'_>,
    diagnosis: Diagnosis<'_>,
) -> Outgoing {
    let (key, record) = (from.to_string(), from.record);
    Outgoing {
        topic: topology.dead_letters().clone(),
        partition: topology.partition_of(key.as_bytes()),
        body: dead_letter_body(&key, record.timestamp, &record.body, diagnosis),
    }
}

/// The dead letter of an event that never was a record: `key` is unique and names its source,
/// `time` is when it was rejected, `own` is the body its record would have had.
pub fn dead_letter_body(key: &str, time: Millis, own: &Body, diagnosis: Diagnosis<'_>) -> Body {
    dead_letter_body_with(&[], (key, time), own, diagnosis)
}

/// The same with more headers about the failure.
pub(super) fn dead_letter_body_with(
    more: &[(&str, &[u8])],
    at: (&str, Millis),
    own: &Body,
    diagnosis: Diagnosis<'_>,
) -> Body {
    let whole = Parts::of(own).encode(more, at, diagnosis);
    if whole.as_bytes().len() <= DEAD_LETTER_MAX_BYTES {
        return whole;
    }
    let bytes = own.as_bytes().len().to_string();
    let more = [more, &[(CUT, bytes.as_bytes())]].concat();
    Parts::of(own).cut().encode(&more, at, diagnosis)
}

/// What a dead letter keeps of its record.
struct Parts<'a> {
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Vec<(String, &'a [u8])>,
}

impl<'a> Parts<'a> {
    fn of(own: &'a Body) -> Self {
        let prefixed = |(name, value)| (format!("{HEADER_PREFIX}{name}"), value);
        let headers = own.headers().map(prefixed).collect();
        Self { key: own.key(), value: own.value(), headers }
    }

    /// The beginning of the value, and key and headers as long as they are short.
    fn cut(mut self) -> Self {
        self.value = self.value.map(|value| &value[..value.len().min(CUT_VALUE_BYTES)]);
        self.key = self.key.filter(|key| key.len() <= CUT_HEADERS_BYTES);
        let mut left = CUT_HEADERS_BYTES;
        let mut fits = |(name, value): &(String, &[u8])| {
            left = left.saturating_sub(name.len() + value.len() + 20);
            left > 0
        };
        let kept = self.headers.iter().take_while(|header| fits(header)).count();
        self.headers.truncate(kept);
        self
    }

    fn encode(
        &self,
        more: &[(&str, &[u8])],
        (key, time): (&str, Millis),
        diagnosis: Diagnosis<'_>,
    ) -> Body {
        let time = time.0.to_string();
        let mut headers: Vec<(&str, &[u8])> = vec![
            (REASON, diagnosis.reason.as_bytes()),
            (DETAIL, diagnosis.detail.as_bytes()),
            (TIME, time.as_bytes()),
        ];
        headers.extend(diagnosis.field.map(|field| (FIELD, field.as_bytes())));
        headers.extend(self.key.map(|key| (SOURCE_KEY, key)));
        headers.extend_from_slice(more);
        headers.extend(self.headers.iter().map(|(name, value)| (name.as_str(), *value)));
        Body::new(Some(key.as_bytes()), self.value, &headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Millis, Offset, Partition};

    #[test]
    fn a_dead_letter_is_never_larger_than_its_topic_accepts_and_says_what_is_missing() {
        let [many, one] = [(); 2].map(|()| vec![7; 3_000_000]);
        let empty: Vec<(&str, &[u8])> = vec![("", b""); 500_000];
        for (body, value) in [
            (Body::new(Some(b"k"), Some(&many), &[("trace", b"t1")]), Some(CUT_VALUE_BYTES)),
            (Body::new(Some(&many), Some(b"v"), &[("trace", &one)]), Some(1)),
            (Body::new(Some(b"k"), None, &empty), None),
        ] {
            let diagnosis = Diagnosis { reason: "too_large", field: None, detail: "send less" };
            let letter = dead_letter_body("tw.in/3/7", Millis(5), &body, diagnosis);
            let bytes = letter.as_bytes().len();
            assert!(bytes <= DEAD_LETTER_MAX_BYTES, "{bytes}");
            assert_eq!(letter.value().map(<[u8]>::len), value);
            let cut = body.as_bytes().len().to_string();
            assert_eq!(letter.header(CUT), Some(cut.as_bytes()));
            assert_eq!(letter.header(REASON), Some(&b"too_large"[..]));
        }
    }

    #[test]
    fn a_dead_letter_keeps_bytes_key_headers_and_position() {
        let topology = Topology::default();
        let record = Record {
            offset: Offset(7),
            timestamp: Millis(1_000),
            body: Body::new(Some(b"k"), Some(b"\xff{"), &[("trace", b"t1")]),
        };
        let from = TopicPartition::new(topology.input(), Partition(3));
        let diagnosis = Diagnosis { reason: "not_utf8", field: Some("text"), detail: "send UTF-8" };
        let letter = dead_letter(&topology, &from, &record, diagnosis);
        assert_eq!(letter.body.key(), Some(&b"tw.in/3/7"[..]));
        assert_eq!(letter.body.value(), Some(&b"\xff{"[..]));
        for (name, value) in [
            (REASON, "not_utf8"),
            (FIELD, "text"),
            (DETAIL, "send UTF-8"),
            (TIME, "1000"),
            (SOURCE_KEY, "k"),
            ("h-trace", "t1"),
        ] {
            assert_eq!(letter.body.header(name), Some(value.as_bytes()), "{name}");
        }
    }
}
