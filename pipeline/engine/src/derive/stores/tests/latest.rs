//! Tests of how long values and marks of a store of replaceable values stay.

use std::collections::BTreeMap;

use tidewire_schemas::Priority;
use tidewire_schemas::event::Event;

use crate::derive::input::Input;
use crate::derive::stores::{FieldDecoder, Latest, MARK_MS, Stamp, Stamped, StoreKey};
use crate::derive::{Context, Flow, Operator, OperatorError, START, TableDecl, TopologyDriver};
use crate::port::Table;
use crate::record::Millis;
use crate::topology::Lane;

const NUMBER: u8 = 112;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
const LIFE_MS: i64 = 20 * DAY_MS;

const VALUES: Latest<String, ()> = Latest::expiring(NUMBER, "values", LIFE_MS);

/// Sets a value by `set`, and removes it by any other event.
struct SetOrRemove;

impl Operator for SetOrRemove {
    fn number(&self) -> u8 {
        NUMBER
    }

    fn name(&self) -> &'static str {
        "set-or-remove"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] = &[VALUES.decl()];
        TABLES
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        let value = (event.event_type == "set").then_some(());
        let new = Stamped { stamp: Stamp::of(event), value };
        VALUES.set(context, &event.key.to_owned(), &new)?;
        Ok(Flow::Continue)
    }
}

/// An event whose stamp is this number.
fn event(event_type: &str, key: &str, stamp: i64) -> Event {
    Event {
        event_id: format!("{key}-{stamp}"),
        event_type: event_type.to_owned(),
        account_id: "acc".to_owned(),
        timestamp_ms: stamp,
        correlation_id: "c".to_owned(),
        priority: Priority::Normal,
        key: key.to_owned(),
        source: None,
        alias: None,
        data: "{}".to_owned(),
    }
}

/// The ends of lives, in milliseconds after [`START`], by key.
fn ends(driver: &mut TopologyDriver) -> BTreeMap<String, i64> {
    let rows = driver.all(Table(NUMBER)).into_iter();
    let end = |(key, stored): (bytes::Bytes, bytes::Bytes)| {
        let key = String::read(&mut FieldDecoder(&key)).expect("a key");
        let end = Millis::read(&mut FieldDecoder(&stored)).expect("an end");
        (key, end.0 - START.0)
    };
    rows.map(end).collect()
}

/// The end of the life of the only row.
fn end(driver: &mut TopologyDriver) -> i64 {
    let ends: Vec<i64> = ends(driver).into_values().collect();
    let [end] = ends[..] else { panic!("{ends:?}") };
    end
}

/// A driver whose settled time is this many milliseconds after [`START`].
fn settled_at(ms: i64) -> TopologyDriver {
    let mut driver = TopologyDriver::new(&[&SetOrRemove]);
    driver.advance_wall_clock_time(ms);
    driver.tick();
    driver
}

#[test]
fn ends_of_lives_are_spread_within_the_hour_and_most_renewals_move_none() {
    let mut driver = settled_at(0);
    let set_all = |driver: &mut TopologyDriver, stamp| {
        (0..400).for_each(|n| driver.pipe_input(&event("set", &format!("k{n}"), stamp)));
        ends(driver)
    };
    let first = set_all(&mut driver, 1);
    for quarter in 0..4 {
        let from = LIFE_MS + quarter * HOUR_MS / 4;
        let of_quarter = first.values().filter(|end| (from..from + HOUR_MS / 4).contains(end));
        let count = of_quarter.count();
        assert!((60..140).contains(&count), "quarter {quarter}: {count} of 400");
    }
    driver.advance_wall_clock_time(HOUR_MS / 60);
    let second = set_all(&mut driver, 2);
    let moved: Vec<i64> = first.iter().map(|(key, end)| second[key] - end).collect();
    assert!(moved.iter().all(|ms| [0, HOUR_MS].contains(ms)), "{moved:?}");
    assert!(moved.iter().filter(|ms| **ms != 0).count() < 30, "{moved:?}");
    assert!(second.values().all(|end| *end >= LIFE_MS + HOUR_MS / 60));
    driver.replay().unwrap();
}

#[test]
fn a_value_that_is_set_late_lives_from_the_settled_time() {
    let mut driver = settled_at(3 * DAY_MS);
    driver.pipe_late(Lane::Normal, &event("set", "k", 1), START);
    let lives = 3 * DAY_MS + LIFE_MS;
    assert!((lives..lives + HOUR_MS).contains(&end(&mut driver)));
    driver.replay().unwrap();
}

#[test]
fn a_cause_of_a_slow_lane_does_not_shorten_the_life_of_a_value() {
    let mut driver = settled_at(0);
    driver.begin_backlog(Lane::Low);
    driver.advance_wall_clock_time(3 * DAY_MS);
    driver.pipe_input(&event("set", "k", 1));
    let long = end(&mut driver);
    assert!(long >= 3 * DAY_MS + LIFE_MS);
    let later = Millis(START.0 + DAY_MS);
    for (stamp, event_type) in [(1, "set"), (2, "set"), (3, "removed")] {
        driver.pipe_late(Lane::Low, &event(event_type, "k", stamp), later);
        let end = end(&mut driver);
        match event_type {
            "set" => assert_eq!(end, long, "stamp {stamp}"),
            _ => assert!((DAY_MS + MARK_MS..DAY_MS + MARK_MS + HOUR_MS).contains(&end)),
        }
    }
    driver.replay().unwrap();
}

#[test]
fn a_removal_leaves_its_mark_from_its_own_time() {
    let mut driver = settled_at(3 * DAY_MS);
    driver.pipe_late(Lane::Normal, &event("removed", "k", 1), START);
    assert!((MARK_MS..MARK_MS + HOUR_MS).contains(&end(&mut driver)));
    driver.advance_wall_clock_time(MARK_MS);
    assert_eq!(ends(&mut driver).len(), 0);
    driver.replay().unwrap();
}
