//! `tidewire finalize`: raises the value level of a deployment to the highest of this build.
//!
//! With it the administrator states that no older build will start again: from then on older builds
//! refuse to start, and processes that start write the newest versions of stored values. It can be
//! run again at any time. The embedded log belongs to one process, which has to be stopped first.

use std::time::Duration;

use tidewire_engine::derive::highest_level;
use tidewire_engine::operators::OPERATORS;
use tidewire_engine::value_level;

use crate::build_name::BUILD_NAME;
use crate::cli::SettingArgs;
use crate::config::LogConfig;
use crate::process_exit::ProcessExit;
use crate::runtime::retry::{AttemptError, with_retries};
use crate::runtime::startup::START_LIMIT;
use crate::runtime::stop_signal::StopSignal;
use crate::runtime::storage;
use crate::verbs::running_process::{self, has_log, no_data};
use crate::{configure, terminal};

/// Raises the level, and prints the one before and what to do next.
pub fn run(args: &SettingArgs) -> Result<(), ProcessExit> {
    let config = configure::for_command(args)?;
    let is_embedded = config.log == LogConfig::Embedded;
    if is_embedded && !has_log(&config.data.dir) {
        return Err(no_data(&config, &running_process::find(&config)?));
    }
    let log = storage::open_log(&config).map_err(|error| match is_embedded {
        true => ProcessExit::because(
            "could not open the log; if a process runs on this data folder, stop it, run \
             `tidewire finalize`, and start it again",
            error,
        ),
        false => error,
    })?;
    with_retries(Duration::ZERO, &StopSignal::default(), || {
        storage::require_topics(&config, &*log)
    })?;
    let highest = highest_level(OPERATORS);
    let before = with_retries(START_LIMIT, &StopSignal::default(), || {
        value_level::finalize(&*log, &config.topology(), highest).map_err(|error| {
            let doing = "could not raise the value level".into();
            AttemptError::of_log(doing, &storage::unreachable_message(&config), error)
        })
    })?;
    let highest = highest.0;
    terminal::print_line(&format!(
        "value level {} was in force; build {BUILD_NAME} writes values up to level {highest}",
        before.0
    ))?;
    terminal::print_line(&match before.0 == highest {
        true => format!("value level {highest} stays in force; nothing was changed"),
        false => format!(
            "value level {highest} is in force now: start no older build from now on, and restart \
             the processes of DERIVE one after the other, which then write it"
        ),
    })
}
