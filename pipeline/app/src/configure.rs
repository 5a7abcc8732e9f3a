//! Builds the configuration of a command: defaults, file, environment, flags; the later wins.
//!
//! This is the only file that reads the environment. Everything is read and parsed before the
//! command opens anything, so a wrong setting has no side effect. Parsing itself is in `config`.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use crate::cli::{ProcessArgs, ServeArgs, SettingArgs};
use crate::config::settings::Settings;
use crate::config::{Config, ConfigUsage};
use crate::process_exit::ProcessExit;
use crate::role::Role;

/// Read by clap itself, because it names the file that the settings come from.
const CONFIG_VARIABLE: &str = "TIDEWIRE_CONFIG";

/// The configuration of a role. `dev` turns on `insecure_dev` unless the setting is given.
pub fn for_role(role: Role, args: &ServeArgs) -> Result<Config, ProcessExit> {
    let mut settings = layers(&args.settings)?;
    args.apply_to(&mut settings);
    if role == Role::All && settings.value("insecure_dev").text.is_empty() {
        settings.add_flag("insecure_dev", "dev", Some("true".into()));
    }
    name_instance(&mut settings);
    Config::parse(settings, ConfigUsage::Role(role))
}

/// The configuration of a command that runs no role and needs no catalogue, so that it works with
/// any folder of `catalogue.dir`.
pub fn for_command(args: &SettingArgs) -> Result<Config, ProcessExit> {
    Config::parse(given(args)?, ConfigUsage::Command)
}

/// The configuration of a command that needs the catalogue.
pub fn with_catalogue(args: &SettingArgs) -> Result<Config, ProcessExit> {
    with_registry(args, None)
}

/// The same, where a flag may name the schema registry.
pub fn with_registry(args: &SettingArgs, url: Option<String>) -> Result<Config, ProcessExit> {
    let mut settings = given(args)?;
    settings.add_flag("registry.url", "--registry", url);
    Config::parse(settings, ConfigUsage::Catalogue)
}

/// The settings as they are given, wrong ones included; fails if the file cannot be read.
pub fn given(args: &SettingArgs) -> Result<Settings, ProcessExit> {
    let mut settings = layers(args)?;
    args.apply_to(&mut settings);
    name_instance(&mut settings);
    Ok(settings)
}

/// The URL of the process a command is for: `--url`, or the one at `listen`.
pub fn url_of(args: &ProcessArgs) -> Result<String, ProcessExit> {
    match &args.url {
        Some(url) => Ok(url.clone()),
        None => Ok(format!("http://{}", for_command(&args.settings)?.listen)),
    }
}

/// The log filter of the environment, for commands other than roles.
pub fn command_log_filter_variable() -> Option<String> {
    variable("TIDEWIRE_LOG_FILTER").or_else(|| variable("RUST_LOG"))
}

/// On Kafka the default instance is the name of the host.
fn name_instance(settings: &mut Settings) {
    let on_kafka = settings.value("log").text.starts_with("kafka://");
    if on_kafka && settings.value("instance").text.is_empty() {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        settings.add_flag("instance", "instance (the host's name)", Some(host));
    }
}

/// Defaults, then the file, then the environment.
fn layers(args: &SettingArgs) -> Result<Settings, ProcessExit> {
    let mut settings = Settings::defaults();
    if let Some(path) = &args.config {
        add_file(&mut settings, path)?;
    }
    settings.add_flag("log_filter", "RUST_LOG", variable("RUST_LOG"));
    settings.add_variables(variables());
    Ok(settings)
}

fn add_file(settings: &mut Settings, path: &Path) -> Result<(), ProcessExit> {
    let text = fs::read_to_string(path).map_err(|error| {
        ProcessExit::Usage(format!("could not read the settings file {}: {error}", path.display()))
    })?;
    settings.add_file(path, &text);
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "this file owns the environment")]
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Every variable whose name and value are UTF-8; a setting has no other.
#[expect(clippy::disallowed_methods, reason = "this file owns the environment")]
fn variables() -> impl Iterator<Item = (String, String)> {
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    env::vars_os().filter_map(text).filter(|(name, _)| name != CONFIG_VARIABLE)
}
