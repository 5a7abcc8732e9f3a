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
use super::context::Context;

mod door;
mod security;
mod wire;

mod age;
mod witness;

mod brokers;
mod rights;
mod topics;

use door::Door;
use security::Security;
use wire::Apis;
use witness::Met;

/// How long one question waits for its answer.
const LIMIT: Duration = Duration::from_secs(5);

/// What a question found, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing to do.
    Fine(String),
    /// Something is wrong; the sentence says what mends it.
    Mend(String),
}

/// What is looked at, and what it should be like.
#[derive(Clone, Copy)]
pub struct Case<'a> {
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
pub fn diagnose(case: &Case<'_>, tell: &mut dyn FnMut(Finding)) -> usize {
    let named: Vec<String> = case.config.bootstrap.split(',').map(str::to_owned).collect();
    let Some(doors) = knock(case, &named, tell) else { return named.len() };
    let met = match witness::meet(case.config) {
        Ok(met) => met,
        Err(why) => {
            tell(Finding::Mend(why));
            return named.len();
        }
    };
    let brokers = met.brokers().len();
    let Some(others) = follow(case, (&met, &named), tell) else { return brokers };
    let Some(age) = judge(case, (&met, [doors, others].concat()), tell) else { return brokers };
    let (at, all) = (&case.config.bootstrap, count(brokers, "broker"));
    tell(Finding::Fine(format!("Kafka at {at} answers: {all}, {age}")));
    look_inside(case, &met, tell);
    brokers
}

/// What each address that led somewhere can do, as far as it shows without a login.
type Doors = Vec<(String, Apis)>;

fn apis_of(door: Door) -> Apis {
    match door {
        Door::Kafka { apis, .. } => apis,
        _ => Apis::new(),
    }
}

/// Tries the addresses that were given; `None` if none of them leads on.
fn knock(case: &Case<'_>, named: &[String], tell: &mut dyn FnMut(Finding)) -> Option<Doors> {
    let ours = Security::of(case.config);
    let doors = door::look_at_all(named, &ours);
    let mut open = Vec::new();
    for (address, door) in named.iter().zip(doors) {
        if let Some(trouble) = ours.trouble(&door) {
            tell(Finding::Mend(format!("{address} {}; {}", trouble.is, trouble.mend)));
            continue;
        }
        let apis = apis_of(door);
        // A client would not get far with one that is too old.
        match age::too_old(address, &apis, case.config).filter(|_| !apis.is_empty()) {
            Some(text) => tell(Finding::Mend(text)),
            None => open.push((address.clone(), apis)),
        }
    }
    (!open.is_empty()).then_some(open)
}

/// Tries the addresses that the brokers give for themselves; `None` if one leads nowhere.
fn follow(
    case: &Case<'_>,
    (met, named): (&Met, &[String]),
    tell: &mut dyn FnMut(Finding),
) -> Option<Doors> {
    let mut others = met.brokers();
    others.retain(|(_, address)| !named.contains(address));
    let addresses: Vec<String> = others.iter().map(|(_, address)| address.clone()).collect();
    let ours = Security::of(case.config);
    let mut doors = Doors::new();
    for ((id, address), door) in others.iter().zip(door::look_at_all(&addresses, &ours)) {
        match ours.trouble(&door) {
            None => doors.push((address.clone(), apis_of(door))),
            Some(trouble) => tell(Finding::Mend(format!(
                "{} sends its clients on to {address} (broker {id}), which {}; correct \
                 advertised.listeners of that broker, or make this address lead to it from here",
                case.config.bootstrap, trouble.is
            ))),
        }
    }
    (doors.len() == others.len()).then_some(doors)
}

/// How old the brokers are, in a word; `None` if one is too old.
fn judge(
    case: &Case<'_>,
    (met, doors): (&Met, Doors),
    tell: &mut dyn FnMut(Finding),
) -> Option<&'static str> {
    let mut known = met.apis();
    known.extend(doors.into_iter().filter(|(_, apis)| !apis.is_empty()));
    let old = known.iter().filter_map(|(at, apis)| age::too_old(at, apis, case.config));
    let old: Vec<String> = old.collect();
    let age = if known.is_empty() { "of an age that can't be seen" } else { "new enough" };
    let all_are_fine = old.is_empty();
    old.into_iter().for_each(|text| tell(Finding::Mend(text)));
    all_are_fine.then_some(age)
}

/// Topics, rights and what the brokers are set to.
fn look_inside(case: &Case<'_>, met: &Met, tell: &mut dyn FnMut(Finding)) {
    let made = case.config.admin().create_with_context(Context::default());
    let admin = match made {
        Ok(client) => Admin::new(client, case.config.clone()).within(LIMIT),
        Err(error) => return tell(Finding::Mend(format!("no client can be made: {error}"))),
    };
    let topic_rights = match rights::of_topics(case, met) {
        Ok(topic_rights) => topic_rights,
        Err(why) => return tell(Finding::Mend(why)),
    };
    topics::check((case, met), (&admin, &topic_rights), tell);
    rights::check((case, met), &topic_rights, tell);
    brokers::check_retention(&admin, met, tell);
    brokers::check_clocks((case, met), &topic_rights, tell);
}

/// `one broker`, `3 brokers`.
fn count(number: usize, what: &str) -> String {
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
    fn lists_read_as_one_would_say_them() {
        assert_eq!(or_list(&["a"]), "a");
        assert_eq!(or_list(&["a", "b", "c"]), "a, b or c");
        assert_eq!(such_as("topic", &["x"]), "topic x");
        assert_eq!(such_as("topic", &["x", "y"]), "2 topics, such as x");
        assert_eq!(
            (count(1, "broker"), count(3, "broker")),
            ("one broker".into(), "3 brokers".into())
        );
    }
}
