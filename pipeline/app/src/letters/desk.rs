//! The desk: dead letters of one log, asked for by pairs and answered in JSON.
//!
//! The same stands behind the routes of a running process and behind the command line that opened
//! the log itself, so both answer alike. What is done with the letters is the engine's.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tidewire_connectors::socket::answer::Failure;
use tidewire_engine::letters::{
    Entry, Filter, Index, Letter, LettersError, Mark, Order, Resolution, fetch, index, marks_of,
    plan, resolve,
};
use tidewire_engine::port::Log;
use tidewire_engine::record::Millis;
use tidewire_engine::topology::Topology;
use tidewire_schemas::time::format_rfc3339;

use super::ask::Ask;
use crate::ending::in_one_line;

/// Letters resolved by one call: it has to be answered while the client still listens. Whoever asks
/// asks again while some are left.
const RESOLVE_MAX: usize = 5_000;

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    List,
    Show,
    Requeue,
    Drop,
}

/// Why a question is not answered.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It was asked wrongly; the text says what is right.
    Asked(String),
    /// The letters could not be read or resolved.
    Failed(LettersError),
}

impl From<String> for Trouble {
    fn from(text: String) -> Self {
        Self::Asked(text)
    }
}

impl From<LettersError> for Trouble {
    fn from(error: LettersError) -> Self {
        Self::Failed(error)
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Asked(text) => Self::bad("invalid_query", text),
            Trouble::Failed(error @ LettersError::TooMany) => {
                Self::bad("invalid_query", error.to_string())
            }
            Trouble::Failed(error @ LettersError::TakenOver { .. }) => {
                Self::conflict(error.to_string())
            }
            Trouble::Failed(error) => Self::unanswered(in_one_line(&error)),
        }
    }
}

/// Dead letters of one log.
#[derive(Clone)]
pub struct Desk {
    log: Arc<dyn Log>,
    topology: Topology,
    /// In one process those who change something wait for each other. Other processes are fenced.
    turn: Arc<Mutex<()>>,
}

impl Desk {
    /// The desk of this log.
    pub fn new(log: Arc<dyn Log>, topology: Topology) -> Self {
        Self { log, topology, turn: Arc::default() }
    }

    /// Answers.
    pub(crate) fn answer(
        &self,
        question: Question,
        pairs: &[(String, String)],
    ) -> Result<Value, Trouble> {
        let ask = Ask::read(pairs)?;
        match question {
            Question::List => self.list(&ask),
            Question::Show => self.show(ask),
            Question::Requeue => self.resolve(ask, Resolution::Requeued),
            Question::Drop => self.resolve(ask, Resolution::Dropped),
        }
    }

    fn list(&self, ask: &Ask) -> Result<Value, Trouble> {
        let limit = ask.list_limit()?;
        let mut index = index(&*self.log, &self.topology, &ask.filter)?;
        if !ask.all {
            index = index.open();
        }
        let matching = index.entries.len();
        let newest = &index.entries[matching.saturating_sub(limit)..];
        let letters = self.told(&index, newest)?;
        Ok(json!({ "letters": letters, "matching": matching }))
    }

    fn told(&self, index: &Index, entries: &[Entry]) -> Result<Vec<Value>, Trouble> {
        let letters = fetch(&*self.log, &self.topology, entries)?;
        Ok(letters.iter().map(|letter| summary(letter, index)).collect())
    }

    fn show(&self, ask: Ask) -> Result<Value, Trouble> {
        if ask.filter.ids.len() != 1 {
            return Err(Trouble::Asked("give one id, such as id=tw.in/3/7".into()));
        }
        let filter = Filter { ids: ask.filter.ids, ..Filter::default() };
        let index = index(&*self.log, &self.topology, &filter)?;
        let mut all = Vec::new();
        for letter in fetch(&*self.log, &self.topology, &index.entries)? {
            let marks = marks_of(&*self.log, &self.topology, &letter)?;
            all.push(whole(&letter, &index, &marks));
        }
        Ok(json!({ "letters": all }))
    }

    fn resolve(&self, ask: Ask, resolution: Resolution) -> Result<Value, Trouble> {
        ask.check_chosen()?;
        let limit = if ask.dry_run { ask.limit } else { Some(chunk(ask.limit)) };
        let order = Order { filter: ask.filter, resolution, because: ask.because, limit };
        let done = if ask.dry_run {
            plan(&*self.log, &self.topology, &order)?
        } else {
            // A holder that panicked left nothing half done that the next does not end.
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            resolve(&*self.log, &self.topology, &order)?
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

fn summary(letter: &Letter, index: &Index) -> Value {
    let state = index.resolved.get(&letter.at).map_or("open", |how| how.as_str());
    json!({
        "id": letter.id(),
        "time": time_text(letter.time()),
        "state": state,
        "reason": letter.reason(),
        "field": letter.field(),
        "detail": letter.detail(),
        "bytes": letter.value().map_or(0, <[u8]>::len),
    })
}

fn whole(letter: &Letter, index: &Index, marks: &[Mark]) -> Value {
    let mut told = summary(letter, index);
    told["written"] = json!(time_text(letter.written()));
    told["trail"] = json!(letter.trail());
    told["key"] = bytes(letter.source_key());
    told["value"] = bytes(letter.value());
    let headers = letter.own_headers().map(|(name, value)| json!([name, bytes(Some(value))]));
    told["headers"] = Value::Array(headers.collect());
    let marks = marks.iter().map(|mark| {
        json!({
            "resolution": mark.resolution.as_str(),
            "time": time_text(mark.at),
            "to": mark.to,
            "because": mark.because,
        })
    });
    told["resolved"] = Value::Array(marks.collect());
    told
}

/// Bytes in JSON: `{"text": …}` where they are UTF-8, `{"hex": …}` where not.
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
