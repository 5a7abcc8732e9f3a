//! `tidewire state`: reads or removes the local state of tasks in the data folder.
//!
//! No process and no log is asked: the stores are in the folder, whether or not they are open.

mod entry;
mod get;
mod key_element;
mod rebuild;

use std::path::PathBuf;

use tidewire_connectors::rocks::RocksStores;
use tidewire_engine::record::Partition;

use crate::cli::{StateArgs, StateVerb};
use crate::config::Config;
use crate::process_exit::ProcessExit;
use crate::runtime::state_folder;

/// Runs the subcommand.
pub fn run(args: &StateArgs) -> Result<(), ProcessExit> {
    match &args.verb {
        StateVerb::Get(args) => get::run(args),
        StateVerb::Rebuild(args) => rebuild::run(args),
    }
}

/// The state folder, which has to be there.
fn folder(config: &Config) -> Result<PathBuf, ProcessExit> {
    let dir = &config.data.dir;
    state_folder::find(dir).ok_or_else(|| {
        let text = format!("there is no state in {}; give another --data-dir", dir.display());
        ProcessExit::failed(text)
    })
}

/// The partitions that are asked for, or all that have a store here.
fn partitions(stores: &RocksStores, asked: &[u32]) -> Result<Vec<Partition>, ProcessExit> {
    let shown = stores.folder().display();
    let there = stores.partitions().map_err(|error| {
        ProcessExit::because(format!("could not read {shown}; check its owner"), error)
    })?;
    let asked: Vec<Partition> = asked.iter().copied().map(Partition).collect();
    match asked.iter().find(|partition| !there.contains(partition)) {
        Some(absent) => Err(ProcessExit::failed(format!(
            "there is no state of partition {} in {shown}; give another --data-dir",
            absent.0
        ))),
        None if asked.is_empty() => Ok(there),
        None => Ok(asked),
    }
}
