//! What is known of a post, and an event that waits for its author, as stored.
//!
//! ```text
//! post     newest append time z
//!          · 0, or 1 and the deletion: append time z · event time z · event id
//!          · 0, or 1 and the author: first append time z · event time z · event id · author
//! waiting  event time z · hops, a byte · correlation id · data of `notify.due` without recipient
//! ```
//!
//! `z` is a zigzag LEB128 number; texts have a LEB128 length before them.

use crate::derive::Input;
use crate::derive::stores::{FieldDecoder, StoreValue, put_bytes, put_signed};
use crate::operators::posts::WAIT_MS;
use crate::record::Millis;

/// What is known of a post.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PostRow {
    /// The newest append time of its events.
    pub(super) seen: Millis,
    /// Its first deletion.
    deleted: Option<AppendedAct>,
    author: Option<KnownAuthor>,
}

/// When an event was appended. Equal append times are ordered by event time, then by id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AppendedAct {
    pub(super) time: Millis,
    pub(super) timestamp_ms: i64,
    pub(super) event_id: String,
}

/// The author of a post.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KnownAuthor {
    /// The append time of the first event that named one.
    first: Millis,
    /// Event time and id of the event that counts: the greatest.
    version: (i64, String),
    author_id: String,
}

/// Whom an event about a post concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthorAnswer<'a> {
    /// The author.
    Author(&'a str),
    /// Nobody: the post had been deleted.
    Deleted,
    /// Not known, or only since the event has stopped to wait.
    Unknown,
}

impl PostRow {
    /// The post was created, by an event of this append time.
    pub(super) fn create(&mut self, event: &Input<'_>, time: Millis) {
        self.seen = self.seen.max(time);
        let Some(author_id) = event.fields().text("author_id") else { return };
        let version = (event.timestamp_ms, event.event_id.to_owned());
        let known = self.author.get_or_insert_with(|| KnownAuthor {
            first: time,
            version: version.clone(),
            author_id: author_id.as_ref().to_owned(),
        });
        known.first = known.first.min(time);
        if known.version < version {
            known.version = version;
            known.author_id = author_id.into_owned();
        }
    }

    /// The post was deleted by this event.
    pub(super) fn delete(&mut self, deletion: AppendedAct) {
        self.seen = self.seen.max(deletion.time);
        self.deleted =
            self.deleted.take().map(|first| first.min(deletion.clone())).or(Some(deletion));
    }

    /// Whom this event concerns.
    pub(super) fn author_at(&self, event: &AppendedAct) -> AuthorAnswer<'_> {
        let waited = Millis(event.time.0.saturating_add(WAIT_MS));
        let in_time = |known: &&KnownAuthor| known.first < waited;
        if self.deleted.as_ref().is_some_and(|deletion| deletion < event) {
            return AuthorAnswer::Deleted;
        }
        match self.author.as_ref().filter(in_time) {
            Some(known) => AuthorAnswer::Author(&known.author_id),
            None => AuthorAnswer::Unknown,
        }
    }
}

impl StoreValue for PostRow {
    fn put(&self, _: u8, out: &mut Vec<u8>) {
        put_signed(out, self.seen.0);
        out.push(u8::from(self.deleted.is_some()));
        if let Some(AppendedAct { time, timestamp_ms, event_id }) = &self.deleted {
            put_signed(out, time.0);
            put_signed(out, *timestamp_ms);
            put_bytes(out, event_id.as_bytes());
        }
        out.push(u8::from(self.author.is_some()));
        if let Some(KnownAuthor { first, version: (time_ms, event_id), author_id }) = &self.author {
            put_signed(out, first.0);
            put_signed(out, *time_ms);
            put_bytes(out, event_id.as_bytes());
            put_bytes(out, author_id.as_bytes());
        }
    }

    fn read(_: u8, from: &mut FieldDecoder<'_>) -> Option<Self> {
        let seen = Millis(from.signed()?);
        let deleted = match from.byte()? {
            0 => None,
            _ => Some(AppendedAct {
                time: Millis(from.signed()?),
                timestamp_ms: from.signed()?,
                event_id: from.text()?.to_owned(),
            }),
        };
        let author = match from.byte()? {
            0 => None,
            _ => Some(KnownAuthor {
                first: Millis(from.signed()?),
                version: (from.signed()?, from.text()?.to_owned()),
                author_id: from.text()?.to_owned(),
            }),
        };
        Some(Self { seen, deleted, author })
    }
}

/// An event that waits for the author of its post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WaitingRow {
    /// Its event time, which that of `notify.due` will be.
    pub(super) timestamp_ms: i64,
    /// The facts and timers that led to it.
    pub(super) hops: u8,
    /// Its correlation id.
    pub(super) correlation: String,
    /// The data of `notify.due`, without the recipient.
    pub(super) data: String,
}

impl StoreValue for WaitingRow {
    fn put(&self, _: u8, out: &mut Vec<u8>) {
        put_signed(out, self.timestamp_ms);
        out.push(self.hops);
        put_bytes(out, self.correlation.as_bytes());
        put_bytes(out, self.data.as_bytes());
    }

    fn read(_: u8, from: &mut FieldDecoder<'_>) -> Option<Self> {
        Some(Self {
            timestamp_ms: from.signed()?,
            hops: from.byte()?,
            correlation: from.text()?.to_owned(),
            data: from.text()?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_back<V: StoreValue>(value: &V) -> Option<V> {
        let mut bytes = Vec::new();
        value.put(1, &mut bytes);
        let mut from = FieldDecoder(&bytes);
        V::read(1, &mut from).filter(|_| from.0.is_empty())
    }

    proptest! {
        #[test]
        fn rows_read_back(
            (seen, deleted) in any::<(i64, Option<(i64, i64, String)>)>(),
            author in any::<Option<(i64, i64, String, String)>>(),
            (hops, correlation, data) in (any::<u8>(), ".{0,20}", ".{0,60}"),
        ) {
            let author = author.map(|(first, time_ms, event_id, author_id)| KnownAuthor {
                first: Millis(first),
                version: (time_ms, event_id),
                author_id,
            });
            let deleted = deleted.map(|(time, timestamp_ms, event_id)| AppendedAct {
                time: Millis(time),
                timestamp_ms,
                event_id,
            });
            let row = PostRow { seen: Millis(seen), deleted, author };
            prop_assert_eq!(read_back(&row), Some(row));
            let waiting = WaitingRow { timestamp_ms: seen, hops, correlation, data };
            prop_assert_eq!(read_back(&waiting), Some(waiting));
        }

        #[test]
        fn damaged_rows_are_refused_without_panic(bytes: Vec<u8>) {
            let _ = PostRow::read(1, &mut FieldDecoder(&bytes));
            let _ = WaitingRow::read(1, &mut FieldDecoder(&bytes));
        }
    }
}
