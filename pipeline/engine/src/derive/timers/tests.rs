//! Tests of timers through the test driver: which ones fire, and what they emit.

use tidewire_schemas::Priority;
use tidewire_schemas::event::{Event, EventView};

use crate::dead_letters::DeadLetter;
use crate::derive::stores::Expiring;
use crate::derive::{
    Context, Emission, Flow, Input, MAX_EXPIRIES_PER_TICK, Operator, OperatorError, START,
    TableDecl, TopologyDriver,
};
use crate::port::Table;
use crate::record::{Body, Millis, Offset, Partition, Record};
use crate::topology::Lane;

/// When the timers of [`Alarms`] are due.
const FIRST: Millis = Millis(START.0 + 1_000);
const SECOND: Millis = Millis(START.0 + 2_000);
const THIRD: Millis = Millis(START.0 + 3_000);

/// Facts after which a chain counts as endless.
const ENDLESS: usize = 20;

fn event(id: &str) -> Event {
    Event {
        event_id: id.to_owned(),
        event_type: "post.created".to_owned(),
        account_id: "acc".to_owned(),
        timestamp_ms: 5,
        correlation_id: "thread-1".to_owned(),
        priority: Priority::Normal,
        key: "alice".to_owned(),
        source: None,
        alias: None,
        data: r#"{"post_id":"p1","author_id":"alice","text":"hello"}"#.to_owned(),
    }
}

fn emission<'a>(account_id: &'a str, key: &'a str) -> Emission<'a> {
    Emission {
        event_type: "conversation.updated",
        account_id,
        key,
        timestamp_ms: 5,
        priority: Priority::Normal,
        data: r#"{"conversation_id":"c1"}"#,
    }
}

/// An event sets the timers that its id names: `FIRST` is of the key `remove`, `move` or `again`,
/// `SECOND` of the key `late`. Each timer that is not `remove` or `move` emits a fact of its key.
struct Alarms;

impl Operator for Alarms {
    fn number(&self) -> u8 {
        97
    }

    fn name(&self) -> &'static str {
        "alarms"
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        let (key, _) = event.event_id.split_once('-').unwrap_or_default();
        context.set_timer(FIRST, key.as_bytes())?;
        if key != "again" {
            context.set_timer(SECOND, b"late")?;
        }
        Ok(Flow::Continue)
    }

    fn on_timer(&self, key: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        match key {
            b"remove" => context.remove_timer(SECOND, b"late"),
            b"move" => {
                context.remove_timer(SECOND, b"late");
                context.set_timer(THIRD, b"late")?;
            }
            _ => {
                let account = context.account().to_owned();
                let key = std::str::from_utf8(key).expect("one of ours");
                context.fact(&emission(&account, key))?;
            }
        }
        Ok(())
    }
}

fn facts(driver: &mut TopologyDriver) -> Vec<Body> {
    let topic = driver.topology().facts().clone();
    driver.read_output(&topic)
}

#[test]
fn a_timer_that_an_earlier_one_of_its_tick_removes_does_not_fire() {
    let mut driver = TopologyDriver::new(&[&Alarms]);
    driver.pipe_input(&event("remove-1"));
    driver.advance_wall_clock_time(10_000);
    assert_eq!(driver.last_order().expect("a tick").ticks.len(), 1, "both were due in it");
    assert_eq!(facts(&mut driver), []);
    driver.replay().expect("the same again");
}

#[test]
fn a_timer_that_an_earlier_one_of_its_tick_moves_fires_only_at_its_new_time() {
    let mut driver = TopologyDriver::new(&[&Alarms]);
    driver.pipe_input(&event("move-1"));
    driver.advance_wall_clock_time(2_500);
    assert_eq!(facts(&mut driver), []);
    driver.advance_wall_clock_time(500);
    assert_eq!(facts(&mut driver).len(), 1);
    driver.replay().expect("the same again");
}

