//! The header `verdict` of a lane record: what ADMIT decided about a record of the input.
//!
//! DERIVE never reads the rules of ADMIT, so everything that it needs to know of them travels here:
//! when the record was appended to the input, where it is there, and by which settings it passed.
//! ADMIT writes the header itself and removes one that a producer or a requeue left in the record.
//!
//! Layout, version 1 (`n` unsigned LEB128, `z` zigzag LEB128, `u64` big-endian):
//!
//! ```text
//! 01 · flags byte (bit 0: rejected) · settings hash u64 · offset in `control` n (0: no rules)
//! · append time in the input z
//! · source: number of the input, 1 byte (0 in, 1 in.urgent, 2 in.internal) · id of its topic u64
//!   · partition n · offset n · offset minus delivered-to n · delivered-to minus delivered-from n
//! · rules that matched: count n, then the id of each n
//! ```
//!
//! The id of a topic is the two halves of the log's 128-bit id, XORed. A topic that is created
//! again has another one, so its offsets are not mistaken for those of the former topic.

use crate::derive::encoding::{FieldDecoder, put_signed};
use crate::port::TopicInfo;
use crate::record::{Millis, Offset, Partition, put_varint};

const VERSION: u8 = 1;

/// Flag: the event was rejected.
const REJECTED: u8 = 1;

/// Rules that one verdict can name.
pub const RULES_MAX: usize = 256;

/// Whether an event may reach its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It passed.
    Passed,
    /// It did not. Nothing writes this yet.
    Rejected,
}

/// The short form of a topic's id, which changes when the topic is created again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub u64);

impl TopicId {
    /// The id of a topic that the log lists.
    pub fn of(topic: &TopicInfo) -> Self {
        Self((topic.id >> 64) as u64 ^ topic.id as u64)
    }
}

/// Where a record is in the input, and what ADMIT had delivered when it wrote it to its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerdictSource {
    /// The stable number of the input.
    pub input: u8,
    /// The input's topic.
    pub topic: TopicId,
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
    /// The first offset that ADMIT read since it was assigned the partition.
    pub delivered_from: Offset,
    /// All records from there up to this offset, which is not after the record's own, had been
    /// delivered and their offset committed before the record was written.
    pub delivered_to: Offset,
}

/// What ADMIT decided about a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it passed.
    pub decision: Decision,
    /// The settings of ADMIT.
    pub settings_hash: u64,
    /// The offset in `control` of the rules that applied; 0 without rules.
    pub control: Offset,
    /// When the record was appended to the input.
    pub append_time: Millis,
    /// Where it is there.
    pub source: VerdictSource,
    /// The rules that matched.
    pub rules: Vec<u32>,
}

/// A header `verdict` that can't be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the header `verdict` of {len} bytes can't be decoded: it is damaged, or a later build of \
     ADMIT wrote it; start that build of DERIVE, then requeue the dead letter"
)]
pub struct VerdictError {
    /// Its length in bytes.
    pub len: usize,
}

impl Verdict {
    /// Encodes the header's value.
    pub fn encode(&self) -> Vec<u8> {
        let VerdictSource { offset, delivered_from, delivered_to, .. } = self.source;
        let mut out = Vec::with_capacity(48);
        out.push(VERSION);
        out.push(if self.decision == Decision::Rejected { REJECTED } else { 0 });
        out.extend_from_slice(&self.settings_hash.to_be_bytes());
        put_varint(&mut out, self.control.0);
        put_signed(&mut out, self.append_time.0);
        out.push(self.source.input);
        out.extend_from_slice(&self.source.topic.0.to_be_bytes());
        put_varint(&mut out, u64::from(self.source.partition.0));
        put_varint(&mut out, offset.0);
        put_varint(&mut out, offset.0.saturating_sub(delivered_to.0));
        put_varint(&mut out, delivered_to.0.saturating_sub(delivered_from.0));
        put_varint(&mut out, self.rules.len() as u64);
        for rule in &self.rules {
            put_varint(&mut out, u64::from(*rule));
        }
        out
    }

    /// Decodes the header's value.
    pub fn decode(bytes: &[u8]) -> Result<Self, VerdictError> {
        read(&mut FieldDecoder(bytes)).ok_or(VerdictError { len: bytes.len() })
    }
}

fn read(from: &mut FieldDecoder<'_>) -> Option<Verdict> {
    if from.byte()? != VERSION {
        return None;
    }
    let decision = match from.byte()? {
        0 => Decision::Passed,
        REJECTED => Decision::Rejected,
        _ => return None,
    };
    let settings_hash = from.u64()?;
    let control = Offset(from.varint()?);
    let append_time = Millis(from.signed()?);
    let source = read_source(from)?;
    let count = from.count(1).filter(|count| *count <= RULES_MAX)?;
    let rules = (0..count).map(|_| from.number()).collect::<Option<_>>()?;
    from.end()?;
    Some(Verdict { decision, settings_hash, control, append_time, source, rules })
}

fn read_source(from: &mut FieldDecoder<'_>) -> Option<VerdictSource> {
    let (input, topic) = (from.byte()?, TopicId(from.u64()?));
    let partition = Partition(from.number()?);
    let offset = from.varint()?;
    let delivered_to = offset.checked_sub(from.varint()?)?;
    let delivered_from = delivered_to.checked_sub(from.varint()?)?;
    Some(VerdictSource {
        input,
        topic,
        partition,
        offset: Offset(offset),
        delivered_from: Offset(delivered_from),
        delivered_to: Offset(delivered_to),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn verdict() -> impl Strategy<Value = Verdict> {
        let source = (0..3u8, any::<u64>(), any::<u32>(), any::<[u32; 3]>()).prop_map(
            |(input, topic, partition, [from, more, ahead])| VerdictSource {
                input,
                topic: TopicId(topic),
                partition: Partition(partition),
                offset: Offset(u64::from(from) + u64::from(more) + u64::from(ahead)),
                delivered_from: Offset(u64::from(from)),
                delivered_to: Offset(u64::from(from) + u64::from(more)),
            },
        );
        let decision = prop_oneof![Just(Decision::Passed), Just(Decision::Rejected)];
        let rules = proptest::collection::vec(any::<u32>(), 0..5);
        (decision, any::<u64>(), any::<u64>(), any::<i64>(), source, rules).prop_map(
            |(decision, settings_hash, control, append_time, source, rules)| Verdict {
                decision,
                settings_hash,
                control: Offset(control),
                append_time: Millis(append_time),
                source,
                rules,
            },
        )
    }

    proptest! {
        #[test]
        fn a_verdict_reads_back(verdict in verdict()) {
            prop_assert_eq!(Verdict::decode(&verdict.encode()), Ok(verdict));
        }

        #[test]
        fn a_damaged_or_later_verdict_is_refused(
            verdict in verdict(), bytes: Vec<u8>, cut in 0..60usize,
        ) {
            let _ = Verdict::decode(&bytes);
            let mut stored = verdict.encode();
            let len = stored.len();
            if cut < len {
                prop_assert_eq!(Verdict::decode(&stored[..cut]), Err(VerdictError { len: cut }));
            }
            stored[0] = VERSION + 1;
            prop_assert_eq!(Verdict::decode(&stored), Err(VerdictError { len }));
        }
    }
}
