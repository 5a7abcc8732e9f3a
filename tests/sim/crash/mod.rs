//! Crashes and rebalances at every call of a port, tried one by one.
//!
//! The calls are recorded from one run, so a new step of a loop is covered without a change here.

mod matrix;
mod scenario;
