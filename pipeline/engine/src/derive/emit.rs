//! Events that operators write: to channels, to `out.state`, or as facts to another entity's task.
//!
//! An emitted event follows from its cause alone: its id is the operator and a hash of the cause's
//! id and a count. Executing the cause again (after an abort, in a replay, in another process)
//! gives the same event, so nothing is written twice. Its id begins with [`OPERATOR_SOURCE`], which
//! ADMIT refuses in events of producers. An operator may name an event instead, if several causes
//! mean the same one ([`Context::emit_once`]).
//!
//! An operator sees the state of its own event's key only. What concerns another entity becomes a
//! *fact*: an event keyed by that entity, written to a lane of facts in the same transaction and
//! processed by that entity's task. It has the append time of its cause. Facts that follow from
//! critical events have a lane of their own, and end their batch as soon as outputs of critical
//! events do. A header counts the facts and timers in a row; beyond [`MAX_HOPS`] the call that
//! would emit the next fact fails, so that two operators can't cause each other without end.

use std::borrow::Cow;

use bytes::Bytes;
use tidewire_schemas::Priority;
use tidewire_schemas::catalogue::{Class, Delivery, EventType, HOPS_MAX, OPERATOR_SOURCE, Routes};
use tidewire_schemas::event::EventView;
use tidewire_schemas::fields::Fields;
use tidewire_schemas::id::{hash128, hex};

use crate::derive::audit::layout::AuditItem;
use crate::derive::batch::{LocalEmission, TaskOutput};
use crate::derive::effect_limits::emission_excess;
use crate::derive::forward::{audited_copy, copy_for, fact, fact_output};
use crate::derive::input::Input;
use crate::derive::operator::{Context, OnFailure, OperatorError};
use crate::derive::pending_copies::PendingCopy;
use crate::derive::plan::Destinations;
use crate::derive::trigger::{CauseNames, Inherited, KeptCause, Trigger};
use crate::record::{Body, Outgoing};
use crate::topology::Lane;

/// Facts and timers that may follow from each other in a row.
pub const MAX_HOPS: u8 = HOPS_MAX;

/// Events that one event or timer may emit for operators of its own key, in all.
const EMISSIONS_MAX: usize = 1_024;

/// Bytes of a field that an operator sets in an event.
const AMENDED_MAX_BYTES: usize = 16 << 10;

/// An event as an operator emits it. Its event id and correlation id follow from its cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Emission<'a> {
    /// A type of the catalogue.
    pub event_type: &'a str,
    /// The account.
    pub account_id: &'a str,
    /// The entity it concerns.
    pub key: &'a str,
    /// Event time, milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// Decides the output topic. The lane of a fact follows from the priority of its cause.
    pub priority: Priority,
    /// A JSON object.
    pub data: &'a str,
}

/// What the id of an emitted event follows from.
#[derive(Clone, Copy)]
enum IdSource<'a> {
    /// The event or timer that caused it, and how many events it has emitted.
    Cause,
    /// A name that the operator gives it.
    Once(&'a str),
}

/// An event with the fields that operators have set; `None` if they have set none.
pub(super) fn amended_value(input: &Input<'_>, set: &[(String, String)]) -> Option<Vec<u8>> {
    let data = if set.is_empty() { None } else { Some(input.object()?.with(set)) }?;
    let event: &EventView<'_> = input;
    Some(EventView { data: &data, ..*event }.encode())
}

/// Which value of `out.state` to replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateKey<'a> {
    /// The channel.
    pub channel: &'a str,
    /// The state key within it; empty if the channel has one value.
    pub state_key: &'a str,
}

impl<'a> Context<'a> {
    /// Emits an event; the catalogue decides what happens to it. Operators of the current key that
    /// its type moves get it in this step, after this call, and then it is delivered. An event of
    /// another key goes to that key's task first. Operators of further keys get copies.
    ///
    /// Fails if the type is unknown or the event has no channel or key that it needs, and if too
    /// many facts and timers in a row led here.
    pub fn emit(&mut self, emission: &Emission<'_>) -> Result<(), OperatorError> {
        let next = self.next_event(IdSource::Cause, emission.key);
        let event = next.view(emission);
        self.emit_input(&Input::new(&event, self.catalogue()))
    }

