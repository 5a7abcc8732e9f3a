//! Parses the settings of a process, once, into the types that each part needs.
//!
//! Every value is checked before any is refused, so that one start reports all wrong settings: the
//! place of each value and what is valid. No other part of the process interprets a setting's text.

mod catalogue;
mod kafka;
mod registry;
pub mod settings;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;

use tidewire_connectors::registry as schema_registry;
use tidewire_engine::admit::PoisonLimit;
use tidewire_engine::derive::{AuditMode, DEDUP_FILTER_BYTES_MIN};
use tidewire_engine::topology::Topology;
use tidewire_schemas::catalogue::Catalogue;

use crate::config::settings::{SettingSource, SettingValue, Settings, redacted};
use crate::process_exit::ProcessExit;
use crate::role::Role;

pub use catalogue::load as load_catalogue;
pub use kafka::{KafkaConfig, Properties};
pub use values::size_text;

use kafka::LogChoice;
use values::Placeholder;

/// The most partitions of a topic: a position over all of them still fits an HTTP header.
const PARTITIONS_MAX: u64 = 64;
/// A smaller ring holds too little to resume from.
const RING_BYTES_MIN: u64 = 1 << 20;
/// More memory than a gateway's machine has.
const RING_BYTES_MAX: u64 = 64 << 30;
/// Less would be full with a few unread events of the largest size.
const CONNECTIONS_BYTES_MIN: u64 = 1 << 20;
/// More memory than a gateway's machine has.
const CONNECTIONS_BYTES_MAX: u64 = 64 << 30;
/// More worker threads than this contend with each other.
const SHARDS_MAX: u64 = 64;
/// A thread without a partition has nothing to do.
const DERIVE_THREADS_MAX: u64 = 64;
/// More memory than DERIVE's machine has.
const DEDUP_FILTER_BYTES_MAX: u64 = 64 << 30;
/// With a higher minimum the poison limit would never be checked.
const POISON_MIN_RECORDS_MAX: u64 = 1_000_000;
/// The demo shares the machine with the pipeline it feeds.
const DEMO_RATE_PER_S_MAX: u64 = 10_000;

/// What an acknowledged record survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckDurability {
    /// The end of the process, `kill -9` included.
    Process,
    /// The end of the host: synced to disk before the acknowledgement.
    Host,
}

/// The configuration of a process.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where HTTP, WebSocket and SSE are served.
    pub listen: SocketAddr,
    /// Accept `?user=` without a token.
    pub insecure_dev: bool,
    /// Values of `Host` that are accepted besides loopback names.
    pub allowed_hosts: Vec<String>,
    /// Values of `Origin` that are accepted besides the server's own.
    pub allowed_origins: Vec<String>,
    /// What is logged, as a filter of `tracing`.
    pub log_filter: String,
    /// Which log.
    pub log: LogConfig,
    /// The unique name of this process, the same after a restart.
    pub instance: String,
    /// The event types and channels in force; `None` for a command that needs none.
    catalogue: Option<&'static Catalogue>,
    /// Where the embedded log and the state are.
    pub data: DataConfig,
    /// The topics' names and partitions.
    pub topics: TopicsConfig,
    /// The schema registry, if one is configured.
    pub registry: Option<schema_registry::Config>,
    /// The share of invalid input at which ADMIT stops.
    pub poison: PoisonLimit,
    /// Threads of DERIVE; each owns a share of the partitions.
    pub derive_threads: u32,
    /// Whether DERIVE follows the state of partitions that another process owns.
    pub derive_standby: bool,
    /// Bytes of memory for the filters of accepted ids, all partitions together.
    pub dedup_filter_bytes: usize,
    /// Whether DERIVE writes an audit.
    pub derive_audit: AuditMode,
    /// The gateway's memory and threads.
    pub gateway: GatewaySizing,
    /// Synthetic events per second; `None`: no demo.
    pub demo_rate_per_s: Option<u32>,
}

/// Which log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogConfig {
    /// The one in the data folder.
    Embedded,
    /// Apache Kafka.
    Kafka(KafkaConfig),
}

/// Where the embedded log and the state are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataConfig {
    /// The folder.
    pub dir: PathBuf,
    /// Whether it was given, or is the default.
    pub is_given: bool,
    /// What an acknowledged record survives on the embedded log.
    pub durability: AckDurability,
}

/// The topics' names and partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicsConfig {
    /// What every topic's name begins with.
    pub prefix: String,
    /// Partitions of each topic.
    pub partitions: u32,
}

