//! Operators for the simulation, which together use every layer of a task's state.
//!
//! They count, store, remove, scan, set timers, add to totals over all tasks, and fail.
//! [`crate::model`] computes the same again, independently, on one map.

use std::ops::ControlFlow;

use bytes::Bytes;
use tidewire_engine::derive::stores::{FieldDecoder, StoreKey};
use tidewire_engine::derive::{
    Changelog, ChannelDelivery, Context, Emission, Flow, Input, OnFailure, Operator, OperatorError,
    Partial, PartialDecl, PartialKey, TableDecl, dedup::Dedup,
};
use tidewire_engine::port::{KeyRange, Table, TableExpiry, TableSpec};
use tidewire_engine::record::Millis;
use tidewire_engine::value_level::ValueLevel;
use tidewire_schemas::Priority;
use tidewire_schemas::fields::FieldWriter;

/// Events per entity key, 8 bytes big-endian.
pub(crate) const COUNTS: Table = Table(40);

/// Timers fired per entity key, 8 bytes big-endian.
pub(crate) const FIRED: Table = Table(41);

/// The newest events of a key: the key, a slash, the count as 8 bytes big-endian → empty value.
pub(crate) const RECENT: Table = Table(42);

/// How many of those a timer has found, 8 bytes big-endian.
pub(crate) const FOUND: Table = Table(43);

/// When the second timer of a key is due, 8 bytes big-endian.
pub(crate) const SECOND: Table = Table(44);

/// The end of a second timer's key: it is due right after the first one, which removes or moves it.
pub(crate) const SECOND_KEY: &[u8] = b"/second";

/// The end of a lease timer's key.
pub(crate) const LEASE_KEY: &[u8] = b"/lease";

/// Every how many events of a key set a lease timer.
pub(crate) const LEASE_EVERY: u64 = 2;

/// How long after the event it is due, milliseconds.
pub(crate) const LEASE_MS: i64 = 300;

/// How many events of a key are kept.
pub(crate) const RECENT_MAX: usize = 3;

/// Every how many events of a key set a timer.
pub(crate) const TIMER_EVERY: u64 = 3;

/// How long after the event the timer is due, milliseconds.
pub(crate) const TIMER_MS: i64 = 700;

/// A timer fails, after it has written, while its key's count is a multiple of this.
pub(crate) const TIMER_FAILS_EVERY: u64 = 4;

/// Events with this in their id fail in the counter, after it has written and emitted, while the
/// key's count is even.
pub(crate) const FAILING: &str = "fails";

/// Events with this in their id fail in the counter, which writes a value that no log accepts.
pub(crate) const LARGE: &str = "large";

/// Bytes of that value.
pub(crate) const LARGE_BYTES: usize = 1_100_000;

/// Events with this in their id are set aside as a whole.
pub(crate) const ASIDE: &str = "aside";

/// Events per entity key that the second counter has seen, 8 bytes big-endian.
pub(crate) const SEEN: Table = Table(45);

/// Events of producers that the counter has seen and whose parts were not sent yet, by account and
/// total.
pub(crate) const PARTS: Table = Table(46);

/// Events of producers in all tasks, by account, a slash and total, 8 bytes big-endian.
pub(crate) const TOTALS: Table = Table(47);

/// The internal type that carries a part.
pub(crate) const PART_TYPE: &str = "notify.due";

/// How long a part waits for others, milliseconds of append time.
pub(crate) const PART_MS: i64 = 400;

const COUNTED: Partial<Total, i64> = Partial::new(PARTS.0, "parts", PART_TYPE, PART_MS);

/// The counter's stable number.
pub(crate) const COUNTER: u8 = 40;

/// The operators that the simulation runs.
pub(crate) const OPERATORS: &[&dyn Operator] =
    &[&Dedup, &Counter, &ChannelDelivery, &SecondCounter, &Gate];

struct Counter;

/// Counts all events that one operator gets beside the counter, and adds up the parts of totals.
struct SecondCounter;

/// Fails as de-duplication or delivery would, and so sets the whole event aside.
struct Gate;

const fn table(table: Table, name: &'static str) -> TableDecl {
    TableDecl {
        spec: TableSpec { table, name, expiry: TableExpiry::Never },
        changelog: Changelog::State,
        window_ms: 0,
        level: ValueLevel::FIRST,
    }
}

/// A total over entities of an account.
struct Total(String);

/// The total that an entity counts in.
pub(crate) fn total_of(key: &str) -> String {
    let number = key.bytes().last().unwrap_or_default();
    format!("t{}", number % 2)
}

impl StoreKey for Total {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }

    fn read(from: &mut FieldDecoder<'_>) -> Option<Self> {
        String::read(from).map(Self)
    }
}

