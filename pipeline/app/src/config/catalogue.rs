//! Loads the catalogue in force: the built-in one with what a folder of TOML files adds.
//!
//! It is read once, with the settings, so that a process starts with all of it or not at all. The
//! files of the folder itself count, by name; its subfolders and other files do not.

use std::fs;
use std::path::{Path, PathBuf};

use tidewire_schemas::catalogue::{Catalogue, STORED_MAX_BYTES, STORED_MAX_FILES, encode_stored};

/// The catalogue for a value of the setting; it is kept until the process ends.
pub(super) fn in_force(folder: &str) -> Result<&'static Catalogue, String> {
    if folder.is_empty() {
        return Ok(Catalogue::builtin());
    }
    load(Path::new(folder)).map(|catalogue| &*Box::leak(Box::new(catalogue)))
}

/// The built-in catalogue with what the files of this folder add, or every error.
pub fn load(folder: &Path) -> Result<Catalogue, String> {
    let mut texts = Vec::new();
    for path in paths(folder)? {
        let failed = |error| format!("could not read {}: {error}", path.display());
        // Not read first: a wrong path may hold anything.
        if fs::metadata(&path).map_err(failed)?.len() > STORED_MAX_BYTES as u64 {
            return Err(too_large(&path));
        }
        let text = fs::read_to_string(&path).map_err(failed)?;
        texts.push((path.with_extension("").display().to_string(), text));
    }
    let files: Vec<(&str, &str)> =
        texts.iter().map(|(name, text)| (&name[..], &text[..])).collect();
    let catalogue = Catalogue::extended(&files).map_err(|errors| errors.to_string())?;
    match encode_stored(catalogue.own_files()) {
        Some(_) => Ok(catalogue),
        None => Err(too_large(folder)),
    }
}

fn too_large(path: &Path) -> String {
    format!(
        "{} is too large: the files of a catalogue may have {STORED_MAX_BYTES} bytes together, and \
         a name 255",
        path.display()
    )
}

/// The TOML files of a folder, by name.
fn paths(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error| {
        format!("could not read the folder {}: {error}; give one with TOML files", folder.display())
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") && path.is_file() {
            paths.push(path);
        }
        if paths.len() > STORED_MAX_FILES {
            return Err(format!(
                "{} has more than {STORED_MAX_FILES} TOML files; give the folder of the catalogue \
                 alone",
                folder.display()
            ));
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these files and a subfolder.
    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir(dir.path().join("inner.toml")).expect("a subfolder");
        for (file, text) in files {
            fs::write(dir.path().join(file), text).expect("a file");
        }
        dir
    }

    #[test]
    fn the_toml_files_of_a_folder_add_to_the_built_in_catalogue() {
        let order = "[types.\"order.placed\"]\nkey = [\"order_id\"]\ndata = \"order_id\"\n";
        let dir = folder(&[("orders.toml", order), ("README.md", "not TOML")]);
        let catalogue = load(dir.path()).expect("valid");
        assert!(catalogue.resolve("order.placed").is_some());
        assert!(catalogue.resolve("post.created").is_some());
        assert_ne!(catalogue.hash(), Catalogue::builtin().hash());
    }

    #[test]
    fn every_error_names_its_file_and_entry() {
        let one = "[types.\"post.created\"]\ndata = \"\"\n[types.\"a.b\"]\ndata = \"x:q\"\n";
        let two =
            "[kinds.posts]\nid = \"x\"\nclasses = [\"stream\"]\nwho = [\"user\"]\ncarries = \"\"\n";
        let dir = folder(&[("one.toml", one), ("two.toml", two)]);
        let error = load(dir.path()).expect_err("three errors");
        for (file, entry) in [("one", "post.created"), ("one", "a.b"), ("two", "posts")] {
            let place = format!("{}.toml, {entry}: ", dir.path().join(file).display());
            assert!(error.contains(&place), "{place} is not in {error}");
        }
    }

    #[test]
    fn files_that_do_not_fit_a_record_of_the_log_are_refused() {
        let large = format!("# {}", "x".repeat(STORED_MAX_BYTES / 2));
        assert!(load(folder(&[("one.toml", &large)]).path()).is_ok());
        let error = load(folder(&[("one.toml", &large), ("two.toml", &large)]).path());
        assert!(error.expect_err("together").contains("is too large"));
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let error = load(Path::new("/no/such/folder")).expect_err("it is not there");
        assert!(error.starts_with("could not read the folder /no/such/folder: "), "{error}");
        assert_eq!(in_force("").expect("none is given").hash(), Catalogue::builtin().hash());
    }
}
