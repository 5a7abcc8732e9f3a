//! `tidewire settings`: prints every setting with its default, its variable and its meaning.
//!
//! It prints the table of the build, not the values of the environment, so it prints no secret.

use crate::config::settings::{PROPERTIES, SETTINGS, Setting, variable_of};
use crate::process_exit::ProcessExit;
use crate::terminal;

/// Prints them.
pub fn run() -> Result<(), ProcessExit> {
    for setting in SETTINGS {
        describe(setting, &variable_of(setting.key))?;
    }
    describe(&PROPERTIES, &format!("{}_NAME", variable_of(PROPERTIES.key)))
}

fn describe(setting: &Setting, variable: &str) -> Result<(), ProcessExit> {
    let Setting { key, default, accepts, meaning, .. } = setting;
    let default = if default.is_empty() { "unset" } else { default };
    let accepts = if accepts.is_empty() { String::new() } else { format!(" [{accepts}]") };
    terminal::print_line(&format!("{key:24} {default:18} {meaning}\n{:24} {variable}{accepts}", ""))
}
