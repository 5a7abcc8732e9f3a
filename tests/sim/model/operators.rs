//! What the operators do, computed independently on one map.

use bytes::Bytes;
use tidewire_engine::derive::dedup::{IDS, WINDOW_MS};
use tidewire_engine::port::Table;
use tidewire_engine::record::{Millis, Partition};
use tidewire_schemas::Priority;
use tidewire_schemas::event::EventView;
use tidewire_schemas::id::hash128;

use super::partials::{self, AddTimes};
use super::tables::ModelTables;
use crate::operators::{
    ASIDE, COUNTER, COUNTS, FAILING, FIRED, FOUND, LARGE, LEASE_EVERY, LEASE_KEY, LEASE_MS,
    PART_TYPE, RECENT, RECENT_MAX, SECOND, SECOND_KEY, SEEN, TIMER_EVERY, TIMER_FAILS_EVERY,
    TIMER_MS, TOTALS, fact_data, number, recent_range, total_of,
};

/// The engine's own table of timers.
pub(super) const TIMERS: Table = Table(0);

/// The one of lease timers.
pub(super) const LEASES: Table = Table(4);

/// Facts and timers in a row.
const HOPS_MAX: u8 = 4;

/// The outcome of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ModelOutcome {
    /// Accepted, with this id; how the counter has fared.
    Accepted([u8; 16], CounterOutcome),
    /// A fact, which de-duplication does not look at.
    Fact(CounterOutcome),
    Duplicate,
    /// The whole event failed.
    Aside,
}

/// The outcome of one call of the counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CounterOutcome {
    Done,
    /// It emitted a fact.
    Emitted(EmittedFact),
    /// Nothing of it is kept.
    Failed,
}

/// A fact that the counter emits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EmittedFact {
    pub(super) account: String,
    pub(super) key: String,
    /// Whether it follows from a critical event.
    pub(super) urgent: bool,
    pub(super) hops: u8,
    /// The append time of its cause.
    pub(super) time: Millis,
    pub(super) value: Vec<u8>,
}

fn add_one(tables: &mut ModelTables, table: Table, key: &[u8]) -> u64 {
    let count = tables.get(table, key).map_or(0, number) + 1;
    tables.set(table, key, Some(&count.to_be_bytes()));
    count
}

/// Bytes of a stored timer before the operator's own key: time, operator, owner.
const TIMER_PREFIX: usize = 8 + 1 + 16;

fn timer(at: i64, cause: &Cause<'_>, key: &[u8]) -> Vec<u8> {
    let owner = hash128(cause.account, cause.entity);
    [&(at ^ i64::MIN).to_be_bytes()[..], &[COUNTER], &owner, key].concat()
}

/// What led to an event.
#[derive(Clone, Copy)]
pub(super) struct EventOrigin {
    /// Facts and timers in a row.
    pub(super) hops: u8,
    /// Whether it is critical or follows from a critical event.
    pub(super) urgent: bool,
    /// Whether DERIVE has written it.
    pub(super) is_fact: bool,
    /// The task, if every task has a copy of the event.
    pub(super) task: Option<Partition>,
}

/// What facts and timers continue.
struct Cause<'a> {
    urgent: bool,
    /// Up to the cause, itself included.
    hops: u8,
    id: String,
    account: &'a str,
    /// The key whose operator was called.
    entity: &'a str,
    correlation: &'a str,
}

impl<'a> Cause<'a> {
    fn of_event(event: &EventView<'a>, origin: EventOrigin) -> Self {
        let (account, correlation) = (event.account_id, event.correlation_id);
        let EventOrigin { hops, urgent, task, .. } = origin;
        let task = task.map(|task| format!(" task {}", task.0)).unwrap_or_default();
        let (id, entity) = (format!("{}{task}", event.event_id), event.key);
        Self { urgent, hops, id, account, entity, correlation }
    }

    /// That of a timer with this value.
    fn of_timer(value: &'a [u8]) -> Self {
        let (account, rest) = text(&value[18..]);
        let (entity, rest) = text(rest);
        let (correlation, _) = text(rest);
        let id = format!("timer {}", hex(&value[2..18]));
        Self { urgent: false, hops: value[1], id, account, entity, correlation }
    }

