//! Parses the settings of Kafka: brokers, replicas, group protocol and librdkafka's properties.
//!
//! Any property may be a secret, so no value of one is ever printed: not in an error, a log line
//! or a `Debug` text.

use std::collections::BTreeMap;
use std::fmt;

use tidewire_connectors::kafka::{self, GroupProtocol};

use super::Config;
use super::values::{self, Placeholder};
use crate::config::settings::Settings;

/// More replicas than a cluster keeps of a partition.
const COPIES_MAX: u64 = 100;
/// The highest port; 0 is no port to connect to.
const PORT_MAX: u64 = 65_535;
/// The property that becomes the client id of the connector instead of passing through.
const CLIENT_ID: &str = "client.id";

/// How to reach Kafka, and how its topics must be configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaConfig {
    /// `HOST:PORT`, several separated by commas.
    pub bootstrap: String,
    /// Replicas of each partition; `None`: the broker's default.
    pub replication: Option<u16>,
    /// Replicas that must have a record before it is acknowledged; `None`: the broker's default.
    pub min_insync: Option<u16>,
    /// The protocol of the consumer groups.
    pub protocol: GroupProtocol,
    /// The properties passed to librdkafka.
    pub properties: Properties,
}

/// Properties of librdkafka, by name. Values are never printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    pub(super) fn of(settings: &Settings) -> Self {
        let all = settings.properties().iter();
        Self(all.map(|(name, given)| (name.clone(), given.text.clone())).collect())
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl KafkaConfig {
    /// The configuration of the connector.
    pub fn connector(&self, config: &Config) -> kafka::Config {
        let mut properties = self.properties.0.clone();
        let client_id = properties.remove(CLIENT_ID);
        kafka::Config {
            client_id: client_id.unwrap_or_else(|| format!("tidewire-{}", config.instance)),
            replication: self.replication,
            min_insync: self.min_insync,
            protocol: self.protocol,
            wrapping: vec![config.topology().dead_letters().to_string()],
            properties,
            ..kafka::Config::new(&self.bootstrap, &config.topics.prefix)
        }
    }

    /// Adds the problems of values that are valid one by one, and librdkafka's objections to
    /// properties.
    pub(super) fn check(&self, config: &Config, settings: &mut Settings) {
        if let (Some(insync), Some(copies)) = (self.min_insync, self.replication)
            && insync > copies
        {
            let given = settings.value("kafka.min_insync").clone();
            settings.add_problem(format!(
                "{given}: {insync} replicas cannot be in sync with kafka.replication = {copies}; \
                 give {copies} or less"
            ));
        }
        for problem in self.connector(config).problems() {
            // The connector's sentences begin with the name of the property.
            let named = |name: &&String| problem.starts_with(name.as_str());
            let longest = self.properties.0.keys().filter(named).max_by_key(|name| name.len());
            let given = longest.and_then(|name| settings.properties().get(name));
            let place = given.map_or("kafka.properties".to_owned(), ToString::to_string);
            settings.add_problem(format!("{place}: {problem}"));
        }
    }
}

/// The parsed value of `log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LogChoice {
    Embedded,
    /// The brokers, as librdkafka expects them.
    Kafka(String),
}

impl Placeholder for LogChoice {
    fn placeholder() -> Self {
        Self::Embedded
    }
}

impl Placeholder for GroupProtocol {
    fn placeholder() -> Self {
        Self::Classic
    }
}

pub(super) fn log_choice(text: &str) -> Result<LogChoice, String> {
    const RIGHT: &str = "give embedded, or kafka://HOST:PORT (several brokers: \
                         kafka://HOST:PORT,HOST:PORT)";
    if text == "embedded" {
        return Ok(LogChoice::Embedded);
    }
    let brokers = text.strip_prefix("kafka://").ok_or(RIGHT)?;
    if brokers.contains('@') {
        return Err("credentials are not accepted in `log`; give sasl.username and sasl.password \
                    in [kafka.properties], or TIDEWIRE_KAFKA_PROPERTIES_SASL_PASSWORD"
            .into());
    }
    let brokers: Vec<&str> = brokers.trim_end_matches('/').split(',').map(str::trim).collect();
    if brokers.iter().all(|broker| is_host_and_port(broker)) {
        Ok(LogChoice::Kafka(brokers.join(",")))
    } else {
        Err(RIGHT.into())
    }
}

fn is_host_and_port(broker: &str) -> bool {
    let Some((host, port)) = broker.rsplit_once(':') else { return false };
    let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host_is_one = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(name),
    };
    host_is_one && values::whole_number::<u32>(port, 1, PORT_MAX).is_ok()
}

/// A number of replicas, if one is given.
pub(super) fn replica_count(text: &str) -> Result<Option<u16>, String> {
    if text.is_empty() { Ok(None) } else { values::whole_number(text, 1, COPIES_MAX).map(Some) }
}

