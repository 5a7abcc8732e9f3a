//! Puts mutants into source text: `if crate::mutant::on(n) { mutated } else { original }`.

use std::fmt::Write as _;

use super::list::{Mutant, TightLimit};

/// The file of the switch in the copy.
pub(super) const SWITCH_FILE: &str = "src/mutant.rs";

/// The variable that selects a mutant, by its name.
pub(super) const SWITCH: &str = "TIDEWIRE_MUTANT";

/// The source of the switch: whether the mutant of this number is selected.
pub(super) fn switch(mutants: &[Mutant]) -> String {
    let names: Vec<&str> = mutants.iter().map(|mutant| mutant.name).collect();
    format!(
        "use std::sync::LazyLock;\n\
         static PICKED: LazyLock<Option<usize>> = LazyLock::new(|| {{\n\
             let name = std::env::var({SWITCH:?}).ok()?;\n\
             let names = {names:?};\n\
             Some(names.iter().position(|n| *n == name).expect(\"no such mutant\"))\n\
         }});\n\
         pub fn on(n: usize) -> bool {{ *PICKED == Some(n) }}\n"
    )
}

/// Where a snippet is; it must occur exactly once.
fn find_once(text: &str, file: &str, snippet: &str) -> Result<usize, String> {
    let mut places = text.match_indices(snippet).map(|(at, _)| at);
    match (places.next(), places.next()) {
        (Some(at), None) => Ok(at),
        (found, _) => {
            let times = if found.is_none() { "does not occur" } else { "occurs more than once" };
            Err(format!(
                "{file}: a snippet {times}; update it in \
                 tests/sim/mutants/list.rs:\n{snippet}"
            ))
        }
    }
}

/// The text of a file with its tight limits and all its mutants.
pub(super) fn mutate(
    file: &str,
    text: &str,
    limits: &[TightLimit],
    mutants: &[Mutant],
) -> Result<String, String> {
    let mut places: Vec<(usize, &str, String)> = Vec::new();
    for limit in limits.iter().filter(|limit| limit.file == file) {
        let at = find_once(text, file, limit.original)?;
        places.push((at, limit.original, limit.tight.to_owned()));
    }
    for (n, mutant) in mutants.iter().enumerate().filter(|(_, mutant)| mutant.file == file) {
        let at = find_once(text, file, mutant.original)?;
        let branch = format!("if crate::mutant::on({n}) {{ {} }} else ", mutant.mutated);
        match places.iter_mut().find(|(_, original, _)| *original == mutant.original) {
            Some((_, _, branches)) => branches.push_str(&branch),
            None => places.push((at, mutant.original, branch)),
        }
    }
    places.sort_by_key(|(at, _, _)| *at);
    let (mut out, mut from) = (String::new(), 0);
    for (at, original, branches) in places {
        if at < from {
            return Err(format!("{file}: two snippets of the list overlap at:\n{original}"));
        }
        out.push_str(&text[from..at]);
        from = at + original.len();
        let written = if !branches.ends_with("else ") {
            write!(out, "{branches}")
        } else if original.ends_with(';') {
            write!(out, "{branches}{{ {original} }}")
        } else {
            write!(out, "({branches}{{ {original} }})")
        };
        written.expect("text can be written to");
    }
    out.push_str(&text[from..]);
    Ok(out)
}

#[test]
fn mutants_of_one_snippet_are_combined_and_a_missing_snippet_is_named() {
    let mutant = |name, mutated| Mutant { name, file: "f", original: "a + b", mutated, breaks: "" };
    let text = "let x = a + b;";
    let mutants = [mutant("one", "a - b"), mutant("two", "0")];
    assert_eq!(
        mutate("f", text, &[], &mutants).expect("it occurs once"),
        "let x = (if crate::mutant::on(0) { a - b } else if crate::mutant::on(1) { 0 } else { a + b });"
    );
    let gone = mutate("f", "let x = 1;", &[], &mutants).expect_err("it is gone");
    assert!(gone.contains("list.rs") && gone.contains("a + b"), "{gone}");
    let limits = [TightLimit { file: "f", original: "1 << 20", tight: "1" }];
    assert_eq!(mutate("f", "N = 1 << 20;", &limits, &[]).as_deref(), Ok("N = 1;"));
}
