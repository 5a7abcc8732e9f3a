//! What `unread` keeps of a user and of each notification, as it is stored.
//!
//! ```text
//! UserState   01 · held · listed · unread · marks (LEB128) · read up to, event time z
//!             · oldest held · oldest listed: 00, or 01 and event time z · id (length, text)
//! Known       01 · 00, or 01 and: event time z · event id (length, text) · append time z
//!             · 00, or 01 and: append time of the read z
//! Listed      01 · the event (length, bytes)
//! ```

use crate::derive::stores::{FieldDecoder, Stamp, StoreValue, put_bytes, put_signed};
use crate::record::{Millis, put_varint};

/// Milliseconds of append time for which a notification can be unread.
pub(super) const LIFE_MS: i64 = 90 * 24 * 3_600_000;

/// Milliseconds of append time for which a read is remembered: as long as lanes keep records, so
/// that its notification may be processed after it.
pub(super) const READ_MARK_MS: i64 = 7 * 24 * 3_600_000;

/// The place of a notification in order: event time, then id.
pub(super) type Place = (i64, String);

/// The counts of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UserState {
    /// Notifications that are remembered, read or not.
    pub(super) held: u32,
    /// Notifications of the list.
    pub(super) listed: u32,
    /// Unread ones among those held.
    pub(super) unread: u32,
    /// Reads that are remembered of ids that are not held.
    pub(super) marks: u32,
    /// Everything up to this event time is read.
    pub(super) read_up_to: i64,
    /// The first row of those held. Scans begin there: before it are the tombstones of all that
    /// were dropped.
    pub(super) oldest_held: Option<Place>,
    /// The first row of the list, for the same reason.
    pub(super) oldest_listed: Option<Place>,
}

impl UserState {
    /// Whether no event has given the user a count.
    pub(super) fn has_no_count(&self) -> bool {
        self.held == 0 && self.read_up_to == i64::MIN
    }
}

impl Default for UserState {
    fn default() -> Self {
        Self {
            held: 0,
            listed: 0,
            unread: 0,
            marks: 0,
            read_up_to: i64::MIN,
            oldest_held: None,
            oldest_listed: None,
        }
    }
}

/// What is known of a notification's id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// The event that created it, if it is held.
    pub(super) created: Option<Created>,
    /// When the newest read of this id was appended.
    pub(super) read: Option<Millis>,
}

/// The event that created a notification: the one with the greatest stamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Created {
    pub(super) stamp: Stamp,
    pub(super) appended: Millis,
}

impl Known {
    /// When it is forgotten; `None` if there is nothing to forget.
    pub(super) fn until(&self) -> Option<Millis> {
        let after = |time: Millis, ms: i64| Millis(time.0.saturating_add(ms));
        let created = self.created.as_ref().map(|created| after(created.appended, LIFE_MS));
        let read = self.read.map(|read| after(read, READ_MARK_MS));
        created.max(read)
    }

    /// Whether it is only the mark of a read.
    pub(super) fn is_mark(&self) -> bool {
        self.created.is_none() && self.read.is_some()
    }

    /// Whether it is unread, if everything up to this event time is read.
    pub(super) fn is_unread(&self, read_up_to: i64) -> bool {
        let created = self.created.as_ref();
        self.read.is_none() && created.is_some_and(|created| created.stamp.time.0 > read_up_to)
    }
}

/// The event of a notification of the list, encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed(pub(super) Vec<u8>);

impl StoreValue for UserState {
    fn put(&self, _: u8, out: &mut Vec<u8>) {
        for count in [self.held, self.listed, self.unread, self.marks] {
            put_varint(out, u64::from(count));
        }
        put_signed(out, self.read_up_to);
        for place in [&self.oldest_held, &self.oldest_listed] {
            out.push(u8::from(place.is_some()));
            if let Some((time, id)) = place {
                put_signed(out, *time);
                put_bytes(out, id.as_bytes());
            }
        }
    }

    fn read(_: u8, from: &mut FieldDecoder<'_>) -> Option<Self> {
        Some(Self {
            held: from.number()?,
            listed: from.number()?,
            unread: from.number()?,
            marks: from.number()?,
            read_up_to: from.signed()?,
            oldest_held: read_place(from)?,
            oldest_listed: read_place(from)?,
        })
    }
}

fn read_place(from: &mut FieldDecoder<'_>) -> Option<Option<Place>> {
    if !is_present(from)? {
        return Some(None);
    }
    Some(Some((from.signed()?, from.text()?.to_owned())))
}

impl StoreValue for Known {
    fn put(&self, _: u8, out: &mut Vec<u8>) {
        out.push(u8::from(self.created.is_some()));
        if let Some(Created { stamp, appended }) = &self.created {
            put_signed(out, stamp.time.0);
            put_bytes(out, stamp.event_id.as_bytes());
            put_signed(out, appended.0);
        }
        out.push(u8::from(self.read.is_some()));
        self.read.iter().for_each(|read| put_signed(out, read.0));
    }

    fn read(_: u8, from: &mut FieldDecoder<'_>) -> Option<Self> {
        let mut known = Self::default();
        if is_present(from)? {
            let (time, event_id) = (Millis(from.signed()?), from.text()?.to_owned());
            let appended = Millis(from.signed()?);
            known.created = Some(Created { stamp: Stamp { time, event_id }, appended });
        }
        if is_present(from)? {
            known.read = Some(Millis(from.signed()?));
        }
        Some(known)
    }
}

fn is_present(from: &mut FieldDecoder<'_>) -> Option<bool> {
    match from.byte()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

impl StoreValue for Listed {
    fn put(&self, _: u8, out: &mut Vec<u8>) {
        put_bytes(out, &self.0);
    }

    fn read(_: u8, from: &mut FieldDecoder<'_>) -> Option<Self> {
        Some(Self(from.bytes()?.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
            counts: [u32; 4], read_up_to: i64, time: i64, event_id in ".{0,20}", appended: i64,
            has: [bool; 2], event: Vec<u8>,
        ) {
            let [held, listed, unread, marks] = counts;
            let oldest_held = has[0].then(|| (time, event_id.clone()));
            let oldest_listed = has[1].then(|| (appended, event_id.clone()));
            reads_back(&UserState {
                held, listed, unread, marks, read_up_to, oldest_held, oldest_listed,
            });
            let stamp = Stamp { time: Millis(time), event_id };
            let created = has[0].then_some(Created { stamp, appended: Millis(appended) });
            reads_back(&Known { created, read: has[1].then_some(Millis(read_up_to)) });
            reads_back(&Listed(event));
        }

        #[test]
        fn damaged_values_are_refused_without_panic(bytes: Vec<u8>) {
            let _ = UserState::read(1, &mut FieldDecoder(&bytes));
            let _ = Known::read(1, &mut FieldDecoder(&bytes));
            let _ = Listed::read(1, &mut FieldDecoder(&bytes));
        }
    }

    #[test]
    fn a_notification_is_forgotten_after_90_days_and_a_read_after_7() {
        let day = 24 * 3_600_000;
        let stamp = Stamp { time: Millis(5), event_id: "e".to_owned() };
        let created = Some(Created { stamp, appended: Millis(0) });
        let until = |known: Known| known.until().map(|until| until.0);
        assert_eq!(until(Known::default()), None);
        assert_eq!(until(Known { created: created.clone(), read: None }), Some(90 * day));
        assert_eq!(until(Known { created: None, read: Some(Millis(0)) }), Some(7 * day));
        let late = Known { created, read: Some(Millis(89 * day)) };
        assert_eq!(until(late), Some(96 * day));
    }
}
