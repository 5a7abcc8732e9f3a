//! What `tidewire doctor` asks of Kafka, from the outside in: the address, the listener, the way
//! in, the brokers' age, where they send us on to, the topics, this user's rights, the clocks.
//!
//! The one idea: each question is asked in a way that can only be answered wrongly for one reason,
//! and with a time limit, so that every finding is one sentence with its mend. What later questions
//! would only repeat is not asked.
//!
//! Nothing is created or changed. What stays for a while is one record in the topic that keeps a
//! minute, and a transactional id of the doctor's own.

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
mod rights;
mod topics;

use client_log::ClusterView;
use listener_problem::ListenerProblem;
use probe::ProbeOutcome;
use security::Security;
use topics::TopicCheck;
use wire::Apis;

/// How long one question waits for its answer.
const LIMIT: Duration = Duration::from_secs(5);

/// What a question found, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing to do.
    Ok(String),
    /// Something is wrong; the sentence says what mends it.
    Fix(String),
}

/// What is looked at, and what it should be like.
#[derive(Clone, Copy)]
pub struct DoctorTarget<'a> {
    /// How to reach Kafka.
    pub config: &'a Config,
    /// The topics as they must be, and the names of the groups.
    pub topology: &'a Topology,
    /// The name of this process, which is part of its transactional ids.
    pub instance: &'a str,
    /// What the brokers' clocks are compared with.
    pub clock: &'a dyn Clock,
}

/// Looks at everything, tells what it finds as it finds it, and returns how many brokers there are:
/// all of them once one has told, before that those that were named.
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
    let Some(age) = check_versions(target, &cluster, listeners, report) else { return brokers };
    let (at, all) = (&target.config.bootstrap, pluralize(brokers, "broker"));
    report(Finding::Ok(format!("Kafka at {at} answers: {all}, {age}")));
    check_cluster(target, &cluster, report);
    brokers
}

/// What each address that led somewhere can do, as far as it shows without a login.
type Listeners = Vec<(String, Apis)>;

fn apis_of(outcome: ProbeOutcome) -> Apis {
    match outcome {
        ProbeOutcome::Kafka { apis, .. } => apis,
        _ => Apis::new(),
    }
}

/// Tries the addresses that were given; `None` if none of them leads on.
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
        // A client would not get far with one that is too old.
        match broker_version::too_old(address, &apis, target.config).filter(|_| !apis.is_empty()) {
            Some(text) => report(Finding::Fix(text)),
            None => open.push((address.clone(), apis)),
        }
    }
    (!open.is_empty()).then_some(open)
}

/// Tries the addresses that the brokers give for themselves; `None` if one leads nowhere.
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
                "{} sends its clients on to {address} (broker {id}), which {}; correct \
                 advertised.listeners of that broker, or make this address lead to it from here",
                target.config.bootstrap, problem.clause
            ))),
        }
    }
    (listeners.len() == others.len()).then_some(listeners)
}

/// How old the brokers are, in a word; `None` if one is too old.
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
    let age = if known.is_empty() { "of an age that can't be seen" } else { "new enough" };
    let all_new_enough = old.is_empty();
    old.into_iter().for_each(|text| report(Finding::Fix(text)));
    all_new_enough.then_some(age)
}

/// Topics, rights and what the brokers are set to.
fn check_cluster(
    target: &DoctorTarget<'_>,
    cluster: &ClusterView,
    report: &mut dyn FnMut(Finding),
) {
    let made = target.config.admin().create_with_context(KafkaContext::default());
    let admin = match made {
        Ok(client) => Admin::new(client, target.config.clone()).within(LIMIT),
        Err(error) => return report(Finding::Fix(format!("no client can be made: {error}"))),
    };
    let topic_rights = match rights::for_topics(target, cluster) {
        Ok(topic_rights) => topic_rights,
        Err(why) => return report(Finding::Fix(why)),
    };
    let topics = TopicCheck { target, cluster, admin: &admin, rights: &topic_rights };
    topics.run(report);
    rights::check(target, cluster, &topic_rights, report);
    brokers::check_retention(&admin, cluster, report);
    brokers::check_clocks(target, cluster, &topic_rights, report);
}

/// `one broker`, `3 brokers`.
fn pluralize(number: usize, what: &str) -> String {
    if number == 1 { format!("one {what}") } else { format!("{number} {what}s") }
}

/// `topic tw.in`, or `15 topics, such as tw.in`.
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

/// An error of the log in one sentence, with what lies underneath.
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
    fn lists_read_as_plain_english() {
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
