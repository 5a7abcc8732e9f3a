//! The order of a user's notifications, in pages, as it is stored.
//!
//! ```text
//! page   how many (LEB128) · entries (length, bytes)
//! entry  bytes that follow of it (LEB128) · event time z · append time minus event time z
//!        · id (text)
//! ```
//!
//! `z` is a zigzag LEB128 number. A page is kept encoded: most calls add one at its end, and decode
//! no other than the last. The length is before each, so that those before one that is wanted are
//! passed without decoding them.

use crate::derive::stores::{FieldDecoder, StoreValue, put_bytes, put_signed};
use crate::record::{Millis, put_varint};

/// Bytes of the entry that most calls add to a page.
const ADDED_BYTES: usize = 64;

/// The place of a notification in order: event time, then id.
pub(super) type Place = (i64, String);

/// A notification of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held<'a> {
    /// Event time of the event that created it.
    pub(super) time: i64,
    pub(super) id: &'a str,
    /// Append time of that event.
    pub(super) appended: Millis,
}

impl<'a> Held<'a> {
    pub(super) fn place(&self) -> (i64, &'a str) {
        (self.time, self.id)
    }

    fn put(&self, out: &mut Vec<u8>) {
        let from = out.len();
        out.reserve(self.id.len() + 24);
        put_signed(out, self.time);
        put_signed(out, self.appended.0.wrapping_sub(self.time));
        out.extend_from_slice(self.id.as_bytes());
        let end = out.len();
        put_varint(out, (end - from) as u64);
        let len_bytes = out.len() - end;
        out[from..].rotate_right(len_bytes);
    }

    fn read(from: &mut FieldDecoder<'a>) -> Option<Self> {
        let mut own = FieldDecoder(from.bytes()?);
        let (time, after) = (own.signed()?, own.signed()?);
        let id = std::str::from_utf8(own.0).ok()?;
        Some(Self { time, id, appended: Millis(time.wrapping_add(after)) })
    }
}

/// Some notifications, in order of their places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PlacePage {
    count: usize,
    entries: Vec<u8>,
}

impl PlacePage {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Bytes of its entries.
    pub(super) fn bytes_len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Held<'_>> {
        let mut rest = FieldDecoder(&self.entries);
        std::iter::from_fn(move || Held::read(&mut rest))
    }

    pub(super) fn first(&self) -> Option<Held<'_>> {
        self.iter().next()
    }

    pub(super) fn last(&self) -> Option<Held<'_>> {
        self.nth(self.count.checked_sub(1)?)
    }

    /// The notification of an index.
    pub(super) fn nth(&self, index: usize) -> Option<Held<'_>> {
        Held::read(&mut FieldDecoder(&self.entries[self.at(index)..]))
    }

    /// Adds a notification; returns its index.
    pub(super) fn insert(&mut self, new: Held<'_>) -> usize {
        if self.last().is_none_or(|last| last.place() < new.place()) {
            self.push(new);
            return self.count - 1;
        }
        let (index, at) = self.find(new.place());
        let mut bytes = Vec::with_capacity(new.id.len() + 24);
        new.put(&mut bytes);
        self.entries.splice(at..at, bytes);
        self.count += 1;
        index
    }

    /// Adds a notification that is after all others.
    fn push(&mut self, new: Held<'_>) {
        new.put(&mut self.entries);
        self.count += 1;
    }

    /// Adds notifications that are after all others.
    pub(super) fn append(&mut self, later: &Self) {
        self.entries.extend_from_slice(&later.entries);
        self.count += later.count;
    }

    /// Removes a notification; returns its index. `None`: it is not here.
    pub(super) fn remove(&mut self, place: (i64, &str)) -> Option<usize> {
        let (index, at) = self.find(place);
        let mut rest = FieldDecoder(&self.entries[at..]);
        if Held::read(&mut rest)?.place() != place {
            return None;
        }
        let end = self.entries.len() - rest.0.len();
        self.entries.drain(at..end);
        self.count -= 1;
        Some(index)
    }

    /// Removes the first ones, and returns them.
    pub(super) fn take_first(&mut self, count: usize) -> Self {
        let count = count.min(self.count);
        let at = self.at(count);
        let left = self.entries.split_off(at);
        let entries = std::mem::replace(&mut self.entries, left);
        self.count -= count;
        Self { count, entries }
    }

    /// Where the entry of an index begins, or the end.
    fn at(&self, index: usize) -> usize {
        let mut rest = FieldDecoder(&self.entries);
        for _ in 0..index {
            let passed = match rest.0 {
                [len @ 0..0x80, ..] => rest.take(1 + usize::from(*len)),
                _ => rest.bytes(),
            };
            if passed.is_none() {
                break;
            }
        }
        self.entries.len() - rest.0.len()
    }

    /// The index and the byte of the first notification that is not before a place.
    fn find(&self, place: (i64, &str)) -> (usize, usize) {
        let mut rest = FieldDecoder(&self.entries);
        for index in 0..self.count {
            let at = self.entries.len() - rest.0.len();
            if Held::read(&mut rest).is_none_or(|held| held.place() >= place) {
                return (index, at);
            }
        }
        (self.count, self.entries.len())
    }
}