#[test]
fn a_timer_that_is_set_again_after_it_fired_emits_another_event() {
    let mut driver = TopologyDriver::new(&[&Alarms]);
    let mut ids = Vec::new();
    for id in ["again-1", "again-2"] {
        driver.pipe_input(&event(id));
        driver.advance_wall_clock_time(10_000);
        let fact = &facts(&mut driver)[0];
        let fact = EventView::decode(fact.value().expect("a value")).expect("an event");
        assert_eq!((fact.account_id, fact.correlation_id), ("acc", "thread-1"));
        ids.push(fact.event_id.to_owned());
    }
    assert_ne!(ids[0], ids[1]);
    driver.replay().expect("the same again");
}

/// Answers each event by a timer, and each timer by a fact.
struct Endless;

impl Operator for Endless {
    fn number(&self) -> u8 {
        98
    }

    fn name(&self) -> &'static str {
        "endless"
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        context.set_timer(context.time(), event.key.as_bytes())?;
        Ok(Flow::Continue)
    }

    fn on_timer(&self, _: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        let account = context.account().to_owned();
        context.fact(&emission(&account, "alice"))
    }
}

#[test]
fn facts_and_timers_in_turn_end_with_a_dead_letter() {
    let mut driver = TopologyDriver::new(&[&Endless]);
    driver.pipe_input(&event("e-1"));
    let mut hops = Vec::new();
    loop {
        driver.advance_wall_clock_time(1);
        let Some(fact) = facts(&mut driver).pop() else { break };
        hops.push(fact.header("tw-hops").expect("its hops")[0]);
        assert!(hops.len() < ENDLESS, "an operator causes itself without end: {hops:?}");
        driver.pipe_fact(Lane::Facts, &fact);
    }
    assert_eq!(hops, [2, 4], "each timer costs one as well");
    let dead_letters = driver.topology().dead_letters().clone();
    let letters = driver.read_output(&dead_letters);
    let detail = letters[0].header("detail").expect("its detail");
    let detail = std::str::from_utf8(detail).expect("text");
    assert!(letters.len() == 1 && detail.contains("facts and timers in a row"), "{detail}");
    driver.replay().expect("the same again");
}

/// Sets its timer again each time it fires, for ten times.
struct Recurring;

impl Operator for Recurring {
    fn number(&self) -> u8 {
        99
    }

    fn name(&self) -> &'static str {
        "recurring"
    }

    fn on_event(&self, _: &Input<'_>, c: &mut Context<'_>) -> Result<Flow, OperatorError> {
        c.set_timer(Millis(c.time().0 + 1_000), &[0])?;
        Ok(Flow::Continue)
    }

    fn on_timer(&self, key: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        if key[0] < 9 {
            context.set_timer(Millis(context.time().0 + 1_000), &[key[0] + 1])?;
        }
        let account = context.account().to_owned();
        context.fact(&emission(&account, "alice"))
    }
}

#[test]
fn a_timer_that_recurs_emits_as_long_as_it_recurs_each_time_another_event() {
    let mut driver = TopologyDriver::new(&[&Recurring]);
    driver.pipe_input(&event("e-1"));
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..20 {
        driver.advance_wall_clock_time(1_000);
        for fact in facts(&mut driver) {
            assert_eq!(fact.header("tw-hops"), Some(&[2][..]));
            let fact = EventView::decode(fact.value().expect("a value")).expect("an event");
            ids.insert(fact.event_id.to_owned());
        }
    }
    assert_eq!(ids.len(), 10);
    driver.replay().expect("the same again");
}

#[test]
fn equal_keys_of_two_entities_and_of_two_accounts_are_timers_of_their_own() {
    let mut driver = TopologyDriver::new(&[&Alarms]);
    for (account, key) in [("acc", "alice"), ("other", "alice"), ("acc", "bob")] {
        let event = event(&format!("again-{account}{key}"));
        driver.pipe_input(&Event { account_id: account.into(), key: key.into(), ..event });
    }
    driver.advance_wall_clock_time(10_000);
    assert_eq!(facts(&mut driver).len(), 3);
    driver.replay().expect("the same again");
}

