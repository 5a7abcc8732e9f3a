//! The cause of an operator call: an event or a due timer.
//!
//! Ids of emitted events are derived from it, so that executing the same cause again gives the same
//! ids.

use tidewire_schemas::event::EventView;

use crate::record::{Millis, Partition, Record};
use crate::topology::Lane;
use crate::verdict::Verdict;

/// The header of a fact: one byte, the number of facts in a row, itself included.
pub(super) const HOPS: &str = "tw-hops";

/// The header of a fact: the append time of its cause, 8 bytes, big-endian.
pub(super) const TIME: &str = "tw-time";

/// When a record of a lane was appended to the input: the verdict of ADMIT or the fact's header
/// says it. Any other record has only the time at which it was appended to the lane.
pub(super) fn append_time(lane: Lane, record: &Record, verdict: Option<&Verdict>) -> Millis {
    let of_fact = || match lane {
        Lane::Facts => record.body.header(TIME).and_then(|time| time.try_into().ok()),
        _ => None,
    };
    let stated = verdict.map(|verdict| verdict.append_time);
    let stated = stated.or_else(|| of_fact().map(|time| Millis(i64::from_be_bytes(time))));
    stated.unwrap_or(record.timestamp)
}

/// The cause of the current operator call.
#[derive(Clone, Copy)]
pub(super) enum Trigger<'a> {
    /// An event, its encoded form, and the number of facts in a row that led to it.
    Event { event: &'a EventView<'a>, value: &'a [u8], hops: u8 },
    /// A timer of this partition, by its stored key.
    Timer { partition: Partition, stored: &'a [u8] },
}

impl<'a> Trigger<'a> {
    /// The cause that a lane's record is.
    pub(super) fn of(lane: Lane, record: &'a Record, event: &'a EventView<'a>) -> Self {
        let hops = match lane {
            Lane::Facts => record.body.header(HOPS).and_then(|hops| hops.first().copied()),
            _ => None,
        };
        let value = record.body.value().unwrap_or_default();
        Self::Event { event, value, hops: hops.unwrap_or(0) }
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
