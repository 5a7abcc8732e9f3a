//! Values per key and window of time: tumbling windows do not overlap, hopping ones do.
//!
//! ```text
//! start of the window, 8 bytes · key as given → value
//! ```
//!
//! A key begins with the window's start. So the keys of one window are adjacent, and expired
//! windows are a range at the beginning of the table, which is dropped without being read.
//!
//! A window is open to an event that was appended to the input before its end and the grace, unless
//! the settled time is past that already. Any other event is late; the result counts it, so that
//! the operator can report it. A window that is not open reads as empty.

use std::marker::PhantomData;
use std::ops::{ControlFlow, Range};

use crate::derive::operator::{Context, OperatorError};
use crate::derive::stores::keyed::first_rows;
use crate::derive::stores::layout::{
    KeyOf, StoreKey, StoreValue, key_bytes, newest_level, put_value, read_key, read_value,
};
use crate::derive::stores::session::MAX_AHEAD_MS;
use crate::derive::table_decl::{Changelog, TableDecl};
use crate::port::{KeyRange, Table, TableExpiry, TableSpec};
use crate::record::Millis;

/// How time is cut into windows. All lengths in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    size: i64,
    advance: i64,
    grace: i64,
}

impl Windows {
    /// Adjacent windows, each `size` long; late events are accepted until `grace` after its end.
    pub const fn tumbling(size: i64, grace: i64) -> Self {
        assert!(size > 0 && grace >= 0, "a window has a length");
        Self { size, advance: size, grace }
    }

    /// Hopping windows of the same size: one begins every `advance`, so that an event is in
    /// several.
    pub const fn advance_by(self, advance: i64) -> Self {
        assert!(0 < advance && advance <= self.size, "windows leave no gap");
        Self { advance, ..self }
    }

    /// The starts of the windows that contain this time, oldest first.
    pub fn starts(self, at: Millis) -> impl Iterator<Item = Millis> {
        let last = at.0.div_euclid(self.advance) * self.advance;
        let before = (self.size - 1 - (at.0 - last)).div_euclid(self.advance);
        (0..=before).rev().map(move |n| Millis(last - n * self.advance))
    }

    /// Whether a window accepts events at this time.
    pub fn is_open(self, start: Millis, now: Millis) -> bool {
        now.0.saturating_sub(self.size + self.grace) < start.0
    }
}

/// The result of an update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Updated {
    /// Windows that were updated.
    pub taken: usize,
    /// Windows that were no longer open.
    pub late: usize,
}

/// A value per key and window.
pub struct Windowed<K, V> {
    table: Table,
    name: &'static str,
    windows: Windows,
    of: PhantomData<fn(K) -> V>,
}

impl<K: StoreKey, V: StoreValue> Windowed<K, V> {
    /// The store of this number; numbers are persisted.
    pub const fn new(number: u8, name: &'static str, windows: Windows) -> Self {
        Self { table: Table(number), name, windows, of: PhantomData }
    }

    /// The declaration for its operator's `tables`.
    pub const fn decl(&self) -> TableDecl {
        let spec = TableSpec { table: self.table, name: self.name, expiry: TableExpiry::ByKeyTime };
        let window_ms = self.windows.size + self.windows.grace;
        let level = newest_level::<V>();
        TableDecl { spec, changelog: Changelog::Windows, window_ms, level }
    }

    /// The value of a key in one window.
    pub fn get(
        &self,
        context: &mut Context<'_>,
        key: &impl KeyOf<K>,
        start: Millis,
    ) -> Result<Option<V>, OperatorError> {
        if !self.windows.is_open(start, context.expiry_time()) {
            return Ok(None);
        }
        let found = context.get(self.table, &row(start, key))?;
        found.map(|value| read_value(self.table, &value)).transpose()
    }

    /// Changes the value of a key in every window that contains this time.
    pub fn update(
        &self,
        context: &mut Context<'_>,
        key: &impl KeyOf<K>,
        at: Millis,
        mut change: impl FnMut(Option<V>) -> V,
    ) -> Result<Updated, OperatorError> {
        let mut updated = Updated::default();
        for start in self.windows.starts(at) {
            if !self.windows.is_open(start, context.expiry_time()) {
                updated.late += 1;
                continue;
            }
            let value = change(self.get(context, key, start)?);
            let mut stored = Vec::with_capacity(32);
            put_value(&value, context.level, &mut stored);
            context.put(self.table, &row(start, key), &stored);
            updated.taken += 1;
        }
        Ok(updated)
    }

