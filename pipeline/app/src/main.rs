//! Entry point of the binary `tidewire`.
//!
//! It parses the command line, runs the command and exits with its code. Everything else is in the
//! library of this crate, so that tests can use it.

use std::process::ExitCode;

use clap::Parser;
use tidewire_app::{cli, dispatch, terminal};

/// 10 % less CPU per event than with the system's allocator and 5 % more memory, measured on
/// synthetic traffic.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    terminal::report(dispatch::run(cli::Cli::parse()))
}
