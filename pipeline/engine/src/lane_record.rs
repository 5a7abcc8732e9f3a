//! The layout of lane records and the header that ADMIT adds to them.
//!
//! ```text
//! key      the event's key
//! value    the event (Avro single-object)
//! headers  verdict · requeued-from and requeued-reason (if the record was requeued)
//! ```
//!
//! Its partition is that of its entity, account and key (`tidewire_schemas::partition`).

/// Header: what ADMIT decided, and the record's position in the input (`verdict.rs`).
pub const VERDICT: &str = "verdict";
