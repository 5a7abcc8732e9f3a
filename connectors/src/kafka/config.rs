//! How to reach Kafka, and the settings of each kind of client.
//!
//! The one idea: what the guarantees rest on is set here and can't be overridden; everything else
//! of librdkafka passes through from the operator's properties (TLS, SASL, timeouts, buffers).
//!
//! Numbers are librdkafka's property names with a reason beside each that is not its default.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use tidewire_engine::port::{Isolation, LogError};

/// Milliseconds after which a silent member loses its partitions, and a transaction left open is
/// aborted by the broker.
const SESSION_MS: &str = "10000";

/// Milliseconds after which an idle connection of a transactional producer ends; well below the
/// time a transaction may stay open.
const IDLE_CONNECTION_MS: &str = "4000";

/// Bytes read ahead of the engine by one client, over all its partitions.
const PREFETCH_KIB: u32 = 48 << 10;

/// The least and the most of that for one partition. A response of one partition is 1 MiB, so less
/// would only stall the fetcher.
const PREFETCH_PARTITION_KIB: (u32, u32) = (1 << 10, 16 << 10);

/// Bytes of a record that wraps one of another topic: twice the largest record a
/// broker accepts by default.
pub(super) const WRAPPING_BYTES: u32 = 2 << 20;

/// Properties that the guarantees rest on, with the reason for refusing another value.
const RESERVED: &[(&str, &str)] = &[
    ("bootstrap.servers", "give the brokers in `log = \"kafka://HOST:PORT,…\"`"),
    ("group.id", "groups are named after topics.prefix"),
    ("group.instance.id", "it is made from `instance`"),
    ("group.protocol", "give kafka.group_protocol"),
    ("group.remote.assignor", "only range gives a task the same partition of every lane"),
    ("partition.assignment.strategy", "only range gives a task the same partition of every lane"),
    ("transactional.id", "it is made from `instance`"),
    ("transaction.timeout.ms", "it must not outlive the session of a member"),
    ("enable.idempotence", "without it a retry doubles or reorders"),
    ("acks", "an acknowledged record is on every in-sync replica"),
    ("request.required.acks", "an acknowledged record is on every in-sync replica"),
    ("message.timeout.ms", "a record that waits long enough is not an error but a wait"),
    ("delivery.timeout.ms", "a record that waits long enough is not an error but a wait"),
    ("enable.auto.commit", "offsets are committed when what they stand for is"),
    ("enable.auto.offset.store", "offsets are committed when what they stand for is"),
    ("auto.offset.reset", "a position that is gone is announced, never jumped over"),
    ("isolation.level", "readers choose it"),
    ("enable.partition.eof", "readers need it to pass control records"),
];

/// How members of a group agree on who reads what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupProtocol {
    /// The classic protocol, eager, with static members: a restarted process has its partitions
    /// again at once.
    #[default]
    Classic,
    /// KIP-848, decided by the broker (Kafka 4), with dynamic members.
    Consumer,
}

/// How to reach Kafka. Printed without the properties' values: some are secrets.
#[derive(Clone)]
pub struct Config {
    /// `HOST:PORT`, several separated by commas.
    pub bootstrap: String,
    /// What the brokers' logs and quotas know this process by.
    pub client_id: String,
    /// What the names of our topics begin with; others are not looked at.
    pub prefix: String,
    /// Copies of each partition, for topics we create and check; `None`: the broker's default.
    pub replication: Option<u16>,
    /// Copies that must have a record before it is acknowledged; `None`: the broker's default.
    pub min_insync: Option<u16>,
    /// How groups share out partitions.
    pub protocol: GroupProtocol,
    /// Topics whose records wrap a whole record of another topic, and so may be larger.
    pub wrapping: Vec<String>,
    /// Further properties, by librdkafka's names.
    pub properties: BTreeMap<String, String>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("bootstrap", &self.bootstrap)
            .field("client_id", &self.client_id)
            .field("prefix", &self.prefix)
            .field("properties", &self.properties.keys())
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Plaintext, the broker's defaults.
    pub fn new(bootstrap: &str, prefix: &str) -> Self {
        Self {
            bootstrap: bootstrap.to_owned(),
            client_id: "tidewire".to_owned(),
            prefix: prefix.to_owned(),
            replication: None,
            min_insync: None,
            protocol: GroupProtocol::Classic,
            wrapping: Vec::new(),
            properties: BTreeMap::new(),
        }
    }

