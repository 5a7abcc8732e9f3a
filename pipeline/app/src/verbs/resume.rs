//! `tidewire resume`: takes a line on that stands still before too much poison.
//!
//! Only the process whose line it is can do that, so it is asked over HTTP.

use crate::api_client::ApiClient;
use crate::cli::ProcessArgs;
use crate::process_exit::ProcessExit;
use crate::{configure, terminal};

/// Where a running process resumes ADMIT.
pub const RESUME_PATH: &str = "/v1/resume";

/// Does it and says what it stood still for.
pub fn run(args: &ProcessArgs) -> Result<(), ProcessExit> {
    let url = configure::url_of(args)?;
    let Some(answer) = ApiClient::new(&url)?.post_json(RESUME_PATH)? else {
        return Err(ProcessExit::failed(format!(
            "nothing listens at {url}; --url names the process that reads the input (`dev` or \
             `admit`)"
        )));
    };
    let resumed = answer["resumed"].as_array().cloned().unwrap_or_default();
    if resumed.is_empty() {
        return terminal::print_line(&format!(
            "{url} does not stand still; there is nothing to resume"
        ));
    }
    for why in resumed.iter().filter_map(|why| why.as_str()) {
        terminal::print_line(&format!("resumed; {why}"))?;
    }
    terminal::print_line(
        "what stood in the input until now is taken, as dead letters where it is no event",
    )
}
