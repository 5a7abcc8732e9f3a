//! Fan-out: delivers output records to WebSocket and SSE connections, without socket or thread.
//!
//! One [`reader::HubReader`] reads the end of the output topics into immutable segments in the
//! [`hub::Hub`]: one ring per partition, all rings under one byte budget. Each worker thread owns a
//! [`shard::Shard`], which mirrors the rings, keeps the subscriptions of its connections and writes
//! the frames that a connection is due into the caller's buffer. Records older than the rings are
//! read from the log by one [`catchup::sweeper::Sweeper`], once for all connections that need them.
//! Blocking questions to the log are answered by one [`catchup::lookup_worker::LookupWorker`].
//! The newest state of every channel is kept by one fold, which makes the snapshots of state.
//!
//! A slow connection never delays another one: it falls behind the ring and catches up from the
//! log. Nothing here reads a clock, and nothing writes to the log.
//!
//! Modules in reading order.

pub mod config;
pub mod identity;

pub mod protocol;

mod channel_hash;
mod offsets;
pub mod out_buffer;
mod segment;
mod state_record_key;
mod topics_check;
mod totals;
mod unanswered;

mod lookup_mailbox;
mod messages;

pub mod hub;
pub mod reader;

pub mod fold;

pub mod shard;

pub mod catchup;

#[cfg(test)]
mod tests;
