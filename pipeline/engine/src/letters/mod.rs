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

mod letter;
mod mark;

mod filter;
mod scan;

mod index;

mod back;
mod resolve;

pub use back::destination;
pub use filter::Filter;
pub use index::{Entry, Index, fetch, index, marks_of};
pub use letter::{Letter, Origin, REQUEUED_FROM, REQUEUED_REASON, TRAIL_MAX, trail};
pub use mark::{Mark, Resolution};
pub use resolve::{LettersError, Order, Resolved, plan, resolve};
