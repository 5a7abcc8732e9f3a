//! A folder that one process at a time may use, by a lock on a file in it.
//!
//! The file contains the id of the process that holds the lock. The system releases the lock when
//! that process ends, however it ends.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::process_exit::ProcessExit;

const LOCK: &str = "lock";

/// The lock is held as long as this exists.
#[derive(Debug)]
pub(crate) struct LockedFolder {
    dir: PathBuf,
    _lock: File,
}

/// The result of an attempt to lock a folder.
pub(crate) enum Claim {
    /// It is ours.
    Locked(LockedFolder),
    /// Another process holds it: `process ID`, or `another process` if its id is unknown.
    InUseBy(String),
}

impl LockedFolder {
    /// Creates the folder if it is missing, and locks it.
    pub(crate) fn claim(dir: &Path) -> Result<Claim, ProcessExit> {
        lock(dir).map_err(|error| {
            let shown = dir.display();
            let text =
                format!("could not write in {shown}; change its owner, or give another --data-dir");
            ProcessExit::because(text, error)
        })
    }

    /// Where it is.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Removes the folders in it, and returns how many there were.
    pub(crate) fn remove_folders(&self) -> io::Result<u32> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.is_dir() {
                fs::remove_dir_all(path)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

fn lock(dir: &Path) -> io::Result<Claim> {
    fs::create_dir_all(dir)?;
    let path = dir.join(LOCK);
    let mut lock =
        File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // The process id helps to find the holder; without it the message is still right.
            let known = lock.read_to_string(&mut holder).is_ok() && !holder.is_empty();
            let by = if known { format!("process {holder}") } else { "another process".to_owned() };
            return Ok(Claim::InUseBy(by));
        }
        Err(TryLockError::Error(error)) => return Err(error),
    }
    lock.set_len(0)?;
    lock.rewind()?;
    lock.write_all(std::process::id().to_string().as_bytes())?;
    Ok(Claim::Locked(LockedFolder { dir: dir.to_owned(), _lock: lock }))
}
