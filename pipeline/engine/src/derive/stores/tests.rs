//! Tests of the stores through the test driver: results, late events and expiry.
//!
//! An event's `timestamp_ms` is its time; its append time is the driver's clock.

use tidewire_schemas::Priority;
use tidewire_schemas::event::{Event, EventView};

use super::{
    Desc, Expiring, FieldDecoder, Index, KeyValue, MAX_AHEAD_MS, SessionEvent, SessionWindows,
    Sessions, StoreValue, Windowed,
};
use super::{Windows, put_signed};
use crate::derive::emit::{Emission, MAX_HOPS, StateKey};
use crate::derive::trigger::HOPS;
use crate::derive::{
    Context, Flow, Input, Operator, OperatorError, START, TICK_MS, TableDecl, TopologyDriver,
};
use crate::port::Table;
use crate::record::{Body, Millis};
use crate::topology::Lane;

mod latest;
mod versions;

const MINUTE: i64 = 60_000;

/// A sum that may be negative, as a value of its own layout.
#[derive(Debug, PartialEq, Eq)]
struct SignedSum(i64);

impl StoreValue for SignedSum {
    fn put(&self, _: u8, out: &mut Vec<u8>) {
        put_signed(out, self.0);
    }

    fn read(_: u8, from: &mut FieldDecoder<'_>) -> Option<Self> {
        from.signed().map(Self)
    }
}

const TOTALS: KeyValue<String, SignedSum> = KeyValue::new(100, "totals");
const RANKS: Index<String, Desc<i64>, String> = Index::new(101, "ranks");
const LEASES: Expiring<String, u64> = Expiring::new(102, "leases");
const PER_MINUTE: Windowed<String, u64> =
    Windowed::new(103, "per-minute", Windows::tumbling(MINUTE, MINUTE));
const PER_HOUR: Windowed<String, u64> =
    Windowed::new(104, "per-hour", Windows::tumbling(60 * MINUTE, 0).advance_by(20 * MINUTE));
const BURSTS: Sessions<String, u64> =
    Sessions::new(105, "bursts", SessionWindows { gap_ms: MINUTE, grace_ms: MINUTE });

const TABLES: &[TableDecl] = &[
    TOTALS.decl(),
    RANKS.decl(),
    LEASES.decl(),
    PER_MINUTE.decl(),
    PER_HOUR.decl(),
    BURSTS.decl(),
];

/// Executes the command that the event's type names, and publishes the result.
struct ScriptedOperator;

impl Operator for ScriptedOperator {
    fn number(&self) -> u8 {
        100
    }

    fn name(&self) -> &'static str {
        "scripted"
    }

    fn tables(&self) -> &'static [TableDecl] {
        TABLES
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        let (key, at) = (event.key.to_owned(), Millis(event.timestamp_ms));
        let answer = match event.event_type {
            "rank" => rank(context, &key)?,
            "ranks from" => {
                let from = ("all".to_owned(), Desc(at.0), key.clone());
                format!("{:?}", RANKS.first_from(context, &from, 2)?)
            }
            "lease" => {
                let until = Millis(context.time().0 + MINUTE);
                LEASES.put(context, &key, &1, until)?;
                "leased".to_owned()
            }
            "leased?" => format!("{:?}", LEASES.get(context, &key)?),
            "minute" => {
                let updated = PER_MINUTE.update(context, &key, at, |n| n.unwrap_or(0) + 1)?;
                format!("{} taken {} late", updated.taken, updated.late)
            }
            "minutes?" => {
                let starts = Millis(0)..Millis(at.0.min(i64::MAX / 2));
                let range = PER_MINUTE.range(context, &key, starts)?;
                format!("{range:?}")
            }
            "minute=" => {
                let updated = PER_MINUTE.put(context, &key, at, &7);
                format!("{} taken {} late", updated.taken, updated.late)
            }
            "visit?" => visit(context, &key, at)?,
            "keys?" => format!("{:?}", PER_MINUTE.first(context, at, 2)?),
            "hour" => {
                let updated = PER_HOUR.update(context, &key, at, |n| n.unwrap_or(0) + 1)?;
                format!("{} taken {} late", updated.taken, updated.late)
            }
            "burst" => {
                let event = SessionEvent { at, value: 1 };
                match BURSTS.add(context, &key, event, |a, b| a + b)? {
                    Some(s) => format!("{}..{}: {}", s.start.0, s.end.0, s.value),
                    None => "late".to_owned(),
                }
            }
            "bursts?" => format!("{}", BURSTS.all(context, &key)?.len()),
            _ => emit_fact(context, event)?,
        };
        context.publish(event, StateKey { channel: "answers", state_key: "" }, answer.as_bytes());
        Ok(Flow::Continue)
    }
}

