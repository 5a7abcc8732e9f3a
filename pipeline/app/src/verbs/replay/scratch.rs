//! The temporary folder of a replay, for task stores that are removed when it ends.
//!
//! It is in the data folder, on the disk of the checkpoints, so that they are linked, not copied.
//! What a killed replay leaves is removed by the next one.

use std::path::{Path, PathBuf};

use tidewire_engine::record::Partition;

use crate::process_exit::ProcessExit;
use crate::runtime::locked_folder::{Claim, LockedFolder};

const REPLAY: &str = "replay";

/// The locked folder.
pub(super) struct Scratch {
    folder: LockedFolder,
}

impl Scratch {
    /// Creates it if it is missing, locks it and empties it.
    pub(super) fn claim(data_dir: &Path) -> Result<Self, ProcessExit> {
        let dir = data_dir.join(REPLAY);
        let folder = match LockedFolder::claim(&dir)? {
            Claim::Locked(folder) => folder,
            Claim::InUseBy(holder) => {
                return Err(ProcessExit::failed(format!(
                    "another replay ({holder}) is using {}; wait until it ends",
                    dir.display()
                )));
            }
        };
        folder.remove_folders().map_err(|error| {
            let shown = dir.display();
            ProcessExit::because(format!("could not empty {shown}; remove the folder"), error)
        })?;
        Ok(Self { folder })
    }

    /// An empty folder for the store of a task.
    pub(super) fn stores(&self, partition: Partition) -> PathBuf {
        self.folder.dir().join(format!("stores-{}", partition.0))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // If this fails, the next replay removes the rest.
        self.folder.remove_folders().ok();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_one_replay_has_the_folder_and_it_starts_empty() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = Scratch::claim(dir.path()).expect("free");
        let stores = first.stores(Partition(3));
        fs::create_dir_all(stores.join("task-3")).expect("a folder");
        let text = Scratch::claim(dir.path()).err().expect("taken").to_string();
        assert!(text.contains("another replay (process "), "{text}");
        drop(first);
        assert!(!stores.exists());
        Scratch::claim(dir.path()).expect("free again");
    }
}
