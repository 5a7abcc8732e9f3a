//! Rules about documents that list things: what they name exists, and what exists is named.

use std::collections::BTreeSet;

use crate::check;
use crate::source::{SourceFile, read, sources};

/// Where the tests of each target of `tests/README.md` are.
const TARGETS: &[(&str, &str)] = &[
    ("it", "tests/it/"),
    ("sim", "tests/sim/"),
    ("schemas", "schemas/src/"),
    ("engine", "pipeline/engine/src/"),
    ("connectors", "connectors/src/"),
    ("app", "pipeline/app/src/"),
];
/// Targets whose files with tests must all be named.
const WHOLE: &[&str] = &["it", "sim"];

#[test]
fn the_readme_of_the_tests_names_tests_that_exist_and_every_file_of_them() {
    let text = read("tests/README.md").expect("the README is text");
    let sources = sources();
    let mut all = Vec::new();
    let mut named = BTreeSet::new();
    for entry in text.lines().filter_map(|line| line.split('`').rev().nth(1)) {
        let Some((target, test)) = entry.split_once(' ') else { continue };
        let Some((_, root)) = TARGETS.iter().find(|(name, _)| *name == target) else { continue };
        let (module, name) = test.rsplit_once("::").unwrap_or(("", test));
        let found: Vec<&SourceFile> = sources
            .iter()
            .filter(|source| source.path.starts_with(root) && is_module(&source.path, module))
            .filter(|source| name.is_empty() || source.code.contains(&format!("fn {name}(")))
            .collect();
        if found.is_empty() {
            all.push(format!("tests/README.md: there is no test {entry}"));
        }
        named.extend(found.iter().map(|source| source.path.clone()));
    }
    for source in &sources {
        let root = |target: &&str| TARGETS.iter().find(|(name, _)| name == target);
        let whole = WHOLE.iter().filter_map(root).any(|(_, root)| source.path.starts_with(root));
        if whole && source.code.contains("#[test]") && !named.contains(&source.path) {
            all.push(format!("tests/README.md: name a test of {}", source.path));
        }
    }
    check(all);
}

/// Whether a file is the module `a::b`, or any module if none is named.
fn is_module(path: &str, module: &str) -> bool {
    let file = path.trim_end_matches(".rs").trim_end_matches("/mod").trim_end_matches("/main");
    module.is_empty() || file.ends_with(&format!("/{}", module.replace("::", "/")))
}
