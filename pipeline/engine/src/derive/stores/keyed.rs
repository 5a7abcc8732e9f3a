//! Key-value stores, and ordered indexes built on them.
//!
//! An index is a key-value store with empty values: its keys sort by group, then by sort key, then
//! by id, so the first entries of a group are one short scan.

use std::marker::PhantomData;
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::derive::operator::{Context, OperatorError};
use crate::derive::stores::layout::{
    KeyOf, StoreKey, StoreValue, key_bytes, newest_level, put_value, read_key, read_value,
};
use crate::derive::table_decl::{Changelog, TableDecl};
use crate::port::{KeyRange, Table, TableExpiry, TableSpec};

/// One value per key.
pub struct KeyValue<K, V> {
    table: Table,
    name: &'static str,
    of: PhantomData<fn(K) -> V>,
}

impl<K: StoreKey, V: StoreValue> KeyValue<K, V> {
    /// The store of this number; numbers are persisted.
    pub const fn new(number: u8, name: &'static str) -> Self {
        Self { table: Table(number), name, of: PhantomData }
    }

    /// The declaration for its operator's `tables`.
    pub const fn decl(&self) -> TableDecl {
        let spec = TableSpec { table: self.table, name: self.name, expiry: TableExpiry::Never };
        let level = newest_level::<V>();
        TableDecl { spec, changelog: Changelog::State, window_ms: 0, level }
    }

    /// The value of a key.
    pub fn get(
        &self,
        context: &mut Context<'_>,
        key: &impl KeyOf<K>,
    ) -> Result<Option<V>, OperatorError> {
        let found = context.get(self.table, &key_bytes(key))?;
        found.map(|value| read_value(self.table, &value)).transpose()
    }

    /// Sets the value of a key.
    pub fn put(&self, context: &mut Context<'_>, key: &impl KeyOf<K>, value: &V) {
        let mut bytes = Vec::with_capacity(32);
        put_value(value, context.level, &mut bytes);
        context.put(self.table, &key_bytes(key), &bytes);
    }

    /// Removes a key.
    pub fn remove(&self, context: &mut Context<'_>, key: &impl KeyOf<K>) {
        context.remove(self.table, &key_bytes(key));
    }

    /// The first `limit` entries whose keys begin with `prefix`, in order.
    pub fn first(
        &self,
        context: &mut Context<'_>,
        prefix: &impl StoreKey,
        limit: usize,
    ) -> Result<Vec<(K, V)>, OperatorError> {
        let prefix = key_bytes(prefix);
        let keys = PrefixRange { prefix: &prefix, from: &prefix };
        self.read_rows(context, keys, limit)
    }

    /// The first `limit` entries from this key on, it included, whose keys begin with `prefix`.
    /// Where the first entries are often removed, this does not pass their tombstones.
    pub fn first_from(
        &self,
        context: &mut Context<'_>,
        prefix: &impl StoreKey,
        from: &K,
        limit: usize,
    ) -> Result<Vec<(K, V)>, OperatorError> {
        let (prefix, from) = (key_bytes(prefix), key_bytes(from));
        self.read_rows(context, PrefixRange { prefix: &prefix, from: &from }, limit)
    }

    fn read_rows(
        &self,
        context: &mut Context<'_>,
        keys: PrefixRange<'_>,
        limit: usize,
    ) -> Result<Vec<(K, V)>, OperatorError> {
        let rows = rows_from(context, self.table, keys, limit)?;
        let read = |(key, value): (Bytes, Bytes)| -> Result<(K, V), OperatorError> {
            Ok((read_key(self.table, &key)?, read_value(self.table, &value)?))
        };
        rows.into_iter().map(read).collect()
    }
}

/// The first rows of a table whose keys begin with a prefix.
pub(super) fn first_rows(
    context: &mut Context<'_>,
    table: Table,
    prefix: &[u8],
    limit: usize,
) -> Result<Vec<(Bytes, Bytes)>, OperatorError> {
    rows_from(context, table, PrefixRange { prefix, from: prefix }, limit)
}

/// The keys that begin with a prefix, from one of them on.
pub(super) struct PrefixRange<'a> {
    pub(super) prefix: &'a [u8],
    pub(super) from: &'a [u8],
}

/// The first rows of a range.
pub(super) fn rows_from(
    context: &mut Context<'_>,
    table: Table,
    keys: PrefixRange<'_>,
    limit: usize,
) -> Result<Vec<(Bytes, Bytes)>, OperatorError> {
    let mut rows = Vec::new();
    if limit == 0 {
        return Ok(rows);
    }
    let end = prefix_end(keys.prefix);
    let range = KeyRange { from: keys.from, to: end.as_deref() };
    context.scan(table, range, &mut |key, value| {
        rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        if rows.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(rows)
}

/// The first key after all keys with this prefix; `None` if there is no such key.
pub(super) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// The ids of a group `G`, ordered by a sort key `S`; [`Desc`](super::Desc) reverses the order.
pub struct Index<G, S, I>(KeyValue<(G, S, I), ()>);

impl<G: StoreKey, S: StoreKey, I: StoreKey> Index<G, S, I> {
    /// The index of this number.
    pub const fn new(number: u8, name: &'static str) -> Self {
        Self(KeyValue::new(number, name))
    }

    /// The declaration for its operator's `tables`.
    pub const fn decl(&self) -> TableDecl {
        self.0.decl()
    }

    /// Adds an id.
    pub fn insert(&self, context: &mut Context<'_>, entry: &(G, S, I)) {
        self.0.put(context, entry, &());
    }

    /// Removes an id; the entry must have the sort key with which it was inserted.
    pub fn remove(&self, context: &mut Context<'_>, entry: &(G, S, I)) {
        self.0.remove(context, entry);
    }

    /// The first `limit` entries of a group.
    pub fn first(
        &self,
        context: &mut Context<'_>,
        group: &G,
        limit: usize,
    ) -> Result<Vec<(S, I)>, OperatorError> {
        let rows = self.0.first(context, group, limit)?;
        Ok(rows.into_iter().map(|((_, sort, id), ())| (sort, id)).collect())
    }

    /// The first `limit` entries of a group from this one on, it included. Where the first entries
    /// are often removed, this does not pass their tombstones.
    pub fn first_from(
        &self,
        context: &mut Context<'_>,
        from: &(G, S, I),
        limit: usize,
    ) -> Result<Vec<(S, I)>, OperatorError> {
        let rows = self.0.first_from(context, &from.0, from, limit)?;
        Ok(rows.into_iter().map(|((_, sort, id), ())| (sort, id)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_first_key_after_it() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(b"a\xff"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"\xff\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }
}
