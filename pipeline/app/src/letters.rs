//! `tidewire dead-letters`: listed, shown, requeued, dropped.
//!
//! The embedded log belongs to one process: while one runs on the folder it is asked over HTTP,
//! otherwise the folder is opened here. Kafka belongs to everybody and is opened here. Behind both
//! is the same [`Desk`], which is asked the same pairs and gives the same answers.
//!
//! Much is done by asking again and again: each call does a bounded part, and what it did stays
//! done, so that a verb that is interrupted is just run again.

mod ask;
mod desk;
mod print;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use serde_json::Value;
use tidewire_connectors::socket::verbs::{Effect, Verb};
use tidewire_engine::letters::LettersError;
use tidewire_engine::port::LogError;

use crate::cli::{LettersArgs, LettersVerb, ResolveArgs, TopicsWhere, WhichLetters};
use crate::config::{Config, LogConfig};
use crate::data;
use crate::ending::Ending;
use crate::remote::Remote;
use crate::{start, terminal};

use ask::{Pairs, query};
use desk::{Question, Trouble};

pub use desk::Desk;

/// Ids of one request: they have to fit into the head of an HTTP request.
const IDS_AT_ONCE: usize = 32;

/// The desk's routes in a running process.
pub fn verbs(desk: Desk) -> Vec<Verb> {
    let verb = |path, effect, question| {
        let desk = desk.clone();
        let run = move |pairs: &[(String, String)]| Ok(desk.answer(question, pairs)?);
        Verb { path, effect, run: Arc::new(run) }
    };
    [Question::List, Question::Show, Question::Requeue, Question::Drop]
        .map(|question| verb(path_of(question), effect_of(question), question))
        .into()
}

fn path_of(question: Question) -> &'static str {
    match question {
        Question::List => "/v1/dead-letters",
        Question::Show => "/v1/dead-letters/show",
        Question::Requeue => "/v1/dead-letters/requeue",
        Question::Drop => "/v1/dead-letters/drop",
    }
}

fn effect_of(question: Question) -> Effect {
    match question {
        Question::List | Question::Show => Effect::Looks,
        Question::Requeue | Question::Drop => Effect::Changes,
    }
}

/// Does what was asked for.
pub fn run(args: &LettersArgs) -> Result<(), Ending> {
    match &args.verb {
        LettersVerb::List { which, all, json, at } => {
            let mut pairs = pairs_of(which);
            pairs.extend(all.then(|| pair("all", "true")));
            let answer = Place::find(at)?.ask(Question::List, &pairs)?;
            if *json { list_json(&answer) } else { list(&answer) }
        }
        LettersVerb::Show { id, raw, at } => {
            let answer = Place::find(at)?.ask(Question::Show, &[pair("id", id)])?;
            let letters = letters_in(&answer);
            if letters.is_empty() {
                return Err(Ending::failed(format!(
                    "there is no dead letter {id}; `tidewire dead-letters list --all` has them all"
                )));
            }
            letters
                .iter()
                .try_for_each(|one| if *raw { print::raw(one) } else { print::whole(one) })
        }
        LettersVerb::Requeue(args) => resolve(Question::Requeue, args),
        LettersVerb::Drop(args) => resolve(Question::Drop, args),
    }
}

fn pair(name: &str, text: &str) -> (String, String) {
    (name.to_owned(), text.to_owned())
}

fn pairs_of(which: &WhichLetters) -> Pairs {
    let mut pairs = Pairs::new();
    pairs.extend(which.reason.iter().map(|reason| pair("reason", reason)));
    pairs.extend(which.source.iter().map(|source| pair("source", source)));
    pairs.extend(which.since.iter().map(|since| pair("since", since)));
    pairs.extend(which.until.iter().map(|until| pair("until", until)));
    pairs.extend(which.limit.iter().map(|limit| pair("limit", &limit.to_string())));
    pairs
}

fn letters_in(answer: &Value) -> &[Value] {
    answer["letters"].as_array().map_or(&[], Vec::as_slice)
}

