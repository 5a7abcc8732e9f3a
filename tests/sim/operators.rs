//! Operators for the simulation: a counter per key, with timers, whose state can be checked against
//! what was delivered.

use bytes::Bytes;
use tidewire_engine::derive::{
    Changelog, Context, Flow, Operator, OperatorError, TableDecl, ToChannels, dedup::Dedup,
};
use tidewire_engine::port::{Table, TableSpec};
use tidewire_engine::record::Millis;
use tidewire_schemas::event::EventView;

/// Events per entity key, 8 bytes big-endian.
pub(crate) const COUNTS: Table = Table(40);

/// Timers fired per entity key, 8 bytes big-endian.
pub(crate) const FIRED: Table = Table(41);

/// Every so many events of a key set a timer.
pub(crate) const TIMER_EVERY: u64 = 3;

/// How long after the event the timer is due, milliseconds.
pub(crate) const TIMER_MS: i64 = 700;

/// Event types with this in their id fail in the counter, after it has written.
pub(crate) const FAILING: &str = "fails";

/// Timers of this key fail in the counter, after it has written.
pub(crate) const FAILING_TIMER: &str = "k3";

/// What the simulation runs.
pub(crate) const OPERATORS: &[&dyn Operator] = &[&Dedup, &Counter, &ToChannels];

/// Counts events and fires timers.
struct Counter;

const fn table(table: Table, name: &'static str) -> TableDecl {
    TableDecl {
        spec: TableSpec { table, name, expires: false },
        changelog: Changelog::State,
        window_ms: 0,
    }
}

fn add_one(context: &mut Context<'_>, table: Table, key: &[u8]) -> Result<u64, OperatorError> {
    let count = context.get(table, key)?.map_or(0, |value| number(&value)) + 1;
    context.put(table, key, &count.to_be_bytes());
    Ok(count)
}

/// A stored count.
pub(crate) fn number(value: &Bytes) -> u64 {
    u64::from_be_bytes(*value.first_chunk().expect("a count has 8 bytes"))
}

impl Operator for Counter {
    fn number(&self) -> u8 {
        40
    }

    fn name(&self) -> &'static str {
        "counter"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] = &[table(COUNTS, "counts"), table(FIRED, "fired")];
        TABLES
    }

    fn on_event(
        &self,
        event: &EventView<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        let count = add_one(context, COUNTS, event.key.as_bytes())?;
        if event.event_id.contains(FAILING) {
            return Err(OperatorError::Failed("told to".to_owned()));
        }
        if count % TIMER_EVERY == 0 {
            let at = Millis(context.time().0 + TIMER_MS);
            context.set_timer(at, event.key.as_bytes());
        }
        Ok(Flow::Continue)
    }

    fn on_timer(&self, key: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        add_one(context, FIRED, key)?;
        if key == FAILING_TIMER.as_bytes() {
            return Err(OperatorError::Failed("told to".to_owned()));
        }
        Ok(())
    }
}
