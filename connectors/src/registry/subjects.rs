//! What the command line asks of a registry: whether it answers, whether it has our schemas, and to
//! take them.
//!
//! A subject is a name under which versions of one schema are registered. Registering what is
//! there already gives its old id, so everything here may be repeated.

use std::time::Duration;

use serde_json::{Value, json};

use super::client::SchemaRegistry;
use super::exchange::{ExchangeError, RegistryRefusal, path_segment};
use crate::clock;

/// How long a node that is behind is given before it is asked again.
const RETRY_EVERY: Duration = Duration::from_millis(100);
/// The registry has no such subject.
const NO_SUBJECT: u64 = 40401;
/// The subject has no such version, or none is left.
const NO_VERSION: u64 = 40402;
/// The subject has other schemas, not this one.
const NO_SCHEMA: u64 = 40403;

/// A schema in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// What stands in records.
    pub id: u64,
    /// Which of the subject's versions.
    pub version: u64,
}

/// How a schema stands to what the registry has under a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectStatus {
    /// It is there.
    Same(Registered),
    /// Another one is there, and this one may follow it.
    Compatible,
    /// Another one is there, and this one may not follow it; in the registry's own words.
    Incompatible(String),
    /// Nothing is there.
    Missing,
}

/// Why a question about a subject has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectFault {
    /// The registry says no to this one; in its own words.
    #[error("{0}")]
    Refused(String),
    /// It does not answer, or not to us.
    #[error("{0}")]
    Unavailable(String),
}

impl SchemaRegistry {
    /// How many subjects it has: the question whether it answers us at all.
    pub fn count_subjects(&self) -> Result<usize, SubjectFault> {
        let answer = self.exchange.ask("/subjects", None, self.exchange.deadline())?;
        answer.as_array().map(Vec::len).ok_or_else(|| self.unexpected_answer("its subjects"))
    }

    /// Registers an Avro schema under a subject.
    pub fn register(&self, subject: &str, schema: &str) -> Result<Registered, SubjectFault> {
        let path = format!("/subjects/{}/versions", path_segment(subject));
        self.exchange.ask(&path, Some(&json!({"schema": schema})), self.exchange.deadline())?;
        // The first answer may say no version, so what is there now is asked for. Another node of
        // the registry may answer that, and be a little behind.
        let deadline = self.exchange.deadline();
        loop {
            match self.look_up(subject, schema)? {
                Ok(registered) => return Ok(registered),
                Err(_) if clock::now() < deadline => clock::pause(RETRY_EVERY),
                Err(RegistryRefusal { message, .. }) => {
                    return Err(SubjectFault::Refused(format!(
                        "it was taken, but is not there now: {message}"
                    )));
                }
            }
        }
    }

    /// How an Avro schema stands to the subject's.
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
            None => Err(self.unexpected_answer("whether schemas are compatible")),
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
            _ => Err(self.unexpected_answer("what it has registered")),
        }
    }

    fn messages(&self, answer: &Value) -> String {
        let list = answer.get("messages").and_then(Value::as_array);
        let texts: Vec<&str> = list.into_iter().flatten().filter_map(Value::as_str).collect();
        match texts[..] {
            [] => "the registry does not say why".to_owned(),
            _ => self.exchange.sanitize(&texts.join("; ")),
        }
    }

    fn unexpected_answer(&self, asked: &str) -> SubjectFault {
        SubjectFault::Unavailable(format!(
            "{} answers, but does not say {asked}; check that registry.url is a schema registry",
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
            ExchangeError::Unavailable(why) | ExchangeError::TooLarge(why) => {
                Self::Unavailable(why)
            }
        }
    }
}
