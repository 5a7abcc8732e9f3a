//! The admin interface of dead letters: query parameters in, JSON out, on one log.
//!
//! Both the endpoints of a running process and a command that opened the log itself use it, so both
//! answer alike. Reading and resolving is done by the engine.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tidewire_connectors::socket::http::response::{ErrorResponse, HttpErrorCode};
use tidewire_engine::dead_letters::{
    DeadLetter, DeadLettersError, Filter, ListEntry, Listing, Resolution, ResolutionRecord,
    ResolveRequest, fetch, list, plan, resolutions_of, resolve,
};
use tidewire_engine::port::Log;
use tidewire_engine::record::Millis;
use tidewire_engine::topology::Topology;
use tidewire_schemas::time::format_rfc3339;

use super::query::Query;
use crate::process_exit::in_one_line;

/// Dead letters resolved by one call: the answer has to come within the client's timeout. Clients
/// repeat the call while some are left.
const RESOLVE_MAX: usize = 5_000;

/// The actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    List,
    Show,
    Requeue,
    Drop,
}

impl Action {
    /// Every action.
    pub(crate) const ALL: [Self; 4] = [Self::List, Self::Show, Self::Requeue, Self::Drop];
}

/// Why an action failed.
#[derive(Debug)]
pub(crate) enum AdminError {
    /// The parameters are invalid; the text says what is valid.
    InvalidQuery(String),
    /// The dead letters could not be read or resolved.
    Failed(DeadLettersError),
}

impl From<String> for AdminError {
    fn from(text: String) -> Self {
        Self::InvalidQuery(text)
    }
}

impl From<DeadLettersError> for AdminError {
    fn from(error: DeadLettersError) -> Self {
        Self::Failed(error)
    }
}

impl From<AdminError> for ErrorResponse {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::InvalidQuery(text) => Self::new(HttpErrorCode::InvalidQuery, text),
            AdminError::Failed(error @ DeadLettersError::TooMany) => {
                Self::new(HttpErrorCode::InvalidQuery, error.to_string())
            }
            AdminError::Failed(error @ DeadLettersError::TakenOver { .. }) => {
                Self::conflict(error.to_string())
            }
            AdminError::Failed(error) => Self::log_failed(in_one_line(&error)),
        }
    }
}

/// The dead letters of one log.
#[derive(Clone)]
pub struct AdminApi {
    log: Arc<dyn Log>,
    topology: Topology,
    /// Serialises the changes of this process. Changes of other processes are fenced.
    write_lock: Arc<Mutex<()>>,
}

impl AdminApi {
    /// The interface for this log.
    pub fn new(log: Arc<dyn Log>, topology: Topology) -> Self {
        Self { log, topology, write_lock: Arc::default() }
    }

    /// Runs an action.
    pub(crate) fn handle(
        &self,
        action: Action,
        parameters: &[(String, String)],
    ) -> Result<Value, AdminError> {
        let query = Query::read(parameters)?;
        match action {
            Action::List => self.list(&query),
            Action::Show => self.show(query),
            Action::Requeue => self.resolve(query, Resolution::Requeued),
            Action::Drop => self.resolve(query, Resolution::Dropped),
        }
    }

    fn list(&self, query: &Query) -> Result<Value, AdminError> {
        let limit = query.list_limit()?;
        let mut list = list(&*self.log, &self.topology, &query.filter)?;
        if !query.all {
            list = list.open();
        }
        let matching = list.entries.len();
        let newest = &list.entries[matching.saturating_sub(limit)..];
        let summaries = self.summaries(&list, newest)?;
        Ok(json!({ "dead_letters": summaries, "matching": matching }))
    }

    fn summaries(&self, list: &Listing, entries: &[ListEntry]) -> Result<Vec<Value>, AdminError> {
        let fetched = fetch(&*self.log, &self.topology, entries)?;
        Ok(fetched.iter().map(|dead_letter| summary(dead_letter, list)).collect())
    }

