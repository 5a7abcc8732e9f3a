//! The temporary folder of a replay, for task stores that are removed when it ends.
//!
//! It is in the data folder, on the disk of the checkpoints, so that they are linked, not copied.
//! What a killed replay leaves is removed by the next one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tidewire_engine::record::Partition;

use crate::process_exit::ProcessExit;

const REPLAY: &str = "replay";
const LOCK: &str = "lock";

/// The locked folder.
pub(super) struct Scratch {
    dir: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Creates it if it is missing, locks it and empties it.
    pub(super) fn claim(data_dir: &Path) -> Result<Self, ProcessExit> {
        let dir = data_dir.join(REPLAY);
        let failed = |error| {
            let shown = dir.display();
            let text =
                format!("could not write in {shown}; change its owner, or give another --data-dir");
            ProcessExit::because(text, error)
        };
        fs::create_dir_all(&dir).map_err(failed)?;
        let path = dir.join(LOCK);
        let open = File::options().write(true).create(true).truncate(false).open(path);
        let lock = open.map_err(failed)?;
        if lock.try_lock().is_err() {
            let shown = dir.display();
            return Err(ProcessExit::failed(format!(
                "another replay is using {shown}; wait until it ends"
            )));
        }
        let scratch = Self { dir, _lock: lock };
        scratch.empty().map_err(|error| {
            let shown = scratch.dir.display();
            ProcessExit::because(format!("could not empty {shown}; remove the folder"), error)
        })?;
        Ok(scratch)
    }

    /// An empty folder for the store of a task.
    pub(super) fn stores(&self, partition: Partition) -> PathBuf {
        self.dir.join(format!("stores-{}", partition.0))
    }

    fn empty(&self) -> std::io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.is_dir() {
                fs::remove_dir_all(path)?;
            }
        }
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // If this fails, the next replay removes the rest.
        self.empty().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_replay_has_the_folder_and_it_starts_empty() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = Scratch::claim(dir.path()).expect("free");
        let stores = first.stores(Partition(3));
        fs::create_dir_all(stores.join("task-3")).expect("a folder");
        let text = Scratch::claim(dir.path()).err().expect("taken").to_string();
        assert!(text.contains("another replay is using"), "{text}");
        drop(first);
        assert!(!stores.exists());
        Scratch::claim(dir.path()).expect("free again");
    }
}
