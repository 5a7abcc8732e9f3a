//! The local state of DERIVE tasks: the `Store` port on RocksDB, one database per task.
//!
//! A store is a copy of the task's changelogs and is written after the commit, by a thread of its
//! own. Every `WriteBatch` ends at a transaction boundary and contains the progress it corresponds
//! to. So data and progress always agree, and a crash costs a short replay of the changelogs.
//!
//! A store never contains what the log has not committed, and gives no meaning to what it stores.
//! It is open once; a `TableView` reads it beside the process that has it open.
//!
//! Modules in reading order.

mod checkpoint;
mod config;
mod database;
mod layout;
mod merge;
mod store;
mod table_view;
mod write_behind;

pub use checkpoint::{Checkpoint, checkpoints};
pub use config::Config;
pub use store::RocksStores;
pub use table_view::TableView;