#[test]
fn what_a_timer_emits_does_not_depend_on_which_of_its_causes_came_first() {
    let ids = |order: [&str; 2]| {
        let mut driver = TopologyDriver::new(&[&Alarms]);
        order.iter().for_each(|id| driver.pipe_input(&event(id)));
        driver.advance_wall_clock_time(10_000);
        let found = facts(&mut driver).into_iter().map(|fact| {
            let fact = EventView::decode(fact.value().expect("a value")).expect("an event");
            fact.event_id.to_owned()
        });
        found.collect::<Vec<_>>()
    };
    let one = ids(["again-1", "again-2"]);
    assert_eq!((one.len(), &one), (1, &ids(["again-2", "again-1"])));
}

/// Sets a lease timer and an ordinary one at [`FIRST`] with the same key; an event `end-…` removes
/// the lease timer. Each timer emits a fact of its key.
struct Leases;

impl Operator for Leases {
    fn number(&self) -> u8 {
        96
    }

    fn name(&self) -> &'static str {
        "leases"
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        if event.event_id.starts_with("end") {
            context.remove_lease_timer(FIRST, b"gateway");
            return Ok(Flow::Continue);
        }
        context.set_lease_timer(FIRST, b"gateway")?;
        context.set_timer(FIRST, b"gateway")?;
        Ok(Flow::Continue)
    }

    fn on_timer(&self, key: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        assert_eq!(context.time(), FIRST);
        let account = context.account().to_owned();
        context.fact(&emission(&account, std::str::from_utf8(key).expect("one of ours")))
    }
}

fn fact_ids(driver: &mut TopologyDriver) -> Vec<String> {
    let id = |fact: &Body| {
        let event = EventView::decode(fact.value().expect("a value")).expect("an event");
        event.event_id.to_owned()
    };
    facts(driver).iter().map(id).collect()
}

#[test]
fn a_lease_timer_fires_although_another_lane_has_a_backlog_and_a_settled_one_waits() {
    let mut driver = TopologyDriver::new(&[&Leases]);
    driver.begin_backlog(Lane::Low);
    driver.pipe_input(&event("begin-1"));
    driver.advance_wall_clock_time(999);
    assert_eq!(fact_ids(&mut driver), [] as [String; 0]);
    driver.advance_wall_clock_time(1);
    let lease = fact_ids(&mut driver);
    assert_eq!(lease.len(), 1, "a lane without records advances by ticks");
    let order = driver.last_order().expect("a tick");
    assert_eq!((order.after.lease(), order.ticks[0].at), (FIRST, FIRST));
    assert!(order.after.settled() < FIRST, "both times are in it: {:?}", order.after);
    driver.end_backlog(Lane::Low);
    driver.advance_wall_clock_time(1);
    let settled = fact_ids(&mut driver);
    assert_eq!(settled.len(), 1);
    assert_ne!(lease, settled, "two timers of one key are two causes");
    driver.replay().expect("the same again");
}

#[test]
fn a_lease_timer_waits_for_renewals_in_the_critical_lane() {
    let mut driver = TopologyDriver::new(&[&Leases]);
    driver.begin_backlog(Lane::Critical);
    driver.pipe_late(Lane::Critical, &event("begin-1"), START);
    driver.advance_wall_clock_time(60_000);
    assert_eq!(fact_ids(&mut driver), [] as [String; 0], "a renewal may be next in the lane");
    let renewed = Millis(FIRST.0 - 1);
    driver.pipe_late(Lane::Critical, &event("end-1"), renewed);
    driver.end_backlog(Lane::Critical);
    driver.advance_wall_clock_time(1);
    assert_eq!(fact_ids(&mut driver).len(), 1, "only the settled one");
    driver.replay().expect("the same again");
}

