//! Tests of failing operators through the test driver: what stays, and what a requeue brings.

use std::sync::atomic::{AtomicBool, Ordering};

use tidewire_schemas::Priority;
use tidewire_schemas::event::Event;

use crate::dead_letters::{destination, requeued_record};
use crate::derive::dedup::{Dedup, IDS};
use crate::derive::stores::KeyValue;
use crate::derive::{
    ChannelDelivery, Context, Emission, Flow, Input, OnFailure, Operator, OperatorError, TableDecl,
    TopologyDriver,
};
use crate::fact_pack;
use crate::port::Table;
use crate::record::{Body, Millis};
use crate::topology::Lane;

/// Times that an operator has processed an event, by its id, or a timer.
const DONE: [KeyValue<String, u64>; 2] = [KeyValue::new(61, "one"), KeyValue::new(62, "two")];

const DELAY_MS: i64 = 500;

/// Counts events and sets a timer for each, which counts too. Both emit a fact before they fail.
struct Effects {
    number: u8,
    name: &'static str,
    fixed: &'static AtomicBool,
}

impl Effects {
    fn done(&self) -> &'static KeyValue<String, u64> {
        &DONE[usize::from(self.number - 61)]
    }

    fn act(&self, what: &str, context: &mut Context<'_>) -> Result<(), OperatorError> {
        let count = self.done().get(context, &what.to_owned())?.unwrap_or(0) + 1;
        self.done().put(context, &what.to_owned(), &count);
        let account_id = context.account().to_owned();
        let key = "bob";
        context.fact(&Emission {
            event_type: "conversation.updated",
            account_id: &account_id,
            key,
            timestamp_ms: 5,
            priority: Priority::Normal,
            data: r#"{"conversation_id":"c1"}"#,
        })?;
        if self.fixed.load(Ordering::SeqCst) {
            return Ok(());
        }
        if what.contains("fails") {
            return Err(OperatorError::Failed("not this one".to_owned()));
        }
        assert!(!what.contains("panics"), "not this one");
        Ok(())
    }
}

impl Operator for Effects {
    fn number(&self) -> u8 {
        self.number
    }

    fn name(&self) -> &'static str {
        self.name
    }

    fn tables(&self) -> &'static [TableDecl] {
        const ONE: &[TableDecl] = &[DONE[0].decl()];
        const TWO: &[TableDecl] = &[DONE[1].decl()];
        if self.number == 61 { ONE } else { TWO }
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        let what = event.event_id;
        let timer = what.strip_prefix("timer-").unwrap_or_default();
        context.set_timer(Millis(context.time().0 + DELAY_MS), timer.as_bytes())?;
        self.act(if timer.is_empty() { what } else { "set" }, context)?;
        Ok(Flow::Continue)
    }

    fn on_timer(&self, key: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        let what = format!("at {} of {}", String::from_utf8_lossy(key), context.account());
        self.act(&what, context)
    }
}

/// Fails on every event as a whole.
struct Closed;

impl Operator for Closed {
    fn number(&self) -> u8 {
        63
    }

    fn name(&self) -> &'static str {
        "gate"
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::RollBackEvent
    }

    fn on_event(&self, _: &Input<'_>, _: &mut Context<'_>) -> Result<Flow, OperatorError> {
        Err(OperatorError::Failed("closed".to_owned()))
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

fn count(driver: &mut TopologyDriver, operator: usize, what: &str) -> Option<u8> {
    let key = [what.as_bytes(), &[0, 0]].concat();
    let table = Table(61 + u8::try_from(operator).expect("one of two"));
    driver.get(table, &key).map(|value| value[1])
}

fn outputs(driver: &mut TopologyDriver) -> (usize, Vec<Body>) {
    let topology = driver.topology().clone();
    (driver.read_output(topology.out_stream()).len(), driver.read_output(topology.facts()))
}

#[test]
fn an_operator_that_fails_or_panics_keeps_nothing_and_the_others_go_on() {
    static FIXED: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(true)];
    const ONE: Effects = Effects { number: 61, name: "one", fixed: &FIXED[0] };
    const TWO: Effects = Effects { number: 62, name: "two", fixed: &FIXED[1] };
    for (id, why) in [("e-fails", "one: not this one"), ("e-panics", "it panicked: not this one")] {
        FIXED[0].store(false, Ordering::SeqCst);
        let mut driver = TopologyDriver::new(&[&Dedup, &ONE, &TWO, &ChannelDelivery]);
        driver.pipe_input(&event(id));
        driver.replay().expect("the same again");
        assert_eq!((count(&mut driver, 0, id), count(&mut driver, 1, id)), (None, Some(1)));
        let (delivered, facts) = outputs(&mut driver);
        assert_eq!((delivered, facts.len(), driver.all(IDS).len()), (3, 1, 1));
        assert_eq!(driver.all(Table(0)).len(), 1, "the failed call has set no timer");
        let letter = &driver.read_dead_letters()[0];
        assert_eq!(letter.id(), "t.lane.normal/0/0/one");
        assert!(letter.detail().contains(why), "{}", letter.detail());
        let failure = letter.operator_failure().expect("one operator's");
        assert_eq!((failure.operator, failure.account, failure.emission), ("one", "acc", 1));

        driver.requeue(letter);
        let again = &driver.read_dead_letters()[0];
        assert_eq!(again.id(), "t.lane.facts/0/0/0/one");
        assert_eq!(again.trail(), ["t.lane.normal/0/0/one"]);
        FIXED[0].store(true, Ordering::SeqCst);
        driver.requeue(again);
        assert_eq!((count(&mut driver, 0, id), count(&mut driver, 1, id)), (Some(1), Some(1)));
        let (delivered, facts) = outputs(&mut driver);
        assert_eq!((delivered, facts.len()), (0, 1), "only what was missing");
        assert!(driver.read_dead_letters().is_empty());
        driver.advance_wall_clock_time(DELAY_MS);
        assert_eq!(driver.all(Table(0)), []);
    }
}

