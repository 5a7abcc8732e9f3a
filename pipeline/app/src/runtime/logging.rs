//! Starts logging: lines on standard error, filtered by `RUST_LOG` or `log_filter`.
//!
//! Colour is used only on a terminal. A second start in one process (tests do that) keeps the first
//! subscriber.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// Starts logging with this filter.
pub fn start(filter: &str) {
    let filter = filter.parse().unwrap_or_else(|_| EnvFilter::new("info"));
    let installed = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .try_init();
    if installed.is_err() {
        tracing::debug!("logging was started before; the first filter stays");
    }
}
