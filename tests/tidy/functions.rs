//! Rules about functions: their length, their arguments, and what they must not call.

use crate::check;
use crate::source::{SourceFile, sources};

/// Lines from the signature's first to the closing brace.
const LINES_MAX: usize = 70;
/// Arguments besides `self`.
const ARGUMENTS_MAX: usize = 4;

/// Calls that belong to some files of a crate, and the ends of those files' paths.
const OWNED: &[(&str, &[&str])] = &[
    ("SystemTime::now", &["app/src/runtime/clock.rs"]),
    ("Instant::now", &["app/src/runtime/clock.rs", "connectors/src/"]),
    ("thread::sleep", &["app/src/runtime/clock.rs", "connectors/src/"]),
    ("thread::spawn", &["app/src/runtime/supervisor.rs", "connectors/src/"]),
    ("thread::Builder", &["app/src/runtime/supervisor.rs", "connectors/src/"]),
    ("env::var", &["app/src/configure.rs"]),
    ("env::var_os", &["app/src/configure.rs"]),
    ("env::vars", &["app/src/configure.rs"]),
    ("env::vars_os", &["app/src/configure.rs"]),
    ("RandomState", &["app/src/runtime/random.rs"]),
    ("process::exit", &["app/src/runtime/supervisor.rs"]),
];

/// A function with a body.
struct Function {
    at: usize,
    name: String,
    arguments: Vec<String>,
    lines: usize,
}

fn functions(source: &SourceFile) -> Vec<Function> {
    let mut found = Vec::new();
    for at in source.words("fn") {
        let rest = &source.code[at + 2..];
        let name: String =
            rest.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if name.is_empty() {
            continue; // a function pointer type
        }
        let Some(open) = parenthesis(source, at) else { continue };
        let Some(close) = source.closing(open) else { continue };
        let lines = source
            .body_after(close)
            .map_or(0, |body| source.code[at..body.end].matches('\n').count() + 1);
        let arguments = split(&source.code[open + 1..close]);
        found.push(Function { at, name, arguments, lines });
    }
    found
}

/// Where the arguments begin: after the name and its `<…>`; arrows inside do not count.
fn parenthesis(source: &SourceFile, at: usize) -> Option<usize> {
    let bytes = source.code.as_bytes();
    let mut depth = 0i32;
    for i in at..bytes.len() {
        match bytes[i] {
            b'<' => depth += 1,
            b'>' if bytes[i - 1] != b'-' => depth -= 1,
            b'(' if depth == 0 => return Some(i),
            b'{' | b';' => return None,
            _ => {}
        }
    }
    None
}

/// The arguments, without `self`.
fn split(list: &str) -> Vec<String> {
    let mut arguments = vec![String::new()];
    let mut depth = 0i32;
    let mut before = ' ';
    for c in list.chars() {
        match c {
            '(' | '[' | '{' | '<' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            '>' if before != '-' => depth -= 1,
            ',' if depth == 0 => {
                arguments.push(String::new());
                before = c;
                continue;
            }
            _ => {}
        }
        before = c;
        arguments.last_mut().expect("one at least").push(c);
    }
    let trimmed = arguments.iter().map(|argument| argument.trim().to_owned());
    let is_self = |a: &str| a == "self" || a.ends_with(" self") || a.ends_with("&self");
    let is_typed_self = |a: &str| a.starts_with("self:") || a.starts_with("mut self:");
    trimmed.filter(|a| !a.is_empty() && !is_self(a) && !is_typed_self(a)).collect()
}

fn violations(rule: impl Fn(&SourceFile, &Function) -> Option<String>) -> Vec<String> {
    let mut all = Vec::new();
    for source in sources() {
        for function in functions(&source) {
            let violation = rule(&source, &function);
            let location = || format!("{} {}", source.location(function.at), function.name);
            all.extend(violation.map(|text| format!("{}: {text}", location())));
        }
    }
    all
}

#[test]
fn no_function_is_longer_than_70_lines() {
    check(violations(|_, function| {
        (function.lines > LINES_MAX)
            .then(|| format!("{} lines; split it into named parts", function.lines))
    }));
}

#[test]
fn no_function_takes_more_than_4_arguments() {
    check(violations(|source, function| {
        let count = function.arguments.iter().map(|argument| values(argument)).sum::<usize>();
        let many = count > ARGUMENTS_MAX && !source.is_test(function.at);
        many.then(|| format!("{count} arguments; group what belongs together"))
    }));
}

/// How many values an argument passes: a destructured tuple passes its elements.
fn values(argument: &str) -> usize {
    let Some(inner) = argument.strip_prefix('(') else { return 1 };
    let pattern = inner.split(')').next().unwrap_or_default();
    pattern.split(',').filter(|element| !element.trim().is_empty()).count()
}

#[test]
fn no_function_takes_a_bare_bool() {
    check(violations(|source, function| {
        let flag = function.arguments.iter().find(|argument| argument.ends_with(": bool"))?;
        (!source.is_test(function.at)).then(|| format!("`{flag}`; say what it means by an enum"))
    }));
}

#[test]
fn nothing_is_unwrapped_outside_tests() {
    let mut all = Vec::new();
    for source in sources() {
        for (at, _) in source.code.match_indices(".unwrap()") {
            if !source.is_test(at) {
                let location = source.location(at);
                all.push(format!("{location}: unwrap; handle it, or `expect` with why it holds"));
            }
        }
    }
    check(all);
}

#[test]
fn clocks_sleeps_threads_chance_and_the_environment_are_used_by_their_owners_only() {
    let mut all = Vec::new();
    for source in sources() {
        for (call, owners) in OWNED {
            if owners.iter().any(|owner| source.path.contains(owner)) {
                continue;
            }
            for at in source.words(call).filter(|at| !source.is_test(*at)) {
                let location = source.location(at);
                all.push(format!("{location}: {call} belongs to {}", owners.join(" or ")));
            }
        }
    }
    check(all);
}

#[test]
fn the_scanner_finds_the_parts_of_a_function() {
    let text =
        "impl A { fn f<T: Fn(u8) -> u8>(&mut self, a: (u8, u8), b: Vec<[u8; 2]>) -> u8 {\n1\n} }";
    let source = SourceFile::new("a.rs".into(), text.into());
    let found = functions(&source);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].name.as_str(), found[0].lines), ("f", 3));
    assert_eq!(found[0].arguments, ["a: (u8, u8)", "b: Vec<[u8; 2]>"]);
}
