//! Parses `deploy/Dockerfile` and `.dockerignore`, as far as ours use their syntax.
//!
//! A line that ends in a backslash continues on the next one, also across comment lines. Options,
//! such as `--from=build`, come before the arguments.

use std::process::Command;

use crate::deploy::compose::{file, root};

/// Where the file is.
pub(crate) const PATH: &str = "deploy/Dockerfile";

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) name: String,
    /// The text after the name, on one line.
    pub(crate) text: String,
}

/// The instructions of one stage.
#[derive(Clone, Debug)]
pub(crate) struct BuildStage {
    pub(crate) base: String,
    pub(crate) name: Option<String>,
    pub(crate) instructions: Vec<Instruction>,
}

/// What is copied into an image.
#[derive(Clone, Debug)]
pub(crate) struct CopyInstruction {
    /// The stage it comes from; `None`: the build's context.
    pub(crate) from: Option<String>,
    pub(crate) sources: Vec<String>,
    pub(crate) target: String,
}

/// Reads the stages of this repository's image.
pub(crate) fn stages() -> Vec<BuildStage> {
    parse(&file(PATH))
}

fn parse(text: &str) -> Vec<BuildStage> {
    let mut stages: Vec<BuildStage> = Vec::new();
    for line in logical_lines(text) {
        let (name, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let rest = rest.trim().to_owned();
        if name == "FROM" {
            let words: Vec<&str> = rest.split_whitespace().collect();
            let (base, name) = match words[..] {
                [base] => (base, None),
                [base, "AS", name] => (base, Some(name.to_owned())),
                _ => panic!("FROM {rest}: write FROM IMAGE:TAG [AS NAME]"),
            };
            stages.push(BuildStage { base: base.to_owned(), name, instructions: Vec::new() });
            continue;
        }
        let stage = stages.last_mut().unwrap_or_else(|| panic!("{name} before FROM"));
        stage.instructions.push(Instruction { name: name.to_owned(), text: rest });
    }
    stages
}

fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut whole = String::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        match line.strip_suffix('\\') {
            Some(more) => whole.push_str(more),
            None => {
                whole.push_str(line);
                lines.push(std::mem::take(&mut whole));
            }
        }
    }
    assert!(whole.is_empty(), "the file ends in a line that continues");
    lines.retain(|line| !line.trim().is_empty());
    lines
}

impl BuildStage {
    /// The texts of the instructions of this name.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.instructions.iter().filter(|instruction| instruction.name == name);
        named.map(|instruction| instruction.text.as_str()).collect()
    }

    /// The text of the only instruction of this name.
    pub(crate) fn only(&self, name: &str) -> &str {
        match self.all(name)[..] {
            [one] => one,
            ref other => panic!("{name} occurs {} times, not once", other.len()),
        }
    }

    /// Its `COPY` instructions.
    pub(crate) fn copies(&self) -> Vec<CopyInstruction> {
        self.all("COPY").iter().map(|text| copied(text)).collect()
    }

    /// The shell commands of its `RUN` instructions, options left out.
    pub(crate) fn commands(&self) -> Vec<Vec<String>> {
        let words = |command: &str| command.split_whitespace().map(str::to_owned).collect();
        let runs = self.all("RUN").into_iter();
        runs.flat_map(|text| without_options(text).split("&&").map(words)).collect()
    }

    /// The Debian packages it installs, in order of their names.
    pub(crate) fn packages(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for command in self.commands().into_iter().filter(|words| words[0] == "apt-get") {
            if command[1] == "install" {
                all.extend(command[2..].iter().filter(|word| !word.starts_with('-')).cloned());
            }
        }
        all.sort();
        all
    }

    /// The variables it sets.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let pair = |text: &str| {
            let (name, value) = text.split_once('=').expect("write ENV NAME=VALUE, one a line");
            (name.to_owned(), value.to_owned())
        };
        self.all("ENV").into_iter().map(pair).collect()
    }
}

fn without_options(text: &str) -> &str {
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let end = rest.find(char::is_whitespace).expect("options come before an argument");
        rest = rest[end..].trim_start();
    }
    rest
}

fn copied(text: &str) -> CopyInstruction {
    let options: Vec<&str> =
        text.split_whitespace().take_while(|word| word.starts_with("--")).collect();
    let from = match options[..] {
        [] => None,
        [one] => Some(one.strip_prefix("--from=").expect("only --from is known").to_owned()),
        _ => panic!("COPY {text}: only --from is known"),
    };
    let mut words: Vec<String> =
        without_options(text).split_whitespace().map(str::to_owned).collect();
    let target = words.pop().expect("COPY has a target");
    assert!(!words.is_empty(), "COPY {text}: no source");
    CopyInstruction { from, sources: words, target }
}

/// The rules of `.dockerignore`.
pub(crate) struct DockerIgnore {
    rules: Vec<String>,
}

impl DockerIgnore {
    /// Reads the file of this repository.
    pub(crate) fn read() -> Self {
        Self::parse(&file(".dockerignore"))
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim);
        let rules = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let rules: Vec<String> = rules.map(str::to_owned).collect();
        let plain = |rule: &String| rule == "*" || !rule.contains(['*', '?', '[', '\\']);
        assert!(rules.iter().all(plain), "only a lone * and plain paths are supported here");
        Self { rules }
    }

    /// Whether a path is excluded from the build context. The last rule that matches it, or a
    /// folder it is in, decides.
    pub(crate) fn excludes(&self, path: &str) -> bool {
        let mut out = false;
        for rule in &self.rules {
            let (fits, excludes) = match rule.strip_prefix('!') {
                Some(back) => (is_within(path, back), false),
                None => (rule == "*" || is_within(path, rule), true),
            };
            if fits {
                out = excludes;
            }
        }
        out
    }
}

/// Whether a path is this one or below it.
pub(crate) fn is_within(path: &str, folder: &str) -> bool {
    let rest = path.strip_prefix(folder.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The paths of all files that are tracked, or about to be.
pub(crate) fn tracked() -> Vec<String> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root());
    let listed = git.output().expect("these tests run in a clone, by git's list of files");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let text = String::from_utf8(listed.stdout).expect("our paths are text");
    text.lines().map(str::to_owned).filter(|path| root().join(path).is_file()).collect()
}

#[test]
fn instructions_continue_over_lines_and_comments() {
    let text = "# c\nFROM a:1 AS b\nRUN --mount=type=cache,target=/x \\\n    one -y \\\n # why\n \
                && apt-get install -y \\\n  p2 p1\n\nFROM c:2\nCOPY --from=b /o /t/\nENV A=1\n";
    let stages = parse(text);
    assert_eq!((stages[0].base.as_str(), stages[0].name.as_deref()), ("a:1", Some("b")));
    assert_eq!(stages[0].commands()[0], ["one", "-y"]);
    assert_eq!(stages[0].packages(), ["p1", "p2"]);
    let copied = &stages[1].copies()[0];
    assert_eq!((copied.from.as_deref(), copied.target.as_str()), (Some("b"), "/t/"));
    assert_eq!(copied.sources, ["/o"]);
    assert_eq!(stages[1].variables(), [("A".to_owned(), "1".to_owned())]);
}

#[test]
fn the_last_matching_rule_decides() {
    let ignore = DockerIgnore::parse("# c\n*\n!a\n!b/c\na/secret\n");
    for (path, out) in [
        ("x", true),
        ("a/f", false),
        ("a/secret/f", true),
        ("ab", true),
        ("b/c", false),
        ("b/d", true),
    ] {
        assert_eq!(ignore.excludes(path), out, "{path}");
    }
}
