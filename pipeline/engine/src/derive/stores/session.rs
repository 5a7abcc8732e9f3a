//! Values per key and session: a burst of events in which none is further from the next than the
//! gap.
//!
//! ```text
//! bucket of its end, 8 bytes · key as given · its start, 8 bytes → its end, 8 bytes · value
//! ```
//!
//! Sessions are stored in buckets of time by their ends, so expired ones are a range at the
//! beginning of the table and are dropped without being read. A key's sessions are found by reading
//! the few buckets that can hold one; a session that grows past the end of its bucket moves to the
//! next.
//!
//! A session is open to an event that was appended to the input before its end, the gap and the
//! grace, unless the settled time is past that already.

use std::marker::PhantomData;

use bytes::Bytes;

use crate::derive::operator::{Context, OperatorError};
use crate::derive::stores::keyed::first_rows;
use crate::derive::stores::layout::{
    FieldDecoder, StoreKey, StoreValue, key_bytes, newest_level, put_value, read_key, read_value,
};
use crate::derive::table_decl::{Changelog, TableDecl};
use crate::port::{Table, TableExpiry, TableSpec};
use crate::record::Millis;

/// Milliseconds an event may be ahead of its append time; a later one is treated as if it were this
/// much ahead. It bounds the buckets that can hold a session.
pub const MAX_AHEAD_MS: i64 = 3_600_000;

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session<V> {
    /// The time of its first event.
    pub start: Millis,
    /// The time of its last event.
    pub end: Millis,
    /// The joined value of its events.
    pub value: V,
}

/// How events are grouped into sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionWindows {
    /// Events at most this many milliseconds apart belong to one session.
    pub gap_ms: i64,
    /// Milliseconds after the gap during which late events are still accepted.
    pub grace_ms: i64,
}

/// An event to add to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionEvent<V> {
    /// Event time.
    pub at: Millis,
    /// The value of a session of this event alone.
    pub value: V,
}

/// A value per key and session.
pub struct Sessions<K, V> {
    table: Table,
    name: &'static str,
    gap_ms: i64,
    grace_ms: i64,
    of: PhantomData<fn(K) -> V>,
}

impl<K: StoreKey, V: StoreValue> Sessions<K, V> {
    /// The store of this number; numbers are persisted.
    pub const fn new(number: u8, name: &'static str, windows: SessionWindows) -> Self {
        let SessionWindows { gap_ms, grace_ms } = windows;
        assert!(gap_ms > 0 && grace_ms >= 0, "a session has a gap");
        Self { table: Table(number), name, gap_ms, grace_ms, of: PhantomData }
    }

    /// The declaration for its operator's `tables`. A bucket expires with its last session.
    pub const fn decl(&self) -> TableDecl {
        let spec = TableSpec { table: self.table, name: self.name, expiry: TableExpiry::ByKeyTime };
        let window_ms = self.gap_ms + self.grace_ms + self.bucket_ms();
        let level = newest_level::<V>();
        TableDecl { spec, changelog: Changelog::Windows, window_ms, level }
    }

    /// Adds an event to its session, or begins one. Sessions that the event connects become one by
    /// `join`, which gets the older value first. `None`: the event is late.
    pub fn add(
        &self,
        context: &mut Context<'_>,
        key: &K,
        event: SessionEvent<V>,
        mut join: impl FnMut(V, V) -> V,
    ) -> Result<Option<Session<V>>, OperatorError> {
        let SessionEvent { at, value } = event;
        let at = Millis(at.0.min(context.time().0.saturating_add(MAX_AHEAD_MS)));
        if !self.is_open(at, context.expiry_time()) {
            return Ok(None);
        }
        let mut near: Vec<Session<V>> = self.all(context, key)?;
        near.retain(|s| s.start.0 - self.gap_ms <= at.0 && at.0 <= s.end.0 + self.gap_ms);
        for session in &near {
            context.remove(self.table, &self.row(session, key));
        }
        near.push(Session { start: at, end: at, value });
        near.sort_by_key(|session| session.start);
        let whole = near.into_iter().reduce(|older, newer| Session {
            start: older.start,
            end: older.end.max(newer.end),
            value: join(older.value, newer.value),
        });
        if let Some(session) = &whole {
            let mut stored = Vec::with_capacity(32);
            session.end.put(&mut stored);
            put_value(&session.value, context.level, &mut stored);
            context.put(self.table, &self.row(session, key), &stored);
        }
        Ok(whole)
    }

    /// A key's open sessions, oldest first.
    pub fn all(
        &self,
        context: &mut Context<'_>,
        key: &K,
    ) -> Result<Vec<Session<V>>, OperatorError> {
        let now = context.expiry_time().0;
        let first = self.bucket(now.saturating_sub(self.gap_ms + self.grace_ms));
        let last = self.bucket(context.latest().0.saturating_add(MAX_AHEAD_MS));
        let mut sessions = Vec::new();
        let mut bucket = first;
        while bucket <= last {
            let mut prefix = key_bytes(&bucket);
            key.put(&mut prefix);
            for (row, stored) in first_rows(context, self.table, &prefix, usize::MAX)? {
                let session = self.read(&row[prefix.len()..], &stored)?;
                if self.is_open(session.end, Millis(now)) {
                    sessions.push(session);
                }
            }
            bucket += self.bucket_ms();
        }
        sessions.sort_by_key(|session| session.start);
        Ok(sessions)
    }

    fn is_open(&self, end: Millis, now: Millis) -> bool {
        now.0.saturating_sub(self.gap_ms + self.grace_ms) < end.0
    }

    const fn bucket_ms(&self) -> i64 {
        let life = self.gap_ms + self.grace_ms;
        if life < MAX_AHEAD_MS { MAX_AHEAD_MS } else { life }
    }

    fn bucket(&self, end: i64) -> i64 {
        end.div_euclid(self.bucket_ms()) * self.bucket_ms()
    }

    fn row(&self, session: &Session<V>, key: &K) -> Vec<u8> {
        let mut row = key_bytes(&self.bucket(session.end.0));
        key.put(&mut row);
        session.start.put(&mut row);
        row
    }

    fn read(&self, start: &[u8], stored: &Bytes) -> Result<Session<V>, OperatorError> {
        let start = read_key(self.table, start)?;
        let mut from = FieldDecoder(stored);
        let end = read_key(self.table, from.take(8).unwrap_or_default())?;
        Ok(Session { start, end, value: read_value(self.table, from.0)? })
    }
}