    /// What is wrong with the properties, each in a sentence that names the property. Values are
    /// never repeated: some are secrets.
    pub fn problems(&self) -> Vec<String> {
        let refused = |name: &str| RESERVED.iter().find(|(reserved, _)| *reserved == name);
        let mut problems = Vec::new();
        for name in self.properties.keys() {
            if let Some((_, reason)) = refused(name) {
                problems.push(format!("{name} can't be given: {reason}"));
            }
        }
        if problems.is_empty()
            && let Err(error) = self.client(&[], &[]).create_native_config()
        {
            problems.push(property_problem(&error));
        }
        problems
    }

    /// What every client has in common: what can be tuned, the operator's properties over it, and
    /// over those what can't be changed.
    fn client(&self, tuning: &[(&str, &str)], fixed: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set_log_level(match self.properties.contains_key("debug") {
            true => RDKafkaLogLevel::Debug,
            false => RDKafkaLogLevel::Info,
        });
        // A dead broker is tried again soon, but not in a loop.
        config.set("reconnect.backoff.ms", "50").set("reconnect.backoff.max.ms", "1000");
        // Small requests must not wait for each other's acknowledgements.
        config.set("socket.nagle.disable", "true").set("socket.keepalive.enable", "true");
        // A leader that moved unseen is found again soon; the default is five minutes.
        config.set("topic.metadata.refresh.interval.ms", "10000");
        for (name, value) in tuning {
            config.set(*name, *value);
        }
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        for (name, value) in fixed {
            config.set(*name, *value);
        }
        config.set("bootstrap.servers", &self.bootstrap).set("client.id", &self.client_id);
        config
    }

    /// Creates and describes topics.
    pub(super) fn admin(&self) -> ClientConfig {
        self.client(&[], &[])
    }

    /// A producer outside transactions.
    pub(super) fn appender(&self) -> ClientConfig {
        self.producer(&[("enable.idempotence", "true")])
    }

    /// The producer of a transactional id.
    pub(super) fn transactor(&self, id: &str) -> ClientConfig {
        self.producer(&[
            ("transactional.id", id),
            ("transaction.timeout.ms", SESSION_MS),
            // When the broker that coordinates the group dies, librdkafka may wait for ever inside
            // `send_offsets`: it looks for the new coordinator only when a connection changes its
            // state (librdkafka issues 5456 and 5511). Connections that end when they are idle do.
            ("connections.max.idle.ms", IDLE_CONNECTION_MS),
        ])
    }

    fn producer(&self, kind: &[(&str, &str)]) -> ClientConfig {
        let record_bytes = WRAPPING_BYTES.to_string();
        let tuning = [
            // What is ready leaves at once: batches form while requests are in flight.
            ("linger.ms", "0"),
            // Anyone may read the outputs, and not every client can decode every codec (kafkajs
            // has gzip alone).
            ("compression.codec", "none"),
            ("queue.buffering.max.messages", "200000"),
            ("queue.buffering.max.kbytes", "65536"),
            // Room for a dead letter around the largest record a broker takes by default.
            ("message.max.bytes", &record_bytes),
        ];
        let mut fixed = vec![("acks", "all"), ("message.timeout.ms", "0")];
        fixed.extend_from_slice(kind);
        self.client(&tuning, &fixed)
    }

