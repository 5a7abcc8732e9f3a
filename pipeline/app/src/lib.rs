//! Who starts and stops: the binary `tidewire`, as a library so that tests can use its parts.
//!
//! Parts in reading order: what can be said to it, how it is configured, what runs, the verbs, and
//! what each of them needs.

pub mod cli;
pub mod config;
pub mod ending;
pub mod role;
pub mod settings;

pub mod logging;
pub mod start;
pub mod supervisor;
pub mod telemetry;

pub mod run;

pub mod data;
pub mod opening;
pub mod patience;
pub mod state;

pub mod demo;
pub mod door;
pub mod fanout;
pub mod page;
pub mod pipeline;
pub mod ready;
pub mod rebuild;
pub mod registry;

pub mod doctor;
pub mod generate;
pub mod letters;
pub mod produce;
pub mod replay;
pub mod resume;
pub mod schemas;
pub mod tail;
pub mod topics;
pub mod traffic;

pub mod chance;
pub mod clock;
pub mod remote;
pub mod terminal;