    fn emit_input(&mut self, input: &Input<'_>) -> Result<(), OperatorError> {
        let event: &EventView<'_> = input;
        let found = input.deliveries();
        let deliveries = found.map_err(|error| OperatorError::Failed(error.to_string()))?;
        self.batch.audit.emitted(event);
        let value = event.encode();
        if (event.account_id, event.key) != (self.account(), self.key) {
            return self.write_fact(event, value);
        }
        let to = self.destinations(input);
        if !to.own.is_empty() {
            return self.put_emission(event, value);
        }
        for delivery in &deliveries {
            self.write_to(event, &value, delivery);
        }
        let shared = Bytes::from(value);
        for other in &to.others {
            let inherited = self.next_hop(event.event_type)?;
            let to = PendingCopy::of(self.rules, other);
            let copy = copy_for(&to, shared.clone(), inherited);
            let lane = self.batch.lane_of_fact(inherited.lane);
            self.batch.audit.add(&AuditItem::Copied(audited_copy(&to, lane)));
            let output = fact_output(self.rules, event.account_id, lane, copy);
            self.write(event.event_type, output);
        }
        Ok(())
    }

    /// Emits an event of the current account: its key and its priority are those that the catalogue
    /// says for this data, a JSON object.
    pub fn emit_event(
        &mut self,
        event_type: &str,
        timestamp_ms: i64,
        data: &str,
    ) -> Result<(), OperatorError> {
        self.emit_known(IdSource::Cause, event_type, timestamp_ms, data)
    }

    /// The same, but the event's id follows from `once`, the operator and the key it runs for. If
    /// several causes mean one event, its id is the same whichever of them is processed first.
    /// The operator remembers that it has emitted it.
    pub fn emit_once(
        &mut self,
        once: &str,
        event_type: &str,
        timestamp_ms: i64,
        data: &str,
    ) -> Result<(), OperatorError> {
        self.emit_known(IdSource::Once(once), event_type, timestamp_ms, data)
    }

    fn emit_known(
        &mut self,
        id: IdSource<'_>,
        event_type: &str,
        timestamp_ms: i64,
        data: &str,
    ) -> Result<(), OperatorError> {
        let (known, fields) = self.scan_data(event_type, data)?;
        let (account_id, key) = (self.account(), self.key_by(known, &fields)?.into_owned());
        let priority = known.priority_of(&fields);
        let emission = Emission { event_type, account_id, key: &key, timestamp_ms, priority, data };
        let next = self.next_event(id, &key);
        let event = next.view(&emission);
        self.emit_input(&Input::scanned(&event, known, fields))
    }

    /// Writes a part of a total of the current account: a fact for the task of the key that the
    /// catalogue says for this data.
    pub(super) fn emit_part(&mut self, event_type: &str, data: &str) -> Result<(), OperatorError> {
        let (known, fields) = self.scan_data(event_type, data)?;
        let (account_id, key) = (self.account(), &self.key_by(known, &fields)?[..]);
        let (timestamp_ms, priority) = (self.time().0, known.priority_of(&fields));
        self.fact(&Emission { event_type, account_id, key, timestamp_ms, priority, data })
    }

