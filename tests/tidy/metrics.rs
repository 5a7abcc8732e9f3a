//! Rules about metrics: recorded in one file per crate, and described there.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::check;
use crate::source::{SourceFile, root, sources};

const CALLS: [&str; 3] = ["counter!", "gauge!", "histogram!"];

#[test]
fn metrics_are_recorded_in_telemetry_files_only() {
    let mut all = Vec::new();
    for source in sources().iter().filter(|source| !source.path.ends_with("/telemetry.rs")) {
        for call in CALLS {
            for at in source.words(call.trim_end_matches('!')) {
                if source.code[at..].starts_with(call) && !source.is_test(at) {
                    all.push(format!("{}: call a function of telemetry.rs", source.location(at)));
                }
            }
        }
    }
    check(all);
}

#[test]
fn every_metric_is_in_its_crates_catalogue_and_every_entry_is_used() {
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    for source in sources().iter().filter(|source| source.path.ends_with("/telemetry.rs")) {
        let catalogue = source.text.find("CATALOGUE").expect("telemetry has a catalogue");
        let end = catalogue + source.text[catalogue..].find("];").expect("the table ends");
        let listed = first_names(source, "", catalogue..end);
        let used: BTreeSet<String> =
            CALLS.iter().flat_map(|call| first_names(source, call, 0..source.text.len())).collect();
        for name in used.difference(&listed) {
            all.push(format!("{}: {name} is not in the catalogue", source.path));
        }
        for name in listed.difference(&used) {
            all.push(format!("{}: {name} is in the catalogue but never used", source.path));
        }
        for name in listed {
            if !seen.insert(name.clone()) {
                all.push(format!("{}: {name} is another crate's metric", source.path));
            }
        }
    }
    assert!(!seen.is_empty(), "there are metrics");
    check(all);
}

/// The string literals that come first after `call` and a parenthesis.
fn first_names(source: &SourceFile, call: &str, within: Range<usize>) -> BTreeSet<String> {
    let text = &source.text[within.clone()];
    let opening = format!("{call}(");
    let opened = text.match_indices(&opening).filter_map(|(at, whole)| {
        let inside = text[at + whole.len()..].trim_start().strip_prefix('"')?;
        (!source.is_test(within.start + at)).then(|| inside.split('"').next())?
    });
    opened.map(str::to_owned).collect()
}

/// Every metric: name, kind, labels, meaning.
fn page() -> String {
    let crates = [
        ("Pipeline and fan-out", tidewire_engine::telemetry::CATALOGUE),
        ("Sockets, log and stores", tidewire_connectors::telemetry::CATALOGUE),
        ("Process", tidewire_app::runtime::telemetry::CATALOGUE),
    ];
    let mut out =
        "# Metrics\n\nGenerated from the tables in the code. This command writes it again:\n\n\
                   ```sh\nTIDEWIRE_UPDATE=1 cargo test --release --test tidy\n```\n"
            .to_owned();
    for (section, catalogue) in crates {
        out +=
            &format!("\n## {section}\n\n| metric | kind | labels | meaning |\n|---|---|---|---|\n");
        for (name, kind, labels, meaning) in catalogue {
            let labels = labels.join(", ");
            out += &format!("| `tidewire_{name}` | {kind} | {labels} | {meaning} |\n");
        }
    }
    out
}

#[test]
fn the_metrics_page_matches_the_code() {
    let path = root().join("deploy/prometheus/METRICS.md");
    if std::env::var_os("TIDEWIRE_UPDATE").is_some() {
        std::fs::write(&path, page()).expect("the page can be written");
    }
    let committed = std::fs::read_to_string(&path).expect("the page is there");
    assert_eq!(committed, page(), "run it once with TIDEWIRE_UPDATE=1 and read what changed");
}

#[test]
fn alerts_name_metrics_that_exist() {
    let alerts = std::fs::read_to_string(root().join("deploy/prometheus/alerts.yml"))
        .expect("the alerts are there");
    let page = page();
    let names: BTreeSet<&str> = alerts
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("tidewire_"))
        .collect();
    assert!(names.len() > 5, "the alerts name metrics: {names:?}");
    let unknown = names.iter().filter(|name| !page.contains(&format!("`{name}`")));
    check(unknown.map(|name| format!("deploy/prometheus/alerts.yml: no metric {name}")).collect());
}
