//! Decodes a dead letter, which [`crate::dead_letters::record`] wrote, and its trail.
//!
//! A requeued record carries the positions from which it was dead-lettered (`requeued-from`, oldest
//! first, separated by spaces) and its last reason (`requeued-reason`). If it is rejected again,
//! the new dead letter contains both, like any header of the record.
//!
//! Decoding never fails: a foreign record in the topic is a dead letter without a reason.

use std::borrow::Cow;

use xxhash_rust::xxh3::Xxh3;

use crate::dead_letters::operator_failure::OperatorFailure;
use crate::dead_letters::record::{CUT, DETAIL, FIELD, HEADER_PREFIX, REASON, SOURCE_KEY, TIME};
use crate::record::{Body, Millis, Offset, Partition, Record};

/// Header of a requeued record: the positions from which it was dead-lettered, oldest first.
pub const REQUEUED_FROM: &str = "requeued-from";

/// Header of a requeued record: the reason of its last dead letter.
pub const REQUEUED_REASON: &str = "requeued-reason";

/// The most positions of a trail; the oldest are dropped.
pub const TRAIL_MAX: usize = 16;

/// The position of a dead letter's record. For HTTP it is `http`, milliseconds and a number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourcePosition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u64,
    /// The offset.
    pub offset: u64,
    /// The index of an entry in its pack of facts.
    pub entry: Option<u32>,
}

impl SourcePosition {
    /// Reads `topic/partition/offset` or `topic/partition/offset/index`, with or without more
    /// parts, as in ids of one operator's dead letters.
    pub fn parse(text: &str) -> Option<Self> {
        // The name of a topic has no slash.
        let mut parts = text.split('/');
        let topic = parts.next()?.to_owned();
        let partition = parts.next()?.parse().ok()?;
        let offset = parts.next()?.parse().ok()?;
        // An operator's name is no number.
        let entry = parts.next().and_then(|part| part.parse().ok());
        Some(Self { topic, partition, offset, entry })
    }
}

/// A dead letter and its position in the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its position.
    pub at: (Partition, Offset),
    appended: Millis,
    body: Body,
}

impl DeadLetter {
    /// Decodes a record.
    pub fn of(partition: Partition, record: Record) -> Self {
        Self { at: (partition, record.offset), appended: record.timestamp, body: record.body }
    }

    /// Its id: the position of its record, as text.
    pub fn id(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.body.key().unwrap_or_default())
    }

    /// The key of the dead letter itself.
    pub(super) fn key(&self) -> Option<&[u8]> {
        self.body.key()
    }

    /// The position of its record; `None` if the key is no position.
    pub fn source_position(&self) -> Option<SourcePosition> {
        SourcePosition::parse(&self.id())
    }

    /// The call of one operator that failed; `None` if the whole record was refused.
    pub fn operator_failure(&self) -> Option<OperatorFailure<'_>> {
        OperatorFailure::decode(&self.body)
    }

    /// The name of its reason.
    pub fn reason(&self) -> Cow<'_, str> {
        self.text(REASON)
    }

    /// The field that caused it.
    pub fn field(&self) -> Option<Cow<'_, str>> {
        self.body.header(FIELD).map(String::from_utf8_lossy)
    }

    /// What is wrong and what would be valid.
    pub fn detail(&self) -> Cow<'_, str> {
        self.text(DETAIL)
    }

    /// The append time of the record, or of the dead letter if it is an old one of HTTP.
    pub fn time(&self) -> Millis {
        let recorded = self.body.header(TIME).and_then(|time| std::str::from_utf8(time).ok());
        recorded.and_then(|time| time.parse().ok()).map_or(self.appended, Millis)
    }

    /// The append time of the dead letter.
    pub fn written(&self) -> Millis {
        self.appended
    }

    /// The record's own key.
    pub fn source_key(&self) -> Option<&[u8]> {
        self.body.header(SOURCE_KEY)
    }

    /// Bytes of the record, if the dead letter has only the beginning of it.
    pub fn cut(&self) -> Option<u64> {
        self.body.header(CUT).map(|_| self.text(CUT).parse().unwrap_or_default())
    }

    /// The record's own headers.
    pub fn own_headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.body
            .headers()
            .filter_map(|(name, value)| name.strip_prefix(HEADER_PREFIX).map(|name| (name, value)))
    }

    /// The record's bytes.
    pub fn value(&self) -> Option<&[u8]> {
        self.body.value()
    }

    /// The positions from which it was dead-lettered before, oldest first.
    pub fn trail(&self) -> Vec<String> {
        let own = self.own_headers().filter(|(name, _)| *name == REQUEUED_FROM).last();
        own.map_or(Vec::new(), |(_, value)| trail(value))
    }

    /// Its size in bytes.
    pub fn size(&self) -> usize {
        self.body.as_bytes().len()
    }

    /// Equal for all copies of one dead letter, and different for any other: ADMIT may write one
    /// twice, and a topic that was created again has the same positions again.
    pub fn identity(&self) -> [u8; 16] {
        let mut hash = Xxh3::new();
        let time = self.body.header(TIME);
        for part in [self.body.key(), time, self.body.value()] {
            hash.update(&(part.map_or(0, |part| part.len() as u64 + 1)).to_le_bytes());
            hash.update(part.unwrap_or_default());
        }
        if let Some(failure) = self.operator_failure() {
            let OperatorFailure { operator, trigger, account, emission } = failure;
            hash.update(format!("{operator}/{}/{emission}/{account}", trigger.as_str()).as_bytes());
        }
        hash.digest128().to_be_bytes()
    }

    fn text(&self, name: &str) -> Cow<'_, str> {
        String::from_utf8_lossy(self.body.header(name).unwrap_or_default())
    }
}

