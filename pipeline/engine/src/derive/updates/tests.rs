//! Tests of coalesced updates through the test driver.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use tidewire_schemas::Priority;
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::event::{Event, EventView};
use tidewire_schemas::fields::{FieldWriter, Fields};

use super::*;
use crate::dead_letters::{DeadLetter, destination, requeued_record};
use crate::derive::derive_loop::DeriveConfig;
use crate::derive::intervals::INTERVALS;
use crate::derive::lane_times::LaneSet;
use crate::derive::memory_store::MemoryStore;
use crate::derive::progress::TaskProgress;
use crate::derive::running::TickTime;
use crate::derive::sandbox::{Operators, Sandbox, StoredTask};
use crate::derive::stores::KeyValue;
use crate::derive::table_decl::TableDecl;
use crate::derive::{
    Context, DEDUP_FILTER_BYTES, Events, Flow, Input, Operator, OperatorError, START,
    TopologyDriver,
};
use crate::port::KeyRange;
use crate::record::{Body, Offset, Outgoing, Partition, Record};
use crate::topology::{Lane, Topology};

const INTERVAL_MS: i64 = 250;

/// Likes of a post.
const LIKES: KeyValue<(String, String), u64> = KeyValue::new(60, "likes");

const OF_LIKES: Updates = Updates::new(INTERVAL_MS);

/// Counts likes, and sends the counts coalesced.
struct Likes {
    broken: &'static AtomicBool,
}

impl Operator for Likes {
    fn number(&self) -> u8 {
        60
    }

    fn name(&self) -> &'static str {
        "engagement"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] = &[LIKES.decl()];
        TABLES
    }

    fn events(&self) -> Events {
        Events::Moved
    }

    fn updates(&self) -> Option<Updates> {
        Some(OF_LIKES)
    }

    fn on_event(&self, _: &Input<'_>, context: &mut Context<'_>) -> Result<Flow, OperatorError> {
        let key = (context.account().to_owned(), context.key().to_owned());
        let likes = LIKES.get(context, &key)?.unwrap_or(0) + 1;
        LIKES.put(context, &key, &likes);
        context.mark(b"")?;
        Ok(Flow::Continue)
    }

    fn on_commit(&self, own: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        assert!(own.is_empty(), "what was marked");
        if self.broken.load(Ordering::SeqCst) {
            return Err(OperatorError::Failed("broken".to_owned()));
        }
        let key = (context.account().to_owned(), context.key().to_owned());
        let likes = LIKES.get(context, &key)?.unwrap_or(0).cast_signed();
        let mut data = FieldWriter::default().text("post_id", &key.1);
        for name in ["replies", "retweets", "quotes", "views"] {
            data = data.integer(name, 0);
        }
        let data = data.integer("likes", likes).end();
        context.emit_event("engagement.updated", context.time().0, &data)
    }
}

static SOUND: AtomicBool = AtomicBool::new(false);

const OPERATORS: &[&dyn Operator] = &[&Likes { broken: &SOUND }];

