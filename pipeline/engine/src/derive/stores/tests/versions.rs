//! Tests of versions of stored values: what each level writes, and rows that can't be decoded.

use tidewire_schemas::Priority;
use tidewire_schemas::event::Event;

use crate::dead_letters::{DeadLetter, destination, requeued_record};
use crate::derive::dedup::{Dedup, IDS};
use crate::derive::input::Input;
use crate::derive::stores::{Expiring, FieldDecoder, KeyValue, StoreValue};
use crate::derive::timers::{EXPIRIES, TIMERS, TimerKey, TimerOwner};
use crate::derive::{
    ChannelDelivery, Context, Flow, Operator, OperatorError, START, TableDecl, TopologyDriver,
    highest_level,
};
use crate::port::Table;
use crate::record::{Millis, Offset, Partition, Record, put_varint};
use crate::topology::Lane;
use crate::value_level::ValueLevel;

/// A count; from level 2 on with the time of its newest event.
#[derive(Debug, PartialEq, Eq)]
struct TimedCount {
    events: u64,
    newest: u64,
}

impl StoreValue for TimedCount {
    const LEVELS: &'static [ValueLevel] = &[ValueLevel(1), ValueLevel(2)];

    fn put(&self, version: u8, out: &mut Vec<u8>) {
        put_varint(out, self.events);
        if version > 1 {
            put_varint(out, self.newest);
        }
    }

    fn read(version: u8, from: &mut FieldDecoder<'_>) -> Option<Self> {
        let events = from.varint()?;
        let newest = if version > 1 { from.varint()? } else { 0 };
        Some(Self { events, newest })
    }
}

const NUMBER: u8 = 110;
const COUNTS: KeyValue<String, TimedCount> = KeyValue::new(NUMBER, "counts");
const LEASES: Expiring<String, TimedCount> = Expiring::new(NUMBER + 1, "leases");

/// The key of every row.
const KEY: &[u8] = b"alice\0\0";

/// Counts events, and its timers as events of the key of the timer.
struct VersionedCounter;

impl VersionedCounter {
    fn add(&self, key: &String, context: &mut Context<'_>) -> Result<(), OperatorError> {
        let events = COUNTS.get(context, key)?.map_or(0, |count| count.events) + 1;
        let count = TimedCount { events, newest: 7 };
        COUNTS.put(context, key, &count);
        LEASES.get(context, key)?;
        let until = Millis(context.time().0 + 3_600_000);
        LEASES.put(context, key, &count, until)
    }
}

impl Operator for VersionedCounter {
    fn number(&self) -> u8 {
        NUMBER
    }

    fn name(&self) -> &'static str {
        "counter"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] = &[COUNTS.decl(), LEASES.decl()];
        TABLES
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        self.add(&event.key.to_owned(), context).map(|()| Flow::Continue)
    }

    fn on_timer(&self, key: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        self.add(&String::from_utf8_lossy(key).into_owned(), context)
    }
}

/// Writes the row that the event's data says, as damage or a later build would have left it.
struct Planter;

impl Planter {
    fn event(table: Table, key: &[u8], value: &[u8]) -> Event {
        let data = serde_json::json!([[table.0], key, value]).to_string();
        Event { event_type: "plant".to_owned(), data, ..event("plant") }
    }
}

impl Operator for Planter {
    fn number(&self) -> u8 {
        NUMBER + 2
    }

    fn name(&self) -> &'static str {
        "planter"
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        if event.event_type != "plant" {
            return Ok(Flow::Continue);
        }
        let [table, key, value]: [Vec<u8>; 3] =
            serde_json::from_str(event.data).map_err(|e| OperatorError::Failed(e.to_string()))?;
        context.state.put(Table(table[0]), key.into(), Some(value.into()));
        // No other operator gets it.
        Ok(Flow::Duplicate)
    }
}

fn event(id: &str) -> Event {
    Event {
        event_id: id.to_owned(),
        event_type: "post.created".to_owned(),
        account_id: "acc".to_owned(),
        timestamp_ms: 5,
        correlation_id: id.to_owned(),
        priority: Priority::Normal,
        key: "alice".to_owned(),
        source: None,
        alias: None,
        data: r#"{"post_id":"p1","author_id":"alice","text":"hello"}"#.to_owned(),
    }
}

fn letters(driver: &mut TopologyDriver) -> Vec<DeadLetter> {
    let topic = driver.topology().dead_letters().clone();
    let read = |body| Record { offset: Offset(0), timestamp: Millis(9), body };
    let letters = driver.read_output(&topic).into_iter();
    letters.map(|body| DeadLetter::of(Partition(0), read(body))).collect()
}

fn requeue(driver: &mut TopologyDriver, letter: &DeadLetter) {
    let to = destination(driver.topology(), letter).expect("it can be requeued");
    driver.pipe_body(Lane::Facts, requeued_record(letter, &to).body);
}

fn delivered(driver: &mut TopologyDriver) -> usize {
    let topic = driver.topology().out_stream().clone();
    driver.read_output(&topic).len()
}

fn count(driver: &mut TopologyDriver) -> Option<Vec<u8>> {
    driver.get(Table(NUMBER), KEY).map(|value| value.to_vec())
}