    /// Sets the value of a key in every open window that contains this time.
    pub fn put(
        &self,
        context: &mut Context<'_>,
        key: &impl KeyOf<K>,
        at: Millis,
        value: &V,
    ) -> Updated {
        let mut updated = Updated::default();
        let mut stored = Vec::with_capacity(32);
        put_value(value, context.level, &mut stored);
        for start in self.windows.starts(at) {
            if !self.windows.is_open(start, context.expiry_time()) {
                updated.late += 1;
                continue;
            }
            context.put(self.table, &row(start, key), &stored);
            updated.taken += 1;
        }
        updated
    }

    /// Visits the keys of one window from one to before another, in order.
    pub fn visit(
        &self,
        context: &mut Context<'_>,
        (start, keys): (Millis, Range<K>),
        visit: &mut dyn FnMut(K, V),
    ) -> Result<(), OperatorError> {
        if !self.windows.is_open(start, context.expiry_time()) {
            return Ok(());
        }
        let (from, to) = (row(start, &keys.start), row(start, &keys.end));
        let range = KeyRange { from: &from, to: Some(&to) };
        let table = self.table;
        let mut unreadable = None;
        context.scan(table, range, &mut |row, value| {
            let read = read_key::<(Millis, K)>(table, row)
                .and_then(|(_, key)| Ok((key, read_value(table, value)?)));
            match read {
                Ok((key, value)) => visit(key, value),
                Err(error) => unreadable = Some(error),
            }
            if unreadable.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        unreadable.map_or(Ok(()), Err)
    }

    /// A key's open windows that begin in `starts`, oldest first; none that begin further ahead
    /// of the latest record than [`MAX_AHEAD_MS`].
    pub fn range(
        &self,
        context: &mut Context<'_>,
        key: &K,
        starts: Range<Millis>,
    ) -> Result<Vec<(Millis, V)>, OperatorError> {
        let Windows { size, advance, grace } = self.windows;
        let open = context.expiry_time().0.saturating_sub(size + grace).saturating_add(1);
        let mut start = starts.start.0.max(open);
        start += (-start).rem_euclid(advance);
        let mut found = Vec::new();
        let end = starts.end.0.min(context.latest().0.saturating_add(MAX_AHEAD_MS));
        while start < end {
            if let Some(value) = self.get(context, key, Millis(start))? {
                found.push((Millis(start), value));
            }
            start += advance;
        }
        Ok(found)
    }

    /// The first `limit` keys of one window, in order.
    pub fn first(
        &self,
        context: &mut Context<'_>,
        start: Millis,
        limit: usize,
    ) -> Result<Vec<(K, V)>, OperatorError> {
        if !self.windows.is_open(start, context.expiry_time()) {
            return Ok(Vec::new());
        }
        let rows = first_rows(context, self.table, &key_bytes(&start), limit)?;
        let read = |(row, value): (bytes::Bytes, bytes::Bytes)| -> Result<(K, V), OperatorError> {
            let key = read_key::<(Millis, K)>(self.table, &row)?.1;
            Ok((key, read_value(self.table, &value)?))
        };
        rows.into_iter().map(read).collect()
    }
}

fn row<K>(start: Millis, key: &impl KeyOf<K>) -> Vec<u8> {
    let mut row = Vec::with_capacity(96);
    start.put(&mut row);
    key.put_key(&mut row);
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_event_is_in_every_window_that_covers_it_and_in_no_other(
            at in -200i64..200, advance in 1i64..20, more in 0i64..60,
        ) {
            let size = advance + more;
            let windows = Windows::tumbling(size, 0).advance_by(advance);
            let starts: Vec<i64> = windows.starts(Millis(at)).map(|start| start.0).collect();
            let covers: Vec<i64> = (-300..300)
                .filter(|start| start % advance == 0 && *start <= at && at < start + size)
                .collect();
            prop_assert_eq!(starts, covers);
        }
    }

    #[test]
    fn a_window_is_open_until_its_grace_is_over() {
        let windows = Windows::tumbling(60, 10);
        let open = |now| windows.is_open(Millis(120), Millis(now));
        assert_eq!([open(0), open(189), open(190), open(i64::MAX)], [true, true, false, false]);
    }
}