/// The gateway's memory and threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewaySizing {
    /// Bytes of memory for the newest outputs.
    pub ring_bytes: usize,
    /// Bytes of memory for all connections together.
    pub connections_bytes: usize,
    /// Worker threads; 0: one per processor.
    pub shards: usize,
}

/// What settings are parsed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigUsage {
    /// To run this role.
    Role(Role),
    /// For a command that needs the catalogue.
    Catalogue,
    /// For a command that does not: it works whatever is in `catalogue.dir`.
    Command,
}

impl Config {
    /// Parses every setting, or fails with the list of all wrong ones.
    pub fn parse(mut settings: Settings, usage: ConfigUsage) -> Result<Self, ProcessExit> {
        let mut config = Self::read(&mut settings);
        let role = match usage {
            ConfigUsage::Role(role) => Some(role),
            ConfigUsage::Catalogue | ConfigUsage::Command => None,
        };
        if usage != ConfigUsage::Command {
            let mut read = SettingsReader { settings: &mut settings };
            config.catalogue = Some(read.value("catalogue.dir", catalogue::in_force));
        }
        config.check_log(&mut settings);
        config.check_standby(&mut settings);
        if let Some(role) = role {
            config.check_role(role, &mut settings);
        }
        if role.is_none_or(Role::serves_clients) {
            config.check_exposure(&mut settings);
        }
        match settings.problems() {
            [] => Ok(config),
            [one] => Err(ProcessExit::Usage(format!("1 setting is wrong\n  {one}"))),
            many => {
                let list = many.join("\n  ");
                Err(ProcessExit::Usage(format!("{} settings are wrong\n  {list}", many.len())))
            }
        }
    }

    fn read(settings: &mut Settings) -> Self {
        let mut read = SettingsReader { settings };
        let kafka = KafkaConfig {
            bootstrap: String::new(),
            replication: read.value("kafka.replication", kafka::replica_count),
            min_insync: read.value("kafka.min_insync", kafka::replica_count),
            protocol: read.value("kafka.group_protocol", kafka::protocol),
            properties: Properties::of(read.settings),
        };
        Self {
            listen: read.value("listen", values::address),
            insecure_dev: read.value("insecure_dev", values::unset_or_boolean),
            allowed_hosts: read.value("allowed_hosts", values::host_names),
            allowed_origins: read.value("allowed_origins", values::origins),
            log_filter: read.value("log_filter", values::filter),
            log: match read.value("log", kafka::log_choice) {
                LogChoice::Embedded => LogConfig::Embedded,
                LogChoice::Kafka(bootstrap) => LogConfig::Kafka(KafkaConfig { bootstrap, ..kafka }),
            },
            instance: read.value("instance", values::instance),
            catalogue: None,
            data: DataConfig {
                dir: read.value("data_dir", values::folder),
                is_given: read.settings.value("data_dir").source != SettingSource::Default,
                durability: read.value("durability", values::durability),
            },
            topics: TopicsConfig {
                prefix: read.value("topics.prefix", values::prefix),
                partitions: read
                    .value("topics.partitions", |t| values::whole_number(t, 1, PARTITIONS_MAX)),
            },
            registry: registry::read(read.settings),
            poison: PoisonLimit {
                share: read.value("admit.poison_share", values::share),
                min_records: read.value("admit.poison_min_records", |t| {
                    values::whole_number(t, 1, POISON_MIN_RECORDS_MAX)
                }),
            },
            derive_threads: read
                .value("derive.threads", |t| values::whole_number(t, 1, DERIVE_THREADS_MAX)),
            derive_standby: read.value("derive.standby", values::boolean),
            dedup_filter_bytes: read.value("derive.dedup_filter_bytes", |t| {
                values::bytes(t, DEDUP_FILTER_BYTES_MIN as u64, DEDUP_FILTER_BYTES_MAX)
            }),
            derive_audit: read.value("derive.audit", values::audit),
            gateway: GatewaySizing {
                ring_bytes: read.value("gateway.ring_bytes", |t| {
                    values::bytes(t, RING_BYTES_MIN, RING_BYTES_MAX)
                }),
                connections_bytes: read.value("memory.connections_bytes", |t| {
                    values::bytes(t, CONNECTIONS_BYTES_MIN, CONNECTIONS_BYTES_MAX)
                }),
                shards: read.value("gateway.shards", |t| values::whole_number(t, 0, SHARDS_MAX)),
            },
            demo_rate_per_s: {
                let rate =
                    read.value("demo.rate", |t| values::whole_number(t, 1, DEMO_RATE_PER_S_MAX));
                read.value("demo.enabled", values::boolean).then_some(rate)
            },
        }
    }

