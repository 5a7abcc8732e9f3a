//! Maps each command of the command line to the function that runs it.
//!
//! Roles log at the level of their settings. All other commands write data to standard output and
//! log only warnings and errors, unless `RUST_LOG` says otherwise.

use crate::cli::{Cli, ServeArgs, Verb};
use crate::configure;
use crate::process_exit::ProcessExit;
use crate::role::Role;
use crate::runtime::{lifecycle, logging};
use crate::verbs::{
    dead_letters, doctor, generate, produce, ready, rebuild, replay, resume, schemas, settings,
    tail, topics,
};

/// Runs the command and returns when it is done.
pub fn run(cli: Cli) -> Result<(), ProcessExit> {
    match cli.verb {
        Verb::Dev(args) => serve(Role::All, &args),
        Verb::Admit(args) => serve(Role::Admit, &args.into()),
        Verb::Derive(args) => serve(Role::Derive, &args.into()),
        Verb::Gateway(args) => serve(Role::Gateway, &args),
        Verb::Produce(args) => with_quiet_logging(|| produce::run(&args)),
        Verb::Tail(args) => with_quiet_logging(|| tail::run(&args)),
        Verb::Generate(args) => with_quiet_logging(|| generate::run(&args)),
        Verb::Topics(args) => with_quiet_logging(|| topics::run(&args)),
        Verb::Schemas(args) => with_quiet_logging(|| schemas::run(&args)),
        Verb::DeadLetters(args) => with_quiet_logging(|| dead_letters::run(&args)),
        Verb::Replay(args) => with_quiet_logging(|| replay::run(&args)),
        Verb::State(args) => with_quiet_logging(|| rebuild::run(&args)),
        Verb::Resume(args) => with_quiet_logging(|| resume::run(&args)),
        Verb::Doctor(args) => with_quiet_logging(|| doctor::run(&args)),
        Verb::Ready(args) => with_quiet_logging(|| ready::run(&args)),
        Verb::Settings => settings::run(),
    }
}

fn serve(role: Role, args: &ServeArgs) -> Result<(), ProcessExit> {
    let config = configure::for_role(role, args)?;
    logging::start(&config.log_filter);
    lifecycle::run(role, &config)
}

fn with_quiet_logging(verb: impl FnOnce() -> Result<(), ProcessExit>) -> Result<(), ProcessExit> {
    logging::start(&configure::log_filter_variable().unwrap_or_else(|| "warn".into()));
    verb()
}
