//! Temporary folders of brokers, named after the test process that made them.
//!
//! A folder is removed with its broker. That of a killed process or of the shared broker stays; the
//! next test process that makes a folder removes it.

use std::env;
use std::fs;
use std::path::Path;
use std::process;

use tempfile::TempDir;

const PREFIX: &str = "tidewire-kafka-";

/// Makes a new folder, and removes those of processes that are gone.
pub fn make() -> TempDir {
    remove_orphans(&env::temp_dir());
    let prefix = format!("{PREFIX}{}-", process::id());
    let folder = tempfile::Builder::new().prefix(&prefix).tempdir();
    folder.expect("the temporary folder can be written")
}

/// Removes the folders that ended processes left here.
pub(super) fn remove_orphans(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if owner_pid(&name.to_string_lossy()).is_some_and(is_gone) {
            // Another test process may be removing it too.
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

fn owner_pid(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

fn is_gone(pid: u32) -> bool {
    !Path::new("/proc").join(pid.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_dead_processes_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let gone = parent.path().join(format!("{PREFIX}{}-x", u32::MAX));
        let ours = parent.path().join(format!("{PREFIX}{}-x", process::id()));
        let other = parent.path().join("tidewire-kafka");
        for folder in [&gone, &ours, &other] {
            fs::create_dir(folder).unwrap();
        }
        remove_orphans(parent.path());
        assert!(!gone.exists() && ours.exists() && other.exists());
    }
}
