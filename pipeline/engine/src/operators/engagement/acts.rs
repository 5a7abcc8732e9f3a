//! The acts of one user on one post, such as likes and their withdrawals, as stored.
//!
//! ```text
//! acts   newest append time z · byte: before · how many · each: event time z · event id · byte: on
//! delta  z
//! ```
//!
//! `z` is a zigzag LEB128 number; counts and lengths of texts are LEB128.
//!
//! An act counts as the difference to the one before it, by event time and id: liking twice counts
//! once, and a like that is processed after its withdrawal counts nothing in the end. What each act
//! counts depends on the set of acts alone, not on the order of processing, up to [`ACTS_MAX`] acts
//! of one user: beyond them the oldest is forgotten.

use crate::derive::stores::{FieldDecoder, StoreValue, put_bytes, put_signed};
use crate::record::Millis;

/// Acts that are kept of one user on one post.
pub(super) const ACTS_MAX: usize = 16;

/// The place of an act in time: event time, then event id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ActStamp {
    pub(super) time_ms: i64,
    pub(super) event_id: String,
}

/// Whether an act adds something or withdraws it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Such as a like.
    On,
    /// Such as an unlike.
    Off,
}

impl Turn {
    fn count(self) -> i64 {
        i64::from(self == Self::On)
    }
}

/// The acts of one user, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acts {
    /// The newest append time of an act.
    pub(super) seen: Millis,
    /// What held before the oldest one.
    before: Turn,
    acts: Vec<(ActStamp, Turn)>,
}

/// What an act counts now, and what it counted until now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recount {
    /// Its index among the acts.
    pub(super) place: usize,
    pub(super) now: i64,
    pub(super) until_now: i64,
}

impl Default for Acts {
    fn default() -> Self {
        Self { seen: Millis::default(), before: Turn::Off, acts: Vec::new() }
    }
}

impl Acts {
    /// Adds an act; returns which acts count something else now. An act that is known, or older
    /// than all that are kept, changes nothing.
    pub(super) fn insert(&mut self, at: &ActStamp, turn: Turn) -> [Option<Recount>; 2] {
        let mut place = self.acts.partition_point(|(known, _)| known < at);
        let is_known = self.acts.get(place).is_some_and(|(known, _)| known == at);
        if is_known || (place == 0 && self.acts.len() >= ACTS_MAX) {
            return [None; 2];
        }
        let before = place.checked_sub(1).map_or(self.before, |last| self.acts[last].1).count();
        let next = self.acts.get(place).map(|(_, next)| next.count());
        self.acts.insert(place, (at.clone(), turn));
        if self.acts.len() > ACTS_MAX {
            self.before = self.acts.remove(0).1;
            place -= 1;
        }
        let (now, until_now) = (turn.count() - before, 0);
        let next = next.map(|next| Recount {
            place: place + 1,
            now: next - turn.count(),
            until_now: next - before,
        });
        [Some(Recount { place, now, until_now }), next]
    }

    /// The act of an index.
    pub(super) fn at(&self, place: usize) -> Option<&ActStamp> {
        self.acts.get(place).map(|(at, _)| at)
    }

    /// The newest act; `None` if nothing was ever done, only withdrawn. What was
    /// withdrawn waits here for the act that it withdraws.
    pub(super) fn newest(&self) -> Option<&ActStamp> {
        let on = |(_, turn): &(ActStamp, Turn)| *turn == Turn::On;
        let (newest, _) = self.acts.last()?;
        (self.before == Turn::On || self.acts.iter().any(on)).then_some(newest)
    }
}

impl StoreValue for Acts {
    fn put(&self, _: u8, out: &mut Vec<u8>) {
        put_signed(out, self.seen.0);
        out.push(self.before.count() as u8);
        crate::record::put_varint(out, self.acts.len() as u64);
        for (ActStamp { time_ms, event_id }, turn) in &self.acts {
            put_signed(out, *time_ms);
            put_bytes(out, event_id.as_bytes());
            out.push(turn.count() as u8);
        }
    }

    fn read(_: u8, from: &mut FieldDecoder<'_>) -> Option<Self> {
        let seen = Millis(from.signed()?);
        let before = read_turn(from)?;
        let count = from.count(3)?;
        // With room for the act that most calls add.
        let mut acts = Vec::with_capacity(count + 1);
        for _ in 0..count {
            let (time_ms, event_id) = (from.signed()?, from.text()?.to_owned());
            acts.push((ActStamp { time_ms, event_id }, read_turn(from)?));
        }
        Some(Self { seen, before, acts })
    }
}

