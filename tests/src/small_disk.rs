//! A small file system over a folder, to run out of space on.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted one, until it is dropped.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one of 128 MiB over a folder. Only root may; says why it can't.
    pub fn over(folder: &Path) -> Result<Self, String> {
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=128m", "tidewire-test"])
            .arg(folder)
            .output()
            .map_err(|error| error.to_string())?;
        match mount.status.success() {
            true => Ok(Self(folder.to_owned())),
            false => Err(String::from_utf8_lossy(&mount.stderr).trim().to_owned()),
        }
    }

    /// Writes a file until there is no space left; removing it makes space again.
    pub fn fill(&self) -> PathBuf {
        let path = self.0.join("ballast");
        let mut ballast = File::create(&path).expect("there is space for its name");
        while ballast.write_all(&[7; 4_096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: what is still open ends with its process.
        Command::new("umount").arg("--lazy").arg(&self.0).status().ok();
    }
}
