//! One operator fails on one type in a hundred and is then fixed; nothing is lost or delayed.
//!
//! Until the fix, delivery and the other operators go on. Then its dead letters are requeued while
//! the log fails and processes crash, and exactly the missing effects come, each once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use tidewire_engine::dead_letters::{Filter, Resolution, ResolveRequest, list, resolve};
use tidewire_engine::derive::{
    Changelog, ChannelDelivery, Context, Emission, Flow, Input, Operator, OperatorError, TableDecl,
    dedup::Dedup,
};
use tidewire_engine::port::{Log, Table, TableExpiry, TableSpec};
use tidewire_engine::record::Millis;
use tidewire_engine::topology::Lane;
use tidewire_engine::value_level::ValueLevel;
use tidewire_schemas::Priority;
use tidewire_schemas::event::{Event, EventView};

use crate::one_machine::OneMachine;

/// Histories in one run.
const HISTORIES: u64 = 40;

/// Events in each; every hundredth is of a type that fails, another hundredth sets a timer that
/// fails.
const EVENTS: usize = 400;

/// Turns with faults, before the fix and after it.
const TURNS: u64 = 120;

/// Attempts to requeue while the log fails.
const ATTEMPTS: u64 = 8;

/// Turns without faults after which everything must be done.
const QUIET_TURNS: usize = 400;

/// Times that the failing operator has processed an event or its timer, by event id.
const DONE: Table = Table(50);

/// The same of the operator beside it.
const BESIDE: Table = Table(51);

/// The type that fails, and the one whose timer fails.
const FAILING: [&str; 2] = ["post.deleted", "post.updated"];

static FIXED: AtomicBool = AtomicBool::new(false);

fn add_one(context: &mut Context<'_>, table: Table, id: &[u8]) -> Result<(), OperatorError> {
    let count = context.get(table, id)?.map_or(0, |value| value[0]) + 1;
    context.put(table, id, &[count]);
    Ok(())
}

const fn table(table: Table, name: &'static str) -> TableDecl {
    TableDecl {
        spec: TableSpec { table, name, expiry: TableExpiry::Never },
        changelog: Changelog::State,
        window_ms: 0,
        level: ValueLevel::FIRST,
    }
}

/// Counts and emits, and fails on one type and on the timers of another until it is fixed.
struct Failing;

impl Failing {
    fn act(&self, id: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        add_one(context, DONE, id)?;
        let (account_id, key) = (context.account().to_owned(), context.key().to_owned());
        context.emit(&Emission {
            event_type: "conversation.updated",
            account_id: &account_id,
            key: &key,
            timestamp_ms: 5,
            priority: Priority::Normal,
            data: &format!(r#"{{"conversation_id":"c1","of":"{}"}}"#, String::from_utf8_lossy(id)),
        })
    }
}

impl Operator for Failing {
    fn number(&self) -> u8 {
        50
    }

    fn name(&self) -> &'static str {
        "failing"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] = &[table(DONE, "done")];
        TABLES
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        if event.event_type == FAILING[1] {
            context.set_timer(Millis(context.time().0 + 100), event.event_id.as_bytes())?;
            return Ok(Flow::Continue);
        }
        self.act(event.event_id.as_bytes(), context)?;
        match event.event_type == FAILING[0] && !FIXED.load(Ordering::SeqCst) {
            true => Err(OperatorError::Failed("this type fails".to_owned())),
            false => Ok(Flow::Continue),
        }
    }

    fn on_timer(&self, key: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        self.act(key, context)?;
        match FIXED.load(Ordering::SeqCst) {
            true => Ok(()),
            false => Err(OperatorError::Failed("this timer fails".to_owned())),
        }
    }
}

/// Counts what it gets.
struct Beside;

impl Operator for Beside {
    fn number(&self) -> u8 {
        51
    }

    fn name(&self) -> &'static str {
        "beside"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] = &[table(BESIDE, "beside")];
        TABLES
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        add_one(context, BESIDE, event.event_id.as_bytes())?;
        Ok(Flow::Continue)
    }
}

const OPERATORS: &[&dyn Operator] = &[&Dedup, &Failing, &Beside, &ChannelDelivery];

/// A history of one machine.
struct FailingHistory(OneMachine);

fn id(n: usize) -> String {
    format!("e-{n}")
}

fn event_type(n: usize) -> &'static str {
    match n % 100 {
        7 => FAILING[0],
        57 => FAILING[1],
        _ => "post.created",
    }
}

