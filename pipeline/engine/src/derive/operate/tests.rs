//! Tests of routing through the test driver: own keys, copies for other keys, emissions, amending.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tidewire_schemas::Priority;
use tidewire_schemas::event::{Event, EventView};
use tidewire_schemas::fields::{FieldWriter, Fields};

use crate::dead_letters::DeadLetter;
use crate::dead_letters::operator_failure::{
    FailedCause, OperatorFailure, TriggerKind, operator_dead_letter,
};
use crate::dead_letters::record::Diagnosis;
use crate::derive::audit::layout::{AuditItem, AuditPart};
use crate::derive::dedup::{Dedup, IDS};
use crate::derive::effect_limits::{CAUSE_MAX_BYTES, URGENT_FACTS_MAX};
use crate::derive::forward::fact;
use crate::derive::stores::KeyValue;
use crate::derive::trigger::Inherited;
use crate::derive::{
    ChannelDelivery, Context, Events, Flow, Input, Operator, OperatorError, TableDecl,
    TopologyDriver,
};
use crate::fact_pack::{FactPackBuilder, PackedFact, entries_in};
use crate::port::Table;
use crate::record::{Body, Millis, Offset, Partition, Record};
use crate::topology::Lane;

/// How often an operator ran, by account, key and event type.
const RUNS: [KeyValue<(String, String, String), u64>; 4] = [
    KeyValue::new(60, "posts"),
    KeyValue::new(61, "engagement"),
    KeyValue::new(62, "notify"),
    KeyValue::new(63, "unread"),
];

/// An operator of the catalogue's name that counts its runs. `notify` emits a notification for its
/// key, and `unread` sets the title of one, or fails.
struct CountedRuns {
    index: u8,
    name: &'static str,
    broken: &'static AtomicBool,
}

impl Operator for CountedRuns {
    fn number(&self) -> u8 {
        60 + self.index
    }

    fn name(&self) -> &'static str {
        self.name
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: [&[TableDecl]; 4] =
            [&[RUNS[0].decl()], &[RUNS[1].decl()], &[RUNS[2].decl()], &[RUNS[3].decl()]];
        TABLES[usize::from(self.index)]
    }

    fn events(&self) -> Events {
        Events::Moved
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        let runs = &RUNS[usize::from(self.index)];
        let (account, key) = (context.account().to_owned(), context.key().to_owned());
        let row = (account, key.clone(), event.event_type.to_owned());
        let count = runs.get(context, &row)?.unwrap_or(0) + 1;
        runs.put(context, &row, &count);
        match self.name {
            "notify" => {
                let data = FieldWriter::default()
                    .text("notification_id", event.event_id)
                    .text("user_id", &key)
                    .text("kind", "like")
                    .end();
                context.emit_event("notification.created", event.timestamp_ms, &data)?;
            }
            "unread" if self.broken.load(Ordering::SeqCst) => {
                return Err(OperatorError::Failed("broken".to_owned()));
            }
            "unread" => context.amend("title", &format!("\"number {count}\"")),
            _ => {}
        }
        Ok(Flow::Continue)
    }
}

static SOUND: AtomicBool = AtomicBool::new(false);

const POSTS: CountedRuns = CountedRuns { index: 0, name: "posts", broken: &SOUND };
const ENGAGEMENT: CountedRuns = CountedRuns { index: 1, name: "engagement", broken: &SOUND };
const NOTIFY: CountedRuns = CountedRuns { index: 2, name: "notify", broken: &SOUND };
const UNREAD: CountedRuns = CountedRuns { index: 3, name: "unread", broken: &SOUND };

const ALL: &[&dyn Operator] = &[&Dedup, &POSTS, &ENGAGEMENT, &NOTIFY, &UNREAD, &ChannelDelivery];

fn event(id: &str, event_type: &str, key: &str, data: &str) -> Event {
    Event {
        event_id: id.to_owned(),
        event_type: event_type.to_owned(),
        account_id: "acc".to_owned(),
        timestamp_ms: 5,
        correlation_id: id.to_owned(),
        priority: Priority::Normal,
        key: key.to_owned(),
        source: None,
        alias: None,
        data: data.to_owned(),
    }
}

