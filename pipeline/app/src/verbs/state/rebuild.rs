//! `tidewire state rebuild`: removes the local state of tasks, so that it is restored from the log.
//!
//! The state is a copy of the changelogs, so removing it loses nothing. It is needed when an older
//! build cannot read the state of a later one, or when a disk damaged it. The folder is locked
//! first, so the state of a running process is never removed.

use tidewire_connectors::rocks::{self, RocksStores};
use tidewire_engine::port::Stores as _;

use crate::cli::StateRebuildArgs;
use crate::process_exit::ProcessExit;
use crate::runtime::state_folder::{StateFolder, StateKind};
use crate::{configure, terminal};

/// Removes the state and prints how many tasks had some.
pub(super) fn run(args: &StateRebuildArgs) -> Result<(), ProcessExit> {
    let config = configure::for_command(&args.settings)?;
    super::folder(&config)?;
    let folder = StateFolder::claim(&config.data.dir, StateKind::Tasks)?;
    let shown = folder.dir().display();
    let stores = RocksStores::new(rocks::Config::new(folder.dir()));
    let meant = super::partitions(&stores, &args.partitions)?;
    for partition in &meant {
        let failed = |error| {
            let partition = partition.0;
            let text = format!("could not remove the state of partition {partition} in {shown}");
            ProcessExit::because(text, error)
        };
        stores.destroy(*partition).map_err(failed)?;
    }
    let count = meant.len();
    let noun = if count == 1 { "task" } else { "tasks" };
    terminal::print_line(&format!(
        "removed the state of {count} {noun} in {shown}; the next start restores it from the log"
    ))
}
