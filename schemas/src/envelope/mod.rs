//! Turns a producer's record into an [`Event`](crate::event::Event), or rejects it with a reason.
//!
//! In reading order: [`reason`] (why a record is rejected), [`admit`] (the whole sequence),
//! `normalise` (steps 1 to 5: names, spellings, defaults) and `validate` (step 6). A [`Rejection`]
//! names the reason, the field and what would be valid.
//!
//! Nothing here reads a clock: "now" is the record's append time.

mod admit;
mod normalise;
mod reason;
#[cfg(test)]
mod tests;
mod validate;

pub use admit::{
    Admitted, CORRELATION_ID_MAX_CHARS, EVENT_MAX_BYTES, RecordOrigin, SOURCE_MAX_CHARS,
    TIMESTAMP_AHEAD_MAX_MS, TYPE_MAX_CHARS, Writers, admit, non_number,
};
pub(crate) use admit::{
    DataField, Envelope, TimeUnit, complete, text, within_limits, without_mark,
};
pub use normalise::{DATA_MAX_DEPTH, DATA_MAX_FIELDS};
pub(crate) use normalise::{EventData, rejection};
pub(crate) use reason::shown;
pub use reason::{Reason, Rejection};
pub use validate::ID_MAX_CHARS;