fn read_turn(from: &mut FieldDecoder<'_>) -> Option<Turn> {
    Some(if from.byte()? == 0 { Turn::Off } else { Turn::On })
}

/// What an act counts, in the table that is ordered by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delta(pub(super) i64);

impl StoreValue for Delta {
    fn put(&self, _: u8, out: &mut Vec<u8>) {
        put_signed(out, self.0);
    }

    fn read(_: u8, from: &mut FieldDecoder<'_>) -> Option<Self> {
        from.signed().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn turn(on: bool) -> Turn {
        if on { Turn::On } else { Turn::Off }
    }

    /// What each act counts after all of them were inserted in this order.
    fn counted(order: &[(i64, bool)]) -> BTreeMap<i64, i64> {
        let (mut acts, mut counted) = (Acts::default(), BTreeMap::new());
        for (time_ms, on) in order {
            let at = ActStamp { time_ms: *time_ms, event_id: "e".to_owned() };
            for Recount { place, now, until_now } in
                acts.insert(&at, turn(*on)).into_iter().flatten()
            {
                let time_ms = acts.at(place).expect("it is there").time_ms;
                let before = counted.insert(time_ms, now).unwrap_or(0);
                assert_eq!(before, until_now);
            }
        }
        counted
    }

    proptest! {
        #[test]
        fn what_acts_count_follows_from_their_set(
            turns in proptest::collection::btree_map(0i64..100, any::<bool>(), 0..=ACTS_MAX),
            order in any::<[proptest::sample::Index; ACTS_MAX]>(),
        ) {
            let in_time: Vec<(i64, bool)> = turns.into_iter().collect();
            let mut shuffled = in_time.clone();
            for (n, other) in order.iter().enumerate().take(shuffled.len()) {
                let other = other.index(in_time.len());
                shuffled.swap(n, other);
            }
            let mut held = false;
            let expected: BTreeMap<i64, i64> = in_time
                .iter()
                .map(|(time, on)| {
                    let count = i64::from(*on) - i64::from(std::mem::replace(&mut held, *on));
                    (*time, count)
                })
                .collect();
            prop_assert_eq!(&counted(&in_time), &expected);
            prop_assert_eq!(counted(&shuffled), expected);
        }

        #[test]
        fn acts_read_back(
            seen: i64,
            turns in proptest::collection::vec((any::<i64>(), ".{0,20}", any::<bool>()), 0..40),
        ) {
            let mut acts = Acts { seen: Millis(seen), ..Acts::default() };
            for (time_ms, event_id, on) in turns {
                acts.insert(&ActStamp { time_ms, event_id }, turn(on));
            }
            let mut bytes = Vec::new();
            acts.put(1, &mut bytes);
            let mut from = FieldDecoder(&bytes);
            prop_assert_eq!(Acts::read(1, &mut from), Some(acts));
            prop_assert!(from.0.is_empty());
        }

        #[test]
        fn damaged_acts_are_refused_without_panic(bytes: Vec<u8>) {
            let _ = Acts::read(1, &mut FieldDecoder(&bytes));
            let _ = Delta::read(1, &mut FieldDecoder(&bytes));
        }
    }

    #[test]
    fn a_withdrawal_alone_counts_nothing_in_whatever_order() {
        let at = |time_ms| ActStamp { time_ms, event_id: "e".to_owned() };
        let mut acts = Acts::default();
        assert_eq!(acts.newest(), None);
        acts.insert(&at(9), Turn::Off);
        assert_eq!(acts.newest(), None);
        acts.insert(&at(5), Turn::On);
        assert_eq!(acts.newest(), Some(&at(9)));
    }

    #[test]
    fn the_oldest_act_is_forgotten_beyond_the_limit_and_no_count_changes() {
        let mut acts = Acts::default();
        let at = |time_ms| ActStamp { time_ms, event_id: "e".to_owned() };
        let mut sum = 0;
        for n in 0..=ACTS_MAX as i64 {
            let recounts = acts.insert(&at(n), turn(n % 2 == 0));
            sum += recounts.iter().flatten().map(|recount| recount.now).sum::<i64>();
        }
        assert_eq!((acts.acts.len(), acts.before, sum), (ACTS_MAX, Turn::On, 1));
        let nothing = [None; 2];
        assert_eq!(acts.insert(&at(-1), Turn::On), nothing, "it is older than all that are kept");
        assert_eq!(acts.insert(&at(5), Turn::On), nothing, "it is known");
    }
}
