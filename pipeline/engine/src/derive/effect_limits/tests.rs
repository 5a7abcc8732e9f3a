//! Tests of the limits: what is just small enough passes, what is larger fails its call only.

use tidewire_schemas::Priority;
use tidewire_schemas::event::{Event, EventView};

use super::{CAUSE_MAX_BYTES, EMISSION_MAX_BYTES, STATE_KEY_MAX_BYTES, STATE_VALUE_MAX_BYTES};
use crate::derive::dedup::{Dedup, IDS};
use crate::derive::lane_times::{LaneSet, LaneTimes};
use crate::derive::limits::MAX_RECORDS;
use crate::derive::order::{Accepted, LaneSpan, OrderRecord, Tick};
use crate::derive::running::STEP_RECORDS;
use crate::derive::{
    Changelog, ChannelDelivery, Context, Emission, Flow, Input, Operator, OperatorError, StateKey,
    TableDecl, TopologyDriver,
};
use crate::fact_pack::PACK_ENTRIES_MAX;
use crate::port::{Table, TableExpiry, TableSpec};
use crate::record::{Millis, Offset};
use crate::topology::Lane;
use crate::value_level::ValueLevel;
use crate::verdict::TopicId;

/// Kafka's default of `message.max.bytes`, less what a batch and a record add.
const BROKER_BYTES: usize = 1_048_588 - 200;

const ROWS: Table = Table(60);

/// Does what the event's id says, such as `value-300000`, after it has written a row.
struct Large;

impl Operator for Large {
    fn number(&self) -> u8 {
        60
    }

    fn name(&self) -> &'static str {
        "large"
    }

    fn tables(&self) -> &'static [TableDecl] {
        const SPEC: TableSpec = TableSpec { table: ROWS, name: "rows", expiry: TableExpiry::Never };
        &[TableDecl {
            spec: SPEC,
            changelog: Changelog::State,
            window_ms: 0,
            level: ValueLevel::FIRST,
        }]
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        let (what, number) = event.event_id.split_once('-').unwrap_or_default();
        let number = number.parse().unwrap_or_default();
        let text = "x".repeat(number);
        let data = |text: &str| format!(r#"{{"conversation_id":"c1","text":"{text}"}}"#);
        context.put(ROWS, b"before", b"1");
        match what {
            "value" => context.put(ROWS, b"k", text.as_bytes()),
            "key" => context.put(ROWS, text.as_bytes(), b"v"),
            "removed" => context.remove(ROWS, text.as_bytes()),
            "timer" => context.set_timer(Millis(context.time().0 + 1), text.as_bytes())?,
            "emission" => context.emit(&emission(event, &data(&text)))?,
            "fact" => context.fact(&emission(event, &data(&text)))?,
            "state" => {
                let at = StateKey { channel: "inbox:acc", state_key: "" };
                context.publish(event, at, text.as_bytes());
            }
            _ => {
                for _ in 0..number {
                    let text = "x".repeat(200 << 10);
                    context.fact(&emission(event, &data(&text)))?;
                }
            }
        }
        Ok(Flow::Continue)
    }
}

fn emission<'a>(event: &EventView<'a>, data: &'a str) -> Emission<'a> {
    Emission {
        event_type: "conversation.updated",
        account_id: event.account_id,
        key: event.key,
        timestamp_ms: 5,
        priority: Priority::Normal,
        data,
    }
}

fn event(id: String) -> Event {
    Event {
        event_id: id.clone(),
        event_type: "post.created".to_owned(),
        account_id: "acc".to_owned(),
        timestamp_ms: 5,
        correlation_id: id,
        priority: Priority::Normal,
        key: "alice".to_owned(),
        source: None,
        alias: None,
        data: r#"{"post_id":"p1","author_id":"alice","text":"hello"}"#.to_owned(),
    }
}

