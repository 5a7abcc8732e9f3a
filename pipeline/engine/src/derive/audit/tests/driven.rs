//! Tests of what a task writes to its audit, through the test driver.

use tidewire_schemas::Priority;
use tidewire_schemas::event::Event;
use tidewire_schemas::fields::FieldWriter;

use crate::derive::audit::layout::{AuditCause, AuditItem, AuditPart};
use crate::derive::dedup::Dedup;
use crate::derive::stores::KeyValue;
use crate::derive::{
    ChannelDelivery, Context, Emission, Events, Flow, Input, Operator, OperatorError, START,
    StateChannel, TableDecl, TopologyDriver, Updates,
};
use crate::lane_record::VERDICT;
use crate::record::{Body, Millis, Offset, Partition};
use crate::topology::Lane;
use crate::verdict::{Decision, TopicId, Verdict, VerdictSource};

const LIKES: KeyValue<String, u64> = KeyValue::new(60, "likes");
const OF_LIKES: Updates = Updates::new(250);
const THREADS: StateChannel = StateChannel::expiring("participation", 62, "life", 30_000);

/// Causes one of each kind, and fails on some events after all of it.
struct Maker;

impl Operator for Maker {
    fn number(&self) -> u8 {
        60
    }

    fn name(&self) -> &'static str {
        "maker"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const TABLES: &[TableDecl] = &[LIKES.decl(), THREADS.decl()];
        TABLES
    }

    fn updates(&self) -> Option<Updates> {
        Some(OF_LIKES)
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        if event.event_type != "post.liked" {
            return Ok(Flow::Continue);
        }
        LIKES.put(context, &event.key.to_owned(), &1);
        context.emit(&Emission {
            event_type: "conversation.updated",
            account_id: event.account_id,
            key: "bob",
            timestamp_ms: 5,
            priority: Priority::Normal,
            data: r#"{"conversation_id":"bob"}"#,
        })?;
        let data = FieldWriter::default()
            .text("notification_id", "n1")
            .text("user_id", context.key())
            .text("kind", "like")
            .end();
        context.emit_event("notification.created", 5, &data)?;
        THREADS.publish_current(context, "p1", "t")?;
        context.set_timer(Millis(START.0 + 100), b"own")?;
        context.mark(b"")?;
        context.count_dropped("by_rule");
        match event.event_id.contains("fails") {
            true => Err(OperatorError::Failed("broken".to_owned())),
            false => Ok(Flow::Continue),
        }
    }

    fn on_timer(&self, _: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        context.count_dropped("by_timer");
        Ok(())
    }

    fn on_commit(&self, _: &[u8], context: &mut Context<'_>) -> Result<(), OperatorError> {
        context.emit_event("conversation.updated", 5, r#"{"conversation_id":"p1"}"#)
    }
}

/// Sets a field of notifications.
struct Titles;

impl Operator for Titles {
    fn number(&self) -> u8 {
        61
    }

    fn name(&self) -> &'static str {
        "unread"
    }

    fn events(&self) -> Events {
        Events::Moved
    }

    fn on_event(&self, _: &Input<'_>, context: &mut Context<'_>) -> Result<Flow, OperatorError> {
        context.amend("title", "\"hello\"");
        Ok(Flow::Continue)
    }
}

/// Gets copies of likes.
struct OfAuthors;

impl Operator for OfAuthors {
    fn number(&self) -> u8 {
        62
    }

    fn name(&self) -> &'static str {
        "notify"
    }

    fn events(&self) -> Events {
        Events::Moved
    }

    fn on_event(&self, _: &Input<'_>, _: &mut Context<'_>) -> Result<Flow, OperatorError> {
        Ok(Flow::Continue)
    }
}

const OPERATORS: &[&dyn Operator] = &[&Dedup, &Maker, &Titles, &OfAuthors, &ChannelDelivery];

fn like(id: &str) -> Event {
    Event {
        event_id: id.to_owned(),
        event_type: "post.liked".to_owned(),
        account_id: "acc".to_owned(),
        timestamp_ms: 5,
        correlation_id: id.to_owned(),
        priority: Priority::Normal,
        key: "p1".to_owned(),
        source: None,
        alias: None,
        data: r#"{"post_id":"p1","user_id":"eve","author_id":"ann"}"#.to_owned(),
    }
}

/// The audit since the last call: a line for each cause, and one for each item below it.
fn audit(driver: &mut TopologyDriver) -> Vec<String> {
    let topic = driver.topology().out_audit().clone();
    let mut lines = Vec::new();
    for body in driver.read_output(&topic) {
        assert_eq!(body.key(), None);
        let part = AuditPart::decode(body.value().expect("a value")).expect("its own encoding");
        for entry in part.entries {
            let after = entry.time.0 - START.0;
            lines.push(match entry.cause {
                AuditCause::Record { lane, offset, entry: None } => {
                    format!("{} {} at {after}", lane.name(), offset.0)
                }
                AuditCause::Record { lane, offset, entry: Some(index) } => {
                    format!("{} {}/{index} at {after}", lane.name(), offset.0)
                }
                AuditCause::Timer(of) => {
                    format!("timer {} {}/{} at {after}", of.operator, of.account, of.entity)
                }
                AuditCause::Update(of) => {
                    format!("update {} {}/{} at {after}", of.operator, of.account, of.entity)
                }
                AuditCause::EndOfLife => format!("end of life at {after}"),
            });
            lines.extend(entry.items.iter().map(line));
        }
    }
    lines
}

