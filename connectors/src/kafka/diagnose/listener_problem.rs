//! Compares what a listener offers with the TLS and SASL settings, and words the difference.
//!
//! A problem is a clause about an address ("refuses connections"), so that it fits an address from
//! the settings and one that a broker advertises.

use super::probe::{ProbeOutcome, SaslSupport};
use super::security::Security;
use super::wire::api;
use super::{LIMIT, or_list};

/// What is wrong with an address, and the fix.
pub(super) struct ListenerProblem {
    /// A clause whose subject is the address.
    pub(super) clause: String,
    pub(super) fix: String,
}

impl ListenerProblem {
    /// The problem that keeps clients with these settings out; `None` if the probe shows none.
    pub(super) fn find(ours: &Security, outcome: &ProbeOutcome) -> Option<Self> {
        let problem = |clause: String, fix: String| Some(Self { clause, fix });
        let wait = LIMIT.as_secs();
        match outcome {
            ProbeOutcome::Unresolvable(why) => problem(
                format!("can't be resolved ({why})"),
                "correct the name in `log`, or make it known to this machine's resolver".into(),
            ),
            ProbeOutcome::Refused => problem(
                "refuses connections: nothing listens there".into(),
                "start the broker, or give the host and port it listens on in `log`".into(),
            ),
            ProbeOutcome::Unreachable(why) => problem(
                format!("can't be reached ({why})"),
                "mend the network or the firewall between, or give another address in `log`".into(),
            ),
            ProbeOutcome::Silent => problem(
                format!("takes connections and says nothing for {wait} s"),
                "restart that broker if it is one and hangs, or give another address in `log`"
                    .into(),
            ),
            ProbeOutcome::Closed => problem(
                "ends every connection without a word".into(),
                "give the address of a Kafka broker in `log`; one that is starting does so too"
                    .into(),
            ),
            ProbeOutcome::NotKafka(beginning) => problem(
                format!("is not Kafka: it answers \"{beginning}\""),
                "give the address of a Kafka broker in `log`".into(),
            ),
            ProbeOutcome::Tls if !ours.tls => problem(
                "speaks TLS, and security.protocol asks for none".into(),
                format!(
                    "give security.protocol = \"{}\" in kafka.properties, or the port of a \
                     listener without TLS",
                    Security { tls: true, ..ours.clone() }.protocol()
                ),
            ),
            ProbeOutcome::Tls => None,
            ProbeOutcome::Kafka { apis, .. } if !apis.contains_key(&api::METADATA) => problem(
                "is the listener of a controller, which serves no clients".into(),
                "give the port of the brokers in `log`".into(),
            ),
            ProbeOutcome::Kafka { .. } if ours.tls => problem(
                "speaks Kafka without TLS, and security.protocol asks for TLS".into(),
                format!(
                    "give the port of its listener with TLS, or security.protocol = \"{}\"",
                    Security { tls: false, ..ours.clone() }.protocol()
                ),
            ),
            ProbeOutcome::Kafka { sasl, .. } => Self::find_in_login(ours, sasl),
        }
    }

    fn find_in_login(ours: &Security, sasl: &SaslSupport) -> Option<Self> {
        let (clause, fix) = match (sasl, &ours.mechanism) {
            (SaslSupport::Mechanisms(offered), None) => (
                format!("wants a login ({}), and none is configured", or_list(offered)),
                format!(
                    "give security.protocol = \"{}\", sasl.mechanism, sasl.username and \
                     sasl.password in kafka.properties",
                    Security { mechanism: Some(String::new()), ..ours.clone() }.protocol()
                ),
            ),
            (SaslSupport::None, Some(_)) => (
                "knows no login, and security.protocol asks for one".into(),
                format!(
                    "give security.protocol = \"{}\" in kafka.properties, or the port of a \
                     listener with SASL",
                    Security { mechanism: None, ..ours.clone() }.protocol()
                ),
            ),
            (SaslSupport::Mechanisms(offered), Some(ours)) if !offered.contains(ours) => (
                format!("offers a login by {}, and {ours} is configured", or_list(offered)),
                "give one that is offered as sasl.mechanism in kafka.properties".into(),
            ),
            _ => return None,
        };
        Some(Self { clause, fix })
    }
}
