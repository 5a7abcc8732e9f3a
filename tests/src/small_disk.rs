//! A small file system mounted over a folder, for tests that run out of disk space.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// A mounted file system; dropping it unmounts it.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts 512 MiB over a folder: while a process runs, an embedded log and two stores per
    /// partition reserve half of it. Only root may; the error says why not.
    pub fn over(folder: &Path) -> Result<Self, String> {
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=512m", "tidewire-test"])
            .arg(folder)
            .output()
            .map_err(|error| error.to_string())?;
        match mount.status.success() {
            true => Ok(Self(folder.to_owned())),
            false => Err(String::from_utf8_lossy(&mount.stderr).trim().to_owned()),
        }
    }

    /// Writes a file until no space has been left for a second: a database whose reservation fails
    /// frees what it had reserved of it. Removing the file makes space again.
    pub fn fill(&self) -> PathBuf {
        let path = self.0.join("ballast");
        let mut ballast = File::create(&path).expect("there is space for its name");
        let mut full = Instant::now();
        while full.elapsed() < Duration::from_secs(1) {
            while ballast.write_all(&[7; 4_096]).is_ok() {
                full = Instant::now();
            }
            thread::sleep(Duration::from_millis(10));
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: open files are closed when their process ends.
        Command::new("umount").arg("--lazy").arg(&self.0).status().ok();
    }
}
