//! Events, lane interleavings and readers of outputs for the tests of operators.
//!
//! A case reads as *given events, expected lines*:
//!
//! ```text
//! let mut driver = TopologyDriver::new(&[&Engagement]);
//! pipe(&mut driver, &[event("e1", "post.liked", json!({"post_id": "p1", "user_id": "bob"}))]);
//! assert_eq!(lines(&state(&mut driver)), [r#"engagement:p1 = engagement.updated {"likes":1}"#]);
//! driver.replay().unwrap();
//! ```
//!
//! A shuffle appends events to the input in one order ([`appended`]) and consumes the lanes in many
//! ([`interleaved`]): a lane keeps its order, and every event keeps its append time. What must not
//! differ is [`latest`] of the state channels, the rows, and the ids of once-only events.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::{Display, Formatter};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use serde_json::{Value, json};
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::event::{Event, EventView};
use tidewire_schemas::fields::Fields;
use tidewire_schemas::id::hash128;

use crate::derive::{START, TopologyDriver};
use crate::record::{Body, Millis};
use crate::topology::Lane;

/// The account of events that name no other.
pub(super) const ACCOUNT: &str = "acc";

/// Lanes that a shuffle consumes in any order.
const LANES: [Lane; 4] = [Lane::Critical, Lane::High, Lane::Normal, Lane::Low];

/// An event at [`START`] of [`ACCOUNT`]; its key and priority are the catalogue's.
pub(super) fn event(event_id: &str, event_type: &str, data: Value) -> Event {
    event_of(ACCOUNT, event_id, event_type, data)
}

/// The same of another account.
pub(super) fn event_of(account: &str, event_id: &str, event_type: &str, data: Value) -> Event {
    let data = data.to_string();
    let fields = Fields::of(&data).expect("a test writes an object");
    let known = Catalogue::builtin().resolve(event_type).expect("a type of the catalogue");
    let key = known.key_of(account, &fields).expect("a test sets the key's field").into_owned();
    Event {
        event_id: event_id.to_owned(),
        event_type: known.name.clone(),
        account_id: account.to_owned(),
        timestamp_ms: START.0,
        correlation_id: event_id.to_owned(),
        priority: known.priority_of(&fields),
        key,
        source: None,
        alias: None,
        data: data.clone(),
    }
}

/// The event with its time set to milliseconds after [`START`].
pub(super) fn at(ms: i64, event: Event) -> Event {
    Event { timestamp_ms: START.0 + ms, ..event }
}

/// Processes events one after the other, each with all facts and copies that follow from it;
/// returns these, with the keys they are for.
pub(super) fn pipe(driver: &mut TopologyDriver, events: &[Event]) -> Vec<(String, Event)> {
    let mut facts = Vec::new();
    for event in events {
        driver.pipe_input(event);
        facts.extend(pipe_facts(driver));
    }
    facts
}

/// Processes all facts and copies that wait, and those that follow from them; returns them.
pub(super) fn pipe_facts(driver: &mut TopologyDriver) -> Vec<(String, Event)> {
    let mut piped = Vec::new();
    loop {
        let lanes = [Lane::FactsUrgent, Lane::Facts];
        let of = |lane: Lane| (lane, driver.topology().lane(lane).clone());
        let mut waiting = Vec::new();
        for (lane, topic) in lanes.map(of) {
            waiting.extend(driver.read_output(&topic).into_iter().map(|fact| (lane, fact)));
        }
        if waiting.is_empty() {
            return piped;
        }
        for (lane, fact) in waiting {
            piped.push((key_text(&fact), decoded(&fact).expect("a fact has a value")));
            driver.pipe_fact(lane, &fact);
        }
    }
}

/// An event in its lane, with the time at which it was appended to the input.
#[derive(Clone, Debug)]
pub(super) struct Appended {
    pub(super) lane: Lane,
    pub(super) time: Millis,
    pub(super) event: Event,
}

/// These events, appended to the input in this order, one every `step_ms`.
pub(super) fn appended(events: &[Event], step_ms: i64) -> Vec<Appended> {
    let time = |n: usize| Millis(START.0 + n as i64 * step_ms);
    let lane = |event: &Event| Lane::of(event.priority);
    let of = |(n, event): (usize, &Event)| Appended {
        lane: lane(event),
        time: time(n),
        event: event.clone(),
    };
    events.iter().enumerate().map(of).collect()
}

