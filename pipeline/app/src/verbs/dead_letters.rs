//! `tidewire dead-letters`: lists, shows, requeues and drops dead letters.
//!
//! The embedded log belongs to one process: a running one is asked over HTTP, the folder of a
//! stopped one is opened here. Kafka is opened here. Both ways lead to the same [`AdminApi`], with
//! the same parameters and the same answers.
//!
//! Each call resolves a bounded number of dead letters, and the command repeats it until none is
//! left. What a call did stays done, so an interrupted command is run again.

mod admin;
mod print;
mod query;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tidewire_connectors::socket::http::admin::{AdminEndpoint, Effect};
use tidewire_engine::dead_letters::DeadLettersError;
use tidewire_engine::port::LogError;

use crate::api_client::ApiClient;
use crate::cli::{DeadLetterFilter, DeadLettersArgs, DeadLettersVerb, LogArgs, ResolveArgs};
use crate::config::{Config, LogConfig};
use crate::process_exit::ProcessExit;
use crate::runtime::storage;
use crate::verbs::running_process::{self, AtListen, has_log, no_data};
use crate::{configure, terminal};

pub(crate) use admin::Action;
use admin::AdminError;
pub(crate) use query::{LIST_MAX, query_string, time};
use query::{Parameters, names_of};

pub use admin::AdminApi;

/// Ids of one request: they have to fit in the head of an HTTP request.
const IDS_PER_REQUEST: usize = 32;

/// The admin endpoints for dead letters.
pub fn verbs(api: AdminApi) -> Vec<AdminEndpoint> {
    let verb = |path, effect, action| {
        let api = api.clone();
        let run = move |parameters: &[(String, String)]| Ok(api.handle(action, parameters)?);
        AdminEndpoint { path, effect, parameters: names_of(action), run: Arc::new(run) }
    };
    Action::ALL.map(|action| verb(path_of(action), effect_of(action), action)).into()
}

pub(crate) fn path_of(action: Action) -> &'static str {
    match action {
        Action::List => "/v1/dead-letters",
        Action::Show => "/v1/dead-letters/show",
        Action::Requeue => "/v1/dead-letters/requeue",
        Action::Drop => "/v1/dead-letters/drop",
    }
}

pub(crate) fn effect_of(action: Action) -> Effect {
    match action {
        Action::List | Action::Show => Effect::ReadOnly,
        Action::Requeue | Action::Drop => Effect::Mutating,
    }
}

/// Runs the subcommand.
pub fn run(args: &DeadLettersArgs) -> Result<(), ProcessExit> {
    match &args.verb {
        DeadLettersVerb::List { which, all, json, at } => {
            let mut parameters = parameters_of(which);
            parameters.extend(all.then(|| parameter("all", "true")));
            let answer = Backend::find(at, Action::List)?.call(Action::List, &parameters)?;
            if *json {
                return list_json(&answer);
            }
            if entries_in(&answer)?.is_empty() {
                let hint = if *all { "" } else { "; --all includes those that are resolved" };
                terminal::print_notice(&format!("no dead letter matches{hint}"));
                return Ok(());
            }
            list(&answer)
        }
        DeadLettersVerb::Show { id, raw, at } => {
            let answer =
                Backend::find(at, Action::Show)?.call(Action::Show, &[parameter("id", id)])?;
            let found = entries_in(&answer)?;
            if found.is_empty() {
                return Err(ProcessExit::failed(format!(
                    "there is no dead letter {id}; `tidewire dead-letters list --all` lists all"
                )));
            }
            found.iter().try_for_each(|one| if *raw { print::raw(one) } else { print::whole(one) })
        }
        DeadLettersVerb::Requeue(args) => resolve(Action::Requeue, args),
        DeadLettersVerb::Drop(args) => resolve(Action::Drop, args),
    }
}

fn parameter(name: &str, text: &str) -> (String, String) {
    (name.to_owned(), text.to_owned())
}

fn parameters_of(which: &DeadLetterFilter) -> Parameters {
    let mut parameters = Parameters::new();
    parameters.extend(which.reason.iter().map(|reason| parameter("reason", reason)));
    parameters.extend(which.source.iter().map(|source| parameter("source", source)));
    parameters.extend(which.operator.iter().map(|name| parameter("operator", name)));
    parameters.extend(which.since.iter().map(|since| parameter("since", since)));
    parameters.extend(which.until.iter().map(|until| parameter("until", until)));
    parameters.extend(which.limit.iter().map(|limit| parameter("limit", &limit.to_string())));
    parameters
}

