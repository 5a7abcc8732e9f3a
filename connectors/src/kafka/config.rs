//! Settings of the Kafka adapter, and the librdkafka properties of each kind of client.
//!
//! Properties that the guarantees depend on are set here and can't be overridden. All other
//! properties of librdkafka pass through from the settings (TLS, SASL, timeouts, buffers). A
//! property that differs from its default has a comment with the reason.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use tidewire_engine::port::{Isolation, LogError};

/// Milliseconds after which a member that sends no heartbeat loses its partitions, and after which
/// the broker aborts an open transaction.
const SESSION_MS: &str = "10000";

/// Milliseconds after which an idle connection of a transactional producer is closed; well below
/// the time a transaction may stay open.
const IDLE_CONNECTION_MS: &str = "4000";

/// KiB one client reads ahead of the engine, over all its partitions.
const PREFETCH_KIB: u32 = 48 << 10;

/// The least and the most of that per partition. A response for one partition is 1 MiB, so less
/// would only stall the fetcher.
const PREFETCH_PARTITION_KIB: (u32, u32) = (1 << 10, 16 << 10);

/// Bytes of a dead letter, which wraps a record of another topic: twice the largest record a
/// broker accepts by default.
pub(super) const WRAPPING_BYTES: u32 = 2 << 20;

/// The most bytes of one batch after decompression with zstd, which librdkafka limits by
/// `receive.message.max.bytes`. A broker limits the compressed bytes. Without the unpacked size
/// in the batch, librdkafka triples its buffer until the batch fits: a third of this always does.
const UNPACKED_BYTES: &str = "1073741824";

/// Properties that the guarantees depend on, with the reason for refusing another value.
const RESERVED: &[(&str, &str)] = &[
    ("bootstrap.servers", "set the brokers in `log = \"kafka://HOST:PORT,…\"`"),
    ("group.id", "it is made from topics.prefix"),
    ("group.instance.id", "it is made from `instance`"),
    ("group.protocol", "set kafka.group_protocol instead"),
    ("group.remote.assignor", "only range assigns the same partition of every lane to a task"),
    (
        "partition.assignment.strategy",
        "only range assigns the same partition of every lane to a task",
    ),
    ("transactional.id", "it is made from `instance`"),
    ("transaction.timeout.ms", "it must not be longer than the session of a member"),
    ("enable.idempotence", "without it a retry duplicates or reorders records"),
    ("acks", "an acknowledged record must be on every in-sync replica"),
    ("request.required.acks", "an acknowledged record must be on every in-sync replica"),
    ("message.timeout.ms", "a slow broker has to be a wait, not an error"),
    ("delivery.timeout.ms", "a slow broker has to be a wait, not an error"),
    ("enable.auto.commit", "offsets are committed together with what they cover"),
    ("enable.auto.offset.store", "offsets are committed together with what they cover"),
    ("auto.offset.reset", "a lost position has to be reported, never skipped"),
    ("isolation.level", "each reader needs its own"),
    ("enable.partition.eof", "readers need it to pass control records"),
];

/// How the members of a group are assigned partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupProtocol {
    /// The classic protocol, eager, with static members: a restarted process gets its partitions
    /// back at once.
    #[default]
    Classic,
    /// KIP-848: the broker assigns (Kafka 4), members are dynamic.
    Consumer,
}

/// Settings of the Kafka adapter. `Debug` omits the values of properties: some are secrets.
#[derive(Clone)]
pub struct Config {
    /// `HOST:PORT`, several separated by commas.
    pub bootstrap: String,
    /// The name of this process in the brokers' logs and quotas.
    pub client_id: String,
    /// The prefix of our topics. Other topics are ignored.
    pub prefix: String,
    /// Replicas of each partition, for topics we create and check; `None`: the broker's default.
    pub replication: Option<u16>,
    /// `min.insync.replicas` of each topic; `None`: the broker's default.
    pub min_insync: Option<u16>,
    /// How groups assign partitions.
    pub protocol: GroupProtocol,
    /// Topics whose records wrap a whole record of another topic and so may be larger.
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
    /// Settings without TLS and login, with the broker's defaults.
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

    /// One sentence per invalid property, which names the property. Values are never repeated: some
    /// are secrets.
    pub fn problems(&self) -> Vec<String> {
        let refused = |name: &str| RESERVED.iter().find(|(reserved, _)| *reserved == name);
        let mut problems = Vec::new();
        for name in self.properties.keys() {
            if let Some((_, reason)) = refused(name) {
                problems.push(format!("{name} can't be set: {reason}"));
            }
        }
        if problems.is_empty()
            && let Err(error) = self.client(&[], &[]).create_native_config()
        {
            problems.push(property_problem(&error));
        }
        problems
    }

