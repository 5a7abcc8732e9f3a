//! The table of all settings: key, flag, default, valid values, roles and meaning.
//!
//! Everything that lists settings reads it: the check of names, `tidewire settings`, and the page
//! `docs/settings.md`, which is generated from it. Parsing is in [`crate::config`]; a test holds
//! the ranges here to those that are checked there.

use crate::role::Role;

/// A setting: its key in the file, its default, and what it is for.
#[derive(Debug)]
pub struct Setting {
    /// Dotted key, as in the file.
    pub key: &'static str,
    /// The flag that sets it, if there is one.
    pub flag: Option<&'static str>,
    /// The value when none is given; empty: the meaning says what applies.
    pub default: &'static str,
    /// The valid values; empty: the meaning says so.
    pub accepts: &'static str,
    /// The roles that use it.
    pub roles: &'static [Role],
    /// One clause.
    pub meaning: &'static str,
}

const EVERY_ROLE: &[Role] = &[Role::All, Role::Admit, Role::Derive, Role::Gateway];
const DEV: &[Role] = &[Role::All];
const ADMIT: &[Role] = &[Role::All, Role::Admit];
const DERIVE: &[Role] = &[Role::All, Role::Derive];
/// The roles with local state.
const WITH_STATE: &[Role] = &[Role::All, Role::Derive, Role::Gateway];
const GATEWAY: &[Role] = &[Role::All, Role::Gateway];
/// The roles that decode events.
const DECODERS: &[Role] = &[Role::All, Role::Admit, Role::Gateway];

/// A setting with the values that most have; each entry of the table says what differs.
const BASE: Setting =
    Setting { key: "", flag: None, default: "", accepts: "", roles: EVERY_ROLE, meaning: "" };