fn like(id: &str, post: &str) -> Event {
    Event {
        event_id: id.to_owned(),
        event_type: "post.liked".to_owned(),
        account_id: "acc".to_owned(),
        timestamp_ms: 5,
        correlation_id: "thread-1".to_owned(),
        priority: Priority::Normal,
        key: post.to_owned(),
        source: None,
        alias: None,
        data: format!(r#"{{"post_id":"{post}","user_id":"eve","author_id":"ann"}}"#),
    }
}

/// Post, likes and event id of each update.
fn sent(driver: &mut TopologyDriver) -> Vec<(String, i64, String)> {
    let topic = driver.topology().out_state().clone();
    let read = |body: Body| {
        let event = EventView::decode(body.value().expect("an event")).expect("an event");
        let likes = Fields::of(event.data).and_then(|fields| fields.integer("likes"));
        let engagement = body.key().expect("a key").starts_with(b"engagement:");
        engagement.then(|| (event.key.to_owned(), likes.expect("a count"), event.event_id.into()))
    };
    driver.read_output(&topic).into_iter().filter_map(read).collect()
}

fn counts(driver: &mut TopologyDriver) -> Vec<(String, i64)> {
    sent(driver).into_iter().map(|(post, likes, _)| (post, likes)).collect()
}

#[test]
fn the_first_change_is_sent_at_once_and_the_last_one_at_the_end_of_the_interval() {
    let mut driver = TopologyDriver::new(OPERATORS);
    driver.pipe_input(&like("e-1", "p1"));
    let first = sent(&mut driver);
    assert_eq!((first.len(), first[0].1), (1, 1));
    for n in 2..6 {
        driver.pipe_input(&like(&format!("e-{n}"), "p1"));
    }
    assert_eq!(sent(&mut driver), [], "within the interval");
    driver.advance_wall_clock_time(INTERVAL_MS - 1);
    assert_eq!(sent(&mut driver), []);
    driver.advance_wall_clock_time(1);
    let last = sent(&mut driver);
    assert_eq!((last.len(), last[0].1), (1, 5));
    assert_ne!(first[0].2, last[0].2);
    driver.advance_wall_clock_time(10 * INTERVAL_MS);
    assert_eq!(sent(&mut driver), [], "nothing has changed");
    driver.tick();
    assert_eq!(driver.all(INTERVALS.spec.table), [], "nothing is left");
    driver.replay().expect("the same again");
}

#[test]
fn a_change_after_the_interval_is_sent_at_once_again() {
    let mut driver = TopologyDriver::new(OPERATORS);
    driver.pipe_input(&like("e-1", "p1"));
    driver.advance_wall_clock_time(INTERVAL_MS);
    driver.pipe_input(&like("e-2", "p1"));
    assert_eq!(counts(&mut driver), [("p1".into(), 1), ("p1".into(), 2)]);
    driver.replay().expect("the same again");
}

#[test]
fn a_backlog_sends_by_append_time_and_its_timers_move_along() {
    let mut driver = TopologyDriver::new(OPERATORS);
    driver.begin_backlog(Lane::Normal);
    for n in 0..4 {
        let at = Millis(START.0 - 10_000 + n * INTERVAL_MS);
        driver.pipe_late(Lane::Normal, &like(&format!("e-{n}"), "p1"), at);
        let again = Millis(at.0 + 1);
        driver.pipe_late(Lane::Normal, &like(&format!("f-{n}"), "p1"), again);
    }
    let likes: Vec<_> = counts(&mut driver).into_iter().map(|(_, likes)| likes).collect();
    assert_eq!(likes, [1, 3, 5, 7], "one per interval of the time of then");
    let waiting = driver.all(INTERVALS.spec.table).iter().filter(|(key, _)| key[0] == 1).count();
    assert_eq!(waiting, 1, "one per key");
    driver.end_backlog(Lane::Normal);
    driver.advance_wall_clock_time(1);
    assert_eq!(counts(&mut driver), [("p1".into(), 8)]);
    driver.replay().expect("the same again");
}

#[test]
fn a_lane_with_a_backlog_does_not_hold_up_what_others_have_changed() {
    let mut driver = TopologyDriver::new(OPERATORS);
    driver.begin_backlog(Lane::Low);
    driver.pipe_input(&like("e-1", "p1"));
    driver.pipe_input(&like("e-2", "p1"));
    driver.advance_wall_clock_time(INTERVAL_MS);
    assert_eq!(counts(&mut driver), [("p1".into(), 1), ("p1".into(), 2)]);
    driver.replay().expect("the same again");
}

#[test]
fn an_update_that_fails_is_requeued_as_an_update_and_sends_the_newest_values() {
    static BROKEN: AtomicBool = AtomicBool::new(true);
    const FAILING: Likes = Likes { broken: &BROKEN };
    let mut driver = TopologyDriver::new(&[&FAILING]);
    driver.pipe_input(&like("e-1", "p1"));
    let topic = driver.topology().dead_letters().clone();
    let letter = |driver: &mut TopologyDriver| {
        let body = driver.read_output(&topic).remove(0);
        DeadLetter::of(Partition(0), Record { offset: Offset(0), timestamp: Millis(9), body })
    };
    let first = letter(&mut driver);
    let failure = first.operator_failure().expect("one operator's");
    assert_eq!((failure.operator, failure.trigger.as_str()), ("engagement", "update"));
    assert!(first.detail().contains("update of engagement: broken"), "{}", first.detail());
    let requeue = |driver: &mut TopologyDriver, letter: &DeadLetter| {
        let to = destination(driver.topology(), letter).expect("it can be requeued");
        driver.pipe_body(Lane::Facts, requeued_record(letter, &to).body);
    };
    requeue(&mut driver, &first);
    let second = letter(&mut driver);
    assert_ne!(first.id(), second.id());
    BROKEN.store(false, Ordering::SeqCst);
    driver.pipe_input(&like("e-2", "p1"));
    assert_eq!(sent(&mut driver), [], "it waits for its interval");
    requeue(&mut driver, &second);
    assert_eq!(counts(&mut driver), [("p1".into(), 2)]);
}

/// Sends 200 KB about each key.
struct LargeUpdates;

impl Operator for LargeUpdates {
    fn number(&self) -> u8 {
        61
    }

    fn name(&self) -> &'static str {
        "engagement"
    }

    fn events(&self) -> Events {
        Events::Moved
    }

    fn updates(&self) -> Option<Updates> {
        Some(OF_LIKES)
    }

    fn on_event(&self, _: &Input<'_>, context: &mut Context<'_>) -> Result<Flow, OperatorError> {
        context.mark(b"")?;
        Ok(Flow::Continue)
    }

    fn on_commit(&self, _: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        let data = FieldWriter::default().text("post_id", context.key());
        let data = data.text("text", &"x".repeat(200_000)).end();
        context.emit_event("engagement.updated", context.time().0, &data)
    }
}

