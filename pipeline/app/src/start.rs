//! The start of every verb: from the command line to what it runs.
//!
//! This is where the environment is read, and the only such place. Settings are laid over each
//! other and parsed here, before anything is opened.

use std::env;
use std::fs;
use std::path::Path;

use crate::cli::{Cli, DevArgs, RoleArgs, SettingArgs, Verb};
use crate::config::Config;
use crate::ending::Ending;
use crate::settings::{SETTINGS, Settings, variable_of};
use crate::{dev, doctor, logging, produce, tail, terminal, topics, traffic};

/// What clap reads by itself; not a setting.
const CONFIG_VARIABLE: &str = "TIDEWIRE_CONFIG";

/// Does what was asked for.
pub fn run(cli: Cli) -> Result<(), Ending> {
    match cli.verb {
        Verb::Dev(args) => serve(&args),
        Verb::Admit(args) => refuse_role("admit", &args),
        Verb::Derive(args) => refuse_role("derive", &args),
        Verb::Gateway(args) => refuse_role("gateway", &args),
        Verb::Produce(args) => quietly(|| produce::run(&args)),
        Verb::Tail(args) => quietly(|| tail::run(&args)),
        Verb::Generate(args) => quietly(|| traffic::run(&args)),
        Verb::Topics(args) => quietly(|| topics::run(&args)),
        Verb::Doctor(args) => quietly(|| doctor::run(&args)),
        Verb::Settings => list_settings(),
    }
}

fn serve(args: &DevArgs) -> Result<(), Ending> {
    let config = configure_dev(args)?;
    logging::start(&config.log_filter);
    dev::run(&config)
}

/// Verbs whose output is data log only what is wrong, unless told otherwise.
fn quietly(verb: impl FnOnce() -> Result<(), Ending>) -> Result<(), Ending> {
    logging::start(&variable("RUST_LOG").unwrap_or_else(|| "warn".into()));
    verb()
}

/// The configuration of `dev`: the layers, and `insecure_dev` unless someone said otherwise.
pub fn configure_dev(args: &DevArgs) -> Result<Config, Ending> {
    let mut settings = layers(&args.settings)?;
    args.lay_over(&mut settings);
    if settings.given("insecure_dev").text.is_empty() {
        settings.add_flag("insecure_dev", "dev", Some("true".into()));
    }
    let config = Config::parse(settings)?;
    if !config.insecure_dev {
        return Err(Ending::Usage(
            "insecure_dev = false: this version can't check tokens yet, so nobody could connect; \
             leave it out and listen on loopback"
                .into(),
        ));
    }
    Ok(config)
}

/// The configuration of a verb that reads settings but serves nobody.
pub fn configure(args: &SettingArgs) -> Result<Config, Ending> {
    let mut settings = layers(args)?;
    args.lay_over(&mut settings);
    Config::parse(settings)
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

fn refuse_role(role: &str, args: &RoleArgs) -> Result<(), Ending> {
    configure(&SettingArgs { config: Some(args.config.clone()), ..SettingArgs::default() })?;
    Err(Ending::Usage(format!(
        "`tidewire {role}` runs one role apart, which needs a log that several processes can open; \
         the embedded log belongs to one process, so run `tidewire dev`, which is all roles at once"
    )))
}

fn list_settings() -> Result<(), Ending> {
    for setting in SETTINGS {
        let default = if setting.default.is_empty() { "unset" } else { setting.default };
        terminal::say(&format!(
            "{:20} {:18} {}\n{:20} {}",
            setting.key,
            default,
            setting.meaning,
            "",
            variable_of(setting.key)
        ))?;
    }
    Ok(())
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
