//! What the operators do, computed independently on one map.

use tidewire_engine::derive::dedup::{IDS, WINDOW_MS};
use tidewire_engine::port::Table;
use tidewire_engine::record::Millis;
use tidewire_schemas::event::EventView;
use tidewire_schemas::id::hash128;

use super::tables::ModelTables;
use crate::operators::{
    COUNTER, COUNTS, FAILING, FIRED, FOUND, RECENT, RECENT_MAX, TIMER_EVERY, TIMER_FAILS_EVERY,
    TIMER_MS, number, recent_range,
};

/// The engine's own table of timers.
pub(super) const TIMERS: Table = Table(0);

/// The outcome of an event or a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ModelOutcome {
    /// Accepted, with this id.
    Accepted([u8; 16]),
    Duplicate,
    Failed,
}

fn add_one(tables: &mut ModelTables, table: Table, key: &[u8]) -> u64 {
    let count = tables.get(table, key).map_or(0, number) + 1;
    tables.set(table, key, Some(&count.to_be_bytes()));
    count
}

fn timer(at: i64, key: &[u8]) -> Vec<u8> {
    [&(at ^ i64::MIN).to_be_bytes()[..], &[COUNTER], key].concat()
}

fn recent(tables: &ModelTables, key: &[u8]) -> Vec<bytes::Bytes> {
    let (from, to) = recent_range(key);
    tables.keys(RECENT, &from, &to)
}

/// The two times that an event depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct EventTimes {
    /// Its append time in the input.
    pub(super) appended: Millis,
    /// The settled time of the task.
    pub(super) settled: Millis,
}

/// An event at these times.
pub(super) fn event(
    tables: &mut ModelTables,
    event: &EventView<'_>,
    times: EventTimes,
) -> ModelOutcome {
    let id = hash128(event.account_id, event.event_id);
    let EventTimes { appended: time, settled } = times;
    let since = time.max(settled);
    if let Some(seen) = tables.get(IDS, &id) {
        let kept = settled.0 - number(&seen.slice(..8)).cast_signed() < WINDOW_MS;
        let apart = (time.0 - number(&seen.slice(8..)).cast_signed()).abs();
        if kept && apart < WINDOW_MS {
            return ModelOutcome::Duplicate;
        }
    }
    if event.event_id.contains(FAILING) {
        return ModelOutcome::Failed;
    }
    let value = [since.0.to_be_bytes(), time.0.to_be_bytes()].concat();
    tables.set(IDS, &id, Some(&value));
    let key = event.key.as_bytes();
    let count = add_one(tables, COUNTS, key);
    tables.set(RECENT, &[key, b"/", &count.to_be_bytes()].concat(), Some(b""));
    let found = recent(tables, key);
    if found.len() > RECENT_MAX {
        tables.set(RECENT, &found[0], None);
    }
    if count.is_multiple_of(TIMER_EVERY) {
        tables.set(TIMERS, &timer(time.0 + TIMER_MS, key), Some(b""));
    }
    ModelOutcome::Accepted(id)
}

/// The keys of the timers due at this time, in order.
pub(super) fn due(tables: &ModelTables, time: Millis) -> Vec<bytes::Bytes> {
    tables.keys(TIMERS, &[], &timer(time.0 + 1, b"")[..8])
}

/// When the first timer is due.
pub(super) fn first_timer(tables: &ModelTables) -> Option<Millis> {
    let first = tables.now().keys().next().filter(|(table, _)| *table == TIMERS)?;
    Some(Millis(i64::from_be_bytes(*first.1.first_chunk()?) ^ i64::MIN))
}

/// A timer fires; if it fails, only the timer itself is removed.
pub(super) fn fire(tables: &mut ModelTables, stored: &[u8]) -> ModelOutcome {
    tables.set(TIMERS, stored, None);
    let key = &stored[9..];
    if tables.get(COUNTS, key).map_or(0, number).is_multiple_of(TIMER_FAILS_EVERY) {
        return ModelOutcome::Failed;
    }
    add_one(tables, FIRED, key);
    let found = recent(tables, key);
    tables.set(FOUND, key, Some(&(found.len() as u64).to_be_bytes()));
    if let Some(newest) = found.last() {
        tables.set(RECENT, newest, None);
    }
    ModelOutcome::Accepted([0; 16])
}
