//! Compares a probed listener with the TLS and SASL settings, and words the difference.
//!
//! A problem is a clause about an address ("refuses connections"), so that it fits both an address
//! from the settings and one that a broker advertises.

use super::probe::{ProbeOutcome, SaslSupport};
use super::security::Security;
use super::wire::api;
use super::{LIMIT, or_list};

/// A problem of an address, and its fix.
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
                "correct the name in `log`, or make it resolvable on this machine".into(),
            ),
            ProbeOutcome::Refused => problem(
                "refuses connections: nothing listens there".into(),
                "start the broker, or correct host and port in `log`".into(),
            ),
            ProbeOutcome::Unreachable(why) => problem(
                format!("can't be reached ({why})"),
                "check the network and firewalls between, or correct the address in `log`".into(),
            ),
            ProbeOutcome::Silent => problem(
                format!("accepts connections and does not answer within {wait} s"),
                "restart that broker if it hangs, or correct the address in `log`".into(),
            ),
            ProbeOutcome::Closed => problem(
                "closes every connection without an answer".into(),
                "set `log` to the address of a Kafka broker; if it is one that is starting, wait"
                    .into(),
            ),
            ProbeOutcome::NotKafka(beginning) => problem(
                format!("is not Kafka: it answers \"{beginning}\""),
                "set `log` to the address of a Kafka broker".into(),
            ),
            ProbeOutcome::Tls if !ours.tls => problem(
                "uses TLS, and none is configured".into(),
                format!(
                    "set security.protocol = \"{}\" in kafka.properties, or use the port of a \
                     listener without TLS",
                    Security { tls: true, ..ours.clone() }.protocol()
                ),
            ),
            ProbeOutcome::Tls => None,
            ProbeOutcome::Kafka { apis, .. } if !apis.contains_key(&api::METADATA) => problem(
                "is the listener of a controller, which does not serve clients".into(),
                "use the port of the brokers in `log`".into(),
            ),
            ProbeOutcome::Kafka { .. } if ours.tls => problem(
                "uses no TLS, and security.protocol requires it".into(),
                format!(
                    "use the port of its listener with TLS, or set security.protocol = \"{}\"",
                    Security { tls: false, ..ours.clone() }.protocol()
                ),
            ),
            ProbeOutcome::Kafka { sasl, .. } => Self::find_in_login(ours, sasl),
        }
    }

    fn find_in_login(ours: &Security, sasl: &SaslSupport) -> Option<Self> {
        let (clause, fix) = match (sasl, &ours.mechanism) {
            (SaslSupport::Mechanisms(offered), None) => (
                format!("requires a login ({}), and none is configured", or_list(offered)),
                format!(
                    "set security.protocol = \"{}\", sasl.mechanism, sasl.username and \
                     sasl.password in kafka.properties",
                    Security { mechanism: Some(String::new()), ..ours.clone() }.protocol()
                ),
            ),
            (SaslSupport::None, Some(_)) => (
                "has no SASL, and security.protocol requires it".into(),
                format!(
                    "set security.protocol = \"{}\" in kafka.properties, or use the port of a \
                     listener with SASL",
                    Security { mechanism: None, ..ours.clone() }.protocol()
                ),
            ),
            (SaslSupport::Mechanisms(offered), Some(mechanism)) if !offered.contains(mechanism) => {
                (
                    format!("offers SASL with {}, and {mechanism} is configured", or_list(offered)),
                    "set sasl.mechanism in kafka.properties to one that is offered".into(),
                )
            }
            _ => return None,
        };
        Some(Self { clause, fix })
    }
}
