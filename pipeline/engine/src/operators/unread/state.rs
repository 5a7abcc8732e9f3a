//! What `unread` keeps of a user and of each notification, as it is stored.
//!
//! ```text
//! user  01 · held · listed · unread · marks (LEB128) · byte: a count was sent
//!       · read up to, event time z · day of the last event z
//!       · 00, or 01 and the place of the first closed page: event time z · id (length, text)
//!         · notifications that were dropped from it (LEB128)
//!       · how many older ones of the open page are in their own row (LEB128)
//!       · the newest places of the open page (`page.rs`)
//! known 01 · event time z · event id (length, text) · append time z
//!       · 00, or 01 and the append time of the read z
//!       · 00, or 01 and its entry in the channel (length, bytes)
//! mark  01 · append time of the read z
//! ```

use crate::derive::stores::{FieldDecoder, Stamp, StoreValue, put_bytes, put_signed};
use crate::operators::unread::page::{Place, PlacePage};
use crate::record::{Millis, put_varint};

pub(super) const DAY_MS: i64 = 24 * 3_600_000;

/// Milliseconds of append time for which a notification can be unread.
pub(super) const LIFE_MS: i64 = 90 * DAY_MS;

/// Milliseconds of append time for which a read is remembered: as long as lanes keep records, so
/// that its notification may be processed after it.
pub(super) const READ_MARK_MS: i64 = 7 * DAY_MS;

/// A user's counts, and the newest of the notifications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UserState {
    /// Notifications that are remembered, read or not.
    pub(super) held: u32,
    /// Notifications of the list: so many at the end of the open page.
    pub(super) listed: u32,
    /// Unread ones among those held.
    pub(super) unread: u32,
    /// Reads that are remembered of ids that are not held.
    pub(super) marks: u32,
    /// Whether the channel has, or gets, an entry with the count.
    pub(super) is_counted: bool,
    /// Everything up to this event time is read.
    pub(super) read_up_to: i64,
    /// The UTC day on which the last event was appended. A finer time would be written with each.
    pub(super) last_day: i64,
    /// Where the notifications of closed pages begin.
    pub(super) closed: Option<ClosedPages>,
    /// How many of the open page are in a row of their own, which are older than the newest.
    pub(super) older: u32,
    /// The newest notifications, or all of the open page.
    pub(super) newest: PlacePage,
}

/// The beginning of the closed pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClosedPages {
    /// The place in the key of the first one.
    pub(super) first: Place,
    /// How many of its notifications are not held any more. They stay in its row until all are.
    pub(super) dropped: u32,
}

impl UserState {
    /// Notifications of the open page.
    pub(super) fn open_len(&self) -> usize {
        self.older as usize + self.newest.len()
    }

    /// The index in the open page of the oldest that is listed.
    pub(super) fn first_listed(&self) -> usize {
        self.open_len().saturating_sub(self.listed as usize)
    }

    /// Whether an event has given the user a count.
    pub(super) fn has_count(&self) -> bool {
        self.held > 0 || self.read_up_to != i64::MIN
    }

    /// The append time at which the row ends, if nothing is held and no read is remembered.
    pub(super) fn ends(&self) -> Millis {
        Millis((self.last_day.saturating_add(1)).saturating_mul(DAY_MS).saturating_add(LIFE_MS))
    }
}

impl Default for UserState {
    fn default() -> Self {
        Self {
            held: 0,
            listed: 0,
            unread: 0,
            marks: 0,
            is_counted: false,
            read_up_to: i64::MIN,
            last_day: 0,
            closed: None,
            older: 0,
            newest: PlacePage::default(),
        }
    }
}

/// What is known of a notification that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The event that created it: the one with the greatest stamp.
    pub(super) stamp: Stamp,
    /// When that event was appended.
    pub(super) appended: Millis,
    /// When the newest read of this id was appended.
    pub(super) read: Option<Millis>,
    /// The event as the channel has it before it is read, while the notification is listed.
    pub(super) entry: Option<Vec<u8>>,
}

impl Known {
    /// Whether it is unread, if everything up to this event time is read.
    pub(super) fn is_unread(&self, read_up_to: i64) -> bool {
        self.read.is_none() && self.stamp.time.0 > read_up_to
    }
}

/// When the newest read of an id that is not held was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReadMark(pub(super) Millis);

impl ReadMark {
    /// When it is forgotten.
    pub(super) fn ends(self) -> Millis {
        Millis(self.0.0.saturating_add(READ_MARK_MS))
    }
}

