//! A running process: its start, its threads, its HTTP server and its end.
//!
//! The engine's loops are values; this folder runs them on threads and connects them to a log, to
//! stores and to sockets. Nothing about an event is decided here.
//!
//! Parts in reading order.

pub mod lifecycle;

pub mod startup;

pub mod supervisor;

pub mod stop_signal;

pub mod pipeline;

pub mod input_lag;

pub mod fanout;

pub mod http_server;

pub mod readiness;

pub(crate) mod topics_difference;
pub mod topics_watch;

pub mod page;

pub mod demo;

pub(crate) mod locked_folder;
pub mod registry;
pub mod state_folder;
pub mod storage;

pub mod clock;
pub mod logging;
pub mod random;
pub mod retry;
pub mod telemetry;

#[cfg(test)]
pub(crate) mod listed_log;
