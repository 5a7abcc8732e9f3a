//! Creates topics with the settings the design depends on, and refuses topics with other settings.
//!
//! Every setting a topic must have is known here. A topic that somebody created with other settings
//! is reported with the command that corrects it before anything depends on it. Append time is one
//! of these settings: with the times of producers, retention would delete an old event at once.

use std::time::Duration;

use futures_executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigEntry, NewTopic, ResourceSpecifier};
use rdkafka::admin::{ConfigResource, TopicReplication};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;
use tidewire_engine::port::{Cleanup, LogError, TopicSpec};

use super::config::{Config, WRAPPING_BYTES};
use super::context::KafkaContext;
use super::log_error;

/// How long an operation on topics may take. Creating a topic takes the longest.
const ADMIN_LIMIT: Duration = Duration::from_secs(30);

const CLEANUP: &str = "cleanup.policy";
const RETENTION_MS: &str = "retention.ms";
const RETENTION_BYTES: &str = "retention.bytes";
const DELETE_RETENTION_MS: &str = "delete.retention.ms";
const TIMESTAMP_TYPE: &str = "message.timestamp.type";
const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
const MIN_INSYNC: &str = "min.insync.replicas";

/// Creates and describes topics.
pub(super) struct Admin {
    client: AdminClient<KafkaContext>,
    config: Config,
    /// How long an operation may take.
    limit: Duration,
}

/// The settings of a topic on the broker.
pub(super) struct TopicConfig {
    pub(super) cleanup: Cleanup,
    settings: Vec<(String, String)>,
}

impl Admin {
    pub(super) fn new(client: AdminClient<KafkaContext>, config: Config) -> Self {
        Self { client, config, limit: ADMIN_LIMIT }
    }

    /// The same with another time limit.
    pub(super) fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    fn context(&self) -> &KafkaContext {
        self.client.inner().context()
    }

    fn options(&self) -> AdminOptions {
        AdminOptions::new().request_timeout(Some(self.limit)).operation_timeout(Some(self.limit))
    }

    /// Creates a topic; `false` if it exists already.
    pub(super) fn create(&self, spec: &TopicSpec) -> Result<bool, LogError> {
        match self.send_create(spec, &self.options()) {
            Ok(()) => Ok(true),
            Err(Code::TopicAlreadyExists) => Ok(false),
            Err(code) => {
                let doing = format!("creating the topic {}", spec.topic);
                Err(log_error::from_code(doing, code, self.context()))
            }
        }
    }

    /// Whether the topic could be created; creates nothing.
    pub(super) fn validate_create(&self, spec: &TopicSpec) -> Result<(), Code> {
        self.send_create(spec, &self.options().validate_only(true))
    }

    fn send_create(&self, spec: &TopicSpec, options: &AdminOptions) -> Result<(), Code> {
        let settings = self.settings(spec);
        let partitions = i32::try_from(spec.partitions).unwrap_or(i32::MAX);
        let copies = self.config.replication.map_or(-1, i32::from);
        let mut topic =
            NewTopic::new(spec.topic.as_str(), partitions, TopicReplication::Fixed(copies));
        for (name, value) in &settings {
            topic = topic.set(name, value);
        }
        let answers = block_on(self.client.create_topics([&topic], options));
        match answers.map_err(|error| code_of(&error))?.into_iter().next() {
            Some(Ok(_)) => Ok(()),
            Some(Err((_, code))) => Err(code),
            None => Err(Code::Unknown),
        }
    }

    /// Every setting a topic must have.
    fn settings(&self, spec: &TopicSpec) -> Vec<(&'static str, String)> {
        let bound = |limit: Option<u64>| limit.map_or("-1".to_owned(), |n| n.to_string());
        let mut settings = match spec.cleanup {
            Cleanup::Delete { retention_ms, retention_bytes } => vec![
                (CLEANUP, "delete".to_owned()),
                (RETENTION_MS, bound(retention_ms)),
                (RETENTION_BYTES, bound(retention_bytes)),
            ],
            Cleanup::Compact { delete_retention_ms } => vec![
                (CLEANUP, "compact".to_owned()),
                (DELETE_RETENTION_MS, delete_retention_ms.to_string()),
            ],
            Cleanup::CompactDelete { delete_retention_ms, retention_ms } => vec![
                (CLEANUP, "compact,delete".to_owned()),
                (DELETE_RETENTION_MS, delete_retention_ms.to_string()),
                (RETENTION_MS, retention_ms.to_string()),
            ],
        };
        settings.push((TIMESTAMP_TYPE, "LogAppendTime".to_owned()));
        if self.config.wrapping.iter().any(|name| name == spec.topic.as_str()) {
            settings.push((MAX_MESSAGE_BYTES, WRAPPING_BYTES.to_string()));
        }
        if let Some(copies) = self.config.min_insync {
            settings.push((MIN_INSYNC, copies.to_string()));
        }
        settings
    }

    /// The settings of topics, in the same order.
    pub(super) fn describe(&self, topics: &[&str]) -> Result<Vec<TopicConfig>, LogError> {
        let doing = "reading the settings of the topics";
        let ask: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let asked = block_on(self.client.describe_configs(&ask, &self.options()));
        let answers = asked.map_err(|e| log_error::from_error(doing, &e, self.context()))?;
        let mut described = Vec::new();
        for answer in answers {
            let resource =
                answer.map_err(|code| log_error::from_code(doing, code, self.context()))?;
            // The binding drops the error that comes instead of settings. A broker that does not
            // know a new topic yet answers so too.
            let resource = require_entries(resource).map_err(|_| {
                let what = "a broker returns none: it does not know the topic yet, or the user \
                            lacks DescribeConfigs (`tidewire doctor` shows which)";
                LogError::Retry(format!("{doing}: {what}").into())
            })?;
            described.push(TopicConfig::read(&resource)?);
        }
        Ok(described)
    }