impl PartialKey for Total {
    fn put_fields(&self, data: FieldWriter) -> FieldWriter {
        data.text("user_id", &self.0)
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

/// The data of the facts that the counter emits.
pub(crate) fn fact_data(key: &str) -> String {
    format!(r#"{{"post_id":"p","author_id":"{key}","text":"fact"}}"#)
}

/// Emits a fact about the key itself.
fn fact(context: &mut Context<'_>, key: &str) -> Result<(), OperatorError> {
    let account_id = context.account().to_owned();
    context.fact(&Emission {
        event_type: "post.created",
        account_id: &account_id,
        key,
        timestamp_ms: 5,
        priority: Priority::Normal,
        data: &fact_data(key),
    })
}

/// The range of the events kept for a key.
pub(crate) fn recent_range(key: &[u8]) -> (Vec<u8>, Vec<u8>) {
    ([key, b"/"].concat(), [key, b"0"].concat())
}

fn recent(context: &mut Context<'_>, key: &[u8]) -> Result<Vec<Bytes>, OperatorError> {
    let (from, to) = recent_range(key);
    let mut found = Vec::new();
    let range = KeyRange { from: &from, to: Some(&to) };
    context.scan(RECENT, range, &mut |key, _| {
        found.push(Bytes::copy_from_slice(key));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

fn set_second(context: &mut Context<'_>, key: &[u8], at: Millis) -> Result<(), OperatorError> {
    context.put(SECOND, key, &at.0.to_be_bytes());
    context.set_timer(at, &[key, SECOND_KEY].concat())
}

impl Operator for Counter {
    fn number(&self) -> u8 {
        COUNTER
    }

    fn name(&self) -> &'static str {
        "counter"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] = &[
            table(COUNTS, "counts"),
            table(FIRED, "fired"),
            table(RECENT, "recent"),
            table(FOUND, "found"),
            table(SECOND, "second"),
            COUNTED.decl(),
        ];
        TABLES
    }

    fn partials(&self) -> &'static [&'static dyn PartialDecl] {
        &[&COUNTED]
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        if event.event_type == PART_TYPE {
            return Ok(Flow::Continue);
        }
        let key = event.key.as_bytes();
        let count = add_one(context, COUNTS, key)?;
        if event.source.is_none() {
            COUNTED.add(context, &Total(total_of(event.key)), 1)?;
        }
        let newest = [key, b"/", &count.to_be_bytes()].concat();
        context.put(RECENT, &newest, b"");
        let found = recent(context, key)?;
        if found.len() > RECENT_MAX {
            context.remove(RECENT, &found[0]);
        }
        if count % TIMER_EVERY == 0 {
            let at = Millis(context.time().0 + TIMER_MS);
            context.set_timer(at, key)?;
            set_second(context, key, Millis(at.0 + 1))?;
        }
        if count % LEASE_EVERY == 0 {
            let at = Millis(context.time().0 + LEASE_MS);
            context.set_lease_timer(at, &[key, LEASE_KEY].concat())?;
        }
        if event.event_id.contains(LARGE) {
            context.put(RECENT, b"large", &[7; LARGE_BYTES]);
        }
        if event.event_id.contains(FAILING) {
            fact(context, event.key)?;
            if count % 2 == 0 {
                return Err(OperatorError::Failed("this id fails on purpose".to_owned()));
            }
        }
        Ok(Flow::Continue)
    }

    fn on_timer(&self, key: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        let fired = add_one(context, FIRED, key)?;
        if key.ends_with(SECOND_KEY) || key.ends_with(LEASE_KEY) {
            return Ok(());
        }
        if let Some(at) = context.get(SECOND, key)? {
            let at = Millis(number(&at).cast_signed());
            context.remove_timer(at, &[key, SECOND_KEY].concat());
            if fired.is_multiple_of(2) {
                let later = Millis(context.time().0 + TIMER_MS);
                set_second(context, key, later)?;
            }
        }
        let found = recent(context, key)?;
        context.put(FOUND, key, &(found.len() as u64).to_be_bytes());
        if let Some(newest) = found.last() {
            context.remove(RECENT, newest);
        }
        fact(context, std::str::from_utf8(key).expect("the keys of events are text"))?;
        let count = context.get(COUNTS, key)?.map_or(0, |value| number(&value));
        if count % TIMER_FAILS_EVERY == 0 {
            return Err(OperatorError::Failed("this count fails on purpose".to_owned()));
        }
        Ok(())
    }
}

impl Operator for SecondCounter {
    fn number(&self) -> u8 {
        COUNTER + 1
    }

    fn name(&self) -> &'static str {
        "second_counter"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] = &[table(SEEN, "seen"), table(TOTALS, "totals")];
        TABLES
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        if event.event_type == PART_TYPE {
            let more = event.fields().integer("count").expect("a part has a count");
            let key = format!("{}/{}", event.account_id, event.key);
            let total = context.get(TOTALS, key.as_bytes())?.map_or(0, |value| number(&value));
            let total = total + more.cast_unsigned();
            context.put(TOTALS, key.as_bytes(), &total.to_be_bytes());
            return Ok(Flow::Continue);
        }
        add_one(context, SEEN, event.key.as_bytes())?;
        Ok(Flow::Continue)
    }
}

impl Operator for Gate {
    fn number(&self) -> u8 {
        COUNTER + 2
    }

    fn name(&self) -> &'static str {
        "gate"
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::RollBackEvent
    }

    fn on_event(&self, event: &Input<'_>, _: &mut Context<'_>) -> Result<Flow, OperatorError> {
        if event.event_id.contains(ASIDE) {
            return Err(OperatorError::Failed("this id is set aside on purpose".to_owned()));
        }
        Ok(Flow::Continue)
    }
}
