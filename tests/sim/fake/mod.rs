//! The world's fakes: a log and disks in memory that fail on purpose.
//!
//! Transactions are kept as Kafka keeps them: records and control records take offsets as they are
//! written, and the stable end stands before the first open transaction. Groups rebalance eagerly
//! and know static members. Any call may fail, each in the ways its port allows; while none does,
//! the log goes through the contract as every other.
//!
//! The one idea: a crash is a process whose every further call fails, decided before or after the
//! call's effect; so a loop is stopped between any two calls without the loop knowing of it.

mod faults;
mod group;
mod injection;
mod journal;
mod log;
mod log_port;
mod log_state;
mod member;
mod partition;
mod reader;
mod stores;
mod transactor;

pub(crate) use faults::{Call, CommitOutcome, FaultScript, InjectedFault};
pub(crate) use journal::{DiskId, Fact};
pub(crate) use log::FakeLog;
pub(crate) use log_state::LogState;
pub(crate) use stores::FakeStores;
