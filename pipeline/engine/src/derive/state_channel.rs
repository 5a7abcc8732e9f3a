//! Entries of state channels that operators write themselves, and the life of an entry.
//!
//! ```text
//! out.state  key: channel 00 account 00 state key; value: an event, or none: the entry is gone
//! table      the same key → 01 · when the entry's life ends z
//! table 5    that time · operator 254 · owner of zeros · table number · the same key
//! ```
//!
//! The account is part of the key, so equal ids of two accounts never meet. An entry whose life has
//! ended gets its tombstone by a tick; at most a thousand leave in one, and another tick follows.
//!
//! Types that the catalogue delivers `as state` are published by `emit` alone. A channel here adds
//! what the catalogue can't say: removal, and life.

use bytes::Bytes;
use tidewire_schemas::channel::encode_id;
use tidewire_schemas::event::EventView;

use crate::derive::encoding::{FieldDecoder, put_signed};
use crate::derive::operator::{Context, OperatorError, Rules};
use crate::derive::table_decl::{Changelog, TableDecl};
use crate::derive::timers::{EXPIRIES, LATER_MS, TimerKey, TimerOwner, Timers};
use crate::derive::trigger::Trigger;
use crate::overlay::TaskState;
use crate::port::{StoreError, Table, TableExpiry, TableSpec};
use crate::record::{Body, Millis, Outgoing};
use crate::value_level::ValueLevel;

/// The operator number of lives in the table of expiries; no operator may use it.
pub(super) const LIVES: u8 = 254;

/// The only version. Another one is to be written from a value level on, as those of a
/// `StoreValue`, and the declaration of the table then names that level.
const VERSION: u8 = 1;

/// A renewal moves the end of a life once this part of it has passed: most cost nothing then.
const RENEWED_AFTER: i64 = 8;

/// A state channel of one kind.
#[derive(Clone, Copy, Debug)]
pub struct StateChannel {
    kind: &'static str,
    life: Option<Life>,
}

#[derive(Clone, Copy, Debug)]
struct Life {
    table: Table,
    name: &'static str,
    ms: i64,
}

impl StateChannel {
    /// A channel whose entries stay until they are removed.
    pub const fn new(kind: &'static str) -> Self {
        Self { kind, life: None }
    }

    /// A channel whose entries are removed `life_ms` of append time after they were published or
    /// renewed last. The ends of their lives are kept in the table of this number and name.
    pub const fn expiring(
        kind: &'static str,
        number: u8,
        name: &'static str,
        life_ms: i64,
    ) -> Self {
        Self { kind, life: Some(Life { table: Table(number), name, ms: life_ms }) }
    }

    /// The declaration of the table of lives, for its operator's `tables`. Only of a channel whose
    /// entries expire.
    pub const fn decl(&self) -> TableDecl {
        let Some(Life { table, name, .. }) = self.life else {
            panic!("a channel whose entries stay has no table");
        };
        let spec = TableSpec { table, name, expiry: TableExpiry::Never };
        TableDecl { spec, changelog: Changelog::State, window_ms: 0, level: ValueLevel::FIRST }
    }

    /// Publishes the current event as the value of an entry.
    pub fn publish_current(
        &self,
        context: &mut Context<'_>,
        id: &str,
        state_key: &str,
    ) -> Result<(), OperatorError> {
        let Trigger::Event { value, .. } = context.trigger else {
            return Err(OperatorError::Failed("only an event can be published".to_owned()));
        };
        let value = value.to_vec();
        self.publish_value(context, (id, state_key), &value)
    }

    /// Publishes an event of the current account as the value of an entry.
    pub fn publish(
        &self,
        context: &mut Context<'_>,
        (id, state_key): (&str, &str),
        event: &EventView<'_>,
    ) -> Result<(), OperatorError> {
        self.publish_value(context, (id, state_key), &event.encode())
    }

    /// Renews the life of an entry that `emit` has published.
    pub fn renew(
        &self,
        context: &mut Context<'_>,
        id: &str,
        state_key: &str,
    ) -> Result<(), OperatorError> {
        let key = self.key(context, id, state_key);
        self.live(context, &key)
    }

