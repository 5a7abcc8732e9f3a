//! Rules about metrics: named in one place per crate, and explained there.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::check;
use crate::source::{Source, sources};

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

/// The texts that stand first behind `call` and a parenthesis.
fn first_names(source: &Source, call: &str, within: Range<usize>) -> BTreeSet<String> {
    let text = &source.text[within.clone()];
    let opening = format!("{call}(");
    let opened = text.match_indices(&opening).filter_map(|(at, whole)| {
        let inside = text[at + whole.len()..].trim_start().strip_prefix('"')?;
        (!source.is_test(within.start + at)).then(|| inside.split('"').next())?
    });
    opened.map(str::to_owned).collect()
}
