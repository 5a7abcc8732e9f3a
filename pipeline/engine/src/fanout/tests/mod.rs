//! The fan-out as a whole, driven step by step over a log in memory: gateways, clients that are cut
//! and come back, and what each must have seen in the end.

mod client;
mod fixture;
mod history;
mod limits;
mod log;
mod protocol;
mod speed;