    fn show(&self, query: Query) -> Result<Value, AdminError> {
        if query.filter.ids.len() != 1 {
            return Err(AdminError::InvalidQuery("give one id, such as id=tw.in/3/7".into()));
        }
        let filter = Filter { ids: query.filter.ids, ..Filter::default() };
        let list = list(&*self.log, &self.topology, &filter)?;
        let mut all = Vec::new();
        for dead_letter in fetch(&*self.log, &self.topology, &list.entries)? {
            let resolutions = resolutions_of(&*self.log, &self.topology, &dead_letter)?;
            all.push(whole(&dead_letter, &list, &resolutions));
        }
        Ok(json!({ "dead_letters": all }))
    }

    fn resolve(&self, query: Query, resolution: Resolution) -> Result<Value, AdminError> {
        query.check_selection()?;
        let limit = if query.dry_run { query.limit } else { Some(chunk(query.limit)) };
        let request =
            ResolveRequest { filter: query.filter, resolution, because: query.because, limit };
        let done = if query.dry_run {
            plan(&*self.log, &self.topology, &request)?
        } else {
            // A holder that panicked is no problem: the next call completes what it left.
            let _guard = self.write_lock.lock().unwrap_or_else(PoisonError::into_inner);
            resolve(&*self.log, &self.topology, &request)?
        };
        Ok(json!({
            "done": done.done,
            "count": done.count(),
            "left": done.left,
            "unable": done.unable,
            "absent": done.absent,
        }))
    }
}

fn chunk(limit: Option<usize>) -> usize {
    limit.unwrap_or(RESOLVE_MAX).min(RESOLVE_MAX)
}

fn summary(dead_letter: &DeadLetter, list: &Listing) -> Value {
    let state = list.resolved.get(&dead_letter.at).map_or("open", |how| how.as_str());
    json!({
        "id": dead_letter.id(),
        "time": time_text(dead_letter.time()),
        "state": state,
        "reason": dead_letter.reason(),
        "field": dead_letter.field(),
        "detail": dead_letter.detail(),
        "bytes": dead_letter.value().map_or(0, <[u8]>::len),
        "operator": dead_letter.operator_failure().map(|failure| failure.operator),
    })
}

fn whole(dead_letter: &DeadLetter, list: &Listing, resolutions: &[ResolutionRecord]) -> Value {
    let mut out = summary(dead_letter, list);
    out["written"] = json!(time_text(dead_letter.written()));
    let failure = dead_letter.operator_failure();
    out["trigger"] = json!(failure.map(|failure| failure.trigger.as_str()));
    out["account"] = json!(failure.map(|failure| failure.account));
    out["emission"] = json!(failure.map(|failure| failure.emission));
    out["trail"] = json!(dead_letter.trail());
    out["key"] = bytes(dead_letter.source_key());
    out["value"] = bytes(dead_letter.value());
    let headers = dead_letter.own_headers().map(|(name, value)| json!([name, bytes(Some(value))]));
    out["headers"] = Value::Array(headers.collect());
    let resolutions = resolutions.iter().map(|record| {
        json!({
            "resolution": record.resolution.as_str(),
            "time": time_text(record.at),
            "to": record.to,
            "because": record.because,
        })
    });
    out["resolved"] = Value::Array(resolutions.collect());
    out
}

/// Bytes in JSON: `{"text": …}` if they are UTF-8, `{"hex": …}` if not.
fn bytes(bytes: Option<&[u8]>) -> Value {
    let Some(bytes) = bytes else { return Value::Null };
    match std::str::from_utf8(bytes) {
        Ok(text) => json!({ "text": text }),
        Err(_) => {
            let mut hex = String::with_capacity(bytes.len() * 2);
            for byte in bytes {
                for digit in [byte >> 4, byte & 15] {
                    hex.push(char::from_digit(u32::from(digit), 16).expect("four bits"));
                }
            }
            json!({ "hex": hex })
        }
    }
}

fn time_text(time: Millis) -> String {
    let mut text = String::new();
    format_rfc3339(time.0, &mut text);
    text
}
