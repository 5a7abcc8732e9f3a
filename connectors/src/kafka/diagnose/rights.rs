//! What this user may do, beside what all roles together need.
//!
//! Topics and groups tell what may be done with them to whoever asks (KIP-430), so nothing has to
//! be tried. Transactional ids don't: one is initialised that no process of ours ever uses.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::client_log::{CapturingContext, ClusterView};
use super::{DoctorTarget, Finding, or_list, such_as};
use crate::clock;
use crate::kafka::native::{self, Rights};

/// How long what goes through a coordinator may take: its first use makes a topic of the broker's.
const COORDINATOR_LIMIT: Duration = Duration::from_secs(10);

/// The rest between two questions while a coordinator settles.
const SETTLING_GRAIN: Duration = Duration::from_millis(100);

/// Operations by Kafka's number, which is their bit in [`Rights`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Read = 3,
    Write = 4,
    Create = 5,
    Describe = 8,
    DescribeConfigs = 10,
}

impl Operation {
    /// The name of `kafka-acls.sh`.
    fn name(self) -> &'static str {
        match self {
            Self::Read => "Read",
            Self::Write => "Write",
            Self::Create => "Create",
            Self::Describe => "Describe",
            Self::DescribeConfigs => "DescribeConfigs",
        }
    }

    fn is_in(self, rights: Rights) -> bool {
        rights.0 & 1 << self as u32 != 0
    }
}

/// What is done with a topic.
const TOPIC_OPERATIONS: [Operation; 4] =
    [Operation::Describe, Operation::DescribeConfigs, Operation::Read, Operation::Write];

/// What is done with a group; Describe comes with it.
const GROUP_OPERATIONS: [Operation; 1] = [Operation::Read];

/// What may be done with each topic.
pub(super) struct TopicRights {
    /// By topic: what is not allowed. A topic that is not there is not in here.
    denied: BTreeMap<String, Vec<Operation>>,
    /// Topics that are not there.
    pub(super) missing: Vec<String>,
}

impl TopicRights {
    /// Whether it is there and this may be done with it.
    pub(super) fn allow(&self, topic: &str, operation: Operation) -> bool {
        self.denied.get(topic).is_some_and(|denied| !denied.contains(&operation))
    }
}

/// Asks what may be done with our topics.
pub(super) fn for_topics(
    target: &DoctorTarget<'_>,
    cluster: &ClusterView,
) -> Result<TopicRights, String> {
    let specs = target.topology.specs();
    let names: Vec<&str> = specs.iter().map(|spec| spec.topic.as_str()).collect();
    let found = native::topic_rights(&cluster.client, &names, super::LIMIT)
        .map_err(|code| unanswered("what may be done with the topics", code))?;
    let mut rights = TopicRights { denied: BTreeMap::new(), missing: Vec::new() };
    for (topic, found) in found {
        let denied = match found {
            Ok(allowed) => missing_operations(&TOPIC_OPERATIONS, allowed),
            Err(Code::UnknownTopicOrPartition | Code::UnknownTopic) => {
                rights.missing.push(topic);
                continue;
            }
            Err(Code::TopicAuthorizationFailed) => TOPIC_OPERATIONS.to_vec(),
            Err(code) => return Err(unanswered(&format!("the topic {topic}"), code)),
        };
        rights.denied.insert(topic, denied);
    }
    Ok(rights)
}

/// Says what is not allowed, topics first.
pub(super) fn check(
    target: &DoctorTarget<'_>,
    cluster: &ClusterView,
    topics: &TopicRights,
    report: &mut dyn FnMut(Finding),
) {
    let mut wrong = Vec::new();
    let mut alike: BTreeMap<&[Operation], Vec<&str>> = BTreeMap::new();
    for (topic, denied) in topics.denied.iter().filter(|(_, denied)| !denied.is_empty()) {
        alike.entry(denied).or_default().push(topic);
    }
    for (denied, names) in alike {
        wrong.push(missing_permission(target, denied, "topic", &such_as("topic", &names)));
    }
    wrong.extend(check_groups(target, cluster));
    wrong.extend(check_transactional_ids(target));
    if wrong.is_empty() {
        let all = "this user may do all that is needed with topics, groups and transactional ids";
        report(Finding::Ok(all.into()));
    }
    wrong.into_iter().for_each(|text| report(Finding::Fix(text)));
}

