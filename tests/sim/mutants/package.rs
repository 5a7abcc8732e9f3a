//! The package in which the mutated copy of the engine is built, inside the target folder.
//!
//! Clones may share a target folder, so each has its own package and program there, and their
//! dependencies are built once. The package uses the repository's dependencies, lock file and
//! toolchain, and never a registry. Files are written only where they differ, so that unchanged
//! code is not built again.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::list::{LIMITS, MUTANTS};
use super::schema::{SWITCH_FILE, mutate, switch};

/// The engine's folder in the repository.
const ENGINE: &str = "pipeline/engine";

/// The package's manifest, before the text of the workspace's.
const MANIFEST: &str = r#"
[package]
name = "tidewire-mutants"
version.workspace = true
edition.workspace = true
publish.workspace = true

[[bin]]
name = "{program}"
path = "{root}/tests/sim/mutants/program.rs"

[dependencies]
tidewire-engine.workspace = true
tidewire-schemas.workspace = true
bytes.workspace = true
"#;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of it")
}

/// The name of this clone's program.
fn program() -> String {
    let mut clone = DefaultHasher::new();
    root().hash(&mut clone);
    format!("simulation-{:016x}", clone.finish())
}

/// The folder that clones share.
fn folder() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own file");
    // <target>/release/deps/sim-…
    test.ancestors().nth(3).expect("it is in a target folder").join("tests/mutants")
}

fn write(path: &Path, text: &str) {
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return;
    }
    fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder");
    fs::write(path, text).expect("a file of the package is written");
}

/// The workspace's manifest, with the engine replaced by the copy.
fn manifest() -> String {
    let root = root().display().to_string();
    let workspace = fs::read_to_string(format!("{root}/Cargo.toml")).expect("the manifest");
    let mut lines: Vec<String> = Vec::new();
    for line in workspace.lines() {
        lines.push(if line.starts_with("members = ") {
            "members = [\"engine\"]".to_owned()
        } else if line.starts_with("tidewire-engine = ") {
            "tidewire-engine = { path = \"engine\" }".to_owned()
        } else if line.starts_with("debug = ") {
            // Compiles quickly, and is fast enough.
            "debug = false\nopt-level = 1\ncodegen-units = 16".to_owned()
        } else {
            line.replace("path = \"", &format!("path = \"{root}/"))
        });
    }
    MANIFEST.replace("{root}", &root).replace("{program}", &program()) + &lines.join("\n") + "\n"
}

/// The paths of a folder's files, relative to it.
fn files(folder: &Path, under: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder.join(under)).expect("a folder of the engine") {
        let entry = entry.expect("a file of the engine");
        let name = entry.file_name().into_string().expect("our paths are text");
        let path = format!("{under}/{name}");
        if entry.path().is_dir() {
            found.extend(files(folder, &path));
        } else {
            found.push(path);
        }
    }
    found
}

fn copy_engine(to: &Path) -> Result<(), String> {
    let engine = root().join(ENGINE);
    let sources = files(&engine, "src");
    for path in &sources {
        let text = fs::read_to_string(engine.join(path)).expect("Rust is text");
        let mut text = mutate(path, &text, LIMITS, MUTANTS)?;
        if path == "src/lib.rs" {
            text.push_str("pub mod mutant;\n");
        }
        write(&to.join(path), &text);
    }
    for stray in files(to, "src") {
        if !sources.contains(&stray) && stray != SWITCH_FILE {
            fs::remove_file(to.join(stray)).expect("a file that is no more can be removed");
        }
    }
    write(&to.join(SWITCH_FILE), &switch(MUTANTS));
    let manifest = fs::read_to_string(engine.join("Cargo.toml")).expect("the engine's manifest");
    write(&to.join("Cargo.toml"), &manifest);
    Ok(())
}

/// Builds the simulation on the mutated engine; returns its path, or the compiler's errors.
pub(super) fn build() -> Result<PathBuf, String> {
    let target = folder().join("target");
    let folder = folder().join(program());
    copy_engine(&folder.join("engine"))?;
    write(&folder.join("Cargo.toml"), &manifest());
    // Cargo removes from it what this package does not use.
    fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock")).expect("the lock file");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--offline", "--quiet", "--target-dir"])
        .arg(&target)
        .current_dir(&folder)
        // Warnings in the copy were reported in the original.
        .env("RUSTFLAGS", "--cap-lints=allow")
        .output()
        .map_err(|error| format!("cargo can't be run: {error}"))?;
    if !built.status.success() {
        return Err(String::from_utf8_lossy(&built.stderr).into_owned());
    }
    Ok(target.join("release").join(program()))
}
