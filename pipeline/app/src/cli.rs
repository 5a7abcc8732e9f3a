//! The command line: what can be said to `tidewire`, and nothing about how it is done.
//!
//! Flags that are settings stay text here, so that a wrong one is reported together with those of
//! the file and the environment. Mistakes in the grammar itself end with exit code 2.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::settings::Settings;

/// Where a process answers unless told otherwise.
const URL_DEFAULT: &str = "http://127.0.0.1:8080";

/// Real-time events: in by HTTP, through prioritised lanes, out to sockets that resume.
#[derive(Debug, Parser)]
#[command(name = "tidewire", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What `tidewire` can do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run everything in one process
    Dev(ServeArgs),
    /// Run the role that validates events and sorts them into lanes
    Admit(SettingArgs),
    /// Run the role that removes duplicates and delivers to channels
    Derive(SettingArgs),
    /// Run the role that serves sockets and takes events
    Gateway(ServeArgs),
    /// Create, list or describe topics
    Topics(TopicsArgs),
    /// Write, register or check the Avro schemas of typed records
    Schemas(SchemasArgs),
    /// List, show, requeue or drop what could not be taken
    DeadLetters(DeadLettersArgs),
    /// Execute history again and compare it with what is in the log
    Replay(ReplayArgs),
    /// Remove the local state of tasks, so that it is rebuilt from the log
    State(StateArgs),
    /// Take on a line that stands still before too much poison
    Resume(ProcessArgs),
    /// Send events, one JSON object a line
    Produce(ProduceArgs),
    /// Follow channels in the terminal
    Tail(TailArgs),
    /// Make synthetic events: the same seed gives the same bytes
    Generate(GenerateArgs),
    /// Check what `dev` needs, and say how to mend what is wrong
    Doctor(SettingArgs),
    /// Ask a running process whether it is ready, for health checks
    Ready(ProcessArgs),
    /// List every setting with its default and its environment variable
    Settings,
}

/// Flags that are settings.
#[derive(Args, Clone, Debug, Default)]
pub struct SettingArgs {
    /// Settings file, TOML
    #[arg(long, value_name = "FILE", env = "TIDEWIRE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Address and port to serve on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<String>,
    /// Folder of the state, and of the embedded log [default: .tidewire]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Which log to run on: embedded, or kafka://HOST:PORT,… [default: embedded]
    #[arg(long, value_name = "LOG")]
    pub log: Option<String>,
    /// A name unlike any other process's [default on Kafka: the host's name]
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// What is logged: a level, or module=level,… [default: info; RUST_LOG is heard too]
    #[arg(long, value_name = "FILTER")]
    pub log_filter: Option<String>,
}

/// What a process takes that clients come to.
#[derive(Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// Settings.
    #[command(flatten)]
    pub settings: SettingArgs,
    /// Feed synthetic events, so that there is something to see
    #[arg(long)]
    pub demo: bool,
    /// Believe ?user= without a token, on loopback only; `dev` does unless told otherwise
    #[arg(long)]
    pub insecure_dev: bool,
}

impl From<SettingArgs> for ServeArgs {
    fn from(settings: SettingArgs) -> Self {
        Self { settings, demo: false, insecure_dev: false }
    }
}

/// A running process to talk to.
#[derive(Args, Clone, Debug)]
pub struct UrlArgs {
    /// The running process
    #[arg(long, value_name = "URL", default_value = URL_DEFAULT)]
    pub url: String,
}

/// What `state` takes.
#[derive(Args, Debug)]
pub struct StateArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub verb: StateVerb,
}

/// What can be done with local state.
#[derive(Debug, Subcommand)]
pub enum StateVerb {
    /// Remove the state of a stopped process; its next start brings it back from the log
    Rebuild {
        /// Of this partition's task only; may be given several times [default: of all]
        #[arg(long = "partition", value_name = "N")]
        partitions: Vec<u32>,
        /// Where it is.
        #[command(flatten)]
        settings: SettingArgs,
    },
}

