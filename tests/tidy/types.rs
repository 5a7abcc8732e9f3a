//! Rules about type names: one name, one concept, in the whole workspace.

use std::collections::BTreeMap;

use crate::check;
use crate::source::sources;

/// Names that several modules may define, and why the module path is enough to tell them apart.
const SHARED: &[(&str, &str)] = &[
    ("Config", "the settings of one component; always written with its module"),
    ("Arguments", "the command line of one benchmark program"),
];

/// What begins the definition of a type.
const KEYWORDS: &[&str] = &["struct", "enum", "trait", "union"];

#[test]
fn no_type_name_is_defined_twice() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources() {
        for keyword in KEYWORDS {
            for at in source.words(keyword) {
                let name: String = source.code[at + keyword.len()..]
                    .trim_start()
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                if name.starts_with(char::is_uppercase) {
                    places.entry(name).or_default().push(source.location(at));
                }
            }
        }
    }
    let shared = |name: &str| SHARED.iter().any(|(allowed, _)| *allowed == name);
    let twice = places.iter().filter(|(name, at)| at.len() > 1 && !shared(name));
    let mut all: Vec<String> =
        twice.map(|(name, at)| format!("{name} is defined in {}", at.join(", "))).collect();
    for (name, reason) in SHARED {
        if places.get(*name).is_none_or(|at| at.len() < 2) {
            all.push(format!("{name} has one definition; remove it from SHARED ({reason})"));
        }
    }
    check(all);
}
