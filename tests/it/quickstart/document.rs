//! Extracts the programs of a page of `docs`.
//!
//! The line before a fenced block names its file: `<!-- snippet: send.py -->`. Every block needs
//! such a line, except output, which is marked `text`; so no block is left out by mistake.

use std::collections::BTreeMap;
use std::fs;

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");

/// The text of a page.
pub(crate) fn text(page: &str) -> String {
    let path = format!("{DOCS}/{page}");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The snippets of a page, by file name.
pub(crate) fn snippets(page: &str) -> BTreeMap<String, String> {
    parse(page, &text(page))
}

fn parse(page: &str, text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut before = "";
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            let block = block.join("\n") + "\n";
            if language != "text" {
                let name = before.strip_prefix("<!-- snippet: ");
                let name = name.and_then(|rest| rest.strip_suffix(" -->"));
                let name = name.unwrap_or_else(|| panic!("{page}: a block without name:\n{block}"));
                let twice = found.insert(name.to_owned(), block);
                assert!(twice.is_none(), "{page}: two snippets are named {name}");
            }
        }
        before = line;
    }
    found
}

#[test]
fn a_block_is_read_with_the_name_before_it_and_output_is_not() {
    let text = "<!-- snippet: a.sh -->\n```sh\necho 1\n\necho 2\n```\n\n```text\n1\n```\n";
    assert_eq!(
        parse("a page", text),
        [("a.sh".to_owned(), "echo 1\n\necho 2\n".to_owned())].into()
    );
}