fn event(n: usize) -> Event {
    let key = format!("k{}", n % 7);
    Event {
        event_id: id(n),
        event_type: event_type(n).to_owned(),
        account_id: "acc".to_owned(),
        timestamp_ms: 0,
        correlation_id: id(n),
        priority: Priority::Normal,
        data: format!(r#"{{"post_id":"p{n}","author_id":"{key}","user_id":"u","text":"hello"}}"#),
        key,
        source: None,
        alias: None,
    }
}

impl FailingHistory {
    fn new(seed: u64) -> Self {
        let machine = OneMachine::new(seed, OPERATORS);
        (0..EVENTS).for_each(|n| machine.append(Lane::Normal, &event(n)));
        Self(machine)
    }

    /// The counts of a table, from its changelog.
    fn counts(&self, table: Table) -> BTreeMap<String, u8> {
        let mut counts = BTreeMap::new();
        for record in self.0.records(self.0.topology.state()) {
            let key = record.body.key().expect("a compacted topic has keys");
            if let (true, Some(value)) = (key[0] == table.0, record.body.value()) {
                counts.insert(String::from_utf8_lossy(&key[1..]).into_owned(), value[0]);
            }
        }
        counts
    }

    /// How often each event was delivered to each channel, by event id or by what an emitted event
    /// is of.
    fn delivered(&self) -> BTreeMap<(String, String), usize> {
        let mut delivered = BTreeMap::new();
        for record in self.0.records(self.0.topology.out_stream()) {
            let event = EventView::decode(record.body.value().expect("a value")).expect("an event");
            let of = event
                .data
                .split_once(r#""of":""#)
                .map(|(_, rest)| rest.trim_end_matches(['"', '}']));
            let id = of.map_or(event.event_id.to_owned(), |of| format!("emitted {of}"));
            let channel = String::from_utf8_lossy(record.body.key().expect("a key")).into_owned();
            *delivered.entry((id, channel)).or_default() += 1;
        }
        delivered
    }

    fn open_letters(&self) -> usize {
        let filter = Filter { operators: vec!["failing".to_owned()], ..Filter::default() };
        let log: &dyn Log = &self.0.log;
        let open = list(log, &self.0.topology, &filter).expect("no faults").open();
        open.entries.len()
    }

    fn requeue(&mut self) -> bool {
        let request = ResolveRequest {
            filter: Filter { operators: vec!["failing".to_owned()], ..Filter::default() },
            resolution: Resolution::Requeued,
            because: None,
            limit: Some(3),
        };
        let process = self.0.process();
        resolve(&process, &self.0.topology, &request).is_ok_and(|done| done.left == 0)
    }
}

/// Each of these events, counted once.
fn once(events: impl Iterator<Item = usize>) -> BTreeMap<String, u8> {
    events.map(|n| (id(n), 1)).collect()
}

#[test]
fn one_failing_operator_delays_nothing_and_its_effects_come_once_when_it_is_fixed() {
    for seed in 0..HISTORIES {
        FIXED.store(false, Ordering::SeqCst);
        let mut history = FailingHistory::new(seed);
        history.0.turn_with_faults(TURNS);
        history.0.settle(QUIET_TURNS);
        let passing = || (0..EVENTS).filter(|n| event_type(*n) == "post.created");
        assert_eq!(history.counts(BESIDE), once(0..EVENTS), "history {seed}");
        assert_eq!(history.counts(DONE), once(passing()), "history {seed}");
        let before = history.delivered();
        for n in 0..EVENTS {
            assert!(before.keys().any(|(event, _)| *event == id(n)), "history {seed}: {n}");
        }
        assert!(before.values().all(|times| *times == 1), "history {seed}: {before:?}");
        assert_eq!(history.open_letters(), EVENTS / 50, "history {seed}");

        FIXED.store(true, Ordering::SeqCst);
        for _ in 0..ATTEMPTS {
            history.0.log.state().faults = true;
            // Whatever the outcome, the next attempt must complete the rest.
            history.requeue();
            history.0.turn_with_faults(TURNS / ATTEMPTS);
        }
        history.0.settle(QUIET_TURNS);
        while !history.requeue() {}
        history.0.settle(QUIET_TURNS);
        assert_eq!(history.open_letters(), 0, "history {seed}");
        assert_eq!(history.counts(BESIDE), once(0..EVENTS), "history {seed}");
        assert_eq!(history.counts(DONE), once(0..EVENTS), "history {seed}");
        let mut after = history.delivered();
        assert!(after.values().all(|times| *times == 1), "history {seed}: {after:?}");
        after.retain(|event, _| !before.contains_key(event));
        let new: BTreeSet<_> = after.keys().map(|(event, _)| event.clone()).collect();
        let failing = (0..EVENTS).filter(|n| event_type(*n) != "post.created");
        let wanted: BTreeSet<_> = failing.map(|n| format!("emitted {}", id(n))).collect();
        assert_eq!(new, wanted, "history {seed}: exactly the missing effects");
    }
}
