//! Rules about imports: the files of a crate form layers, so no file imports itself through others.
//!
//! A circle between files shows a type in the wrong file: move it to a file that both can import.
//! A parent and its children may import each other, since they are one module to the outside.

use std::collections::{BTreeMap, BTreeSet};

use crate::check;
use crate::source::{SourceFile, sources};

/// The roots of the crates whose files form layers.
const ROOTS: &[&str] =
    &["schemas/src/", "pipeline/engine/src/", "connectors/src/", "pipeline/app/src/", "tests/src/"];

/// A module by its path from the root of the crate.
type Module = Vec<String>;

#[test]
fn no_file_imports_itself_through_other_files() {
    let sources = sources();
    let mut all = Vec::new();
    for root in ROOTS {
        let imports = imports(root, &sources);
        for circle in circles(&imports) {
            all.push(format!("{root}: {} import each other", circle.join(", ")));
        }
    }
    check(all);
}

/// Which files of a crate each of its files imports; parents, children and tests left out.
fn imports(root: &str, sources: &[SourceFile]) -> BTreeMap<Module, BTreeSet<Module>> {
    let files: BTreeMap<Module, &SourceFile> = sources
        .iter()
        .filter_map(|source| Some((module(source.path.strip_prefix(root)?), source)))
        .filter(|(module, _)| !module.iter().any(|part| part == "tests"))
        .collect();
    let mut imports = BTreeMap::new();
    for (module, source) in &files {
        let used = paths(source).into_iter().filter_map(|path| resolve(module, &path, &files));
        let related = |other: &Module| module.starts_with(other) || other.starts_with(module);
        imports.insert(module.clone(), used.filter(|other| !related(other)).collect());
    }
    imports
}

/// The module of a file: `kafka/mod.rs` and `kafka.rs` are both `kafka`.
fn module(file: &str) -> Module {
    let name = file.strip_suffix(".rs").expect("sources are Rust files");
    let mut parts: Module = name.split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|part| matches!(part.as_str(), "mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

/// Every path in the code that begins with `crate`, `super` or `self`, those of tests left out.
fn paths(source: &SourceFile) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for start in ["crate", "super", "self"] {
        for at in source.words(start).filter(|at| !source.is_test(*at)) {
            let code = &source.code[at..];
            let inside = source.code[..at].trim_end().ends_with("::");
            if !inside && code[start.len()..].trim_start().starts_with("::") {
                expand(Vec::new(), &mut Tokens::new(code), &mut found);
            }
        }
    }
    found
}

/// Reads one path, or a tree of them in braces, and adds each path after `prefix`.
fn expand(mut prefix: Vec<String>, tokens: &mut Tokens<'_>, found: &mut Vec<Vec<String>>) {
    loop {
        match tokens.next_token() {
            Token::Name(name) => prefix.push(name),
            Token::Open => {
                while tokens.at_entry() {
                    expand(prefix.clone(), tokens, found);
                }
                return;
            }
            Token::Other => break,
        }
        if !tokens.skip("::") {
            break;
        }
    }
    found.push(prefix);
    tokens.skip_rename();
}

/// The pieces of a path as it is read.
enum Token {
    Name(String),
    Open,
    Other,
}

/// The rest of the code to read.
struct Tokens<'a>(&'a str);

impl<'a> Tokens<'a> {
    fn new(code: &'a str) -> Self {
        Self(code)
    }

    fn next_token(&mut self) -> Token {
        self.0 = self.0.trim_start();
        if let Some(rest) = self.0.strip_prefix('{') {
            self.0 = rest;
            return Token::Open;
        }
        let end = self.0.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.0.len());
        let (name, rest) = self.0.split_at(end);
        self.0 = rest;
        if name.is_empty() { Token::Other } else { Token::Name(name.to_owned()) }
    }

    fn skip(&mut self, what: &str) -> bool {
        let rest = self.0.trim_start().strip_prefix(what);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// Whether another entry of a tree in braces follows; reads its comma or closing brace.
    fn at_entry(&mut self) -> bool {
        self.skip(",");
        self.skip("*");
        !self.skip("}") && !self.0.trim_start().is_empty()
    }

    /// Skips `as Name`.
    fn skip_rename(&mut self) {
        if self.skip("as ") {
            self.next_token();
        }
    }
}

/// The file a path leads to.
fn resolve(
    from: &Module,
    path: &[String],
    files: &BTreeMap<Module, &SourceFile>,
) -> Option<Module> {
    let mut base = match path.first()?.as_str() {
        "crate" => Module::new(),
        _ => from.clone(),
    };
    for part in path {
        match part.as_str() {
            "crate" | "self" => continue,
            "super" => {
                base.pop()?;
                continue;
            }
            _ => {}
        }
        let mut next = base.clone();
        next.push(part.clone());
        if !files.contains_key(&next) {
            break;
        }
        base = next;
    }
    files.contains_key(&base).then_some(base)
}

/// The groups of files that reach each other, each as names to print.
fn circles(imports: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<Vec<String>> {
    let reach: BTreeMap<&Module, BTreeSet<&Module>> =
        imports.keys().map(|module| (module, reachable(module, imports))).collect();
    let mut groups: BTreeSet<Vec<String>> = BTreeSet::new();
    for (module, reached) in &reach {
        if reached.contains(module) {
            let both = reached.iter().filter(|other| reach[*other].contains(module));
            groups.insert(both.map(|other| other.join("::")).collect());
        }
    }
    groups.into_iter().collect()
}

/// All files that `from` imports, by itself or through others.
fn reachable<'a>(
    from: &Module,
    imports: &'a BTreeMap<Module, BTreeSet<Module>>,
) -> BTreeSet<&'a Module> {
    let mut seen = BTreeSet::new();
    let mut next: Vec<&Module> = imports[from].iter().collect();
    while let Some(module) = next.pop() {
        if seen.insert(module) {
            next.extend(&imports[module]);
        }
    }
    seen
}

#[test]
fn a_circle_is_found_through_nested_imports() {
    let file =
        |path: &str, code: &str| SourceFile::new(format!("schemas/src/{path}"), code.to_owned());
    let sources = [
        file("lib.rs", "mod a; mod b; mod c;"),
        file("a.rs", "use crate::{b::{self, Two}, c};"),
        file("b.rs", "fn f() -> super::c::Three {}"),
        file("c.rs", "#[cfg(test)] mod tests { use crate::a::One; }"),
    ];
    assert!(circles(&imports("schemas/src/", &sources)).is_empty());
    let mut sources = Vec::from(sources);
    sources.push(file("c.rs", "use super::a::One as Other;"));
    let found = circles(&imports("schemas/src/", &sources));
    assert_eq!(found, [["a", "b", "c"]]);
}
