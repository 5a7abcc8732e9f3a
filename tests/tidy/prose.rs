//! Rules about prose: plain words, short lines, and a first sentence that names the component.
//!
//! The words are put together here from parts, so that this file passes its own rules.

use std::collections::BTreeMap;

use crate::check;
use crate::source::{read, sources, tracked};

/// Words that mark a private style, and how many of them are left. The numbers may only fall.
const PRIVATE: &[(&str, usize)] = &[
    (concat!("who", "ever"), 0),
    (concat!("an", "ew"), 0),
    (concat!("sta", "nds"), 0),
    (concat!("stand ", "still"), 0),
    (concat!("me", "nd"), 0),
    (concat!("in ", "vain"), 0),
    (concat!("the one ", "idea"), 0),
    (concat!("ho", "use"), 0),
    (concat!("do", "or"), 0),
    (concat!("de", "sk"), 0),
    (concat!("be", "ll"), 0),
    (concat!("voi", "ced"), 0),
    (concat!("wit", "ness"), 0),
    (concat!("bu", "ry"), 0),
    (concat!("bra", "ke"), 0),
    (concat!("ob", "ey"), 0),
];

/// Ends of the names of documents and other files that people read.
const ENDINGS: &[&str] = &[
    ".md",
    ".toml",
    ".sh",
    ".yml",
    ".html",
    ".svg",
    ".js",
    ".css",
    ".avsc",
    "Makefile",
    "Dockerfile",
];
/// Words of a file header's first sentence.
const FIRST_SENTENCE_WORDS_MAX: usize = 20;
/// Columns of a line of prose.
const COLUMNS_MAX: usize = 100;

/// Everything outside `tests/` that people read: comments and strings of Rust, and whole documents.
fn prose() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for source in sources().into_iter().filter(|source| !source.path.starts_with("tests/")) {
        let text: String = source
            .text
            .chars()
            .zip(blanked(&source.text, &source.code))
            .map(|(c, is_prose)| if is_prose || c == '\n' { c } else { ' ' })
            .collect();
        all.push((source.path, text));
    }
    let document = |path: &String| {
        !path.starts_with("tests/") && ENDINGS.iter().any(|end| path.ends_with(end))
    };
    let documents = tracked().into_iter().filter(document);
    all.extend(documents.filter_map(|path| read(&path).map(|text| (path, text))));
    all
}

/// For every character of a file whether it is outside the code.
fn blanked<'a>(text: &'a str, code: &'a str) -> impl Iterator<Item = bool> + 'a {
    text.char_indices().map(|(at, c)| !code[at..].starts_with(c))
}

#[test]
fn words_of_a_private_style_only_become_fewer() {
    let mut found: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (path, text) in prose() {
        for (number, line) in text.lines().enumerate() {
            let line = line.to_lowercase();
            for (word, _) in PRIVATE {
                let count = whole_words(&line, word);
                let places = found.entry(word).or_default();
                places.extend(std::iter::repeat_n(format!("{path}:{}", number + 1), count));
            }
        }
    }
    let mut all = Vec::new();
    for (word, most) in PRIVATE {
        let places = found.remove(word).unwrap_or_default();
        if places.len() > *most {
            all.push(format!("{word}: {} times, at most {most}: {places:?}", places.len()));
        } else if places.len() < *most {
            all.push(format!("{word}: only {} are left; lower its number", places.len()));
        }
    }
    check(all);
}

fn whole_words(line: &str, word: &str) -> usize {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let alone = |at: &usize| {
        let before = line[..*at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_name) && !after.is_some_and(is_name)
    };
    line.match_indices(word).map(|(at, _)| at).filter(alone).count()
}

#[test]
fn the_first_sentence_of_a_header_is_short() {
    let mut all = Vec::new();
    for source in sources() {
        let header: Vec<&str> =
            source.text.lines().map_while(|line| line.strip_prefix("//!")).collect();
        let first: String = header.join(" ");
        let words = first_sentence(&first).split_whitespace().count();
        if words > FIRST_SENTENCE_WORDS_MAX {
            all.push(format!("{}: {words} words before the first full stop", source.path));
        }
    }
    check(all);
}

/// The text up to its first full stop that ends a sentence.
fn first_sentence(text: &str) -> &str {
    text.find(". ").map_or(text, |end| &text[..end])
}

#[test]
fn prose_in_documents_is_at_most_100_columns_wide() {
    let mut all = Vec::new();
    for path in tracked().into_iter().filter(|path| path.ends_with(".md")) {
        let text = read(&path).expect("documents are text");
        let mut in_code = false;
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                in_code = !in_code;
            }
            let exempt = in_code || line.trim_start().starts_with('|');
            let columns = without_targets(line).chars().count();
            if columns > COLUMNS_MAX && !exempt {
                all.push(format!("{path}:{}: {columns} columns", number + 1));
            }
        }
    }
    check(all);
}

/// A line of Markdown without the targets of its links.
fn without_targets(line: &str) -> String {
    let mut parts = line.split("](");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out += part.split_once(')').map_or(part, |(_, rest)| rest);
    }
    out
}