impl StoreValue for UserState {
    fn put(&self, version: u8, out: &mut Vec<u8>) {
        out.reserve(self.newest.bytes_len() + 64);
        for count in [self.held, self.listed, self.unread, self.marks] {
            put_varint(out, u64::from(count));
        }
        out.push(u8::from(self.is_counted));
        put_signed(out, self.read_up_to);
        put_signed(out, self.last_day);
        out.push(u8::from(self.closed.is_some()));
        if let Some(ClosedPages { first: (time, id), dropped }) = &self.closed {
            put_signed(out, *time);
            put_bytes(out, id.as_bytes());
            put_varint(out, u64::from(*dropped));
        }
        put_varint(out, u64::from(self.older));
        self.newest.put(version, out);
    }

    fn read(version: u8, from: &mut FieldDecoder<'_>) -> Option<Self> {
        let mut state = Self {
            held: from.number()?,
            listed: from.number()?,
            unread: from.number()?,
            marks: from.number()?,
            is_counted: is_present(from)?,
            read_up_to: from.signed()?,
            last_day: from.signed()?,
            ..Self::default()
        };
        if is_present(from)? {
            let first = (from.signed()?, from.text()?.to_owned());
            state.closed = Some(ClosedPages { first, dropped: from.number()? });
        }
        state.older = from.number()?;
        state.newest = PlacePage::read(version, from)?;
        Some(state)
    }
}

impl StoreValue for Known {
    fn put(&self, _: u8, out: &mut Vec<u8>) {
        let Self { stamp, appended, read, entry } = self;
        out.reserve(stamp.event_id.len() + entry.as_ref().map_or(0, Vec::len) + 40);
        put_signed(out, stamp.time.0);
        put_bytes(out, stamp.event_id.as_bytes());
        put_signed(out, appended.0);
        out.push(u8::from(read.is_some()));
        read.iter().for_each(|read| put_signed(out, read.0));
        out.push(u8::from(entry.is_some()));
        entry.iter().for_each(|entry| put_bytes(out, entry));
    }

    fn read(_: u8, from: &mut FieldDecoder<'_>) -> Option<Self> {
        let (time, event_id) = (Millis(from.signed()?), from.text()?.to_owned());
        let stamp = Stamp { time, event_id };
        let mut known = Self { stamp, appended: Millis(from.signed()?), read: None, entry: None };
        if is_present(from)? {
            known.read = Some(Millis(from.signed()?));
        }
        if is_present(from)? {
            known.entry = Some(from.bytes()?.to_vec());
        }
        Some(known)
    }
}

impl StoreValue for ReadMark {
    fn put(&self, _: u8, out: &mut Vec<u8>) {
        put_signed(out, self.0.0);
    }

    fn read(_: u8, from: &mut FieldDecoder<'_>) -> Option<Self> {
        from.signed().map(|read| Self(Millis(read)))
    }
}

fn is_present(from: &mut FieldDecoder<'_>) -> Option<bool> {
    match from.byte()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::unread::page::Held;
    use proptest::prelude::*;

    fn reads_back<V: StoreValue + PartialEq + std::fmt::Debug>(value: &V) {
        let mut bytes = Vec::new();
        value.put(1, &mut bytes);
        let mut from = FieldDecoder(&bytes);
        assert_eq!(V::read(1, &mut from).as_ref(), Some(value));
        assert_eq!(from.end(), Some(()));
        for end in 0..bytes.len() {
            assert_eq!(V::read(1, &mut FieldDecoder(&bytes[..end])), None, "a part");
        }
    }

    proptest! {
        #[test]
        fn values_read_back_and_a_part_of_one_is_refused(
            counts: [u32; 6], times: [i64; 3], event_id in ".{0,20}", has: [bool; 3],
            entry: Vec<u8>,
        ) {
            let [held, listed, unread, marks, dropped, older] = counts;
            let [time, appended, other] = times;
            let place = (time, event_id.clone());
            let new = Held { time, id: &event_id, appended: Millis(appended) };
            reads_back(&UserState {
                held, listed, unread, marks,
                is_counted: has[2],
                read_up_to: other,
                last_day: appended,
                closed: has[0].then_some(ClosedPages { first: place, dropped }),
                older,
                newest: has[1].then_some(new).into_iter().collect(),
            });
            reads_back(&Known {
                stamp: Stamp { time: Millis(time), event_id: event_id.clone() },
                appended: Millis(appended),
                read: has[0].then_some(Millis(other)),
                entry: has[1].then_some(entry),
            });
            reads_back(&ReadMark(Millis(other)));
        }

        #[test]
        fn damaged_values_are_refused_without_panic(bytes: Vec<u8>) {
            let _ = UserState::read(1, &mut FieldDecoder(&bytes));
            let _ = Known::read(1, &mut FieldDecoder(&bytes));
            let _ = ReadMark::read(1, &mut FieldDecoder(&bytes));
        }
    }
}
