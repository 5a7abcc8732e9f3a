//! The command line of `tidewire`: its commands, flags and help texts.
//!
//! Flags that are settings stay text here, so that a wrong value is reported together with those
//! of the file and the environment. Errors in the grammar itself exit with code 2.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::build_name::BUILD_NAME;
use crate::config::settings::Settings;

/// Real-time event pipeline: events in over Kafka or HTTP, out over WebSocket and SSE
#[derive(Debug, Parser)]
#[command(name = "tidewire", version = BUILD_NAME, max_term_width = 100)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run all roles in one process
    Dev(ServeArgs),
    /// Run the role ADMIT: validate events and write them to the lanes
    Admit(SettingArgs),
    /// Run the role DERIVE: remove duplicates and deliver events to channels
    Derive(SettingArgs),
    /// Run the role GATEWAY: accept events over HTTP and serve subscribers
    Gateway(ServeArgs),
    /// Create, list or describe topics
    Topics(TopicsArgs),
    /// Check a folder of event types, or export the one in force
    Catalogue(CatalogueArgs),
    /// Export, register or check the Avro schemas of typed records
    Schemas(SchemasArgs),
    /// List, show, requeue or drop dead letters
    DeadLetters(DeadLettersArgs),
    /// Print what an event has caused: operators, notifications, channels, dead letters
    ///
    /// Reads what DERIVE has written about each event in the last days, by an index in the data
    /// folder that is brought up to date first. Exit code 1: nothing is known of the event.
    Explain(ExplainArgs),
    /// Execute the history of tasks again and compare it with the log
    Replay(ReplayArgs),
    /// Print entries of the local state of tasks, or remove it to have it restored from the log
    State(StateArgs),
    /// Write the newest layouts of stored values from now on; older builds can't start afterwards
    Finalize(SettingArgs),
    /// Resume ADMIT after it stopped at the poison limit
    Resume(ProcessArgs),
    /// Send events from a file or standard input, one JSON object per line; a line that is no JSON
    /// object is reported and becomes no dead letter
    Produce(ProduceArgs),
    /// Print the events of channels as they arrive
    Tail(TailArgs),
    /// Generate synthetic events; the same seed gives the same bytes
    Generate(GenerateArgs),
    /// Check what a process needs and print a fix for each problem
    Doctor(SettingArgs),
    /// Check whether a running process is ready, for health checks
    Ready(ProcessArgs),
    /// List every setting with its default, its environment variable, and the value that is given
    Settings(SettingArgs),
}

/// Flags that are settings.
#[derive(Args, Clone, Debug, Default)]
pub struct SettingArgs {
    /// Settings file (TOML)
    #[arg(long, value_name = "FILE", env = "TIDEWIRE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Address and port of HTTP, WebSocket and SSE [default: 127.0.0.1:8080]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<String>,
    /// Folder of the state and of the embedded log [default: .tidewire]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// The log: embedded, or kafka://HOST:PORT,… [default: embedded]
    #[arg(long, value_name = "LOG")]
    pub log: Option<String>,
    /// Unique name of this process, the same after a restart [default on Kafka: the host's name]
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// Folder of TOML files that add event types and channels [default: none]
    #[arg(long, value_name = "DIR")]
    pub catalogue_dir: Option<String>,
    /// What to log: a level, or module=level,… [default: RUST_LOG, or info for roles
    /// and warn for the other commands]
    #[arg(long, value_name = "FILTER")]
    pub log_filter: Option<String>,
}

/// Flags of roles that serve clients.
#[derive(Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// Settings.
    #[command(flatten)]
    pub settings: SettingArgs,
    /// Send synthetic events to this process
    #[arg(long)]
    pub demo: bool,
    /// Accept ?user= without a token, on loopback only [default of `dev`: on]
    #[arg(long)]
    pub insecure_dev: bool,
}

impl From<SettingArgs> for ServeArgs {
    fn from(settings: SettingArgs) -> Self {
        Self { settings, demo: false, insecure_dev: false }
    }
}

/// Arguments of `state`.
#[derive(Args, Debug)]
pub struct StateArgs {
    /// The subcommand.
    #[command(subcommand)]
    pub verb: StateVerb,
}

