//! Headers that ADMIT adds to the records of lanes.
//!
//! ```text
//! key      the event's key
//! value    the event (Avro single-object)
//! headers  src · v · requeued-from and requeued-reason (if it was requeued)
//! ```

/// Header of a lane record: the position in the input it was made of, `topic/partition/offset`.
pub const SOURCE: &str = "src";

/// Header of a lane record: the verdict, 8 bytes big-endian: what the settings in force hashed to.
pub const VERDICT: &str = "v";
