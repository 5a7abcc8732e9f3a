//! What the operators do, computed independently on one map.

use tidewire_engine::derive::dedup::{IDS, WINDOW_MS};
use tidewire_engine::port::Table;
use tidewire_engine::record::Millis;
use tidewire_schemas::event::EventView;
use tidewire_schemas::id::hash128;

use super::tables::ModelTables;
use crate::operators::{
    COUNTER, COUNTS, FAILING, FIRED, FOUND, RECENT, RECENT_MAX, SECOND, SECOND_KEY, TIMER_EVERY,
    TIMER_FAILS_EVERY, TIMER_MS, number, recent_range,
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

/// What a timer continues: the hops and the hash in its value, its cause's id, and the rest.
struct Cause<'a> {
    hops: u8,
    id: String,
    account: &'a str,
    correlation: &'a str,
}

/// Sets a timer, whose value names its cause.
fn set_timer(tables: &mut ModelTables, at: i64, key: &[u8], cause: &Cause<'_>) {
    let Cause { hops, id, account, correlation } = cause;
    let timer = timer(at, key);
    let hash = hash128(account, &format!("{id}/{}", hex(&timer)));
    let mut value = [&[1, *hops][..], &hash].concat();
    for text in [account, correlation] {
        value.push(u8::try_from(text.len()).expect("the simulation's texts are short"));
        value.extend_from_slice(text.as_bytes());
    }
    tables.set(TIMERS, &timer, Some(&value));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn set_second(tables: &mut ModelTables, at: i64, key: &[u8], cause: &Cause<'_>) {
    tables.set(SECOND, key, Some(&at.to_be_bytes()));
    set_timer(tables, at, &[key, SECOND_KEY].concat(), cause);
}

fn recent(tables: &ModelTables, key: &[u8]) -> Vec<bytes::Bytes> {
    let (from, to) = recent_range(key);
    tables.keys(RECENT, &from, &to)
}

/// An event at this task time.
pub(super) fn event(tables: &mut ModelTables, event: &EventView<'_>, time: Millis) -> ModelOutcome {
    let id = hash128(event.account_id, event.event_id);
    let seen = tables.get(IDS, &id).map(|at| number(at).cast_signed());
    if seen.is_some_and(|at| time.0 - at < WINDOW_MS) {
        return ModelOutcome::Duplicate;
    }
    if event.event_id.contains(FAILING) {
        return ModelOutcome::Failed;
    }
    tables.set(IDS, &id, Some(&time.0.to_be_bytes()));
    let key = event.key.as_bytes();
    let count = add_one(tables, COUNTS, key);
    tables.set(RECENT, &[key, b"/", &count.to_be_bytes()].concat(), Some(b""));
    let found = recent(tables, key);
    if found.len() > RECENT_MAX {
        tables.set(RECENT, &found[0], None);
    }
    if count.is_multiple_of(TIMER_EVERY) {
        let (account, correlation) = (event.account_id, event.correlation_id);
        let cause = Cause { hops: 1, id: event.event_id.to_owned(), account, correlation };
        set_timer(tables, time.0 + TIMER_MS, key, &cause);
        set_second(tables, time.0 + TIMER_MS + 1, key, &cause);
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

/// A timer fires; if it fails, only the timer itself is removed. `None`: an earlier timer of the
/// same tick has removed it.
pub(super) fn fire(tables: &mut ModelTables, stored: &[u8], time: Millis) -> Option<ModelOutcome> {
    let value = tables.get(TIMERS, stored)?.clone();
    tables.set(TIMERS, stored, None);
    let key = &stored[9..];
    if key.ends_with(SECOND_KEY) {
        add_one(tables, FIRED, key);
        return Some(ModelOutcome::Accepted([0; 16]));
    }
    if tables.get(COUNTS, key).map_or(0, number).is_multiple_of(TIMER_FAILS_EVERY) {
        return Some(ModelOutcome::Failed);
    }
    let fired = add_one(tables, FIRED, key);
    if let Some(at) = tables.get(SECOND, key).map(|at| number(at).cast_signed()) {
        let second = [key, SECOND_KEY].concat();
        tables.set(TIMERS, &timer(at, &second), None);
        if fired.is_multiple_of(2) {
            let (account, rest) = text(&value[18..]);
            let (correlation, _) = text(rest);
            let id = format!("timer/{}", hex(&value[2..18]));
            let cause = Cause { hops: value[1], id, account, correlation };
            set_second(tables, time.0 + TIMER_MS, key, &cause);
        }
    }
    let found = recent(tables, key);
    tables.set(FOUND, key, Some(&(found.len() as u64).to_be_bytes()));
    if let Some(newest) = found.last() {
        tables.set(RECENT, newest, None);
    }
    Some(ModelOutcome::Accepted([0; 16]))
}

/// A text behind its length, and what follows it.
fn text(bytes: &[u8]) -> (&str, &[u8]) {
    let (text, rest) = bytes[1..].split_at(usize::from(bytes[0]));
    (std::str::from_utf8(text).expect("the engine read it as text"), rest)
}
