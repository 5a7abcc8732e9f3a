//! Tests of operators and of the engine's error paths through the test driver.

use std::sync::atomic::{AtomicU64, Ordering};

use tidewire_schemas::Priority;
use tidewire_schemas::event::{Event, EventView};

use super::TopologyDriver;
use crate::derive::dedup::{Dedup, IDS, WINDOW_MS};
use crate::derive::{ChannelDelivery, Context, Flow, Input, Operator, OperatorError, START};
use crate::record::{Body, Millis};
use crate::topology::Lane;

fn event(id: &str, priority: Priority) -> Event {
    Event {
        event_id: id.to_owned(),
        event_type: "post.created".to_owned(),
        account_id: "acc".to_owned(),
        timestamp_ms: 0,
        correlation_id: id.to_owned(),
        priority,
        key: "alice".to_owned(),
        source: None,
        alias: None,
        data: r#"{"post_id":"p1","author_id":"alice","text":"hello"}"#.to_owned(),
    }
}

fn keys(bodies: &[Body]) -> Vec<String> {
    bodies.iter().map(|b| String::from_utf8(b.key().unwrap().to_vec()).unwrap()).collect()
}

#[test]
fn an_event_is_delivered_once_even_if_its_copy_has_another_lane() {
    let mut driver = TopologyDriver::new(&[&Dedup, &ChannelDelivery]);
    driver.pipe_input(&event("e-1", Priority::Critical));
    driver.pipe_input(&event("e-1", Priority::Low));
    let urgent = driver.topology().out_urgent().clone();
    let mut channels = keys(&driver.read_output(&urgent));
    channels.sort();
    assert_eq!(channels, ["account:acc", "posts:alice", "timeline:acc"]);
    let stream = driver.topology().out_stream().clone();
    assert_eq!(driver.read_output(&stream), [], "the copy is dropped");
    assert_eq!(driver.all(IDS).len(), 1);
    driver.replay().unwrap();
}

#[test]
fn an_id_counts_as_new_again_once_its_window_is_over() {
    let mut driver = TopologyDriver::new(&[&Dedup]);
    let accepted = |driver: &TopologyDriver| driver.last_order().unwrap().accepted.len();
    driver.pipe_input(&event("e-1", Priority::Normal));
    assert_eq!(accepted(&driver), 1);
    driver.advance_wall_clock_time(WINDOW_MS - 1);
    driver.pipe_input(&event("e-1", Priority::Normal));
    assert_eq!(accepted(&driver), 0);
    driver.advance_wall_clock_time(1);
    driver.pipe_input(&event("e-1", Priority::Normal));
    assert_eq!(accepted(&driver), 1);
    driver.replay().unwrap();
}

const HOUR_MS: i64 = 3_600_000;

/// The ids that were delivered to one channel.
fn delivered(driver: &mut TopologyDriver) -> Vec<String> {
    let topics = [driver.topology().out_urgent().clone(), driver.topology().out_stream().clone()];
    let bodies = topics.iter().flat_map(|topic| driver.read_output(topic)).collect::<Vec<_>>();
    let of_channel = bodies.iter().filter(|body| body.key() == Some(b"posts:alice"));
    let id = |body: &Body| EventView::decode(body.value().unwrap()).unwrap().event_id.to_owned();
    of_channel.map(id).collect()
}

#[test]
fn a_copy_in_a_slower_lane_is_a_duplicate_after_25_hours() {
    let mut driver = TopologyDriver::new(&[&Dedup, &ChannelDelivery]);
    driver.begin_backlog(Lane::Normal);
    driver.advance_wall_clock_time(25 * HOUR_MS);
    driver.pipe_late(Lane::High, &event("e-1", Priority::High), START);
    driver.pipe_late(Lane::High, &event("e-2", Priority::High), driver.now());
    driver.tick();
    assert_eq!(delivered(&mut driver), ["e-1", "e-2"]);
    driver.pipe_late(Lane::Normal, &event("e-1", Priority::Normal), Millis(START.0 + 60_000));
    assert_eq!(delivered(&mut driver), [""; 0], "their appends are a minute apart");
    driver.end_backlog(Lane::Normal);
    driver.tick();
    driver.pipe_late(Lane::Normal, &event("e-1", Priority::Normal), driver.now());
    assert_eq!(delivered(&mut driver), ["e-1"], "their appends are 25 hours apart");
    driver.replay().unwrap();
}

#[test]
fn the_later_of_two_copies_may_be_taken_first() {
    let mut driver = TopologyDriver::new(&[&Dedup, &ChannelDelivery]);
    driver.advance_wall_clock_time(20 * 60_000);
    driver.pipe_late(Lane::High, &event("e-1", Priority::High), driver.now());
    driver.pipe_late(Lane::Low, &event("e-1", Priority::Low), START);
    assert_eq!(delivered(&mut driver), ["e-1"]);
    driver.replay().unwrap();
}

