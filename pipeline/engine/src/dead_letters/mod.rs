//! Dead letters: listing, inspecting, requeuing and dropping them.
//!
//! The topic is only appended to. The outcome of a dead letter is a resolution record beside it,
//! written in one transaction with the record that is requeued. A process that resolves dead
//! letters first takes over one transactional id, which aborts the open transaction of any other,
//! and then reads all resolution records. So each dead letter is requeued once, however often the
//! command is run or killed, and even if it runs twice at once.
//!
//! Everything uses the `Log` port alone, so it works on every log.

mod dead_letter;
pub mod operator_failure;
pub mod record;
mod resolution;

mod error;
mod filter;
mod scan;

mod listing;

mod requeue;
mod resolve;

pub use dead_letter::{
    DeadLetter, REQUEUED_FROM, REQUEUED_REASON, SourcePosition, TRAIL_MAX, trail,
};
pub use error::DeadLettersError;
pub use filter::Filter;
pub use listing::{ListEntry, Listing, fetch, list, resolutions_of};
pub use requeue::destination;
#[cfg(test)]
pub(crate) use requeue::requeued_record;
pub use resolution::{Resolution, ResolutionRecord};
pub use resolve::{ResolveRequest, ResolveSummary, plan, resolve};