/// An item, without hashes.
fn line(item: &AuditItem<'_>) -> String {
    match item {
        AuditItem::Event(event) => {
            format!("  event {} {} {}/{}", event.id, event.event_type, event.account, event.key)
        }
        AuditItem::Emitted(event) => {
            assert!(event.id.starts_with("op/maker/"), "{}", event.id);
            format!("  emitted {} {}/{}", event.event_type, event.account, event.key)
        }
        AuditItem::TimerSet(at, _) => format!("  timer for {}", at.0 - START.0),
        AuditItem::Marked(_) => "  marked".to_owned(),
        other => format!("  {other:?}"),
    }
}

#[test]
fn every_effect_of_an_event_is_listed_under_the_call_that_had_it() {
    let mut driver = TopologyDriver::new(OPERATORS);
    driver.pipe_input(&like("e-1"));
    let expected = [
        "normal 0 at 0",
        "  event e-1 post.liked acc/p1",
        "  Called(1)",
        "  Called(60)",
        "  emitted conversation.updated acc/bob",
        "  ToKey(Facts)",
        "  emitted notification.created acc/p1",
        "  ToOperators",
        "  StatePut(\"participation:p1\", \"t\")",
        "  timer for 100",
        "  marked",
        "  Dropped(\"by_rule\")",
        "  Called(2)",
    ];
    let lines = audit(&mut driver);
    assert_eq!(lines[..expected.len()], expected, "{lines:#?}");
    let rest = &lines[expected.len()..];
    for wanted in [
        "  ToChannel(\"account:acc\")",
        "  Forwarded(AuditedCopy { key: \"ann\", lane: Facts, operators: [62] })",
        "  NextEmission",
        "  Called(61)",
        "  Amended(\"title\")",
        "  ToChannel(\"notifications:p1\")",
        "update 60 acc/p1 at 0",
        "  emitted conversation.updated acc/p1",
    ] {
        assert!(rest.iter().any(|line| line == wanted), "{wanted}: {lines:#?}");
    }
    driver.replay().unwrap();
}

#[test]
fn facts_copies_timers_and_ends_of_lives_have_entries_of_their_own() {
    let mut driver = TopologyDriver::new(OPERATORS);
    driver.pipe_input(&like("e-1"));
    audit(&mut driver);
    driver.pipe_facts();
    let lines = audit(&mut driver);
    let copy = "  ForOtherKey(\"ann\", [62])";
    let at = lines.iter().position(|line| line == copy);
    let at = at.unwrap_or_else(|| panic!("{lines:#?}"));
    assert_eq!(lines[at - 2..=at], ["  Hops(1)", "  event e-1 post.liked acc/p1", copy]);
    assert!(lines.iter().any(|line| line.contains("conversation.updated acc/bob")), "{lines:#?}");
    let entries: Vec<_> = lines.iter().filter(|line| line.starts_with("facts 0/")).collect();
    assert_eq!(entries, ["facts 0/0 at 0", "facts 0/1 at 0"], "two entries of one pack");
    driver.advance_wall_clock_time(100);
    assert_eq!(
        audit(&mut driver),
        ["timer 60 acc/p1 at 100", "  Called(60)", "  Dropped(\"by_timer\")"]
    );
    driver.advance_wall_clock_time(30_000);
    let lines = audit(&mut driver);
    let removed = "  StateRemoved(\"participation:p1\", \"t\")";
    assert_eq!(lines, ["end of life at 30000", removed]);
    driver.replay().unwrap();
}

#[test]
fn a_failed_call_leaves_only_that_it_failed() {
    let mut driver = TopologyDriver::new(OPERATORS);
    driver.pipe_input(&like("fails"));
    let lines = audit(&mut driver);
    let expected = [
        "normal 0 at 0",
        "  event fails post.liked acc/p1",
        "  Called(1)",
        "  Failed(\"maker\", \"t.lane.normal/0/0/maker\", \"maker: broken\")",
        "  Called(2)",
    ];
    assert_eq!(lines[..expected.len()], expected, "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("emitted")), "{lines:#?}");
    driver.replay().unwrap();
}

#[test]
fn duplicates_copies_and_records_that_can_not_be_decoded_are_listed() {
    let mut driver = TopologyDriver::new(OPERATORS);
    driver.pipe_late(Lane::High, &like("e-1"), START);
    audit(&mut driver);
    driver.pipe_input(&like("e-1"));
    assert_eq!(audit(&mut driver).last().map(String::as_str), Some("  Duplicate"));
    driver.pipe_value(Lane::Low, Some(b"no event"));
    let lines = audit(&mut driver);
    assert!(lines[1].starts_with("  DeadLetter(\"avro_decode\", \"t.lane.low/0/0\""), "{lines:?}");
    let source = VerdictSource {
        input: 0,
        topic: TopicId(1),
        partition: Partition(5),
        offset: Offset(8),
        delivered_from: Offset(0),
        delivered_to: Offset(8),
    };
    let verdict = Verdict {
        decision: Decision::Rejected,
        settings_hash: 0,
        control: Offset(0),
        append_time: START,
        source,
        rules: vec![4, 5],
    };
    let value = like("e-2").encode();
    let body = Body::new(None, Some(&value), &[(VERDICT, &verdict.encode())]);
    let head = [
        "low 1 at 0",
        "  Source(0, 5, Offset(8))",
        "  Rejected",
        "  Rules([4, 5])",
        "  event e-2 post.liked acc/p1",
    ];
    driver.pipe_body(Lane::Low, body.clone());
    assert_eq!(audit(&mut driver)[..head.len()], head);
    driver.pipe_body(Lane::Low, body);
    assert_eq!(audit(&mut driver)[1..].last().map(String::as_str), Some("  SecondCopy"));
    driver.replay().unwrap();
}
