//! A store whose entries expire at a given time: cached answers, leases, grace periods.
//!
//! ```text
//! key as given → expiry time, 8 bytes big-endian with the sign flipped · value
//! ```
//!
//! An entry is expired by its time alone, whether or not it is still in the table. Removing it is
//! housekeeping by timers of the engine, once the settled time has passed that time: a bounded
//! number per tick, each a tombstone in the changelog, so that a rebuilt store does not bring the
//! entry back.

use std::marker::PhantomData;

use bytes::Bytes;

use crate::derive::operator::{Context, OperatorError, Rules};
use crate::derive::stores::keyed::{PrefixRange, rows_from};
use crate::derive::stores::layout::{
    FieldDecoder, StoreKey, StoreValue, key_bytes, newest_level, put_value, read_key, read_value,
    unreadable,
};
use crate::derive::table_decl::{Changelog, TableDecl};
use crate::derive::timers::{EXPIRIES, LATER_MS, TimerKey, TimerOwner, Timers};
use crate::overlay::TaskState;
use crate::port::{StoreError, Table, TableExpiry, TableSpec};
use crate::record::Millis;
use crate::telemetry;

/// The operator number of stores in the table of expiries; no operator may use it.
pub(in crate::derive) const EXPIRY: u8 = 0;

/// The expiry time of an entry that stays; no timer is set for it.
const NEVER: Millis = Millis(i64::MAX);

/// A value per key that expires.
pub struct Expiring<K, V> {
    table: Table,
    name: &'static str,
    of: PhantomData<fn(K) -> V>,
}

/// A value that is not expired, and when it expires.
pub(super) struct ExpiringEntry<V> {
    pub(super) value: V,
    pub(super) until: Millis,
}

/// Some entries of a store, in order.
pub(super) struct EntryPage<K, V> {
    pub(super) entries: Vec<(K, V)>,
    /// The last key that was visited, if there may be more.
    pub(super) last: Option<K>,
}

impl<K: StoreKey, V: StoreValue> Expiring<K, V> {
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

    /// The value of a key, unless it is expired at the time of the cause.
    pub fn get(&self, context: &mut Context<'_>, key: &K) -> Result<Option<V>, OperatorError> {
        Ok(self.entry(context, key)?.map(|entry| entry.value))
    }

    /// The entry of a key, unless it is expired at the time of the cause.
    pub(super) fn entry(
        &self,
        context: &mut Context<'_>,
        key: &K,
    ) -> Result<Option<ExpiringEntry<V>>, OperatorError> {
        let Some(stored) = context.get(self.table, &key_bytes(key))? else { return Ok(None) };
        let until = expires_at(&stored).ok_or_else(|| unreadable(self.table, "value"))?;
        if until <= context.expiry_time() {
            return Ok(None);
        }
        let value = read_value(self.table, &stored[8..])?;
        Ok(Some(ExpiringEntry { value, until }))
    }

    /// Visits at most `limit` entries whose keys begin with `prefix`, in order, after the key
    /// `after`. Those that are expired at the time of the cause count, and are left out.
    pub(super) fn page(
        &self,
        context: &mut Context<'_>,
        prefix: &impl StoreKey,
        after: Option<&K>,
        limit: usize,
    ) -> Result<EntryPage<K, V>, OperatorError> {
        let prefix = key_bytes(prefix);
        let from = after.map_or_else(|| prefix.clone(), |key| [&key_bytes(key)[..], &[0]].concat());
        let keys = PrefixRange { prefix: &prefix, from: &from };
        let rows = rows_from(context, self.table, keys, limit)?;
        let last = rows.last().filter(|_| rows.len() == limit);
        let last = last.map(|(key, _)| read_key(self.table, key)).transpose()?;
        let mut entries = Vec::with_capacity(rows.len());
        for (key, stored) in &rows {
            if expires_at(stored).is_some_and(|at| at > context.expiry_time()) {
                let value = read_value(self.table, &stored[8..])?;
                entries.push((read_key(self.table, key)?, value));
            }
        }
        Ok(EntryPage { entries, last })
    }

    /// Sets the value of a key, which expires at `until`.
    pub fn put(
        &self,
        context: &mut Context<'_>,
        key: &K,
        value: &V,
        until: Millis,
    ) -> Result<(), OperatorError> {
        let key = key_bytes(key);
        self.move_timer(context, &key, until)?;
        let mut stored = Vec::with_capacity(32);
        until.put(&mut stored);
        put_value(value, context.level, &mut stored);
        context.put(self.table, &key, &stored);
        Ok(())
    }

    /// Sets a value that does not expire.
    pub(super) fn put_kept(
        &self,
        context: &mut Context<'_>,
        key: &K,
        value: &V,
    ) -> Result<(), OperatorError> {
        self.put(context, key, value, NEVER)
    }

    /// Removes a key.
    pub fn remove(&self, context: &mut Context<'_>, key: &K) -> Result<(), OperatorError> {
        let key = key_bytes(key);
        self.move_timer(context, &key, NEVER)?;
        context.remove(self.table, &key);
        Ok(())
    }

    /// Removes the timer of the key's current entry, and sets one for its expiry at `until`.
    fn move_timer(
        &self,
        context: &mut Context<'_>,
        key: &[u8],
        until: Millis,
    ) -> Result<(), OperatorError> {
        let before = context.get(self.table, key)?;
        let before = before.and_then(|stored| expires_at(&stored)).unwrap_or(NEVER);
        if before == until {
            return Ok(());
        }
        let due = self.due(key);
        let timer = |at| TimerKey { at, operator: EXPIRY, owner: TimerOwner::default(), key: &due };
        if before != NEVER {
            context.timers.expiries.remove(context.state, timer(before));
        }
        if until != NEVER {
            context.timers.expiries.set(context.state, timer(until), Bytes::new());
        }
        Ok(())
    }

    /// The key of the timer: table number, then the entry's key.
    fn due(&self, key: &[u8]) -> Vec<u8> {
        let mut due = vec![self.table.0];
        due.extend_from_slice(key);
        due
    }
}

/// Removes the entry of a due timer if it is expired. The entry of an operator that this build does
/// not have stays: it reads as expired by its time.
pub(in crate::derive) fn expire(
    rules: Rules<'_>,
    state: &mut TaskState,
    due: &[u8],
    now: Millis,
) -> Result<(), StoreError> {
    let Some((table, key)) = due.split_first() else { return Ok(()) };
    let mut declared = rules.operators.iter().flat_map(|operator| operator.tables());
    if !declared.any(|decl| decl.spec.table == Table(*table)) {
        telemetry::timers_orphaned();
        let at = Millis(now.0.saturating_add(LATER_MS));
        let timer = TimerKey { at, operator: EXPIRY, owner: TimerOwner::default(), key: due };
        Timers::of(EXPIRIES).set(state, timer, Bytes::new());
        return Ok(());
    }
    let stored = state.get(Table(*table), key)?;
    if stored.is_some_and(|stored| expires_at(&stored).is_none_or(|at| at <= now)) {
        state.put(Table(*table), Bytes::copy_from_slice(key), None);
    }
    Ok(())
}

fn expires_at(stored: &[u8]) -> Option<Millis> {
    Millis::read(&mut FieldDecoder(stored))
}