fn list_json(answer: &Value) -> Result<(), Ending> {
    letters_in(answer).iter().try_for_each(|letter| terminal::say(&letter.to_string()))
}

fn list(answer: &Value) -> Result<(), Ending> {
    let letters = letters_in(answer);
    if letters.is_empty() {
        terminal::complain("no dead letter matches; --all lists those that are resolved too");
        return Ok(());
    }
    print::table(letters)?;
    let matching = answer["matching"].as_u64().unwrap_or_default();
    if matching > letters.len() as u64 {
        terminal::complain(&format!(
            "these are the newest {} of {matching}; --limit shows more",
            letters.len()
        ));
    }
    Ok(())
}

/// What all calls together came to.
#[derive(Default)]
struct Sum {
    done: BTreeMap<String, u64>,
    absent: Vec<String>,
    unable: u64,
}

impl Sum {
    fn count(&self) -> u64 {
        self.done.values().sum()
    }

    /// Adds an answer; says how many are left to be asked for again.
    fn add(&mut self, answer: &Value) -> u64 {
        for (reason, count) in answer["done"].as_object().into_iter().flatten() {
            *self.done.entry(reason.clone()).or_default() += count.as_u64().unwrap_or_default();
        }
        answer["left"].as_u64().unwrap_or_default()
    }
}

fn resolve(question: Question, args: &ResolveArgs) -> Result<(), Ending> {
    let mut pairs = pairs_of(&args.which);
    pairs.extend(args.all_open.then(|| pair("all_open", "true")));
    pairs.extend(args.dry_run.then(|| pair("dry_run", "true")));
    pairs.extend(args.because.iter().map(|because| pair("because", because)));
    // Before anything is opened: what is asked wrongly needs no log to say so.
    let whole: Pairs =
        pairs.iter().cloned().chain(args.ids.iter().map(|id| pair("id", id))).collect();
    let read = ask::Ask::read(&whole).and_then(|ask| ask.check_chosen());
    read.map_err(Ending::Usage)?;
    let place = Place::find(&args.at)?;
    let mut sum = Sum::default();
    if args.ids.is_empty() {
        resolve_all(&place, question, (&pairs, args), &mut sum)?;
    }
    for ids in args.ids.chunks(IDS_AT_ONCE) {
        let mut pairs = pairs.clone();
        pairs.extend(ids.iter().map(|id| pair("id", id)));
        resolve_all(&place, question, (&pairs, args), &mut sum)?;
    }
    conclude(question, args, &sum)
}

/// Asks until nothing is left or the limit is reached.
fn resolve_all(
    place: &Place,
    question: Question,
    (pairs, args): (&Pairs, &ResolveArgs),
    sum: &mut Sum,
) -> Result<(), Ending> {
    let limit = args.which.limit.map(u64::from);
    let mut first = true;
    loop {
        let rest = limit.map(|limit| limit.saturating_sub(sum.count()));
        if rest == Some(0) {
            return Ok(());
        }
        let mut pairs = pairs.clone();
        pairs.retain(|(name, _)| name != "limit");
        pairs.extend(rest.map(|rest| pair("limit", &rest.to_string())));
        let before = sum.count();
        let answer = place.ask(question, &pairs).map_err(|error| said(sum, error))?;
        let left = sum.add(&answer);
        if first {
            sum.unable += answer["unable"].as_u64().unwrap_or_default();
            let absent = answer["absent"].as_array().into_iter().flatten();
            sum.absent.extend(absent.filter_map(Value::as_str).map(str::to_owned));
            first = false;
        }
        if left == 0 || args.dry_run || sum.count() == before {
            return Ok(());
        }
        terminal::complain(&format!("{} done, {left} left", sum.count()));
    }
}

/// What was done before the failure stays done, and is said.
fn said(sum: &Sum, error: Ending) -> Ending {
    if sum.count() > 0 {
        terminal::complain(&format!("{} letters were done before this failed:", sum.count()));
    }
    error
}