/// Subcommands of `state`.
#[derive(Debug, Subcommand)]
pub enum StateVerb {
    /// Print an entry of a table, or the entries whose keys begin alike, also while DERIVE runs
    ///
    /// Reads the stores in the data folder and changes nothing. Values are as of the last write of
    /// a store, which follows the log by about a second while its task runs, and by more while it
    /// restores. A partition that another process took over stays as it was. Exit code 1: there is
    /// no such entry.
    Get(StateGetArgs),
    /// Remove the state of a stopped process; its next start restores it from the log
    Rebuild(StateRebuildArgs),
}

/// Arguments of `state get`.
#[derive(Args, Debug)]
pub struct StateGetArgs {
    /// Name or number of the table, such as ids
    #[arg(value_name = "TABLE")]
    pub table: String,
    /// The parts of the key: TEXT, u64:5, time:2026-01-05T10:00:00Z, or hex:00ff for bytes as they
    /// are; text:TEXT for a text that begins like one of these
    #[arg(value_name = "KEY")]
    pub key: Vec<String>,
    /// The first part of the key, as a text
    #[arg(long, value_name = "NAME")]
    pub account: Option<String>,
    /// List the entries whose keys begin with these parts; without parts, with any
    #[arg(long)]
    pub prefix: bool,
    /// List at most N entries, up to 1000
    #[arg(long, value_name = "N", requires = "prefix", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Only the task of this partition; may be repeated [default: all in the data folder]
    #[arg(long = "partition", value_name = "P")]
    pub partitions: Vec<u32>,
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingArgs,
}

/// Arguments of `state rebuild`.
#[derive(Args, Debug)]
pub struct StateRebuildArgs {
    /// Only the task of this partition; may be repeated [default: all]
    #[arg(long = "partition", value_name = "N")]
    pub partitions: Vec<u32>,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingArgs,
}

/// Arguments of `topics`.
#[derive(Args, Debug)]
pub struct TopicsArgs {
    /// The subcommand.
    #[command(subcommand)]
    pub verb: TopicsVerb,
}

/// Subcommands of `topics`.
#[derive(Debug, Subcommand)]
pub enum TopicsVerb {
    /// Create the topics that are missing
    Create(LogArgs),
    /// List the topics with their partitions, records and retention
    List(LogArgs),
    /// Print the offsets of a topic's partitions
    Describe {
        /// Name of the topic
        topic: String,
        /// Where the log is.
        #[command(flatten)]
        at: LogArgs,
    },
}

/// The log of a running process, the data folder of a stopped one, or Kafka.
#[derive(Args, Debug)]
pub struct LogArgs {
    /// Ask this running process [default: with an embedded log the one at `listen`, or the data
    /// folder if none answers; on Kafka none]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingArgs,
}

/// Arguments of `dead-letters`.
#[derive(Args, Debug)]
pub struct DeadLettersArgs {
    /// The subcommand.
    #[command(subcommand)]
    pub verb: DeadLettersVerb,
}

/// Subcommands of `dead-letters`.
#[derive(Debug, Subcommand)]
pub enum DeadLettersVerb {
    /// List dead letters, the newest last
    List {
        /// Which.
        #[command(flatten)]
        which: DeadLetterFilter,
        /// Include those that were requeued or dropped
        #[arg(long)]
        all: bool,
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
        /// Where the log is.
        #[command(flatten)]
        at: LogArgs,
    },
    /// Print one dead letter with its bytes, headers and trail
    Show {
        /// Its id in the list, such as tw.in/3/7
        #[arg(value_name = "ID")]
        id: String,
        /// Print its bytes and nothing else
        #[arg(long)]
        raw: bool,
        /// Where the log is.
        #[command(flatten)]
        at: LogArgs,
    },
    /// Write the records back, once and in their original order
    Requeue(ResolveArgs),
    /// Mark dead letters as given up; `list --all` shows them until retention removes them
    Drop(ResolveArgs),
}

