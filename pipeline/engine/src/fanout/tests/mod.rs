//! Tests of the fan-out as a whole, driven step by step over a log in memory.
//!
//! Gateways read one log; clients are disconnected and resume, and in the end each must have seen
//! every event of its channels once.

mod catchup;
mod client;
mod fixture;
mod fold;
mod history;
mod limits;
mod log;
mod protocol;
mod speed;
mod state_history;
mod state_limits;
mod state_records;
mod stores;
mod topics;
