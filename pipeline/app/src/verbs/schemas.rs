//! `tidewire schemas`: exports, registers and checks the Avro schemas of typed records.
//!
//! They are generated from the catalogue in force, so a producer gets what this binary reads.
//! The subject is the record's full name (Confluent's record name strategy), because several types
//! share a topic. Every subcommand may be repeated.

use std::fs;
use std::path::Path;

use tidewire_connectors::registry::{SchemaRegistry, SubjectFault, SubjectStatus};
use tidewire_schemas::catalogue::{Catalogue, EventType};
use tidewire_schemas::typed;

use crate::cli::{SchemasArgs, SchemasVerb};
use crate::config::Config;
use crate::process_exit::ProcessExit;
use crate::{configure, terminal};

/// Runs the subcommand.
pub fn run(args: &SchemasArgs) -> Result<(), ProcessExit> {
    match &args.verb {
        SchemasVerb::Export { dir, types, settings } => {
            let catalogue = configure::with_catalogue(settings)?.catalogue();
            export(dir, &select_types(catalogue, types)?)
        }
        SchemasVerb::Register(at) => {
            let config = configure::with_registry(&at.settings, at.registry.clone())?;
            register(&registry(&config)?, &select_types(config.catalogue(), &at.types)?)
        }
        SchemasVerb::Check(at) => {
            let config = configure::with_registry(&at.settings, at.registry.clone())?;
            check(&registry(&config)?, &select_types(config.catalogue(), &at.types)?)
        }
    }
}

/// The types with these names, or all that have a schema.
fn select_types(
    catalogue: &'static Catalogue,
    names: &[String],
) -> Result<Vec<&'static EventType>, ProcessExit> {
    if names.is_empty() {
        return Ok(typed::types(catalogue).collect());
    }
    names.iter().map(|name| select_type(catalogue, name)).collect()
}

fn select_type(
    catalogue: &'static Catalogue,
    name: &str,
) -> Result<&'static EventType, ProcessExit> {
    let event_type = catalogue.resolve(name);
    let typed = event_type.and_then(|found| typed::types(catalogue).find(|t| t.name == found.name));
    match (typed, event_type) {
        (Some(event_type), _) => Ok(event_type),
        (None, Some(event_type)) => Err(ProcessExit::Usage(format!(
            "{}: no producer sends it as a typed record; send {name} as JSON, unless it is a type \
             that only Tidewire writes",
            event_type.name
        ))),
        (None, None) => {
            let hint = match catalogue.nearest(name) {
                Some(near) => format!("did you mean {near}?"),
                None => "schemas/CATALOGUE.md lists them".to_owned(),
            };
            Err(ProcessExit::Usage(format!("{name}: there is no such event type; {hint}")))
        }
    }
}

fn registry(config: &Config) -> Result<SchemaRegistry, ProcessExit> {
    let registry = config.registry.as_ref().map(SchemaRegistry::new);
    registry.ok_or_else(|| {
        ProcessExit::Usage(
            "no schema registry is configured; give --registry http://HOST:PORT, or the setting \
             registry.url"
                .into(),
        )
    })
}

fn export(dir: &Path, types: &[&EventType]) -> Result<(), ProcessExit> {
    let failed = |error| {
        ProcessExit::because(
            format!("could not write to {}; give another --dir", dir.display()),
            error,
        )
    };
    fs::create_dir_all(dir).map_err(failed)?;
    for event_type in types {
        let path = dir.join(format!("{}.avsc", event_type.name));
        fs::write(path, typed::avsc(event_type)).map_err(failed)?;
    }
    terminal::print_line(&format!("{} schemas written to {}", types.len(), dir.display()))
}

fn register(registry: &SchemaRegistry, types: &[&EventType]) -> Result<(), ProcessExit> {
    let mut refused = 0;
    for event_type in types {
        let subject = typed::full_name(&event_type.name);
        match registry.register(&subject, &typed::avsc(event_type)) {
            Ok(at) => terminal::print_line(&format!(
                "{subject:48} id {:<6} version {}",
                at.id, at.version
            ))?,
            Err(SubjectFault::Refused(why)) => {
                refused += 1;
                terminal::print_line(&format!("{subject:48} refused: {why}"))?;
            }
            Err(SubjectFault::Unavailable(why)) => return Err(stopped(&subject, why)),
        }
    }
    terminal::print_line(&format!("{} registered, {refused} refused", types.len() - refused))?;
    if refused == 0 {
        return Ok(());
    }
    Err(ProcessExit::failed(
        "the registry refused some schemas; `tidewire schemas check` prints how they differ from \
         those it has",
    ))
}

fn check(registry: &SchemaRegistry, types: &[&EventType]) -> Result<(), ProcessExit> {
    let (mut same, mut compatible, mut missing, mut incompatible) = (0, 0, 0, 0);
    for event_type in types {
        let subject = typed::full_name(&event_type.name);
        let status = match registry.status(&subject, &typed::avsc(event_type)) {
            Ok(status) => status,
            Err(SubjectFault::Refused(why)) => SubjectStatus::Incompatible(why),
            Err(SubjectFault::Unavailable(why)) => return Err(stopped(&subject, why)),
        };
        let (count, text) = match status {
            SubjectStatus::Same(at) => {
                (&mut same, format!("same, id {} version {}", at.id, at.version))
            }
            SubjectStatus::Compatible => {
                (&mut compatible, "compatible with another version".into())
            }
            SubjectStatus::Missing => (&mut missing, "missing".into()),
            SubjectStatus::Incompatible(why) => (&mut incompatible, format!("incompatible: {why}")),
        };
        *count += 1;
        terminal::print_line(&format!("{subject:48} {text}"))?;
    }
    terminal::print_line(&format!(
        "{same} same, {compatible} compatible, {missing} missing, {incompatible} incompatible"
    ))?;
    match (missing, incompatible) {
        (0, 0) => Ok(()),
        (_, 0) => Err(ProcessExit::failed(
            "some schemas are missing; register them with `tidewire schemas register`",
        )),
        _ => Err(ProcessExit::failed(
            "some schemas are incompatible with those in the registry; find out who registered \
             them: another release of Tidewire, or another product under the same names",
        )),
    }
}

fn stopped(subject: &str, why: String) -> ProcessExit {
    ProcessExit::failed(format!("stopped at {subject}: {why}"))
}
