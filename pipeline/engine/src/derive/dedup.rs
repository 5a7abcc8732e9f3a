//! De-duplication: each (account, event id) is accepted once in [`WINDOW_MS`] of task time.
//!
//! Copies of an event have the same key and so the same partition, whatever their lane; the check
//! is local and exact. It drops ADMIT's second copy after a crash and a producer's own retry alike.
//!
//! ```text
//! table 1  16-byte hash of account and event id → task time it was accepted, 8 bytes big-endian
//! ```
//!
//! Expiry is logical: an id older than the window counts as new whether or not the store has
//! dropped it. The changelog is the `order` record, so an accepted id is written only once.

use tidewire_schemas::event::EventView;
use tidewire_schemas::id::hash128;

use crate::derive::operator::{Context, Flow, OnFailure, Operator, OperatorError};
use crate::derive::table_decl::{Changelog, TableDecl};
use crate::port::{Table, TableExpiry, TableSpec};
use crate::record::Millis;

/// The table of accepted ids.
pub const IDS: Table = Table(1);

/// Milliseconds of task time during which a second event with the same id is a duplicate.
pub const WINDOW_MS: i64 = 24 * 3_600_000;

/// The operator of de-duplication.
pub struct Dedup;

impl Operator for Dedup {
    fn number(&self) -> u8 {
        1
    }

    fn name(&self) -> &'static str {
        "dedup"
    }

    fn tables(&self) -> &'static [TableDecl] {
        &[TableDecl {
            spec: TableSpec { table: IDS, name: "ids", expiry: TableExpiry::ByValueTime },
            changelog: Changelog::Order,
            window_ms: WINDOW_MS,
        }]
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::RollBackEvent
    }

    fn on_event(
        &self,
        event: &EventView<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        let id = hash128(event.account_id, event.event_id);
        let seen = context.get(IDS, &id)?.and_then(|value| seen_at(&value));
        if seen.is_some_and(|at| context.time().0.saturating_sub(at.0) < WINDOW_MS) {
            return Ok(Flow::Duplicate);
        }
        context.accept(IDS, id);
        Ok(Flow::Continue)
    }
}

fn seen_at(value: &[u8]) -> Option<Millis> {
    Some(Millis(i64::from_be_bytes(*value.first_chunk()?)))
}
