//! An in-memory log and in-memory disks that fail on purpose.
//!
//! Transactions work as in Kafka: records and control records take offsets as they are written, and
//! the last stable offset is before the first open transaction. Groups rebalance eagerly and have
//! static members. Any call may fail, each in the ways its port allows; without faults the log
//! passes the conformance suite like every other log.
//!
//! A crashed process is one whose further calls all fail. Whether it crashes before or after the
//! effect of a call is decided per call, so a loop can be stopped between any two calls.

mod ends;
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
pub(crate) use log_port::RECORDS_REFUSED;
pub(crate) use log_state::LogState;
pub(crate) use stores::FakeStores;
