//! Events that operators write: to channels, to `out.state`, or as facts to another entity's task.
//!
//! An emitted event follows from its cause alone: its id is the operator and a hash of the cause's
//! id and a count. Executing the cause again (after an abort, in a replay, in another process)
//! gives the same event, so nothing is written twice. Its id begins with [`OPERATOR_SOURCE`], which
//! ADMIT refuses in events of producers.
//!
//! An operator sees the state of its own event's key only. What concerns another entity becomes a
//! *fact*: an event keyed by that entity, written to `lane.facts` in the same transaction and
//! processed by that entity's task. It has the append time of its cause. A header counts the facts
//! in a row; beyond [`MAX_HOPS`] the
//! event that would cause the next one becomes a dead letter, so that two operators can't cause
//! each other without end.

use tidewire_schemas::Priority;
use tidewire_schemas::catalogue::{Class, Delivery, OPERATOR_SOURCE};
use tidewire_schemas::event::EventView;
use tidewire_schemas::id::hash128;

use crate::derive::operator::{Context, OperatorError};
use crate::derive::trigger::{HOPS, TIME, Trigger};
use crate::record::{Body, Outgoing};
use crate::topology::Lane;

/// Facts that may follow from each other in a row.
pub const MAX_HOPS: u8 = 4;

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
    /// Decides the output topic; facts go to `lane.facts` whatever it is.
    pub priority: Priority,
    /// A JSON object.
    pub data: &'a str,
}

/// Which value of `out.state` to replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateKey<'a> {
    /// The channel.
    pub channel: &'a str,
    /// The state key within it; empty if the channel has one value.
    pub state_key: &'a str,
}

impl Context<'_> {
    /// Writes a fact for another entity's task, visible in `lane.facts` once this transaction is
    /// committed. Fails if the current event already follows from [`MAX_HOPS`] facts.
    pub fn fact(&mut self, emission: &Emission<'_>) -> Result<(), OperatorError> {
        let hops = match self.trigger {
            Trigger::Event { hops, .. } => hops,
            Trigger::Timer { .. } => 0,
        };
        if hops >= MAX_HOPS {
            return Err(OperatorError::Failed(format!(
                "this event follows from {MAX_HOPS} facts in a row, the limit, so no fact {} is \
                 emitted; check which operators cause each other",
                emission.event_type
            )));
        }
        let value = self.encode(emission);
        let topology = self.rules.topology;
        let hops = [hops + 1];
        let time = self.time().0.to_be_bytes();
        let headers: &[(&str, &[u8])] = &[(HOPS, &hops), (TIME, &time)];
        let body = Body::new(Some(emission.key.as_bytes()), Some(&value), headers);
        let partition = topology.partition_of(emission.key.as_bytes());
        self.batch.emit(Outgoing { topic: topology.facts().clone(), partition, body });
        Ok(())
    }

    /// Writes an event to the channels that its type names.
    pub fn emit(&mut self, emission: &Emission<'_>) -> Result<(), OperatorError> {
        let value = self.encode(emission);
        let event = EventView::decode(&value)
            .map_err(|error| OperatorError::Failed(format!("emitting: {error}")))?;
        let deliveries = self
            .catalogue()
            .deliveries(&event)
            .map_err(|error| OperatorError::Failed(error.to_string()))?;
        for to in &deliveries {
            self.write(&event, &value, to);
        }
        Ok(())
    }

    /// Writes the latest value of a channel's state key, which `event` caused, to `out.state`.
    pub fn publish(&mut self, event: &EventView<'_>, at: StateKey<'_>, value: &[u8]) {
        let StateKey { channel, state_key } = at;
        let topology = self.rules.topology;
        let key = [channel, event.account_id, state_key].join("\0");
        let body = Body::new(Some(key.as_bytes()), Some(value), &[]);
        let partition = topology.partition_of(channel.as_bytes());
        self.batch.emit(Outgoing { topic: topology.out_state().clone(), partition, body });
        self.batch.urgent |= Lane::of(event.priority) == Lane::Critical;
    }

    /// Writes the current event to one channel, byte for byte.
    pub(super) fn deliver(&mut self, event: &EventView<'_>, to: &Delivery) {
        if let Trigger::Event { value, .. } = self.trigger {
            self.write(event, value, to);
        }
    }

    /// Ephemeral and derived channels get no output: ADMIT has written the former, and nothing is
    /// written for the latter.
    fn write(&mut self, event: &EventView<'_>, value: &[u8], to: &Delivery) {
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
        let channel = to.channel.as_bytes();
        let body = Body::new(Some(channel), Some(value), &[]);
        let partition = topology.partition_of(channel);
        self.batch.emit(Outgoing { topic: topic.clone(), partition, body });
        self.batch.urgent |= lane == Lane::Critical;
    }

    fn encode(&mut self, emission: &Emission<'_>) -> Vec<u8> {
        let (account, trigger, belongs_to) = self.trigger.names();
        let hash = hash128(account, &format!("{trigger}/{}", self.emitted));
        self.emitted += 1;
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let source = format!("{OPERATOR_SOURCE}{}", self.operator.name());
        let event_id = format!("{source}/{hex}");
        EventView {
            event_id: &event_id,
            event_type: emission.event_type,
            account_id: emission.account_id,
            timestamp_ms: emission.timestamp_ms,
            correlation_id: belongs_to.unwrap_or(&event_id),
            priority: emission.priority,
            key: emission.key,
            source: Some(&source),
            alias: None,
            data: emission.data,
        }
        .encode()
    }
}

#[cfg(test)]
mod tests {
    use tidewire_schemas::event::Event;

    use super::*;
    use crate::derive::{Flow, Operator, TopologyDriver};

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
            event: &EventView<'_>,
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

    #[test]
    fn emitted_events_name_their_operator_in_source_and_id() {
        let mut driver = TopologyDriver::new(&[&Echo]);
        driver.pipe_input(&Event {
            event_id: "e-1".to_owned(),
            event_type: "post.created".to_owned(),
            account_id: "acc".to_owned(),
            timestamp_ms: 5,
            correlation_id: "c-1".to_owned(),
            priority: Priority::Normal,
            key: "alice".to_owned(),
            source: Some("http".to_owned()),
            alias: None,
            data: r#"{"post_id":"p1","author_id":"alice","text":"hello"}"#.to_owned(),
        });
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