/// Which dead letters: every given condition has to match.
#[derive(Args, Debug)]
pub struct DeadLetterFilter {
    /// Only with this reason; may be repeated
    #[arg(long, value_name = "REASON")]
    pub reason: Vec<String>,
    /// Only from this topic, or `http`; may be repeated
    #[arg(long, value_name = "TOPIC")]
    pub source: Vec<String>,
    /// Only what this operator failed on; may be repeated
    #[arg(long, value_name = "OPERATOR")]
    pub operator: Vec<String>,
    /// Only from this time on: 2026-01-05T10:00:00Z, or milliseconds since 1970
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only before this time
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// At most N [default: 100 for list, all for requeue and drop]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
}

/// Arguments of `requeue` and `drop`.
#[derive(Args, Debug)]
pub struct ResolveArgs {
    /// Their ids in the list, such as tw.in/3/7
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// Which.
    #[command(flatten)]
    pub which: DeadLetterFilter,
    /// Every open dead letter
    #[arg(long)]
    pub all_open: bool,
    /// Print what would be done and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// A note that is kept with each dead letter
    #[arg(long, value_name = "TEXT")]
    pub because: Option<String>,
    /// Where the log is.
    #[command(flatten)]
    pub at: LogArgs,
}

/// Arguments of `explain`.
#[derive(Args, Debug)]
pub struct ExplainArgs {
    /// The event's id
    #[arg(value_name = "EVENT_ID")]
    pub id: String,
    /// Only the event of this account; ids of accounts may be equal
    #[arg(long, value_name = "NAME")]
    pub account: Option<String>,
    /// Where a new index begins, such as 2026-01-05T10:00:00Z [default: with the oldest record]
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
    /// Folder of the index, if no process is asked [default: explain in the data folder]
    #[arg(long, value_name = "DIR")]
    pub index: Option<PathBuf>,
    /// Where the log is.
    #[command(flatten)]
    pub at: LogArgs,
}

/// Arguments of `replay`.
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// The subcommand.
    #[command(subcommand)]
    pub verb: ReplayVerb,
}

/// Subcommands of `replay`.
#[derive(Debug, Subcommand)]
pub enum ReplayVerb {
    /// Check that execution gives every output byte again; writes nothing to the log
    Verify(VerifyArgs),
}

/// Arguments of `replay verify`.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// The task, by its partition number [default: all]
    #[arg(long, value_name = "N")]
    pub task: Option<u32>,
    /// The first transaction: its offset in the task's partition of `order`, or a time such as
    /// 2026-01-05T10:00:00Z [default: the earliest possible]
    #[arg(long, value_name = "WHERE")]
    pub from: Option<String>,
    /// The end, not included: an offset or a time [default: the end of the log]
    #[arg(long, value_name = "WHERE")]
    pub to: Option<String>,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingArgs,
}

/// A running process: the one of these settings, or another.
#[derive(Args, Debug)]
pub struct ProcessArgs {
    /// URL of the running process [default: the one at `listen`]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingArgs,
}

/// Arguments of `catalogue`.
#[derive(Args, Debug)]
pub struct CatalogueArgs {
    /// The subcommand.
    #[command(subcommand)]
    pub verb: CatalogueVerb,
}

/// Subcommands of `catalogue`.
#[derive(Debug, Subcommand)]
pub enum CatalogueVerb {
    /// Load a folder as a process would, and print its types, channels and hash, or every error
    Check {
        /// The folder of TOML files
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Also compare with this older folder: what is added, and what needs a new prefix
        #[arg(long, value_name = "DIR")]
        against: Option<PathBuf>,
    },
    /// Write the catalogue in force, as DERIVE has stored it, as a folder for catalogue.dir
    Export {
        /// The folder: a new or an empty one
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Settings.
        #[command(flatten)]
        settings: SettingArgs,
    },
}

/// Arguments of `schemas`.
#[derive(Args, Debug)]
pub struct SchemasArgs {
    /// The subcommand.
    #[command(subcommand)]
    pub verb: SchemasVerb,
}