/// An order in which a task may consume them: the lanes merged, each in its own order. Seed 0 is
/// the order of the input, 1 the fast lanes first, 2 the slow lanes first; others are random.
pub(super) fn interleaved(input: &[Appended], seed: u64) -> Vec<Appended> {
    let mut lanes = LANES.map(|lane| {
        input.iter().filter(|a| a.lane == lane).cloned().collect::<VecDeque<Appended>>()
    });
    let mut order = Vec::with_capacity(input.len());
    while order.len() < input.len() {
        let waiting = |n: &usize| !lanes[*n].is_empty();
        let lane = match seed {
            0 => (0..LANES.len()).filter(waiting).min_by_key(|n| lanes[*n][0].time),
            1 => (0..LANES.len()).find(waiting),
            2 => (0..LANES.len()).rfind(waiting),
            _ => {
                let waiting: Vec<usize> = (0..LANES.len()).filter(waiting).collect();
                Some(waiting[chance(seed, order.len(), waiting.len())])
            }
        };
        order.extend(lane.and_then(|n| lanes[n].pop_front()));
    }
    order
}

/// Consumes the lanes in an order that follows from the seed, as after an outage: the wall clock is
/// past the last append. Facts and copies are consumed in between, or late. In the end all lanes
/// are at their ends, and a minute has passed. Returns the facts and copies.
pub(super) fn pipe_interleaved(
    driver: &mut TopologyDriver,
    input: &[Appended],
    seed: u64,
) -> Vec<(String, Event)> {
    let last = input.iter().map(|appended| appended.time.0).max().unwrap_or(START.0);
    Lane::ALL.into_iter().for_each(|lane| driver.begin_backlog(lane));
    driver.advance_wall_clock_time((last - driver.now().0).max(0));
    let mut facts = Vec::new();
    for (n, Appended { lane, time, event }) in interleaved(input, seed).into_iter().enumerate() {
        driver.pipe_late(lane, &event, time);
        if seed == 0 || chance(seed, input.len() + n, 4) == 0 {
            facts.extend(pipe_facts(driver));
        }
    }
    facts.extend(pipe_facts(driver));
    Lane::ALL.into_iter().for_each(|lane| driver.end_backlog(lane));
    driver.tick();
    driver.advance_wall_clock_time(60_000);
    facts.extend(pipe_facts(driver));
    facts
}

/// A number below `below` that follows from the seed and the step.
pub(super) fn chance(seed: u64, step: usize, below: usize) -> usize {
    let hash = hash128(&seed.to_string(), &step.to_string());
    u64::from_be_bytes(*hash.first_chunk().expect("16 bytes")) as usize % below
}

/// A record of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) channel: String,
    /// The state key; empty in a stream.
    pub(super) state_key: String,
    /// `None`: a tombstone.
    pub(super) event: Option<Event>,
}

impl Display for Written {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { channel, state_key, event } = self;
        let entry = if state_key.is_empty() { String::new() } else { format!("[{state_key}]") };
        match event {
            Some(event) => write!(f, "{channel}{entry} = {} {}", event.event_type, event.data),
            None => write!(f, "{channel}{entry} removed"),
        }
    }
}

/// The records as text, for comparisons that are read.
pub(super) fn lines(written: &[Written]) -> Vec<String> {
    written.iter().map(Written::to_string).collect()
}

/// What was written to streams since the last call: first `out.urgent`, then `out.stream`.
pub(super) fn stream(driver: &mut TopologyDriver) -> Vec<Written> {
    let topics = [driver.topology().out_urgent().clone(), driver.topology().out_stream().clone()];
    let bodies: Vec<Body> = topics.iter().flat_map(|topic| driver.read_output(topic)).collect();
    let written = |body: &Body| Written {
        channel: key_text(body),
        state_key: String::new(),
        event: decoded(body),
    };
    bodies.iter().map(written).collect()
}

/// What was written to `out.state` since the last call. An account other than [`ACCOUNT`] precedes
/// its channel.
pub(super) fn state(driver: &mut TopologyDriver) -> Vec<Written> {
    let topic = driver.topology().out_state().clone();
    let written = |body: &Body| {
        let key = key_text(body);
        let mut parts = key.splitn(3, '\0').map(str::to_owned);
        let mut part = || parts.next().expect("channel, account and state key");
        let (channel, account, state_key) = (part(), part(), part());
        let channel = if account == ACCOUNT { channel } else { format!("{account}/{channel}") };
        Written { channel, state_key, event: decoded(body) }
    };
    driver.read_output(&topic).iter().map(written).collect()
}

/// Per channel and state key the data of the last value; removed entries are absent.
pub(super) fn latest(written: &[Written]) -> BTreeMap<(String, String), String> {
    let mut latest = BTreeMap::new();
    for Written { channel, state_key, event } in written {
        let at = (channel.clone(), state_key.clone());
        match event {
            Some(event) => latest.insert(at, event.data.clone()),
            None => latest.remove(&at),
        };
    }
    latest
}

