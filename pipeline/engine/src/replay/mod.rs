//! Replay: a task's history executed again and compared with what is in the log, byte for byte.
//!
//! The one idea: what a task makes follows from the records it took and their order, and `order`
//! has both. A replay is given a [`ReadOnlyLog`], so that whatever goes wrong in it, it has joined
//! no group, opened no transaction and written nothing.
//!
//! Parts in reading order.

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