fn entries_in(answer: &Value) -> Result<&[Value], ProcessExit> {
    answer["dead_letters"].as_array().map(Vec::as_slice).ok_or_else(|| {
        ProcessExit::failed(
            "the answer of the server has no `dead_letters`; use the tidewire of its version",
        )
    })
}

fn list_json(answer: &Value) -> Result<(), ProcessExit> {
    let entries = entries_in(answer)?;
    entries.iter().try_for_each(|entry| terminal::print_line(&entry.to_string()))?;
    say_what_is_left(answer, entries.len());
    Ok(())
}

fn list(answer: &Value) -> Result<(), ProcessExit> {
    let entries = entries_in(answer)?;
    print::table(entries)?;
    say_what_is_left(answer, entries.len());
    Ok(())
}

/// Says on standard error that the list is not whole.
fn say_what_is_left(answer: &Value, listed: usize) {
    let matching = answer["matching"].as_u64().unwrap_or_default();
    if matching > listed as u64 {
        let text = format!("listed the newest {listed} of {matching}; --limit N lists more");
        terminal::print_notice(&text);
    }
}

/// The results of all calls together.
#[derive(Default)]
struct ResolveTotals {
    done: BTreeMap<String, u64>,
    absent: Vec<String>,
    unable: u64,
}

impl ResolveTotals {
    fn count(&self) -> u64 {
        self.done.values().sum()
    }

    /// Adds an answer; returns how many are left for further calls.
    fn add(&mut self, answer: &Value) -> u64 {
        for (reason, count) in answer["done"].as_object().into_iter().flatten() {
            *self.done.entry(reason.clone()).or_default() += count.as_u64().unwrap_or_default();
        }
        answer["left"].as_u64().unwrap_or_default()
    }

    /// Adds those that could not be resolved. Every call for the same ids reports the same ones.
    fn add_exceptions(&mut self, answer: &Value) {
        self.unable += answer["unable"].as_u64().unwrap_or_default();
        let absent = answer["absent"].as_array().into_iter().flatten();
        self.absent.extend(absent.filter_map(Value::as_str).map(str::to_owned));
    }
}

fn resolve(action: Action, args: &ResolveArgs) -> Result<(), ProcessExit> {
    let mut parameters = parameters_of(&args.which);
    parameters.extend(args.all_open.then(|| parameter("all_open", "true")));
    parameters.extend(args.dry_run.then(|| parameter("dry_run", "true")));
    parameters.extend(args.because.iter().map(|because| parameter("because", because)));
    // Before anything is opened: a wrong selection is reported without a log.
    let whole: Parameters =
        parameters.iter().cloned().chain(args.ids.iter().map(|id| parameter("id", id))).collect();
    let read = query::Query::read(&whole).and_then(|query| query.check_selection());
    read.map_err(ProcessExit::Usage)?;
    let backend = Backend::find(&args.at, action)?;
    let mut run = ResolveRun { backend, action, args, totals: ResolveTotals::default() };
    if args.ids.is_empty() {
        run.resolve_all(&parameters)?;
    }
    for ids in args.ids.chunks(IDS_PER_REQUEST) {
        let mut parameters = parameters.clone();
        parameters.extend(ids.iter().map(|id| parameter("id", id)));
        run.resolve_all(&parameters)?;
    }
    conclude(action, args, &run.totals)
}

/// One run of `requeue` or `drop`, which takes as many calls as there are chunks.
struct ResolveRun<'a> {
    backend: Backend,
    action: Action,
    args: &'a ResolveArgs,
    totals: ResolveTotals,
}

impl ResolveRun<'_> {
    /// Calls until nothing is left or the limit is reached.
    fn resolve_all(&mut self, parameters: &Parameters) -> Result<(), ProcessExit> {
        let limit = self.args.which.limit.map(u64::from);
        let mut first = true;
        loop {
            let before = self.totals.count();
            let rest = limit.map(|limit| limit.saturating_sub(before));
            if rest == Some(0) {
                return Ok(());
            }
            let mut parameters = parameters.clone();
            parameters.retain(|(name, _)| name != "limit");
            parameters.extend(rest.map(|rest| parameter("limit", &rest.to_string())));
            let answer = self.backend.call(self.action, &parameters);
            let answer = answer.map_err(|error| report_progress(&self.totals, error))?;
            let left = self.totals.add(&answer);
            if first {
                self.totals.add_exceptions(&answer);
                first = false;
            }
            if left == 0 || self.args.dry_run || self.totals.count() == before {
                return Ok(());
            }
            terminal::print_notice(&format!("{} done, {left} left", self.totals.count()));
        }
    }
}

