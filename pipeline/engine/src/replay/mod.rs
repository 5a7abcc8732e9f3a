//! Replay: executes a task's history again and compares the results with the log, byte for byte.
//!
//! The results of a task follow from the records it read and their order, and `order` contains
//! both. A replay uses a [`ReadOnlyLog`], so whatever fails in it, it joins no group, opens no
//! transaction and writes nothing.

mod cursor;
mod read_only;
mod task_spec;

mod log_matcher;
mod plan;
mod verify;

mod divergence;

pub use divergence::{Divergence, DivergenceKind, Nearest, ReplayError};
pub use plan::{Point, ReplayPlan, ReplayRange};
pub use read_only::ReadOnlyLog;
pub use task_spec::TaskSpec;
pub use verify::{Replayed, Verification, VerifyStep};
