//! `tidewire resume`: resumes ADMIT after it stopped at the poison limit.
//!
//! Only the process that stopped can resume, so it is asked over HTTP.

use crate::api_client::ApiClient;
use crate::cli::ProcessArgs;
use crate::process_exit::ProcessExit;
use crate::{configure, terminal};

/// Where a running process resumes ADMIT.
pub const RESUME_PATH: &str = "/v1/resume";

/// Resumes, and prints why ADMIT had stopped.
pub fn run(args: &ProcessArgs) -> Result<(), ProcessExit> {
    let url = configure::url_of(args)?;
    let Some(answer) = ApiClient::new(&url)?.post_json(RESUME_PATH)? else {
        return Err(ProcessExit::failed(format!(
            "nothing listens at {url}; give --url of the process that reads the input (`dev` or \
             `admit`)"
        )));
    };
    let resumed = answer["resumed"].as_array().cloned().unwrap_or_default();
    if resumed.is_empty() {
        return terminal::print_line(&format!("{url} is not stopped; there is nothing to resume"));
    }
    for why in resumed.iter().filter_map(|why| why.as_str()) {
        terminal::print_line(&resumed_line(why))?;
    }
    terminal::print_line(
        "the records in the input are processed now; invalid ones become dead letters",
    )
}

/// `why` is what the process said while it was stopped; without its beginning, so that the line
/// does not read as if it stopped again.
fn resumed_line(why: &str) -> String {
    let parts = why.strip_prefix("ADMIT stopped reading ").and_then(|rest| rest.split_once(": "));
    match parts {
        Some((topic, cause)) => {
            format!("ADMIT reads {topic} again; it had stopped because {cause}")
        }
        None => format!("ADMIT reads its input again; it had stopped: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_that_admit_reads_again() {
        let line = resumed_line("ADMIT stopped reading tw.in: 9 of 9 records are invalid");
        assert_eq!(
            line,
            "ADMIT reads tw.in again; it had stopped because 9 of 9 records are invalid"
        );
        assert_eq!(resumed_line("x"), "ADMIT reads its input again; it had stopped: x");
    }
}