#[test]
fn copies_that_come_late_from_admit_are_still_duplicates() {
    let mut driver = TopologyDriver::new(&[&Dedup, &ChannelDelivery]);
    driver.advance_wall_clock_time(30 * HOUR_MS);
    driver.tick();
    for hours in [0, 1] {
        let append_time = Millis(START.0 + hours * HOUR_MS);
        driver.pipe_late(Lane::Normal, &event("e-1", Priority::Normal), append_time);
    }
    assert_eq!(delivered(&mut driver), ["e-1"], "ADMIT was stopped for a day");
    driver.replay().unwrap();
}

#[test]
fn a_timer_waits_for_the_slowest_lane() {
    let mut driver = TopologyDriver::new(&[&Alarm]);
    let dead_letters = driver.topology().dead_letters().clone();
    driver.begin_backlog(Lane::Low);
    driver.pipe_input(&event("e-1", Priority::Normal));
    driver.advance_wall_clock_time(20 * 60_000);
    assert_eq!(driver.read_output(&dead_letters), [], "a record may wait in the low lane");
    driver.pipe_late(Lane::Low, &event("e-2", Priority::Low), Millis(START.0 + 499));
    driver.tick();
    assert_eq!(driver.read_output(&dead_letters), []);
    driver.end_backlog(Lane::Low);
    driver.tick();
    assert_eq!(driver.read_output(&dead_letters).len(), 2);
    driver.replay().unwrap();
}

#[test]
fn an_undecodable_record_becomes_a_dead_letter_that_names_its_lane() {
    let mut driver = TopologyDriver::new(&[&Dedup, &ChannelDelivery]);
    driver.pipe_value(Lane::Low, Some(b"no event"));
    driver.pipe_value(Lane::Low, None);
    let dead_letters = driver.topology().dead_letters().clone();
    assert_eq!(keys(&driver.read_output(&dead_letters)), ["t.lane.low/0/0", "t.lane.low/0/1"]);
    driver.replay().unwrap();
}

/// Sets a timer for each event, which fails.
struct Alarm;

impl Operator for Alarm {
    fn number(&self) -> u8 {
        99
    }

    fn name(&self) -> &'static str {
        "alarm"
    }

    fn on_event(&self, e: &Input<'_>, context: &mut Context<'_>) -> Result<Flow, OperatorError> {
        let at = Millis(context.time().0 + 500);
        context.set_timer(at, e.key.as_bytes())?;
        Ok(Flow::Continue)
    }

    fn on_timer(&self, _: &[u8], _: &mut Context<'_>) -> Result<(), OperatorError> {
        Err(OperatorError::Failed("a failing timer".to_owned()))
    }
}

#[test]
fn a_timer_fires_when_time_is_advanced_and_its_failure_is_a_dead_letter() {
    let mut driver = TopologyDriver::new(&[&Alarm]);
    driver.pipe_input(&event("e-1", Priority::Normal));
    let dead_letters = driver.topology().dead_letters().clone();
    driver.advance_wall_clock_time(499);
    assert_eq!(driver.read_output(&dead_letters), []);
    driver.advance_wall_clock_time(1);
    let dead_letter = &driver.read_output(&dead_letters)[0];
    assert_eq!(dead_letter.header("detail"), Some(&b"timer of alarm: a failing timer"[..]));
    assert_eq!(driver.last_order().unwrap().ticks.len(), 1);
    driver.replay().unwrap();
}

static OUTSIDE_TABLES: AtomicU64 = AtomicU64::new(0);

/// Keeps state in a static, which no abort rolls back and no replay has.
struct ImpureOperator;

impl Operator for ImpureOperator {
    fn number(&self) -> u8 {
        98
    }

    fn name(&self) -> &'static str {
        "fickle"
    }

    fn on_event(&self, _: &Input<'_>, _: &mut Context<'_>) -> Result<Flow, OperatorError> {
        match OUTSIDE_TABLES.fetch_add(1, Ordering::SeqCst) {
            1 => Err(OperatorError::Failed("the second one".to_owned())),
            _ => Ok(Flow::Continue),
        }
    }
}

#[test]
fn a_replay_detects_an_operator_with_state_outside_its_tables() {
    let mut driver = TopologyDriver::new(&[&ImpureOperator, &ChannelDelivery]);
    for id in ["e-1", "e-2"] {
        driver.pipe_input(&event(id, Priority::Normal));
    }
    let why = driver.replay().unwrap_err();
    assert!(why.starts_with("transaction 1, record 0"), "{why}");
}
