//! Names the build by what decides its outputs, and passes the linker arguments of connectors on.
//!
//! `order` contains the name, so that a replay executes only what the same code wrote. The name
//! follows from the sources of the crates that make outputs, their tests left out, and from the
//! versions of all libraries. The catalogue has a hash of its own.

use std::path::{Path, PathBuf};

#[path = "../../connectors/build.rs"]
mod librdkafka;

/// What outputs depend on, from the folder of this package.
const SOURCES: [&str; 3] = ["../../schemas/src", "../engine/src", "../../Cargo.lock"];

fn main() {
    librdkafka::main();
    let mut files = Vec::new();
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
        collect(Path::new(source), &mut files);
    }
    files.sort();
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    for file in &files {
        let text = std::fs::read(file).expect("a source file can be read");
        hash.add(file.to_string_lossy().as_bytes());
        hash.add(&text);
    }
    println!("cargo::rustc-env=TIDEWIRE_BUILD={}+{:016x}", env!("CARGO_PKG_VERSION"), hash.0);
}

/// Adds the files below `path`, without tests.
fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    let is_test = path.file_stem().is_some_and(|name| name == "tests");
    if is_test {
        return;
    }
    if !path.is_dir() {
        return files.push(path.to_owned());
    }
    for entry in std::fs::read_dir(path).expect("a source folder can be read") {
        collect(&entry.expect("a source folder can be read").path(), files);
    }
}

/// FNV-1a of 64 bits: a build script needs no crate for a name.
struct Fnv(u64);

impl Fnv {
    /// Adds a part and its length, so that no two lists of parts are one text.
    fn add(&mut self, part: &[u8]) {
        for byte in (part.len() as u64).to_le_bytes().iter().chain(part) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
