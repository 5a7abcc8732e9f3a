//! Delivery: writes an event to the channels its type's entry in the catalogue names.
//!
//! The record's value is the lane record's, byte for byte; only the key differs, so nothing is
//! encoded twice on its way to a subscriber.

use tidewire_schemas::event::EventView;

use crate::derive::operator::{Context, Flow, Operator, OperatorError};

/// The operator.
pub struct ChannelDelivery;

impl Operator for ChannelDelivery {
    fn number(&self) -> u8 {
        2
    }

    fn name(&self) -> &'static str {
        "delivery"
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
