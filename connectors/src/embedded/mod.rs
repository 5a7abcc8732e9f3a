//! The embedded log: records, group offsets and topic metadata in one RocksDB, one process, no
//! network. It implements [`tidewire_engine::port::Log`] exactly as Kafka does, for one node.
//!
//! The one idea: a transaction, and any append, is one `WriteBatch`. Whoever writes takes a turn,
//! assigns offsets, writes everything that is waiting in one batch, and only then publishes the
//! new ends. What is published is readable; what is acknowledged survives a killed process.
//!
//! It never replicates, and no second process can open it. Past one machine the log is Kafka.
//!
//! Parts in reading order.

mod append;
mod clean;
mod config;
mod core;
mod database;
mod group;
mod incarnation;
mod layout;
mod log;
mod member;
mod read;
mod tail;
mod topic;
mod transact;
mod upkeep;
mod write_queue;
mod writer;

pub use config::{Config, Durability, Upkeep};
pub use log::EmbeddedLog;
