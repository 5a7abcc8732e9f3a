//! Tests of partials through the test driver: what is sent when, and that totals are exact.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use tidewire_schemas::Priority;
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::event::{Event, EventView};

use super::*;
use crate::dead_letters::{DeadLetter, destination, requeued_record};
use crate::derive::audit::layout::{AuditCause, AuditPart};
use crate::derive::dedup::Dedup;
use crate::derive::stores::KeyValue;
use crate::derive::timers::FLUSHES;
use crate::derive::{Events, Flow, Input, Operator, START, TopologyDriver};
use crate::record::{Body, Offset, Partition, Record};
use crate::topology::Lane;

const INTERVAL_MS: i64 = 1_000;

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

/// How often a word was written.
struct Word(String);

impl StoreKey for Word {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }

    fn read(from: &mut FieldDecoder<'_>) -> Option<Self> {
        String::read(from).map(Self)
    }
}

static BROKEN_FIELDS: AtomicBool = AtomicBool::new(false);

/// A part of this word can't be sent while [`BROKEN_FIELDS`] is set.
const UNSENDABLE: &str = "unsendable";

impl PartialKey for Word {
    fn put_fields(&self, data: FieldWriter) -> FieldWriter {
        let is_broken = self.0 == UNSENDABLE && BROKEN_FIELDS.load(Ordering::SeqCst);
        assert!(!is_broken, "broken fields");
        data.text("word", &self.0)
    }
}

const WORDS: Partial<Word, i64> = Partial::new(60, "words", "word.counted", INTERVAL_MS);

/// Adds each word of a line.
struct Adder;

impl Operator for Adder {
    fn number(&self) -> u8 {
        60
    }

    fn name(&self) -> &'static str {
        "adder"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] = &[WORDS.decl()];
        TABLES
    }

    fn events(&self) -> Events {
        Events::Moved
    }

    fn partials(&self) -> &'static [&'static dyn PartialDecl] {
        &[&WORDS]
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        let words = event.fields().text("words").expect("a test writes words").into_owned();
        for word in words.split_whitespace() {
            WORDS.add(context, &Word(word.to_owned()), 1)?;
        }
        match words.contains("fails") {
            true => Err(OperatorError::Failed("this line fails".to_owned())),
            false => Ok(Flow::Continue),
        }
    }
}

/// The totals of words, by account and word.
const TOTALS: KeyValue<(String, String), i64> = KeyValue::new(61, "totals");

/// Adds up the parts of a word.
struct Totals {
    broken: &'static AtomicBool,
}

impl Operator for Totals {
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
        let key = (context.account().to_owned(), context.key().to_owned());
        let total = TOTALS.get(context, &key)?.unwrap_or(0) + count;
        TOTALS.put(context, &key, &total);
        match self.broken.load(Ordering::SeqCst) {
            true => Err(OperatorError::Failed("broken".to_owned())),
            false => Ok(Flow::Continue),
        }
    }
}

static SOUND: AtomicBool = AtomicBool::new(false);

const OPERATORS: &[&dyn Operator] = &[&Dedup, &Adder, &Totals { broken: &SOUND }];

fn driver() -> TopologyDriver {
    TopologyDriver::with_catalogue(OPERATORS, &CATALOGUE)
}