/// The details of the dead letters that were written since the last call.
pub(super) fn dead_letters(driver: &mut TopologyDriver) -> Vec<String> {
    let topic = driver.topology().dead_letters().clone();
    let detail = |body: &Body| {
        String::from_utf8_lossy(body.header("detail").unwrap_or_default()).into_owned()
    };
    driver.read_output(&topic).iter().map(detail).collect()
}

/// What operators have dropped while `run` ran, as `operator reason count`, and its result. A
/// replay counts too.
pub(super) fn dropped<T>(run: impl FnOnce() -> T) -> (Vec<String>, T) {
    let recorder = DropRecorder::default();
    let result = metrics::with_local_recorder(&recorder, run);
    let drops = recorder.0.into_inner().expect("no other thread");
    let count =
        |(of, count): (String, Arc<AtomicU64>)| format!("{of} {}", count.load(Ordering::Relaxed));
    (drops.into_iter().map(count).collect(), result)
}

/// Keeps the counter of drops, and no other metric.
#[derive(Default)]
struct DropRecorder(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

impl Recorder for DropRecorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        if key.name() != "derive_operator_dropped_total" {
            return Counter::noop();
        }
        let labels: Vec<&str> = key.labels().map(|label| label.value()).collect();
        let mut drops = self.0.lock().expect("no other thread");
        Counter::from_arc(drops.entry(labels.join(" ")).or_default().clone())
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

fn key_text(body: &Body) -> String {
    String::from_utf8(body.key().unwrap_or_default().to_vec()).expect("keys are text")
}

fn decoded(body: &Body) -> Option<Event> {
    let view = EventView::decode(body.value()?).expect("a value is an event");
    Some(Event {
        event_id: view.event_id.to_owned(),
        event_type: view.event_type.to_owned(),
        account_id: view.account_id.to_owned(),
        timestamp_ms: view.timestamp_ms,
        correlation_id: view.correlation_id.to_owned(),
        priority: view.priority,
        key: view.key.to_owned(),
        source: view.source.map(str::to_owned),
        alias: view.alias.map(str::to_owned),
        data: view.data.to_owned(),
    })
}

#[test]
fn an_interleaving_keeps_the_order_of_each_lane() {
    let status = |n: usize| {
        let event_type = ["post.liked", "post.replied", "post.failed"][n % 3];
        let data = json!({"post_id": "p", "user_id": "u", "reply_id": "r", "error": "e"});
        event(&format!("e{n:02}"), event_type, data)
    };
    let events: Vec<Event> = (0..30).map(status).collect();
    let input = appended(&events, 10);
    let ids = |order: &[Appended]| -> Vec<String> {
        order.iter().map(|appended| appended.event.event_id.clone()).collect()
    };
    assert_eq!(ids(&interleaved(&input, 0)), ids(&input));
    for seed in 1..50 {
        let order = interleaved(&input, seed);
        assert_ne!(ids(&order), ids(&input), "seed {seed}");
        for lane in LANES {
            let of_lane: Vec<_> = order.iter().filter(|a| a.lane == lane).cloned().collect();
            assert!(ids(&of_lane).is_sorted(), "seed {seed}");
        }
    }
}

#[test]
fn outputs_are_read_by_channel_and_state_key() {
    use crate::derive::ChannelDelivery;
    let mut driver = TopologyDriver::new(&[&ChannelDelivery]);
    let post = json!({"post_id": "p1", "author_id": "al", "text": "x"});
    let status = json!({"post_id": "p1", "status": "sent"});
    let created = at(5, event_of("other", "e1", "post.created", post));
    pipe(&mut driver, &[created, event("e2", "post.updated", status)]);
    let created = r#" = post.created {"author_id":"al","post_id":"p1","text":"x"}"#;
    let channels = ["account:other", "posts:al", "timeline:other"];
    assert_eq!(lines(&stream(&mut driver)), channels.map(|channel| format!("{channel}{created}")));
    let mut written = state(&mut driver);
    let data = r#"{"post_id":"p1","status":"sent"}"#;
    let entry = "dashboard:acc[post.updated/p1]";
    assert_eq!(lines(&written), [format!("{entry} = post.updated {data}")]);
    let at = ("dashboard:acc".to_owned(), "post.updated/p1".to_owned());
    assert_eq!(latest(&written).get(&at).map(String::as_str), Some(data));
    let removed = Written { event: None, ..written[0].clone() };
    assert_eq!(removed.to_string(), format!("{entry} removed"));
    written.push(removed);
    assert!(latest(&written).is_empty());
    assert_eq!(dead_letters(&mut driver), [""; 0]);
    assert!(pipe_facts(&mut driver).is_empty());
    let late = event("e3", "post.liked", json!({"post_id": "p1", "user_id": "bob"}));
    pipe_interleaved(&mut driver, &appended(&[late], 1), 0);
    assert_eq!(stream(&mut driver).len(), 1);
}