/// Every setting, in the order in which a reader needs them.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "listen",
        flag: Some("--listen"),
        default: "127.0.0.1:8080",
        accepts: "IP:PORT",
        meaning: "address and port of HTTP, WebSocket and SSE; port 0: any free one",
        ..BASE
    },
    Setting {
        key: "data_dir",
        flag: Some("--data-dir"),
        default: ".tidewire",
        accepts: "a folder",
        roles: WITH_STATE,
        meaning: "folder of the local state and of the embedded log; created if it is missing",
    },
    Setting {
        key: "log",
        flag: Some("--log"),
        default: "embedded",
        accepts: "embedded, kafka://HOST:PORT,HOST:PORT",
        meaning: "the log: embedded in this process, or Apache Kafka by one or more of its brokers",
        ..BASE
    },
    Setting {
        key: "instance",
        flag: Some("--instance"),
        accepts: "at most 100 of a-z A-Z 0-9 . _ -",
        meaning: "unique name of this process, the same after a restart; unset: dev on the \
                  embedded log, the host's name on Kafka",
        ..BASE
    },
    Setting {
        key: "catalogue.dir",
        flag: Some("--catalogue-dir"),
        accepts: "a folder",
        meaning: "folder of TOML files that add event types and channel kinds to the built-in \
                  ones, the same for all roles; unset: none",
        ..BASE
    },
    Setting {
        key: "durability",
        default: "process",
        accepts: "process, host",
        roles: DEV,
        meaning: "what an acknowledged record survives on the embedded log: process (kill -9) or \
                  host (power loss)",
        ..BASE
    },
    Setting {
        key: "insecure_dev",
        flag: Some("--insecure-dev"),
        accepts: "true, false",
        roles: GATEWAY,
        meaning: "accept ?user= without a token, on loopback only; unset: true for `dev`, false \
                  for the others",
        ..BASE
    },
    Setting {
        key: "allowed_hosts",
        accepts: "names separated by commas",
        meaning: "values of the header Host to accept besides loopback names; .example.org is \
                  every name that ends with it",
        ..BASE
    },
    Setting {
        key: "allowed_origins",
        accepts: "origins separated by commas",
        meaning: "values of the header Origin to accept besides the server's own, such as \
                  http://localhost:3000",
        ..BASE
    },
    Setting {
        key: "log_filter",
        flag: Some("--log-filter"),
        default: "info",
        accepts: "error, warn, info, debug, trace, module=level",
        meaning: "what is logged: a level, or several module=level separated by commas; RUST_LOG \
                  sets it too",
        ..BASE
    },
    Setting {
        key: "topics.prefix",
        default: "tw.",
        accepts: "at most 100 of a-z A-Z 0-9 . _ -",
        meaning: "first characters of the name of every topic, group and transactional id",
        ..BASE
    },
    Setting {
        key: "topics.partitions",
        default: "8",
        accepts: "1 to 64",
        meaning: "partitions of each topic; cannot be changed once the topics exist",
        ..BASE
    },
    Setting {
        key: "kafka.replication",
        accepts: "1 to 100",
        meaning: "replicas of each partition; unset: the broker's default",
        ..BASE
    },
    Setting {
        key: "kafka.min_insync",
        accepts: "1 to 100",
        meaning: "replicas that must have a record before it is acknowledged \
                  (min.insync.replicas); unset: the broker's default",
        ..BASE
    },
    Setting {
        key: "kafka.group_protocol",
        default: "classic",
        accepts: "classic, consumer",
        meaning: "protocol of the consumer groups: classic, or consumer (KIP-848, Kafka 4)",
        ..BASE
    },
    Setting {
        key: "registry.url",
        flag: Some("--registry"),
        accepts: "URLs separated by commas",
        roles: DECODERS,
        meaning: "schema registry with Confluent's API, such as http://127.0.0.1:8081; several \
                  addresses of one registry as a list or separated by commas; unset: none; the \
                  flag is one of `tidewire schemas`",
        ..BASE
    },
    Setting {
        key: "registry.username",
        roles: DECODERS,
        meaning: "user name, or API key, for the registry",
        ..BASE
    },
    Setting {
        key: "registry.password",
        roles: DECODERS,
        meaning: "password, or API secret, of that user; never printed",
        ..BASE
    },
    Setting {
        key: "registry.token",
        roles: DECODERS,
        meaning: "bearer token for the registry, instead of a user; never printed",
        ..BASE
    },
    Setting {
        key: "registry.ca",
        accepts: "a PEM file",
        roles: DECODERS,
        meaning: "certificates of the authorities that an https registry is verified with; unset: \
                  the public ones",
        ..BASE
    },
    Setting {
        key: "admit.poison_share",
        default: "0.5",
        accepts: "0 to 1",
        roles: ADMIT,
        meaning: "share of invalid records within a minute above which ADMIT stops; 1: never",
        ..BASE
    },
    Setting {
        key: "admit.poison_min_records",
        default: "100",
        accepts: "1 to 1000000",
        roles: ADMIT,
        meaning: "records within the minute below which ADMIT does not stop",
        ..BASE
    },
    Setting {
        key: "derive.threads",
        default: "1",
        accepts: "1 to 64",
        roles: DERIVE,
        meaning: "threads of DERIVE; each owns a share of the partitions",
        ..BASE
    },
    Setting {
        key: "derive.standby",
        default: "false",
        accepts: "true, false",
        roles: DERIVE,
        meaning: "follow the state of partitions that other processes own, for a faster takeover; \
                  needs derive.threads = 1",
        ..BASE
    },
    Setting {
        key: "derive.dedup_filter_bytes",
        default: "128 MiB",
        accepts: "16 MiB to 64 GiB",
        roles: DERIVE,
        meaning: "memory for the ids of the last 24 hours, divided among all partitions; 2 bytes \
                  per id are enough, and with less DERIVE reads its state for more new ids",
        ..BASE
    },
    Setting {
        key: "derive.audit",
        default: "on",
        accepts: "on, off",
        roles: DERIVE,
        meaning: "write what each event has caused to out.audit, which `tidewire explain` reads",
        ..BASE
    },
    Setting {
        key: "gateway.ring_bytes",
        default: "64 MiB",
        accepts: "1 MiB to 64 GiB",
        roles: GATEWAY,
        meaning: "memory for the newest outputs, from which connections resume without reading \
                  the log",
        ..BASE
    },
    Setting {
        key: "memory.connections_bytes",
        default: "256 MiB",
        accepts: "1 MiB to 64 GiB",
        roles: GATEWAY,
        meaning: "memory for what clients have not read yet, all connections together; when it is \
                  full, a connection is given one event at a time and slow ones are closed after \
                  5 s instead of 30 s",
        ..BASE
    },
    Setting {
        key: "gateway.shards",
        default: "0",
        accepts: "0 to 64",
        roles: GATEWAY,
        meaning: "worker threads that serve connections; 0: one per processor",
        ..BASE
    },
    Setting {
        key: "demo.enabled",
        flag: Some("--demo"),
        default: "false",
        accepts: "true, false",
        roles: GATEWAY,
        meaning: "send synthetic events to this process",
    },
    Setting {
        key: "demo.rate",
        default: "25",
        accepts: "1 to 10000",
        roles: GATEWAY,
        meaning: "synthetic events per second",
        ..BASE
    },
];

/// The properties of librdkafka, which no table lists. Their values are never printed.
pub const PROPERTIES: Setting = Setting {
    key: "kafka.properties",
    accepts: "a table",
    meaning: "properties of librdkafka for TLS, SASL and more, such as \"sasl.username\"; in a \
              variable _ means a dot: TIDEWIRE_KAFKA_PROPERTIES_SASL_USERNAME; never printed",
    ..BASE
};
