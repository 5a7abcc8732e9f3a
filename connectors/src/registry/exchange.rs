//! One request to the registry over HTTP: its tries, its time limits, and how answers are read.
//!
//! A failed try goes to the next address. Once all were tried there is a pause, which doubles. An
//! error of the registry's API or a rejected login ends the tries. Redirects are not followed,
//! since a login would be sent along.
//!
//! The client is ureq, which blocks and can be limited in time and bytes. Existing registry clients
//! read a body of any size, and the blocking ones panic inside an async runtime.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use ureq::http::Response;
use ureq::tls::{RootCerts, TlsConfig};

use super::config::{Config, Credentials, QueryPolicy};
use crate::clock;

/// Bytes of an answer: a schema of 1 MiB with its quotation marks escaped, and some more.
const ANSWER_BYTES_MAX: u64 = 2 << 20;
/// Characters of a registry's message that an error repeats.
const MESSAGE_CHARS_MAX: usize = 300;
/// The first pause between two tries; each further one is twice as long.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// The content type of the API.
const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";
const ACCEPT: &str = "application/vnd.schemaregistry.v1+json, application/json";

/// Sends requests to the registry.
pub(super) struct Exchange {
    agent: ureq::Agent,
    urls: Vec<String>,
    /// Index of the address that answered last.
    first: AtomicUsize,
    authorization: Option<String>,
    /// Secrets that must not be repeated from an answer.
    secrets: Vec<String>,
    policy: QueryPolicy,
}

/// An error answer of the registry's API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RegistryRefusal {
    /// The API's error code: 40401 unknown subject, 40402 unknown version, 40403 unknown schema,
    /// 409 incompatible, 42201 invalid schema.
    pub(super) code: u64,
    pub(super) message: String,
}

/// Why a request failed.
#[derive(Debug)]
pub(super) enum ExchangeError {
    /// The API answered with an error.
    Refused(RegistryRefusal),
    /// It can't be asked: no answer, an error of the server, too many requests, a rejected login.
    Unavailable(String),
    /// The login may not read this.
    Denied(String),
    /// It has no such path.
    NoPath(String),
    /// It answered, but not like a schema registry.
    Unrecognized(String),
    /// The answer is larger than the limit.
    TooLarge(String),
}

/// How long a request may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct AskLimit {
    /// The end of the question that the request belongs to.
    pub(super) deadline: Instant,
    /// Tries; at least one per address.
    pub(super) tries: usize,
}

/// The outcome of one try.
enum AttemptOutcome {
    Done(Value),
    /// No answer, or an error of the server; another try may help.
    Retry(String),
    /// A path that it does not have; another try may help.
    NoPath(String),
    /// An answer that no registry gives; another try may help.
    Unrecognized(String),
    /// No further try will help.
    Failed(ExchangeError),
}

impl Exchange {
    pub(super) fn new(config: &Config) -> Self {
        let certificates =
            config.certificates().expect("the settings were checked when they were read");
        let roots = certificates.map_or(RootCerts::WebPki, RootCerts::from);
        let agent = ureq::Agent::config_builder()
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            // An error status still has a body that says why.
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent("tidewire")
            .build()
            .into();
        let (authorization, secrets) = match &config.credentials {
            Credentials::None => (None, Vec::new()),
            Credentials::Basic { username, password } => {
                let pair = STANDARD.encode(format!("{username}:{password}"));
                (Some(format!("Basic {pair}")), vec![pair, password.clone()])
            }
            Credentials::Bearer(token) => (Some(format!("Bearer {token}")), vec![token.clone()]),
        };
        Self {
            agent,
            urls: config.urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect(),
            first: AtomicUsize::new(0),
            authorization,
            secrets: secrets.into_iter().filter(|secret| !secret.is_empty()).collect(),
            policy: config.policy,
        }
    }

    /// The addresses, for messages.
    pub(super) fn addresses(&self) -> String {
        self.urls.join(", ")
    }

    /// The deadline of a question that begins now.
    pub(super) fn deadline(&self) -> Instant {
        clock::now() + self.policy.limit
    }