    /// The event types and channels in force.
    pub fn catalogue(&self) -> &'static Catalogue {
        self.catalogue.expect("a role, or a command that needs it, has parsed the settings for it")
    }

    /// The topics of this deployment.
    pub fn topology(&self) -> Topology {
        Topology::new(&self.topics.prefix, self.topics.partitions)
    }

    /// A setting of the log that is not used is accepted if `log` was given, so that one file
    /// serves both logs. It is refused if it promises what the chosen log does not do.
    fn check_log(&self, settings: &mut Settings) {
        if let LogConfig::Kafka(kafka) = &self.log {
            kafka.check(self, settings);
            let durability = settings.value("durability").clone();
            if self.data.durability == AckDurability::Host {
                settings.add_problem(format!(
                    "{durability}: {:?} applies to the embedded log only; on Kafka an \
                     acknowledged record is on every in-sync replica: remove the setting, and set \
                     kafka.min_insync to require replicas",
                    durability.text
                ));
            }
        } else if settings.value("log").source == SettingSource::Default
            && let Some(given) = settings.first_kafka_value()
        {
            let place = given.to_string();
            settings.add_problem(format!(
                "{place}: given, but `log` is not set; give log = \"kafka://HOST:PORT\", or log = \
                 \"embedded\" to use the embedded log"
            ));
        }
    }

    fn check_standby(&self, settings: &mut Settings) {
        if self.derive_standby && self.derive_threads > 1 {
            let standby = settings.value("derive.standby").clone();
            settings.add_problem(format!(
                "{standby}: threads of one process share a state folder, in which a partition has \
                 one store; give derive.threads = 1, or run more processes"
            ));
        }
    }

    fn check_role(&self, role: Role, settings: &mut Settings) {
        let log = settings.value("log").clone();
        if role.is_apart() && log.text == "embedded" {
            settings.add_problem(format!(
                "{log}: `tidewire {}` runs one role, which needs a log that several processes can \
                 open, such as --log kafka://127.0.0.1:9092; the embedded log belongs to one \
                 process: run `tidewire dev`, which runs all roles",
                role.verb()
            ));
        }
        let insecure = settings.value("insecure_dev").clone();
        if role.serves_clients() && matches!(insecure.text.as_str(), "" | "false") {
            settings.add_problem(format!(
                "{insecure}: this version cannot check tokens, so no client could connect; give \
                 --insecure-dev and listen on loopback"
            ));
        }
    }

    /// Without tokens any client may name any user, so no other machine may be able to connect.
    /// Roles that serve only administrators know no users.
    fn check_exposure(&self, settings: &mut Settings) {
        let listen = settings.value("listen").clone();
        if self.insecure_dev && !self.listen.ip().is_loopback() {
            settings.add_problem(format!(
                "{listen}: {} can be reached from other machines, and with --insecure-dev any \
                 client may name any user; listen on 127.0.0.1:{} or [::1]:{1}",
                self.listen,
                self.listen.port()
            ));
        }
    }
}

struct SettingsReader<'a> {
    settings: &'a mut Settings,
}

