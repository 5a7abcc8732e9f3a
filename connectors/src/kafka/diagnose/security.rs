//! The TLS and SASL settings that clients use, read from the properties of librdkafka.
//!
//! Values are read as librdkafka reads them: the protocol in any case, and a default mechanism.
//! Secrets are not read.

use crate::kafka::config::Config;

/// librdkafka's default mechanism.
const DEFAULT_MECHANISM: &str = "GSSAPI";

/// What the properties configure.
#[derive(Clone, Debug)]
pub(super) struct Security {
    pub(super) tls: bool,
    /// The SASL mechanism, if a login is configured.
    pub(super) mechanism: Option<String>,
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

    /// The value of `security.protocol` for these settings.
    pub(super) fn protocol(&self) -> &'static str {
        match (self.tls, &self.mechanism) {
            (false, None) => "PLAINTEXT",
            (true, None) => "SSL",
            (false, Some(_)) => "SASL_PLAINTEXT",
            (true, Some(_)) => "SASL_SSL",
        }
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
