//! Compares the services with the binary's grammar and settings, the repository and each other.
//!
//! These checks start nothing, so they name the wrong line before `running` fails because of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use tidewire_app::cli::{TopicsVerb, Verb};
use tidewire_app::config::settings::Settings;
use tidewire_app::config::{Config, ConfigUsage, LogConfig};

use crate::deploy::compose::{self, Compose, Service, root};
use crate::deploy::dockerfile::{self, stages};

/// The beginning of our variables' names.
const OURS: &str = "TIDEWIRE_";
/// The logging driver that keeps a bounded number of bounded files.
const BOUNDED_LOG: &str = "local";

/// The configuration from a service's variables and those of the image.
fn config(name: &str, service: &Service) -> Config {
    let image = stages().pop().expect("an image has a stage");
    let given = service.environment.clone().into_iter();
    let mut settings = Settings::defaults();
    settings.add_variables(image.variables().into_iter().chain(given));
    let usage = service.role().map_or(ConfigUsage::Command, ConfigUsage::Role);
    Config::parse(settings, usage).unwrap_or_else(|why| panic!("{name}: {why}"))
}

fn configs(compose: &Compose) -> BTreeMap<&str, Config> {
    compose.ours().map(|(name, service)| (name, config(name, service))).collect()
}

#[test]
fn every_command_is_valid_for_the_binary() {
    let compose = Compose::read();
    for (name, service) in compose.ours() {
        let verb = service.verb().unwrap_or_else(|why| panic!("{name}: {why}"));
        match (name, verb) {
            ("topics", Verb::Topics(args)) => assert!(matches!(args.verb, TopicsVerb::Create(_))),
            ("admit", Verb::Admit(_)) | ("derive", Verb::Derive(_)) => {}
            ("gateway", Verb::Gateway(_)) => {}
            (name, verb) => panic!("{name} runs {verb:?}"),
        }
    }
    assert_eq!(compose.ours().count(), 4, "the topics and three roles");
}

#[test]
fn every_variable_is_a_setting_with_a_valid_value() {
    let compose = Compose::read();
    for (name, service) in compose.ours() {
        let foreign = service.environment.keys().find(|key| !key.starts_with(OURS));
        assert_eq!(foreign, None, "{name}");
        config(name, service);
    }
}

#[test]
fn services_share_topics_and_have_distinct_names() {
    let compose = Compose::read();
    let configs = configs(&compose);
    let topics: Vec<_> = configs.values().map(|config| (&config.topics, &config.log)).collect();
    assert!(topics.windows(2).all(|pair| pair[0] == pair[1]), "{topics:?}");
    let roles: Vec<&str> = compose.roles().map(|(name, ..)| name).collect();
    let instances: BTreeSet<&str> =
        roles.iter().map(|name| configs[name].instance.as_str()).collect();
    assert_eq!(instances.len(), roles.len(), "{instances:?}");
}

#[test]
fn services_use_the_published_and_advertised_broker_addresses() {
    let compose = Compose::read();
    let kafka = compose.service("kafka");
    let advertised = listeners(kafka, "KAFKA_ADVERTISED_LISTENERS");
    let bound = listeners(kafka, "KAFKA_LISTENERS");
    let published = kafka.published();
    let [port] = &published[..] else { panic!("one port of Kafka is published: {published:?}") };
    let LogConfig::Kafka(ours) = &configs(&compose)["derive"].log else { panic!("on Kafka") };
    assert_eq!(ours.bootstrap, format!("{}:{}", port.address, port.host));
    assert_eq!(advertised["HOST"], ours.bootstrap);
    assert_eq!(bound["HOST"], format!(":{}", port.container));
    let (host, port) = advertised["INTERNAL"].split_once(':').expect("an address has a port");
    assert_eq!(kafka.hostname.as_deref(), Some(host));
    assert_eq!(bound["INTERNAL"], format!(":{port}"));
    let registry = &compose.service("registry").environment;
    assert_eq!(registry["KARAPACE_BOOTSTRAP_URI"], advertised["INTERNAL"]);
    let data = &kafka.environment["KAFKA_LOG_DIRS"];
    assert!(kafka.mounts().iter().any(|mount| mount.target == *data), "{data} is kept");
}

