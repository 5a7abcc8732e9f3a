//! The Kafka checks of `tidewire doctor`: address, listener, login, versions, topics, permissions
//! and clocks.
//!
//! Each check is designed so that only one cause can make it fail, and has a time limit, so that a
//! finding is one sentence with its fix. A check whose result would follow from an earlier problem
//! is left out.
//!
//! Nothing is created or changed but one record per broker in the topic that keeps records for a
//! minute, and one transactional id that only the doctor uses.

use std::time::Duration;

use tidewire_engine::port::{Clock, LogError};
use tidewire_engine::topology::Topology;

use super::admin::Admin;
use super::config::Config;
use super::context::KafkaContext;

mod listener_problem;
mod probe;
mod security;
mod wire;

mod broker_version;
mod client_log;

mod brokers;
mod internal_writers;
mod rights;
mod topics;

use client_log::ClusterView;
use listener_problem::ListenerProblem;
use probe::ProbeOutcome;
use security::Security;
use topics::TopicCheck;
use wire::Apis;

/// The time limit of one check.
const LIMIT: Duration = Duration::from_secs(5);

/// The result of one check, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing to do.
    Ok(String),
    /// Something could not be checked; the sentence says why.
    Warn(String),
    /// A problem and its fix.
    Fix(String),
}

/// What is checked, and what it must be like.
#[derive(Clone, Copy)]
pub struct DoctorTarget<'a> {
    /// How to reach Kafka.
    pub config: &'a Config,
    /// The required topics, and the names of the groups.
    pub topology: &'a Topology,
    /// The name of this process, which is part of its transactional ids.
    pub instance: &'a str,
    /// The clock that the brokers' clocks are compared with.
    pub clock: &'a dyn Clock,
}

/// Runs every check and reports each finding at once. Returns the number of brokers: of the cluster
/// if its metadata could be read, otherwise of the addresses in the settings.
pub fn diagnose(target: &DoctorTarget<'_>, report: &mut dyn FnMut(Finding)) -> usize {
    let named: Vec<String> = target.config.bootstrap.split(',').map(str::to_owned).collect();
    let Some(listeners) = probe_bootstrap(target, &named, report) else { return named.len() };
    let cluster = match client_log::connect(target.config) {
        Ok(cluster) => cluster,
        Err(why) => {
            report(Finding::Fix(why));
            return named.len();
        }
    };
    let brokers = cluster.brokers().len();
    let Some(others) = probe_advertised(target, &cluster, &named, report) else { return brokers };
    let listeners = [listeners, others].concat();
    let Some(version) = check_versions(target, &cluster, listeners, report) else { return brokers };
    let (at, all) = (&target.config.bootstrap, pluralize(brokers, "broker"));
    report(Finding::Ok(format!("Kafka at {at} answers: {all}, {version}")));
    check_cluster(target, &cluster, report);
    brokers
}

/// Each address that can be used, with the operations it supports as far as known without a login.
type Listeners = Vec<(String, Apis)>;

fn apis_of(outcome: ProbeOutcome) -> Apis {
    match outcome {
        ProbeOutcome::Kafka { apis, .. } => apis,
        _ => Apis::new(),
    }
}

/// Probes the addresses of the settings; `None` if none can be used.
fn probe_bootstrap(
    target: &DoctorTarget<'_>,
    named: &[String],
    report: &mut dyn FnMut(Finding),
) -> Option<Listeners> {
    let ours = Security::of(target.config);
    let outcomes = probe::probe_all(named, &ours);
    let mut open = Vec::new();
    for (address, outcome) in named.iter().zip(outcomes) {
        if let Some(problem) = ListenerProblem::find(&ours, &outcome) {
            report(Finding::Fix(format!("{address} {}; {}", problem.clause, problem.fix)));
            continue;
        }
        let apis = apis_of(outcome);
        // A client fails on a broker that is too old, so that is reported first.
        match broker_version::too_old(address, &apis, target.config).filter(|_| !apis.is_empty()) {
            Some(text) => report(Finding::Fix(text)),
            None => open.push((address.clone(), apis)),
        }
    }
    (!open.is_empty()).then_some(open)
}

