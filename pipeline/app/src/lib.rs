//! Process wiring of the binary `tidewire`: command line, configuration, threads, shutdown.
//!
//! It is a library so that tests can use its parts; `main.rs` only calls it. It knows every other
//! crate and no crate but the tests knows it.
//!
//! Parts in reading order.

pub mod cli;
pub mod dispatch;

pub mod config;
pub mod configure;
pub mod role;

pub mod runtime;

pub mod verbs;

pub mod api;

pub mod api_client;
pub mod build_name;
pub mod synthetic;

pub mod process_exit;
pub mod terminal;
