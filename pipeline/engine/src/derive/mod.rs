//! DERIVE: from lanes to outputs, exactly once, with state.
//!
//! The one idea: what a transaction took, what it wrote and what it changed become visible
//! together or not at all, and the local store only ever follows what the log has said yes to.
//!
//! Parts in reading order: the loop, one transaction of it, a task's steps and its restore; a task
//! without a log; what an operator is, then the operators; at the end what is persisted, one file
//! each.

mod assign;
mod commit;
mod lag;
mod limits;
mod line;
mod turn;

mod batch;
mod failure;
mod restore;
mod standby;
mod step;
mod tables;

mod driver;
mod memory;
mod sandbox;

pub mod dedup;
mod delivery;
pub mod emit;
mod operator;
pub mod stores;
mod timers;

mod changelog;
pub mod order;
pub mod progress;
mod wire;

pub use commit::TICK_MS;
pub use delivery::ToChannels;
pub use driver::{START, TopologyDriver};
pub use emit::Emission;
pub use limits::{MAX_BYTES, MAX_OPEN_MS, MAX_RECORDS, URGENT_WAIT_MS};
pub use operator::{Changelog, Context, Flow, Operator, OperatorError, TableDecl};
pub use restore::RestoreProgress;
pub use sandbox::Operators;
pub use timers::MAX_TIMERS_PER_TICK;
pub use turn::{Derive, DeriveConfig, DerivePorts, HAND_OVER_BYTES, HAND_OVER_MS, OPERATORS};

pub(crate) use batch::Counts;
pub(crate) use sandbox::{Executed, Sandbox, table_specs};