#[test]
fn roles_that_decode_records_use_the_published_registry_address() {
    let compose = Compose::read();
    let published = compose.service("registry").published();
    let [port] = &published[..] else { panic!("one port is published: {published:?}") };
    let url = format!("http://{}:{}", port.address, port.host);
    for (name, config) in configs(&compose) {
        let urls = config.registry.map(|registry| registry.urls);
        let asks = matches!(name, "admit" | "gateway");
        assert_eq!(urls, asks.then(|| vec![url.clone()]), "{name}");
    }
}

/// The addresses of a list of listeners, by name.
fn listeners(kafka: &Service, variable: &str) -> BTreeMap<String, String> {
    let list = kafka.environment[variable].split(',');
    let pairs = list.map(|one| one.split_once("://").expect("NAME://ADDRESS"));
    pairs.map(|(name, address)| (name.to_owned(), address.to_owned())).collect()
}

/// Every listening address on the host, with the service that uses it.
fn addresses(compose: &Compose) -> BTreeMap<SocketAddr, String> {
    let mut all = BTreeMap::new();
    let mut add = |at: SocketAddr, name: &str| {
        let before = all.insert(at, name.to_owned());
        assert_eq!(before, None, "{at} is also {name}'s");
    };
    for (name, service) in &compose.services {
        for port in service.published() {
            let address = port.address.parse().expect("an IP address");
            add(SocketAddr::new(address, port.host), name);
        }
    }
    for (name, service, _) in compose.roles() {
        add(config(name, service).listen, name);
    }
    let flags = compose.service("prometheus").command.iter();
    let mut listen = flags.filter_map(|flag| flag.strip_prefix("--web.listen-address="));
    add(listen.next().expect("given").parse().expect("an address"), "prometheus");
    all
}

#[test]
fn ports_are_loopback_only_and_distinct() {
    let compose = Compose::read();
    let addresses = addresses(&compose);
    let open = addresses.iter().find(|(at, _)| !at.ip().is_loopback());
    assert_eq!(open, None);
    for (name, service) in &compose.services {
        let known = service.network_mode.is_none() || service.is_on_host();
        assert!(known, "{name}: {:?}", service.network_mode);
        // A service on the host's network publishes no ports: it listens there itself.
        if service.is_on_host() {
            assert_eq!(service.ports, [] as [&str; 0], "{name}");
            let listens = addresses.values().any(|whose| whose == name);
            assert!(listens || name == "topics", "{name}: its address is not known");
        }
    }
}

#[test]
fn the_ports_in_the_file_header_are_the_published_ones() {
    let text = compose::text();
    let head = text.lines().take_while(|line| line.starts_with('#'));
    let listed: BTreeMap<SocketAddr, String> = head
        .filter_map(|line| {
            let (at, what) = line.strip_prefix("#   ")?.split_once("  ")?;
            Some((at.parse().ok()?, what.to_lowercase()))
        })
        .collect();
    let addresses = addresses(&Compose::read());
    assert_eq!(listed.keys().collect::<Vec<_>>(), addresses.keys().collect::<Vec<_>>());
    for (at, name) in &addresses {
        assert!(listed[at].contains(name), "{at} is {name}: {}", listed[at]);
    }
}

#[test]
fn mounted_files_exist_and_declared_volumes_are_used() {
    let compose = Compose::read();
    let mut used = BTreeSet::new();
    for (name, service) in &compose.services {
        for mount in service.mounts() {
            match mount.source.strip_prefix("./") {
                Some(path) => {
                    assert!(root().join(path).is_file(), "{name}: there is no {path}");
                    assert!(mount.read_only, "{name}: {path} is mounted from the repository");
                }
                None => {
                    used.insert(mount.source.clone());
                }
            }
        }
    }
    assert_eq!(used, compose.volumes.keys().cloned().collect::<BTreeSet<_>>());
}