    /// The counter's first fact; `None`: too many hops.
    fn fact(&self, key: &str, time: Millis) -> Option<EmittedFact> {
        if self.hops >= HOPS_MAX {
            return None;
        }
        let Self { id, entity, .. } = self;
        let parts = format!("{}:{id}/{}:{entity}/0/{key}", id.len(), entity.len());
        let hash = hash128(self.account, &parts);
        let fact = EventView {
            event_id: &format!("op/counter/{}", hex(&hash)),
            event_type: "post.created",
            account_id: self.account,
            timestamp_ms: 5,
            correlation_id: self.correlation,
            priority: Priority::Normal,
            key,
            source: Some("op/counter"),
            alias: None,
            data: &fact_data(key),
        };
        Some(EmittedFact {
            account: self.account.to_owned(),
            key: key.to_owned(),
            urgent: self.urgent,
            hops: self.hops + 1,
            time,
            value: fact.encode(),
        })
    }
}

/// Sets a timer by the settled time.
fn set_timer(tables: &mut ModelTables, at: i64, key: &[u8], cause: (&Cause<'_>, u8)) {
    put_timer(tables, (TIMERS, at), key, cause);
}

/// Sets a timer of a table, whose value names its cause and its own hops.
fn put_timer(
    tables: &mut ModelTables,
    (table, at): (Table, i64),
    key: &[u8],
    (cause, hops): (&Cause<'_>, u8),
) {
    let Cause { id, account, entity, correlation, .. } = cause;
    let timer = timer(at, cause, key);
    let of_kind = if table == LEASES { "lease/" } else { "" };
    let hash = hash128(account, &format!("{id}/{of_kind}{}", hex(&timer)));
    // Of two causes the one with the smaller id stays, whichever came first.
    if tables.get(table, &timer).is_some_and(|known| known[2..18] <= hash[..]) {
        return;
    }
    let mut value = [&[2, hops][..], &hash].concat();
    for text in [account, entity, correlation] {
        value.push(u8::try_from(text.len()).expect("the simulation's texts are short"));
        value.extend_from_slice(text.as_bytes());
    }
    tables.set(table, &timer, Some(&value));
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn set_second(tables: &mut ModelTables, at: i64, key: &[u8], cause: (&Cause<'_>, u8)) {
    tables.set(SECOND, key, Some(&at.to_be_bytes()));
    set_timer(tables, at, &[key, SECOND_KEY].concat(), cause);
}

fn recent(tables: &ModelTables, key: &[u8]) -> Vec<Bytes> {
    let (from, to) = recent_range(key);
    tables.keys(RECENT, &from, &to)
}

/// The times that an event depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct EventTimes {
    /// Its append time in the input.
    pub(super) appended: Millis,
    /// The settled time of the task.
    pub(super) settled: Millis,
    /// Its latest time.
    pub(super) latest: Millis,
}

/// An event at these times.
pub(super) fn event(
    tables: &mut ModelTables,
    event: &EventView<'_>,
    origin: EventOrigin,
    times: EventTimes,
) -> ModelOutcome {
    let id = hash128(event.account_id, event.event_id);
    let EventTimes { appended: time, settled, .. } = times;
    let since = time.max(settled);
    let seen = tables.get(IDS, &id).filter(|_| !origin.is_fact);
    if let Some(seen) = seen {
        let kept = settled.0 - number(&seen.slice(..8)).cast_signed() < WINDOW_MS;
        let apart = (time.0 - number(&seen.slice(8..)).cast_signed()).abs();
        if kept && apart < WINDOW_MS {
            return ModelOutcome::Duplicate;
        }
    }
    if event.event_id.contains(ASIDE) {
        return ModelOutcome::Aside;
    }
    if !origin.is_fact {
        let value = [since.0.to_be_bytes(), time.0.to_be_bytes()].concat();
        tables.set(IDS, &id, Some(&value));
    }
    if event.event_type == PART_TYPE {
        add_part(tables, event);
        return ModelOutcome::Fact(CounterOutcome::Done);
    }
    let called = count(tables, event, origin, times);
    add_one(tables, SEEN, event.key.as_bytes());
    if origin.is_fact { ModelOutcome::Fact(called) } else { ModelOutcome::Accepted(id, called) }
}

/// The second counter's call with a part of a total.
fn add_part(tables: &mut ModelTables, event: &EventView<'_>) {
    let (_, count) = event.data.split_once(r#""count":"#).expect("a part has a count");
    let more: u64 = count.trim_end_matches('}').parse().expect("a number");
    let key = format!("{}/{}", event.account_id, event.key);
    let total = tables.get(TOTALS, key.as_bytes()).map_or(0, number) + more;
    tables.set(TOTALS, key.as_bytes(), Some(&total.to_be_bytes()));
}

/// The counter's call with an event. If it fails, it changes nothing.
pub(super) fn count(
    tables: &mut ModelTables,
    event: &EventView<'_>,
    origin: EventOrigin,
    times: EventTimes,
) -> CounterOutcome {
    let EventTimes { appended: time, latest, .. } = times;
    let key = event.key.as_bytes();
    let cause = Cause::of_event(event, origin);
    let next = tables.get(COUNTS, key).map_or(0, number) + 1;
    let mut called = CounterOutcome::Done;
    if event.event_id.contains(LARGE) {
        return CounterOutcome::Failed;
    }
    if event.event_id.contains(FAILING) {
        match cause.fact(event.key, time) {
            Some(fact) if !next.is_multiple_of(2) => called = CounterOutcome::Emitted(fact),
            _ => return CounterOutcome::Failed,
        }
    }
    let count = add_one(tables, COUNTS, key);
    if event.source.is_none() {
        let total = total_of(event.key);
        partials::add(tables, (event.account_id, &total), AddTimes { appended: time, latest });
    }
    tables.set(RECENT, &[key, b"/", &count.to_be_bytes()].concat(), Some(b""));
    let found = recent(tables, key);
    if found.len() > RECENT_MAX {
        tables.set(RECENT, &found[0], None);
    }
    if count.is_multiple_of(TIMER_EVERY) {
        set_timer(tables, time.0 + TIMER_MS, key, (&cause, origin.hops + 1));
        set_second(tables, time.0 + TIMER_MS + 1, key, (&cause, origin.hops + 1));
    }
    if count.is_multiple_of(LEASE_EVERY) {
        let (at, key) = ((LEASES, time.0 + LEASE_MS), [key, LEASE_KEY].concat());
        put_timer(tables, at, &key, (&cause, origin.hops + 1));
    }
    called
}

/// The keys of a table of timers that are due at this time, in order.
pub(super) fn due_before(tables: &ModelTables, table: Table, time: Millis) -> Vec<Bytes> {
    tables.keys(table, &[], &((time.0 + 1) ^ i64::MIN).to_be_bytes())
}

/// When a stored timer is due.
pub(super) fn due_time(stored: &[u8]) -> Millis {
    let due = stored.first_chunk().expect("a timer begins with its time");
    Millis(i64::from_be_bytes(*due) ^ i64::MIN)
}

/// When the first timer is due.
pub(super) fn first_timer(tables: &ModelTables) -> Option<Millis> {
    let all = [TIMERS, LEASES].into_iter().flat_map(|of| tables.keys(of, &[], &[0xff; 8]));
    all.map(|stored| due_time(&stored)).min()
}

/// A due timer fires, and is removed whatever its outcome; returns its value. `None`: an earlier
/// timer of the same tick has removed it.
pub(super) fn fire(
    tables: &mut ModelTables,
    table: Table,
    stored: &[u8],
) -> Option<(Bytes, CounterOutcome)> {
    let value = tables.get(table, stored)?.clone();
    tables.set(table, stored, None);
    let called = call_timer(tables, &stored[TIMER_PREFIX..], &value, due_time(stored));
    Some((value, called))
}

/// The counter's call with a timer. If it fails, it changes nothing.
pub(super) fn call_timer(
    tables: &mut ModelTables,
    key: &[u8],
    value: &[u8],
    time: Millis,
) -> CounterOutcome {
    if key.ends_with(SECOND_KEY) || key.ends_with(LEASE_KEY) {
        add_one(tables, FIRED, key);
        return CounterOutcome::Done;
    }
    let cause = Cause::of_timer(value);
    let of = std::str::from_utf8(key).expect("the keys of events are text");
    let fact = cause.fact(of, time);
    let fails = tables.get(COUNTS, key).map_or(0, number).is_multiple_of(TIMER_FAILS_EVERY);
    let Some(fact) = fact.filter(|_| !fails) else { return CounterOutcome::Failed };
    let fired = add_one(tables, FIRED, key);
    if let Some(at) = tables.get(SECOND, key).map(|at| number(at).cast_signed()) {
        let second = [key, SECOND_KEY].concat();
        tables.set(TIMERS, &timer(at, &cause, &second), None);
        if fired.is_multiple_of(2) {
            set_second(tables, time.0 + TIMER_MS, key, (&cause, cause.hops));
        }
    }
    let found = recent(tables, key);
    tables.set(FOUND, key, Some(&(found.len() as u64).to_be_bytes()));
    if let Some(newest) = found.last() {
        tables.set(RECENT, newest, None);
    }
    CounterOutcome::Emitted(fact)
}

/// The id of a timer with this value, as in its dead letter.
pub(super) fn timer_id(value: &[u8]) -> String {
    hex(&value[2..18])
}

/// A text behind its length, and what follows it.
fn text(bytes: &[u8]) -> (&str, &[u8]) {
    let (text, rest) = bytes[1..].split_at(usize::from(bytes[0]));
    (std::str::from_utf8(text).expect("the engine read it as text"), rest)
}