/// Subcommands of `schemas`.
#[derive(Debug, Subcommand)]
pub enum SchemasVerb {
    /// Write the schemas to a folder, one file each
    Export {
        /// The folder; it is created if it is missing
        #[arg(long, value_name = "DIR", default_value = "tidewire-schemas")]
        dir: PathBuf,
        /// Event types [default: all that producers send]
        #[arg(value_name = "TYPE")]
        types: Vec<String>,
        /// Settings.
        #[command(flatten)]
        settings: SettingArgs,
    },
    /// Register the schemas with a schema registry; the subject is the record's full name
    Register(RegistryArgs),
    /// Compare the schemas with those of a schema registry
    Check(RegistryArgs),
}

/// Some schemas, and a registry.
#[derive(Args, Debug)]
pub struct RegistryArgs {
    /// URL of the schema registry [default: registry.url]. The login is registry.username and
    /// registry.password, or registry.token
    #[arg(long, value_name = "URL")]
    pub registry: Option<String>,
    /// Event types [default: all that producers send]
    #[arg(value_name = "TYPE")]
    pub types: Vec<String>,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingArgs,
}

/// Arguments of `produce`.
#[derive(Args, Debug)]
pub struct ProduceArgs {
    /// NDJSON file, or - for standard input
    #[arg(default_value = "-", value_name = "FILE")]
    pub file: String,
    /// The process to send to.
    #[command(flatten)]
    pub to: ProcessArgs,
}

/// Arguments of `tail`.
#[derive(Args, Debug)]
pub struct TailArgs {
    /// Channels, such as timeline:demo
    #[arg(required = true, value_name = "CHANNEL")]
    pub channels: Vec<String>,
    /// Where to start: latest, earliest, a position, or a time such as 2026-01-05T10:00:00Z
    #[arg(long, default_value = "latest", value_name = "WHERE")]
    pub from: String,
    /// Begin with the state of the channels, an entry per line, and go on with its changes
    #[arg(long)]
    pub snapshot: bool,
    /// Print one JSON object per line, as when the output is not a terminal
    #[arg(long)]
    pub json: bool,
    /// Stop after N events or entries
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Name of the user, where no token is required
    #[arg(long, value_name = "NAME", default_value = "tail")]
    pub user: String,
    /// The process to read from.
    #[command(flatten)]
    pub at: ProcessArgs,
}

/// Arguments of `generate`.
#[derive(Args, Debug)]
pub struct GenerateArgs {
    /// Seed of the generator
    #[arg(long, value_name = "N")]
    pub seed: u64,
    /// Events per second [default: as many as possible]
    #[arg(long, value_name = "R", value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// Stop after N events
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Account of all events
    #[arg(long, value_name = "NAME", default_value = "demo", value_parser = parse_account)]
    pub account: String,
    /// Send to this running process instead of printing
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

impl Verb {
    /// Whether it runs a role; roles log by their settings.
    pub fn is_role(&self) -> bool {
        matches!(self, Self::Dev(_) | Self::Admit(_) | Self::Derive(_) | Self::Gateway(_))
    }

