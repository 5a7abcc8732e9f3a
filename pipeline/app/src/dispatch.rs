//! Maps each command of the command line to the function that runs it.
//!
//! Roles log at the level of their settings. All other commands write data to standard output and
//! log only warnings and errors, unless `--log-filter`, `TIDEWIRE_LOG_FILTER` or `RUST_LOG` says
//! otherwise.

use crate::cli::{Cli, ServeArgs, Verb};
use crate::configure;
use crate::process_exit::ProcessExit;
use crate::role::Role;
use crate::runtime::{lifecycle, logging};
use crate::verbs::{
    catalogue, dead_letters, doctor, explain, finalize, generate, produce, ready, replay, resume,
    schemas, settings, state, tail, topics,
};

/// Runs the command and returns when it is done.
pub fn run(cli: Cli) -> Result<(), ProcessExit> {
    if !cli.verb.is_role() {
        let variable = configure::command_log_filter_variable();
        logging::start(command_filter(cli.verb.log_filter(), variable.as_deref()));
    }
    match cli.verb {
        Verb::Dev(args) => serve(Role::All, &args),
        Verb::Admit(args) => serve(Role::Admit, &args.into()),
        Verb::Derive(args) => serve(Role::Derive, &args.into()),
        Verb::Gateway(args) => serve(Role::Gateway, &args),
        Verb::Produce(args) => produce::run(&args),
        Verb::Tail(args) => tail::run(&args),
        Verb::Generate(args) => generate::run(&args),
        Verb::Topics(args) => topics::run(&args),
        Verb::Catalogue(args) => catalogue::run(&args),
        Verb::Schemas(args) => schemas::run(&args),
        Verb::DeadLetters(args) => dead_letters::run(&args),
        Verb::Explain(args) => explain::run(&args),
        Verb::Replay(args) => replay::run(&args),
        Verb::State(args) => state::run(&args),
        Verb::Finalize(args) => finalize::run(&args),
        Verb::Resume(args) => resume::run(&args),
        Verb::Doctor(args) => doctor::run(&args),
        Verb::Ready(args) => ready::run(&args),
        Verb::Settings(args) => settings::run(&args),
    }
}

fn serve(role: Role, args: &ServeArgs) -> Result<(), ProcessExit> {
    let config = configure::for_role(role, args)?;
    logging::start(&config.log_filter);
    lifecycle::run(role, &config)
}

/// What a command logs: the flag overrides the environment.
fn command_filter<'a>(flag: Option<&'a str>, variable: Option<&'a str>) -> &'a str {
    flag.or(variable).unwrap_or("warn")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_logs_warnings_unless_a_filter_is_given() {
        assert_eq!(command_filter(None, None), "warn");
        assert_eq!(command_filter(None, Some("info")), "info");
        assert_eq!(command_filter(Some("debug"), Some("info")), "debug");
    }
}
