//! The size of a folder of a running process.

use std::fs;
use std::io;
use std::path::Path;

/// The length in bytes of all files in a folder and in the folders in it. Files that are removed
/// meanwhile do not count.
pub fn bytes_in(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let found = match entry.file_type()? {
            kind if kind.is_dir() => bytes_in(&entry.path()),
            kind if kind.is_file() => entry.metadata().map(|meta| meta.len()),
            _ => Ok(0),
        };
        match found {
            Ok(found) => bytes += found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_inner_folders_count() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("inner")).unwrap();
        fs::write(dir.path().join("inner/one"), [1; 1_000]).unwrap();
        fs::write(dir.path().join("two"), [1; 20]).unwrap();
        assert_eq!(bytes_in(dir.path()).unwrap(), 1_020);
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(bytes_in(&dir.path().join("none")).is_err());
    }
}
