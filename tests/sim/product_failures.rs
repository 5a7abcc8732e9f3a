//! One operator of every deployment fails on one event in a hundred, and is then fixed.
//!
//! Beside it runs the same history without failures. Until the fix nothing else may be missing;
//! after the requeue of its dead letters, while the log fails and processes crash, everything is as
//! if it had never failed: each event delivered once, and the same last value of each entry of a
//! state channel.

use std::sync::atomic::{AtomicBool, Ordering};

use tidewire_engine::dead_letters::{Filter, Resolution, ResolveRequest, list, resolve};
use tidewire_engine::derive::{
    Context, Events, Flow, Input, OnFailure, Operator, OperatorError, Operators, TableDecl, Updates,
};
use tidewire_engine::operators::OPERATORS;
use tidewire_engine::topology::Lane;
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::event::Event;
use tidewire_schemas::fields::Fields;
use tidewire_tests::test_rng::TestRng;

use crate::one_machine::OneMachine;
use crate::products::{Outcome, event, outcome};

/// Histories of each failing operator.
const HISTORIES: u64 = 6;

/// Events in each; one in a hundred is of the type that fails.
const EVENTS: u64 = 300;

/// Turns with faults, before the fix and after it.
const TURNS: u64 = 120;

/// Attempts to requeue while the log fails.
const ATTEMPTS: u64 = 6;

/// Turns without faults after which everything must be done.
const QUIET_TURNS: usize = 1_500;