fn conclude(question: Question, args: &ResolveArgs, sum: &Sum) -> Result<(), Ending> {
    let word = match (question, args.dry_run) {
        (Question::Requeue, false) => "requeued",
        (Question::Requeue, true) => "would requeue",
        (_, false) => "dropped",
        (_, true) => "would drop",
    };
    let done: Vec<(String, u64)> = sum.done.clone().into_iter().collect();
    terminal::say(&format!("{word} {}", print::counted(&done)))?;
    if sum.unable > 0 {
        terminal::complain(&format!(
            "{} have nowhere to go back to (what timers left, or another deployment's); `tidewire \
             dead-letters drop` gives them up",
            sum.unable
        ));
    }
    if sum.absent.is_empty() {
        return Ok(());
    }
    Err(Ending::failed(format!(
        "not open, or not there: {}; `tidewire dead-letters show` tells what became of one",
        sum.absent.join(", ")
    )))
}

/// Where the letters are.
enum Place {
    Process(Remote, String),
    Here(Box<Opened>),
}

/// A log that was opened for the verb.
struct Opened {
    desk: Desk,
    config: Config,
}

impl Place {
    fn find(at: &TopicsWhere) -> Result<Self, Ending> {
        if let Some(url) = &at.url {
            return Ok(Self::Process(Remote::new(url)?, url.clone()));
        }
        let config = start::configure(&at.settings)?;
        if config.log != LogConfig::Embedded {
            return Self::open(config);
        }
        let url = format!("http://{}", config.listen);
        let running = Remote::new(&url)?;
        let answers = || matches!(running.ask("/v1/stats"), Ok(Some(_)));
        let dir = config.data.dir.clone();
        if fs::metadata(dir.join("log")).is_err() {
            if answers() {
                return Ok(Self::Process(running, url));
            }
            return Err(Ending::failed(format!(
                "there is no data in {}, and nothing answers at {url}; --data-dir names another \
                 folder, --url a running process, --log kafka://HOST:PORT another log",
                dir.display()
            )));
        }
        // The folder is what is meant, unless a process has it: then that one is asked.
        match Self::open(config) {
            Err(_) if answers() => Ok(Self::Process(running, url)),
            Err(error) => Err(error),
            opened => opened,
        }
    }

    fn open(config: Config) -> Result<Self, Ending> {
        let log = data::open_log(&config)?;
        let desk = Desk::new(log, config.topology());
        Ok(Self::Here(Box::new(Opened { desk, config })))
    }

    fn ask(&self, question: Question, pairs: &[(String, String)]) -> Result<Value, Ending> {
        match self {
            Self::Here(opened) => {
                let answer = opened.desk.answer(question, pairs);
                answer.map_err(|trouble| ending_of(trouble, &opened.config))
            }
            Self::Process(remote, url) => {
                let path = format!("{}{}", path_of(question), query(pairs));
                let answer = match effect_of(question) {
                    Effect::Looks => remote.ask(&path)?,
                    Effect::Changes => remote.change(&path)?,
                };
                answer.ok_or_else(|| {
                    Ending::failed(format!("no answer from {url}; is it running? Run it again"))
                })
            }
        }
    }
}

fn ending_of(trouble: Trouble, config: &Config) -> Ending {
    match trouble {
        Trouble::Asked(text) => Ending::Usage(text),
        Trouble::Failed(LettersError::Log { done, source: LogError::Retry(cause) }) => {
            let message = data::unanswered(config);
            let done =
                if done > 0 { format!(" ({done} letters were done)") } else { String::new() };
            Ending::LostLog { message: message + &done, source: Some(cause) }
        }
        Trouble::Failed(LettersError::Log { source: error @ LogError::Invalid(_), .. }) => {
            Ending::of_log("could not read the dead letters".into(), error)
        }
        Trouble::Failed(error) => Ending::because("could not do that with dead letters", error),
    }
}