/// Prints how many were resolved before the failure; they stay resolved.
fn report_progress(totals: &ResolveTotals, error: ProcessExit) -> ProcessExit {
    if totals.count() > 0 {
        terminal::print_notice(&format!(
            "{} dead letters were resolved before this error:",
            totals.count()
        ));
    }
    error
}

fn conclude(action: Action, args: &ResolveArgs, totals: &ResolveTotals) -> Result<(), ProcessExit> {
    let word = match (action, args.dry_run) {
        (Action::Requeue, false) => "requeued",
        (Action::Requeue, true) => "would requeue",
        (_, false) => "dropped",
        (_, true) => "would drop",
    };
    let done: Vec<(String, u64)> = totals.done.clone().into_iter().collect();
    terminal::print_line(&format!("{word} {}", print::counted(&done)))?;
    if totals.unable > 0 {
        terminal::print_notice(&format!(
            "{} cannot be requeued: they are of another deployment, or larger than 1,000,000 \
             bytes; `tidewire dead-letters drop` marks them as given up",
            totals.unable
        ));
    }
    if totals.absent.is_empty() {
        return Ok(());
    }
    Err(ProcessExit::failed(format!(
        "resolved already, unknown, or not matched by the other filters: {}; `tidewire \
         dead-letters show ID` prints what was done",
        totals.absent.join(", ")
    )))
}

/// Where the dead letters are.
enum Backend {
    Remote(ApiClient, String),
    Local(Box<LocalLog>),
}

/// A log that this command opened.
struct LocalLog {
    api: AdminApi,
    config: Config,
}

impl Backend {
    fn find(at: &LogArgs, action: Action) -> Result<Self, ProcessExit> {
        if let Some(url) = &at.url {
            return Ok(Self::Remote(ApiClient::new(url)?, url.clone()));
        }
        let config = configure::for_command(&at.settings)?;
        if config.log != LogConfig::Embedded {
            return Self::open(config);
        }
        match running_process::find(&config)? {
            AtListen::Ours(running) => Ok(Self::Remote(running.client, running.url)),
            AtListen::Only(running) if effect_of(action) == Effect::ReadOnly => {
                Ok(Self::Remote(running.client, running.url))
            }
            at_listen if !has_log(&config.data.dir) => Err(no_data(&config, &at_listen)),
            AtListen::Nothing | AtListen::Only(_) | AtListen::Other { .. } => Self::open(config),
        }
    }

    fn open(config: Config) -> Result<Self, ProcessExit> {
        let log = storage::open_log(&config)?;
        let api = AdminApi::new(log, config.topology());
        Ok(Self::Local(Box::new(LocalLog { api, config })))
    }

    fn call(&self, action: Action, parameters: &[(String, String)]) -> Result<Value, ProcessExit> {
        match self {
            Self::Local(opened) => {
                let answer = opened.api.handle(action, parameters);
                answer.map_err(|error| exit_of(error, &opened.config))
            }
            Self::Remote(client, url) => {
                let path = format!("{}{}", path_of(action), query_string(parameters));
                let answer = match effect_of(action) {
                    Effect::ReadOnly => client.get_json(&path)?,
                    Effect::Mutating => client.post_json(&path)?,
                };
                answer.ok_or_else(|| {
                    ProcessExit::failed(format!(
                        "no answer from {url}; check that the process runs, then repeat the command"
                    ))
                })
            }
        }
    }
}

fn exit_of(error: AdminError, config: &Config) -> ProcessExit {
    match error {
        AdminError::InvalidQuery(text) => ProcessExit::Usage(text),
        AdminError::Failed(DeadLettersError::Log { done, source: LogError::Retry(cause) }) => {
            let message = storage::unreachable_message(config);
            let done = if done > 0 { format!(" ({done} were resolved)") } else { String::new() };
            ProcessExit::LostLog { message: message + &done, source: Some(cause) }
        }
        AdminError::Failed(DeadLettersError::Log {
            source: error @ LogError::Invalid(_), ..
        }) => ProcessExit::of_log("could not read the dead letters".into(), error),
        AdminError::Failed(error) => {
            ProcessExit::because("could not read or resolve the dead letters", error)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::entries_in;

    #[test]
    fn an_answer_without_dead_letters_is_an_error_and_not_an_empty_list() {
        assert!(entries_in(&json!({ "dead_letters": [] })).is_ok_and(<[_]>::is_empty));
        let error = entries_in(&json!({ "letters": [{}] })).expect_err("of another version");
        assert!(error.to_string().contains("use the tidewire of its version"), "{error}");
    }
}
