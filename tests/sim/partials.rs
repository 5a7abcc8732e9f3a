//! Totals over several tasks, on a log and stores that fail and in processes that crash.
//!
//! Whatever happens, and although the owner of the totals fails for a while and its dead letters
//! are requeued: in the end each addition was counted once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tidewire_engine::dead_letters::{Filter, Resolution, ResolveRequest, list, resolve};
use tidewire_engine::derive::lane_times::LaneSet;
use tidewire_engine::derive::order::OrderRecord;
use tidewire_engine::derive::stores::{FieldDecoder, KeyValue, StoreKey};
use tidewire_engine::derive::{
    ChannelDelivery, Context, Events, Flow, Input, Operator, OperatorError, Partial, PartialDecl,
    PartialKey, TableDecl, dedup::Dedup,
};
use tidewire_engine::port::Log;
use tidewire_engine::topology::Lane;
use tidewire_schemas::Priority;
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::event::{Event, EventView};
use tidewire_schemas::fields::FieldWriter;
use tidewire_tests::test_rng::TestRng;

use crate::one_machine::OneMachine;

/// Histories in one run.
const HISTORIES: u64 = 40;

/// Events in each.
const EVENTS: u64 = 240;

/// Words that the lines have.
const WORDS: u64 = 12;

/// Turns with faults.
const TURNS: u64 = 160;

/// Attempts to requeue while the log fails.
const ATTEMPTS: u64 = 4;

/// Turns without faults after which everything must be done.
const QUIET_TURNS: usize = 600;

/// Milliseconds of append time that parts wait for others: some turns.
const INTERVAL_MS: i64 = 300;

/// The table of totals.
const TOTALS_NUMBER: u8 = 61;

const CHANNELS: &str = r#"
    [kinds.account]
    id = "account"
    classes = ["stream"]
    who = ["member"]
    carries = "lines"
"#;

const OF_OPERATORS: &str = r#"
    [operators]
    totals = { stage = "derive" }
    adder = { stage = "derive", emits = ["word.counted"] }
"#;

const TYPES: &str = r#"
    title = "Test"
    [defaults]
    priority = 1
    key = ["line"]
    channels = []
    [types."line.written"]
    data = "line, words"
    channels = ["account"]
    moves = ["adder"]
    [types."word.counted"]
    internal = true
    key = ["word"]
    data = "word, count:i"
    moves = ["totals"]
"#;

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
    let files = [("channels", CHANNELS), ("operators", OF_OPERATORS), ("test", TYPES)];
    Catalogue::load(&files).unwrap_or_else(|errors| panic!("{errors}"))
});

struct SimWord(String);

impl StoreKey for SimWord {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }

    fn read(from: &mut FieldDecoder<'_>) -> Option<Self> {
        String::read(from).map(Self)
    }
}

impl PartialKey for SimWord {
    fn put_fields(&self, data: FieldWriter) -> FieldWriter {
        data.text("word", &self.0)
    }
}

const COUNTED: Partial<SimWord, i64> = Partial::new(60, "words", "word.counted", INTERVAL_MS);

const TOTALS: KeyValue<String, i64> = KeyValue::new(TOTALS_NUMBER, "totals");

/// Adds each word of a line.
struct LineAdder;

impl Operator for LineAdder {
    fn number(&self) -> u8 {
        60
    }

    fn name(&self) -> &'static str {
        "adder"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] = &[COUNTED.decl()];
        TABLES
    }

    fn events(&self) -> Events {
        Events::Moved
    }

    fn partials(&self) -> &'static [&'static dyn PartialDecl] {
        &[&COUNTED]
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        let words = event.fields().text("words").expect("a line has words").into_owned();
        for word in words.split_whitespace() {
            COUNTED.add(context, &SimWord(word.to_owned()), 1)?;
        }
        Ok(Flow::Continue)
    }
}

static FIXED: AtomicBool = AtomicBool::new(false);

/// Adds up the parts of a word; fails on one of them until it is fixed.
struct WordTotals;

impl Operator for WordTotals {
    fn number(&self) -> u8 {
        61
    }

    fn name(&self) -> &'static str {
        "totals"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] = &[TOTALS.decl()];
        TABLES
    }

    fn events(&self) -> Events {
        Events::Moved
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        let count = event.fields().integer("count").expect("a part has a count");
        let word = context.key().to_owned();
        let total = TOTALS.get(context, &word)?.unwrap_or(0) + count;
        TOTALS.put(context, &word, &total);
        match word == "w0" && !FIXED.load(Ordering::SeqCst) {
            true => Err(OperatorError::Failed("this word fails".to_owned())),
            false => Ok(Flow::Continue),
        }
    }
}

const OPERATORS: &[&dyn Operator] = &[&Dedup, &LineAdder, &WordTotals, &ChannelDelivery];

