//! The local state of tasks: one RocksDB per task, written behind the log by a thread of its own.
//!
//! The one idea: a store is a cache of the changelog that knows how far it is. Every `WriteBatch`
//! ends on a transaction's boundary and carries the progress it corresponds to, so that data and
//! progress agree whatever happens in between, and a crash costs a short replay.
//!
//! It never decides what state means, and never holds what the log has not.
//!
//! Parts in reading order.

mod checkpoint;
mod config;
mod database;
mod merge;
mod store;
mod write_behind;

pub use checkpoint::{Checkpoint, checkpoints};
pub use config::Config;
pub use store::RocksStores;
