//! Rules about the runbook: what it names exists, and every alert has its section.
//!
//! Text between backticks is recognised by its beginning: `tidewire` is parsed as the binary would,
//! `make` is a verb, `tidewire_` a metric, `ERROR` and `WARN` a message that is logged.

use clap::Parser as _;
use tidewire_app::cli::Cli;

use crate::check;
use crate::source::{read, sources};

const RUNBOOK: &str = "deploy/RUNBOOK.md";

fn runbook() -> String {
    read(RUNBOOK).expect("the runbook is text")
}

/// The text between backticks.
fn spans(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_alert_has_its_section_and_every_section_its_alert() {
    let (runbook, alerts) = (runbook(), read("deploy/prometheus/alerts.yml").expect("text"));
    let alerts: Vec<&str> =
        alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let (_, rest) = runbook.split_once("\n## Alerts\n").expect("a part about alerts");
    let (part, _) = rest.split_once("\n## ").expect("and one behind it");
    let sections: Vec<&str> = part.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert!(alerts.len() > 5, "{alerts:?}");
    assert_eq!(sections, alerts, "{RUNBOOK} has the sections of alerts.yml, in its order");
}

#[test]
fn every_command_in_the_runbook_exists() {
    let (runbook, makefile) = (runbook(), read("Makefile").expect("text"));
    let mut all = Vec::new();
    for span in spans(&runbook) {
        if span.starts_with("tidewire ") {
            if let Err(error) = Cli::try_parse_from(words(span)) {
                all.push(format!("{RUNBOOK}: `{span}`: {error}"));
            }
        } else if let Some(rest) = span.strip_prefix("make ") {
            let verb = rest.split(' ').next().unwrap_or_default();
            if !makefile.contains(&format!("\n{verb}:")) {
                all.push(format!("{RUNBOOK}: `{span}`: no such verb"));
            }
        }
    }
    check(all);
}

/// The words of a command, as a shell would give them.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut quoted) = (vec![String::new()], false);
    for letter in command.chars() {
        match letter {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            letter => words.last_mut().expect("there is one").push(letter),
        }
    }
    words
}

#[test]
fn every_metric_and_log_line_in_the_runbook_exists() {
    let (runbook, page) = (runbook(), read("deploy/prometheus/METRICS.md").expect("text"));
    let sources = sources();
    let mut all = Vec::new();
    let mut lines = 0;
    for span in spans(&runbook) {
        let name = span.split('{').next().unwrap_or_default();
        if name.starts_with("tidewire_") && !page.contains(&format!("`{name}`")) {
            all.push(format!("{RUNBOOK}: no metric {name}"));
        }
        let Some(line) = span.strip_prefix("ERROR ").or(span.strip_prefix("WARN ")) else {
            continue;
        };
        lines += 1;
        let logged = |text: &str| text.contains("tracing::") && text.contains(line);
        if !sources.iter().any(|source| logged(&source.text)) {
            all.push(format!("{RUNBOOK}: no code logs {line:?}"));
        }
    }
    assert!(lines > 3, "the runbook says what is logged");
    check(all);
}
