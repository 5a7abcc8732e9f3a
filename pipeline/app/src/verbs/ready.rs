//! `tidewire ready`: exit code 0 when a running process is ready; for health checks.
//!
//! It asks `/readyz` once. When the process is not ready, the error is what the process waits for.

use crate::api_client::ApiClient;
use crate::cli::ProcessArgs;
use crate::process_exit::ProcessExit;
use crate::{configure, terminal};

/// Asks the process.
pub fn run(args: &ProcessArgs) -> Result<(), ProcessExit> {
    let url = configure::url_of(args)?;
    ApiClient::new(&url)?.check_ready()?;
    terminal::print_line(&format!("{url} is ready"))
}
