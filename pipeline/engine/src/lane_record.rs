//! The layout of lane records and the headers that ADMIT adds to them.
//!
//! ```text
//! key      the event's key
//! value    the event (Avro single-object)
//! headers  src · v · requeued-from and requeued-reason (if the record was requeued)
//! ```
//!
//! Its partition is that of its entity, account and key (`tidewire_schemas::partition`).

/// Header: the position of its record in the input, `topic/partition/offset`.
pub const SOURCE: &str = "src";

/// Header: the hash of the settings that admitted it, 8 bytes, big-endian.
pub const SETTINGS_HASH: &str = "v";
