//! Rules about the documents: the facts in their tables are those of the code.
//!
//! A table is found by the text of its first heading cell. What it lists is compared as a set, so
//! a missing row fails like a wrong one.

use std::collections::BTreeSet;

use clap::Parser as _;
use tidewire_app::api::endpoints::{self, Audience};
use tidewire_app::cli::Cli;
use tidewire_connectors::socket::http::response::HttpErrorCode;
use tidewire_engine::derive::table_specs;
use tidewire_engine::fanout::protocol::native::ErrorCode;
use tidewire_engine::operators::OPERATORS;
use tidewire_engine::port::{Cleanup, TopicSpec};
use tidewire_engine::topology::Topology;
use tidewire_schemas::envelope::Reason;

use crate::check;
use crate::source::{read, root, tracked};

/// Lines that the README may have.
const README_LINES_MAX: usize = 120;
/// Documents whose commands are tried on the command line's parser.
const WITH_COMMANDS: &[&str] = &[
    "README.md",
    "docs/kafka.md",
    "docs/operations.md",
    "docs/formats.md",
    "docs/quickstart.md",
    "docs/your-own-event-type.md",
];

/// The rows of the first table of a page whose heading begins with these cells.
fn rows(page: &str, heading: &str) -> Vec<Vec<String>> {
    let text = read(page).expect("documents are text");
    let mut lines = text.lines().skip_while(|line| !line.starts_with(&format!("| {heading}")));
    assert!(lines.next().is_some(), "{page} has a table that begins with {heading:?}");
    let cells = |line: &str| {
        let inner = line.trim_matches('|');
        inner.split(" | ").map(|cell| cell.trim().to_owned()).collect()
    };
    lines.skip(1).take_while(|line| line.starts_with('|')).map(cells).collect()
}

/// What a cell names: its text between the first backticks.
fn name(cell: &str) -> String {
    cell.split('`').nth(1).unwrap_or_default().to_owned()
}

fn same(what: &str, page: BTreeSet<String>, code: BTreeSet<String>) {
    let missing: Vec<&String> = code.difference(&page).collect();
    let wrong: Vec<&String> = page.difference(&code).collect();
    assert!(
        missing.is_empty() && wrong.is_empty(),
        "{what}: add {missing:?}, correct or remove {wrong:?}"
    );
}

#[test]
fn the_endpoints_of_the_http_page_are_those_of_the_server() {
    let page = rows("docs/http.md", "endpoint");
    // The files of the web page are one row, and no interface.
    let page = page.into_iter().filter(|row| name(&row[0]) != "/").map(|row| {
        let audience = if row[3] == "this machine" { "local" } else { "any" };
        format!("{} {} {audience}", name(&row[1]).to_lowercase(), name(&row[0]))
    });
    let code = endpoints::all().into_iter().map(|endpoint| {
        let local = endpoint.audience == Audience::LocalAdministrators;
        format!("{} {} {}", endpoint.method, endpoint.path, if local { "local" } else { "any" })
    });
    same("docs/http.md, endpoints", page.collect(), code.collect());
}

#[test]
fn the_errors_of_the_http_page_have_their_statuses() {
    let page = rows("docs/http.md", "status | code");
    // A body whose events were all refused has an entry for each instead of one code; a WebSocket
    // request that is none and a head that is too large get a status of their own.
    let own_status = |row: &[String]| ["426", "431"].contains(&row[0].as_str());
    let page = page.into_iter().filter(|row| row[1].contains('`') && !own_status(row));
    let page = page.map(|row| format!("{} {}", row[0], name(&row[1])));
    let shared = ErrorCode::ALL.into_iter().map(HttpErrorCode::Shared);
    let used: BTreeSet<&str> = endpoints::all()
        .iter()
        .flat_map(|endpoint| endpoint.errors.clone())
        .chain(endpoints::COMMON_ERRORS)
        .map(HttpErrorCode::as_str)
        .collect();
    let shared = shared.filter(|code| used.contains(code.as_str()));
    // Only unknown paths are not found, which no endpoint lists.
    let unknown_path = [HttpErrorCode::Shared(ErrorCode::NotFound)];
    let code = shared.chain(unknown_path).chain(HttpErrorCode::HTTP_ONLY);
    let code = code.map(|code| format!("{} {}", code.status().as_u16(), code.as_str()));
    same("docs/http.md, errors", page.collect(), code.collect());
}

#[test]
fn the_dead_letter_reasons_of_the_formats_page_are_those_of_the_code() {
    let page = rows("docs/formats.md", "reason | meaning").into_iter().map(|row| name(&row[0]));
    let code = Reason::ALL.into_iter().map(|reason| reason.as_str().to_owned());
    same("docs/formats.md, reasons", page.collect(), code.collect());
}

#[test]
fn the_topics_of_the_kafka_page_are_those_of_the_code() {
    let page = rows("docs/kafka.md", "topic | written by").into_iter();
    let page = page.map(|row| format!("{} {} {}", name(&row[0]), name(&row[5]), row[6]));
    let code = Topology::new("tw.", 8).specs();
    same("docs/kafka.md, topics", page.collect(), code.iter().map(topic).collect());
}

/// A topic as the page has it: name, cleanup, how long records are kept.
fn topic(spec: &TopicSpec) -> String {
    let (cleanup, kept) = match spec.cleanup {
        Cleanup::Delete { retention_ms, .. } => {
            ("delete", days(retention_ms.expect("our topics have a time")))
        }
        Cleanup::Compact { .. } => ("compact", "latest per key".to_owned()),
        Cleanup::CompactDelete { retention_ms, .. } => ("compact,delete", days(retention_ms)),
    };
    format!("{} {cleanup} {kept}", spec.topic.as_str())
}