impl SettingsReader<'_> {
    /// The parsed value. If it is wrong, the problem is recorded and a placeholder is returned,
    /// which is never used because the configuration is refused in the end.
    fn value<T: Placeholder>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> T {
        let given: SettingValue = self.settings.value(key).clone();
        parse(&given.text).unwrap_or_else(|right| {
            self.settings.add_problem(format!("{given}: {:?}: {right}", redacted(&given.text)));
            T::placeholder()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::SETTINGS;
    use tidewire_connectors::socket::memory;

    fn parse(flags: &[(&'static str, &str)]) -> Result<Config, ProcessExit> {
        let mut settings = Settings::defaults();
        for (key, text) in flags {
            settings.add_flag(key, &format!("--{key}"), Some((*text).into()));
        }
        Config::parse(settings, ConfigUsage::Catalogue)
    }

    fn run_as(role: Role, flags: &[(&'static str, &str)]) -> Result<Config, String> {
        let mut settings = Settings::defaults();
        for (key, text) in flags {
            settings.add_flag(key, &format!("--{key}"), Some((*text).into()));
        }
        Config::parse(settings, ConfigUsage::Role(role)).map_err(|error| error.to_string())
    }

    fn check_refused(key: &'static str, text: &str, expected: &str) {
        let error = parse(&[(key, text)]).expect_err("the value is wrong").to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains(&format!("--{key}")), "names the place: {error}");
    }

    #[test]
    fn the_ranges_in_the_table_of_settings_are_those_that_are_checked() {
        let demo = ("demo.enabled", "true");
        for setting in SETTINGS.iter().filter(|setting| setting.accepts.contains(" to ")) {
            let error = parse(&[demo, (setting.key, "?")]).expect_err(setting.key).to_string();
            assert!(error.contains(&format!("from {}", setting.accepts)), "{error}");
        }
    }

    #[test]
    fn the_defaults_are_a_valid_configuration() {
        let config = parse(&[]).expect("defaults are right");
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.gateway.ring_bytes, 64 << 20);
        assert_eq!(config.gateway.connections_bytes, memory::CONNECTIONS_BYTES);
        assert_eq!(config.dedup_filter_bytes, tidewire_engine::derive::DEDUP_FILTER_BYTES);
        assert_eq!(config.demo_rate_per_s, None);
    }

    #[test]
    fn each_wrong_value_is_reported_with_its_place_and_what_is_valid() {
        check_refused("listen", "localhost", "give an IP address and a port");
        check_refused("topics.partitions", "0", "give a whole number from 1 to 64");
        check_refused("topics.partitions", "-1", "give a whole number from 1 to 64");
        check_refused("gateway.ring_bytes", "64 MB", "give a size from 1 MiB to 64 GiB");
        check_refused("gateway.ring_bytes", "99999999999999999 GiB", "give a size from");
        check_refused("durability", "maybe", "give process (survives kill -9) or host");
        check_refused("demo.enabled", "yes", "give true or false");
        check_refused("derive.audit", "true", "give on or off");
        check_refused("topics.prefix", "a b", "give at most 100 of the characters");
        check_refused("log", "rabbit", "give embedded, or kafka://HOST:PORT");
        for wrong in ["1.1", "-0.1", "NaN", "half"] {
            check_refused("admit.poison_share", wrong, "give a share from 0 to 1");
        }
        check_refused("instance", "a b", "give at most 100 of the characters");
    }

    #[test]
    fn all_wrong_settings_are_reported_at_once() {
        let error = parse(&[("listen", "x"), ("durability", "y"), ("demo.enabled", "z")])
            .expect_err("three values are wrong")
            .to_string();
        assert!(error.starts_with("3 settings are wrong"), "{error}");
        assert_eq!(error.lines().count(), 4, "{error}");
    }

    #[test]
    fn a_reachable_address_without_tokens_is_refused() {
        let open = ("listen", "0.0.0.0:80");
        assert!(parse(&[open]).is_ok());
        let error = parse(&[open, ("insecure_dev", "true")]).expect_err("reachable").to_string();
        assert!(error.contains("can be reached from other machines"), "{error}");
    }

    #[test]
    fn a_separate_role_needs_a_log_that_can_be_shared() {
        let error = run_as(Role::Derive, &[]).expect_err("the embedded log");
        assert!(error.contains("log (default): `tidewire derive` runs one role, "), "{error}");
        assert!(error.contains("run `tidewire dev`"), "{error}");
        assert!(run_as(Role::Derive, &[KAFKA]).is_ok());
    }

    #[test]
    fn roles_that_serve_clients_listen_on_loopback_only_and_the_others_anywhere() {
        let (open, insecure) = (("listen", "0.0.0.0:80"), ("insecure_dev", "true"));
        let error = run_as(Role::Gateway, &[KAFKA]).expect_err("no tokens");
        assert!(
            error.contains("insecure_dev (default): this version cannot check tokens"),
            "{error}"
        );
        assert!(run_as(Role::Gateway, &[KAFKA, insecure]).is_ok());
        let error = run_as(Role::Gateway, &[KAFKA, insecure, open]).expect_err("reachable");
        assert!(error.contains("can be reached from other machines"), "{error}");
        assert!(run_as(Role::Admit, &[KAFKA, insecure, open]).is_ok());
    }

    #[test]
    fn durability_host_is_refused_on_kafka_and_kafkas_settings_without_a_chosen_log() {
        let error = parse(&[KAFKA, ("durability", "host")]).expect_err("fsync").to_string();
        assert!(error.contains("--durability: \"host\" applies to the embedded log"), "{error}");
        assert!(parse(&[KAFKA, ("durability", "process")]).is_ok());
        let copies = ("kafka.replication", "3");
        assert!(parse(&[("log", "embedded"), copies]).is_ok());
        let error = parse(&[copies]).expect_err("no log was chosen").to_string();
        assert!(error.contains("--kafka.replication: given, but `log` is not set"), "{error}");
    }

    const KAFKA: (&str, &str) = ("log", "kafka://127.0.0.1:9092");
}
