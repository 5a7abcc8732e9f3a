//! The engine: admission, tasks, operators, commits and fan-out, without IO.
//!
//! Values in, values out; time is a value. Everything outside is behind the traits of [`port`], so
//! the simulator runs the same code on a log and stores in memory.
//!
//! Modules are in reading order. The loops import the modules before them, never the reverse.

pub mod port;
pub mod record;

pub mod fact_pack;
pub mod lane_record;
pub mod topology;
pub mod turn;
pub mod verdict;

pub mod telemetry;

mod committed_read;
mod committed_write;
pub mod value_level;

pub mod topics_layout;

pub mod catalogues;

pub mod dead_letters;

pub mod admit;

pub mod lanes;
pub mod task;
mod task_state;

pub mod derive;

pub mod operators;

pub mod replay;

pub mod explain;

pub mod fanout;