/// An answer that expires, per event.
const ANSWERS: Expiring<String, u64> = Expiring::new(98, "answers");

/// Keeps an answer per event for a while, and sets a timer at [`FIRST`].
struct Answers;

impl Operator for Answers {
    fn number(&self) -> u8 {
        95
    }

    fn name(&self) -> &'static str {
        "answers"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] = &[ANSWERS.decl()];
        TABLES
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        let until = Millis(FIRST.0 - 1);
        ANSWERS.put(context, &event.event_id.to_owned(), &1, until)?;
        context.set_timer(FIRST, b"late")?;
        Ok(Flow::Continue)
    }

    fn on_timer(&self, _: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        let account = context.account().to_owned();
        context.fact(&emission(&account, "alice"))
    }
}

#[test]
fn entries_that_expire_have_a_quota_of_their_own_and_delay_no_operator_s_timer() {
    let mut driver = TopologyDriver::new(&[&Answers]);
    let entries = MAX_EXPIRIES_PER_TICK + 10;
    let events: Vec<Event> = (0..entries).map(|n| event(&format!("e-{n}"))).collect();
    events.iter().for_each(|event| driver.pipe_late(Lane::Normal, event, START));
    let later = Event { key: "bob".into(), ..event("e-last") };
    driver.pipe_late(Lane::Normal, &later, Millis(FIRST.0 + 5));
    for lane in [Lane::Critical, Lane::High, Lane::Low, Lane::Facts, Lane::FactsUrgent] {
        driver.pipe_late(lane, &Event { key: "bob".into(), ..event("x") }, Millis(FIRST.0 + 5));
    }
    driver.tick();
    assert_eq!(facts(&mut driver).len(), 2, "of both keys, in the same tick");
    assert!(driver.all(Table(98)).len() >= 10, "the rest waits for the next tick");
    driver.advance_wall_clock_time(0);
    assert_eq!((driver.all(Table(98)), driver.all(Table(5))), (vec![], vec![]));
    driver.replay().expect("the same again");
}

#[test]
fn a_timer_without_its_operator_or_with_an_unknown_cause_becomes_a_dead_letter() {
    let mut driver = TopologyDriver::new(&[&Alarms]);
    driver.pipe_input(&event("again-1"));
    let (key, cause) = driver.all(Table(0)).remove(0);
    let mut later = cause.to_vec();
    later[0] += 1;
    let none: &'static [&'static dyn Operator] = &[];
    let cases = [(none, cause.to_vec(), "no operator number-97"), (&[&Alarms], later, "later")];
    for (operators, cause, why) in cases {
        let mut other = TopologyDriver::new(operators);
        other.put(Table(0), &key, &cause);
        other.advance_wall_clock_time(10_000);
        let topic = other.topology().dead_letters().clone();
        let body = other.read_output(&topic).pop().expect("a dead letter");
        let record = Record { offset: Offset(0), timestamp: Millis(9), body };
        let letter = DeadLetter::of(Partition(0), record);
        assert!(letter.detail().contains(why), "{}", letter.detail());
        let time = letter.own_headers().find(|(name, _)| *name == "tw-time");
        assert_eq!(time.map(|(_, time)| time), Some(&FIRST.0.to_be_bytes()[..]));
        assert_eq!(other.all(Table(0)), [], "it does not fire for ever");
    }
}

#[test]
fn a_row_that_is_no_timer_hides_none_behind_it() {
    let mut driver = TopologyDriver::new(&[&Alarms]);
    driver.pipe_input(&event("again-1"));
    for damaged in [7, 20] {
        driver.put(Table(0), &vec![0; damaged], b"damaged");
    }
    driver.advance_wall_clock_time(10_000);
    assert!(!facts(&mut driver).is_empty(), "the timer fires, and the loop ends");
}
