//! Rust files for the rules: their text, and the text with all but the code blanked.
//!
//! A scanner, not a parser: it knows comments, strings, characters and braces, which is all that
//! the rules need. Blanked text has the same lines and columns as the file.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A Rust file.
pub(crate) struct SourceFile {
    /// Its path from the root of the repository.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
    /// The text without comments, strings and characters.
    pub(crate) code: String,
    /// The bytes that are compiled for tests only.
    test_spans: Vec<Range<usize>>,
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests are a folder of the repository").to_owned()
}

/// The paths of all files that are tracked, or about to be.
pub(crate) fn tracked() -> Vec<String> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root());
    let listed = git.output().expect("the rules are checked in a clone, by git's list of files");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let text = String::from_utf8(listed.stdout).expect("our paths are text");
    // A file that was removed but not committed yet is still listed.
    text.lines().map(str::to_owned).filter(|path| root().join(path).is_file()).collect()
}

/// The text of a tracked file; `None` if it isn't text.
pub(crate) fn read(path: &str) -> Option<String> {
    String::from_utf8(fs::read(root().join(path)).expect("listed files can be read")).ok()
}

/// Every Rust file.
pub(crate) fn sources() -> Vec<SourceFile> {
    let rust = tracked().into_iter().filter(|path| path.ends_with(".rs"));
    rust.map(|path| SourceFile::new(path.clone(), read(&path).expect("Rust is UTF-8"))).collect()
}

impl SourceFile {
    /// Scans a file.
    pub(crate) fn new(path: String, text: String) -> Self {
        let code = blank(&text);
        let mut source = Self { path, text, code, test_spans: Vec::new() };
        let marks: Vec<usize> =
            source.code.match_indices("#[cfg(test)]").map(|(at, _)| at).collect();
        for at in marks {
            if let Some(body) = source.body_after(at) {
                source.test_spans.push(at..body.end);
            }
        }
        source
    }

    /// Whether the code at this byte is compiled for tests only.
    pub(crate) fn is_test(&self, at: usize) -> bool {
        let in_folder = self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs");
        in_folder || self.test_spans.iter().any(|span| span.contains(&at))
    }

    /// The first braces that open after `at`, both included; `None` where a `;` comes before.
    pub(crate) fn body_after(&self, at: usize) -> Option<Range<usize>> {
        let open = at + self.code[at..].find(['{', ';'])?;
        if self.code.as_bytes()[open] == b';' {
            return None;
        }
        self.closing(open).map(|close| open..close + 1)
    }

    /// The brace, bracket or parenthesis that closes the one at `open`.
    pub(crate) fn closing(&self, open: usize) -> Option<usize> {
        let mut depth = 0usize;
        for (at, byte) in self.code.bytes().enumerate().skip(open) {
            match byte {
                b'{' | b'(' | b'[' => depth += 1,
                b'}' | b')' | b']' => {
                    depth = depth.checked_sub(1)?;
                    if depth == 0 {
                        return Some(at);
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// Where `word` occurs as a whole word in the code.
    pub(crate) fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        self.code.match_indices(word).map(|(at, _)| at).filter(move |at| {
            let before = self.code[..*at].chars().next_back();
            let after = self.code[at + word.len()..].chars().next();
            !before.is_some_and(is_name) && !after.is_some_and(is_name)
        })
    }

    /// `path:line` of a byte.
    pub(crate) fn location(&self, at: usize) -> String {
        let line = self.text[..at].matches('\n').count() + 1;
        format!("{}:{line}", self.path)
    }
}

/// The text with comments, strings and characters replaced by spaces, line ends kept.
pub(crate) fn blank(text: &str) -> String {
    let mut out = text.as_bytes().to_vec();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => line_end(bytes, at),
            b'/' if bytes[at..].starts_with(b"/*") => comment_end(bytes, at),
            b'"' => string_end(bytes, at + 1),
            b'r' if !follows_name(bytes, at) => match raw_end(bytes, at) {
                Some(end) => end,
                None => at + 1,
            },
            b'\'' => char_end(text, at),
            _ => at + 1,
        };
        if end > at + 1 {
            for byte in &mut out[at..end] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
        }
        at = end;
    }
    String::from_utf8(out).expect("whole characters are blanked")
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |n| at + n)
}

fn comment_end(bytes: &[u8], at: usize) -> usize {
    let mut depth = 0;
    let mut i = at;
    while i < bytes.len() {
        if bytes[i..].starts_with(b"/*") {
            depth += 1;
            i += 2;
        } else if bytes[i..].starts_with(b"*/") {
            depth -= 1;
            i += 2;
            if depth == 0 {
                return i;
            }
        } else {
            i += 1;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// `r"…"`, `r#"…"#` and so on; `None` if no raw string begins here.
fn raw_end(bytes: &[u8], at: usize) -> Option<usize> {
    let hashes = bytes[at + 1..].iter().take_while(|byte| **byte == b'#').count();
    let open = at + 1 + hashes;
    (bytes.get(open) == Some(&b'"')).then_some(())?;
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let found = bytes[open + 1..].windows(close.len()).position(|window| window == close);
    Some(found.map_or(bytes.len(), |n| open + 1 + n + close.len()))
}

/// The end of a character; a lifetime has none, and is left as it is.
fn char_end(text: &str, at: usize) -> usize {
    let mut rest = text[at + 1..].chars();
    match (rest.next(), rest.next()) {
        (Some('\\'), Some(escaped)) => {
            let from = at + 2 + escaped.len_utf8();
            text[from..].find('\'').map_or(text.len(), |n| from + n + 1)
        }
        (Some(letter), Some('\'')) => at + 1 + letter.len_utf8() + 1,
        _ => at + 1,
    }
}

/// `r` inside a name, such as the end of `for`; a byte string's `b` before it is no name.
fn follows_name(bytes: &[u8], at: usize) -> bool {
    let before = at.checked_sub(1).map(|i| bytes[i]);
    before.is_some_and(|byte| byte != b'b' && (byte.is_ascii_alphanumeric() || byte == b'_'))
}

#[test]
fn everything_but_code_is_blanked() {
    let check = |text: &str, expected: &str| assert_eq!(blank(text), expected, "{text}");
    check("a // b\nc", "a     \nc");
    check("a /* b /* c */ */ d", "a                 d");
    check(r#"f("x \" y") + 1"#, "f(        ) + 1");
    check(r##"f(r#"a " b"#, 'x', '\'', b"q")"##, "f(          ,    ,     , b   )");
    check("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)");
    check("for x in r {}", "for x in r {}");
}