    /// A setting of a broker; `None` if the broker has no setting of this name.
    pub(super) fn broker_setting(&self, id: i32, name: &str) -> Result<Option<String>, Code> {
        let ask = [ResourceSpecifier::Broker(id)];
        let answers = block_on(self.client.describe_configs(&ask, &self.options()));
        let answers = answers.map_err(|error| code_of(&error))?;
        let resource = answers.into_iter().next().unwrap_or(Err(Code::Unknown))?;
        let resource = require_entries(resource).map_err(|_| Code::ClusterAuthorizationFailed)?;
        Ok(resource.get(name).and_then(|entry| entry.value.clone()))
    }

    /// The settings that differ from what they must be.
    pub(super) fn mismatches(&self, spec: &TopicSpec, found: &TopicConfig) -> Vec<SettingMismatch> {
        let mismatch = |(name, wanted): (&'static str, String)| {
            let has = found.setting(name).unwrap_or("unknown");
            (!is_same_value(has, &wanted)).then(|| SettingMismatch {
                name,
                has: has.to_owned(),
                wanted,
            })
        };
        self.settings(spec).into_iter().filter_map(mismatch).collect()
    }

    /// Fails if settings differ, with each difference and the command that corrects it.
    pub(super) fn compare(&self, spec: &TopicSpec, found: &TopicConfig) -> Result<(), LogError> {
        let wrong = self.mismatches(spec, found);
        if wrong.is_empty() {
            return Ok(());
        }
        Err(LogError::Invalid(format!(
            "the topic {} exists with other settings: {}; correct them with `{}`, or set another \
             topics.prefix",
            spec.topic,
            SettingMismatch::list(&wrong),
            self.alter_command(spec.topic.as_str(), &wrong),
        )))
    }

    /// The command that corrects a topic.
    pub(super) fn alter_command(&self, topic: &str, wrong: &[SettingMismatch]) -> String {
        let set = |d: &SettingMismatch| format!("{}=[{}]", d.name, d.wanted);
        format!(
            "kafka-configs.sh --bootstrap-server {} --alter --topic {topic} --add-config {}",
            self.config.bootstrap,
            wrong.iter().map(set).collect::<Vec<_>>().join(","),
        )
    }
}

/// A setting of a topic that differs from what it must be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SettingMismatch {
    name: &'static str,
    has: String,
    wanted: String,
}

impl SettingMismatch {
    /// All of them in one text.
    pub(super) fn list(all: &[Self]) -> String {
        let clause = |d: &Self| format!("{} is {} and must be {}", d.name, d.has, d.wanted);
        all.iter().map(clause).collect::<Vec<_>>().join(", ")
    }
}

/// Fails if an answer has no settings. Everything has settings, and the binding drops the error
/// that comes instead of them: the user lacks the permission to read them.
fn require_entries(resource: ConfigResource) -> Result<ConfigResource, Code> {
    if resource.entries.is_empty() { Err(Code::TopicAuthorizationFailed) } else { Ok(resource) }
}

/// The code of a failed operation, which the binding does not return for `AdminOp`.
fn code_of(error: &KafkaError) -> Code {
    match error {
        KafkaError::AdminOp(code) => *code,
        other => other.rdkafka_error_code().unwrap_or(Code::Unknown),
    }
}

/// Compares lists as sets: `compact,delete` equals `delete,compact`.
fn is_same_value(has: &str, wanted: &str) -> bool {
    let parts = |text: &str| {
        let mut parts: Vec<String> = text.split(',').map(|part| part.trim().to_owned()).collect();
        parts.sort();
        parts
    };
    parts(has) == parts(wanted)
}

impl TopicConfig {
    fn read(resource: &ConfigResource) -> Result<Self, LogError> {
        let setting = |entry: &ConfigEntry| Some((entry.name.clone(), entry.value.clone()?));
        let settings: Vec<_> = resource.entries.iter().filter_map(setting).collect();
        let mut described = Self { cleanup: Cleanup::Compact { delete_retention_ms: 0 }, settings };
        described.cleanup = described.read_cleanup()?;
        Ok(described)
    }

    fn read_cleanup(&self) -> Result<Cleanup, LogError> {
        let policy = self.setting(CLEANUP).unwrap_or("delete");
        let (compacts, deletes) = (policy.contains("compact"), policy.contains("delete"));
        let delete_retention_ms = self.number(DELETE_RETENTION_MS)?.unwrap_or(0);
        let retention_ms = self.number(RETENTION_MS)?;
        Ok(match (compacts, deletes) {
            (true, true) => Cleanup::CompactDelete {
                delete_retention_ms,
                retention_ms: retention_ms.unwrap_or(u64::MAX),
            },
            (true, false) => Cleanup::Compact { delete_retention_ms },
            _ => Cleanup::Delete { retention_ms, retention_bytes: self.number(RETENTION_BYTES)? },
        })
    }

    fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// A limit; `None` for -1, which means no limit.
    fn number(&self, name: &str) -> Result<Option<u64>, LogError> {
        let Some(text) = self.setting(name) else { return Ok(None) };
        match text.parse::<i64>() {
            Ok(number) => Ok(u64::try_from(number).ok()),
            Err(_) => Err(LogError::Invalid(format!(
                "the broker has {name} = {text:?}, which is not a number; correct that setting"
            ))),
        }
    }
}
