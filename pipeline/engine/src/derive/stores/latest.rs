//! A store of replaceable values: of all values that a key was given, the one with the greatest
//! stamp counts.
//!
//! ```text
//! key as given → a row of `Expiring`: the value's version · event time z
//!                · event id (LEB128 length, text) · 01 and the value, or 00: a removal
//! ```
//!
//! The stamp is the event's time, then its id. So the result does not depend on the order in which
//! a task processes its lanes. A removal leaves a mark for as long as lanes keep records, so that
//! an older value which is processed later does not bring the entry back. A value itself stays, or
//! expires after the life that the store declares.
//!
//! An end is put off by less than an hour, to the key's own instant of an hour. So most renewals
//! move no timer, and rows that are set in one hour do not expire at once.
//!
//! An event that is appended more than a week after it happened may find that mark gone, and counts
//! then.

use tidewire_schemas::event::EventView;
use xxhash_rust::xxh3::xxh3_64;

use crate::derive::operator::{Context, OperatorError};
use crate::derive::stores::expiring::Expiring;
use crate::derive::stores::layout::{
    FieldDecoder, StoreKey, StoreValue, key_bytes, put_bytes, put_signed,
};
use crate::derive::table_decl::TableDecl;
use crate::record::Millis;
use crate::value_level::ValueLevel;

/// Milliseconds for which a removal leaves a mark: lanes keep records for 7 days, and an event may
/// be 10 minutes ahead of its append time. Nothing appended after that is older than the removal,
/// unless it is a week late.
pub const MARK_MS: i64 = (7 * 24 * 60 + 10) * 60_000;

const HOUR_MS: i64 = 3_600_000;

/// Decides which of two values of a key counts: the greater one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// When the event happened.
    pub time: Millis,
    /// The id of the event.
    pub event_id: String,
}

impl Stamp {
    /// The stamp of an event.
    pub fn of(event: &EventView<'_>) -> Self {
        Self { time: Millis(event.timestamp_ms), event_id: event.event_id.to_owned() }
    }
}

/// What became of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replacement<V> {
    /// A value or a removal with a greater stamp counts.
    Outdated,
    /// It counts now. Before, this value did; `None` if there was none.
    Newest {
        /// The value until now.
        before: Option<V>,
    },
}

/// A value or a removal, with the stamp that decides about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamped<V> {
    /// Its stamp.
    pub stamp: Stamp,
    /// The value; `None` is a removal.
    pub value: Option<V>,
}

/// Some present values of a store, in order of their keys.
pub struct LatestPage<K, V> {
    /// The keys, stamps and values.
    pub entries: Vec<(K, Stamp, V)>,
    /// The last key that was visited, if there may be more.
    pub last: Option<K>,
}

/// The value of each key that has the greatest stamp.
pub struct Latest<K, V> {
    rows: Expiring<K, Stamped<V>>,
    life_ms: Option<i64>,
}

impl<K: StoreKey, V: StoreValue> Latest<K, V> {
    /// The store of this number, whose values stay; numbers are persisted.
    pub const fn new(number: u8, name: &'static str) -> Self {
        Self { rows: Expiring::new(number, name), life_ms: None }
    }

    /// The store of this number, whose values expire this many milliseconds of append time after
    /// they were set last, or up to an hour later. A late cause sets from the settled time.
    pub const fn expiring(number: u8, name: &'static str, life_ms: i64) -> Self {
        Self { rows: Expiring::new(number, name), life_ms: Some(life_ms) }
    }

    /// The declaration for its operator's `tables`.
    pub const fn decl(&self) -> TableDecl {
        self.rows.decl()
    }

    /// The value that counts; `None` also if a removal does.
    pub fn get(&self, context: &mut Context<'_>, key: &K) -> Result<Option<V>, OperatorError> {
        Ok(self.stamped(context, key)?.and_then(|row| row.value))
    }

    /// What counts, a removal too.
    pub fn stamped(
        &self,
        context: &mut Context<'_>,
        key: &K,
    ) -> Result<Option<Stamped<V>>, OperatorError> {
        self.rows.get(context, key)
    }

