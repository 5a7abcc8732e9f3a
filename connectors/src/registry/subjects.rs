//! Requests of the command line: whether the registry answers, has our schemas, and accepts them.
//!
//! A subject is a name under which versions of one schema are registered. Registering a schema
//! again returns its existing id, so every request here may be repeated.

use std::time::Duration;

use serde_json::{Value, json};

use super::client::SchemaRegistry;
use super::exchange::{ExchangeError, RegistryRefusal, path_segment};
use crate::clock;

/// The pause before a node that is not up to date is asked again.
const RETRY_EVERY: Duration = Duration::from_millis(100);
/// The registry has no such subject.
const NO_SUBJECT: u64 = 40401;
/// The subject has no such version, or none is left.
const NO_VERSION: u64 = 40402;
/// The subject has other schemas but not this one.
const NO_SCHEMA: u64 = 40403;

/// A schema in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The id that records carry.
    pub id: u64,
    /// The version within the subject.
    pub version: u64,
}

/// How a schema compares with what the registry has under a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectStatus {
    /// The same schema is registered.
    Same(Registered),
    /// Another schema is registered, and this one is compatible with it.
    Compatible,
    /// Another schema is registered, and this one is not compatible; the registry's reason.
    Incompatible(String),
    /// No schema is registered.
    Missing,
}

/// Why a request about a subject failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectFault {
    /// The registry rejected the request; its reason.
    #[error("{0}")]
    Refused(String),
    /// It does not answer, or rejects the login.
    #[error("{0}")]
    Unavailable(String),
}

impl SchemaRegistry {
    /// How many subjects it has. Also the check that it answers at all.
    pub fn count_subjects(&self) -> Result<usize, SubjectFault> {
        let answer = self.exchange.ask("/subjects", None, self.exchange.deadline())?;
        answer
            .as_array()
            .map(Vec::len)
            .ok_or_else(|| self.unexpected_answer("the list of its subjects"))
    }

    /// Registers an Avro schema under a subject.
    pub fn register(&self, subject: &str, schema: &str) -> Result<Registered, SubjectFault> {
        let path = format!("/subjects/{}/versions", path_segment(subject));
        self.exchange.ask(&path, Some(&json!({"schema": schema})), self.exchange.deadline())?;
        // The answer may have no version, so the schema is looked up. Another node of the registry
        // may answer that, and may not be up to date.
        let deadline = self.exchange.deadline();
        loop {
            match self.look_up(subject, schema)? {
                Ok(registered) => return Ok(registered),
                Err(_) if clock::now() < deadline => clock::pause(RETRY_EVERY),
                Err(RegistryRefusal { message, .. }) => {
                    return Err(SubjectFault::Refused(format!(
                        "it was registered, but can't be found: {message}; try again"
                    )));
                }
            }
        }
    }

    /// How an Avro schema compares with the subject's.
    pub fn status(&self, subject: &str, schema: &str) -> Result<SubjectStatus, SubjectFault> {
        match self.look_up(subject, schema)? {
            Ok(registered) => return Ok(SubjectStatus::Same(registered)),
            Err(RegistryRefusal { code: NO_SUBJECT, .. }) => return Ok(SubjectStatus::Missing),
            Err(RegistryRefusal { code: NO_SCHEMA, .. }) => {}
            Err(refusal) => return Err(ExchangeError::Refused(refusal).into()),
        }
        let subject = path_segment(subject);
        let path = format!("/compatibility/subjects/{subject}/versions/latest?verbose=true");
        let body = json!({"schema": schema});
        let answer = match self.exchange.ask(&path, Some(&body), self.exchange.deadline()) {
            Err(ExchangeError::Refused(RegistryRefusal {
                code: NO_SUBJECT | NO_VERSION, ..
            })) => {
                return Ok(SubjectStatus::Missing);
            }
            other => other?,
        };
        match answer.get("is_compatible").and_then(Value::as_bool) {
            Some(true) => Ok(SubjectStatus::Compatible),
            Some(false) => Ok(SubjectStatus::Incompatible(self.messages(&answer))),
            None => Err(self.unexpected_answer("is_compatible")),
        }
    }

    fn look_up(
        &self,
        subject: &str,
        schema: &str,
    ) -> Result<Result<Registered, RegistryRefusal>, SubjectFault> {
        let (path, body) =
            (format!("/subjects/{}", path_segment(subject)), json!({"schema": schema}));
        let answer = match self.exchange.ask(&path, Some(&body), self.exchange.deadline()) {
            Err(ExchangeError::Refused(refusal)) => return Ok(Err(refusal)),
            other => other?,
        };
        let number = |name: &str| answer.get(name).and_then(Value::as_u64);
        match (number("id"), number("version")) {
            (Some(id), Some(version)) => Ok(Ok(Registered { id, version })),
            _ => Err(self.unexpected_answer("an id and a version")),
        }
    }

    fn messages(&self, answer: &Value) -> String {
        let list = answer.get("messages").and_then(Value::as_array);
        let texts: Vec<&str> = list.into_iter().flatten().filter_map(Value::as_str).collect();
        match texts[..] {
            [] => "the registry gives no reason".to_owned(),
            _ => self.exchange.sanitize(&texts.join("; ")),
        }
    }

    fn unexpected_answer(&self, missing: &str) -> SubjectFault {
        SubjectFault::Unavailable(format!(
            "{} answers, but without {missing}; check that registry.url is a schema registry",
            self.addresses()
        ))
    }
}

impl From<ExchangeError> for SubjectFault {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Refused(RegistryRefusal { code, message }) => {
                Self::Refused(format!("{message} ({code})"))
            }
            ExchangeError::Unavailable(why)
            | ExchangeError::Denied(why)
            | ExchangeError::NoPath(why)
            | ExchangeError::Unrecognized(why)
            | ExchangeError::TooLarge(why) => Self::Unavailable(why),
        }
    }
}
