//! The cause of an operator call: an event or a due timer.
//!
//! Ids of emitted events are derived from it, so that executing the same cause again gives the same
//! ids.

use tidewire_schemas::Priority;
use tidewire_schemas::event::EventView;

use crate::record::{Partition, Record};
use crate::topology::Lane;

/// The header of a fact: one byte, the number of facts in a row, itself included.
pub(super) const HOPS: &str = "tw-hops";

/// The cause of the current operator call.
#[derive(Clone, Copy)]
pub(super) enum Trigger<'a> {
    /// An event, its encoded form, and the number of facts in a row that led to it; it is urgent if
    /// it is critical, or a fact that follows from a critical event.
    Event { event: &'a EventView<'a>, value: &'a [u8], hops: u8, urgent: bool },
    /// A timer of this partition, by its stored key.
    Timer { partition: Partition, stored: &'a [u8] },
}

impl<'a> Trigger<'a> {
    /// The cause that a lane's record is.
    pub(super) fn of(lane: Lane, record: &'a Record, event: &'a EventView<'a>) -> Self {
        let hops = match lane {
            Lane::Facts | Lane::FactsUrgent => {
                record.body.header(HOPS).and_then(|hops| hops.first().copied())
            }
            _ => None,
        };
        let value = record.body.value().unwrap_or_default();
        let urgent = event.priority == Priority::Critical || lane == Lane::FactsUrgent;
        Self::Event { event, value, hops: hops.unwrap_or(0), urgent }
    }

    /// The account and id from which ids of emitted events are derived, and the correlation id.
    pub(super) fn names(&self) -> (&'a str, String, Option<&'a str>) {
        match self {
            Self::Event { event, .. } => {
                (event.account_id, event.event_id.to_owned(), Some(event.correlation_id))
            }
            Self::Timer { partition, stored } => {
                let hex: String = stored.iter().map(|byte| format!("{byte:02x}")).collect();
                ("", format!("timer/{}/{hex}", partition.0), None)
            }
        }
    }
}