    /// Visits at most `limit` keys that begin with `prefix`, after the key `after`.
    pub fn page(
        &self,
        context: &mut Context<'_>,
        prefix: &impl StoreKey,
        after: Option<&K>,
        limit: usize,
    ) -> Result<LatestPage<K, V>, OperatorError> {
        let page = self.rows.page(context, prefix, after, limit)?;
        let present = page.entries.into_iter().filter_map(|(key, row)| {
            let Stamped { stamp, value } = row;
            value.map(|value| (key, stamp, value))
        });
        Ok(LatestPage { entries: present.collect(), last: page.last })
    }

    /// Sets a value, or removes it, unless something with a greater stamp counts. With the stamp
    /// that counts already it renews the value's life.
    pub fn set(
        &self,
        context: &mut Context<'_>,
        key: &K,
        new: &Stamped<V>,
    ) -> Result<Replacement<V>, OperatorError> {
        let before = self.rows.entry(context, key)?;
        if before.as_ref().is_some_and(|before| before.value.stamp > new.stamp) {
            return Ok(Replacement::Outdated);
        }
        let present = before.filter(|before| before.value.value.is_some());
        match (&new.value, self.life_ms) {
            // By the removal's own time, so that the mark is the same in any order of the lanes.
            (None, _) => {
                let until = end_of_life(key, context.time(), MARK_MS);
                self.rows.put(context, key, new, until)?;
            }
            (Some(_), Some(ms)) => {
                let until = end_of_life(key, context.expiry_time(), ms);
                // A cause in a slow lane may be older than that of the value before.
                let until = present.as_ref().map_or(until, |present| present.until.max(until));
                self.rows.put(context, key, new, until)?;
            }
            (Some(_), None) => self.rows.put_kept(context, key, new)?,
        }
        Ok(Replacement::Newest { before: present.and_then(|present| present.value.value) })
    }
}

/// The key's instant of an hour, of those at least this many milliseconds after `from` the first.
fn end_of_life(key: &impl StoreKey, from: Millis, ms: i64) -> Millis {
    let end = from.0.saturating_add(ms);
    let instant = (xxh3_64(&key_bytes(key)) % HOUR_MS.unsigned_abs()).cast_signed();
    let later = (instant - end.rem_euclid(HOUR_MS)).rem_euclid(HOUR_MS);
    Millis(end.saturating_add(later))
}

/// Its versions are those of the value.
impl<V: StoreValue> StoreValue for Stamped<V> {
    const LEVELS: &'static [ValueLevel] = V::LEVELS;

    fn put(&self, version: u8, out: &mut Vec<u8>) {
        put_signed(out, self.stamp.time.0);
        put_bytes(out, self.stamp.event_id.as_bytes());
        out.push(self.value.is_some().into());
        if let Some(value) = &self.value {
            value.put(version, out);
        }
    }

    fn read(version: u8, from: &mut FieldDecoder<'_>) -> Option<Self> {
        let time = Millis(from.signed()?);
        let stamp = Stamp { time, event_id: from.text()?.to_owned() };
        let value = match from.byte()? {
            0 => None,
            1 => Some(V::read(version, from)?),
            _ => return None,
        };
        Some(Self { stamp, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::derive::stores::layout::{put_value, read_value};
    use crate::port::Table;
    use proptest::prelude::*;

    fn bytes(row: &Stamped<u64>) -> Vec<u8> {
        let mut out = Vec::new();
        put_value(row, ValueLevel::FIRST, &mut out);
        out
    }

    proptest! {
        #[test]
        fn rows_read_back(time: i64, event_id in ".{0,40}", value: Option<u64>) {
            let row = Stamped { stamp: Stamp { time: Millis(time), event_id }, value };
            let read = read_value::<Stamped<u64>>(Table(1), &bytes(&row));
            prop_assert_eq!(read.expect("own"), row);
        }

        #[test]
        fn damaged_rows_are_refused_without_panic(bytes: Vec<u8>) {
            let _ = read_value::<Stamped<u64>>(Table(1), &bytes);
        }
    }

    #[test]
    fn of_two_events_the_later_one_counts_and_the_greater_id_at_the_same_time() {
        let stamp = |time, id: &str| Stamp { time: Millis(time), event_id: id.to_owned() };
        assert!(stamp(2, "a") > stamp(1, "b") && stamp(1, "b") > stamp(1, "a"));
    }
}
