//! HTTP client of a running process, for commands that don't open the log themselves.
//!
//! A request that may be repeated is repeated here, with growing waits and a time limit. Events
//! have ids before they get here, so a repeated request adds no event twice.

use std::io::{BufReader, ErrorKind};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::process_exit::ProcessExit;
use crate::runtime::clock::{self, Stopwatch};
use crate::terminal;

/// How long a connection may take to open.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long a response may take: an append waits for the log.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How long a stream may be silent: three times its keep-alive of 15 s.
const STREAM_SILENCE_LIMIT: Duration = Duration::from_secs(45);
/// How long a failing request is repeated.
const RETRY_LIMIT: Duration = Duration::from_secs(30);
/// The first wait; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// The result of one event.
#[derive(Debug, Deserialize)]
pub struct EventResult {
    /// Its id, if it was accepted.
    pub event_id: Option<String>,
    /// Why it was refused, if it was.
    pub error: Option<EventError>,
}

/// Why an event was refused.
#[derive(Debug, Deserialize)]
pub struct EventError {
    /// The reason, for programs.
    pub reason: String,
    /// The field that is invalid.
    pub field: Option<String>,
    /// The reason, for people.
    pub message: String,
}

#[derive(Deserialize)]
struct EventsResponse {
    events: Vec<EventResult>,
}

/// A running process.
#[derive(Clone, Debug)]
pub struct ApiClient {
    url: String,
    agent: ureq::Agent,
}

enum SendOutcome<T> {
    Done(T),
    Retry(SendFailure),
}

/// Why a batch of events has no results, and whether it may be in the log.
#[derive(Debug)]
pub enum SendFailure {
    /// Nothing of it was stored.
    NothingStored(ProcessExit),
    /// It may have been stored: the request was sent, and the response is missing or unclear.
    Unknown(ProcessExit),
}

impl From<SendFailure> for ProcessExit {
    fn from(failure: SendFailure) -> Self {
        match failure {
            SendFailure::NothingStored(exit) | SendFailure::Unknown(exit) => exit,
        }
    }
}

