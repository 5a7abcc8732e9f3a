//! Checks the permissions of the user against what all roles together need.
//!
//! Topics and groups report the allowed operations of the user who asks (KIP-430), so nothing has
//! to be tried. Transactional ids do not: the check initialises one that no process uses.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::client_log::{CapturingContext, ClusterView};
use super::{DoctorTarget, Finding, or_list, such_as};
use crate::clock;
use crate::kafka::native::{self, Rights};

/// Time limit of requests to a coordinator, whose first use creates an internal topic.
const COORDINATOR_LIMIT: Duration = Duration::from_secs(10);

/// The pause between two requests while a coordinator is not ready.
const SETTLING_GRAIN: Duration = Duration::from_millis(100);

/// ACL operations by Kafka's number, which is their bit in [`Rights`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Read = 3,
    Write = 4,
    Create = 5,
    Describe = 8,
    DescribeConfigs = 10,
}

impl Operation {
    /// The name in `kafka-acls.sh`.
    fn name(self) -> &'static str {
        match self {
            Self::Read => "Read",
            Self::Write => "Write",
            Self::Create => "Create",
            Self::Describe => "Describe",
            Self::DescribeConfigs => "DescribeConfigs",
        }
    }

    pub(super) fn is_in(self, rights: Rights) -> bool {
        rights.0 & 1 << self as u32 != 0
    }
}

/// Operations needed on a topic.
const TOPIC_OPERATIONS: [Operation; 4] =
    [Operation::Describe, Operation::DescribeConfigs, Operation::Read, Operation::Write];

/// Operations needed on a group; Read includes Describe.
const GROUP_OPERATIONS: [Operation; 1] = [Operation::Read];

/// The permissions on our topics.
pub(super) struct TopicRights {
    /// The operations that are not allowed, by topic. Topics that do not exist are left out.
    denied: BTreeMap<String, Vec<Operation>>,
    /// Topics that do not exist.
    pub(super) missing: Vec<String>,
}

impl TopicRights {
    /// Whether the topic exists and the operation is allowed.
    pub(super) fn allow(&self, topic: &str, operation: Operation) -> bool {
        self.denied.get(topic).is_some_and(|denied| !denied.contains(&operation))
    }
}

/// Reads the permissions on our topics.
pub(super) fn for_topics(
    target: &DoctorTarget<'_>,
    cluster: &ClusterView,
) -> Result<TopicRights, String> {
    let specs = target.topology.specs();
    let names: Vec<&str> = specs.iter().map(|spec| spec.topic.as_str()).collect();
    let found = native::topic_rights(&cluster.client, &names, super::LIMIT)
        .map_err(|code| query_failed("the topics", code))?;
    let mut rights = TopicRights { denied: BTreeMap::new(), missing: Vec::new() };
    for (topic, found) in found {
        let denied = match found {
            Ok(allowed) => missing_operations(&TOPIC_OPERATIONS, allowed),
            Err(Code::UnknownTopicOrPartition | Code::UnknownTopic) => {
                rights.missing.push(topic);
                continue;
            }
            Err(Code::TopicAuthorizationFailed) => TOPIC_OPERATIONS.to_vec(),
            Err(code) => return Err(query_failed(&format!("the topic {topic}"), code)),
        };
        rights.denied.insert(topic, denied);
    }
    Ok(rights)
}

/// Reports what is not allowed, topics first.
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
    let ids_of_derive = check_transactional_ids(target);
    // What begins with the prefix is one ACL in most deployments: one finding is enough then.
    let others = if ids_of_derive.is_none() { check_ids_of_commands(target) } else { None };
    wrong.extend(ids_of_derive);
    if wrong.is_empty() && others.is_none() {
        let all = "this user has every permission on topics, groups and transactional ids";
        report(Finding::Ok(all.into()));
    }
    if let Some(finding) = others {
        report(finding);
    }
    wrong.into_iter().for_each(|text| report(Finding::Fix(text)));
}

fn check_groups(target: &DoctorTarget<'_>, cluster: &ClusterView) -> Option<String> {
    let mut denied = Vec::new();
    for group in [target.topology.admit_group(), target.topology.derive_group()] {
        match for_group(cluster, &group) {
            Ok(rights) if missing_operations(&GROUP_OPERATIONS, rights).is_empty() => {}
            Ok(_) | Err(Code::GroupAuthorizationFailed) => denied.push(group),
            Err(code) => return Some(query_failed(&format!("the group {group}"), code)),
        }
    }
    let denied: Vec<&str> = denied.iter().map(String::as_str).collect();
    (!denied.is_empty())
        .then(|| missing_permission(target, &GROUP_OPERATIONS, "group", &such_as("group", &denied)))
}

