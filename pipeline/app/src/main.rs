//! `tidewire`: a table of contents. What happens is in the library beside it.

use std::process::ExitCode;

use clap::Parser;
use tidewire_app::{cli, ending, start};

/// Thousands of small buffers that come and go: it keeps memory flat where the system's allocator
/// lets it creep.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    ending::conclude(start::run(cli::Cli::parse()))
}
