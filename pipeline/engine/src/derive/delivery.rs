//! Delivery: writes an event to the channels that the catalogue's entry of its type names.
//!
//! Every task has a copy of a broadcast event; the task of its key delivers it.
//!
//! The output's value is the lane record's, byte for byte; only the key differs, so an event is
//! encoded once on its way from ADMIT to a subscriber. Only an event that operators have amended is
//! encoded again.

use crate::derive::input::Input;
use crate::derive::operator::{Context, Flow, OnFailure, Operator, OperatorError};

/// The operator of delivery.
pub struct ChannelDelivery;

impl Operator for ChannelDelivery {
    fn number(&self) -> u8 {
        2
    }

    fn name(&self) -> &'static str {
        "delivery"
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::RollBackEvent
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        if context.is_copy(event) {
            return Ok(Flow::Continue);
        }
        let found = event.deliveries();
        let deliveries = found.map_err(|error| OperatorError::Failed(error.to_string()))?;
        context.deliver(event, &deliveries);
        Ok(Flow::Continue)
    }
}

#[cfg(test)]
mod tests {
    use tidewire_schemas::Priority;
    use tidewire_schemas::catalogue::Catalogue;
    use tidewire_schemas::event::Event;

    use super::*;
    use crate::derive::audit::AuditMode;
    use crate::derive::dedup::Dedup;
    use crate::derive::id_filter::IdFilter;
    use crate::derive::memory_store::MemoryStore;
    use crate::derive::operator::{Rules, plan_of};
    use crate::derive::progress::TaskProgress;
    use crate::derive::running::{RestoredTask, RunningTask};
    use crate::record::{Body, Millis, Offset, Partition, Record};
    use crate::task_state::TaskState;
    use crate::topology::{Lane, Topology};
    use crate::value_level::ValueLevel;
    use crate::verdict::TopicId;

    const PARTITIONS: u32 = 4;

    const CHANNELS: &str = r#"
        [kinds.account]
        id = "account"
        classes = ["stream"]
        who = ["member"]
        carries = "rules"
    "#;

    const TYPES: &str = r#"
        title = "Test"
        [defaults]
        priority = 1
        key = ["account_id"]
        channels = ["account"]
        [types."rule.changed"]
        internal = true
        broadcast = true
        data = "rule_id"
    "#;

    fn event(id: &str) -> Event {
        Event {
            event_id: id.to_owned(),
            event_type: "rule.changed".to_owned(),
            account_id: "acc".to_owned(),
            timestamp_ms: 0,
            correlation_id: id.to_owned(),
            priority: Priority::Normal,
            key: "acc".to_owned(),
            source: None,
            alias: None,
            data: r#"{"rule_id":"r1"}"#.to_owned(),
        }
    }

    /// The channels that a task writes these events to, and how many ids it accepts.
    fn processed(rules: Rules<'_>, partition: Partition, events: &[Event]) -> (usize, usize) {
        let restored = RestoredTask {
            partition,
            state: TaskState::new(Box::<MemoryStore>::default()),
            ids: IdFilter::new(0),
            progress: TaskProgress::default(),
            positions: [Offset(0); Lane::COUNT],
            lane_ids: [TopicId::default(); Lane::COUNT],
            level: ValueLevel::FIRST,
        };
        let mut task = RunningTask::new(restored, rules).expect("a store in memory");
        for (n, event) in events.iter().enumerate() {
            let body = Body::new(Some(b"acc"), Some(&event.encode()), &[]);
            let record = Record { offset: Offset(n as u64), timestamp: Millis(5), body };
            task.process(rules, Lane::Normal, &record).expect("a store in memory");
        }
        let mut outputs = Vec::new();
        task.batch.take_outputs(&mut outputs);
        (outputs.len(), events.len() - task.batch.counts.duplicates as usize)
    }

    #[test]
    fn each_task_takes_a_broadcast_event_once_and_the_one_of_its_key_delivers_it() {
        let catalogue = Catalogue::load(&[("channels", CHANNELS), ("test", TYPES)]);
        let catalogue: &'static Catalogue = Box::leak(Box::new(catalogue.expect("consistent")));
        let topology = Topology::new("t.", PARTITIONS);
        const OPERATORS: &[&dyn Operator] = &[&Dedup, &ChannelDelivery];
        let plan = &plan_of(catalogue, OPERATORS);
        let rules = Rules {
            topology: &topology,
            catalogue,
            operators: OPERATORS,
            plan,
            audit: AuditMode::On,
        };
        let owner = topology.entity_partition("acc", "acc");
        // ADMIT wrote the first event twice, after a crash between the copies.
        let events = [event("e-1"), event("e-1"), event("e-2")];
        for partition in (0..PARTITIONS).map(Partition) {
            let delivered = if partition == owner { 2 } else { 0 };
            assert_eq!(processed(rules, partition, &events), (delivered, 2), "{partition:?}");
        }
    }
}
