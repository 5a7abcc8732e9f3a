//! Checks by the brokers' ACLs that ordinary users can't write to `in.internal`.
//!
//! What is written there counts as Tidewire's own: a client that can write a lease can keep a dead
//! gateway alive. Which users are roles of Tidewire only the administrator knows, so the finding
//! names all that may write. Super users are in no ACL.

use std::collections::BTreeSet;

use rdkafka::types::RDKafkaErrorCode as Code;

use super::client_log::ClusterView;
use super::rights::Operation;
use super::{DoctorTarget, Finding, LIMIT};
use crate::kafka::admin::Admin;
use crate::kafka::native::{self, TopicAcl};

/// Every user, as a principal.
const EVERYBODY: &str = "User:*";

/// Every host.
const EVERYWHERE: &str = "*";

/// The broker setting that names the authorizer; without one there are no ACLs.
const AUTHORIZER: &str = "authorizer.class.name";

/// The broker setting that allows everything on what no ACL covers.
const OPEN_BY_DEFAULT: &str = "allow.everyone.if.no.acl.found";

/// Kafka's numbers of the operations that allow writing: all operations, and Write.
const WRITING: [u32; 2] = [2, 4];

/// Checks who may write to `in.internal`.
pub(super) fn check(
    target: &DoctorTarget<'_>,
    cluster: &ClusterView,
    admin: &Admin,
    report: &mut dyn FnMut(Finding),
) {
    let topic = target.topology.input_internal().as_str();
    report(match native::cluster_rights(&cluster.client, LIMIT) {
        Ok(rights) if !Operation::Describe.is_in(rights) => unreadable(topic, "Describe"),
        Ok(_) => match native::topic_acls(&cluster.client, topic, LIMIT) {
            Ok(acls) if acls.is_empty() => uncovered(topic, cluster, admin),
            Ok(acls) => of_writers(topic, &target.config.bootstrap, &writers(&acls)),
            Err(code) => failed(topic, code),
        },
        Err(code) => failed(topic, code),
    });
}

/// The principals that the ACLs allow to write, from any host.
fn writers(acls: &[TopicAcl]) -> BTreeSet<&str> {
    let writing = acls.iter().filter(|acl| WRITING.contains(&acl.operation));
    let (allowing, denying): (Vec<_>, Vec<_>) = writing.partition(|acl| acl.allows);
    let is_denied = |principal: &str| {
        denying.iter().any(|acl| {
            acl.host == EVERYWHERE && (acl.principal == principal || acl.principal == EVERYBODY)
        })
    };
    let allowed = allowing.into_iter().map(|acl| acl.principal.as_str());
    allowed.filter(|principal| !is_denied(principal)).collect()
}

fn of_writers(topic: &str, bootstrap: &str, writers: &BTreeSet<&str>) -> Finding {
    if writers.contains(EVERYBODY) {
        return Finding::Fix(format!(
            "an ACL allows every user to write to {topic}, and what is written there counts as \
             Tidewire's own; `kafka-acls.sh --bootstrap-server {bootstrap} --list --topic {topic} \
             --resource-pattern-type match` shows it: replace it by ACLs for the topics that \
             producers write to"
        ));
    }
    if writers.is_empty() {
        return Finding::Ok(format!("only super users may write to {topic}"));
    }
    let names: Vec<&str> = writers.iter().copied().collect();
    Finding::Ok(format!(
        "only super users and {} may write to {topic}; each of them must be a role of Tidewire",
        names.join(", ")
    ))
}

/// No ACL covers the topic: there is no authorizer, or the brokers' default decides.
fn uncovered(topic: &str, cluster: &ClusterView, admin: &Admin) -> Finding {
    for (id, _) in cluster.brokers() {
        match admin.broker_setting(id, AUTHORIZER) {
            Ok(class) if class.as_deref().is_none_or(str::is_empty) => {
                return Finding::Warn(format!(
                    "the brokers have no authorizer, so anybody who reaches them can write to \
                     {topic}, and what is written there counts as Tidewire's own"
                ));
            }
            Ok(_) => {}
            Err(Code::ClusterAuthorizationFailed) => return unreadable(topic, "DescribeConfigs"),
            Err(code) => return failed(topic, code),
        }
        match admin.broker_setting(id, OPEN_BY_DEFAULT) {
            Ok(Some(value)) if value == "true" => {
                return Finding::Fix(format!(
                    "no ACL covers {topic} and {OPEN_BY_DEFAULT} is true, so every user may write \
                     to it, and what is written there counts as Tidewire's own; allow the users of \
                     Tidewire's roles to write to it"
                ));
            }
            Ok(_) => {}
            Err(code) => return failed(topic, code),
        }
    }
    of_writers(topic, "", &BTreeSet::new())
}

/// This user lacks a permission on the cluster.
fn unreadable(topic: &str, operation: &str) -> Finding {
    Finding::Warn(format!(
        "who may write to {topic} was not checked, which needs {operation} on the cluster; make \
         sure that only Tidewire's roles may"
    ))
}

fn failed(topic: &str, code: Code) -> Finding {
    Finding::Fix(format!("reading the ACLs of {topic} failed ({code}); check the brokers' logs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(principal: &str, operation: u32, allows: bool) -> TopicAcl {
        TopicAcl { principal: principal.into(), host: EVERYWHERE.into(), operation, allows }
    }

    fn check_writers(acls: &[TopicAcl], expected: &[&str]) {
        assert_eq!(writers(acls).into_iter().collect::<Vec<_>>(), expected, "{acls:?}");
    }

    #[test]
    fn only_what_is_allowed_and_not_denied_can_write() {
        let (read, write, all) = (3, 4, 2);
        check_writers(&[acl("User:a", read, true)], &[]);
        check_writers(
            &[acl("User:b", all, true), acl("User:a", write, true)],
            &["User:a", "User:b"],
        );
        check_writers(&[acl("User:a", all, true), acl("User:a", write, false)], &[]);
        check_writers(&[acl("User:a", all, true), acl("User:a", read, false)], &["User:a"]);
        check_writers(&[acl(EVERYBODY, write, true), acl(EVERYBODY, all, false)], &[]);
        check_writers(&[acl(EVERYBODY, write, true), acl("User:a", all, false)], &[EVERYBODY]);
        let elsewhere = TopicAcl { host: "10.0.0.1".into(), ..acl("User:a", write, false) };
        check_writers(&[acl("User:a", write, true), elsewhere], &["User:a"]);
    }

    #[test]
    fn everybody_is_a_problem_and_named_users_are_not() {
        let finding = |names: &[&'static str]| {
            of_writers("t.in.internal", "b:9", &names.iter().copied().collect())
        };
        assert!(matches!(finding(&[EVERYBODY, "User:a"]), Finding::Fix(_)));
        let Finding::Ok(text) = finding(&["User:a", "User:b"]) else { panic!("nothing to fix") };
        assert!(text.contains("User:a, User:b"), "{text}");
        assert!(matches!(finding(&[]), Finding::Ok(_)));
    }
}