    /// A type of the catalogue, and the fields of data.
    fn scan_data<'d>(
        &self,
        event_type: &str,
        data: &'d str,
    ) -> Result<(&'static EventType, Fields<'d>), OperatorError> {
        let known = self.catalogue().resolve(event_type).zip(Fields::of(data));
        known.ok_or_else(|| {
            OperatorError::Failed(format!("{event_type} is no type, or its data is no object"))
        })
    }

    /// The key of an event of the current account, by its type.
    fn key_by<'d>(
        &self,
        known: &EventType,
        fields: &'d Fields<'_>,
    ) -> Result<Cow<'d, str>, OperatorError>
    where
        Self: 'd,
    {
        known.key_of(self.account(), fields).ok_or_else(|| {
            OperatorError::Failed(format!("the data of {} has no key of its type", known.name))
        })
    }

    /// Writes a fact: an event for the task of its key, even if that is the current one. Fails if
    /// the current event or timer already follows from [`MAX_HOPS`] hops.
    pub fn fact(&mut self, emission: &Emission<'_>) -> Result<(), OperatorError> {
        let next = self.next_event(IdSource::Cause, emission.key);
        let event = next.view(emission);
        self.batch.audit.emitted(&event);
        self.write_fact(&event, event.encode())
    }

    /// Sets a field of the current event before it is delivered, as JSON text. Only an operator of
    /// the event's own key can, and only a field of the event's type.
    pub fn amend(&mut self, field: &str, json: &str) {
        let Trigger::Event { event, .. } = self.trigger else {
            self.excess.get_or_insert_with(|| "only an event can be amended".to_owned());
            return;
        };
        let known = self.catalogue().resolve(event.event_type).and_then(|of| of.field(field));
        let why = if known.is_none() {
            format!("{} has no field {field}, so it can't be amended", event.event_type)
        } else if self.key != event.key {
            format!("only the task of the event's own key can amend {field}")
        } else if json.len() > AMENDED_MAX_BYTES {
            format!("{field} has {} bytes, and {AMENDED_MAX_BYTES} is the limit", json.len())
        } else {
            return self.batch.amend(field, json.to_owned());
        };
        self.excess.get_or_insert(why);
    }

    fn write_fact(&mut self, event: &EventView<'_>, value: Vec<u8>) -> Result<(), OperatorError> {
        let inherited = self.next_hop(event.event_type)?;
        let fact = fact(event.key, value.into(), inherited);
        let lane = self.batch.lane_of_fact(inherited.lane);
        self.batch.audit.add(&AuditItem::ToKey(lane));
        let output = fact_output(self.rules, event.account_id, lane, fact);
        self.write(event.event_type, output);
        Ok(())
    }

    fn put_emission(&mut self, event: &EventView<'_>, value: Vec<u8>) -> Result<(), OperatorError> {
        let inherited = self.next_hop(event.event_type)?;
        if self.batch.emissions() >= EMISSIONS_MAX {
            return Err(OperatorError::Failed(format!(
                "{EMISSIONS_MAX} events of one cause wait for operators of their key, which is the \
                 limit; emit fewer events at once"
            )));
        }
        match emission_excess(event.event_type, value.len(), self.batch.caused()) {
            None => {
                self.batch.audit.add(&AuditItem::ToOperators);
                self.batch.put_emission(LocalEmission { value: value.into(), inherited });
            }
            Some(excess) => drop(self.excess.get_or_insert(excess)),
        }
        Ok(())
    }

    /// What a fact inherits that is written now.
    pub(super) fn next_hop(&self, event_type: &str) -> Result<Inherited, OperatorError> {
        let mut inherited = self.trigger.inherited(self.time());
        if let Some(KeptCause { time, hops, .. }) = &self.kept {
            inherited.time = *time;
            inherited.hops = inherited.hops.max(hops.saturating_add(1));
        }
        if inherited.hops <= MAX_HOPS {
            return Ok(inherited);
        }
        let hops = inherited.hops - 1;
        Err(OperatorError::Failed(format!(
            "{hops} facts and timers in a row led here, and {MAX_HOPS} is the limit, so no fact \
             {event_type} is emitted; check which operators cause each other"
        )))
    }

    /// Where an event goes by the routing plan.
    fn destinations(&self, input: &Input<'_>) -> Destinations {
        let Some(event_type) = input.known() else { return Destinations::default() };
        self.rules.plan.destinations(event_type, input, &mut Routes::default())
    }

    /// Writes the latest value of a channel's state key, which `event` caused, to `out.state`.
    pub fn publish(&mut self, event: &EventView<'_>, at: StateKey<'_>, value: &[u8]) {
        let StateKey { channel, state_key } = at;
        self.batch.audit.add(&AuditItem::ToState(channel, state_key));
        let topology = self.rules.topology;
        let key = [channel, event.account_id, state_key].join("\0");
        let body = Body::new(Some(key.as_bytes()), Some(value), &[]);
        let partition = topology.partition_of(channel.as_bytes());
        let record = Outgoing { topic: topology.out_state().clone(), partition, body };
        self.write(event.event_type, record);
        self.batch.urgent |= Lane::of(event.priority) == Lane::Critical;
    }

    /// Writes the current event to channels: byte for byte, unless operators have amended it.
    pub(super) fn deliver(&mut self, event: &Input<'_>, to: &[Delivery]) {
        let Trigger::Event { value, .. } = self.trigger else { return };
        let amended = amended_value(event, self.batch.amended());
        for delivery in to {
            self.write_to(event, amended.as_deref().unwrap_or(value), delivery);
        }
    }

    /// Ephemeral and derived channels get no output: ADMIT has written the former, and nothing is
    /// written for the latter.
    fn write_to(&mut self, event: &EventView<'_>, value: &[u8], to: &Delivery) {
        let topology = self.rules.topology;
        let lane = Lane::of(event.priority);
        let topic = match to.class {
            Class::Ephemeral | Class::Derived => return,
            Class::State => {
                let state_key = to.state_key.as_deref().unwrap_or_default();
                let at = StateKey { channel: &to.channel, state_key };
                return self.publish(event, at, value);
            }
            Class::Stream if lane == Lane::Critical => topology.out_urgent(),
            Class::Stream => topology.out_stream(),
        };
        self.batch.audit.add(&match lane {
            Lane::Critical => AuditItem::ToUrgentChannel(&to.channel),
            _ => AuditItem::ToChannel(&to.channel),
        });
        let channel = to.channel.as_bytes();
        let body = Body::new(Some(channel), Some(value), &[]);
        let partition = topology.partition_of(channel);
        let record = Outgoing { topic: topic.clone(), partition, body };
        self.write(event.event_type, record);
        self.batch.urgent |= lane == Lane::Critical;
    }

    /// Adds an entry of a state channel of this kind, or its tombstone.
    pub(super) fn write_state(&mut self, kind: &str, record: Outgoing) {
        self.batch.audit.state_written(&record);
        self.write(kind, record);
        self.batch.urgent |= self.trigger.is_urgent();
    }

    /// Adds an output of an event of this type. If it is too large, the call fails.
    fn write(&mut self, event_type: &str, output: impl Into<TaskOutput>) {
        let output = output.into();
        if self.operator.on_failure() == OnFailure::RollBackEvent {
            // Delivery writes the event itself, which ADMIT has limited.
            return self.batch.emit(output);
        }
        match emission_excess(event_type, output.bytes(), self.batch.caused()) {
            None => self.batch.emit_caused(output),
            Some(excess) => drop(self.excess.get_or_insert(excess)),
        }
    }

    /// What follows from the cause for the next event that the operator emits.
    fn next_event(&mut self, id_source: IdSource<'_>, key: &str) -> NextEvent<'a> {
        let CauseNames { account, id, correlation } = self.trigger.names();
        // An operator may run for several keys of one event, in different tasks, and emit for
        // several keys each time.
        let (own, own_len) = (self.key, self.key.len().to_string());
        let parts = match id_source {
            IdSource::Cause => {
                let (len, emitted) = (id.len().to_string(), self.emitted.to_string());
                [&len, ":", &id, "/", &own_len, ":", own, "/", &emitted, "/", key].concat()
            }
            // Begins with no digit, so it is no id of a cause.
            IdSource::Once(once) => ["once/", &own_len, ":", own, "/", once].concat(),
        };
        self.emitted += 1;
        let (name, hash) = (self.operator.name(), hash128(account, &parts));
        let kept = self.kept.as_ref().map(|kept| Cow::Owned(kept.correlation.clone()));
        NextEvent {
            id: [OPERATOR_SOURCE, name, "/", &hex(&hash)].concat(),
            source_len: OPERATOR_SOURCE.len() + name.len(),
            correlation: kept.unwrap_or(Cow::Borrowed(correlation)),
        }
    }
}

