//! Rules about dependencies: which crate may use which, and whose licences we accept.
//!
//! The data comes from cargo itself, so that what is checked is what is built.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;
use tidewire_tests::machine::host_triple;

use crate::check;
use crate::source::root;

/// The crates in order; each uses only those before it.
const CRATES: [&str; 5] = [
    "tidewire-schemas",
    "tidewire-engine",
    "tidewire-connectors",
    "tidewire-app",
    "tidewire-tests",
];

/// What the engine may use besides our crates: no library that does IO.
const ENGINE_USES: &[&str] = &[
    "bytes",
    "metrics",
    "serde_json",
    "thiserror",
    "tracing",
    "hashbrown",
    "xxhash-rust",
    "memchr",
    "smallvec",
];

/// Licences that we accept: permissive, and compatible with Apache-2.0.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0", // certificate authorities: data, not code
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

fn metadata() -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let asked = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform"])
        .arg(host_triple())
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    serde_json::from_slice(&asked.stdout).expect("cargo speaks JSON")
}

fn packages(metadata: &Value) -> BTreeMap<&str, &Value> {
    let all = metadata["packages"].as_array().expect("packages").iter();
    all.map(|package| (package["name"].as_str().expect("a name"), package)).collect()
}

#[test]
fn a_crate_uses_only_crates_to_its_left() {
    let metadata = metadata();
    let packages = packages(&metadata);
    let mut all = Vec::new();
    for (rank, user) in CRATES.iter().enumerate() {
        for dependency in packages[user]["dependencies"].as_array().expect("a list") {
            let name = dependency["name"].as_str().expect("a name");
            let allowed = CRATES.iter().position(|other| *other == name).is_none_or(|at| at < rank);
            if !allowed {
                all.push(format!("{user} uses {name}, which is to its right"));
            }
            let foreign = !name.starts_with("tidewire-") && dependency["kind"].is_null();
            if *user == "tidewire-engine" && foreign && !ENGINE_USES.contains(&name) {
                all.push(format!("the engine uses {name}; add it to this list if it does no IO"));
            }
        }
    }
    check(all);
}

#[test]
fn every_dependency_comes_under_a_licence_we_accept() {
    let metadata = metadata();
    let mut all = Vec::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("a name");
        match package["license"].as_str() {
            Some(licence) if accepted(licence) => {}
            Some(licence) => all.push(format!("{name}: {licence} is not in the list")),
            None => all.push(format!("{name}: it names no licence")),
        }
    }
    check(all);
}

/// Node packages run in tests only. Their lock files name versions and hashes and no registry, so
/// that they install from any.
#[test]
fn lock_files_of_npm_name_accepted_licences_and_no_registry() {
    let mut all = Vec::new();
    let folders = std::fs::read_dir(root().join("tests/clients")).expect("a folder");
    let files = folders.map(|entry| entry.expect("an entry").path().join("package-lock.json"));
    let files: Vec<_> = files.filter(|file| file.exists()).collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).expect("it can be read");
        let lock: Value = serde_json::from_str(&text).expect("it is JSON");
        for (name, package) in lock["packages"].as_object().expect("packages") {
            let shown = format!("{}: {name}", file.display());
            match package["license"].as_str() {
                Some(licence) if accepted(licence) || licence == "Python-2.0" => {}
                Some(licence) => all.push(format!("{shown}: {licence} is not in the list")),
                None => all.push(format!("{shown}: it names no licence")),
            }
            if package.get("resolved").is_some() {
                all.push(format!("{shown}: remove `resolved` (omit-lockfile-registry-resolved)"));
            }
        }
    }
    check(all);
}

/// Whether an SPDX expression allows a choice of listed licences. `/` is an old form of OR.
fn accepted(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let tokens = expression.replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = tokens.split_whitespace().collect();
    let (value, rest) = any_of(&tokens);
    assert!(rest.is_empty(), "{expression}: not understood at {rest:?}");
    value
}

fn any_of<'a, 'b>(tokens: &'a [&'b str]) -> (bool, &'a [&'b str]) {
    let (mut value, mut rest) = all_of(tokens);
    while let ["OR", more @ ..] = rest {
        let (next, left) = all_of(more);
        (value, rest) = (value || next, left);
    }
    (value, rest)
}

fn all_of<'a, 'b>(tokens: &'a [&'b str]) -> (bool, &'a [&'b str]) {
    let (mut value, mut rest) = one(tokens);
    while let ["AND", more @ ..] = rest {
        let (next, left) = one(more);
        (value, rest) = (value && next, left);
    }
    (value, rest)
}

fn one<'a, 'b>(tokens: &'a [&'b str]) -> (bool, &'a [&'b str]) {
    match tokens {
        ["(", inner @ ..] => match any_of(inner) {
            (value, [")", rest @ ..]) => (value, rest),
            (_, rest) => (false, rest),
        },
        [name, "WITH", exception, rest @ ..] => {
            let whole = format!("{name} WITH {exception}");
            (LICENCES.contains(&whole.as_str()), rest)
        }
        [name, rest @ ..] => (LICENCES.contains(name), rest),
        [] => (false, tokens),
    }
}

#[test]
fn licence_expressions_are_read_as_spdx_means_them() {
    assert!(accepted("MIT OR Apache-2.0"));
    assert!(accepted("MIT/GPL-3.0"));
    assert!(accepted("(MIT OR GPL-3.0) AND Unicode-3.0"));
    assert!(accepted("Apache-2.0 WITH LLVM-exception"));
    assert!(!accepted("GPL-3.0"));
    assert!(!accepted("MIT AND LGPL-3.0"));
    assert!(!accepted("(MIT AND GPL-3.0) OR LGPL-3.0"));
}
