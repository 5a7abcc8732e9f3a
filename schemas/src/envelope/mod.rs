//! From what a producer sent to an [`Event`](crate::event::Event): parse, normalise, validate,
//! complete.
//!
//! In reading order: [`reason`] (why a record is refused), [`admit`] (the road as a whole),
//! `normalise` (steps 1 to 5: names, spellings, defaults) and `validate` (step 6). A record that
//! can't become an event is refused with a [`Rejection`] that names the reason, the field and what
//! would be right.
//!
//! Nothing here reads a clock: a record's append time is what "now" means.

mod admit;
mod normalise;
mod reason;
#[cfg(test)]
mod tests;
mod validate;

pub use admit::{
    Admitted, CORRELATION_ID_MAX_CHARS, EVENT_MAX_BYTES, RecordOrigin, SOURCE_MAX_CHARS,
    TIMESTAMP_AHEAD_MAX_MS, TYPE_MAX_CHARS, admit,
};
pub(crate) use admit::{DataField, Envelope, complete, text, within_limits};
pub use normalise::{DATA_MAX_DEPTH, DATA_MAX_FIELDS};
pub(crate) use normalise::{EventData, rejection};
pub use reason::{Reason, Rejection};
pub use validate::ID_MAX_CHARS;
