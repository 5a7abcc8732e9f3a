//! How this process would enter, beside how a door is made: where the two don't fit, in words.
//!
//! The one idea: what is wrong with a door is a clause about an address ("refuses connections"), so
//! that it can be said of an address the operator gave and of one that a broker sent us on to.

use super::probe::{ProbeOutcome, SaslSupport};
use super::wire::api;
use super::{LIMIT, or_list};
use crate::kafka::config::Config;

/// What librdkafka takes where nobody names a mechanism.
const DEFAULT_MECHANISM: &str = "GSSAPI";

/// What the properties ask for.
#[derive(Clone, Debug)]
pub(super) struct Security {
    pub(super) tls: bool,
    /// The SASL mechanism, if there is to be a login.
    pub(super) mechanism: Option<String>,
}

/// What is wrong with an address, and the mend.
pub(super) struct ListenerProblem {
    /// A clause whose subject is the address.
    pub(super) clause: String,
    pub(super) fix: String,
}

impl Security {
    pub(super) fn of(config: &Config) -> Self {
        let given = |name: &str| config.properties.get(name).cloned();
        let protocol = given("security.protocol").unwrap_or_default().to_ascii_uppercase();
        let mechanism = given("sasl.mechanism").or_else(|| given("sasl.mechanisms"));
        let mechanism = mechanism.unwrap_or_else(|| DEFAULT_MECHANISM.to_owned());
        Self {
            tls: protocol.ends_with("SSL"),
            mechanism: protocol.starts_with("SASL").then_some(mechanism),
        }
    }

    /// The name of this for `security.protocol`.
    fn protocol(&self) -> &'static str {
        match (self.tls, &self.mechanism) {
            (false, None) => "PLAINTEXT",
            (true, None) => "SSL",
            (false, Some(_)) => "SASL_PLAINTEXT",
            (true, Some(_)) => "SASL_SSL",
        }
    }

    /// What keeps us out; `None` if nothing that can be seen from outside.
    pub(super) fn problem(&self, outcome: &ProbeOutcome) -> Option<ListenerProblem> {
        let problem = |clause: String, fix: String| Some(ListenerProblem { clause, fix });
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
            ProbeOutcome::Tls if !self.tls => problem(
                "speaks TLS, and security.protocol asks for none".into(),
                format!(
                    "give security.protocol = \"{}\" in kafka.properties, or the port of a \
                     listener without TLS",
                    Self { tls: true, ..self.clone() }.protocol()
                ),
            ),
            ProbeOutcome::Tls => None,
            ProbeOutcome::Kafka { apis, .. } if !apis.contains_key(&api::METADATA) => problem(
                "is the listener of a controller, which serves no clients".into(),
                "give the port of the brokers in `log`".into(),
            ),
            ProbeOutcome::Kafka { .. } if self.tls => problem(
                "speaks Kafka without TLS, and security.protocol asks for TLS".into(),
                format!(
                    "give the port of its listener with TLS, or security.protocol = \"{}\"",
                    Self { tls: false, ..self.clone() }.protocol()
                ),
            ),
            ProbeOutcome::Kafka { sasl, .. } => self.login_problem(sasl),
        }
    }

    fn login_problem(&self, sasl: &SaslSupport) -> Option<ListenerProblem> {
        let (clause, fix) = match (sasl, &self.mechanism) {
            (SaslSupport::Mechanisms(offered), None) => (
                format!("wants a login ({}), and none is configured", or_list(offered)),
                format!(
                    "give security.protocol = \"{}\", sasl.mechanism, sasl.username and \
                     sasl.password in kafka.properties",
                    Self { mechanism: Some(String::new()), ..self.clone() }.protocol()
                ),
            ),
            (SaslSupport::None, Some(_)) => (
                "knows no login, and security.protocol asks for one".into(),
                format!(
                    "give security.protocol = \"{}\" in kafka.properties, or the port of a \
                     listener with SASL",
                    Self { mechanism: None, ..self.clone() }.protocol()
                ),
            ),
            (SaslSupport::Mechanisms(offered), Some(ours)) if !offered.contains(ours) => (
                format!("offers a login by {}, and {ours} is configured", or_list(offered)),
                "give one that is offered as sasl.mechanism in kafka.properties".into(),
            ),
            _ => return None,
        };
        Some(ListenerProblem { clause, fix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(properties: &[(&str, &str)], tls: bool, mechanism: Option<&str>) {
        let mut config = Config::new("127.0.0.1:1", "t.");
        for (name, value) in properties {
            config.properties.insert((*name).to_owned(), (*value).to_owned());
        }
        let found = Security::of(&config);
        assert_eq!((found.tls, found.mechanism.as_deref()), (tls, mechanism), "{properties:?}");
    }

    #[test]
    fn security_follows_from_the_properties() {
        check(&[], false, None);
        check(&[("security.protocol", "ssl")], true, None);
        check(&[("security.protocol", "SASL_SSL")], true, Some("GSSAPI"));
        let plain = ("sasl.mechanism", "PLAIN");
        check(&[("security.protocol", "sasl_plaintext"), plain], false, Some("PLAIN"));
        check(&[("security.protocol", "PLAINTEXT"), plain], false, None);
    }
}