/// Probes the addresses that brokers advertise; `None` if one can't be used.
fn probe_advertised(
    target: &DoctorTarget<'_>,
    cluster: &ClusterView,
    named: &[String],
    report: &mut dyn FnMut(Finding),
) -> Option<Listeners> {
    let mut others = cluster.brokers();
    others.retain(|(_, address)| !named.contains(address));
    let addresses: Vec<String> = others.iter().map(|(_, address)| address.clone()).collect();
    let ours = Security::of(target.config);
    let mut listeners = Listeners::new();
    for ((id, address), outcome) in others.iter().zip(probe::probe_all(&addresses, &ours)) {
        match ListenerProblem::find(&ours, &outcome) {
            None => listeners.push((address.clone(), apis_of(outcome))),
            Some(problem) => report(Finding::Fix(format!(
                "{} advertises broker {id} as {address}, which {}; correct advertised.listeners of \
                 that broker, or make this address reachable from here",
                target.config.bootstrap, problem.clause
            ))),
        }
    }
    (listeners.len() == others.len()).then_some(listeners)
}

/// The brokers' versions in words; `None` if one is too old.
fn check_versions(
    target: &DoctorTarget<'_>,
    cluster: &ClusterView,
    listeners: Listeners,
    report: &mut dyn FnMut(Finding),
) -> Option<&'static str> {
    let mut known = cluster.apis();
    known.extend(listeners.into_iter().filter(|(_, apis)| !apis.is_empty()));
    let old =
        known.iter().filter_map(|(at, apis)| broker_version::too_old(at, apis, target.config));
    let old: Vec<String> = old.collect();
    let version = if known.is_empty() { "of an unknown version" } else { "of a supported version" };
    let all_supported = old.is_empty();
    old.into_iter().for_each(|text| report(Finding::Fix(text)));
    all_supported.then_some(version)
}

/// Topics, permissions, settings of brokers, and clocks.
fn check_cluster(
    target: &DoctorTarget<'_>,
    cluster: &ClusterView,
    report: &mut dyn FnMut(Finding),
) {
    let made = target.config.admin().create_with_context(KafkaContext::default());
    let admin = match made {
        Ok(client) => Admin::new(client, target.config.clone()).within(LIMIT),
        Err(error) => {
            return report(Finding::Fix(format!(
                "can't create a Kafka client: {error}; check kafka.properties"
            )));
        }
    };
    let topic_rights = match rights::for_topics(target, cluster) {
        Ok(topic_rights) => topic_rights,
        Err(why) => return report(Finding::Fix(why)),
    };
    let topics = TopicCheck { target, cluster, admin: &admin, rights: &topic_rights };
    topics.run(report);
    rights::check(target, cluster, &topic_rights, report);
    internal_writers::check(target, cluster, &admin, report);
    brokers::check_retention(&admin, cluster, report);
    brokers::check_clocks(target, cluster, &topic_rights, report);
}

/// `one broker`, `3 brokers`.
fn pluralize(number: usize, what: &str) -> String {
    if number == 1 { format!("one {what}") } else { format!("{number} {what}s") }
}

/// `topic tw.in`, or `16 topics, such as tw.in`.
fn such_as(what: &str, names: &[&str]) -> String {
    match names {
        [one] => format!("{what} {one}"),
        [first, ..] => format!("{} {what}s, such as {first}", names.len()),
        [] => format!("no {what}"),
    }
}

/// `a, b or c`.
fn or_list(words: &[impl AsRef<str>]) -> String {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    match words.as_slice() {
        [] => "nothing".into(),
        [one] => (*one).to_owned(),
        [all @ .., last] => format!("{} or {last}", all.join(", ")),
    }
}

/// An error of the log and its causes in one sentence.
fn sentence(error: &LogError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_worded_as_in_a_sentence() {
        assert_eq!(or_list(&["a"]), "a");
        assert_eq!(or_list(&["a", "b", "c"]), "a, b or c");
        assert_eq!(such_as("topic", &["x"]), "topic x");
        assert_eq!(such_as("topic", &["x", "y"]), "2 topics, such as x");
        assert_eq!(
            (pluralize(1, "broker"), pluralize(3, "broker")),
            ("one broker".into(), "3 brokers".into())
        );
    }
}
