//! A history: producers, loops, crashes, rebalances, clocks and disks in an order chosen by a seed,
//! or by a test; then a quiet time in which everything must come to its end.
//!
//! Parts in reading order: the world and its steps, its loops, its producers.

mod history;
mod loops;
mod producer;
mod turns;

pub(crate) use history::World;
pub(crate) use loops::ADMITS;
