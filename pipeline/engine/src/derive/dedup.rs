//! De-duplication: an event is a duplicate if one with its id was appended within [`WINDOW_MS`].
//!
//! Copies of an event have the same key and so the same partition, whatever their lane; the check
//! is local and exact. It drops a producer's own retry. Facts of DERIVE are not looked at: they are
//! written and processed exactly once. ADMIT's second copies are dropped before it
//! (`source_offsets.rs`).
//!
//! ```text
//! table 1  16-byte hash of account and event id → its times (`accepted_id.rs`)
//! ```
//!
//! What counts is when both events were appended to the input, in either order, and not when they
//! are processed: after an outage a lane can be a day behind another one.
//!
//! An id is kept until the settled time is a window later, when no lane can hold a copy any more.
//! That of an event that is late already (ADMIT was stopped for a day) is kept for a window from
//! then on. An expired id counts as absent whether or not the store has dropped it. The changelog
//! is the `order` record, so an accepted id is written only once.
//!
//! Nearly all ids are new. A filter in memory (`id_filter.rs`) rules them out, so that the state is
//! read only for copies.

use tidewire_schemas::id::hash128;

use crate::derive::accepted_id::AcceptedId;
use crate::derive::input::Input;
use crate::derive::operator::{Context, Flow, OnFailure, Operator, OperatorError};
use crate::derive::plan::Events;
use crate::derive::stores::unreadable;
use crate::derive::table_decl::{Changelog, TableDecl};
use crate::port::{TableExpiry, TableSpec};
use crate::value_level::ValueLevel;

pub use crate::derive::accepted_id::{IDS, WINDOW_MS};

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
            level: ValueLevel::FIRST,
        }]
    }

    fn events(&self) -> Events {
        Events::Admitted
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::RollBackEvent
    }

    fn on_event(
        &self,
        event: &Input<'_>,
        context: &mut Context<'_>,
    ) -> Result<Flow, OperatorError> {
        let id = hash128(event.account_id, event.event_id);
        if let Some(value) = context.accepted(IDS, &id)? {
            let seen = AcceptedId::decode(&value).ok_or_else(|| unreadable(IDS, "value"))?;
            if is_duplicate(seen, context) {
                return Ok(Flow::Duplicate);
            }
        }
        context.accept(IDS, id);
        Ok(Flow::Continue)
    }
}

/// Whether the current event is a duplicate of an accepted one.
fn is_duplicate(seen: AcceptedId, context: &Context<'_>) -> bool {
    let is_kept = context.settled().0.saturating_sub(seen.since.0) < WINDOW_MS;
    is_kept && context.time().0.abs_diff(seen.at.0) < WINDOW_MS.unsigned_abs()
}