/// A line of these words.
fn line(n: u64, words: &str) -> Event {
    let key = format!("l{}", n % 7);
    Event {
        event_id: format!("e-{n}"),
        event_type: "line.written".to_owned(),
        account_id: "acc".to_owned(),
        timestamp_ms: 0,
        correlation_id: format!("e-{n}"),
        priority: Priority::Normal,
        data: format!(r#"{{"line":"{key}","words":"{words}"}}"#),
        key,
        source: None,
        alias: None,
    }
}

/// A history of one machine with several tasks, and what was written in it.
struct CountedHistory {
    machine: OneMachine,
    naive: BTreeMap<String, i64>,
}

impl CountedHistory {
    fn run(seed: u64) -> Self {
        let machine = OneMachine::with_catalogue(seed, OPERATORS, &CATALOGUE);
        let mut history = Self { machine, naive: BTreeMap::new() };
        let mut rng = TestRng::new(seed);
        for n in 0..EVENTS {
            history.write(&mut rng, n);
            if n % 40 == 39 {
                history.machine.turn_with_faults(TURNS * 40 / EVENTS);
            }
        }
        history.machine.settle(QUIET_TURNS);
        history
    }

    /// Appends a line, now and then a second time.
    fn write(&mut self, rng: &mut TestRng, n: u64) {
        let words: Vec<String> =
            (0..rng.below(4)).map(|_| format!("w{}", rng.below(WORDS))).collect();
        words.iter().for_each(|word| *self.naive.entry(word.clone()).or_default() += 1);
        let event = line(n, &words.join(" "));
        let lanes = [Lane::Critical, Lane::High, Lane::Normal, Lane::Low];
        for _ in 0..1 + rng.below(4) / 3 {
            self.machine.append(lanes[rng.index(lanes.len())], &event);
        }
    }

    /// The totals, from the changelog.
    fn totals(&self) -> BTreeMap<String, i64> {
        let mut totals = BTreeMap::new();
        for record in self.machine.records(self.machine.topology.state()) {
            let key = record.body.key().expect("a compacted topic has keys");
            if let (true, Some(value)) = (key[0] == TOTALS_NUMBER, record.body.value()) {
                let word = String::read(&mut FieldDecoder(&key[1..])).expect("a text");
                let total = FieldDecoder(&value[1..]).signed().expect("a count");
                totals.insert(word, total);
            }
        }
        totals
    }

    /// The ids of all parts that were sent.
    fn parts(&self) -> Vec<String> {
        let facts = self.machine.facts(Lane::Facts);
        let sent = facts.iter().filter(|body| body.header("tw-operator").is_none());
        let id = |value: &[u8]| EventView::decode(value).expect("an event").event_id.to_owned();
        sent.map(|body| id(body.value().expect("a value"))).collect()
    }

    fn open_letters(&self) -> usize {
        let log: &dyn Log = &self.machine.log;
        let open = list(log, &self.machine.topology, &Filter::default()).expect("no faults").open();
        open.entries.len()
    }

    fn requeue(&mut self) -> bool {
        let request = ResolveRequest {
            filter: Filter::default(),
            resolution: Resolution::Requeued,
            because: None,
            limit: None,
        };
        let process = self.machine.process();
        resolve(&process, &self.machine.topology, &request).is_ok_and(|done| done.left == 0)
    }
}

#[test]
fn totals_over_several_tasks_are_exact_although_processes_crash_and_the_owner_fails() {
    for seed in 0..HISTORIES {
        FIXED.store(false, Ordering::SeqCst);
        let mut history = CountedHistory::run(seed);
        let mut wanted = history.naive.clone();
        let failing = wanted.remove("w0").unwrap_or(0);
        assert_eq!(history.totals(), wanted, "history {seed}");
        let parts = history.parts();
        let distinct: BTreeSet<&String> = parts.iter().collect();
        assert_eq!(distinct.len(), parts.len(), "history {seed}: an id came twice");
        assert!(parts.len() > 12, "history {seed}: {} parts", parts.len());
        assert!(failing == 0 || history.open_letters() > 0, "history {seed}");

        FIXED.store(true, Ordering::SeqCst);
        for _ in 0..ATTEMPTS {
            history.machine.log.state().faults = true;
            // Whatever the outcome, the next attempt must complete the rest.
            history.requeue();
            history.machine.turn_with_faults(TURNS / 8);
        }
        history.machine.settle(QUIET_TURNS);
        while !history.requeue() {}
        history.machine.settle(QUIET_TURNS);
        assert_eq!(history.open_letters(), 0, "history {seed}");
        assert_eq!(history.totals(), history.naive, "history {seed}: exactly the missing effects");
    }
}

#[test]
fn what_a_tick_leaves_is_sent_in_the_next_transaction_without_another_request() {
    let mut machine = OneMachine::with_catalogue(1, OPERATORS, &CATALOGUE);
    let words: Vec<String> = (0..2_500).map(|n| format!("x{n}")).collect();
    machine.append(Lane::Normal, &line(1, &words.join(" ")));
    machine.settle(QUIET_TURNS);
    let orders = machine.records(machine.topology.order());
    let decode = |value: &[u8]| OrderRecord::decode(value).expect("its own bytes");
    let orders = orders.iter().map(|record| decode(record.body.value().expect("a value")));
    let sending: Vec<OrderRecord> = orders.filter(|order| order.outputs >= 500).collect();
    let outputs: Vec<u32> = sending.iter().map(|order| order.outputs).collect();
    assert_eq!(outputs, [1_001, 1_001, 501], "parts, and a record of the audit");
    let is_requested = |order: &OrderRecord| order.ticks[0].ended != LaneSet::default();
    assert!(is_requested(&sending[0]));
    // The answer to another request may have come with the third.
    assert!(!is_requested(&sending[1]), "it follows without a request");
}
