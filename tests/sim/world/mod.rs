//! A simulated world: producers, loops, crashes, rebalances, clocks and disks.
//!
//! A seed or a test chooses what happens. Then the faults end, and everything must be processed.
//!
//! In reading order: the world and its steps, its loops and their turns, its producers.

mod history;
mod loops;
mod producer;
mod turns;

pub(crate) use history::World;
pub(crate) use loops::ADMITS;