impl ApiClient {
    /// The process at this URL; nothing is sent yet.
    pub fn new(url: &str) -> Result<Self, ProcessExit> {
        let is_http = url.starts_with("http://") || url.starts_with("https://");
        if !is_http {
            return Err(ProcessExit::Usage(format!(
                "--url {url}: give a URL such as http://127.0.0.1:8080"
            )));
        }
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_LIMIT))
            .timeout_recv_response(Some(ANSWER_LIMIT))
            .timeout_per_read(Some(STREAM_SILENCE_LIMIT))
            .build()
            .into();
        Ok(Self { url: url.trim_end_matches('/').to_owned(), agent })
    }

    /// Sends a batch of NDJSON events and returns the result of each, in the same order.
    pub fn send(&self, batch: &[u8]) -> Result<Vec<EventResult>, SendFailure> {
        let answer = with_retries(|| self.send_once(batch))?;
        self.parse_results(&answer).map_err(SendFailure::Unknown)
    }

    /// The same in one attempt, for callers that retry themselves.
    pub fn try_send(&self, batch: &[u8]) -> Result<Vec<EventResult>, ProcessExit> {
        match self.send_once(batch)? {
            SendOutcome::Done(answer) => self.parse_results(&answer),
            SendOutcome::Retry(failure) => Err(failure.into()),
        }
    }

    fn parse_results(&self, answer: &str) -> Result<Vec<EventResult>, ProcessExit> {
        let response: EventsResponse =
            serde_json::from_str(answer).map_err(|error| self.unexpected(error))?;
        Ok(response.events)
    }

    fn unexpected(&self, error: serde_json::Error) -> ProcessExit {
        let message = format!("{} does not answer like Tidewire; check the URL", self.url);
        ProcessExit::because(message, error)
    }

    fn send_once(&self, batch: &[u8]) -> Result<SendOutcome<String>, SendFailure> {
        let request = self
            .agent
            .post(format!("{}/v1/events", self.url))
            .content_type("application/x-ndjson")
            .send(batch);
        let mut response = match request {
            Ok(response) => response,
            Err(error) => return Ok(SendOutcome::Retry(self.request_failure(error))),
        };
        let status = response.status().as_u16();
        let text = match response.body_mut().read_to_string() {
            Ok(text) => text,
            Err(error) => {
                return Ok(SendOutcome::Retry(SendFailure::Unknown(self.unreachable(error))));
            }
        };
        let failure = || self.error_response(status, &text);
        match status {
            // 422: none was accepted; the body has the reason of each.
            200..=299 | 422 if text.contains("\"events\"") => Ok(SendOutcome::Done(text)),
            200..=299 => Err(SendFailure::Unknown(failure())),
            429 => Ok(SendOutcome::Retry(SendFailure::NothingStored(failure()))),
            500..=599 => Ok(SendOutcome::Retry(SendFailure::Unknown(failure()))),
            _ => Err(SendFailure::NothingStored(failure())),
        }
    }

    /// Gets a JSON document. `None`: nothing listens at the URL.
    pub fn get_json(&self, path: &str) -> Result<Option<Value>, ProcessExit> {
        self.parse_document(self.agent.get(format!("{}{path}", self.url)).call())
    }

    fn parse_document(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Option<Value>, ProcessExit> {
        let mut response = match answer {
            Ok(response) => response,
            Err(ureq::Error::ConnectionFailed | ureq::Error::Io(_)) => return Ok(None),
            Err(error) => return Err(self.unreachable(error)),
        };
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string().map_err(|e| self.unreachable(e))?;
        if status != 200 {
            return Err(self.error_response(status, &text));
        }
        serde_json::from_str(&text).map(Some).map_err(|error| self.unexpected(error))
    }

    /// Posts to an admin endpoint, once, and returns its response. `None`: nothing listens at the
    /// URL.
    pub fn post_json(&self, path: &str) -> Result<Option<Value>, ProcessExit> {
        self.parse_document(self.agent.post(format!("{}{path}", self.url)).send_empty())
    }

    /// Checks whether the process is ready; the error says what it waits for.
    pub fn check_ready(&self) -> Result<(), ProcessExit> {
        let asked = self.agent.get(format!("{}/readyz", self.url)).call();
        let mut response = asked.map_err(|error| self.unreachable(error))?;
        match response.status().as_u16() {
            200 => Ok(()),
            status => {
                let text = response.body_mut().read_to_string().unwrap_or_default();
                Err(self.error_response(status, &text))
            }
        }
    }

    /// Opens a stream of server-sent events. The inner error may pass, the outer one does not.
    pub fn stream(
        &self,
        path_and_query: &str,
        resume: Option<&str>,
    ) -> Result<Result<impl std::io::BufRead + use<>, ProcessExit>, ProcessExit> {
        let mut request = self.agent.get(format!("{}{path_and_query}", self.url));
        request = request.header("accept", "text/event-stream");
        if let Some(position) = resume {
            request = request.header("last-event-id", position);
        }
        let mut response = match request.call() {
            Ok(response) => response,
            Err(error) => return Ok(Err(self.unreachable(error))),
        };
        match response.status().as_u16() {
            200 => Ok(Ok(BufReader::new(response.into_body().into_reader()))),
            status => {
                let text = response.body_mut().read_to_string().unwrap_or_default();
                let error_response = self.error_response(status, &text);
                if status == 429 || status >= 500 {
                    Ok(Err(error_response))
                } else {
                    Err(error_response)
                }
            }
        }
    }

    /// A request that failed before a response came. Without a connection nothing was sent.
    fn request_failure(&self, error: ureq::Error) -> SendFailure {
        let refused = match &error {
            ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => true,
            ureq::Error::Io(error) => error.kind() == ErrorKind::ConnectionRefused,
            _ => false,
        };
        let exit = self.unreachable(error);
        if refused { SendFailure::NothingStored(exit) } else { SendFailure::Unknown(exit) }
    }

    fn unreachable(&self, error: ureq::Error) -> ProcessExit {
        ProcessExit::because(
            format!(
                "no answer from {}; check that it runs (`tidewire dev` starts it), or give another \
                 --url",
                self.url
            ),
            error,
        )
    }

    fn error_response(&self, status: u16, text: &str) -> ProcessExit {
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        match value["error"]["message"].as_str() {
            Some(message) => {
                ProcessExit::failed(format!("{} answered {status}: {message}", self.url))
            }
            None => ProcessExit::failed(format!(
                "{} answered {status}, and not as Tidewire does; check the URL",
                self.url
            )),
        }
    }
}

/// Repeats a request until it succeeds, is refused, or the time limit is over.
fn with_retries<T>(
    attempt: impl Fn() -> Result<SendOutcome<T>, SendFailure>,
) -> Result<T, SendFailure> {
    let since = Stopwatch::start();
    let mut wait = FIRST_WAIT;
    let mut unknown = false;
    // What one attempt may have stored, no later one takes back.
    let fail = |unknown, last: SendFailure| match last {
        SendFailure::NothingStored(exit) if unknown => SendFailure::Unknown(exit),
        last => last,
    };
    loop {
        match attempt().map_err(|last| fail(unknown, last))? {
            SendOutcome::Done(value) => return Ok(value),
            SendOutcome::Retry(last) if since.elapsed() + wait > RETRY_LIMIT => {
                return Err(fail(unknown, last));
            }
            SendOutcome::Retry(last) => {
                unknown |= matches!(last, SendFailure::Unknown(_));
                if wait == FIRST_WAIT {
                    let last = ProcessExit::from(last);
                    terminal::print_notice(&format!(
                        "tidewire: {last}; trying again for {RETRY_LIMIT:?}"
                    ));
                }
                clock::pause(wait);
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    }
}
