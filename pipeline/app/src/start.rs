//! The start of every verb: from the command line to what it runs.
//!
//! This is where the environment is read, and the only such place. Settings are laid over each
//! other and parsed here, before anything is opened.

use std::env;
use std::fs;
use std::path::Path;

use crate::cli::{Cli, RunningArgs, ServeArgs, SettingArgs, Verb};
use crate::config::Config;
use crate::ending::Ending;
use crate::remote::Remote;
use crate::role::Role;
use crate::settings::{PROPERTIES, SETTINGS, Setting, Settings, variable_of};
use crate::{
    doctor, letters, logging, produce, rebuild, replay, resume, run, schemas, tail, terminal,
    topics, traffic,
};

/// What clap reads by itself; not a setting.
const CONFIG_VARIABLE: &str = "TIDEWIRE_CONFIG";

/// Does what was asked for.
pub fn run(cli: Cli) -> Result<(), Ending> {
    match cli.verb {
        Verb::Dev(args) => serve(Role::All, &args),
        Verb::Admit(args) => serve(Role::Admit, &args.into()),
        Verb::Derive(args) => serve(Role::Derive, &args.into()),
        Verb::Gateway(args) => serve(Role::Gateway, &args),
        Verb::Produce(args) => quietly(|| produce::run(&args)),
        Verb::Tail(args) => quietly(|| tail::run(&args)),
        Verb::Generate(args) => quietly(|| traffic::run(&args)),
        Verb::Topics(args) => quietly(|| topics::run(&args)),
        Verb::Schemas(args) => quietly(|| schemas::run(&args)),
        Verb::DeadLetters(args) => quietly(|| letters::run(&args)),
        Verb::Replay(args) => quietly(|| replay::run(&args)),
        Verb::State(args) => quietly(|| rebuild::run(&args)),
        Verb::Resume(args) => quietly(|| resume::run(&args)),
        Verb::Doctor(args) => quietly(|| doctor::run(&args)),
        Verb::Ready(args) => quietly(|| ask_ready(&args)),
        Verb::Settings => list_settings(),
    }
}

fn serve(role: Role, args: &ServeArgs) -> Result<(), Ending> {
    let config = configure_role(role, args)?;
    logging::start(&config.log_filter);
    run::run(role, &config)
}

/// Verbs whose output is data log only what is wrong, unless told otherwise.
fn quietly(verb: impl FnOnce() -> Result<(), Ending>) -> Result<(), Ending> {
    logging::start(&variable("RUST_LOG").unwrap_or_else(|| "warn".into()));
    verb()
}

/// The configuration of a role: the layers, and in `dev` `insecure_dev` unless someone said
/// otherwise.
pub fn configure_role(role: Role, args: &ServeArgs) -> Result<Config, Ending> {
    let mut settings = layers(&args.settings)?;
    args.lay_over(&mut settings);
    if role == Role::All && settings.given("insecure_dev").text.is_empty() {
        settings.add_flag("insecure_dev", "dev", Some("true".into()));
    }
    name_instance(&mut settings);
    Config::parse(settings, Some(role))
}

/// The configuration of a verb that reads settings but serves nobody.
pub fn configure(args: &SettingArgs) -> Result<Config, Ending> {
    let mut settings = layers(args)?;
    args.lay_over(&mut settings);
    name_instance(&mut settings);
    Config::parse(settings, None)
}

/// The same, where a flag may name another schema registry.
pub fn configure_registry(args: &SettingArgs, url: Option<String>) -> Result<Config, Ending> {
    let mut settings = layers(args)?;
    args.lay_over(&mut settings);
    settings.add_flag("registry.url", "--registry", url);
    name_instance(&mut settings);
    Config::parse(settings, None)
}

/// On Kafka a process that nobody named is known by its host.
fn name_instance(settings: &mut Settings) {
    let on_kafka = settings.given("log").text.starts_with("kafka://");
    if on_kafka && settings.given("instance").text.is_empty() {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        settings.add_flag("instance", "instance (the host's name)", Some(host));
    }
}

/// Defaults, then the file, then the environment.
fn layers(args: &SettingArgs) -> Result<Settings, Ending> {
    let mut settings = Settings::defaults();
    if let Some(path) = &args.config {
        add_file(&mut settings, path)?;
    }
    settings.add_flag("log_filter", "RUST_LOG", variable("RUST_LOG"));
    settings.add_variables(variables());
    Ok(settings)
}

fn add_file(settings: &mut Settings, path: &Path) -> Result<(), Ending> {
    let text = fs::read_to_string(path).map_err(|error| {
        Ending::Usage(format!("could not read the settings file {}: {error}", path.display()))
    })?;
    settings.add_file(path, &text);
    Ok(())
}

/// The URL of the process that is meant.
pub fn url_of(args: &RunningArgs) -> Result<String, Ending> {
    match &args.url {
        Some(url) => Ok(url.clone()),
        None => Ok(format!("http://{}", configure(&args.settings)?.listen)),
    }
}

fn ask_ready(args: &RunningArgs) -> Result<(), Ending> {
    let url = url_of(args)?;
    Remote::new(&url)?.ask_ready()?;
    terminal::say(&format!("{url} is ready"))
}

fn list_settings() -> Result<(), Ending> {
    for setting in SETTINGS {
        describe(setting, &variable_of(setting.key))?;
    }
    describe(&PROPERTIES, &format!("{}_SASL_USERNAME and so on", variable_of(PROPERTIES.key)))
}

fn describe(setting: &Setting, variable: &str) -> Result<(), Ending> {
    let Setting { key, default, meaning } = setting;
    let default = if default.is_empty() { "unset" } else { default };
    terminal::say(&format!("{key:24} {default:18} {meaning}\n{:24} {variable}", ""))
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
