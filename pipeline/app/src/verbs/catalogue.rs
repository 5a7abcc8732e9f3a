//! `tidewire catalogue check`: checks a folder of event types, alone or against an older one.
//!
//! It loads the folder as a process does at its start, so what passes here starts there. A change
//! that needs new topics is refused with exit code 2, like an invalid folder.

use std::path::Path;

use tidewire_schemas::catalogue::{Catalogue, ChannelKind, EventType, Source, compare};

use crate::cli::{CatalogueArgs, CatalogueVerb};
use crate::config;
use crate::process_exit::ProcessExit;
use crate::terminal;

/// Runs the subcommand.
pub fn run(args: &CatalogueArgs) -> Result<(), ProcessExit> {
    match &args.verb {
        CatalogueVerb::Check { dir, against } => check(dir, against.as_deref()),
    }
}

fn check(dir: &Path, against: Option<&Path>) -> Result<(), ProcessExit> {
    let catalogue = load(dir)?;
    let builtin = Catalogue::builtin();
    let types: Vec<&EventType> = (catalogue.types().iter())
        .filter(|t| !builtin.types().iter().any(|known| known.name == t.name))
        .collect();
    let kinds: Vec<&ChannelKind> = (catalogue.channel_kinds().iter())
        .filter(|kind| builtin.channel_kind(&kind.name).is_none())
        .collect();
    for event_type in &types {
        terminal::print_line(&type_line(event_type))?;
    }
    for kind in &kinds {
        let classes: Vec<&str> = kind.classes.iter().map(|class| class.as_str()).collect();
        terminal::print_line(&format!(
            "channel {}:{{{}}}  {}",
            kind.name,
            kind.id,
            classes.join("+")
        ))?;
    }
    terminal::print_line(&format!(
        "{} types and {} channel kinds added; catalogue {:016x}",
        types.len(),
        kinds.len(),
        catalogue.hash()
    ))?;
    match against {
        Some(against) => compare_with(&load(against)?, &catalogue),
        None => Ok(()),
    }
}

fn load(dir: &Path) -> Result<Catalogue, ProcessExit> {
    config::load_catalogue(dir).map_err(ProcessExit::Usage)
}

fn type_line(event_type: &EventType) -> String {
    let list = |parts: Vec<String>| match parts.is_empty() {
        true => "none".to_owned(),
        false => parts.join(", "),
    };
    let key = event_type.key.iter().map(source).collect();
    let channels = event_type.channels.iter().map(|rule| rule.text.clone()).collect();
    format!("type {}  key {}  channels {}", event_type.name, list(key), list(channels))
}

fn source(source: &Source) -> String {
    match source {
        Source::Account => "account_id".to_owned(),
        Source::Type => "$type".to_owned(),
        Source::Field(name) => name.clone(),
        Source::Inner(object, name) => format!("{object}.{name}"),
    }
}

/// Prints every difference; fails if any of them needs a new prefix.
fn compare_with(old: &Catalogue, new: &Catalogue) -> Result<(), ProcessExit> {
    let differences = compare(old, new);
    for text in &differences.compatible {
        terminal::print_line(&format!("compatible: {text}"))?;
    }
    if differences.refused.is_empty() {
        return terminal::print_line(&format!(
            "compatible with catalogue {:016x}; roll out DERIVE, then ADMIT, then GATEWAY",
            old.hash()
        ));
    }
    Err(ProcessExit::Usage(format!(
        "not compatible with catalogue {:016x}; keep what is refused, or start with a new \
         topics.prefix\n  {}",
        old.hash(),
        differences.refused.join("\n  ")
    )))
}