/// What follows from the cause of an emitted event.
struct NextEvent<'a> {
    /// The id, which begins with the source.
    id: String,
    source_len: usize,
    correlation: Cow<'a, str>,
}

impl NextEvent<'_> {
    /// The event as it is written.
    fn view<'e>(&'e self, emission: &Emission<'e>) -> EventView<'e> {
        let Emission { event_type, account_id, key, timestamp_ms, priority, data } = *emission;
        EventView {
            event_id: &self.id,
            event_type,
            account_id,
            timestamp_ms,
            correlation_id: &self.correlation,
            priority,
            key,
            source: Some(&self.id[..self.source_len]),
            alias: None,
            data,
        }
    }
}

#[cfg(test)]
mod tests {
    use tidewire_schemas::catalogue::Catalogue;
    use tidewire_schemas::event::Event;

    use super::*;
    use crate::derive::derive_loop::DeriveConfig;
    use crate::derive::id_filter::DEDUP_FILTER_BYTES;
    use crate::derive::memory_store::MemoryStore;
    use crate::derive::progress::TaskProgress;
    use crate::derive::sandbox::{Sandbox, StoredTask};
    use crate::derive::{Flow, Operator, TopologyDriver};
    use crate::fact_pack::{HOPS, decode};
    use crate::record::{Millis, Offset, Partition, Record};
    use crate::topology::Topology;

