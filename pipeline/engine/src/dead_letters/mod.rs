//! Dead letters as an operator meets them: listed, looked at, requeued and dropped.
//!
//! The one idea: the topic is never changed, only added to. What becomes of a letter is a mark, one
//! more record beside it, written in the same transaction as the record that goes back. Whoever
//! resolves letters first takes over one transactional id, which ends whatever another left open,
//! and then reads all marks. So however often it is run, killed or run twice at once, a letter goes
//! back once.
//!
//! All of it stands on the `Log` port and runs on every log.
//!
//! Parts in reading order.

mod dead_letter;
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
pub use resolution::{Resolution, ResolutionRecord};
pub use resolve::{ResolveRequest, ResolveSummary, plan, resolve};