/// The type that fails, and the kind of the notification of it.
const FAILING: (&str, &str) = ("post.quoted", r#""kind":"quote""#);

/// Operators that get the type, or what follows from it.
const OPERATORS_THAT_FAIL: [&str; 4] = ["engagement", "notify", "notify.resolve", "unread"];

static FIXED: AtomicBool = AtomicBool::new(false);

/// An operator of a deployment that fails on one type.
struct Flawed(&'static dyn Operator);

impl Operator for Flawed {
    fn number(&self) -> u8 {
        self.0.number()
    }

    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn tables(&self) -> &'static [TableDecl] {
        self.0.tables()
    }

    fn events(&self) -> Events {
        self.0.events()
    }

    fn on_failure(&self) -> OnFailure {
        self.0.on_failure()
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        // It has written before it fails, which must be rolled back.
        let flow = self.0.on_event(event, context)?;
        let (event_type, kind) = FAILING;
        let fails = event.event_type == event_type
            || event.event_type == "notification.created" && event.data.contains(kind);
        match fails && !FIXED.load(Ordering::SeqCst) {
            true => Err(OperatorError::Failed("this type fails".to_owned())),
            false => Ok(flow),
        }
    }

    fn updates(&self) -> Option<Updates> {
        self.0.updates()
    }

    fn on_commit(&self, own: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        self.0.on_commit(own, context)
    }

    fn on_timer(&self, key: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        self.0.on_timer(key, context)
    }
}

/// The operators of every deployment, of which this one fails until it is fixed.
fn with_flaw(name: &str) -> Operators {
    let flawed = |inner: &&'static dyn Operator| -> &'static dyn Operator {
        match inner.name() == name {
            true => Box::leak(Box::new(Flawed(*inner))),
            false => *inner,
        }
    };
    Box::leak(OPERATORS.iter().map(flawed).collect())
}

/// An event of the type that fails, about a post of `eve`. Every second one does not name her.
fn failing_event(n: u64) -> Event {
    let author = if n.is_multiple_of(200) { r#","author_id":"eve""# } else { "" };
    let act = r#""post_id":"p1","user_id":"ann","text":"z""#;
    let data = format!(r#"{{{act},"quote_id":"q{n}"{author}}}"#);
    let known = Catalogue::builtin().resolve(FAILING.0).expect("a type");
    let fields = Fields::of(&data).expect("an object");
    Event {
        event_id: format!("e-{n}"),
        event_type: FAILING.0.to_owned(),
        account_id: "a1".to_owned(),
        timestamp_ms: 1_000_000 + n as i64 * 10,
        correlation_id: format!("e-{n}"),
        priority: known.priority_of(&fields),
        key: known.key_of("a1", &fields).expect("it has a key").into_owned(),
        source: None,
        alias: None,
        data,
    }
}

/// Appends the events of a history and processes them.
fn run(machine: &mut OneMachine, seed: u64, turn: impl Fn(&mut OneMachine)) {
    let mut rng = TestRng::new(seed);
    for n in 0..EVENTS {
        let other = event(&mut rng, n);
        let event = if n.is_multiple_of(100) { failing_event(n) } else { other };
        machine.append(Lane::of(event.priority), &event);
        if n % 60 == 59 {
            turn(machine);
        }
    }
    machine.settle(QUIET_TURNS);
}

fn filter(operator: &str) -> Filter {
    Filter { operators: vec![operator.to_owned()], ..Filter::default() }
}

/// Requeues some of the operator's dead letters; whether none is left.
fn requeue(machine: &mut OneMachine, operator: &str) -> bool {
    let request = ResolveRequest {
        filter: filter(operator),
        resolution: Resolution::Requeued,
        because: None,
        limit: Some(2),
    };
    let process = machine.process();
    resolve(&process, &machine.topology, &request).is_ok_and(|done| done.left == 0)
}

/// Asserts that nothing is there that should not be, and what is there is there once.
fn check_is_part(found: &Outcome, whole: &Outcome, at: &str) {
    for (what, times) in &found.delivered {
        assert_eq!((*times, whole.delivered.get(what)), (1, Some(&1)), "{at}: {what:?}");
    }
}

fn check(operator: &str, seed: u64) {
    let at = format!("{operator}, history {seed}");
    let mut calm = OneMachine::new(seed, OPERATORS);
    run(&mut calm, seed, |machine| machine.settle(QUIET_TURNS));
    let expected = outcome(&calm);

    FIXED.store(false, Ordering::SeqCst);
    let mut machine = OneMachine::new(seed, with_flaw(operator));
    run(&mut machine, seed, |machine| machine.turn_with_faults(TURNS / 5));
    let before = outcome(&machine);
    check_is_part(&before, &expected, &at);
    let open = |machine: &OneMachine| {
        let found = list(&machine.log, &machine.topology, &filter(operator)).expect("no faults");
        found.open().entries.len()
    };
    assert!(open(&machine) > 0, "{at}: it has failed");
    let all = list(&machine.log, &machine.topology, &Filter::default()).expect("no faults");
    assert_eq!(all.open().entries.len(), open(&machine), "{at}: no other operator has failed");
    assert_ne!(before, expected, "{at}: something is missing");
    let is_lost = |(id, _): &&(String, String)| {
        !id.starts_with("notification.created") && !before.delivered.keys().any(|(of, _)| of == id)
    };
    assert_eq!(expected.delivered.keys().find(is_lost), None, "{at}: only its own effects are");

    FIXED.store(true, Ordering::SeqCst);
    for _ in 0..ATTEMPTS {
        machine.log.state().faults = true;
        // Whatever the outcome, the next attempt must complete the rest.
        requeue(&mut machine, operator);
        machine.turn_with_faults(TURNS / ATTEMPTS);
    }
    machine.settle(QUIET_TURNS);
    while !requeue(&mut machine, operator) {}
    machine.settle(QUIET_TURNS);
    assert_eq!(open(&machine), 0, "{at}");
    let after = outcome(&machine);
    assert_eq!(after.delivered, expected.delivered, "{at}: exactly the missing effects");
    assert_eq!(after.state, expected.state, "{at}");
}

#[test]
fn an_operator_that_fails_on_one_type_in_a_hundred_lacks_exactly_its_effects_until_the_requeue() {
    for operator in OPERATORS_THAT_FAIL {
        (0..HISTORIES).for_each(|seed| check(operator, seed));
    }
}