/// A task of which the test decides where transactions end.
fn sandbox(operators: Operators) -> Sandbox {
    let config = DeriveConfig {
        topology: Topology::new("t.", 1),
        instance: "one".to_owned(),
        thread: 0,
        build: "test".to_owned(),
        settings_hash: 0,
        catalogue: Catalogue::builtin(),
        dedup_filter_bytes: DEDUP_FILTER_BYTES,
        hash_seed: 0,
        standby: false,
    };
    let stored = StoredTask {
        partition: Partition(0),
        store: Box::<MemoryStore>::default(),
        progress: TaskProgress::default(),
    };
    Sandbox::new(config, operators, stored).expect("in memory")
}

fn take(sandbox: &mut Sandbox, offset: u64, event: &Event) {
    let body = Body::new(None, Some(&event.encode()), &[]);
    let record = Record { offset: Offset(offset), timestamp: START, body };
    sandbox.take(Lane::Normal, &record).expect("in memory");
}

#[test]
fn updates_beyond_the_size_of_a_transaction_wait_for_the_end_of_their_intervals() {
    const LIMIT: usize = (4 << 20) + 2 * 201_000;
    let mut sandbox = sandbox(&[&LargeUpdates]);
    for n in 0..40 {
        take(&mut sandbox, n, &like(&format!("e-{n}"), &format!("p{n}")));
    }
    let mut sent = Vec::new();
    for n in 0.. {
        let outputs = sandbox.commit().expect("in memory").outputs;
        let bytes: usize = outputs.iter().map(|output| output.body.as_bytes().len()).sum();
        assert!(bytes <= LIMIT, "{bytes} bytes in transaction {n}");
        let keys = outputs.iter().filter_map(|output| output.body.key().map(<[u8]>::to_vec));
        sent.push(keys.filter(|key| key.starts_with(b"engagement:")).collect::<Vec<_>>());
        let Some(end) = sandbox.first_interval() else { break };
        assert_eq!(end, Millis(START.0 + INTERVAL_MS));
        sandbox.tick(TickTime { at: end, ended: LaneSet::ALL }).expect("in memory");
    }
    assert!(sent.len() > 2 && sent.iter().all(|keys| keys.len() >= 10 - 4), "{}", sent.len());
    let mut all = sent.concat();
    all.sort();
    all.dedup();
    assert_eq!((all.len(), sent.concat().len()), (40, 40), "each once");
}

/// Marks another of its keys with each update, as often as [`CHAIN`] says, and [`MANY`] keys for a
/// post of that name.
struct Chain;

/// Updates that follow from each other: more than a transaction sends.
const CHAIN: u8 = 9;

/// More keys than half of what a task remembers.
const MANY: u32 = 30_000;

impl Operator for Chain {
    fn number(&self) -> u8 {
        63
    }

    fn name(&self) -> &'static str {
        "engagement"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] = &[CHAINED.decl()];
        TABLES
    }

    fn events(&self) -> Events {
        Events::Moved
    }

    fn updates(&self) -> Option<Updates> {
        Some(OF_LIKES)
    }

    fn on_event(&self, _: &Input<'_>, context: &mut Context<'_>) -> Result<Flow, OperatorError> {
        match context.key() {
            "chain" => context.mark(&[0])?,
            _ => (0..MANY).try_for_each(|n| context.mark(&n.to_be_bytes()))?,
        }
        Ok(Flow::Continue)
    }

    fn on_commit(&self, own: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        let &[step] = own else { return Ok(()) };
        CHAINED.put(context, &u64::from(step), &1);
        if step == 4 {
            context.mark(&[0])?;
        }
        if step < CHAIN { context.mark(&[step + 1]) } else { Ok(()) }
    }
}

