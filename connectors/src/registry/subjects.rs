//! What the command line asks of a registry: whether it answers, whether it has our schemas, and to
//! take them.
//!
//! A subject is a name under which versions of one schema are registered. Registering what is
//! there already gives its old id, so everything here may be repeated.

use std::time::Duration;

use serde_json::{Value, json};

use super::client::SchemaRegistry;
use super::exchange::{Failure, Refusal, segment};
use crate::clock;

/// How long a node that is behind is given before it is asked again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
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
pub enum Standing {
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
        answer.as_array().map(Vec::len).ok_or_else(|| self.strange("its subjects"))
    }

    /// Registers an Avro schema under a subject.
    pub fn register(&self, subject: &str, schema: &str) -> Result<Registered, SubjectFault> {
        let path = format!("/subjects/{}/versions", segment(subject));
        self.exchange.ask(&path, Some(&json!({"schema": schema})), self.exchange.deadline())?;
        // The first answer may say no version, so what is there now is asked for. Another node of
        // the registry may answer that, and be a little behind.
        let deadline = self.exchange.deadline();
        loop {
            match self.look_up(subject, schema)? {
                Ok(registered) => return Ok(registered),
                Err(_) if clock::now() < deadline => clock::pause(LOOK_AGAIN),
                Err(Refusal { message, .. }) => {
                    return Err(SubjectFault::Refused(format!(
                        "it was taken, but is not there now: {message}"
                    )));
                }
            }
        }
    }

    /// How an Avro schema stands to the subject's.
    pub fn standing(&self, subject: &str, schema: &str) -> Result<Standing, SubjectFault> {
        match self.look_up(subject, schema)? {
            Ok(registered) => return Ok(Standing::Same(registered)),
            Err(Refusal { code: NO_SUBJECT, .. }) => return Ok(Standing::Missing),
            Err(Refusal { code: NO_SCHEMA, .. }) => {}
            Err(refusal) => return Err(Failure::Refused(refusal).into()),
        }
        let subject = segment(subject);
        let path = format!("/compatibility/subjects/{subject}/versions/latest?verbose=true");
        let body = json!({"schema": schema});
        let answer = match self.exchange.ask(&path, Some(&body), self.exchange.deadline()) {
            Err(Failure::Refused(Refusal { code: NO_SUBJECT | NO_VERSION, .. })) => {
                return Ok(Standing::Missing);
            }
            other => other?,
        };
        match answer.get("is_compatible").and_then(Value::as_bool) {
            Some(true) => Ok(Standing::Compatible),
            Some(false) => Ok(Standing::Incompatible(self.messages(&answer))),
            None => Err(self.strange("whether schemas are compatible")),
        }
    }

    fn look_up(
        &self,
        subject: &str,
        schema: &str,
    ) -> Result<Result<Registered, Refusal>, SubjectFault> {
        let (path, body) = (format!("/subjects/{}", segment(subject)), json!({"schema": schema}));
        let answer = match self.exchange.ask(&path, Some(&body), self.exchange.deadline()) {
            Err(Failure::Refused(refusal)) => return Ok(Err(refusal)),
            other => other?,
        };
        let number = |name: &str| answer.get(name).and_then(Value::as_u64);
        match (number("id"), number("version")) {
            (Some(id), Some(version)) => Ok(Ok(Registered { id, version })),
            _ => Err(self.strange("what it has registered")),
        }
    }

    fn messages(&self, answer: &Value) -> String {
        let list = answer.get("messages").and_then(Value::as_array);
        let texts: Vec<&str> = list.into_iter().flatten().filter_map(Value::as_str).collect();
        match texts[..] {
            [] => "the registry does not say why".to_owned(),
            _ => self.exchange.own_words(&texts.join("; ")),
        }
    }

    fn strange(&self, asked: &str) -> SubjectFault {
        SubjectFault::Unavailable(format!(
            "{} answers, but does not say {asked}; check that registry.url is a schema registry",
            self.places()
        ))
    }
}

impl From<Failure> for SubjectFault {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(Refusal { code, message }) => {
                Self::Refused(format!("{message} ({code})"))
            }
            Failure::Unavailable(why) | Failure::TooLarge(why) => Self::Unavailable(why),
        }
    }
}
