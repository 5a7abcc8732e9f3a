//! The counts of a post and of a reaction to it, as stored.
//!
//! ```text
//! tally     0, or 1 and the report: event time z · event id · value z;
//!           then after z · newest z · sum of the newest minute z
//! post      1 · newest append time z · newest event time z · reactions
//!           · tallies: likes, replies, retweets, quotes, views
//!           2 · when the mark of the deletion ends z
//! reaction  newest event time z · tally · 0, or 1 and the author of the post
//! ```
//!
//! `z` is a zigzag LEB128 number; counts and lengths of texts are LEB128.

use std::cmp::Ordering;

use crate::derive::stores::{FieldDecoder, StoreValue, put_bytes, put_signed};
use crate::operators::engagement::acts::ActStamp;
use crate::operators::engagement::ends;
use crate::record::{Millis, put_varint};

/// A count: what was reported last, and what acts after that have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    report: Option<TallyReport>,
    /// The sum of what acts after the report count; of all acts without a report.
    after: i64,
    /// The newest event time of an act; zero without any.
    newest_ms: i64,
    /// The sum of what acts count in the minute of the newest one.
    minute_sum: i64,
}

/// Milliseconds of event time that have one sum.
pub(super) const MINUTE_MS: i64 = 60_000;

/// When the minute of this event time begins.
pub(super) fn minute_of(time_ms: i64) -> i64 {
    time_ms.div_euclid(MINUTE_MS) * MINUTE_MS
}

/// What is to be added to the sum of a minute that is not, or no longer, the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MinuteChange {
    pub(super) minute_ms: i64,
    pub(super) by: i64,
}

/// A value that a producer has reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TallyReport {
    pub(super) at: ActStamp,
    pub(super) value: i64,
}

impl Tally {
    /// The count that is shown.
    pub(super) fn shown(&self) -> i64 {
        let reported = self.report.as_ref().map_or(0, |report| report.value);
        reported.saturating_add(self.after).max(0)
    }

    /// An act counts `by` more than before. Returns what changes in the sum of an older minute.
    pub(super) fn change(&mut self, at: &ActStamp, by: i64) -> Option<MinuteChange> {
        if self.report.as_ref().is_none_or(|report| report.at < *at) {
            self.after = self.after.saturating_add(by);
        }
        let (newest, minute) = (minute_of(self.newest_ms), minute_of(at.time_ms));
        self.newest_ms = self.newest_ms.max(at.time_ms);
        let older = match minute.cmp(&newest) {
            Ordering::Less => MinuteChange { minute_ms: minute, by },
            Ordering::Equal => {
                self.minute_sum = self.minute_sum.saturating_add(by);
                return None;
            }
            Ordering::Greater => {
                let by = std::mem::replace(&mut self.minute_sum, by);
                MinuteChange { minute_ms: newest, by }
            }
        };
        (older.by != 0).then_some(older)
    }

    /// Whether a report of this time replaces the last one.
    pub(super) fn accepts(&self, at: &ActStamp) -> bool {
        self.report.as_ref().is_none_or(|report| report.at < *at)
    }

    /// The newest event time of an act; zero without any.
    pub(super) fn newest_ms(&self) -> i64 {
        self.newest_ms
    }

    /// The sum of what acts count in the minute of the newest one.
    pub(super) fn minute_sum(&self) -> i64 {
        self.minute_sum
    }

    /// Replaces the report; `after` is the sum of what later acts count.
    pub(super) fn set(&mut self, report: TallyReport, after: i64) {
        self.report = Some(TallyReport { value: report.value.max(0), ..report });
        self.after = after;
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.report.is_some()));
        if let Some(TallyReport { at: ActStamp { time_ms, event_id }, value }) = &self.report {
            put_signed(out, *time_ms);
            put_bytes(out, event_id.as_bytes());
            put_signed(out, *value);
        }
        put_signed(out, self.after);
        put_signed(out, self.newest_ms);
        put_signed(out, self.minute_sum);
    }

    fn read(from: &mut FieldDecoder<'_>) -> Option<Self> {
        let report = match from.byte()? {
            0 => None,
            _ => {
                let at = ActStamp { time_ms: from.signed()?, event_id: from.text()?.to_owned() };
                Some(TallyReport { at, value: from.signed()? })
            }
        };
        let (after, newest_ms, minute_sum) = (from.signed()?, from.signed()?, from.signed()?);
        Some(Self { report, after, newest_ms, minute_sum })
    }
}

/// The fields of `engagement.updated`, in the order in which they are stored.
pub(super) const COUNTED: [&str; 5] = ["likes", "replies", "retweets", "quotes", "views"];

/// What is kept of a post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PostCounts {
    /// The post is there.
    Live(Box<LiveCounts>),
    /// The post was deleted; until this time nothing counts.
    Deleted(Millis),
}

