//! Fan-out: from the output topics to connections, without a socket, a clock or a thread.
//!
//! One [`reader::HubReader`] turns the log's tail into immutable segments in the [`hub::Hub`], one
//! ring per partition under one byte budget. Each worker thread owns a [`shard::Shard`], which
//! mirrors the rings, knows its connections and writes each one's due frames into a buffer it is
//! given. What lies behind the rings is read by one [`catchup::sweeper::Sweeper`] for
//! everyone who waits.
//!
//! Parts in reading order.

pub mod config;
pub mod identity;

/// What clients and the server say to each other, as values and as bytes.
pub mod protocol {
    pub(super) mod frame;
    pub mod names;
    pub mod native;
}

mod offsets;
mod segment;

pub mod hub;
pub mod reader;

pub mod shard;

/// Reads from the log what the rings no longer hold.
pub mod catchup {
    mod scan;
    pub mod sweeper;
}

#[cfg(test)]
mod tests;