fn like(id: &str) -> Event {
    event(id, "post.liked", "p1", r#"{"post_id":"p1","user_id":"eve","author_id":"ann"}"#)
}

/// How often an operator ran for a key and type.
fn runs(driver: &mut TopologyDriver, operator: u8, key: &str, event_type: &str) -> u8 {
    let row = [b"acc\0\0", key.as_bytes(), b"\0\0", event_type.as_bytes(), b"\0\0"].concat();
    driver.get(Table(60 + operator), &row).map_or(0, |value| value[1])
}

/// Type, key and title of each event of a stream channel.
fn delivered(driver: &mut TopologyDriver) -> Vec<String> {
    let topic = driver.topology().out_stream().clone();
    let text = |body: Body| {
        let event = EventView::decode(body.value().expect("an event")).expect("an event");
        let title = Fields::of(event.data).and_then(|fields| fields.text("title").map(Into::into));
        let title: String = title.unwrap_or_default();
        let channel = String::from_utf8_lossy(body.key().expect("a channel")).into_owned();
        format!("{channel} {} {title}", event.event_type).trim_end().to_owned()
    };
    driver.read_output(&topic).into_iter().map(text).collect()
}

#[test]
fn an_event_moves_the_operators_of_its_type_each_at_its_key() {
    let mut driver = TopologyDriver::new(ALL);
    driver.pipe_input(&like("e-1"));
    assert_eq!(runs(&mut driver, 1, "p1", "post.liked"), 1, "its own key: at once");
    assert_eq!(runs(&mut driver, 2, "ann", "post.liked"), 0, "another key: by a copy");
    assert_eq!(delivered(&mut driver), ["account:acc post.liked"]);
    assert_eq!(driver.pipe_facts(), 1);
    assert_eq!(runs(&mut driver, 2, "ann", "post.liked"), 1);
    assert_eq!(runs(&mut driver, 1, "p1", "post.liked"), 1, "the copy is for notify alone");
    assert_eq!(runs(&mut driver, 0, "p1", "post.liked"), 0, "posts is not moved by it");
    driver.pipe_input(&like("e-1"));
    assert_eq!((driver.pipe_facts(), driver.all(IDS).len()), (0, 1), "a duplicate moves nobody");
    driver.replay().expect("the same again");
}

#[test]
fn an_emission_of_the_own_key_moves_operators_in_the_same_step_which_amend_it() {
    let mut driver = TopologyDriver::new(ALL);
    driver.pipe_input(&like("e-1"));
    assert_eq!(delivered(&mut driver).len(), 1);
    driver.pipe_facts();
    assert_eq!(runs(&mut driver, 3, "ann", "notification.created"), 1);
    let amended = ["notifications:ann notification.created number 1"];
    assert_eq!(delivered(&mut driver), amended, "the copy itself is not delivered");
    driver.pipe_input(&like("e-2"));
    driver.pipe_facts();
    assert_eq!(delivered(&mut driver)[1], "notifications:ann notification.created number 2");
    driver.replay().expect("the same again");
}

#[test]
fn an_event_that_a_producer_sends_is_amended_by_operators_of_its_own_key() {
    let mut driver = TopologyDriver::new(ALL);
    let data = r#"{"notification_id":"n","user_id":"ann","kind":"like","title":"sent"}"#;
    driver.pipe_input(&event("e-1", "notification.created", "ann", data));
    assert_eq!(delivered(&mut driver), ["notifications:ann notification.created number 1"]);
}

#[test]
fn operators_of_one_other_key_get_one_copy_and_each_key_once() {
    let mut driver = TopologyDriver::new(ALL);
    let data = r#"{"post_id":"bob","author_id":"ann","text":"","mentions":["bob","cy","bob"]}"#;
    driver.pipe_input(&event("e-1", "post.created", "ann", data));
    let facts = driver.topology().facts().clone();
    let copies = driver.read_output(&facts);
    let keys: Vec<_> = copies.iter().map(|copy| copy.key().expect("a key").to_vec()).collect();
    assert_eq!(keys, [b"bob".to_vec(), b"cy".to_vec()]);
    for copy in copies {
        driver.pipe_fact(Lane::Facts, &copy);
    }
    let ran = [(0, "bob", 1), (2, "bob", 1), (2, "cy", 1), (0, "cy", 0), (2, "ann", 0)];
    for (operator, key, times) in ran {
        assert_eq!(runs(&mut driver, operator, key, "post.created"), times, "{operator} {key}");
    }
    driver.replay().expect("the same again");
}

#[test]
fn equal_keys_of_two_accounts_are_two_entities() {
    let mut driver = TopologyDriver::new(ALL);
    driver.pipe_input(&like("e-1"));
    driver.pipe_input(&Event { account_id: "other".to_owned(), ..like("e-1") });
    driver.pipe_facts();
    assert_eq!(runs(&mut driver, 2, "ann", "post.liked"), 1);
    assert_eq!(driver.all(Table(62)).len(), 2);
}

#[test]
fn an_operator_that_fails_on_an_emission_gets_that_emission_again() {
    static BROKEN: AtomicBool = AtomicBool::new(true);
    const FAILING: CountedRuns = CountedRuns { index: 3, name: "unread", broken: &BROKEN };
    let mut driver = TopologyDriver::new(&[&Dedup, &NOTIFY, &FAILING, &ChannelDelivery]);
    driver.pipe_input(&like("e-1"));
    driver.pipe_facts();
    let sent = ["account:acc post.liked", "notifications:ann notification.created"];
    assert_eq!(delivered(&mut driver), sent, "delivery and the others go on");
    let found = driver.read_dead_letters();
    assert_eq!(found.len(), 1);
    assert!(found[0].id().starts_with("t.order/0/"), "{}", found[0].id());
    let failure = found[0].operator_failure().expect("one operator's");
    assert_eq!((failure.operator, failure.account), ("unread", "acc"));
    driver.requeue(&found[0]);
    let again = driver.read_dead_letters();
    assert_ne!(again[0].id(), found[0].id());
    BROKEN.store(false, Ordering::SeqCst);
    driver.requeue(&again[0]);
    assert_eq!(runs(&mut driver, 3, "ann", "notification.created"), 1);
    assert_eq!((delivered(&mut driver), driver.read_dead_letters().len()), (vec![], 0));
}

/// A post that mentions `u0`, `u1` and so on.
fn post_with_mentions(mentions: usize, text_bytes: usize) -> Event {
    let names: Vec<_> = (0..mentions).map(|n| format!("\"u{n}\"")).collect();
    let (names, text) = (names.join(","), "x".repeat(text_bytes));
    let data =
        format!(r#"{{"post_id":"p","author_id":"ann","text":"{text}","mentions":[{names}]}}"#);
    event("e-1", "post.created", "ann", &data)
}

#[test]
fn copies_beyond_what_one_event_may_cause_are_written_by_further_transactions() {
    let mut driver = TopologyDriver::new(ALL);
    driver.pipe_input(&post_with_mentions(100, 200 << 10));
    assert_eq!(delivered(&mut driver).len(), 3, "delivery goes on");
    let facts = driver.topology().facts().clone();
    let mut waiting = driver.read_output(&facts);
    let mut most = 0;
    while let Some(fact) = waiting.pop() {
        driver.pipe_fact(Lane::Facts, &fact);
        let next = driver.read_output(&facts);
        most = most.max(next.iter().map(|body| body.as_bytes().len()).sum());
        waiting.extend(next);
    }
    assert!(most <= CAUSE_MAX_BYTES + (256 << 10), "{most} bytes in one transaction");
    for n in 0..100 {
        assert_eq!(runs(&mut driver, 2, &format!("u{n}"), "post.created"), 1, "u{n}");
    }
    assert_eq!(runs(&mut driver, 0, "p", "post.created"), 1);
    assert!(driver.read_dead_letters().is_empty());
    driver.replay().expect("the same again");
    let topic = driver.topology().out_audit().clone();
    let (mut keys, mut lists, mut requeued) = (Vec::new(), 0, 0);
    for body in driver.read_output(&topic) {
        let part = AuditPart::decode(body.value().expect("a value")).expect("its own encoding");
        for item in part.entries.iter().flat_map(|entry| &entry.items) {
            match item {
                AuditItem::Forwarded(copy) => keys.push(copy.key.to_owned()),
                AuditItem::FurtherCopies(_) => lists += 1,
                AuditItem::Requeued(_) => requeued += 1,
                _ => {}
            }
        }
    }
    let written = keys.len();
    keys.sort();
    keys.dedup();
    assert!(keys.len() == written && written > 100, "{written} copies, {} keys", keys.len());
    assert!(lists == requeued && lists > 0, "{lists} lists, {requeued} of them went on");
}

/// How many records were written to the two lanes of facts, the urgent one first.
fn lanes_of_facts(driver: &mut TopologyDriver) -> [Vec<Body>; 2] {
    [Lane::FactsUrgent, Lane::Facts].map(|lane| {
        let topic = driver.topology().lane(lane).clone();
        driver.read_output(&topic)
    })
}

#[test]
fn an_emission_on_which_delivery_failed_is_delivered_alone_once_it_is_requeued() {
    let mut driver = TopologyDriver::new(ALL);
    let data = r#"{"notification_id":"n","user_id":"ann","kind":"like","title":"number 7"}"#;
    let value = event("op/notify/00ff", "notification.created", "ann", data).encode();
    let inherited = Inherited { lane: Lane::Facts, hops: 1, time: Millis(5) };
    let (time, body) = (Millis(5), &fact("ann", value.into(), inherited).to_body());
    let cause = FailedCause::Derived { partition: Partition(0), time, id: "00ff", body };
    let (operator, trigger) = (ChannelDelivery.name(), TriggerKind::Event);
    let failure = OperatorFailure { operator, trigger, account: "acc", emission: 0 };
    let diagnosis = Diagnosis { reason: "processing_failed", field: None, detail: "broken" };
    let letter = operator_dead_letter(driver.topology(), cause, failure, diagnosis);
    let record = Record { offset: Offset(0), timestamp: Millis(9), body: letter.body };
    driver.requeue(&DeadLetter::of(Partition(0), record));
    assert_eq!(delivered(&mut driver), ["notifications:ann notification.created number 7"]);
    assert_eq!(runs(&mut driver, 3, "ann", "notification.created"), 0, "it ran before");
    assert!(driver.read_dead_letters().is_empty());
    driver.replay().expect("the same again");
}

#[test]
fn only_the_first_copies_of_a_critical_event_are_urgent() {
    let mut driver = TopologyDriver::new(ALL);
    for text_bytes in [0, 200 << 10] {
        let id = format!("e-{text_bytes}");
        let post = post_with_mentions(100, text_bytes);
        driver.pipe_input(&Event { priority: Priority::Critical, event_id: id, ..post });
        let [urgent, ordinary] = lanes_of_facts(&mut driver);
        assert_eq!(urgent.len(), URGENT_FACTS_MAX);
        let mut waiting = ordinary;
        while let Some(fact) = waiting.pop() {
            driver.pipe_fact(Lane::Facts, &fact);
            let [more, ordinary] = lanes_of_facts(&mut driver);
            assert!(more.len() <= URGENT_FACTS_MAX, "of one record");
            waiting.extend(more.into_iter().chain(ordinary));
        }
        urgent.into_iter().for_each(|fact| driver.pipe_fact(Lane::FactsUrgent, &fact));
        driver.pipe_facts();
    }
    for n in 0..100 {
        assert_eq!(runs(&mut driver, 2, &format!("u{n}"), "post.created"), 2, "u{n}");
    }
    driver.replay().expect("the same again");
}

#[test]
fn an_event_as_large_as_admission_allows_has_copies() {
    let mut driver = TopologyDriver::new(ALL);
    let rest = post_with_mentions(1, 0).data.len();
    let post = post_with_mentions(1, (256 << 10) - rest);
    assert_eq!(post.data.len(), 256 << 10);
    driver.pipe_input(&post);
    assert_eq!((driver.pipe_facts(), driver.read_dead_letters().len()), (2, 0));
    assert_eq!(runs(&mut driver, 2, "u0", "post.created"), 1);
}

#[test]
fn copies_beyond_the_hops_become_one_dead_letter_which_brings_all_of_them() {
    let mut driver = TopologyDriver::new(ALL);
    let value = post_with_mentions(100, 200 << 10).encode();
    driver.pipe_fact(Lane::Facts, &Body::new(Some(b"ann"), Some(&value), &[("tw-hops", &[4])]));
    let found = driver.read_dead_letters();
    assert_eq!((found.len(), driver.pipe_facts()), (1, 0));
    assert!(found[0].detail().contains("in a row"), "{}", found[0].detail());
    let failure = found[0].operator_failure().expect("of operators");
    assert_eq!((failure.operator, failure.trigger.as_str()), ("posts,notify", "copies"));
    assert!(found[0].size() < value.len() + 4_096, "{} bytes", found[0].size());
    driver.requeue(&found[0]);
    driver.pipe_facts();
    for n in 0..100 {
        assert_eq!(runs(&mut driver, 2, &format!("u{n}"), "post.created"), 1, "u{n}");
    }
    assert_eq!(runs(&mut driver, 0, "p", "post.created"), 1, "an administrator looked at it");
    let posts = delivered(&mut driver).iter().filter(|line| line.ends_with("post.created")).count();
    assert_eq!(posts, 3, "it was delivered once to each channel");
    assert!(driver.read_dead_letters().is_empty());
}

#[test]
fn a_damaged_list_of_copies_is_one_dead_letter() {
    let mut driver = TopologyDriver::new(ALL);
    let value = like("e-1").encode();
    let headers: &[(&str, &[u8])] =
        &[("tw-copies", &[9, 1]), ("tw-operator", b"notify"), ("tw-trigger", b"copies")];
    driver.pipe_fact(Lane::Facts, &Body::new(Some(b"p1"), Some(&value), headers));
    let found = driver.read_dead_letters();
    assert_eq!((found.len(), found[0].value()), (1, Some(&value[..])));
    assert!(found[0].detail().contains("list of copies"), "{}", found[0].detail());
}

#[test]
fn an_emission_and_its_copies_are_one_step_on_the_way() {
    let mut driver = TopologyDriver::new(ALL);
    let data = r#"{"notification_id":"n","user_id":"ann","kind":"like"}"#;
    let created = event("e-1", "notification.created", "ann", data).encode();
    driver.pipe_fact(Lane::Facts, &Body::new(Some(b"ann"), Some(&created), &[("tw-hops", &[4])]));
    assert_eq!(runs(&mut driver, 3, "ann", "notification.created"), 1);
    // The like's copy is the third hop, and the notification that follows from it the fourth.
    let liked = like("e-2").encode();
    driver.pipe_fact(Lane::Facts, &Body::new(Some(b"p1"), Some(&liked), &[("tw-hops", &[2])]));
    driver.pipe_facts();
    assert_eq!(runs(&mut driver, 3, "ann", "notification.created"), 2);
    assert!(driver.read_dead_letters().is_empty());
}

#[test]
fn a_copy_for_an_operator_that_this_build_does_not_have_waits_as_a_dead_letter() {
    let mut driver = TopologyDriver::new(ALL);
    driver.pipe_input(&like("e-1"));
    let facts = driver.topology().facts().clone();
    let copy = driver.read_output(&facts).remove(0);
    let mut older = TopologyDriver::new(&[&Dedup, &ChannelDelivery]);
    older.pipe_fact(Lane::Facts, &copy);
    let found = older.read_dead_letters();
    assert!(found[0].detail().contains("no operator number-62"), "{}", found[0].detail());
    assert_eq!(found[0].reason(), "unknown_operator");
    // If it is requeued too early, it waits again.
    older.requeue(&found[0]);
    let found = older.read_dead_letters();
    assert_eq!((found.len(), found[0].reason().into_owned()), (1, "unknown_operator".to_owned()));
    driver.requeue(&found[0]);
    assert_eq!(runs(&mut driver, 2, "ann", "post.liked"), 1);
}

#[test]
fn copies_of_one_event_are_one_record_that_has_its_bytes_once() {
    let mut driver = TopologyDriver::new(ALL);
    let users: Vec<String> = (0..50).map(|n| format!(r#""user-{n}""#)).collect();
    let text = "x".repeat(1_000);
    let data = format!(
        r#"{{"post_id":"p1","author_id":"ann","text":"{text}","mentions":[{}]}}"#,
        users.join(",")
    );
    driver.pipe_input(&event("e-1", "post.created", "ann", &data));
    let facts = driver.topology().facts().clone();
    let packs = driver.read_records(&facts);
    let bytes: usize = packs.iter().map(|pack| pack.as_bytes().len()).sum();
    assert!(packs.len() == 1 && bytes < 4_000, "{} packs of {bytes} bytes", packs.len());
    assert_eq!(entries_in(&packs[0]), 51, "the post and its mentions");
    driver.pipe_body(Lane::Facts, packs[0].clone());
    let order = driver.last_order().expect("a transaction");
    assert_eq!(order.sequence, [(Lane::Facts, 51)], "each entry counts as a record");
    let span = order.spans[Lane::Facts.index()].expect("the pack");
    assert_eq!((span.first, span.last), (Offset(0), Offset(0)));
    for user in 0..50 {
        assert_eq!(runs(&mut driver, 2, &format!("user-{user}"), "post.created"), 1);
    }
    driver.replay().expect("the same again");
}

#[test]
fn one_entry_that_fails_is_a_dead_letter_with_its_index_and_returns_alone() {
    let mut driver = TopologyDriver::new(ALL);
    let mut builder = FactPackBuilder::default();
    let (good, bad) = (like("e-1").encode(), Bytes::from_static(b"no event"));
    for value in [Bytes::from(good), bad.clone(), like("e-2").encode().into()] {
        let (key, operators) = (Bytes::from_static(b"ann"), Bytes::from_static(&[62]));
        let fact = PackedFact { hops: 1, time: Millis(7), operators, key, value };
        assert_eq!(builder.push(fact), None);
    }
    driver.pipe_body(Lane::Facts, builder.finish().expect("three entries"));
    assert_eq!(runs(&mut driver, 2, "ann", "post.liked"), 2, "the others are processed");
    let found = driver.read_dead_letters();
    let [letter] = &found[..] else { panic!("{} letters", found.len()) };
    assert_eq!((letter.id().as_ref(), letter.value()), ("t.lane.facts/0/0/1", Some(&bad[..])));
    assert_eq!(letter.source_key(), Some(&b"ann"[..]));
    assert_eq!(driver.last_order().expect("a transaction").dead_letters, [1]);
    driver.requeue(letter);
    let again = &driver.read_dead_letters()[0];
    assert_eq!((again.id().as_ref(), again.value()), ("t.lane.facts/0/1/0", Some(&bad[..])));
    assert_eq!(again.trail(), ["t.lane.facts/0/0/1"]);
    assert!(again.own_headers().any(|header| header == ("tw-for", &[62][..])));
    driver.replay().expect("the same again");
}

#[test]
fn a_pack_that_cannot_be_decoded_is_one_dead_letter_and_goes_back_as_it_was() {
    let mut driver = TopologyDriver::new(ALL);
    let broken = b"\x01\x05\x00 no pack";
    driver.pipe_body(Lane::Facts, Body::new(None, Some(broken), &[]));
    for id in ["t.lane.facts/0/0", "t.lane.facts/0/1"] {
        let found = driver.read_dead_letters();
        let [letter] = &found[..] else { panic!("{} letters", found.len()) };
        assert_eq!((letter.id().as_ref(), letter.value()), (id, Some(&broken[..])));
        assert!(letter.detail().contains("a pack of facts of 11 bytes"), "{}", letter.detail());
        driver.requeue(letter);
    }
    driver.pipe_body(Lane::Facts, Body::new(None, None, &[]));
    let detail = driver.read_dead_letters()[1].detail().into_owned();
    assert!(detail.contains("no value"), "{detail}");
    driver.replay().expect("the same again");
}

/// Writes to a table it has not declared.
struct Undeclared;

impl Operator for Undeclared {
    fn number(&self) -> u8 {
        70
    }

    fn name(&self) -> &'static str {
        "undeclared"
    }

    fn on_event(&self, _: &Input<'_>, context: &mut Context<'_>) -> Result<Flow, OperatorError> {
        context.put(Table(71), b"k", b"v");
        Ok(Flow::Continue)
    }
}

#[test]
fn a_table_that_is_not_declared_fails_the_call_and_not_the_task() {
    let mut driver = TopologyDriver::new(&[&Undeclared]);
    driver.pipe_input(&like("e-1"));
    let detail = driver.read_dead_letters()[0].detail().into_owned();
    assert!(detail.contains("table 71 is not declared"), "{detail}");
}