/// The keys of a minute from one to before another, given as `from..to`.
fn visit(context: &mut Context<'_>, key: &str, at: Millis) -> Result<String, OperatorError> {
    let mut found = Vec::new();
    let (from, to) = key.split_once("..").expect("a range");
    PER_MINUTE.visit(context, (at, from.to_owned()..to.to_owned()), &mut |key, count| {
        found.push((key, count));
    })?;
    Ok(format!("{found:?}"))
}

/// Adds one to the key's total and moves it in the ranking.
fn rank(context: &mut Context<'_>, key: &String) -> Result<String, OperatorError> {
    let before = TOTALS.get(context, key)?.map_or(0, |sum| sum.0);
    let entry = |sum| ("all".to_owned(), Desc(sum), key.clone());
    RANKS.remove(context, &entry(before));
    RANKS.insert(context, &entry(before + 1));
    TOTALS.put(context, key, &SignedSum(before + 1));
    let top = RANKS.first(context, &"all".to_owned(), 2)?;
    Ok(top.iter().map(|(sum, key)| format!("{key}={} ", sum.0)).collect())
}

/// Emits a fact for another key's task.
fn emit_fact(context: &mut Context<'_>, event: &EventView<'_>) -> Result<String, OperatorError> {
    context.fact(&Emission {
        event_type: "noted",
        account_id: event.account_id,
        key: "bob",
        timestamp_ms: event.timestamp_ms,
        priority: Priority::Low,
        data: "{}",
    })?;
    Ok(format!("{} emitted", event.event_id))
}

struct StoreHarness(TopologyDriver, u32);

impl StoreHarness {
    fn new() -> Self {
        Self(TopologyDriver::new(&[&ScriptedOperator]), 0)
    }

    /// Pipes an event and returns what the operator answered.
    fn send(&mut self, event_type: &str, key: &str, at: i64) -> String {
        let event = self.event(event_type, key, at);
        self.0.pipe_input(&event);
        self.answer()
    }

    /// The same with an event of the low lane that was appended at [`START`].
    fn send_late(&mut self, event_type: &str, key: &str, at: i64) -> String {
        let event = self.event(event_type, key, at);
        self.0.pipe_late(Lane::Low, &event, START);
        self.answer()
    }

    fn event(&mut self, event_type: &str, key: &str, at: i64) -> Event {
        self.1 += 1;
        let id = format!("e-{}", self.1);
        Event {
            event_id: id.clone(),
            event_type: event_type.to_owned(),
            account_id: "acc".to_owned(),
            timestamp_ms: at,
            correlation_id: id,
            priority: Priority::Normal,
            key: key.to_owned(),
            source: None,
            alias: None,
            data: "{}".to_owned(),
        }
    }

    fn answer(&mut self) -> String {
        let topic = self.0.topology().out_state().clone();
        let answers = self.0.read_output(&topic);
        let text = |body: &Body| String::from_utf8(body.value().unwrap().to_vec()).unwrap();
        answers.iter().map(text).collect()
    }

    fn rows(&mut self, number: u8) -> usize {
        self.0.all(Table(number)).len()
    }
}

#[test]
fn an_index_returns_the_first_entries_of_a_group() {
    let mut harness = StoreHarness::new();
    harness.send("rank", "a", 0);
    harness.send("rank", "b", 0);
    assert_eq!(harness.send("rank", "b", 0), "b=2 a=1 ");
    harness.send("rank", "c", 0);
    harness.send("rank", "c", 0);
    assert_eq!(harness.send("rank", "c", 0), "c=3 b=2 ");
    assert_eq!(harness.rows(101), 3, "one entry per key");
    harness.0.replay().unwrap();
}