fn check_groups(target: &DoctorTarget<'_>, cluster: &ClusterView) -> Option<String> {
    let mut denied = Vec::new();
    for group in [target.topology.admit_group(), target.topology.derive_group()] {
        match for_group(cluster, &group) {
            Ok(rights) if missing_operations(&GROUP_OPERATIONS, rights).is_empty() => {}
            Ok(_) | Err(Code::GroupAuthorizationFailed) => denied.push(group),
            Err(code) => return Some(unanswered(&format!("the group {group}"), code)),
        }
    }
    let denied: Vec<&str> = denied.iter().map(String::as_str).collect();
    (!denied.is_empty())
        .then(|| missing_permission(target, &GROUP_OPERATIONS, "group", &such_as("group", &denied)))
}

/// Asks until the group has a coordinator, which the first question gives it.
fn for_group(cluster: &ClusterView, group: &str) -> Result<Rights, Code> {
    let begun = clock::now();
    loop {
        let found = native::group_rights(&cluster.client, &[group], COORDINATOR_LIMIT)?;
        let found = found.into_iter().next().map_or(Err(Code::Unknown), |(_, rights)| rights);
        match found {
            Err(code) if is_settling(code) && begun.elapsed() < COORDINATOR_LIMIT => {
                clock::pause(SETTLING_GRAIN);
            }
            found => return found,
        }
    }
}

/// The broker is about to find or to load what it knows of groups.
fn is_settling(code: Code) -> bool {
    matches!(
        code,
        Code::NotCoordinator | Code::CoordinatorNotAvailable | Code::CoordinatorLoadInProgress
    )
}

/// Initialises an id that begins as ours do and that no process uses, so that nobody is fenced.
fn check_transactional_ids(target: &DoctorTarget<'_>) -> Option<String> {
    let begins = target.topology.derive_group();
    let id = format!("{begins}-{}-doctor", target.instance);
    let made = target.config.transactor(&id).create_with_context(CapturingContext::default());
    let producer: BaseProducer<CapturingContext> = match made {
        Ok(producer) => producer,
        Err(error) => return Some(format!("no producer can be made: {error}")),
    };
    let error = producer.init_transactions(COORDINATOR_LIMIT).err()?;
    match error.rdkafka_error_code() {
        Some(Code::TransactionalIdAuthorizationFailed) => {
            let ids = format!("transactional ids, which begin with {begins}");
            Some(missing_permission(target, &[Operation::Write], "transactional-id", &ids))
        }
        Some(code) => Some(unanswered(&format!("initialising the transactional id {id}"), code)),
        None => Some(format!("initialising the transactional id {id} failed: {error}")),
    }
}

/// What of this is not allowed.
fn missing_operations(needed: &[Operation], rights: Rights) -> Vec<Operation> {
    needed.iter().copied().filter(|operation| !operation.is_in(rights)).collect()
}

/// What this user may not do, and the command that grants it.
pub(super) fn missing_permission(
    target: &DoctorTarget<'_>,
    denied: &[Operation],
    resource: &str,
    names: &str,
) -> String {
    let operations: Vec<&str> = denied.iter().map(|operation| operation.name()).collect();
    let flags: String =
        operations.iter().map(|operation| format!(" --operation {operation}")).collect();
    // Access control has no prefix of no letters.
    let (prefix, pattern) = match target.topology.prefix() {
        "" => ("'*'", ""),
        prefix => (prefix, " --resource-pattern-type prefixed"),
    };
    format!(
        "this user may not {} the {names}; grant it: `kafka-acls.sh --bootstrap-server {} --add \
         --allow-principal User:NAME{flags} --{resource} {prefix}{pattern}`",
        or_list(&operations),
        target.config.bootstrap,
    )
}

fn unanswered(what: &str, code: Code) -> String {
    format!("asking about {what} failed ({code}); look at the brokers' logs")
}
