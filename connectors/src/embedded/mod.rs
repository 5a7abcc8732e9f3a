//! The embedded log: the `Log` port on one RocksDB, for one process on one machine.
//!
//! Records, group offsets and topic metadata are in one database. An append or a transaction is one
//! `WriteBatch`: the writing thread gives out offsets, writes everything that waits in one batch,
//! and then publishes the new ends. What is published can be read; what is acknowledged survives a
//! killed process.
//!
//! It does not replicate, and a second process cannot open it. On more than one machine, use Kafka.
//!
//! Modules in reading order.

mod append;
mod clean;
mod config;
mod core;
mod database;
mod ends;
mod group;
mod incarnation;
mod layout;
mod log;
mod member;
mod open_transactions;
mod read;
mod tail;
mod topic;
mod transact;
mod upkeep;
mod write_queue;
mod writer;

pub use config::{Config, Durability, Upkeep};
pub use log::EmbeddedLog;
