//! Parses `docker-compose.yml` into types that refuse unknown keys, as Compose would.
//!
//! Only forms that the file uses are known. A new form is added here, and what must hold for it in
//! `services`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use tidewire_app::cli::{Cli, Verb};
use tidewire_app::role::Role;

/// The beginning of our image's name.
const OUR_IMAGE: &str = "tidewire:";

/// The whole file.
#[derive(Debug, Deserialize)]
pub(crate) struct Compose {
    pub(crate) name: String,
    pub(crate) services: BTreeMap<String, Service>,
    /// Named volumes, without options.
    pub(crate) volumes: BTreeMap<String, Option<IgnoredAny>>,
    /// YAML anchors, defined once and used above.
    #[serde(flatten)]
    fragments: BTreeMap<String, IgnoredAny>,
}

/// One service.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    pub(crate) image: String,
    pub(crate) build: Option<Build>,
    pub(crate) pull_policy: Option<String>,
    #[serde(default)]
    pub(crate) command: Vec<String>,
    pub(crate) hostname: Option<String>,
    pub(crate) network_mode: Option<String>,
    #[serde(default)]
    pub(crate) ports: Vec<String>,
    #[serde(default)]
    pub(crate) environment: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) volumes: Vec<String>,
    #[serde(default)]
    pub(crate) depends_on: BTreeMap<String, Dependency>,
    pub(crate) healthcheck: Option<HealthCheck>,
    pub(crate) restart: String,
    pub(crate) stop_grace_period: Option<String>,
    pub(crate) mem_limit: String,
    pub(crate) logging: Logging,
    #[serde(default)]
    pub(crate) read_only: bool,
    #[serde(default)]
    pub(crate) cap_drop: Vec<String>,
    #[serde(default)]
    pub(crate) security_opt: Vec<String>,
    pub(crate) ulimits: Option<Ulimits>,
}

/// How an image is built.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Build {
    pub(crate) context: String,
    pub(crate) dockerfile: String,
}

/// The condition of a service that another one waits for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dependency {
    pub(crate) condition: String,
}

/// How Docker checks a service's health.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HealthCheck {
    pub(crate) test: Vec<String>,
    pub(crate) interval: String,
    pub(crate) timeout: String,
    pub(crate) retries: u32,
    pub(crate) start_period: String,
    pub(crate) start_interval: String,
}

/// The logging driver of a service and its options.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Logging {
    pub(crate) driver: String,
}

/// Kernel limits.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ulimits {
    pub(crate) nofile: OpenFiles,
}

/// How many files may be open.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpenFiles {
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// A published port: on the host, and in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublishedPort {
    pub(crate) address: String,
    pub(crate) host: u16,
    pub(crate) container: u16,
}

/// A mounted volume, folder or file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) read_only: bool,
}

impl Compose {
    /// Reads the file of this repository.
    pub(crate) fn read() -> Self {
        Self::parse(&text()).unwrap_or_else(|why| panic!("docker-compose.yml: {why}"))
    }

    /// Reads a text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let compose: Self = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        match compose.fragments.keys().find(|name| !name.starts_with("x-")) {
            Some(unknown) => Err(format!("{unknown} is not a known key")),
            None => Ok(compose),
        }
    }

    /// The service of this name.
    pub(crate) fn service(&self, name: &str) -> &Service {
        self.services.get(name).unwrap_or_else(|| panic!("docker-compose.yml: no service {name}"))
    }

    /// The services that run our binary.
    pub(crate) fn ours(&self) -> impl Iterator<Item = (&str, &Service)> {
        let all = self.services.iter().map(|(name, service)| (name.as_str(), service));
        all.filter(|(_, service)| service.image.starts_with(OUR_IMAGE))
    }

    /// The services that run a role, by their verb.
    pub(crate) fn roles(&self) -> impl Iterator<Item = (&str, &Service, Role)> {
        self.ours().filter_map(|(name, service)| Some((name, service, service.role()?)))
    }
}

impl Service {
    /// Its command, parsed by the binary's own grammar.
    pub(crate) fn verb(&self) -> Result<Verb, String> {
        grammar(&self.command)
    }

    /// The role it runs, if its verb is one.
    pub(crate) fn role(&self) -> Option<Role> {
        match self.verb().ok()? {
            Verb::Dev(_) => Some(Role::All),
            Verb::Admit(_) => Some(Role::Admit),
            Verb::Derive(_) => Some(Role::Derive),
            Verb::Gateway(_) => Some(Role::Gateway),
            _ => None,
        }
    }