#[test]
fn an_index_returns_the_first_entries_from_one_on_and_passes_none_before_it() {
    let mut harness = StoreHarness::new();
    for key in ["a", "b", "c"] {
        (0..20).for_each(|_| drop(harness.send("rank", key, 0)));
    }
    let rest = r#"[(Desc(20), "b"), (Desc(20), "c")]"#;
    assert_eq!(harness.send("ranks from", "b", 20), rest, "the entry itself is the first");
    assert_eq!(harness.send("ranks from", "aa", 20), rest, "one that is not there");
    assert_eq!(harness.send("ranks from", "", 20), r#"[(Desc(20), "a"), (Desc(20), "b")]"#);
    let before = harness.0.passed();
    assert_eq!(harness.send("ranks from", "", 1), "[]");
    assert_eq!(harness.0.passed() - before, 6, "the removed ones of ranks 1 and 0");
    harness.0.replay().unwrap();
}

#[test]
fn an_entry_expires_by_its_time_and_is_removed_by_a_tick() {
    let mut harness = StoreHarness::new();
    harness.send("lease", "g", 0);
    assert_eq!(harness.send("leased?", "g", 0), "Some(1)");
    harness.0.advance_wall_clock_time(MINUTE / 2);
    // A renewal moves the expiry time and removes the timer of the first lease.
    harness.send("lease", "g", 0);
    harness.0.advance_wall_clock_time(MINUTE / 2 + TICK_MS);
    assert_eq!(harness.send("leased?", "g", 0), "Some(1)");
    assert_eq!(harness.rows(5), 1, "one timer per entry");
    harness.0.advance_wall_clock_time(MINUTE);
    assert_eq!(harness.send("leased?", "g", 0), "None");
    assert_eq!((harness.rows(102), harness.rows(5)), (0, 0));
    harness.0.replay().unwrap();
}

#[test]
fn a_window_accepts_events_until_its_grace_is_over() {
    let mut harness = StoreHarness::new();
    let start = START.0 - START.0.rem_euclid(MINUTE);
    assert_eq!(harness.send("minute", "a", start), "1 taken 0 late");
    assert_eq!(harness.send("minute", "a", start + MINUTE - 1), "1 taken 0 late");
    assert_eq!(harness.send("minute", "b", start + MINUTE), "1 taken 0 late");
    assert_eq!(harness.send("minute", "c", start + MINUTE), "1 taken 0 late");
    let windows = format!("[(Millis({start}), 2)]");
    assert_eq!(harness.send("minutes?", "a", i64::MAX), windows);
    assert_eq!(harness.send("keys?", "", start + MINUTE), r#"[("b", 1), ("c", 1)]"#);
    assert_eq!(harness.send("keys?", "", start), r#"[("a", 2)]"#);
    let left = start + 2 * MINUTE - harness.0.now().0;
    harness.0.advance_wall_clock_time(left - 1);
    assert_eq!(harness.send("minute", "a", start), "1 taken 0 late");
    harness.0.advance_wall_clock_time(1);
    assert_eq!(harness.send("minute", "a", start), "0 taken 1 late");
    assert_eq!(harness.send("minutes?", "a", i64::MAX), "[]", "a closed window reads as empty");
    harness.0.replay().unwrap();
}

#[test]
fn the_keys_of_a_window_are_set_and_visited_in_a_range() {
    let mut harness = StoreHarness::new();
    let start = START.0 - START.0.rem_euclid(MINUTE);
    for key in ["a", "ab", "b"] {
        assert_eq!(harness.send("minute=", key, start + 5), "1 taken 0 late");
    }
    harness.send("minute=", "a", start + MINUTE);
    assert_eq!(harness.send("visit?", "..z", start), r#"[("a", 7), ("ab", 7), ("b", 7)]"#);
    assert_eq!(harness.send("visit?", "ab..b", start), r#"[("ab", 7)]"#);
    assert_eq!(harness.send("visit?", "b..c", start), r#"[("b", 7)]"#);
    assert_eq!(harness.send("visit?", "b..a", start), "[]", "the range is empty");
    harness.0.advance_wall_clock_time(2 * MINUTE);
    assert_eq!(harness.send("minute=", "a", start), "0 taken 1 late");
    assert_eq!(harness.send("visit?", "..z", start), "[]", "a closed window reads as empty");
    harness.0.replay().unwrap();
}

#[test]
fn an_event_of_a_lane_that_is_behind_is_not_late() {
    let mut harness = StoreHarness::new();
    let start = START.0 - START.0.rem_euclid(MINUTE);
    harness.0.begin_backlog(Lane::Low);
    harness.send("minute", "a", start);
    harness.send("burst", "a", start);
    harness.0.advance_wall_clock_time(20 * MINUTE);
    harness.send("minute", "a", start + 20 * MINUTE);
    harness.0.tick();
    assert_eq!(harness.send("minute", "a", start), "0 taken 1 late", "it was appended later");
    assert_eq!(harness.send_late("minute", "a", start), "1 taken 0 late");
    assert_eq!(harness.send_late("burst", "a", start + 1), format!("{start}..{}: 2", start + 1));
    harness.0.end_backlog(Lane::Low);
    harness.0.tick();
    assert_eq!(harness.send_late("minute", "a", start), "0 taken 1 late", "ADMIT was behind");
    assert_eq!(harness.send_late("burst", "a", start + 1), "late");
    harness.0.replay().unwrap();
}

#[test]
fn an_event_is_in_every_hopping_window_that_is_still_open() {
    let mut harness = StoreHarness::new();
    let hour = START.0 - START.0.rem_euclid(60 * MINUTE);
    let left = hour + 60 * MINUTE - harness.0.now().0;
    harness.0.advance_wall_clock_time(left);
    assert_eq!(harness.send("hour", "a", hour + 61 * MINUTE), "3 taken 0 late");
    assert_eq!(harness.send("hour", "a", hour + 41 * MINUTE), "2 taken 1 late");
    assert_eq!(harness.rows(104), 3);
}

#[test]
fn sessions_grow_are_joined_and_expire() {
    let mut harness = StoreHarness::new();
    let t = START.0;
    let send = |harness: &mut StoreHarness, at: i64| harness.send("burst", "a", t + at);
    assert_eq!(send(&mut harness, 0), format!("{t}..{t}: 1"));
    assert_eq!(send(&mut harness, 2 * MINUTE), format!("{0}..{0}: 1", t + 2 * MINUTE));
    assert_eq!(harness.send("bursts?", "a", 0), "2");
    // The event between them connects both sessions.
    assert_eq!(send(&mut harness, MINUTE), format!("{t}..{}: 3", t + 2 * MINUTE));
    assert_eq!(harness.send("bursts?", "a", 0), "1");
    assert_eq!(harness.send("bursts?", "other", 0), "0");
    harness.0.advance_wall_clock_time(4 * MINUTE + 1);
    assert_eq!(harness.send("bursts?", "a", 0), "0", "the session is expired");
    assert_eq!(send(&mut harness, MINUTE), "late");
    let far = harness.0.now().0 + 48 * 60 * MINUTE;
    let clamped = harness.0.now().0 + MAX_AHEAD_MS;
    assert_eq!(harness.send("burst", "a", far), format!("{clamped}..{clamped}: 1"));
    assert_eq!(harness.send("bursts?", "a", 0), "1", "an event ahead of time is found again");
    harness.0.replay().unwrap();
}

#[test]
fn a_session_that_grows_past_its_bucket_moves_to_the_next() {
    let mut harness = StoreHarness::new();
    let edge = START.0 - START.0.rem_euclid(MAX_AHEAD_MS) + MAX_AHEAD_MS;
    let left = edge - MINUTE / 2 - harness.0.now().0;
    harness.0.advance_wall_clock_time(left);
    harness.send("burst", "a", edge - MINUTE / 2);
    let grown = harness.send("burst", "a", edge + MINUTE / 2);
    assert_eq!(grown, format!("{}..{}: 2", edge - MINUTE / 2, edge + MINUTE / 2));
    assert_eq!(harness.rows(105), 1);
}

#[test]
fn a_fact_has_its_own_key_and_an_id_derived_from_its_cause() {
    let facts_of = |id_of_run: u32| {
        let mut harness = StoreHarness(TopologyDriver::new(&[&ScriptedOperator]), id_of_run);
        harness.send("tell", "alice", 7);
        let facts = harness.0.topology().facts().clone();
        harness.0.read_output(&facts)
    };
    let [fact] = &facts_of(0)[..] else { panic!("one fact") };
    assert_eq!(fact.key(), Some(&b"bob"[..]));
    assert_eq!(fact.header(HOPS), Some(&[1][..]));
    let event = EventView::decode(fact.value().unwrap()).unwrap();
    assert_eq!((event.event_type, event.correlation_id, event.timestamp_ms), ("noted", "e-1", 7));
    assert!(event.event_id.starts_with("op/scripted/"), "{}", event.event_id);
    assert_eq!(facts_of(0), facts_of(0), "the same cause gives the same fact");
    let other = facts_of(1);
    assert_ne!(EventView::decode(other[0].value().unwrap()).unwrap().event_id, event.event_id);
}

#[test]
fn facts_that_cause_each_other_end_in_a_dead_letter() {
    let mut harness = StoreHarness::new();
    harness.send("tell", "alice", 0);
    let facts = harness.0.topology().facts().clone();
    let dead_letters = harness.0.topology().dead_letters().clone();
    for hop in 1..=MAX_HOPS {
        let emitted = harness.0.read_output(&facts);
        let [fact] = &emitted[..] else { panic!("one fact after {hop} hops") };
        assert_eq!(fact.header(HOPS), Some(&[hop][..]));
        harness.0.pipe_body(Lane::Facts, fact.clone());
    }
    assert_eq!(harness.0.read_output(&facts), []);
    let found = harness.0.read_output(&dead_letters);
    let detail = String::from_utf8_lossy(found[0].header("detail").unwrap()).into_owned();
    assert!(detail.contains("4 facts and timers in a row"), "{detail}");
}