pub(super) fn protocol(text: &str) -> Result<GroupProtocol, String> {
    match text {
        "classic" => Ok(GroupProtocol::Classic),
        "consumer" => Ok(GroupProtocol::Consumer),
        _ => Err("give classic, or consumer (KIP-848, Kafka 4)".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{ConfigUsage, LogConfig};

    fn check_brokers(text: &str, expected: Option<&str>) {
        let expected = expected.map(|brokers| LogChoice::Kafka(brokers.into()));
        assert_eq!(log_choice(text).ok(), expected, "{text}");
    }

    #[test]
    fn brokers_are_hosts_with_ports() {
        check_brokers("kafka://127.0.0.1:9092", Some("127.0.0.1:9092"));
        check_brokers("kafka://a.example:1, b_2:65535/", Some("a.example:1,b_2:65535"));
        check_brokers("kafka://[::1]:9092", Some("[::1]:9092"));
        for wrong in ["kafka://", "kafka://a", "kafka://a:0", "kafka://a:70000", "kafka://a:1,"] {
            check_brokers(wrong, None);
        }
        for wrong in ["kafka://[a]:1", "kafka://a:1/b", "kafka:a:1", "a:9092", "Embedded"] {
            check_brokers(wrong, None);
        }
    }

    fn parse(file: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let mut settings = Settings::defaults();
        settings.add_file(Path::new("t.toml"), file);
        settings.add_variables(variables.iter().map(|(n, v)| ((*n).into(), (*v).into())));
        Config::parse(settings, ConfigUsage::Command).map_err(|error| error.to_string())
    }

    const PASSWORD: (&str, &str) = ("TIDEWIRE_KAFKA_PROPERTIES_SASL_PASSWORD", "s3cret");

    #[test]
    fn the_settings_reach_the_connector() {
        let file = "log = 'kafka://a:1,b:2'\ninstance = 'derive-0'\ntopics.prefix = 't.'\n\
                    [kafka]\nreplication = 3\nmin_insync = 2\ngroup_protocol = 'consumer'\n\
                    properties.security.protocol = 'SASL_PLAINTEXT'";
        let config = parse(file, &[PASSWORD]).expect("all of it is right");
        let LogConfig::Kafka(kafka) = &config.log else { panic!("{config:?}") };
        let connector = kafka.connector(&config);
        assert_eq!(connector.bootstrap, "a:1,b:2");
        assert_eq!(connector.prefix, "t.");
        assert_eq!(connector.client_id, "tidewire-derive-0");
        assert_eq!((connector.replication, connector.min_insync), (Some(3), Some(2)));
        assert_eq!(connector.protocol, GroupProtocol::Consumer);
        assert_eq!(connector.wrapping, ["t.dead-letters"]);
        assert_eq!(connector.properties["sasl.password"], "s3cret");
        assert_eq!(connector.properties["security.protocol"], "SASL_PLAINTEXT");
        assert!(!format!("{config:?}").contains("s3cret"), "{config:?}");
    }

    #[test]
    fn the_client_id_may_be_given_like_any_property() {
        let config = parse("log = 'kafka://a:1'\nkafka.properties.client.id = 'x'", &[]);
        let config = config.expect("right");
        let LogConfig::Kafka(kafka) = &config.log else { panic!("{config:?}") };
        assert_eq!(kafka.connector(&config).client_id, "x");
    }

    #[test]
    fn all_problems_are_reported_at_once_and_contain_no_secret() {
        let file = "log = 'kafka://a:1'\nlistn = 1\n[kafka]\nreplication = 2\nmin_insync = 3\n\
                    group_protocol = 'wild'\nproperties.acks = 's3cret'";
        let error = parse(file, &[PASSWORD]).expect_err("four things are wrong");
        for part in [
            "4 settings are wrong",
            "t.toml: kafka.min_insync: 3 replicas cannot be in sync with kafka.replication = 2",
            "t.toml: kafka.group_protocol: \"wild\": give classic, or consumer",
            "t.toml: kafka.properties.acks: acks can't be set: ",
            "t.toml: listn: there is no such setting",
        ] {
            assert!(error.contains(part), "{part:?}: {error}");
        }
        assert!(!error.contains("s3cret"), "{error}");
    }

    #[test]
    fn no_problem_contains_a_password() {
        for (file, variables) in [
            ("log = 'kafka://a:1'\nkafka.properties.no.such = 's3cret'", vec![]),
            ("log = 'kafka://a:1'\nkafka.properties.security.protocol = 's3cret'", vec![PASSWORD]),
            ("log = 'kafka://ann:s3cret@a:1'", vec![]),
            ("log = 'ann:s3cret@a:1'", vec![]),
            ("kafka.properties.sasl.password = 's3cret'", vec![]),
            ("", vec![PASSWORD]),
            ("log = 'kafka://a:1'", vec![PASSWORD, ("TIDEWIRE_KAFKA_PROPERTIES_X", "s3cret")]),
            ("log = 'kafka://a:1'\nkafka.properties.'sasl.password' = ['s3cret']", vec![]),
        ] {
            let error = parse(file, &variables).expect_err(file);
            assert!(!error.contains("s3cret"), "{file}: {error}");
        }
    }
}
