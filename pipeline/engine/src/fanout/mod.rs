//! Fan-out: from the output topics to connections, without a socket, a clock or a thread.
//!
//! One [`reader::HubReader`] turns the log's tail into immutable segments in the [`hub::Hub`], one
//! ring per partition under one byte budget. Each worker thread owns a [`shard::Shard`], which
//! mirrors the rings, knows its connections and writes each one's due frames into a buffer it is
//! given. What lies behind the rings is read by one [`sweep::Sweeper`] for everyone who waits.
//!
//! Parts in reading order.

pub mod config;
pub mod identity;
pub mod protocol;

mod place;

mod frame;
mod segment;

pub mod hub;
pub mod reader;

mod channels;
mod conn;
mod ready;

pub mod shard;

mod follow;

mod catchup;

mod ops;

mod pass;
pub mod sweep;

#[cfg(test)]
mod tests;