#[test]
fn each_level_writes_its_version_reads_every_one_and_is_in_order() {
    let mut driver = TopologyDriver::new(&[&VersionedCounter]);
    assert_eq!(highest_level(&[&VersionedCounter]), ValueLevel(2));
    driver.pipe_input(&event("e-1"));
    assert_eq!(count(&mut driver), Some(vec![1, 1]), "version 1");
    assert_eq!(driver.last_order().map(|order| order.level), Some(ValueLevel(1)));
    driver.set_value_level(ValueLevel(2));
    driver.pipe_input(&event("e-2"));
    assert_eq!(count(&mut driver), Some(vec![2, 2, 7]), "version 2, from version 1");
    let lease = driver.get(Table(NUMBER + 1), KEY).expect("a lease");
    assert_eq!(lease[8..], [2, 2, 7], "every kind of store writes by the level");
    assert_eq!(driver.last_order().map(|order| order.level), Some(ValueLevel(2)));
    // Another task of the deployment may still be at the level before.
    driver.set_value_level(ValueLevel(1));
    driver.pipe_input(&event("e-3"));
    assert_eq!(count(&mut driver), Some(vec![1, 3]), "version 1, from version 2");
    driver.replay().expect("each transaction is executed at its level");
}

#[test]
fn a_level_above_the_versions_of_the_operators_is_not_claimed() {
    let mut driver = TopologyDriver::new(&[&VersionedCounter]);
    driver.set_value_level(ValueLevel(9));
    driver.pipe_input(&event("e-1"));
    assert_eq!(driver.last_order().map(|order| order.level), Some(ValueLevel(2)));
}

#[test]
fn a_value_of_a_later_build_fails_its_operator_alone_and_can_be_requeued() {
    let mut driver = TopologyDriver::new(&[&Planter, &VersionedCounter, &ChannelDelivery]);
    for (table, later) in [(NUMBER, &[3, 1, 2, 3][..]), (NUMBER + 1, &[1; 7])] {
        driver.pipe_input(&Planter::event(Table(table), KEY, later));
        driver.pipe_input(&event("e-1"));
        let letters = letters(&mut driver);
        let [letter] = &letters[..] else { panic!("one dead letter: {letters:?}") };
        assert_eq!(letter.operator_failure().map(|failure| failure.operator), Some("counter"));
        for part in [&format!("table {table} can't be decoded"), "later build", "requeue"] {
            assert!(letter.detail().contains(part), "{}", letter.detail());
        }
        assert_eq!(delivered(&mut driver), 3, "delivery goes on");
        driver.pipe_input(&Planter::event(Table(NUMBER), KEY, &[1, 4]));
        driver.pipe_input(&Planter::event(
            Table(NUMBER + 1),
            KEY,
            &[[0; 8].as_slice(), &[1, 4]].concat(),
        ));
        requeue(&mut driver, letter);
        assert_eq!(count(&mut driver), Some(vec![1, 5]), "the requeued event alone");
    }
    driver.replay().expect("the same again");
}

#[test]
fn a_timer_of_a_later_build_becomes_a_dead_letter_and_the_others_fire() {
    let mut driver = TopologyDriver::new(&[&Planter, &VersionedCounter, &ChannelDelivery]);
    let plant = |key: &[u8], cause: &[u8]| {
        let owner = TimerOwner::default();
        let timer = TimerKey { at: START, operator: NUMBER, owner, key }.encode();
        Planter::event(TIMERS.spec.table, &timer, cause)
    };
    driver.pipe_input(&plant(b"alice", &[3, 1, 2, 3]));
    let cause = [&[2, 1][..], &[7; 16], &[3], b"acc", &[3], b"bob", &[1], b"c"].concat();
    driver.pipe_input(&plant(b"bob", &cause));
    driver.tick();
    assert_eq!(driver.get(Table(NUMBER), b"bob\0\0").as_deref(), Some(&[1, 1][..]));
    assert_eq!(driver.all(EXPIRIES.spec.table).len(), 1, "the lease of bob");
    let found = letters(&mut driver);
    let [letter] = &found[..] else { panic!("one dead letter: {found:?}") };
    assert_eq!(letter.operator_failure().map(|failure| failure.operator), Some("counter"));
    assert!(letter.detail().contains("later build"), "{}", letter.detail());
    // A build that can't decode it either sets it aside again.
    requeue(&mut driver, letter);
    let found = letters(&mut driver);
    assert!(found[0].detail().contains("requeue"), "{}", found[0].detail());
    driver.replay().expect("the same again");
}

#[test]
fn an_accepted_id_that_cannot_be_decoded_sets_its_event_aside() {
    let mut driver = TopologyDriver::new(&[&Planter, &Dedup, &ChannelDelivery]);
    driver.pipe_input(&event("e-1"));
    assert_eq!(delivered(&mut driver), 3);
    let id = driver.all(IDS)[0].0.to_vec();
    driver.pipe_input(&Planter::event(IDS, &id, &[1; 17]));
    driver.pipe_input(&event("e-1"));
    assert_eq!(delivered(&mut driver), 0, "it may be a duplicate");
    let found = letters(&mut driver);
    assert!(found[0].detail().contains("table 1 can't be decoded"), "{}", found[0].detail());
}