fn line(id: &str, words: &str) -> Event {
    Event {
        event_id: id.to_owned(),
        event_type: "line.written".to_owned(),
        account_id: "acc".to_owned(),
        timestamp_ms: 5,
        correlation_id: "thread-1".to_owned(),
        priority: Priority::Normal,
        key: "l1".to_owned(),
        source: None,
        alias: None,
        data: format!(r#"{{"line":"l1","words":"{words}"}}"#),
    }
}

/// Parts that were sent and wait for their owner.
fn sent(driver: &mut TopologyDriver) -> Vec<Body> {
    let topic = driver.topology().facts().clone();
    driver.read_output(&topic)
}

fn described(parts: &[Body]) -> Vec<String> {
    let read = |body: &Body| {
        let event = EventView::decode(body.value().expect("an event")).expect("an event");
        format!("{} {}", event.key, event.data)
    };
    parts.iter().map(read).collect()
}

/// The owners' totals by account and word, as stored.
fn totals(driver: &mut TopologyDriver) -> BTreeMap<String, i64> {
    let read = |(key, value): (bytes::Bytes, bytes::Bytes)| {
        let mut from = FieldDecoder(&key);
        let account = String::read(&mut from).expect("a text");
        let word = String::read(&mut from).expect("a text");
        let total = read_value(Table(61), &value).expect("a count");
        (format!("{account} {word}"), total)
    };
    driver.all(Table(61)).into_iter().map(read).collect()
}

fn counted(of: &[(&str, i64)]) -> BTreeMap<String, i64> {
    of.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect()
}

/// The parts that the task keeps, the head left out.
fn kept(driver: &mut TopologyDriver) -> usize {
    driver.all(Table(60)).iter().filter(|(key, _)| &key[..] != HEAD).count()
}

#[test]
fn what_is_added_within_an_interval_is_sent_once_to_the_owner_of_each_key() {
    let mut driver = driver();
    driver.pipe_input(&line("e-1", "sea wind sea"));
    driver.pipe_input(&line("e-2", "sea"));
    driver.pipe_input(&line("e-2", "sea"));
    driver.advance_wall_clock_time(INTERVAL_MS - 1);
    assert_eq!(sent(&mut driver), [], "within the interval, and one is a copy");
    driver.advance_wall_clock_time(1);
    let parts = sent(&mut driver);
    let wanted = [r#"sea {"word":"sea","count":3}"#, r#"wind {"word":"wind","count":1}"#];
    assert_eq!(described(&parts), wanted);
    assert_eq!(parts[0].header("tw-hops"), Some(&[1][..]), "a part costs a hop");
    assert_eq!(parts[0].header("tw-time"), Some(&START.0.to_be_bytes()[..]), "of its causes");
    assert_eq!(
        (kept(&mut driver), driver.all(FLUSHES.spec.table).len()),
        (0, 0),
        "nothing is left"
    );
    parts.into_iter().for_each(|part| driver.pipe_fact(Lane::Facts, &part));
    driver.advance_wall_clock_time(10 * INTERVAL_MS);
    assert_eq!(sent(&mut driver), [], "nothing was added");
    assert_eq!(totals(&mut driver), counted(&[("acc sea", 3), ("acc wind", 1)]));
    driver.replay().expect("the same again");
}

#[test]
fn the_audit_links_what_is_added_to_the_part_that_is_sent() {
    let mut driver = driver();
    let topic = driver.topology().out_audit().clone();
    let links = |driver: &mut TopologyDriver| {
        let (mut added, mut sent) = (Vec::new(), Vec::new());
        for body in driver.read_output(&topic) {
            let part = AuditPart::decode(body.value().expect("a value")).expect("its own encoding");
            for entry in part.entries {
                if let AuditCause::Update(of) = entry.cause {
                    assert_eq!((of.operator, of.account, of.entity), (60, "acc", ""));
                    assert!(entry.items.contains(&AuditItem::ToKey(Lane::Facts)));
                    sent.push(of.link);
                }
                added.extend(entry.items.iter().filter_map(|item| match item {
                    AuditItem::Marked(link) => Some(*link),
                    _ => None,
                }));
            }
        }
        (added, sent)
    };
    driver.pipe_input(&line("e-1", "sea wind"));
    driver.pipe_input(&line("e-2", "sea"));
    let (added, sent) = links(&mut driver);
    assert!(added.len() == 3 && added[0] != added[1] && added[0] == added[2], "{added:?}");
    assert!(sent.is_empty());
    driver.advance_wall_clock_time(INTERVAL_MS);
    assert_eq!(links(&mut driver), (vec![], added[..2].to_vec()));
    driver.pipe_input(&line("e-3", "sea"));
    let (later, _) = links(&mut driver);
    assert_ne!(later[0], added[0], "it is another part");
    driver.replay().expect("the same again");
}

#[test]
fn equal_keys_of_two_accounts_are_two_totals_and_no_two_parts_have_one_id() {
    let mut driver = driver();
    let mut ids = std::collections::BTreeSet::new();
    for n in 0..3 {
        driver.pipe_input(&line(&format!("e-{n}"), "sea"));
        driver.pipe_input(&Event { account_id: "other".into(), ..line(&format!("f-{n}"), "sea") });
        driver.advance_wall_clock_time(INTERVAL_MS);
        for part in sent(&mut driver) {
            let event = EventView::decode(part.value().expect("an event")).expect("an event");
            ids.insert(event.event_id.to_owned());
            driver.pipe_fact(Lane::Facts, &part);
        }
    }
    assert_eq!(ids.len(), 6);
    assert_eq!(totals(&mut driver), counted(&[("acc sea", 3), ("other sea", 3)]));
    driver.replay().expect("the same again");
}

#[test]
fn a_lane_with_a_backlog_holds_up_no_total_and_what_it_adds_comes_later() {
    let mut driver = driver();
    driver.begin_backlog(Lane::Low);
    driver.pipe_input(&line("e-1", "sea"));
    driver.advance_wall_clock_time(INTERVAL_MS);
    assert_eq!(described(&sent(&mut driver)), [r#"sea {"word":"sea","count":1}"#]);
    driver.pipe_late(Lane::Low, &line("e-2", "sea"), Millis(START.0 - 60_000));
    driver.end_backlog(Lane::Low);
    driver.advance_wall_clock_time(INTERVAL_MS);
    let parts = sent(&mut driver);
    assert_eq!(described(&parts), [r#"sea {"word":"sea","count":1}"#]);
    let time = (START.0 - 60_000).to_be_bytes();
    assert_eq!(parts[0].header("tw-time"), Some(&time[..]), "it is of then");
    driver.replay().expect("the same again");
}

#[test]
fn a_call_that_fails_adds_nothing() {
    let mut driver = driver();
    driver.pipe_input(&line("e-1", "sea fails"));
    driver.pipe_input(&line("e-2", "sea"));
    driver.advance_wall_clock_time(INTERVAL_MS);
    assert_eq!(described(&sent(&mut driver)), [r#"sea {"word":"sea","count":1}"#]);
    driver.replay().expect("the same again");
}

/// Lines of 500 new words each.
fn many_words(line_number: usize) -> Event {
    let words: Vec<String> = (0..500).map(|n| format!("w{line_number}-{n}")).collect();
    line(&format!("m-{line_number}"), &words.join(" "))
}

#[test]
fn a_flush_sends_some_parts_per_tick_until_none_is_left() {
    let mut driver = driver();
    (0..5).for_each(|n| driver.pipe_input(&many_words(n)));
    assert_eq!(kept(&mut driver), 2_500);
    driver.advance_wall_clock_time(INTERVAL_MS - 1);
    driver.tick();
    assert_eq!(kept(&mut driver), 2_500, "the interval has not ended");
    driver.advance_wall_clock_time(1);
    assert_eq!((kept(&mut driver), sent(&mut driver).len()), (0, 2_500));
    let flushes = driver.last_order().expect("a tick");
    let parts = "500 parts and their audit, after two of 1,000 each";
    assert_eq!((flushes.outputs, flushes.ticks.len()), (501, 1), "{parts}");
    driver.replay().expect("the same again");
}

#[test]
fn what_is_added_while_a_flush_goes_on_is_sent_after_it() {
    let mut driver = driver();
    (0..3).for_each(|n| driver.pipe_input(&many_words(n)));
    let later = Millis(START.0 + INTERVAL_MS);
    driver.pipe_late(Lane::Normal, &line("e-1", ""), later);
    driver.tick();
    assert_eq!((kept(&mut driver), sent(&mut driver).len()), (500, 1_000));
    driver.pipe_input(&many_words(0));
    driver.pipe_input(&Event { event_id: "m".into(), ..many_words(0) });
    driver.tick();
    let parts = described(&sent(&mut driver));
    assert_eq!((kept(&mut driver), parts.len()), (500, 500));
    assert!(parts[0].contains("w2-") && parts[0].contains(":1}"), "{}", parts[0]);
    driver.advance_wall_clock_time(2 * INTERVAL_MS);
    let parts = described(&sent(&mut driver));
    assert_eq!((kept(&mut driver), parts.len()), (0, 500));
    assert!(parts[0].contains("w0-") && parts[0].contains(":1}"), "{}", parts[0]);
    driver.replay().expect("the same again");
}

#[test]
fn a_task_keeps_at_most_ten_thousand_parts_and_loses_none() {
    let mut driver = driver();
    let (mut early, mut most) = (0, 0);
    for n in 0..40 {
        driver.pipe_input(&many_words(n));
        most = most.max(kept(&mut driver));
        early += sent(&mut driver).len();
    }
    assert!(most < PARTIAL_KEYS_MAX as usize && early >= 10_000, "{most} kept, {early} sent");
    assert_eq!(early + kept(&mut driver), 40 * 500);
    driver.advance_wall_clock_time(INTERVAL_MS);
    assert!(kept(&mut driver) <= 2_000, "all but what was added since the last flush");
    driver.advance_wall_clock_time(INTERVAL_MS);
    assert_eq!((early + sent(&mut driver).len(), kept(&mut driver)), (40 * 500, 0));
    assert_eq!(driver.all(FLUSHES.spec.table), [], "no timer is left");
    driver.replay().expect("the same again");
}

#[test]
fn an_event_that_adds_to_more_keys_than_a_task_keeps_is_a_dead_letter() {
    let mut driver = driver();
    let words: Vec<String> = (0..10_001).map(|n| format!("w{n}")).collect();
    driver.pipe_input(&line("e-1", &words.join(" ")));
    let topic = driver.topology().dead_letters().clone();
    let letter = driver.read_output(&topic).remove(0);
    let detail = String::from_utf8_lossy(letter.header("detail").expect("its detail")).into_owned();
    assert!(detail.contains("10000 keys, which is the limit"), "{detail}");
    assert_eq!(kept(&mut driver), 0, "the call was rolled back");
    driver.replay().expect("the same again");
}

/// The dead letter that was written since the last call.
fn letter(driver: &mut TopologyDriver) -> DeadLetter {
    let topic = driver.topology().dead_letters().clone();
    let body = driver.read_output(&topic).remove(0);
    DeadLetter::of(Partition(0), Record { offset: Offset(0), timestamp: Millis(9), body })
}

fn requeue(driver: &mut TopologyDriver, letter: &DeadLetter) {
    let to = destination(driver.topology(), letter).expect("it can be requeued");
    driver.pipe_body(Lane::Facts, requeued_record(letter, &to).body);
}

#[test]
fn a_part_on_which_its_owner_fails_is_added_once_when_it_is_requeued() {
    static BROKEN: AtomicBool = AtomicBool::new(true);
    const FAILING: &[&dyn Operator] = &[&Adder, &Totals { broken: &BROKEN }];
    let mut driver = TopologyDriver::with_catalogue(FAILING, &CATALOGUE);
    driver.pipe_input(&line("e-1", "sea sea"));
    driver.advance_wall_clock_time(INTERVAL_MS);
    driver.pipe_facts();
    assert_eq!(totals(&mut driver), BTreeMap::new());
    let failed = letter(&mut driver);
    let failure = failed.operator_failure().expect("one operator's");
    assert_eq!((failure.operator, failure.trigger.as_str()), ("totals", "event"));
    BROKEN.store(false, Ordering::SeqCst);
    driver.pipe_input(&line("e-2", "sea"));
    driver.advance_wall_clock_time(INTERVAL_MS);
    driver.pipe_facts();
    requeue(&mut driver, &failed);
    assert_eq!(totals(&mut driver), counted(&[("acc sea", 3)]));
}

#[test]
fn a_part_that_can_t_be_sent_is_requeued_alone_and_counts_once() {
    BROKEN_FIELDS.store(true, Ordering::SeqCst);
    let mut driver = driver();
    driver.pipe_input(&line("e-1", &format!("sea {UNSENDABLE} {UNSENDABLE}")));
    driver.advance_wall_clock_time(INTERVAL_MS);
    assert_eq!(driver.pipe_facts(), 1, "the other part goes on");
    assert_eq!(kept(&mut driver), 0);
    let failed = letter(&mut driver);
    let failure = failed.operator_failure().expect("one operator's");
    assert_eq!((failure.operator, failure.trigger.as_str()), ("adder", "part"));
    assert!(failed.detail().contains("part of adder: it panicked: broken fields"));
    requeue(&mut driver, &failed);
    let again = letter(&mut driver);
    assert_ne!(failed.id(), again.id());
    BROKEN_FIELDS.store(false, Ordering::SeqCst);
    requeue(&mut driver, &again);
    driver.pipe_facts();
    assert_eq!(totals(&mut driver), counted(&[("acc sea", 1), ("acc unsendable", 2)]));
}

#[test]
fn parts_of_another_build_wait_for_it() {
    let mut before = driver();
    before.pipe_input(&line("e-1", "sea"));
    let mut other = TopologyDriver::with_catalogue(&[&Dedup], &CATALOGUE);
    let (timer, value) = before.all(FLUSHES.spec.table).remove(0);
    other.put(FLUSHES.spec.table, &timer, &value);
    other.advance_wall_clock_time(INTERVAL_MS);
    let (moved, _) = other.all(FLUSHES.spec.table).remove(0);
    assert!(moved > timer && moved[8..] == timer[8..], "{moved:?}");
    let topic = other.topology().dead_letters().clone();
    assert_eq!(other.read_output(&topic), []);
}

fn value() -> impl Strategy<Value = i64> {
    prop_oneof![any::<i64>(), -3..3i64, Just(i64::MAX), Just(i64::MIN)]
}

proptest! {
    #[test]
    fn sums_merge_in_any_order_and_grouping(a in value(), b in value(), c in value()) {
        prop_assert_eq!(a.merge(b), b.merge(a));
        prop_assert_eq!(a.merge(b).merge(c), a.merge(b.merge(c)));
        prop_assert_eq!(a.merge(0), a);
    }

    /// Whatever the lanes, the times and the pauses: in the end the owners have exactly what the
    /// lines say, each line once.
    #[test]
    fn totals_are_those_of_a_naive_count(
        steps in proptest::collection::vec(
            (0..4usize, 0..12usize, 0..3_000i64, proptest::collection::vec(0..4usize, 0..5)),
            1..40,
        ),
    ) {
        let mut driver = driver();
        let mut naive: BTreeMap<String, i64> = BTreeMap::new();
        let mut seen = std::collections::BTreeSet::new();
        for (lane, id, wait, words) in &steps {
            driver.advance_wall_clock_time(*wait);
            let said: Vec<String> = words.iter().map(|word| format!("w{word}")).collect();
            let event = line(&format!("e-{id}"), &said.join(" "));
            let lane = [Lane::Critical, Lane::High, Lane::Normal, Lane::Low][*lane];
            driver.pipe_late(lane, &event, Millis(driver.now().0 - wait));
            if seen.insert(*id) {
                said.iter().for_each(|word| *naive.entry(format!("acc {word}")).or_default() += 1);
            }
            if wait % 2 == 0 {
                driver.pipe_facts();
            }
        }
        driver.advance_wall_clock_time(INTERVAL_MS);
        driver.pipe_facts();
        prop_assert_eq!(totals(&mut driver), naive);
        prop_assert_eq!(driver.replay(), Ok(()));
    }
}
