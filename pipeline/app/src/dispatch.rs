//! The start of every verb: from the command line to what it runs.
//!
//! This is where the environment is read, and the only such place. Settings are laid over each
//! other and parsed here, before anything is opened.

use std::env;
use std::fs;
use std::path::Path;

use crate::api_client::ApiClient;
use crate::cli::{Cli, ProcessArgs, ServeArgs, SettingArgs, Verb};
use crate::config::Config;
use crate::config::settings::{PROPERTIES, SETTINGS, Setting, Settings, variable_of};
use crate::process_exit::ProcessExit;
use crate::role::Role;
use crate::runtime::{lifecycle, logging};
use crate::terminal;
use crate::verbs::{
    dead_letters, doctor, generate, produce, rebuild, replay, resume, schemas, tail, topics,
};

/// What clap reads by itself; not a setting.
const CONFIG_VARIABLE: &str = "TIDEWIRE_CONFIG";

/// Does what was asked for.
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
        Verb::Ready(args) => with_quiet_logging(|| check_ready(&args)),
        Verb::Settings => list_settings(),
    }
}

fn serve(role: Role, args: &ServeArgs) -> Result<(), ProcessExit> {
    let config = configure_role(role, args)?;
    logging::start(&config.log_filter);
    lifecycle::run(role, &config)
}

/// Verbs whose output is data log only what is wrong, unless told otherwise.
fn with_quiet_logging(verb: impl FnOnce() -> Result<(), ProcessExit>) -> Result<(), ProcessExit> {
    logging::start(&variable("RUST_LOG").unwrap_or_else(|| "warn".into()));
    verb()
}

/// The configuration of a role: the layers, and in `dev` `insecure_dev` unless someone said
/// otherwise.
pub fn configure_role(role: Role, args: &ServeArgs) -> Result<Config, ProcessExit> {
    let mut settings = layers(&args.settings)?;
    args.apply_to(&mut settings);
    if role == Role::All && settings.value("insecure_dev").text.is_empty() {
        settings.add_flag("insecure_dev", "dev", Some("true".into()));
    }
    name_instance(&mut settings);
    Config::parse(settings, Some(role))
}

/// The configuration of a verb that reads settings but serves nobody.
pub fn configure(args: &SettingArgs) -> Result<Config, ProcessExit> {
    let mut settings = layers(args)?;
    args.apply_to(&mut settings);
    name_instance(&mut settings);
    Config::parse(settings, None)
}

/// The same, where a flag may name another schema registry.
pub fn configure_registry(args: &SettingArgs, url: Option<String>) -> Result<Config, ProcessExit> {
    let mut settings = layers(args)?;
    args.apply_to(&mut settings);
    settings.add_flag("registry.url", "--registry", url);
    name_instance(&mut settings);
    Config::parse(settings, None)
}

/// On Kafka a process that nobody named is known by its host.
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

/// The URL of the process that is meant.
pub fn url_of(args: &ProcessArgs) -> Result<String, ProcessExit> {
    match &args.url {
        Some(url) => Ok(url.clone()),
        None => Ok(format!("http://{}", configure(&args.settings)?.listen)),
    }
}

fn check_ready(args: &ProcessArgs) -> Result<(), ProcessExit> {
    let url = url_of(args)?;
    ApiClient::new(&url)?.check_ready()?;
    terminal::print_line(&format!("{url} is ready"))
}

fn list_settings() -> Result<(), ProcessExit> {
    for setting in SETTINGS {
        describe(setting, &variable_of(setting.key))?;
    }
    describe(&PROPERTIES, &format!("{}_SASL_USERNAME and so on", variable_of(PROPERTIES.key)))
}

fn describe(setting: &Setting, variable: &str) -> Result<(), ProcessExit> {
    let Setting { key, default, meaning } = setting;
    let default = if default.is_empty() { "unset" } else { default };
    terminal::print_line(&format!("{key:24} {default:18} {meaning}\n{:24} {variable}", ""))
}

#[expect(clippy::disallowed_methods, reason = "this file owns the environment")]
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Every variable whose name and value are text; others can't be ours.
#[expect(clippy::disallowed_methods, reason = "this file owns the environment")]
fn variables() -> impl Iterator<Item = (String, String)> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    env::vars_os().filter_map(text).filter(|(name, _)| name != CONFIG_VARIABLE)
}
