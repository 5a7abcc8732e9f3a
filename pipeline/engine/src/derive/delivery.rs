//! Delivery: writes an event to the channels that the catalogue's entry of its type names.
//!
//! The output's value is the lane record's, byte for byte; only the key differs, so an event is
//! encoded once on its way from ADMIT to a subscriber.

use tidewire_schemas::event::EventView;

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
        event: &EventView<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        let deliveries = context
            .catalogue()
            .deliveries(event)
            .map_err(|error| OperatorError::Failed(error.to_string()))?;
        for delivery in &deliveries {
            context.deliver(event, delivery);
        }
        Ok(Flow::Continue)
    }
}
