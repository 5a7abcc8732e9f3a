//! Encodes a dead letter: the whole record that could not be processed, with its reason.
//!
//! ```text
//! key      topic/partition/offset of the record (http/time/number if it was sent by HTTP and never
//!          had a position)
//! value    its original bytes (none if it had none)
//! headers  reason · field (if one caused it) · detail · time (append time, or when HTTP rejected
//!          it; epoch milliseconds) · source-key (if it had one) · its own headers, their names
//!          prefixed with "h-"
//! ```
//!
//! So the record can be inspected and requeued as it was. Nothing of it is left out.

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

/// The dead letter of a record of partition `from`.
pub fn dead_letter(
    topology: &Topology,
    from: &TopicPartition,
    record: &Record,
    diagnosis: Diagnosis<'_>,
) -> Outgoing {
    let key = format!("{from}/{}", record.offset.0);
    Outgoing {
        topic: topology.dead_letters().clone(),
        partition: topology.partition_of(key.as_bytes()),
        body: dead_letter_body(&key, record.timestamp, &record.body, diagnosis),
    }
}

/// The dead letter of an event that never was a record: `key` is unique and names its source,
/// `time` is when it was rejected, `own` is the body its record would have had.
pub fn dead_letter_body(key: &str, time: Millis, own: &Body, diagnosis: Diagnosis<'_>) -> Body {
    let time = time.0.to_string();
    let prefixed: Vec<(String, &[u8])> =
        own.headers().map(|(name, value)| (format!("{HEADER_PREFIX}{name}"), value)).collect();
    let mut headers: Vec<(&str, &[u8])> = vec![
        (REASON, diagnosis.reason.as_bytes()),
        (DETAIL, diagnosis.detail.as_bytes()),
        (TIME, time.as_bytes()),
    ];
    headers.extend(diagnosis.field.map(|field| (FIELD, field.as_bytes())));
    headers.extend(own.key().map(|key| (SOURCE_KEY, key)));
    headers.extend(prefixed.iter().map(|(name, value)| (name.as_str(), *value)));
    Body::new(Some(key.as_bytes()), own.value(), &headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Millis, Offset, Partition};

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