    /// Removes an entry: writes its tombstone.
    pub fn remove(
        &self,
        context: &mut Context<'_>,
        id: &str,
        state_key: &str,
    ) -> Result<(), OperatorError> {
        let key = self.key(context, id, state_key);
        if let Some(life) = self.life {
            if let Some(end) = end_of(context.state, life.table, &key)? {
                context
                    .timers
                    .expiries
                    .remove(context.state, life_timer(end, &timer_key(life.table, &key)));
            }
            context.remove(life.table, &key);
        }
        let record = tombstone(context.rules, &key);
        context.write_state(self.kind, record);
        Ok(())
    }

    fn publish_value(
        &self,
        context: &mut Context<'_>,
        (id, state_key): (&str, &str),
        value: &[u8],
    ) -> Result<(), OperatorError> {
        let key = self.key(context, id, state_key);
        self.live(context, &key)?;
        let record = entry(context.rules, &key, Some(value));
        context.write_state(self.kind, record);
        Ok(())
    }

    /// Begins or renews the life of an entry.
    fn live(&self, context: &mut Context<'_>, key: &[u8]) -> Result<(), OperatorError> {
        let Some(life) = self.life else { return Ok(()) };
        let end = Millis(context.expiry_time().0.saturating_add(life.ms));
        if let Some(before) = end_of(context.state, life.table, key)? {
            if end.0.saturating_sub(before.0) < life.ms / RENEWED_AFTER {
                return Ok(());
            }
            context
                .timers
                .expiries
                .remove(context.state, life_timer(before, &timer_key(life.table, key)));
        }
        let mut row = vec![VERSION];
        put_signed(&mut row, end.0);
        context.put(life.table, key, &row);
        let own = timer_key(life.table, key);
        context.timers.expiries.set(context.state, life_timer(end, &own), Bytes::new());
        Ok(())
    }

    fn key(&self, context: &Context<'_>, id: &str, state_key: &str) -> Vec<u8> {
        let mut channel = format!("{}:", self.kind);
        encode_id(id, &mut channel);
        [&channel, context.account(), state_key].join("\0").into_bytes()
    }
}

/// Ends the life of an entry that is due, unless it was renewed; returns its tombstone.
pub(super) fn end_life(
    rules: Rules<'_>,
    state: &mut TaskState,
    due: &[u8],
    now: Millis,
) -> Result<Option<Outgoing>, StoreError> {
    let Some((table, key)) = due.split_first() else { return Ok(None) };
    let table = Table(*table);
    let mut declared = rules.operators.iter().flat_map(|operator| operator.tables());
    if !declared.any(|decl| decl.spec.table == table) {
        // An operator that this build does not have: the timer waits for a build that does.
        let own = timer_key(table, key);
        let later = Millis(now.0.saturating_add(LATER_MS));
        Timers::of(EXPIRIES).set(state, life_timer(later, &own), Bytes::new());
        return Ok(None);
    }
    if end_of(state, table, key)?.is_none_or(|end| end > now) {
        return Ok(None);
    }
    state.put(table, Bytes::copy_from_slice(key), None);
    Ok(Some(tombstone(rules, key)))
}

fn end_of(state: &mut TaskState, table: Table, key: &[u8]) -> Result<Option<Millis>, StoreError> {
    let stored = state.get(table, key)?;
    // A row that can't be decoded has a timer of its own, or lives until it is renewed.
    Ok(stored.and_then(|stored| {
        let mut from = FieldDecoder(&stored);
        from.byte().filter(|version| *version == VERSION)?;
        from.signed().map(Millis)
    }))
}

fn timer_key(table: Table, key: &[u8]) -> Vec<u8> {
    [&[table.0], key].concat()
}

fn life_timer(at: Millis, own: &[u8]) -> TimerKey<'_> {
    TimerKey { at, operator: LIVES, owner: TimerOwner::default(), key: own }
}

fn tombstone(rules: Rules<'_>, key: &[u8]) -> Outgoing {
    entry(rules, key, None)
}

fn entry(rules: Rules<'_>, key: &[u8], value: Option<&[u8]>) -> Outgoing {
    let channel = key.split(|byte| *byte == 0).next().unwrap_or_default();
    let partition = rules.topology.partition_of(channel);
    let body = Body::new(Some(key), value, &[]);
    Outgoing { topic: rules.topology.out_state().clone(), partition, body }
}

#[cfg(test)]
mod tests;
