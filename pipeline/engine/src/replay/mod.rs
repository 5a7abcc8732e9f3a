//! Replay: a task's history executed again and compared with what is in the log, byte for byte.
//!
//! The one idea: what a task makes follows from the records it took and their order, and `order`
//! has both. A replay is given a [`ReadOnly`] log, so that whatever goes wrong in it, it has joined
//! no group, opened no transaction and written nothing.
//!
//! Parts in reading order.

mod cursor;
mod read_only;

mod plan;
mod verify;
mod witness;

mod difference;

pub use difference::{Difference, Nearest, ReplayError, What};
pub use plan::{Plan, Point, Wanted};
pub use read_only::ReadOnly;
pub use verify::{Replayed, Step, TaskSpec, Verification};
