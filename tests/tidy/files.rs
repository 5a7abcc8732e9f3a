//! Rules about files: their headers, names and width.

use crate::check;
use crate::source::{read, root, sources, tracked};

/// Lines of the header.
const HEADER_LINES: std::ops::RangeInclusive<usize> = 1..=40;
/// Columns of a line.
const COLUMNS_MAX: usize = 100;
/// Names that say nothing.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "manager", "misc"];

#[test]
fn every_file_begins_with_a_header() {
    let mut all = Vec::new();
    for source in sources() {
        let header = source.text.lines().take_while(|line| line.starts_with("//!")).count();
        if !HEADER_LINES.contains(&header) {
            all.push(format!(
                "{}: a header of {header} lines; name the component and say what it does",
                source.path
            ));
        }
    }
    check(all);
}

#[test]
fn no_file_has_a_name_that_says_nothing() {
    let empty = |path: &&String| {
        let parts = path.split(['/', '.']);
        parts.into_iter().any(|part| EMPTY_NAMES.contains(&part))
    };
    let all = tracked();
    check(all.iter().filter(empty).map(|path| format!("{path}: name what is in it")).collect());
}

#[test]
fn no_line_of_code_is_wider_than_100_columns() {
    let mut all = Vec::new();
    for source in sources() {
        let mut at = 0;
        for (line, code) in source.text.lines().zip(source.code.lines()) {
            // A string that a test compares with is most readable in one piece.
            let is_text = source.is_test(at) && code.trim_end().chars().count() <= COLUMNS_MAX;
            let columns = line.chars().count();
            if columns > COLUMNS_MAX && !(is_text && line.contains('"')) {
                all.push(format!("{}: {columns} columns", source.location(at)));
            }
            at += line.len() + 1;
        }
    }
    for path in tracked().into_iter().filter(|path| path.ends_with(".sh")) {
        let text = read(&path).expect("scripts are text");
        for (number, line) in text.lines().enumerate() {
            if line.chars().count() > COLUMNS_MAX {
                all.push(format!("{path}:{}: {} columns", number + 1, line.chars().count()));
            }
        }
    }
    check(all);
}

#[test]
fn lib_and_mod_files_only_list_their_parts() {
    let mut all = Vec::new();
    for source in sources() {
        let lists = source.path.ends_with("/lib.rs") || source.path.ends_with("/mod.rs");
        if lists && let Some(at) = source.words("fn").find(|at| !source.is_test(*at)) {
            all.push(format!("{}: logic in a list of parts", source.location(at)));
        }
    }
    check(all);
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let mut all = Vec::new();
    for path in tracked().into_iter().filter(|path| path.ends_with("Cargo.toml")) {
        let text = read(&path).expect("TOML is text");
        if path == "Cargo.toml" {
            assert!(
                text.contains("unsafe_code = \"deny\""),
                "unsafe code is denied everywhere; the one file that may have it is below"
            );
        } else if !text.contains("[lints]\nworkspace = true") {
            all.push(format!("{path}: add [lints] workspace = true"));
        }
    }
    check(all);
}

#[test]
fn unsafe_code_is_only_in_the_reviewed_file() {
    const REVIEWED: &str = "connectors/src/kafka/native.rs";
    let mut all = Vec::new();
    for source in sources().iter().filter(|source| source.path != REVIEWED) {
        all.extend(source.words("unsafe").map(|at| format!("{}: unsafe", source.location(at))));
        all.extend(
            source.words("unsafe_code").map(|at| format!("{}: unsafe", source.location(at))),
        );
    }
    check(all);
}

#[test]
fn the_commands_of_the_readme_are_makefile_targets() {
    let readme = read("README.md").expect("the README is text");
    let makefile = read("Makefile").expect("the Makefile is text");
    let verbs: Vec<&str> = readme
        .lines()
        .filter_map(|line| line.trim().strip_prefix("make "))
        .filter_map(|rest| rest.split_whitespace().next())
        .collect();
    for wanted in ["run", "test"] {
        assert!(verbs.contains(&wanted), "the README shows `make {wanted}`");
    }
    let missing = |verb: &&&str| !makefile.contains(&format!("\n{verb}:"));
    check(verbs.iter().filter(missing).map(|verb| format!("README: no verb {verb}")).collect());
    assert!(root().join(".ci/run").is_file(), "CI has its one entry");
}
