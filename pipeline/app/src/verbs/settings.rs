//! `tidewire settings`: prints every setting with its variable, its meaning and its given value.
//!
//! With `--config FILE` and the environment of a process it shows what that process reads, from
//! where, and reports wrong settings as its start would. The table is printed whatever is wrong,
//! because it is what corrects the mistake. Values of secrets are never printed.

use crate::cli::SettingArgs;
use crate::config::settings::{
    PROPERTIES, SETTINGS, Setting, SettingSource, SettingValue, Settings, variable_of,
};
use crate::config::{Config, ConfigUsage};
use crate::process_exit::ProcessExit;
use crate::{configure, terminal};

/// Prints them; fails if one is wrong.
pub fn run(args: &SettingArgs) -> Result<(), ProcessExit> {
    let (settings, unreadable) = match configure::given(args) {
        Ok(settings) => (settings, None),
        Err(exit) => (Settings::defaults(), Some(exit)),
    };
    for setting in SETTINGS {
        describe(setting, &variable_of(setting.key))?;
        print_given(settings.value(setting.key))?;
    }
    describe(&PROPERTIES, &format!("{}_NAME", variable_of(PROPERTIES.key)))?;
    settings.properties().values().try_for_each(print_given)?;
    match unreadable {
        Some(exit) => Err(exit),
        None => Config::parse(settings, ConfigUsage::Catalogue).map(drop),
    }
}

fn describe(setting: &Setting, variable: &str) -> Result<(), ProcessExit> {
    let Setting { key, default, accepts, meaning, .. } = setting;
    let default = if default.is_empty() { "unset" } else { default };
    let accepts = if accepts.is_empty() { String::new() } else { format!(" [{accepts}]") };
    terminal::print_line(&format!("{key:24} {default:18} {meaning}\n{:24} {variable}{accepts}", ""))
}

fn print_given(value: &SettingValue) -> Result<(), ProcessExit> {
    if value.source == SettingSource::Default {
        return Ok(());
    }
    terminal::print_line(&format!("{:24} given: {} ({value})", "", value.shown()))
}