    /// A reader of partitions, in no group, for so many partitions if that is known.
    pub(super) fn reader(&self, isolation: Isolation, partitions: Option<u32>) -> ClientConfig {
        let (least, most) = PREFETCH_PARTITION_KIB;
        let each = (PREFETCH_KIB / partitions.unwrap_or(16).max(1)).clamp(least, most).to_string();
        let tuning = [
            ("queued.max.messages.kbytes", each.as_str()),
            // How long a fetcher rests when its queue is full; the default, a second, is a stall.
            ("fetch.queue.backoff.ms", "5"),
            // A fetch that waits keeps the next one waiting: while the partitions that have records
            // are read ahead, only empty ones are asked for, and the default of 500 ms outlasts
            // what was read ahead.
            ("fetch.wait.max.ms", "100"),
            ("fetch.error.backoff.ms", "100"),
        ];
        let isolation = match isolation {
            Isolation::Committed => "read_committed",
            Isolation::Uncommitted => "read_uncommitted",
        };
        let fixed = [
            ("isolation.level", isolation),
            ("auto.offset.reset", "error"),
            ("enable.partition.eof", "true"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
        ];
        self.client(&tuning, &fixed)
    }

    /// The place of a member in a group; it reads nothing itself.
    pub(super) fn member(&self, group: &str, instance: &str) -> ClientConfig {
        // A classic member learns of a rebalance by its heartbeat.
        let tuning: &[_] = match self.protocol {
            GroupProtocol::Classic => {
                &[("session.timeout.ms", SESSION_MS), ("heartbeat.interval.ms", "500")]
            }
            GroupProtocol::Consumer => &[],
        };
        let mut fixed = vec![
            ("group.id", group),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
        ];
        match self.protocol {
            GroupProtocol::Classic => fixed.extend([
                ("group.instance.id", instance),
                ("partition.assignment.strategy", "range"),
            ]),
            GroupProtocol::Consumer => {
                fixed.extend([("group.protocol", "consumer"), ("group.remote.assignor", "range")]);
            }
        }
        self.client(tuning, &fixed)
    }

    /// Asks for a group's offsets without being a member. Stable ones only.
    pub(super) fn observer(&self, group: &str) -> ClientConfig {
        let fixed = [
            ("group.id", group),
            ("isolation.level", "read_committed"),
            ("enable.auto.commit", "false"),
        ];
        self.client(&[], &fixed)
    }

    /// How many partitions a list names, as a client's budget wants it.
    pub(super) fn total_partitions(topics: usize, partitions: u32) -> u32 {
        u32::try_from(topics).unwrap_or(u32::MAX).saturating_mul(partitions)
    }
}

/// An invalid client configuration as the operator reads it.
pub(super) fn invalid_properties(error: &rdkafka::error::KafkaError) -> LogError {
    LogError::Invalid(format!("kafka.properties: {}", property_problem(error)))
}

/// Names the property and what librdkafka says of it, never the value.
fn property_problem(error: &rdkafka::error::KafkaError) -> String {
    match error {
        rdkafka::error::KafkaError::ClientConfig(_, why, name, value) => {
            let why = if value.is_empty() { why.clone() } else { why.replace(value, "…") };
            format!("{name}: {why}; see librdkafka's CONFIGURATION.md for its properties")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(properties: &[(&str, &str)]) -> Config {
        let mut config = Config::new("127.0.0.1:1", "t.");
        for (name, value) in properties {
            config.properties.insert((*name).to_owned(), (*value).to_owned());
        }
        config
    }

    #[test]
    fn what_the_guarantees_rest_on_is_refused_with_the_reason() {
        let problems = with(&[("acks", "1"), ("enable.idempotence", "false")]).problems();
        assert_eq!(problems.len(), 2);
        assert!(problems[0].starts_with("acks can't be given: "), "{problems:?}");
        assert_eq!(with(&[("socket.timeout.ms", "5000")]).problems(), [""; 0]);
    }

    #[test]
    fn an_unknown_property_is_named_and_no_value_is_repeated() {
        let problems = with(&[("no.such.property", "hush-hush")]).problems();
        assert!(problems[0].starts_with("no.such.property: "), "{problems:?}");
        let wrong = with(&[("security.protocol", "hush-hush")]).problems();
        assert!(wrong[0].starts_with("security.protocol: "), "{wrong:?}");
        assert!(!wrong[0].contains("hush-hush"), "{wrong:?}");
    }
}
