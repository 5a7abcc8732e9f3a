//! `tidewire state rebuild`: removes the local state of tasks.
//!
//! The state is a copy of what the log has. Whoever can't use it any more (a build that is older
//! than the one that wrote it, a disk that damaged it) loses nothing by removing it: the next start
//! replays the changelogs. The folder is claimed first, so it is never taken from a process that
//! runs.

use tidewire_connectors::rocks::{self, RocksStores};
use tidewire_engine::port::Stores as _;
use tidewire_engine::record::Partition;

use crate::cli::{StateArgs, StateVerb};
use crate::process_exit::ProcessExit;
use crate::runtime::state_folder::StateFolder;
use crate::{configure, terminal};

/// Does it and says how many there were.
pub fn run(args: &StateArgs) -> Result<(), ProcessExit> {
    let StateVerb::Rebuild { partitions, settings } = &args.verb;
    let config = configure::for_command(settings)?;
    if !StateFolder::is_in(&config.data.dir) {
        let shown = config.data.dir.display();
        let text = format!("there is no state in {shown}; --data-dir names another folder");
        return Err(ProcessExit::failed(text));
    }
    let folder = StateFolder::claim(&config.data.dir)?;
    let shown = folder.dir().display();
    let stores = RocksStores::new(rocks::Config::new(folder.dir()));
    let there = stores.partitions().map_err(|error| {
        ProcessExit::because(format!("could not read {shown}; is it yours?"), error)
    })?;
    let asked: Vec<Partition> = partitions.iter().copied().map(Partition).collect();
    if let Some(absent) = asked.iter().find(|partition| !there.contains(partition)) {
        let text = format!(
            "there is no state of partition {} in {shown}; --data-dir names another folder",
            absent.0
        );
        return Err(ProcessExit::failed(text));
    }
    let meant = if asked.is_empty() { there } else { asked };
    for partition in &meant {
        let failed = |error| ProcessExit::because(format!("{shown} is not all removed"), error);
        stores.destroy(*partition).map_err(failed)?;
    }
    let count = meant.len();
    terminal::print_line(&format!(
        "removed the state of {count} tasks in {shown}; the next start brings it back from the log"
    ))
}