/// What `topics` takes.
#[derive(Args, Debug)]
pub struct TopicsArgs {
    /// What to do with them.
    #[command(subcommand)]
    pub verb: TopicsVerb,
}

/// What can be done with topics.
#[derive(Debug, Subcommand)]
pub enum TopicsVerb {
    /// Create every topic that is missing
    Create(LogArgs),
    /// List every topic with what it keeps
    List(LogArgs),
    /// Show the offsets of a topic's partitions
    Describe {
        /// The topic
        topic: String,
        /// Where the log is.
        #[command(flatten)]
        at: LogArgs,
    },
}

/// The log of a running process, the data folder of a stopped one, or Kafka.
#[derive(Args, Debug)]
pub struct LogArgs {
    /// A running process to ask [default: Kafka if `log` says so; otherwise the one at `listen`,
    /// or the data folder if none answers]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingArgs,
}

/// What `dead-letters` takes.
#[derive(Args, Debug)]
pub struct DeadLettersArgs {
    /// What to do with them.
    #[command(subcommand)]
    pub verb: DeadLettersVerb,
}

/// What can be done with dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadLettersVerb {
    /// List them, the newest last
    List {
        /// Which.
        #[command(flatten)]
        which: DeadLetterFilter,
        /// Those that were requeued or dropped too
        #[arg(long)]
        all: bool,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        /// Where the log is.
        #[command(flatten)]
        at: LogArgs,
    },
    /// Show all there is to one: its bytes, its headers, where it has been
    Show {
        /// What it is called in the list, such as tw.in/3/7
        #[arg(value_name = "ID")]
        id: String,
        /// Its bytes and nothing else
        #[arg(long)]
        raw: bool,
        /// Where the log is.
        #[command(flatten)]
        at: LogArgs,
    },
    /// Put records back into their input, once and in the order in which they came
    Requeue(ResolveArgs),
    /// Give them up; they are listed with --all until retention takes them
    Drop(ResolveArgs),
}

/// Which dead letters: all that is given has to fit.
#[derive(Args, Debug)]
pub struct DeadLetterFilter {
    /// With this reason (may be given several times)
    #[arg(long, value_name = "WORD")]
    pub reason: Vec<String>,
    /// From this topic, or http (may be given several times)
    #[arg(long, value_name = "TOPIC")]
    pub source: Vec<String>,
    /// Not before: 2026-01-05T10:00:00Z, or milliseconds since 1970
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Before
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// At most so many [default: 100 to list, all to requeue or drop]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
}

/// What `requeue` and `drop` take.
#[derive(Args, Debug)]
pub struct ResolveArgs {
    /// What they are called in the list, such as tw.in/3/7
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// Which.
    #[command(flatten)]
    pub which: DeadLetterFilter,
    /// All that are open
    #[arg(long)]
    pub all_open: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Why, for whoever looks at it later
    #[arg(long, value_name = "TEXT")]
    pub because: Option<String>,
    /// Where the log is.
    #[command(flatten)]
    pub at: LogArgs,
}

/// What `replay` takes.
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub verb: ReplayVerb,
}

/// What can be done with history.
#[derive(Debug, Subcommand)]
pub enum ReplayVerb {
    /// Check that every output byte comes out again; it writes nothing to the log
    Verify(VerifyArgs),
}

/// What `replay verify` takes.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// The task, by its partition's number [default: all of them]
    #[arg(long, value_name = "N")]
    pub task: Option<u32>,
    /// The first transaction: its offset in the task's partition of `order`, or a time such as
    /// 2026-01-05T10:00:00Z [default: as far back as it goes]
    #[arg(long, value_name = "WHERE")]
    pub from: Option<String>,
    /// The transaction behind the last [default: the end]
    #[arg(long, value_name = "WHERE")]
    pub to: Option<String>,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingArgs,
}

/// The process that is meant by these settings, or another.
#[derive(Args, Debug)]
pub struct ProcessArgs {
    /// A running process [default: the one at `listen`]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingArgs,
}

