//! What could not be taken, kept whole: the record that a dead letter is.
//!
//! ```text
//! key      topic/partition/offset the record was taken from (http/time/number: it came by HTTP
//!          and never had a place)
//! value    its original bytes (none if it had none)
//! headers  reason · field (if one is to blame) · detail · time (append time, or when HTTP refused
//!          it; epoch milliseconds) · source-key (if it had one) · its own headers, their names
//!          prefixed with "h-"
//! ```
//!
//! So the record can be looked at, mended and put back as it came. Nothing is ever left out of a
//! dead letter, and nothing but a dead letter or an output ends a record's life without a count.

use crate::record::{Body, Millis, Outgoing, Record, TopicPartition};
use crate::topology::Topology;

/// Header: why, as a word of the catalogue.
pub const REASON: &str = "reason";
/// Header: the field to blame.
pub const FIELD: &str = "field";
/// Header: what is wrong and what would be right.
pub const DETAIL: &str = "detail";
/// Header: the record's append time.
pub const TIME: &str = "time";
/// Header: the record's own key.
pub const SOURCE_KEY: &str = "source-key";
/// What the names of the record's own headers are prefixed with.
pub const HEADER_PREFIX: &str = "h-";

/// Why a record is put aside.
#[derive(Clone, Copy, Debug)]
pub struct Diagnosis<'a> {
    /// The word of the catalogue.
    pub reason: &'static str,
    /// The field to blame.
    pub field: Option<&'a str>,
    /// What is wrong and what would be right.
    pub detail: &'a str,
}

/// The dead letter of a record taken from `from`.
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

/// The same of what never was a record: `key` says where it came from and is unlike any other,
/// `time` when it was refused, `own` what would have become its record.
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
