//! `tidewire catalogue`: checks a folder of event types, and exports the one in force.
//!
//! `check` loads the folder as a process does at its start, so what passes here starts there. A
//! change that needs new topics is refused with exit code 2, like an invalid folder. `export` reads
//! what DERIVE has stored, for a folder that was lost or changed; it overwrites nothing.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use tidewire_engine::catalogues::{CatalogueError, stored};
use tidewire_engine::port::Log;
use tidewire_schemas::catalogue::{Catalogue, ChannelKind, EventType, OwnFile, Source, compare};

use crate::cli::{CatalogueArgs, CatalogueVerb, SettingArgs};
use crate::config::{self, Config, LogConfig};
use crate::process_exit::ProcessExit;
use crate::runtime::retry::{AttemptError, with_retries};
use crate::runtime::startup::START_LIMIT;
use crate::runtime::stop_signal::StopSignal;
use crate::runtime::storage;
use crate::verbs::running_process::{self, has_log, no_data};
use crate::{configure, terminal};

/// Runs the subcommand.
pub fn run(args: &CatalogueArgs) -> Result<(), ProcessExit> {
    match &args.verb {
        CatalogueVerb::Check { dir, against } => check(dir, against.as_deref()),
        CatalogueVerb::Export { dir, settings } => export(dir, settings),
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

fn export(dir: &Path, args: &SettingArgs) -> Result<(), ProcessExit> {
    let config = configure::for_command(args)?;
    let is_embedded = config.log == LogConfig::Embedded;
    if is_embedded && !has_log(&config.data.dir) {
        return Err(no_data(&config, &running_process::find(&config)?));
    }
    let log = storage::open_log(&config).map_err(|error| match is_embedded {
        true => ProcessExit::because(
            "could not open the log; if a process runs on this data folder, stop it, run \
             `tidewire catalogue export`, and start it again",
            error,
        ),
        false => error,
    })?;
    let catalogue = read_stored(&config, &*log)?;
    create_folder(dir)?;
    for file in catalogue.own_files() {
        write_file(dir, file)?;
    }
    terminal::print_line(&format!(
        "{} files written to {}; catalogue {:016x}",
        catalogue.own_files().len(),
        dir.display(),
        catalogue.hash()
    ))
}

fn read_stored(config: &Config, log: &dyn Log) -> Result<Catalogue, ProcessExit> {
    with_retries(Duration::ZERO, &StopSignal::default(), || storage::require_topics(config, log))?;
    let topology = config.topology();
    let found = with_retries(START_LIMIT, &StopSignal::default(), || {
        stored(log, &topology).map_err(|error| match error {
            CatalogueError::Log(error) => {
                let doing = "could not read the catalogue in force".into();
                AttemptError::of_log(doing, &storage::unreachable_message(config), error)
            }
            CatalogueError::Refused(text) | CatalogueError::Ahead(text) => {
                AttemptError::Permanent(ProcessExit::Usage(text))
            }
        })
    })?;
    found.ok_or_else(|| {
        ProcessExit::failed(format!(
            "{} has no catalogue; DERIVE stores it when it starts",
            topology.catalogues()
        ))
    })
}

/// Creates the folder, or accepts an empty one.
fn create_folder(dir: &Path) -> Result<(), ProcessExit> {
    let failed = |error| {
        let shown = dir.display();
        ProcessExit::because(format!("could not create the folder {shown}; give another"), error)
    };
    fs::create_dir_all(dir).map_err(failed)?;
    match fs::read_dir(dir).map_err(failed)?.next() {
        None => Ok(()),
        Some(_) => Err(ProcessExit::Usage(format!(
            "{} is not empty; give a new folder, so that nothing is overwritten or mixed",
            dir.display()
        ))),
    }
}

/// Writes one file. Its name comes from a topic, so it must not lead out of the folder.
fn write_file(dir: &Path, file: &OwnFile) -> Result<(), ProcessExit> {
    let is_plain = !file.name.is_empty() && !file.name.contains(['/', '\0']);
    if !is_plain {
        return Err(ProcessExit::failed(format!(
            "the stored catalogue has a file of the name {:?}, which is no file name; find out \
             who may write to the topic of catalogues",
            file.name
        )));
    }
    let path = dir.join(format!("{}.toml", file.name));
    let written = fs::File::create_new(&path).and_then(|mut to| to.write_all(file.text.as_bytes()));
    written.map_err(|error| {
        let shown = path.display();
        ProcessExit::because(format!("could not write {shown}; give another folder"), error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_the_topic_never_leads_out_of_the_folder() {
        let dir = tempfile::tempdir().expect("a folder");
        let inner = dir.path().join("inner");
        create_folder(&inner).expect("a new one");
        for name in ["../out", "/out", "", "a/../../out", "nul\0"] {
            let file = OwnFile { name: name.to_owned(), text: "x".to_owned() };
            let error = write_file(&inner, &file).expect_err(name);
            assert!(error.to_string().contains("no file name"), "{error}");
        }
        let file = OwnFile { name: "orders".to_owned(), text: "x".to_owned() };
        write_file(&inner, &file).expect("a name");
        write_file(&inner, &file).expect_err("it is there");
        let refused = create_folder(&inner).expect_err("it is not empty");
        assert!(refused.to_string().contains("not empty"), "{refused}");
        assert_eq!(fs::read_dir(dir.path()).expect("read").count(), 1, "nothing beside it");
    }
}