/// The updates of the chain that were sent.
const CHAINED: KeyValue<u64, u64> = KeyValue::new(63, "chained");

/// The updates that were sent of the chain, and the dead letters of the transaction.
fn chained(sandbox: &mut Sandbox) -> (usize, Vec<DeadLetter>) {
    let outputs = sandbox.commit().expect("in memory").outputs;
    let letters = outputs.into_iter().filter(|output| output.topic.as_str() == "t.dead-letters");
    let letter = |Outgoing { partition, body, .. }| {
        DeadLetter::of(partition, Record { offset: Offset(0), timestamp: START, body })
    };
    let letters = letters.map(letter).collect();
    let mut steps = 0;
    let count = &mut |_: &[u8], _: &[u8]| {
        steps += 1;
        ControlFlow::Continue(())
    };
    let table = CHAINED.decl().spec.table;
    sandbox.state().scan(table, KeyRange::ALL, count).expect("in memory");
    (steps, letters)
}

#[test]
fn updates_that_follow_from_each_other_are_sent_later_or_become_dead_letters() {
    let mut sent = sandbox(&[&Chain]);
    take(&mut sent, 0, &like("e-0", "chain"));
    let (steps, letters) = chained(&mut sent);
    assert_eq!((steps, letters.len()), (4, 0));
    assert!(sent.first_interval().is_some(), "the next one waits");
    let mut full = sandbox(&[&Chain]);
    for (n, post) in ["first", "second", "chain"].iter().enumerate() {
        take(&mut full, n as u64, &like(&format!("e-{n}"), post));
    }
    let (steps, letters) = chained(&mut full);
    assert_eq!((steps, letters.len()), (5, 1), "no further key can wait");
    assert!(full.first_interval().is_some(), "one that is remembered waits");
    let failure = letters[0].operator_failure().expect("one operator's");
    assert_eq!((failure.operator, failure.trigger.as_str()), ("engagement", "update"));
    let detail = letters[0].detail();
    assert!(detail.contains("5 updates") && detail.contains("requeue"), "{detail}");
    let to = destination(&Topology::new("t.", 1), &letters[0]).expect("it can be requeued");
    let pack = requeued_record(&letters[0], &to).body;
    let record = Record { offset: Offset(0), timestamp: START, body: pack };
    full.take(Lane::Facts, &record).expect("in memory");
    let (steps, letters) = chained(&mut full);
    assert_eq!((steps, letters.len()), (CHAIN as usize + 1, 0), "the rest of the chain");
}

proptest! {
    #[test]
    fn the_parts_of_a_marked_key_read_back(
        operator: u8, own: Vec<u8>, entity in ".{0,9}", mut damaged: Vec<u8>,
    ) {
        let cause = TimerCause {
            hops: 0, id: [7; 16], account: "a".into(), entity, correlation: "c".into(),
        };
        let mark = Mark::new((operator, &own), cause, Millis(5));
        prop_assert_eq!(mark.parts(), Some((operator, &own[..])));
        damaged.truncate(9);
        let _ = Mark { key: damaged.into(), ..mark }.parts();
    }

    /// Whatever the times of the changes: at most one update per interval, and the last one has
    /// the final count.
    #[test]
    fn the_last_update_is_right_and_none_is_too_early(
        steps in proptest::collection::vec((0..3u8, 0..400i64), 1..40),
    ) {
        let mut driver = TopologyDriver::new(OPERATORS);
        let (mut total, mut updates) = ([0i64; 3], vec![Vec::new(); 3]);
        for (n, (post, wait)) in steps.iter().enumerate() {
            driver.advance_wall_clock_time(*wait);
            driver.pipe_input(&like(&format!("e-{n}"), &format!("p{post}")));
            total[usize::from(*post)] += 1;
            for (post, likes) in counts(&mut driver) {
                let post: usize = post[1..].parse().expect("a number");
                updates[post].push((driver.now().0, likes));
            }
        }
        driver.advance_wall_clock_time(INTERVAL_MS);
        for (post, likes) in counts(&mut driver) {
            updates[post[1..].parse::<usize>().expect("a number")].push((driver.now().0, likes));
        }
        for (post, updates) in updates.iter().enumerate() {
            let last = updates.last().map_or(0, |(_, likes)| *likes);
            prop_assert_eq!(last, total[post]);
            prop_assert!(updates.windows(2).all(|pair| pair[0].1 < pair[1].1), "{:?}", updates);
        }
        prop_assert_eq!(driver.replay(), Ok(()));
    }
}
