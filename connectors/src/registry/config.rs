//! Settings of the schema registry client: addresses, credentials and time limits.
//!
//! Secrets are never printed: not in an error, a log line or a debug text.

use std::fmt;
use std::time::Duration;

use ureq::tls::{Certificate, PemItem};

/// Settings of the schema registry client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Addresses of one registry, such as `http://127.0.0.1:8081`; after a failure the next one is
    /// tried.
    pub urls: Vec<String>,
    /// The login.
    pub credentials: Credentials,
    /// PEM certificates of the authorities that are trusted; `None`: the public ones.
    pub authorities: Option<String>,
    /// Time limits and tries.
    pub policy: QueryPolicy,
}

/// A login to the registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// No login.
    None,
    /// HTTP basic authentication: a user, or an API key.
    Basic {
        /// The user, or the API key.
        username: String,
        /// The password, or the API secret.
        password: String,
    },
    /// A bearer token.
    Bearer(String),
}

/// Time limits of requests. The batch of a record waits for them, so they are short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryPolicy {
    /// One try, from the connection to the answer's last byte.
    pub try_limit: Duration,
    /// All tries for one schema, those for its references included.
    pub limit: Duration,
    /// Tries of one request; at least one per address.
    pub tries: usize,
    /// For how long an unknown id, or one whose schema can't be used, is not requested again.
    pub unknown_pause: Duration,
    /// The longest time for which nothing is requested while the registry is away, so that a
    /// thousand records don't wait one by one. The first times are shorter.
    pub unavailable_pause: Duration,
}

impl Config {
    /// Parses [`Self::authorities`]; an error says what is wrong with them.
    pub fn certificates(&self) -> Result<Option<Vec<Certificate<'static>>>, String> {
        let Some(pem) = &self.authorities else { return Ok(None) };
        let mut certificates = Vec::new();
        for item in ureq::tls::parse_pem(pem.as_bytes()) {
            match item {
                Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
                Ok(_) => {}
                Err(error) => return Err(format!("it is not valid PEM: {error}")),
            }
        }
        if certificates.is_empty() {
            return Err(
                "it contains no certificate; give the certificates of the authorities as PEM"
                    .into(),
            );
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
