//! Where the registry is, who we are to it, and how long it is waited for.
//!
//! What proves who we are is never printed: not in an error, a log line or a debug text.

use std::fmt;
use std::time::Duration;

use ureq::tls::{Certificate, PemItem};

/// Where the registry is, and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Addresses of one registry, such as `http://127.0.0.1:8081`; one that fails makes way for the
    /// next.
    pub urls: Vec<String>,
    /// Who we are.
    pub credentials: Credentials,
    /// Certificates, as PEM, of the authorities that may vouch for it; `None`: the public ones.
    pub authorities: Option<String>,
    /// How long it is waited for.
    pub policy: QueryPolicy,
}

/// Who we are to the registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Nobody.
    None,
    /// A user, or the key of an API.
    Basic {
        /// Its name.
        username: String,
        /// Its password, or the API's secret.
        password: String,
    },
    /// Whoever has this token.
    Bearer(String),
}

/// How long the registry is waited for. A record's batch waits with it, so all of it is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryPolicy {
    /// One try, from the connection to the answer's last byte.
    pub try_limit: Duration,
    /// All tries of one question, those for referred schemas included.
    pub limit: Duration,
    /// Tries of one request, or as many as there are addresses if those are more.
    pub tries: usize,
    /// For how long an id it does not have, or whose schema can't be used, is not asked again.
    pub unknown_pause: Duration,
    /// For how long nothing is asked after it did not answer, so that a thousand records don't
    /// wait one by one.
    pub unavailable_pause: Duration,
}

impl Config {
    /// The certificates of [`Self::authorities`]; an error says what is wrong with them.
    pub fn certificates(&self) -> Result<Option<Vec<Certificate<'static>>>, String> {
        let Some(pem) = &self.authorities else { return Ok(None) };
        let mut certificates = Vec::new();
        for item in ureq::tls::parse_pem(pem.as_bytes()) {
            match item {
                Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
                Ok(_) => {}
                Err(error) => return Err(format!("it is no PEM: {error}")),
            }
        }
        if certificates.is_empty() {
            return Err("no certificate stands in it; give those of the authorities as PEM".into());
        }
        Ok(Some(certificates))
    }
}

impl Default for QueryPolicy {
    fn default() -> Self {
        Self {
            try_limit: Duration::from_secs(2),
            limit: Duration::from_secs(5),
            tries: 3,
            unknown_pause: Duration::from_secs(30),
            unavailable_pause: Duration::from_secs(5),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Basic { .. } => "Basic",
            Self::Bearer(_) => "Bearer",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_printed_without_secrets() {
        let basic = Credentials::Basic { username: "ann".into(), password: "s3cret".into() };
        for credentials in [basic, Credentials::Bearer("s3cret".into())] {
            assert!(!format!("{credentials:?}").contains("s3cret"));
        }
    }
}
