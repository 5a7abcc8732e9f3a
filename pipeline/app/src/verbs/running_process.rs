//! Finds the process that has the embedded log of a command open.
//!
//! The embedded log belongs to one process, so a command asks the process at `listen` if that one
//! uses the command's data folder. Another deployment may run at that address: it is never asked
//! in place of a folder that was given, or that has a log, and never to change something unless
//! its URL was given.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::api_client::ApiClient;
use crate::config::Config;
use crate::process_exit::ProcessExit;

/// The name of a process's data folder in `/v1/stats`.
pub const DATA_DIR: &str = "data_dir";

/// A process that answers for the command's data folder.
#[derive(Debug)]
pub(super) struct ProcessAtListen {
    pub(super) url: String,
    pub(super) client: ApiClient,
    /// The answer to `/v1/stats`.
    pub(super) stats: Value,
}

/// What runs at the address of `listen`.
#[derive(Debug)]
pub(super) enum AtListen {
    /// No Tidewire.
    Nothing,
    /// The process of the data folder.
    Ours(Box<ProcessAtListen>),
    /// Some process, while no folder was given and the default one has no log: a command that
    /// only reads can mean no other.
    Only(Box<ProcessAtListen>),
    /// A process of another folder.
    Other {
        /// Its URL.
        url: String,
        /// Its log: a folder, or Kafka.
        log: String,
    },
}

/// Whether the folder has an embedded log.
pub(super) fn has_log(dir: &Path) -> bool {
    fs::metadata(dir.join("log")).is_ok()
}

/// Finds what runs at `listen`.
pub(super) fn find(config: &Config) -> Result<AtListen, ProcessExit> {
    let url = format!("http://{}", config.listen);
    let client = ApiClient::new(&url)?;
    // Another program may listen there.
    let stats = match client.get_json("/v1/stats") {
        Ok(Some(stats)) if stats["role"].is_string() => stats,
        _ => return Ok(AtListen::Nothing),
    };
    let dir = &config.data.dir;
    let theirs = stats[DATA_DIR].as_str().map(str::to_owned);
    let same = match (fs::canonicalize(dir), &theirs) {
        (Ok(own), Some(theirs)) => own == Path::new(theirs),
        _ => false,
    };
    if same {
        return Ok(AtListen::Ours(Box::new(ProcessAtListen { url, client, stats })));
    }
    if !config.data.is_given && !has_log(dir) {
        return Ok(AtListen::Only(Box::new(ProcessAtListen { url, client, stats })));
    }
    let log = theirs.map_or("Kafka".to_owned(), |theirs| format!("the data in {theirs}"));
    Ok(AtListen::Other { url, log })
}

/// The sentence for a folder without a log, with what to do.
pub(super) fn no_data(config: &Config, at_listen: &AtListen) -> ProcessExit {
    let dir = config.data.dir.display();
    let running = match at_listen {
        AtListen::Other { url, log } => format!("the tidewire at {url} uses {log}"),
        AtListen::Only(running) | AtListen::Ours(running) => {
            format!("--url {} was not given", running.url)
        }
        AtListen::Nothing => format!("no tidewire answers at http://{}", config.listen),
    };
    ProcessExit::failed(format!(
        "there is no data in {dir}, and {running}; create it with `tidewire topics create` or \
         `tidewire dev`, or give another --data-dir, --url of a running process, or \
         --log kafka://HOST:PORT"
    ))
}