    /// Its published ports.
    pub(crate) fn published(&self) -> Vec<PublishedPort> {
        self.ports.iter().map(|text| published(text)).collect()
    }

    /// Its mounts.
    pub(crate) fn mounts(&self) -> Vec<Mount> {
        self.volumes.iter().map(|text| mount(text)).collect()
    }

    /// Whether it has the network of the host.
    pub(crate) fn is_on_host(&self) -> bool {
        self.network_mode.as_deref() == Some("host")
    }

    /// How long it may take to stop after a `SIGTERM`.
    pub(crate) fn stop_grace(&self) -> Option<Duration> {
        self.stop_grace_period.as_deref().map(duration)
    }

    /// Its memory limit.
    pub(crate) fn memory_bytes(&self) -> u64 {
        bytes(&self.mem_limit)
    }
}

/// Parses these arguments as the binary does.
pub(crate) fn grammar(words: &[String]) -> Result<Verb, String> {
    let line = ["tidewire"].into_iter().chain(words.iter().map(String::as_str));
    let parsed = <Cli as clap::Parser>::try_parse_from(line);
    parsed.map(|cli| cli.verb).map_err(|error| error.to_string())
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests are a folder of the repository").to_owned()
}

/// The text of a file of the repository.
pub(crate) fn file(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The text of the Compose file.
pub(crate) fn text() -> String {
    file("docker-compose.yml")
}

fn published(text: &str) -> PublishedPort {
    let parts: Vec<&str> = text.split(':').collect();
    let [address, host, container] = parts[..] else {
        panic!("port {text}: write ADDRESS:PORT:PORT, or every machine can connect")
    };
    let port = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text} is not a port"));
    PublishedPort { address: address.into(), host: port(host), container: port(container) }
}

fn mount(text: &str) -> Mount {
    let mut parts = text.split(':').map(str::to_owned);
    let (Some(source), Some(target)) = (parts.next(), parts.next()) else {
        panic!("volume {text}: write SOURCE:TARGET")
    };
    let read_only = match parts.next().as_deref() {
        None => false,
        Some("ro") => true,
        Some(other) => panic!("volume {text}: {other} is not a known option"),
    };
    Mount { source, target, read_only }
}

/// A span of time such as `20s` or `1m`.
pub(crate) fn duration(text: &str) -> Duration {
    let (number, unit) = split_unit(text);
    match unit {
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(60 * number),
        _ => panic!("{text}: write seconds as 20s or minutes as 1m"),
    }
}

/// A size such as `512m` or `1g`.
fn bytes(text: &str) -> u64 {
    let (number, unit) = split_unit(text);
    match unit {
        "m" => number << 20,
        "g" => number << 30,
        _ => panic!("{text}: write 512m or 1g"),
    }
}

fn split_unit(text: &str) -> (u64, &str) {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    (number.parse().unwrap_or_else(|_| panic!("{text}: not a number")), unit)
}

#[test]
fn what_compose_does_not_accept_is_refused() {
    let service = "image: a:1\n    restart: 'no'\n    mem_limit: 1g\n    logging: {driver: local}";
    let check = |more: &str, expected: Option<&str>| {
        let text = format!("name: t\nservices:\n  s:\n    {service}\n{more}volumes:\n  v:\n");
        match (Compose::parse(&text), expected) {
            (Ok(_), None) => {}
            (Err(why), Some(part)) => assert!(why.contains(part), "{why}"),
            (got, _) => panic!("{more}: {got:?}, expected {expected:?}"),
        }
    };
    check("", None);
    check("x-fragment: {a: 1}\n", None);
    check("    restrat: always\n", Some("restrat"));
    check("    restart: always\n", Some("restart"));
    check("srevices: {}\n", Some("srevices"));
    check("    environment: {A: [b]}\n", Some("string"));
}

#[test]
fn yaml_anchors_are_merged_and_the_nearer_value_wins() {
    let text = "name: t\nx-a: &a {image: 'a:1', restart: always, logging: {driver: local}}\n\
                x-b: &b\n  <<: *a\n  mem_limit: 1g\n\
                services:\n  s:\n    <<: *b\n    restart: 'no'\nvolumes: {}\n";
    let compose = Compose::parse(text).expect("right");
    let service = compose.service("s");
    assert_eq!((service.image.as_str(), service.restart.as_str()), ("a:1", "no"));
    assert_eq!(service.memory_bytes(), 1 << 30);
}