#[test]
fn two_operators_that_fail_on_one_event_give_two_dead_letters() {
    static BROKEN: AtomicBool = AtomicBool::new(false);
    const ONE: Effects = Effects { number: 61, name: "one", fixed: &BROKEN };
    const TWO: Effects = Effects { number: 62, name: "two", fixed: &BROKEN };
    let mut driver = TopologyDriver::new(&[&ONE, &TWO, &ChannelDelivery]);
    driver.pipe_input(&event("e-fails"));
    let found = driver.read_dead_letters();
    let ids: Vec<_> = found.iter().map(|letter| letter.id().into_owned()).collect();
    assert_eq!(ids, ["t.lane.normal/0/0/one", "t.lane.normal/0/0/two"]);
    assert_ne!(found[0].identity(), found[1].identity());
    assert_eq!(outputs(&mut driver).0, 3);
    driver.replay().expect("the same again");
}

#[test]
fn an_event_set_aside_as_a_whole_leaves_no_dead_letter_of_an_operator() {
    static BROKEN: AtomicBool = AtomicBool::new(false);
    const ONE: Effects = Effects { number: 61, name: "one", fixed: &BROKEN };
    let mut driver = TopologyDriver::new(&[&Dedup, &ONE, &ChannelDelivery, &Closed]);
    driver.pipe_input(&event("e-fails"));
    driver.pipe_input(&event("e-2"));
    let found = driver.read_dead_letters();
    let ids: Vec<_> = found.iter().map(|letter| letter.id().into_owned()).collect();
    assert_eq!(ids, ["t.lane.normal/0/0", "t.lane.normal/0/1"]);
    assert_eq!(outputs(&mut driver), (0, Vec::new()));
    assert_eq!((driver.all(IDS), driver.all(Table(61))), (Vec::new(), Vec::new()));
    assert_eq!(driver.last_order().expect("two").dead_letters, [0]);
    driver.replay().expect("the same again");
}

#[test]
fn a_failed_timer_returns_as_a_timer_with_its_key_account_and_hops() {
    static FIXED: AtomicBool = AtomicBool::new(false);
    const ONE: Effects = Effects { number: 61, name: "one", fixed: &FIXED };
    let mut driver = TopologyDriver::new(&[&Dedup, &ONE, &ChannelDelivery]);
    driver.pipe_input(&event("timer-fails"));
    let (_, facts) = outputs(&mut driver);
    assert_eq!(facts.len(), 1, "the event itself passes");
    driver.advance_wall_clock_time(DELAY_MS);
    driver.replay().expect("the same again");
    let letter = &driver.read_dead_letters()[0];
    let id = letter.id().into_owned();
    assert!(id.starts_with("t.order/0/1767607200500/one/"), "{id}");
    assert_eq!(letter.source_key(), Some(&b"fails"[..]));
    assert_eq!(letter.operator_failure().expect("one operator's").account, "acc");
    assert_eq!(count(&mut driver, 0, "at fails of acc"), None);

    driver.requeue(letter);
    let again = &driver.read_dead_letters()[0];
    assert_eq!((again.id().as_ref(), again.trail()), ("t.lane.facts/0/0/0/one", vec![id]));
    FIXED.store(true, Ordering::SeqCst);
    driver.requeue(again);
    assert_eq!(count(&mut driver, 0, "at fails of acc"), Some(1));
    let (delivered, facts) = outputs(&mut driver);
    assert_eq!((delivered, facts.len()), (0, 1));
    assert_eq!(facts[0].header("tw-hops"), Some(&[2][..]), "as if it had not failed");
}

#[test]
fn a_requeued_record_keeps_its_hops_and_names_an_operator_that_exists() {
    static FIXED: AtomicBool = AtomicBool::new(false);
    const ONE: Effects = Effects { number: 61, name: "one", fixed: &FIXED };
    let mut driver = TopologyDriver::new(&[&Dedup, &ONE, &ChannelDelivery]);
    let value = event("e-fails").encode();
    let fact = Body::new(Some(b"alice"), Some(&value), &[("tw-hops", &[3])]);
    driver.pipe_fact(Lane::Facts, &fact);
    let letter = &driver.read_dead_letters()[0];
    FIXED.store(true, Ordering::SeqCst);
    driver.requeue(letter);
    assert_eq!(outputs(&mut driver).1[0].header("tw-hops"), Some(&[4][..]));
    for operator in [&b"two"[..], b"dedup"] {
        let headers = [("tw-operator", operator), ("tw-trigger", b"event")];
        driver.pipe_fact(Lane::Facts, &Body::new(Some(b"alice"), Some(&value), &headers));
        let letter = &driver.read_dead_letters()[0];
        assert!(letter.detail().contains("this build has no operator"), "{}", letter.detail());
        assert_eq!(letter.operator_failure(), None);
        let to = destination(driver.topology(), letter).expect("it can be requeued");
        let pack = requeued_record(letter, &to).body.value_bytes().expect("a pack");
        let again = fact_pack::decode(&pack).expect("our own")[0].to_body();
        assert_eq!(again.header("tw-operator"), Some(operator), "another build may have it");
    }
}