#[test]
fn derive_and_gateway_alone_have_state_and_keep_it_in_volumes() {
    let compose = Compose::read();
    for (name, service) in compose.ours() {
        let mounts = service.mounts();
        let data = config(name, service).data.dir;
        let kept = mounts.iter().any(|mount| data.as_os_str() == mount.target.as_str());
        assert_eq!(kept, matches!(name, "derive" | "gateway"), "{name}: {mounts:?}");
        assert!(service.read_only, "{name} must be read-only elsewhere");
        assert_eq!(service.cap_drop, ["ALL"], "{name}");
        assert_eq!(service.security_opt, ["no-new-privileges:true"], "{name}");
    }
}

#[test]
fn services_wait_for_conditions_that_can_be_met() {
    let compose = Compose::read();
    for (name, service) in &compose.services {
        for (other, dependency) in &service.depends_on {
            let awaited = compose.service(other);
            match dependency.condition.as_str() {
                "service_healthy" => assert!(awaited.healthcheck.is_some(), "{name}: {other}"),
                "service_completed_successfully" => {
                    assert_eq!(awaited.restart, "no", "{name}: {other} ends");
                }
                condition => panic!("{name}: {condition} is not enough for {other}"),
            }
        }
    }
    let needs = |name: &str| compose.service(name).depends_on.keys().cloned().collect::<Vec<_>>();
    assert_eq!(needs("kafka"), [] as [&str; 0]);
    assert_eq!(needs("topics"), ["kafka"]);
    for (role, ..) in compose.roles() {
        assert_eq!(needs(role), ["topics"], "{role}");
    }
}

#[test]
fn services_restart_and_have_limits_and_a_stop_grace_period() {
    let compose = Compose::read();
    for (name, service) in &compose.services {
        assert_eq!(service.logging.driver, BOUNDED_LOG, "{name}");
        assert!(service.memory_bytes() >= 64 << 20, "{name}");
        if name != "topics" {
            assert_eq!(service.restart, "unless-stopped", "{name}");
            assert!(service.stop_grace().is_some(), "{name}");
        }
        if let Some(check) = &service.healthcheck {
            let longest = compose::duration(&check.interval);
            assert!(compose::duration(&check.timeout) < longest, "{name}");
            assert!(compose::duration(&check.start_interval) < longest, "{name}");
            assert!(compose::duration(&check.start_period) > longest, "{name}");
            assert!(check.retries > 1, "{name}: needs several retries");
        }
    }
    for (name, service, role) in compose.roles() {
        assert!(service.healthcheck.is_some(), "{name}");
        assert_eq!(service.ulimits.is_some(), role.serves_clients(), "{name}");
        if let Some(limits) = &service.ulimits {
            assert!(limits.nofile.soft == limits.nofile.hard && limits.nofile.soft >= 4_096);
        }
    }
}

#[test]
fn images_are_pinned_and_ours_is_built_once_and_never_pulled() {
    let compose = Compose::read();
    for (name, service) in &compose.services {
        let (_, tag) = service.image.rsplit_once(':').unwrap_or(("", "latest"));
        assert!(tag.contains(|c: char| c.is_ascii_digit()), "{name}: {}", service.image);
    }
    let version = env!("CARGO_PKG_VERSION");
    let mut built = Vec::new();
    for (name, service) in compose.ours() {
        assert_eq!(service.image, format!("tidewire:{version}"), "{name}");
        match &service.build {
            Some(build) => {
                assert_eq!(service.pull_policy.as_deref(), Some("build"), "{name}");
                assert_eq!(build.context, ".", "{name}: the Dockerfile copies from the root");
                assert_eq!(build.dockerfile, dockerfile::PATH, "{name}");
                built.push(name);
            }
            None => assert_eq!(service.pull_policy.as_deref(), Some("never"), "{name}"),
        }
    }
    assert_eq!(built, ["topics"], "built by the service that the others wait for");
    assert_eq!(compose.name, "tidewire");
}

#[test]
fn the_broker_has_the_version_of_the_tests() {
    let pom = compose::file("tests/data/kafka/pom.xml");
    let version = pom.split("<kafka.version>").nth(1).expect("the pom pins it");
    let version = version.split('<').next().expect("split gives a part");
    let compose = Compose::read();
    assert_eq!(compose.service("kafka").image, format!("apache/kafka:{version}"));
}