/// The positions in a `requeued-from` header.
pub fn trail(value: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(value).split_ascii_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letters::record::{Diagnosis, dead_letter};
    use crate::record::TopicPartition;
    use crate::topology::Topology;
    use proptest::prelude::*;

    fn letter_of(
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, &[u8])],
    ) -> DeadLetter {
        let topology = Topology::new("t.", 4);
        let record = Record {
            offset: Offset(7),
            timestamp: Millis(5),
            body: Body::new(key, value, headers),
        };
        let from = TopicPartition::new(topology.input(), Partition(3));
        let diagnosis = Diagnosis { reason: "not_json", field: Some("f"), detail: "send JSON" };
        let out = dead_letter(&topology, &from, &record, diagnosis);
        let stored = Record { offset: Offset(1), timestamp: Millis(9), body: out.body };
        DeadLetter::of(out.partition, stored)
    }

    proptest! {
        #[test]
        fn a_dead_letter_contains_its_record(
            key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
            value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200)),
            headers in proptest::collection::vec(("[a-z-]{0,9}", "[ -~]{0,50}"), 0..4),
        ) {
            let own: Vec<(&str, &[u8])> =
                headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
            let letter = letter_of(key.as_deref(), value.as_deref(), &own);
            prop_assert_eq!(letter.id(), "t.in/3/7");
            prop_assert_eq!(letter.reason(), "not_json");
            prop_assert_eq!(letter.field(), Some("f".into()));
            prop_assert_eq!(letter.time(), Millis(5));
            prop_assert_eq!(letter.source_key(), key.as_deref());
            prop_assert_eq!(letter.value(), value.as_deref());
            prop_assert_eq!(letter.own_headers().collect::<Vec<_>>(), own);
        }
    }

    #[test]
    fn copies_have_the_same_identity_and_others_do_not() {
        let one = letter_of(Some(b"k"), Some(b"v"), &[]);
        assert_eq!(one.identity(), letter_of(Some(b"k"), Some(b"v"), &[]).identity());
        assert_ne!(one.identity(), letter_of(Some(b"k"), Some(b"w"), &[]).identity());
        assert_ne!(one.identity(), letter_of(Some(b"k"), None, &[]).identity());
    }

    #[test]
    fn a_position_is_parsed_whatever_follows_it() {
        let of = |text: &str| SourcePosition::parse(text).map(|o| (o.topic, o.partition, o.offset));
        assert_eq!(of("tw.in/3/7"), Some(("tw.in".into(), 3, 7)));
        assert_eq!(of("http/1767607200000/9"), Some(("http".into(), 1_767_607_200_000, 9)));
        let operators = Some(("tw.lane.low".into(), 3, 7));
        assert_eq!(of("tw.lane.low/3/7/unread"), operators);
        let entry = |text: &str| SourcePosition::parse(text).and_then(|o| o.entry);
        assert_eq!(entry("tw.lane.facts/3/7/12/unread"), Some(12));
        assert_eq!(entry("tw.lane.facts/3/7/0"), Some(0));
        assert_eq!((entry("tw.lane.facts/3/7/unread"), entry("tw.in/3/7")), (None, None));
        assert_eq!(of("tw.in/3"), None);
        assert_eq!(of("tw.in/x/7"), None);
    }
}