impl<'a> FromIterator<Held<'a>> for PlacePage {
    /// A page of notifications that are in order.
    fn from_iter<I: IntoIterator<Item = Held<'a>>>(held: I) -> Self {
        let mut page = Self::default();
        held.into_iter().for_each(|held| page.push(held));
        page
    }
}

impl StoreValue for PlacePage {
    fn put(&self, _: u8, out: &mut Vec<u8>) {
        out.reserve(self.entries.len() + 8);
        put_varint(out, self.count as u64);
        put_bytes(out, &self.entries);
    }

    /// An entry that can't be decoded ends its page for those who read it.
    fn read(_: u8, from: &mut FieldDecoder<'_>) -> Option<Self> {
        let (count, stored) = (from.count(3)?, from.bytes()?);
        let mut entries = Vec::with_capacity(stored.len() + ADDED_BYTES);
        entries.extend_from_slice(stored);
        (count <= entries.len() / 3).then_some(Self { count, entries })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn held(page: &PlacePage) -> Vec<(Place, Millis)> {
        page.iter().map(|held| ((held.time, held.id.to_owned()), held.appended)).collect()
    }

    proptest! {
        #[test]
        fn a_page_is_an_ordered_map_and_reads_back(
            steps in vec((0..9i64, "[a-c]{0,2}|[ab]{130}", any::<i64>()), 0..40),
            taken in 0..50usize,
        ) {
            let (mut page, mut model) = (PlacePage::default(), BTreeMap::new());
            for (time, id, appended) in &steps {
                let place = (*time, id.clone());
                let index = model.range(..&place).count();
                if model.remove(&place).is_some() {
                    prop_assert_eq!(page.remove((*time, id)), Some(index));
                    continue;
                }
                prop_assert_eq!(page.remove((*time, id)), None);
                let appended = Millis(*appended);
                prop_assert_eq!(page.insert(Held { time: *time, id, appended }), index);
                model.insert(place, appended);
            }
            let all: Vec<_> = model.into_iter().collect();
            prop_assert_eq!(&held(&page), &all);
            prop_assert_eq!(&page, &page.iter().collect());
            prop_assert!(page.iter().enumerate().all(|(n, held)| page.nth(n) == Some(held)));
            prop_assert_eq!((page.last(), page.nth(page.len())), (page.iter().last(), None));
            let mut bytes = Vec::new();
            page.put(1, &mut bytes);
            let mut from = FieldDecoder(&bytes);
            prop_assert_eq!(PlacePage::read(1, &mut from), Some(page.clone()));
            prop_assert_eq!(from.end(), Some(()));
            let first = page.take_first(taken);
            prop_assert_eq!(&[held(&first), held(&page)].concat(), &all);
            let mut joined = first.clone();
            joined.append(&page);
            prop_assert_eq!(held(&joined), all);
            prop_assert_eq!(first.len(), taken.min(first.len() + page.len()));
            prop_assert_eq!((first.iter().count(), page.iter().count()), (first.len(), page.len()));
        }

        #[test]
        fn damaged_pages_are_refused_or_end_without_panic(
            bytes: Vec<u8>, entries: Vec<u8>, at in 0..9usize,
        ) {
            let _ = PlacePage::read(1, &mut FieldDecoder(&bytes));
            let mut page = PlacePage { count: entries.len() / 3, entries };
            let _ = (page.iter().count(), page.nth(at), page.first(), page.last());
            page.insert(Held { time: 0, id: "a", appended: Millis(0) });
            page.remove((0, "a"));
            page.append(&page.clone());
            page.take_first(at);
        }
    }
}
