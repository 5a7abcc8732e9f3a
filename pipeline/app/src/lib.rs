//! Who starts and stops: the binary `tidewire`, as a library so that tests can use its parts.
//!
//! Parts in reading order: what can be said to it, how it is configured, what runs, the verbs, and
//! what each of them needs.

pub mod cli;
pub mod config;
pub mod dispatch;
pub mod process_exit;
pub mod role;

/// A running process: its start, its loops, its HTTP server and its end.
pub mod runtime {
    pub mod lifecycle;
    pub mod startup;
    pub mod supervisor;

    pub mod fanout;
    pub mod http_server;
    pub mod page;
    pub mod pipeline;
    pub mod readiness;

    pub mod demo;
    pub mod registry;
    pub mod state_folder;
    pub mod storage;

    pub mod clock;
    pub mod logging;
    pub mod random;
    pub mod retry;
    pub mod telemetry;
}

pub mod api;

/// What each verb of the command line does.
pub mod verbs {
    pub mod dead_letters;
    pub mod doctor;
    pub mod generate;
    pub mod produce;
    pub mod rebuild;
    pub mod replay;
    pub mod resume;
    pub mod schemas;
    pub mod tail;
    pub mod topics;
}

pub mod api_client;
pub mod synthetic;
pub mod terminal;
