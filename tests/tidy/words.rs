//! Rules about words that must not occur: unfinished work, machine paths, silenced lints.
//!
//! The words are put together here from parts, so that this file passes its own rules.

use crate::check;
use crate::source::{read, sources, tracked};

/// Tracked files whose text is not ours, or that list names of others.
const FOREIGN: &[&str] = &["Cargo.lock", "LICENSE", "package-lock.json"];

fn ours() -> impl Iterator<Item = (String, String)> {
    let foreign = |path: &String| FOREIGN.iter().any(|name| path.ends_with(name));
    let paths = tracked().into_iter().filter(move |path| !foreign(path));
    paths.filter_map(|path| read(&path).map(|text| (path, text)))
}

#[test]
fn no_comment_marks_unfinished_work() {
    let words = [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X")];
    let mut all = Vec::new();
    for (path, text) in ours() {
        for (number, line) in text.lines().enumerate() {
            let mut parts = line.split(|c: char| !c.is_alphanumeric());
            if let Some(word) = parts.find(|part| words.contains(part)) {
                all.push(format!("{path}:{}: {word}; do it, or open an issue", number + 1));
            }
        }
    }
    check(all);
}

#[test]
fn no_file_contains_a_path_of_a_developer_machine() {
    let folders = ["tmp", "root", "work", "home"].map(|name| format!("/{name}/"));
    let mut all = Vec::new();
    for (path, text) in ours() {
        for (number, line) in text.lines().enumerate() {
            let named = folders.iter().any(|folder| holds_path(line, folder));
            if named {
                all.push(format!("{path}:{}: a path of one machine", number + 1));
            }
        }
    }
    check(all);
}

/// Whether the line has an absolute path into `folder`: no part of a longer path before it, and a
/// name after it.
fn holds_path(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let part = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '}' | ')');
        let inside = line[..at].chars().next_back().is_some_and(part);
        let named = line[at + folder.len()..].chars().next().is_some_and(|c| c.is_alphanumeric());
        !inside && named
    })
}

#[test]
fn lints_are_expected_with_a_reason_and_never_allowed() {
    let mut all = Vec::new();
    for source in sources() {
        let marks = ["#[allow(", "#![allow("].into_iter();
        for (at, _) in marks.flat_map(|mark| source.code.match_indices(mark)) {
            all.push(format!("{}: use #[expect(…, reason = …)]", source.location(at)));
        }
        for (at, _) in source.code.match_indices("#[expect(") {
            let open = at + "#[expect".len();
            let close = source.closing(open).expect("an attribute is closed");
            if !source.code[open..close].contains("reason") {
                all.push(format!("{}: say the reason", source.location(at)));
            }
        }
    }
    check(all);
}

#[test]
fn the_engine_names_no_io_library() {
    let worlds = ["tokio", "rocksdb", "axum", "mio", "hyper", "rdkafka"];
    let mut all = Vec::new();
    let pure = |path: &str| path.starts_with("schemas/") || path.starts_with("pipeline/engine/");
    for source in sources().into_iter().filter(|source| pure(&source.path)) {
        for world in worlds {
            for at in source
                .words(world)
                .filter(|at| source.code[*at..].starts_with(&format!("{world}::")))
            {
                all.push(format!(
                    "{}: the engine must not use {world}; it belongs behind a port",
                    source.location(at)
                ));
            }
        }
    }
    check(all);
}
