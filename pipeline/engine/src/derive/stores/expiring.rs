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
use crate::derive::stores::layout::{
    FieldDecoder, StoreKey, StoreValue, key_bytes, newest_level, put_value, read_value, unreadable,
};
use crate::derive::table_decl::{Changelog, TableDecl};
use crate::derive::timers::{TimerKey, TimerOwner};
use crate::overlay::TaskState;
use crate::port::{StoreError, Table, TableExpiry, TableSpec};
use crate::record::Millis;
use crate::telemetry;

/// The operator number of expiry in the table of timers; no operator may use it.
pub(in crate::derive) const EXPIRY: u8 = 0;

/// A value per key that expires.
pub struct Expiring<K, V> {
    table: Table,
    name: &'static str,
    of: PhantomData<fn(K) -> V>,
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
        let Some(stored) = context.get(self.table, &key_bytes(key))? else { return Ok(None) };
        let at = expires_at(&stored).ok_or_else(|| unreadable(self.table, "value"))?;
        if at <= context.expiry_time() {
            return Ok(None);
        }
        read_value(self.table, &stored[8..]).map(Some)
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
        self.remove_timer(context, &key)?;
        let mut stored = Vec::with_capacity(32);
        until.put(&mut stored);
        put_value(value, context.level, &mut stored);
        context.put(self.table, &key, &stored);
        let due = self.due(&key);
        let timer =
            TimerKey { at: until, operator: EXPIRY, owner: TimerOwner::default(), key: &due };
        context.timers.set(context.state, timer, Bytes::new());
        Ok(())
    }

    /// Removes a key.
    pub fn remove(&self, context: &mut Context<'_>, key: &K) -> Result<(), OperatorError> {
        let key = key_bytes(key);
        self.remove_timer(context, &key)?;
        context.remove(self.table, &key);
        Ok(())
    }

    /// Removes the timer of the key's current entry.
    fn remove_timer(&self, context: &mut Context<'_>, key: &[u8]) -> Result<(), OperatorError> {
        let before = context.get(self.table, key)?;
        if let Some(at) = before.and_then(|stored| expires_at(&stored)) {
            let due = self.due(key);
            let timer = TimerKey { at, operator: EXPIRY, owner: TimerOwner::default(), key: &due };
            context.timers.remove(context.state, timer);
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