/// What `schemas` takes.
#[derive(Args, Debug)]
pub struct SchemasArgs {
    /// What to do with them.
    #[command(subcommand)]
    pub verb: SchemasVerb,
}

/// What can be done with the schemas of typed records.
#[derive(Debug, Subcommand)]
pub enum SchemasVerb {
    /// Write them into a folder, a file each
    Export {
        /// The folder; it is made if it is not there
        #[arg(long, value_name = "DIR", default_value = "tidewire-schemas")]
        dir: PathBuf,
        /// Event types [default: all that producers send]
        #[arg(value_name = "TYPE")]
        types: Vec<String>,
    },
    /// Register them with a schema registry, each under its record's full name
    Register(RegistryArgs),
    /// Compare what a schema registry has with them
    Check(RegistryArgs),
}

/// Some schemas, and a registry.
#[derive(Args, Debug)]
pub struct RegistryArgs {
    /// The registry; its login is registry.username and registry.password, or registry.token
    /// [default: registry.url]
    #[arg(long, value_name = "URL")]
    pub registry: Option<String>,
    /// Event types [default: all that producers send]
    #[arg(value_name = "TYPE")]
    pub types: Vec<String>,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingArgs,
}

/// What `produce` takes.
#[derive(Args, Debug)]
pub struct ProduceArgs {
    /// NDJSON file; - is standard input
    #[arg(default_value = "-", value_name = "FILE")]
    pub file: String,
    /// Where to.
    #[command(flatten)]
    pub to: UrlArgs,
}

/// What `tail` takes.
#[derive(Args, Debug)]
pub struct TailArgs {
    /// Channels, such as timeline:demo
    #[arg(required = true, value_name = "CHANNEL")]
    pub channels: Vec<String>,
    /// latest, earliest, a position, or a time such as 2026-01-05T10:00:00Z
    #[arg(long, default_value = "latest", value_name = "WHERE")]
    pub from: String,
    /// One JSON object a line, as when the output is not a terminal
    #[arg(long)]
    pub json: bool,
    /// Stop after this many events
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// The user to be, where no token is asked for
    #[arg(long, value_name = "NAME", default_value = "tail")]
    pub user: String,
    /// Where from.
    #[command(flatten)]
    pub at: UrlArgs,
}

/// What `generate` takes.
#[derive(Args, Debug)]
pub struct GenerateArgs {
    /// Which history
    #[arg(long, value_name = "N")]
    pub seed: u64,
    /// Events per second; without it as fast as possible
    #[arg(long, value_name = "R", value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// Stop after this many events
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// The account of all events
    #[arg(long, value_name = "NAME", default_value = "demo", value_parser = parse_account)]
    pub account: String,
    /// Send to a running process instead of printing
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

impl SettingArgs {
    /// Lays the flags over the other layers.
    pub fn apply_to(&self, settings: &mut Settings) {
        settings.add_flag("listen", "--listen", self.listen.clone());
        settings.add_flag("data_dir", "--data-dir", self.data_dir.clone());
        settings.add_flag("log", "--log", self.log.clone());
        settings.add_flag("instance", "--instance", self.instance.clone());
        settings.add_flag("log_filter", "--log-filter", self.log_filter.clone());
    }
}

impl ServeArgs {
    /// Lays the flags over the other layers.
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
    fn a_rate_that_makes_no_sense_is_refused_with_what_is_right() {
        for wrong in ["0", "-1", "NaN", "inf", "many"] {
            assert!(parse_rate(wrong).expect_err("wrong").starts_with("give events per second"));
        }
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
    fn roles_take_the_flags_of_settings_and_only_the_gateway_those_for_clients() {
        let parse = |verb: &str, flag: &str| {
            Cli::try_parse_from(["tidewire", verb, "--log", "kafka://h:1", "--instance", "a", flag])
        };
        for verb in ["admit", "derive", "gateway"] {
            assert!(parse(verb, "--listen=127.0.0.1:0").is_ok());
            assert_eq!(parse(verb, "--insecure-dev").is_ok(), verb == "gateway");
        }
    }
}