    /// The limit of a question that begins now.
    pub(super) fn limit(&self) -> AskLimit {
        AskLimit { deadline: self.deadline(), tries: self.policy.tries }
    }

    /// Gets the path, or posts the body to it if there is one, with all tries. The path begins with
    /// `/`.
    pub(super) fn ask(
        &self,
        path: &str,
        body: Option<&Value>,
        deadline: Instant,
    ) -> Result<Value, ExchangeError> {
        self.ask_within(path, body, AskLimit { deadline, tries: self.policy.tries })
    }

    /// The same within a limit.
    pub(super) fn ask_within(
        &self,
        path: &str,
        body: Option<&Value>,
        limit: AskLimit,
    ) -> Result<Value, ExchangeError> {
        let AskLimit { deadline, tries } = limit;
        let first = self.first.load(Ordering::Relaxed);
        let (since, mut backoff) = (clock::now(), FIRST_BACKOFF);
        let mut last = "no time was left for a request".to_owned();
        let (mut tried, mut failed_as) = (0, ExchangeError::Unavailable as fn(String) -> _);
        while tried < tries.max(self.urls.len()) {
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                break;
            }
            let at = (first + tried) % self.urls.len();
            tried += 1;
            match self.attempt(&self.urls[at], path, body, left.min(self.policy.try_limit)) {
                AttemptOutcome::Done(answer) => {
                    self.first.store(at, Ordering::Relaxed);
                    return Ok(answer);
                }
                AttemptOutcome::Failed(failure) => return Err(failure),
                AttemptOutcome::Retry(why) => (last, failed_as) = (why, ExchangeError::Unavailable),
                AttemptOutcome::NoPath(why) => (last, failed_as) = (why, ExchangeError::NoPath),
                AttemptOutcome::Unrecognized(why) => {
                    (last, failed_as) = (why, ExchangeError::Unrecognized);
                }
            }
            if tried.is_multiple_of(self.urls.len()) && tried < tries {
                clock::pause(backoff.min(deadline.saturating_duration_since(clock::now())));
                backoff *= 2;
            }
        }
        let took = clock::now().saturating_duration_since(since);
        Err(failed_as(format!(
            "{last} (tried {tried} times in {took:.1?}); check that the schema registry runs, and \
             registry.url"
        )))
    }

    /// Whether a schema registry answers, asked with one try.
    pub(super) fn is_registry(&self, deadline: Instant) -> bool {
        let answer = self.ask_within("/schemas/types", None, AskLimit { deadline, tries: 1 });
        let Ok(Value::Array(types)) = answer else { return false };
        types.iter().any(|known| known == "AVRO")
    }

    fn attempt(
        &self,
        url: &str,
        path: &str,
        body: Option<&Value>,
        limit: Duration,
    ) -> AttemptOutcome {
        let address = format!("{url}{path}");
        let sent = match body {
            None => {
                let request = self.agent.get(&address).config().timeout_global(Some(limit)).build();
                self.with_headers(request).call()
            }
            Some(body) => {
                let request =
                    self.agent.post(&address).config().timeout_global(Some(limit)).build();
                let request = self.with_headers(request).content_type(CONTENT_TYPE);
                request.send(body.to_string().as_bytes())
            }
        };
        match sent {
            Ok(response) => self.read_response(&address, response),
            Err(error) => AttemptOutcome::Retry(format!("{url}: {}", describe(&error))),
        }
    }

    fn with_headers<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        let request = request.header("accept", ACCEPT);
        match &self.authorization {
            Some(authorization) => request.header("authorization", authorization),
            None => request,
        }
    }

    fn read_response(&self, address: &str, mut response: Response<ureq::Body>) -> AttemptOutcome {
        let status = response.status().as_u16();
        let read = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let body = match read {
            Ok(body) => body,
            Err(ureq::Error::BodyExceedsLimit(_)) => {
                return AttemptOutcome::Failed(ExchangeError::TooLarge(format!(
                    "{address} answers with more than {} MiB, which is the limit",
                    ANSWER_BYTES_MAX >> 20
                )));
            }
            Err(error) => return AttemptOutcome::Retry(format!("{address}: {error}")),
        };
        let answer = serde_json::from_slice::<Value>(&body).ok();
        match (status, answer) {
            (200..=299, Some(answer)) => AttemptOutcome::Done(answer),
            (200..=299, None) => AttemptOutcome::Unrecognized(format!(
                "{address} answers, but not with JSON like a schema registry"
            )),
            (401, _) => AttemptOutcome::Failed(ExchangeError::Unavailable(
                self.login_problem(address, status),
            )),
            (403, _) => {
                AttemptOutcome::Failed(ExchangeError::Denied(self.login_problem(address, status)))
            }
            (300..=399, _) => AttemptOutcome::Failed(ExchangeError::Unavailable(format!(
                "{address} answers {status}, a redirect; set registry.url to its target"
            ))),
            (408 | 429 | 500..=599, answer) => {
                let words = answer.and_then(|answer| self.refusal(&answer));
                let words = words.map_or(String::new(), |refusal| format!(": {}", refusal.message));
                AttemptOutcome::Retry(format!("{address} answers {status}{words}"))
            }
            (_, answer) => match answer.and_then(|answer| self.refusal(&answer)) {
                Some(refusal) => AttemptOutcome::Failed(ExchangeError::Refused(refusal)),
                None if status == 404 => AttemptOutcome::NoPath(format!(
                    "{address} answers {status}, but not like a schema registry; check registry.url"
                )),
                None => AttemptOutcome::Unrecognized(format!(
                    "{address} answers {status}, but not like a schema registry; check registry.url"
                )),
            },
        }
    }

    fn login_problem(&self, address: &str, status: u16) -> String {
        let fix = match &self.authorization {
            None => "give registry.username and registry.password, or registry.token",
            Some(_) if status == 401 => {
                "the login was rejected; check registry.username and registry.password, or \
                 registry.token"
            }
            Some(_) => "the login lacks the permission; grant it, or use another login",
        };
        format!("{address} answers {status}: {fix}")
    }

    /// An error answer of the API: `{"error_code": 40403, "message": "…"}`.
    fn refusal(&self, answer: &Value) -> Option<RegistryRefusal> {
        let code = answer.get("error_code")?.as_u64()?;
        let message = answer.get("message").and_then(Value::as_str).unwrap_or("no reason given");
        Some(RegistryRefusal { code, message: self.sanitize(message) })
    }

    /// Text of the registry, safe to repeat in an error: short, on one line, without our secrets.
    pub(super) fn sanitize(&self, text: &str) -> String {
        let mut words = text.to_owned();
        for secret in &self.secrets {
            words = words.replace(secret.as_str(), "…");
        }
        let plain = words.chars().map(|c| if c.is_control() { ' ' } else { c });
        let mut short: String = plain.take(MESSAGE_CHARS_MAX).collect();
        if short.len() < words.len() {
            short.push('…');
        }
        short
    }
}

fn describe(error: &ureq::Error) -> String {
    let text = error.to_string();
    if text.contains("certificate") {
        return format!("{text}; for an authority of your own, set registry.ca");
    }
    text
}

/// Percent-encodes a text as one segment of a path.
pub(super) fn path_segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_stays_one_segment_of_the_path() {
        assert_eq!(path_segment("tidewire.post.Created"), "tidewire.post.Created");
        assert_eq!(path_segment("../a b/é?"), "..%2Fa%20b%2F%C3%A9%3F");
    }

    #[test]
    fn a_registrys_message_is_shortened_and_holds_no_secret() {
        let credentials = Credentials::Basic { username: "ann".into(), password: "s3cret".into() };
        let config = Config {
            urls: Vec::new(),
            credentials,
            authorities: None,
            policy: QueryPolicy::default(),
        };
        let exchange = Exchange::new(&config);
        let authorization = exchange.authorization.clone().expect("a login");
        let message = exchange.sanitize(&format!("no\n{authorization} s3cret {}", "x".repeat(999)));
        assert!(message.starts_with("no Basic … … x") && message.ends_with("x…"), "{message}");
        assert!(message.chars().count() <= MESSAGE_CHARS_MAX + 1, "{message}");
    }
}
