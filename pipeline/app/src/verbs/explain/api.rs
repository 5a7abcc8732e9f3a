//! Answers a question about an event from a log and the folder of an index, as JSON.
//!
//! Both the endpoint of a running process and a command that opened the log itself use it. A call
//! reads a bounded part of the audit; while some is left, the answer says only how much.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tidewire_connectors::rocks::{self, RocksStores};
use tidewire_connectors::socket::http::response::{ErrorResponse, HttpErrorCode};
use tidewire_engine::explain::{
    ExplainError, ExplainQuery, IndexState, UpdateRequest, explain, update_index,
};
use tidewire_engine::operators::OPERATORS;
use tidewire_engine::port::{Log, LogError};
use tidewire_engine::record::Millis;
use tidewire_engine::replay::ReadOnlyLog;
use tidewire_engine::topology::Topology;
use tidewire_schemas::time::format_rfc3339;

use crate::config::Config;
use crate::process_exit::{ProcessExit, in_one_line};
use crate::runtime::locked_folder::{Claim, LockedFolder};
use crate::runtime::storage;
use crate::verbs::dead_letters::time;

/// Bytes of the audit that one call reads: the answer has to come within the client's timeout.
const BYTES_PER_CALL: usize = 32 << 20;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum ExplainFailure {
    /// The parameters are invalid; the text says what is valid.
    InvalidQuery(String),
    /// Another process uses the index.
    InUse(String),
    /// The folder of the index can't be used.
    Folder(ProcessExit),
    Failed(ExplainError),
}

impl From<ExplainError> for ExplainFailure {
    fn from(error: ExplainError) -> Self {
        Self::Failed(error)
    }
}

impl From<ExplainFailure> for ErrorResponse {
    fn from(failure: ExplainFailure) -> Self {
        match failure {
            ExplainFailure::InvalidQuery(text) => Self::new(HttpErrorCode::InvalidQuery, text),
            ExplainFailure::InUse(text) => Self::conflict(text),
            ExplainFailure::Folder(exit) => Self::log_failed(exit.to_string()),
            ExplainFailure::Failed(error) => Self::log_failed(in_one_line(&error)),
        }
    }
}

impl ExplainFailure {
    /// How a command ends with it.
    pub(super) fn exit(self, config: &Config) -> ProcessExit {
        match self {
            Self::InvalidQuery(text) => ProcessExit::Usage(text),
            Self::InUse(text) => ProcessExit::failed(text),
            Self::Folder(exit) => exit,
            Self::Failed(ExplainError::Log(LogError::Retry(cause))) => ProcessExit::LostLog {
                message: storage::unreachable_message(config),
                source: Some(cause),
            },
            Self::Failed(ExplainError::Log(error)) => {
                ProcessExit::of_log("could not read the audit".into(), error)
            }
            Self::Failed(error @ ExplainError::NoAudit(_)) => ProcessExit::Usage(error.to_string()),
            Self::Failed(error) => ProcessExit::because(
                "could not read or write the index; remove its folder, then repeat the command",
                error,
            ),
        }
    }
}

/// The parameters of a question.
struct Question {
    id: String,
    account: Option<String>,
    since: Option<Millis>,
}

/// Checks parameters without a log; the error says what is valid.
pub(super) fn check(parameters: &[(String, String)]) -> Result<(), String> {
    read(parameters).map(drop)
}

fn read(parameters: &[(String, String)]) -> Result<Question, String> {
    let (mut id, mut account, mut since) = (None, None, None);
    for (name, text) in parameters {
        match name.as_str() {
            "id" => id = Some(text.clone()),
            "account" => account = Some(text.clone()),
            "since" => since = Some(time(name, text)?),
            _ => return Err(format!("there is no parameter {name}; give id, account, since")),
        }
    }
    let id = id.filter(|id| !id.is_empty()).ok_or("give the id of an event, such as id=e-1")?;
    Ok(Question { id, account, since })
}

/// Explains the events of one log.
#[derive(Clone)]
pub struct ExplainApi {
    log: ReadOnlyLog,
    topology: Topology,
    folder: PathBuf,
    /// One question of this process at a time: the index is open once.
    lock: Arc<Mutex<()>>,
}

impl ExplainApi {
    /// For this log, with its index in this folder.
    pub fn new(log: &Arc<dyn Log>, topology: &Topology, folder: PathBuf) -> Self {
        let (log, topology) = (ReadOnlyLog::new(log.clone()), topology.clone());
        Self { log, topology, folder, lock: Arc::default() }
    }

    /// Brings the index up to date, as far as one call may, and answers if it is.
    pub(super) fn handle(&self, parameters: &[(String, String)]) -> Result<Value, ExplainFailure> {
        let question = read(parameters).map_err(ExplainFailure::InvalidQuery)?;
        // A holder that panicked has left an index that is whole: its writes are atomic.
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = match LockedFolder::claim(&self.folder).map_err(ExplainFailure::Folder)? {
            Claim::Locked(folder) => folder,
            Claim::InUseBy(holder) => {
                return Err(ExplainFailure::InUse(format!(
                    "another `tidewire explain` ({holder}) is using {}; wait until it ends, or \
                     give another --index",
                    self.folder.display()
                )));
            }
        };
        let stores = RocksStores::new(rocks::Config::new(folder.dir()));
        let (log, topology, since) = (&self.log, &self.topology, question.since);
        let request = UpdateRequest { log, topology, since, bytes_max: BYTES_PER_CALL };
        let state = update_index(&*stores, request)?;
        let mut answer = json!({});
        if state.left == 0 {
            let (id, account) = (&question.id[..], question.account.as_deref());
            let query = ExplainQuery { log, topology, id, account };
            answer = explain(&*stores, OPERATORS, query)?;
        }
        answer["index"] = index(state);
        Ok(answer)
    }
}

fn index(state: IndexState) -> Value {
    let since = state.since.map(|since| {
        let mut text = String::new();
        format_rfc3339(since.0, &mut text);
        text
    });
    json!({
        "left": state.left,
        "unreadable": state.unreadable,
        "since": since,
        "empty": state.is_empty,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_parameter_is_refused_with_what_is_valid() {
        let of = |name: &str, text: &str| vec![(name.to_owned(), text.to_owned())];
        assert_eq!(check(&of("id", "e-1")), Ok(()));
        for (parameters, part) in [
            (of("id", ""), "give the id"),
            (of("account", "a"), "give the id"),
            (of("colour", "blue"), "give id, account, since"),
            (of("since", "yesterday"), "give one such as 2026-"),
        ] {
            let error = check(&parameters).expect_err("wrong");
            assert!(error.contains(part), "{error}");
        }
    }
}
