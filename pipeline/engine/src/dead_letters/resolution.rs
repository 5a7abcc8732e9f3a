//! Resolution records: how a dead letter was resolved, in the same partition of the topic.
//!
//! ```text
//! key      the dead letter's
//! value    none
//! headers  resolution (requeued or dropped) · letter (the dead letter's identity, 32 hex digits)
//!          · reason (the dead letter's) · to (topic/partition it was requeued to; requeued only)
//!          · because (the administrator's comment, if any)
//! ```
//!
//! The time is the append time. A resolution is never revoked.

use std::borrow::Cow;

use tidewire_schemas::id::hex;

use crate::dead_letters::dead_letter::DeadLetter;
use crate::dead_letters::record::REASON;
use crate::record::{Body, Millis, Outgoing, Partition, Record, Topic, TopicPartition};

const RESOLUTION: &str = "resolution";
const LETTER: &str = "letter";
const TO: &str = "to";
const BECAUSE: &str = "because";

/// How a dead letter was resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Its record was appended again.
    Requeued,
    /// It was marked as given up.
    Dropped,
}

impl Resolution {
    /// Its name in the header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requeued => "requeued",
            Self::Dropped => "dropped",
        }
    }
}

/// A decoded resolution record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolutionRecord {
    /// The dead letter: [`DeadLetter::identity`].
    pub identity: [u8; 16],
    /// How it was resolved.
    pub resolution: Resolution,
    /// When.
    pub at: Millis,
    /// The dead letter's reason.
    pub reason: String,
    /// The partition its record was requeued to.
    pub to: Option<String>,
    /// The administrator's comment.
    pub because: Option<String>,
}

impl ResolutionRecord {
    /// Whether a record of the topic is a resolution record.
    pub fn is_resolution(record: &Record) -> bool {
        record.body.header(RESOLUTION).is_some()
    }

    /// Decodes a resolution record; `None` if this build does not know its form.
    pub fn decode(record: &Record) -> Option<Self> {
        let text = |name| record.body.header(name).map(|v| String::from_utf8_lossy(v).into_owned());
        let resolution = match record.body.header(RESOLUTION)? {
            b"requeued" => Resolution::Requeued,
            b"dropped" => Resolution::Dropped,
            _ => return None,
        };
        Some(Self {
            identity: unhex(record.body.header(LETTER)?)?,
            resolution,
            at: record.timestamp,
            reason: text(REASON).unwrap_or_default(),
            to: text(TO),
            because: text(BECAUSE),
        })
    }
}

/// The resolution record of a dead letter: requeued to a partition, or dropped if `to` is `None`.
pub(super) fn resolution_record(
    topic: &Topic,
    letter: &DeadLetter,
    to: Option<&TopicPartition>,
    because: Option<&str>,
) -> Outgoing {
    let resolution = if to.is_some() { Resolution::Requeued } else { Resolution::Dropped };
    let identity = hex(&letter.identity());
    let to = to.map(ToString::to_string);
    let reason: Cow<'_, str> = letter.reason();
    let mut headers: Vec<(&str, &[u8])> = vec![
        (RESOLUTION, resolution.as_str().as_bytes()),
        (LETTER, identity.as_bytes()),
        (REASON, reason.as_bytes()),
    ];
    headers.extend(to.as_ref().map(|to| (TO, to.as_bytes())));
    headers.extend(because.map(|because| (BECAUSE, because.as_bytes())));
    let partition: Partition = letter.at.0;
    Outgoing { topic: topic.clone(), partition, body: Body::new(letter.key(), None, &headers) }
}

fn unhex(text: &[u8]) -> Option<[u8; 16]> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() == 32)?;
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Offset;
    use crate::topology::Topology;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_resolution_record_reads_back(
            key in "[a-z.]{1,9}/[0-9]{1,3}/[0-9]{1,9}",
            value in proptest::collection::vec(any::<u8>(), 0..60),
            to in proptest::option::of(0u32..9),
            because in proptest::option::of("[ -~]{0,40}"),
        ) {
            let topology = Topology::new("t.", 9);
            let body = Body::new(Some(key.as_bytes()), Some(&value), &[(REASON, b"not_json")]);
            let record = Record { offset: Offset(3), timestamp: Millis(1), body };
            let letter = DeadLetter::of(Partition(2), record);
            let to = to.map(|p| TopicPartition::new(topology.input(), Partition(p)));
            let out = resolution_record(
                topology.dead_letters(),
                &letter,
                to.as_ref(),
                because.as_deref(),
            );
            prop_assert_eq!(out.partition, Partition(2));
            prop_assert_eq!(out.body.key(), Some(key.as_bytes()));
            let stored = Record { offset: Offset(9), timestamp: Millis(8), body: out.body };
            prop_assert!(ResolutionRecord::is_resolution(&stored));
            let requeued = Resolution::Requeued;
            let expected = ResolutionRecord {
                identity: letter.identity(),
                resolution: if to.is_some() { requeued } else { Resolution::Dropped },
                at: Millis(8),
                reason: "not_json".into(),
                to: to.map(|to| to.to_string()),
                because,
            };
            prop_assert_eq!(ResolutionRecord::decode(&stored), Some(expected));
        }
    }

    #[test]
    fn foreign_resolution_records_are_ignored() {
        let of = |headers: &[(&str, &[u8])]| {
            let body = Body::new(Some(b"k"), None, headers);
            ResolutionRecord::decode(&Record { offset: Offset(0), timestamp: Millis(0), body })
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[(RESOLUTION, b"lost"), (LETTER, &[b'0'; 32])]), None);
        assert_eq!(of(&[(RESOLUTION, b"dropped"), (LETTER, b"12")]), None);
        assert_eq!(of(&[(RESOLUTION, b"dropped"), (LETTER, "é".repeat(16).as_bytes())]), None);
    }
}