fn days(ms: u64) -> String {
    const DAY_MS: u64 = 86_400_000;
    if ms.is_multiple_of(DAY_MS) {
        format!("{} d", ms / DAY_MS)
    } else {
        format!("{} min", ms / 60_000)
    }
}

#[test]
fn the_tables_of_state_of_the_operations_page_are_those_of_the_code() {
    // A row without a name is another kind of key of the table above it.
    let page = rows("docs/operations.md", "table | number").into_iter();
    let page =
        page.filter(|row| row[0].contains('`')).map(|row| format!("{} {}", name(&row[0]), row[1]));
    let code = table_specs(OPERATORS).into_iter();
    let code = code.map(|spec| format!("{} {}", spec.name, spec.table.0));
    same("docs/operations.md, tables of state", page.collect(), code.collect());
}

#[test]
fn the_metrics_and_alerts_of_the_operations_page_exist() {
    let metrics = read("deploy/prometheus/METRICS.md").expect("text");
    let alerts = read("deploy/prometheus/alerts.yml").expect("text");
    let mut all = Vec::new();
    for row in rows("docs/operations.md", "metric | shows") {
        let metric = name(&row[0]);
        if !metrics.contains(&format!("`{metric}`")) {
            all.push(format!("docs/operations.md: no metric {metric}"));
        }
    }
    check(all);
    let page = rows("docs/operations.md", "alert | severity").into_iter();
    let severity = |name: &str| {
        let rule = alerts.split(&format!("- alert: {name}\n")).nth(1).unwrap_or_default();
        let severity = rule.split("severity: ").nth(1).unwrap_or_default();
        severity.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default()
    };
    let code = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let code = code.map(|name| format!("{name} {}", severity(name)));
    let page = page.map(|row| format!("{} {}", name(&row[0]), row[1]));
    same("docs/operations.md, alerts", page.collect(), code.collect());
}

#[test]
fn every_command_in_the_documents_is_one_the_binary_accepts() {
    let makefile = read("Makefile").expect("text");
    let (mut all, mut tried) = (Vec::new(), 0);
    for page in WITH_COMMANDS {
        let text = read(page).expect("documents are text");
        for command in commands(&text) {
            tried += 1;
            if let Some(rest) = command.strip_prefix("make ") {
                let verb = rest.split_whitespace().next().unwrap_or_default();
                if !makefile.contains(&format!("\n{verb}:")) {
                    all.push(format!("{page}: no verb {verb}"));
                }
            } else if let Err(error) = Cli::try_parse_from(command.split_whitespace()) {
                let reason = error.to_string();
                all.push(format!("{page}: {command}: {}", reason.lines().next().unwrap_or("")));
            }
        }
    }
    assert!(tried > 20, "only {tried} commands were found");
    check(all);
}

/// The lines of shell blocks that run `tidewire` or `make`, comments and continuations left out.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_shell = false;
    for line in text.replace("\\\n", " ").lines() {
        if let Some(language) = line.strip_prefix("```") {
            in_shell = matches!(language, "sh" | "bash");
            continue;
        }
        let command = line.split(" #").next().unwrap_or_default();
        let last = command.split('|').next_back().unwrap_or_default().trim();
        let ours = last.starts_with("tidewire ") || last.starts_with("make ");
        if in_shell && ours && !last.contains(['\'', '"', '$', '<', '>']) {
            found.push(last.to_owned());
        }
    }
    found
}

#[test]
fn every_link_of_the_documents_leads_to_a_file_and_a_heading() {
    let mut all = Vec::new();
    for page in tracked().into_iter().filter(|path| path.ends_with(".md")) {
        let text = read(&page).expect("documents are text");
        let folder = root().join(&page).parent().expect("a file has a folder").to_owned();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.contains(char::is_whitespace) {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { root().join(&page) } else { folder.join(file) };
            let Ok(linked) = std::fs::read(&path).or_else(|_| folder_of(&path)) else {
                all.push(format!("{page}: {target} leads nowhere"));
                continue;
            };
            let linked = String::from_utf8_lossy(&linked);
            if !anchor.is_empty() && !anchors(&linked).contains(anchor) {
                all.push(format!("{page}: {target} has no such heading"));
            }
        }
    }
    check(all);
}

/// A folder is a target too; it has no headings.
fn folder_of(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    std::fs::read_dir(path).map(|_| Vec::new())
}

/// The anchors that GitHub makes of a document's headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let heading = |line: &str| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    text.lines().filter(|line| line.starts_with('#')).map(heading).collect()
}

#[test]
fn the_readme_is_short() {
    let lines = read("README.md").expect("text").lines().count();
    assert!(lines <= README_LINES_MAX, "README.md has {lines} lines; move details into docs");
}

#[test]
fn tables_commands_and_anchors_are_found() {
    assert_eq!(
        commands("```sh\ntidewire a \\\n  --b # c\nx | tidewire d\n```\nmake e\n"),
        ["tidewire a    --b", "tidewire d"]
    );
    let found = anchors("# A title, with `code`\n## GET /v1/ws\n");
    assert_eq!(found, ["a-title-with-code", "get-v1ws"].map(str::to_owned).into());
}