/// The counts of a post that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LiveCounts {
    /// The newest append time of anything that counted.
    pub(super) seen: Millis,
    /// The newest event time of anything that counted.
    pub(super) newest_ms: i64,
    /// How many reactions it has rows for.
    pub(super) reactions: u64,
    /// By [`COUNTED`].
    pub(super) tallies: [Tally; COUNTED.len()],
}

impl PostCounts {
    /// The append time at which the row ends.
    pub(super) fn ends(&self) -> Millis {
        match self {
            Self::Live(counts) => ends(counts.seen),
            Self::Deleted(until) => *until,
        }
    }
}

impl StoreValue for PostCounts {
    fn put(&self, _: u8, out: &mut Vec<u8>) {
        match self {
            Self::Live(counts) => {
                let LiveCounts { seen, newest_ms, reactions, tallies } = &**counts;
                out.push(1);
                put_signed(out, seen.0);
                put_signed(out, *newest_ms);
                put_varint(out, *reactions);
                tallies.iter().for_each(|tally| tally.put(out));
            }
            Self::Deleted(until) => {
                out.push(2);
                put_signed(out, until.0);
            }
        }
    }

    fn read(_: u8, from: &mut FieldDecoder<'_>) -> Option<Self> {
        match from.byte()? {
            1 => {
                let (seen, newest_ms) = (Millis(from.signed()?), from.signed()?);
                let reactions = from.varint()?;
                let mut tallies: [Tally; COUNTED.len()] = Default::default();
                for tally in &mut tallies {
                    *tally = Tally::read(from)?;
                }
                Some(Self::Live(Box::new(LiveCounts { seen, newest_ms, reactions, tallies })))
            }
            2 => Some(Self::Deleted(Millis(from.signed()?))),
            _ => None,
        }
    }
}

/// The count of one reaction to a post.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ReactionCount {
    /// The newest event time of anything that counted.
    pub(super) newest_ms: i64,
    pub(super) tally: Tally,
    /// The author of the post, if a reaction named one; of several the greatest.
    pub(super) author: Option<String>,
}

impl StoreValue for ReactionCount {
    fn put(&self, _: u8, out: &mut Vec<u8>) {
        put_signed(out, self.newest_ms);
        self.tally.put(out);
        out.push(u8::from(self.author.is_some()));
        if let Some(author) = &self.author {
            put_bytes(out, author.as_bytes());
        }
    }

    fn read(_: u8, from: &mut FieldDecoder<'_>) -> Option<Self> {
        let (newest_ms, tally) = (from.signed()?, Tally::read(from)?);
        let author = match from.byte()? {
            0 => None,
            _ => Some(from.text()?.to_owned()),
        };
        Some(Self { newest_ms, tally, author })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tally() -> impl Strategy<Value = Tally> {
        let report = proptest::option::of((any::<i64>(), ".{0,20}", any::<i64>()));
        let numbers = any::<(i64, i64, i64)>();
        (report, numbers).prop_map(|(report, (after, newest_ms, minute_sum))| {
            let report = report.map(|(time_ms, event_id, value)| TallyReport {
                at: ActStamp { time_ms, event_id },
                value,
            });
            Tally { report, after, newest_ms, minute_sum }
        })
    }

    fn read_back<V: StoreValue>(value: &V) -> Option<V> {
        let mut bytes = Vec::new();
        value.put(1, &mut bytes);
        let mut from = FieldDecoder(&bytes);
        V::read(1, &mut from).filter(|_| from.0.is_empty())
    }

    proptest! {
        #[test]
        fn counts_read_back(
            tallies in proptest::array::uniform5(tally()),
            (seen, newest_ms, reactions, until) in any::<(i64, i64, u64, i64)>(),
            author in proptest::option::of(".{0,20}"),
        ) {
            let reaction = ReactionCount { newest_ms, tally: tallies[0].clone(), author };
            prop_assert_eq!(read_back(&reaction), Some(reaction));
            let deleted = PostCounts::Deleted(Millis(until));
            prop_assert_eq!(read_back(&deleted), Some(deleted));
            let counts = LiveCounts { seen: Millis(seen), newest_ms, reactions, tallies };
            let live = PostCounts::Live(Box::new(counts));
            prop_assert_eq!(read_back(&live), Some(live));
        }

        #[test]
        fn damaged_counts_are_refused_without_panic(bytes: Vec<u8>) {
            let _ = PostCounts::read(1, &mut FieldDecoder(&bytes));
            let _ = ReactionCount::read(1, &mut FieldDecoder(&bytes));
        }
    }

    #[test]
    fn a_count_is_never_negative() {
        let mut tally = Tally::default();
        let at = |time_ms| ActStamp { time_ms, event_id: "e".to_owned() };
        tally.set(TallyReport { at: at(1), value: -7 }, 0);
        assert_eq!(tally.shown(), 0);
        assert_eq!(tally.change(&at(2), -1), None);
        assert_eq!(tally.shown(), 0);
    }
}
