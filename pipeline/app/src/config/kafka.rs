//! Kafka in the configuration: where it is, what the topics' copies must be, and what passes
//! through to librdkafka.
//!
//! Values of properties are secrets until the contrary is known: nothing here prints one, in an
//! error, a log line or a debug text.

use std::collections::BTreeMap;
use std::fmt;

use tidewire_connectors::kafka::{self, GroupProtocol};

use super::{Config, values};
use crate::config::settings::Settings;

/// More copies than this no cluster we know keeps.
const COPIES_MAX: u64 = 100;
/// Where a broker listens is one of so many ports, and 0 is none.
const PORT_MAX: u64 = 65_535;
/// What an operator may set for all clients, though it is no property that passes as it is.
const CLIENT_ID: &str = "client.id";

/// How to reach Kafka, and what our topics must be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaConfig {
    /// `HOST:PORT`, several separated by commas.
    pub bootstrap: String,
    /// Copies of each partition; `None`: the broker's default.
    pub replication: Option<u16>,
    /// Copies that must have a record before it is acknowledged; `None`: the broker's default.
    pub min_insync: Option<u16>,
    /// How processes share out partitions.
    pub protocol: GroupProtocol,
    /// What passes through to librdkafka.
    pub properties: Properties,
}

/// Properties by librdkafka's names. Values are never printed.
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
    /// The same as the connector wants it.
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

    /// Notes what is wrong with values that are right each by itself, and what librdkafka has
    /// against the properties.
    pub(super) fn check(&self, config: &Config, settings: &mut Settings) {
        if let (Some(insync), Some(copies)) = (self.min_insync, self.replication)
            && insync > copies
        {
            let given = settings.value("kafka.min_insync").clone();
            settings.add_problem(format!(
                "{given}: {insync} of {copies} copies (kafka.replication) can't be in sync; give \
                 {} or less",
                copies
            ));
        }
        for problem in self.connector(config).problems() {
            // A sentence of the connector begins with the property it is about.
            let named = |name: &&String| problem.starts_with(name.as_str());
            let longest = self.properties.0.keys().filter(named).max_by_key(|name| name.len());
            let given = longest.and_then(|name| settings.properties().get(name));
            let place = given.map_or("kafka.properties".to_owned(), ToString::to_string);
            settings.add_problem(format!("{place}: {problem}"));
        }
    }
}

/// Which log a text means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LogChoice {
    Embedded,
    /// The brokers, as librdkafka wants them.
    Kafka(String),
}

pub(super) fn log_choice(text: &str) -> Result<LogChoice, String> {
    const RIGHT: &str = "give embedded, or kafka://HOST:PORT (several brokers: \
                         kafka://HOST:PORT,HOST:PORT)";
    if text == "embedded" {
        return Ok(LogChoice::Embedded);
    }
    let brokers = text.strip_prefix("kafka://").ok_or(RIGHT)?;
    if brokers.contains('@') {
        return Err(
            "credentials don't stand in the address; give sasl.username and sasl.password \
                    in [kafka.properties], or TIDEWIRE_KAFKA_PROPERTIES_SASL_PASSWORD"
                .into(),
        );
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

/// A text without what could be a password in an address.
pub(super) fn redacted(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        (None, Some((_, host))) => format!("…@{host}"),
        _ => text.to_owned(),
    }
}

/// A number of copies, if one is given.
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
    use crate::config::LogConfig;

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
        Config::parse(settings, None).map_err(|error| error.to_string())
    }

    const PASSWORD: (&str, &str) = ("TIDEWIRE_KAFKA_PROPERTIES_SASL_PASSWORD", "s3cret");

    #[test]
    fn what_is_given_reaches_the_connector() {
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
    fn a_name_for_the_brokers_logs_may_be_given_like_any_property() {
        let config = parse("log = 'kafka://a:1'\nkafka.properties.client.id = 'x'", &[]);
        let config = config.expect("right");
        let LogConfig::Kafka(kafka) = &config.log else { panic!("{config:?}") };
        assert_eq!(kafka.connector(&config).client_id, "x");
    }

    #[test]
    fn all_that_is_wrong_with_kafka_is_said_at_once_and_no_secret_is() {
        let file = "log = 'kafka://a:1'\nlistn = 1\n[kafka]\nreplication = 2\nmin_insync = 3\n\
                    group_protocol = 'wild'\nproperties.acks = 's3cret'";
        let error = parse(file, &[PASSWORD]).expect_err("four things are wrong");
        for part in [
            "4 settings are wrong",
            "t.toml: kafka.min_insync: 3 of 2 copies",
            "t.toml: kafka.group_protocol: \"wild\": give classic, or consumer",
            "t.toml: kafka.properties.acks: acks can't be set: ",
            "t.toml: listn: there is no such setting",
        ] {
            assert!(error.contains(part), "{part:?} is said: {error}");
        }
        assert!(!error.contains("s3cret"), "{error}");
    }

    #[test]
    fn a_password_never_shows_whatever_is_wrong_with_it_or_beside_it() {
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
