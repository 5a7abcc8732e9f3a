//! A shard: one worker thread's share of the connections, without their sockets.
//!
//! The thread owns the sockets and one [`Shard`]. Every method returns at once; what is left to do
//! comes back as values. The loop around it: `tick`; `pull()` after its wake; `input`,
//! `mark_alive` and `bad_frame` for what arrived; then `fill` for every connection of `take_ready`,
//! and for those whose socket became writable after a [`Filled::More`]; then close what
//! `take_closes` names.
//!
//! A subscription follows its channel's list of recent entries, or belongs to a feed that reads
//! older entries first. A shard never reads the log; the sweeper does.
//!
//! Modules in reading order: values, the state, what a worker calls, then the parts of the state.

mod interface;

mod state;

mod connections;
mod fill;
mod timers;

mod requests;
mod snapshots;
mod subscriptions;

mod feeds;
mod follow;
mod merge;
mod reset;

pub(super) mod channels;
pub(super) mod conn;
mod limiter;
pub(super) mod mirror;
mod pending_snapshot;
mod ready;

pub use super::messages::ConnId;
pub use super::protocol::framing::Framing;
pub use interface::{BadFrame, Close, ConnectionMemory, Filled, OpenRequest, ShardStats};
pub use state::Shard;