/// The details of the dead letters after this event; everything else about it must be there.
fn details(id: String) -> Vec<String> {
    let mut driver = TopologyDriver::new(&[&Dedup, &Large, &ChannelDelivery]);
    driver.pipe_input(&event(id));
    let topology = driver.topology().clone();
    let letters = driver.read_output(topology.dead_letters());
    let details: Vec<_> = letters
        .iter()
        .map(|l| String::from_utf8_lossy(l.header("detail").expect("a detail")).into_owned())
        .collect();
    assert_eq!(driver.all(IDS).len(), 1, "it counts as seen");
    let stream = driver.read_output(topology.out_stream());
    let others = [driver.read_output(topology.facts()), driver.read_output(topology.out_state())];
    let largest = stream.iter().chain(others.iter().flatten()).chain(&letters);
    assert!(largest.map(|body| body.as_bytes().len()).max() < Some(BROKER_BYTES));
    if !details.is_empty() {
        assert_eq!(stream.len(), 3, "it is delivered");
        assert_eq!(driver.all(ROWS), [], "nothing of the failed call stays");
        assert_eq!(others.concat(), [], "nothing of the failed call is emitted");
    }
    driver.replay().expect("the same again");
    details
}

#[test]
fn what_exceeds_a_limit_fails_its_call_with_bytes_and_limit_and_the_event_goes_on() {
    // An emission has some 300 bytes beside the text.
    for (what, fits, exceeds, parts) in [
        ("value", STATE_VALUE_MAX_BYTES, STATE_VALUE_MAX_BYTES + 1, ["table rows", "262145"]),
        ("key", STATE_KEY_MAX_BYTES, STATE_KEY_MAX_BYTES + 1, ["table rows", "8193"]),
        ("removed", STATE_KEY_MAX_BYTES, STATE_KEY_MAX_BYTES + 1, ["table rows", "8193"]),
        ("timer", STATE_KEY_MAX_BYTES, STATE_KEY_MAX_BYTES + 1, ["table timers", "8193"]),
        ("emission", 250 << 10, EMISSION_MAX_BYTES, ["conversation.updated", "262144"]),
        ("fact", 250 << 10, EMISSION_MAX_BYTES, ["conversation.updated", "262144"]),
        ("state", 255 << 10, EMISSION_MAX_BYTES, ["post.created", "262144"]),
        ("all", CAUSE_MAX_BYTES / (201 << 10), 21, ["conversation.updated", "4194304"]),
    ] {
        assert_eq!(details(format!("{what}-{fits}")), [""; 0], "{what}");
        let found = details(format!("{what}-{exceeds}"));
        let [detail] = &found[..] else { panic!("{what}: {found:?}") };
        for part in ["large: ", parts[0], parts[1]] {
            assert!(detail.contains(part), "{part}: {detail}");
        }
    }
}

#[test]
fn the_largest_order_record_fits_a_broker() {
    let records = u32::try_from(MAX_RECORDS + STEP_RECORDS + PACK_ENTRIES_MAX).expect("few");
    let span = LaneSpan { first: Offset(u64::MAX - 1), last: Offset(u64::MAX - 1) };
    let order = OrderRecord {
        build: "0".repeat(100),
        settings_hash: u64::MAX,
        catalogue_hash: u64::MAX,
        level: ValueLevel(u8::MAX),
        lane_ids: [TopicId(u64::MAX); Lane::COUNT],
        before: LaneTimes([Millis(i64::MAX / 4); Lane::COUNT]),
        after: LaneTimes([Millis(i64::MAX / 2); Lane::COUNT]),
        spans: [Some(span); Lane::COUNT],
        // The worst: each record is of another lane than the one before, is accepted at a time of
        // its own, and becomes a dead letter.
        sequence: (0..records).map(|n| (Lane::ALL[n as usize % 2], 1)).collect(),
        ticks: vec![Tick { after: records, at: Millis(0), ended: LaneSet::ALL }; 2],
        dead_letters: (0..records).collect(),
        accepted: (0..i64::from(records))
            .map(|n| Accepted { at: Millis(n), since: Millis(i64::MAX / 2), ids: vec![[7; 16]] })
            .collect(),
        outputs: u32::MAX,
        outputs_hash: u64::MAX,
    };
    let bytes = order.encode().len();
    assert!(bytes < BROKER_BYTES, "{bytes}");
}
