//! The simulated producers: events with and without ids, repeated ones, and invalid records.
//!
//! Producers are not under test: their writes never fail, but they repeat events, as after a lost
//! response.

use bytes::Bytes;
use tidewire_engine::admit::AdmitInput;
use tidewire_engine::fact_pack::{FactPackBuilder, PackedFact};
use tidewire_engine::port::Appender;
use tidewire_engine::record::{Body, Millis, Outgoing, TopicPartition};
use tidewire_engine::topology::{Lane, Topology};
use tidewire_schemas::Priority;

use crate::fake::FakeLog;
use crate::model::{Model, ProducedInput};
use crate::operators::{ASIDE, FAILING, LARGE};
use crate::test_rng::TestRng;

/// Entities; each uses one input, so that its events have one order.
const ENTITIES: u64 = 7;

/// Accounts; each has entities with the same keys as the others.
const ACCOUNTS: u64 = 2;

/// The account of an entity.
fn account_of(entity: u64) -> String {
    format!("a{}", entity % ACCOUNTS)
}

/// The key of an entity.
fn key_of(entity: u64) -> String {
    format!("k{}", entity / ACCOUNTS)
}

/// What a producer sends, and may send again.
#[derive(Clone)]
struct ProducedMessage {
    source: AdmitInput,
    key: String,
    value: Vec<u8>,
    produced: ProducedInput,
}

/// What differs between the copies of an event.
const PRIORITY: &str = r#""priority":"#;

impl ProducedMessage {
    /// A copy of the event in another lane.
    fn with_priority(&self, priority: u8) -> Self {
        let mut copy = self.clone();
        if let ProducedInput::Event { lane, .. } = &mut copy.produced {
            let text = std::str::from_utf8(&self.value).expect("our own text");
            let (before, after) = text.split_once(PRIORITY).expect("an event has a priority");
            copy.value = format!("{before}{PRIORITY}{priority}{}", &after[1..]).into_bytes();
            *lane = Lane::of(Priority::from_number(priority.into()).expect("one of four"));
        }
        copy
    }
}

/// All producers of a world.
pub(super) struct Producer {
    random: TestRng,
    sequence: u64,
    /// Those with an id: a repeated event without an id is another event.
    again: Vec<ProducedMessage>,
}

impl Producer {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: TestRng::new(seed ^ 0x1d), sequence: 0, again: Vec::new() }
    }

    pub(super) fn write_some(&mut self, log: &FakeLog, topology: &Topology, model: &mut Model) {
        for _ in 0..1 + self.random.below(6) {
            let message = match self.random.below(20) {
                0 => self.poison(),
                1 => {
                    self.poison_lane(log, topology);
                    continue;
                }
                2 if self.random.one_in(2) => self.lease(),
                2..5 if !self.again.is_empty() => {
                    let n = self.random.index(self.again.len());
                    match self.random.below(8) as u8 {
                        priority @ 0..4 => self.again[n].with_priority(priority),
                        _ => self.again[n].clone(),
                    }
                }
                _ => self.event(),
            };
            let topic = message.source.topic(topology);
            let at = TopicPartition::new(topic, topology.partition_of(message.key.as_bytes()));
            let headers: &[(&str, &[u8])] = &[("trace", b"t")];
            let body = Body::new(Some(message.key.as_bytes()), Some(&message.value), headers);
            write(log, &at, body);
            model.produced(&at, message.produced);
        }
    }

    fn event(&mut self) -> ProducedMessage {
        self.sequence += 1;
        let (sequence, entity) = (self.sequence, self.random.below(ENTITIES));
        let source = if entity == ENTITIES - 1 { AdmitInput::Urgent } else { AdmitInput::Main };
        let priority = self.random.below(4) as u8;
        let (account, key) = (account_of(entity), key_of(entity));
        let id = match self.random.below(12) {
            0 => None,
            1 => Some(format!("{}-{sequence}", [FAILING, LARGE, ASIDE][sequence as usize % 3])),
            _ => Some(format!("e-{sequence}")),
        };
        let id_field = id.as_ref().map(|id| format!(r#""event_id":"{id}","#)).unwrap_or_default();
        let value = format!(
            r#"{{{id_field}"event_type":"post.created","account_id":"{account}",
            "timestamp":"2026-01-05T09:00:00Z","priority":{priority},"key":"{key}",
            "data":{{"post_id":"p{sequence}","author_id":"{key}","text":"{sequence}"}}}}"#
        );
        let lane = Lane::of(Priority::from_number(priority.into()).expect("one of four"));
        let has_id = id.is_some();
        let (key_sent, text) = (key.clone(), sequence.to_string());
        let produced = ProducedInput::Event { account, key: key_sent, lane, id, text };
        let message = ProducedMessage { source, key, value: value.into_bytes(), produced };
        if has_id {
            self.again.push(message.clone());
        }
        message
    }

    /// An internal event that every task must get. Its own key is not one of the other entities'.
    fn lease(&mut self) -> ProducedMessage {
        self.sequence += 1;
        let (id, key) = (format!("l-{}", self.sequence), format!("g{}", self.random.below(3)));
        let value = format!(
            r#"{{"event_id":"{id}","event_type":"gateway.lease","account_id":"acc",
            "data":{{"gateway_id":"{key}","expires_at":{}}}}}"#,
            1_767_607_200_000 + self.sequence
        );
        let (account, of) = ("acc".to_owned(), key.clone());
        let produced = ProducedInput::Broadcast { account, key: of, id };
        let value = value.into_bytes();
        let message = ProducedMessage { source: AdmitInput::Internal, key, value, produced };
        self.again.push(message.clone());
        message
    }

    fn poison(&mut self) -> ProducedMessage {
        self.sequence += 1;
        let value = format!("!{}", self.sequence).into_bytes();
        let key = key_of(self.random.below(ENTITIES));
        ProducedMessage {
            source: AdmitInput::Main,
            key,
            produced: ProducedInput::Poison(value.clone()),
            value,
        }
    }

    fn poison_lane(&mut self, log: &FakeLog, topology: &Topology) {
        self.sequence += 1;
        let lane = Lane::ALL[self.random.index(Lane::COUNT)];
        let entity = self.random.below(ENTITIES);
        let (account, key) = (account_of(entity), key_of(entity));
        let value = format!("no avro {}", self.sequence).into_bytes();
        let at =
            TopicPartition::new(topology.lane(lane), topology.entity_partition(&account, &key));
        let is_fact = matches!(lane, Lane::Facts | Lane::FactsUrgent);
        let body = match is_fact && self.random.below(2) == 0 {
            true => pack_of(&key, &value),
            false => Body::new(Some(key.as_bytes()), Some(&value), &[]),
        };
        write(log, &at, body);
    }
}

/// A pack of three facts with this value, which is no event.
fn pack_of(key: &str, value: &[u8]) -> Body {
    let mut builder = FactPackBuilder::default();
    for hops in 1..4 {
        let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value));
        let fact = PackedFact { hops, time: Millis(1), operators: Bytes::new(), key, value };
        assert_eq!(builder.push(fact), None, "it fits");
    }
    builder.finish().expect("it has entries")
}

fn write(log: &FakeLog, at: &TopicPartition, body: Body) {
    let record = Outgoing { topic: at.topic.clone(), partition: at.partition, body };
    let mut producer = log.clone();
    let faults = std::mem::replace(&mut log.state().faults, false);
    producer.append(&[record]).expect("no faults");
    log.state().faults = faults;
}