    /// Emits twice for each event, once to channels and once as a fact.
    struct Echo;

    impl Operator for Echo {
        fn number(&self) -> u8 {
            97
        }

        fn name(&self) -> &'static str {
            "echo"
        }

        fn on_event(
            &self,
            event: &Input<'_>,
            context: &mut Context<'_>,
        ) -> Result<Flow, OperatorError> {
            // Of this type only emitted events are delivered.
            let emission = Emission {
                event_type: "conversation.updated",
                account_id: event.account_id,
                key: event.key,
                timestamp_ms: event.timestamp_ms,
                priority: event.priority,
                data: r#"{"conversation_id":"c1"}"#,
            };
            context.emit(&emission)?;
            context.fact(&emission)?;
            Ok(Flow::Continue)
        }
    }

    /// Writes a fact of normal priority for each event.
    struct FactRelay;

    impl Operator for FactRelay {
        fn number(&self) -> u8 {
            96
        }

        fn name(&self) -> &'static str {
            "relay"
        }

        fn on_event(
            &self,
            event: &Input<'_>,
            context: &mut Context<'_>,
        ) -> Result<Flow, OperatorError> {
            context.fact(&Emission {
                event_type: "conversation.updated",
                account_id: event.account_id,
                key: "bob",
                timestamp_ms: event.timestamp_ms,
                priority: Priority::Normal,
                data: r#"{"conversation_id":"c1"}"#,
            })?;
            Ok(Flow::Continue)
        }
    }

    /// An event of `alice` in this account.
    fn event(account: &str, priority: Priority) -> Event {
        Event {
            event_id: "e-1".to_owned(),
            event_type: "post.created".to_owned(),
            account_id: account.to_owned(),
            timestamp_ms: 5,
            correlation_id: "c-1".to_owned(),
            priority,
            key: "alice".to_owned(),
            source: Some("http".to_owned()),
            alias: None,
            data: r#"{"post_id":"p1","author_id":"alice","text":"hello"}"#.to_owned(),
        }
    }

    #[test]
    fn facts_that_follow_from_a_critical_event_go_to_the_urgent_lane_for_all_their_hops() {
        let mut driver = TopologyDriver::new(&[&FactRelay]);
        driver.pipe_input(&event("acc", Priority::High));
        let [ordinary, urgent] =
            [Lane::Facts, Lane::FactsUrgent].map(|lane| driver.topology().lane(lane).clone());
        assert_eq!(driver.read_output(&ordinary).len(), 1);
        assert_eq!(driver.read_output(&urgent), []);
        driver.pipe_input(&event("acc", Priority::Critical));
        for hop in 1..=MAX_HOPS {
            assert_eq!(driver.read_output(&ordinary), []);
            let facts = driver.read_output(&urgent);
            assert_eq!((facts.len(), facts[0].header(HOPS)), (1, Some(&[hop][..])));
            driver.pipe_fact(Lane::FactsUrgent, &facts[0]);
        }
        assert_eq!(driver.read_output(&urgent), [], "the last one has too many hops");
        driver.replay().unwrap();
    }

    #[test]
    fn a_fact_is_in_the_partition_of_its_entity() {
        let topology = Topology::new("t.", 8);
        let config = DeriveConfig {
            topology: topology.clone(),
            instance: "one".to_owned(),
            thread: 0,
            build: "test".to_owned(),
            settings_hash: 0,
            catalogue: Catalogue::builtin(),
            standby: false,
            dedup_filter_bytes: DEDUP_FILTER_BYTES,
            hash_seed: 0,
        };
        let (store, progress) = (Box::<MemoryStore>::default(), TaskProgress::default());
        let stored = StoredTask { partition: Partition(0), store, progress };
        let mut sandbox = Sandbox::new(config, &[&Echo], stored).unwrap();
        for n in 0..64 {
            let value = event(&format!("a{n}"), Priority::Normal).encode();
            let body = Body::new(None, Some(&value), &[]);
            let record = Record { offset: Offset(n), timestamp: Millis(0), body };
            sandbox.take(Lane::Normal, &record).unwrap();
        }
        let outputs = sandbox.commit().unwrap().outputs;
        let mut reached = [0; 8];
        for pack in outputs.iter().filter(|output| output.topic == *topology.facts()) {
            for fact in decode(&pack.body.value_bytes().unwrap()).unwrap() {
                let fact = fact.to_body();
                let event = EventView::decode(fact.value().unwrap()).unwrap();
                let partition = topology.entity_partition(event.account_id, event.key);
                assert_eq!(pack.partition, partition, "{}", event.account_id);
                reached[partition.0 as usize] += 1;
            }
        }
        assert!(reached.iter().all(|facts| *facts > 0), "{reached:?}");
    }

    /// Emits the same event for each event of a key.
    struct OnceEmitter;

    impl Operator for OnceEmitter {
        fn number(&self) -> u8 {
            95
        }

        fn name(&self) -> &'static str {
            "once"
        }

        fn on_event(
            &self,
            event: &Input<'_>,
            context: &mut Context<'_>,
        ) -> Result<Flow, OperatorError> {
            let data = r#"{"conversation_id":"alice"}"#;
            context.emit_once("n1", "conversation.updated", event.timestamp_ms, data)?;
            Ok(Flow::Continue)
        }
    }

    #[test]
    fn the_id_of_a_named_event_follows_from_its_name_account_and_key_alone() {
        let mut driver = TopologyDriver::new(&[&OnceEmitter]);
        let of = |id: &str, account: &str, key: &str| Event {
            event_id: id.to_owned(),
            key: key.to_owned(),
            ..event(account, Priority::Normal)
        };
        let inputs =
            [("1", "a", "alice"), ("2", "a", "alice"), ("3", "a", "bob"), ("4", "b", "alice")];
        let mut ids = Vec::new();
        for (id, account, key) in inputs {
            driver.pipe_input(&of(id, account, key));
            let topics =
                [driver.topology().out_stream().clone(), driver.topology().facts().clone()];
            let bodies = topics.iter().flat_map(|topic| driver.read_output(topic));
            let body = bodies.last().expect("it emits one");
            let emitted = EventView::decode(body.value().unwrap()).unwrap();
            ids.push(emitted.event_id.to_owned());
        }
        assert_eq!(ids[0], ids[1]);
        assert!(ids[2] != ids[0] && ids[3] != ids[0] && ids[3] != ids[2], "{ids:?}");
        driver.replay().unwrap();
    }

    #[test]
    fn emitted_events_name_their_operator_in_source_and_id() {
        let mut driver = TopologyDriver::new(&[&Echo]);
        driver.pipe_input(&event("acc", Priority::Normal));
        let mut ids = Vec::new();
        for topic in [driver.topology().out_stream().clone(), driver.topology().facts().clone()] {
            let emitted = driver.read_output(&topic);
            let emitted = EventView::decode(emitted[0].value().unwrap()).unwrap();
            assert_eq!((emitted.source, emitted.correlation_id), (Some("op/echo"), "c-1"));
            ids.push(emitted.event_id.to_owned());
        }
        assert!(ids.iter().all(|id| id.starts_with("op/echo/")) && ids[0] != ids[1], "{ids:?}");
        driver.replay().unwrap();
    }
}
