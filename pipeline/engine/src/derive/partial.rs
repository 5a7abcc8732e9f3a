//! Totals over many tasks: each task adds up its part of a key, and sends it to the key's owner.
//!
//! A topic of a region or a workspace's day concerns events of every task, and a fact per event
//! would make the owner's task as busy as all others together. So an operator adds to a partial:
//!
//! ```text
//! task 0  add(key, 1), add(key, 1) ─▶ part 2 ─┐  once per interval
//! task 1  add(key, 1)              ─▶ part 1 ─┴─▶ event of the key ─▶ operator of the key's task
//! ```
//!
//! A part is sent as an internal event of the declared type: its data has the fields of key and
//! value, and the catalogue says which field is its key and which operator it moves. The part
//! leaves the table in the transaction that writes the event, so each addition is counted once,
//! however often the task fails or moves. When nothing is left to process, the owners have the
//! exact totals.
//!
//! An interval ends by the latest time of the task, so a lane with a backlog holds up no total.
//! What it adds comes later, and is added to what came before (`flush_partials.rs`).

use std::marker::PhantomData;

use tidewire_schemas::fields::FieldWriter;

use crate::derive::audit::layout::AuditItem;
use crate::derive::audit::part_link;
use crate::derive::operator::{Context, OperatorError};
use crate::derive::partial_decl::{PARTIALS, PartialDecl, PartialSpec};
use crate::derive::partial_rows::{HEAD, Part, PartKey, PartialHead};
use crate::derive::stores::{
    FieldDecoder, StoreKey, StoreValue, key_bytes, newest_level, put_signed, put_value, read_value,
    unreadable,
};
use crate::derive::table_decl::{Changelog, TableDecl};
use crate::derive::timers::{TimerKey, TimerOwner};
use crate::port::{Table, TableExpiry, TableSpec};
use crate::record::Millis;

/// Parts that a task keeps of a partial at most, between two flushes.
pub const PARTIAL_KEYS_MAX: u64 = 10_000;

/// Parts with which some are sent before the interval ends, after the current event: the rest is
/// room for what one event adds.
pub const EARLY_FLUSH_PARTS: u64 = 9_000;

/// The key of a total within its account.
pub trait PartialKey: StoreKey {
    /// Adds its fields to the data of the event that carries a part.
    fn put_fields(&self, data: FieldWriter) -> FieldWriter;
}

/// What is added up.
pub trait PartialValue: StoreValue {
    /// Both together. It must be commutative and associative: which additions meet in which part
    /// depends on the tasks and on time.
    #[must_use]
    fn merge(self, other: Self) -> Self;

    /// Adds its fields to the data of the event that carries a part.
    fn put_fields(&self, data: FieldWriter) -> FieldWriter;
}

/// A sum, in the field `count`. It wraps around, since saturation is not associative.
impl PartialValue for i64 {
    fn merge(self, other: Self) -> Self {
        self.wrapping_add(other)
    }

    fn put_fields(&self, data: FieldWriter) -> FieldWriter {
        data.integer("count", *self)
    }
}

impl StoreValue for i64 {
    fn put(&self, _: u8, out: &mut Vec<u8>) {
        put_signed(out, *self);
    }

    fn read(_: u8, from: &mut FieldDecoder<'_>) -> Option<Self> {
        from.signed()
    }
}

/// Totals of keys `K`, added up per task.
pub struct Partial<K, V> {
    spec: PartialSpec,
    of: PhantomData<fn(K) -> V>,
}

impl<K: PartialKey, V: PartialValue> Partial<K, V> {
    /// The partial of this table number, which is persisted. Parts are sent as events of
    /// `event_type`, at most one per key and `interval_ms` of append time in each task.
    pub const fn new(
        number: u8,
        name: &'static str,
        event_type: &'static str,
        interval_ms: i64,
    ) -> Self {
        let spec = PartialSpec { table: Table(number), name, event_type, interval_ms };
        Self { spec, of: PhantomData }
    }

    /// The declaration for its operator's `tables`. The operator's `partials` names it too.
    pub const fn decl(&self) -> TableDecl {
        let PartialSpec { table, name, .. } = self.spec;
        let spec = TableSpec { table, name, expiry: TableExpiry::Never };
        let level = newest_level::<V>();
        TableDecl { spec, changelog: Changelog::State, window_ms: 0, level }
    }

    /// Adds to the total of a key of the current account. Fails if the part can't be sent: too many
    /// facts and timers in a row led here, or the event adds to more keys than a task keeps.
    pub fn add(&self, context: &mut Context<'_>, key: &K, value: V) -> Result<(), OperatorError> {
        let PartialSpec { table, event_type, .. } = self.spec;
        let hops = context.next_hop(event_type)?.hops - 1;
        let head = context.get(table, HEAD)?.map(|stored| PartialHead::decode(&stored));
        let head = head.unwrap_or(Some(PartialHead::default()));
        let head = head.ok_or_else(|| unreadable(table, "value"))?;
        let account = context.account().to_owned();
        let row = PartKey { round: head.round, account, key: &key_bytes(key) }.encode();
        let mut part = Part { hops, time: context.time(), value: Default::default() };
        let mut sum = value;
        if let Some(stored) = context.get(table, &row)? {
            let before = Part::decode(&stored).ok_or_else(|| unreadable(table, "value"))?;
            part.hops = before.hops.max(part.hops);
            part.time = before.time.max(part.time);
            sum = read_value::<V>(table, &before.value)?.merge(sum);
        } else {
            self.begin_part(context, head)?;
        }
        let mut stored = Vec::with_capacity(16);
        put_value(&sum, context.level, &mut stored);
        part.value = stored.into();
        context.put(table, &row, &part.encode());
        if context.batch.audit.is_open() {
            context.batch.audit.add(&AuditItem::Marked(part_link(table, &row)));
        }
        Ok(())
    }

    /// Counts another part, and sets the timer that sends the first.
    fn begin_part(
        &self,
        context: &mut Context<'_>,
        mut head: PartialHead,
    ) -> Result<(), OperatorError> {
        let PartialSpec { table, name, interval_ms, .. } = self.spec;
        if head.parts >= PARTIAL_KEYS_MAX {
            return Err(OperatorError::Failed(format!(
                "partial {name} has {PARTIAL_KEYS_MAX} keys, which is the limit, although some \
                 were sent after the last event; add to fewer keys for one event"
            )));
        }
        if head.parts == 0 {
            let at = Millis(context.latest().0.saturating_add(interval_ms));
            let own = [table.0];
            context.timers.flushes.set(context.state, flush_timer(at, &own), Default::default());
        }
        head.parts += 1;
        context.batch.flush_early |= head.parts >= EARLY_FLUSH_PARTS;
        context.put(table, HEAD, &head.encode());
        Ok(())
    }
}

impl<K: PartialKey, V: PartialValue> PartialDecl for Partial<K, V> {
    fn spec(&self) -> PartialSpec {
        self.spec
    }

    fn event_data(&self, key: &[u8], value: &[u8]) -> Option<String> {
        let mut from = FieldDecoder(key);
        let key = K::read(&mut from)?;
        from.end()?;
        let value = read_value::<V>(self.spec.table, value).ok()?;
        Some(value.put_fields(key.put_fields(FieldWriter::default())).end())
    }
}

/// The timer that flushes a partial: `own` is its table's number.
pub(super) fn flush_timer(at: Millis, own: &[u8]) -> TimerKey<'_> {
    TimerKey { at, operator: PARTIALS, owner: TimerOwner::default(), key: own }
}

#[cfg(test)]
mod tests;
