//! The name of a build follows from the sources that decide its outputs, and from nothing else.
//!
//! The build script is compiled by itself and run beside copies of the sources.

use std::path::{Path, PathBuf};
use std::process::Command;

use tidewire_tests::server::command;

/// What the script reads, and what it is made of.
const COPIED: [&str; 5] = [
    "Cargo.lock",
    "schemas/src",
    "pipeline/engine/src",
    "pipeline/app/build.rs",
    "connectors/build.rs",
];

#[test]
fn a_build_is_named_by_its_sources() {
    let folder = tempfile::tempdir().expect("a folder");
    for path in COPIED {
        copy(&root().join(path), &folder.path().join(path));
    }
    let script = compiled(folder.path());
    let first = name(&script, folder.path());
    let output = command().arg("--version").output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), format!("tidewire {first}"));

    let append = |path: &str, text: &str| {
        let path = folder.path().join(path);
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        std::fs::write(&path, before + text).expect("it can be written");
    };
    append("schemas/src/envelope/tests.rs", "// more\n");
    append("pipeline/engine/src/fanout/tests/fixture.rs", "// more\n");
    append("README.md", "more\n");
    assert_eq!(name(&script, folder.path()), first, "tests and documents decide no output");
    let mut names = vec![first];
    for path in ["pipeline/engine/src/derive/dedup.rs", "schemas/src/json.rs", "Cargo.lock"] {
        append(path, "\n");
        names.push(name(&script, folder.path()));
    }
    append("pipeline/engine/src/derive/another.rs", "");
    names.push(name(&script, folder.path()));
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 5, "each change has a name of its own: {names:?}");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").to_owned()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
    if from.is_file() {
        std::fs::copy(from, to).expect("it can be copied");
        return;
    }
    for entry in std::fs::read_dir(from).expect("a folder") {
        let name = entry.expect("an entry").file_name();
        copy(&from.join(&name), &to.join(&name));
    }
}

fn compiled(folder: &Path) -> PathBuf {
    let program = folder.join("script");
    let output = Command::new(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into()))
        .args(["--edition", "2024", "pipeline/app/build.rs", "-o"])
        .arg(&program)
        .env("CARGO_PKG_VERSION", env!("CARGO_PKG_VERSION"))
        .current_dir(folder)
        .output()
        .expect("rustc runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}

fn name(script: &Path, folder: &Path) -> String {
    let output =
        Command::new(script).current_dir(folder.join("pipeline/app")).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let prefix = "cargo::rustc-env=TIDEWIRE_BUILD=";
    let name = text.lines().find_map(|line| line.strip_prefix(prefix));
    name.unwrap_or_else(|| panic!("no name in {text}")).to_owned()
}