    /// What every client has in common: defaults, overridden by the properties of the settings,
    /// overridden by what can't be changed.
    fn client(&self, tuning: &[(&str, &str)], fixed: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set_log_level(match self.properties.contains_key("debug") {
            true => RDKafkaLogLevel::Debug,
            false => RDKafkaLogLevel::Info,
        });
        // Reconnect soon to a broker that is away, but not in a tight loop.
        config.set("reconnect.backoff.ms", "50").set("reconnect.backoff.max.ms", "1000");
        // Nagle's algorithm delays small requests until earlier ones are acknowledged.
        config.set("socket.nagle.disable", "true").set("socket.keepalive.enable", "true");
        // Finds a leader that moved unnoticed. The default is five minutes.
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

    /// The client that creates and describes topics.
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
            // When the coordinator of the group dies, librdkafka may wait for ever inside
            // `send_offsets`: it looks for the new coordinator only when the state of a connection
            // changes (librdkafka issues 5456 and 5511). Closing idle connections changes it.
            ("connections.max.idle.ms", IDLE_CONNECTION_MS),
        ])
    }

    fn producer(&self, kind: &[(&str, &str)]) -> ClientConfig {
        let record_bytes = WRAPPING_BYTES.to_string();
        let tuning = [
            // Send at once: batches form while requests are in flight.
            ("linger.ms", "0"),
            // Other clients read the outputs, and not every client decodes every codec (kafkajs
            // only gzip).
            ("compression.codec", "none"),
            ("queue.buffering.max.messages", "200000"),
            ("queue.buffering.max.kbytes", "65536"),
            // A dead letter wraps a record of the broker's default maximum size.
            ("message.max.bytes", &record_bytes),
        ];
        let mut fixed = vec![("acks", "all"), ("message.timeout.ms", "0")];
        fixed.extend_from_slice(kind);
        self.client(&tuning, &fixed)
    }

    /// A reader of partitions without a group, for this many partitions if that is known.
    pub(super) fn reader(&self, isolation: Isolation, partitions: Option<u32>) -> ClientConfig {
        let (least, most) = PREFETCH_PARTITION_KIB;
        let each = (PREFETCH_KIB / partitions.unwrap_or(16).max(1)).clamp(least, most).to_string();
        let tuning = [
            ("queued.max.messages.kbytes", each.as_str()),
            // How long a fetcher pauses when its queue is full. The default of 1 s is a stall.
            ("fetch.queue.backoff.ms", "5"),
            // One fetch is in flight per broker. While the partitions with records are read ahead,
            // only empty ones are fetched, and the default wait of 500 ms is longer than what was
            // read ahead lasts.
            ("fetch.wait.max.ms", "100"),
            ("fetch.error.backoff.ms", "100"),
            ("receive.message.max.bytes", UNPACKED_BYTES),
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

    /// The membership in a group. This client reads nothing.
    pub(super) fn member(&self, group: &str, instance: &str) -> ClientConfig {
        // A classic member is informed of a rebalance by the answer to its heartbeat.
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

    /// Asks for the offsets of a group without being a member; only for stable ones.
    pub(super) fn observer(&self, group: &str) -> ClientConfig {
        let fixed = [
            ("group.id", group),
            ("isolation.level", "read_committed"),
            ("enable.auto.commit", "false"),
        ];
        self.client(&[], &fixed)
    }

    /// How many partitions a member reads at most, which divides the client's prefetch.
    pub(super) fn total_partitions(topics: usize, partitions: u32) -> u32 {
        u32::try_from(topics).unwrap_or(u32::MAX).saturating_mul(partitions)
    }
}

/// The error for an invalid client configuration.
pub(super) fn invalid_properties(error: &rdkafka::error::KafkaError) -> LogError {
    LogError::Invalid(format!("kafka.properties: {}", property_problem(error)))
}

/// The property and librdkafka's reason, never the value.
fn property_problem(error: &rdkafka::error::KafkaError) -> String {
    match error {
        rdkafka::error::KafkaError::ClientConfig(_, why, name, value) => {
            let why = if value.is_empty() { why.clone() } else { why.replace(value, "…") };
            format!("{name}: {why}; see CONFIGURATION.md of librdkafka for its properties")
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
    fn properties_the_guarantees_depend_on_are_refused_with_the_reason() {
        let problems = with(&[("acks", "1"), ("enable.idempotence", "false")]).problems();
        assert_eq!(problems.len(), 2);
        assert!(problems[0].starts_with("acks can't be set: "), "{problems:?}");
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