    /// `--log-filter` of a command that has the flag.
    pub fn log_filter(&self) -> Option<&str> {
        let settings = match self {
            Self::Admit(args)
            | Self::Derive(args)
            | Self::Finalize(args)
            | Self::Doctor(args)
            | Self::Settings(args) => args,
            Self::Dev(args) | Self::Gateway(args) => &args.settings,
            Self::Topics(args) => match &args.verb {
                TopicsVerb::Create(at) | TopicsVerb::List(at) => &at.settings,
                TopicsVerb::Describe { at, .. } => &at.settings,
            },
            Self::Schemas(args) => match &args.verb {
                SchemasVerb::Export { settings, .. } => settings,
                SchemasVerb::Register(args) | SchemasVerb::Check(args) => &args.settings,
            },
            Self::DeadLetters(args) => match &args.verb {
                DeadLettersVerb::List { at, .. } | DeadLettersVerb::Show { at, .. } => &at.settings,
                DeadLettersVerb::Requeue(args) | DeadLettersVerb::Drop(args) => &args.at.settings,
            },
            Self::Explain(args) => &args.at.settings,
            Self::Replay(ReplayArgs { verb: ReplayVerb::Verify(args) }) => &args.settings,
            Self::State(args) => match &args.verb {
                StateVerb::Get(args) => &args.settings,
                StateVerb::Rebuild(args) => &args.settings,
            },
            Self::Resume(args) | Self::Ready(args) => &args.settings,
            Self::Produce(args) => &args.to.settings,
            Self::Tail(args) => &args.at.settings,
            Self::Catalogue(CatalogueArgs { verb: CatalogueVerb::Export { settings, .. } }) => {
                settings
            }
            Self::Generate(_) | Self::Catalogue(_) => return None,
        };
        settings.log_filter.as_deref()
    }
}

impl SettingArgs {
    /// Adds the flags as the last layer of the settings.
    pub fn apply_to(&self, settings: &mut Settings) {
        settings.add_flag("listen", "--listen", self.listen.clone());
        settings.add_flag("data_dir", "--data-dir", self.data_dir.clone());
        settings.add_flag("log", "--log", self.log.clone());
        settings.add_flag("instance", "--instance", self.instance.clone());
        settings.add_flag("catalogue.dir", "--catalogue-dir", self.catalogue_dir.clone());
        settings.add_flag("log_filter", "--log-filter", self.log_filter.clone());
    }
}

impl ServeArgs {
    /// Adds the flags as the last layer of the settings.
    pub fn apply_to(&self, settings: &mut Settings) {
        self.settings.apply_to(settings);
        let given = |on: bool| on.then(|| "true".to_owned());
        settings.add_flag("demo.enabled", "--demo", given(self.demo));
        settings.add_flag("insecure_dev", "--insecure-dev", given(self.insecure_dev));
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1e7).contains(&rate) => Ok(rate),
        _ => Err("give events per second from 0.001 to 10000000".into()),
    }
}

fn parse_account(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !text.is_empty() && text.len() <= 128 && text.chars().all(plain) {
        Ok(text.into())
    } else {
        Err("give 1 to 128 of the characters a-z A-Z 0-9 - _ .".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_valid_for_clap() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_invalid_rate_is_refused_with_the_valid_range() {
        for wrong in ["0", "-1", "NaN", "inf", "many"] {
            assert!(parse_rate(wrong).expect_err("wrong").starts_with("give events per second"));
        }
    }

    #[test]
    fn a_command_with_settings_has_a_log_filter() {
        let filter = |words: &[&str]| {
            let words = ["tidewire"].iter().chain(words).chain(&["--log-filter", "debug"]);
            Cli::try_parse_from(words).ok()?.verb.log_filter().map(str::to_owned)
        };
        for words in [
            &["dev"][..],
            &["doctor"],
            &["ready"],
            &["resume"],
            &["topics", "list"],
            &["dead-letters", "list"],
            &["dead-letters", "drop", "--all-open"],
            &["explain", "e-1"],
            &["replay", "verify"],
            &["state", "get", "ids", "hex:00"],
            &["state", "rebuild"],
            &["finalize"],
            &["schemas", "check"],
            &["schemas", "export"],
            &["settings"],
        ] {
            assert_eq!(filter(words).as_deref(), Some("debug"), "{words:?}");
        }
        let tail = Cli::try_parse_from(["tidewire", "tail", "posts:a"]).expect("tail parses");
        assert_eq!(tail.verb.log_filter(), None);
    }

    #[test]
    fn flags_override_the_other_layers() {
        let cli = Cli::try_parse_from(["tidewire", "dev", "--listen", "127.0.0.1:0", "--demo"]);
        let Ok(Cli { verb: Verb::Dev(args) }) = cli else { panic!("dev parses") };
        let mut settings = Settings::defaults();
        args.apply_to(&mut settings);
        assert_eq!(settings.value("listen").text, "127.0.0.1:0");
        assert_eq!(settings.value("demo.enabled").text, "true");
        assert_eq!(settings.value("insecure_dev").text, "");
    }

    #[test]
    fn every_role_has_the_setting_flags_and_only_the_gateway_those_for_clients() {
        let parse = |verb: &str, flag: &str| {
            Cli::try_parse_from(["tidewire", verb, "--log", "kafka://h:1", "--instance", "a", flag])
        };
        for verb in ["admit", "derive", "gateway"] {
            assert!(parse(verb, "--listen=127.0.0.1:0").is_ok());
            assert_eq!(parse(verb, "--insecure-dev").is_ok(), verb == "gateway");
        }
    }
}