/// Asks until the group has a coordinator; the first request gets it one.
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

/// Whether the coordinator is still being found or loaded.
fn is_settling(code: Code) -> bool {
    matches!(
        code,
        Code::NotCoordinator | Code::CoordinatorNotAvailable | Code::CoordinatorLoadInProgress
    )
}

/// Checks the transactional ids of DERIVE.
fn check_transactional_ids(target: &DoctorTarget<'_>) -> Option<String> {
    let begins = target.topology.derive_group();
    match may_write_ids(target, &begins) {
        Ok(true) => None,
        Ok(false) => {
            let ids = format!("transactional ids that begin with {begins}");
            Some(missing_permission(target, &[Operation::Write], "transactional-id", &ids))
        }
        Err(why) => Some(why),
    }
}

/// Checks the transactional ids of commands. A process may use them now, and initialising them
/// would fence it. So ids that begin alike are checked, and a denial is no proof: an ACL may name
/// the id itself.
fn check_ids_of_commands(target: &DoctorTarget<'_>) -> Option<Finding> {
    let layout = target.topology.layout_transactional_id();
    let dead_letters = target.topology.dead_letters_transactional_id();
    let mut unknown = Vec::new();
    for (id, commands) in [
        (layout, "`topics create`, `dev` and `finalize`"),
        (dead_letters, "`dead-letters requeue` and `drop`"),
    ] {
        match may_write_ids(target, &id) {
            Ok(true) => {}
            Ok(false) => unknown.push(format!("{id}, which {commands} need")),
            Err(why) => return Some(Finding::Fix(why)),
        }
    }
    (!unknown.is_empty()).then(|| {
        Finding::Warn(format!(
            "this user may not Write ids that begin like the transactional id {}; make sure that \
             an ACL names them: `kafka-acls.sh --bootstrap-server {} --list`",
            unknown.join(", or "),
            target.config.bootstrap
        ))
    })
}

/// Whether ids that begin like this may be written: initialises one that no process uses, so that
/// nobody is fenced.
fn may_write_ids(target: &DoctorTarget<'_>, begins: &str) -> Result<bool, String> {
    let id = format!("{begins}-{}-doctor", target.instance);
    let made = target.config.transactor(&id).create_with_context(CapturingContext::default());
    let producer: BaseProducer<CapturingContext> = made.map_err(|error| {
        format!("can't create a Kafka producer: {error}; check kafka.properties")
    })?;
    let Err(error) = producer.init_transactions(COORDINATOR_LIMIT) else { return Ok(true) };
    match error.rdkafka_error_code() {
        Some(Code::TransactionalIdAuthorizationFailed) => Ok(false),
        Some(code) => Err(format!(
            "initialising the transactional id {id} failed ({code}); check the brokers' logs"
        )),
        None => Err(format!(
            "initialising the transactional id {id} failed ({error}); check the brokers' logs"
        )),
    }
}

/// The needed operations that are not allowed.
fn missing_operations(needed: &[Operation], rights: Rights) -> Vec<Operation> {
    needed.iter().copied().filter(|operation| !operation.is_in(rights)).collect()
}

/// The finding for missing permissions, with the command that grants them.
pub(super) fn missing_permission(
    target: &DoctorTarget<'_>,
    denied: &[Operation],
    resource: &str,
    names: &str,
) -> String {
    let operations: Vec<&str> = denied.iter().map(|operation| operation.name()).collect();
    let flags: String =
        operations.iter().map(|operation| format!(" --operation {operation}")).collect();
    // ACLs have no empty prefix.
    let (prefix, pattern) = match target.topology.prefix() {
        "" => ("'*'", ""),
        prefix => (prefix, " --resource-pattern-type prefixed"),
    };
    format!(
        "this user is not allowed to {} the {names}; grant it: `kafka-acls.sh --bootstrap-server \
         {} --add --allow-principal User:NAME{flags} --{resource} {prefix}{pattern}`",
        or_list(&operations),
        target.config.bootstrap,
    )
}

fn query_failed(what: &str, code: Code) -> String {
    format!("reading the permissions on {what} failed ({code}); check the brokers' logs")
}
