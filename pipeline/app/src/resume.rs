//! `tidewire resume`: takes a line on that stands still before too much poison.
//!
//! Only the process whose line it is can do that, so it is asked over HTTP.

use crate::cli::RunningArgs;
use crate::ending::Ending;
use crate::remote::Remote;
use crate::{start, terminal};

/// Does it and says what it stood still for.
pub fn run(args: &RunningArgs) -> Result<(), Ending> {
    let url = start::url_of(args)?;
    let Some(answer) = Remote::new(&url)?.change("/v1/resume")? else {
        return Err(Ending::failed(format!(
            "nothing listens at {url}; --url names the process that reads the input (`dev` or \
             `admit`)"
        )));
    };
    let resumed = answer["resumed"].as_array().cloned().unwrap_or_default();
    if resumed.is_empty() {
        return terminal::say(&format!("{url} does not stand still; there is nothing to resume"));
    }
    for why in resumed.iter().filter_map(|why| why.as_str()) {
        terminal::say(&format!("resumed; {why}"))?;
    }
    terminal::say(
        "what stood in the input until now is taken, as dead letters where it is no event",
    )
}
