//! Rules about metrics: named in one place per crate, and explained there.

use std::collections::BTreeSet;

use crate::check;
use crate::source::sources;

/// What every metric's name begins with, so that an operator finds them among others.
const PREFIX: &str = "tidewire_";
const CALLS: [&str; 3] = ["counter!", "gauge!", "histogram!"];

#[test]
fn metrics_are_touched_in_telemetry_files_only() {
    let mut all = Vec::new();
    for source in sources().iter().filter(|source| !source.path.ends_with("/telemetry.rs")) {
        for call in CALLS {
            for at in source.words(call.trim_end_matches('!')) {
                if source.code[at..].starts_with(call) && !source.is_test(at) {
                    all.push(format!("{}: call a function of telemetry.rs", source.place(at)));
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
        let listed = names(&source.text[catalogue..end]);
        let used = names(&format!("{}{}", &source.text[..catalogue], &source.text[end..]));
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

#[test]
fn every_metric_says_whose_it_is() {
    let mut all = Vec::new();
    for source in sources().iter().filter(|source| source.path.ends_with("/telemetry.rs")) {
        for call in CALLS {
            for (at, _) in source.text.match_indices(&format!("{call}(\"")) {
                let name = &source.text[at + call.len() + 2..];
                if !name.starts_with(PREFIX) && !name.starts_with('"') && !source.is_test(at) {
                    all.push(format!("{}: begin its name with {PREFIX}", source.place(at)));
                }
            }
        }
    }
    check(all);
}

fn names(text: &str) -> BTreeSet<String> {
    let quoted = text.split('"').skip(1).step_by(2);
    quoted.filter(|name| name.starts_with(PREFIX) && *name != PREFIX).map(str::to_owned).collect()
}
