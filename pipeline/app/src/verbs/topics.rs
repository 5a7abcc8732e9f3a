//! `tidewire topics`: creates, lists and describes topics.
//!
//! The embedded log belongs to one process, so a running one is asked over HTTP, and the folder is
//! opened only if none answers. Kafka is asked directly.

use std::time::Duration;

use serde_json::Value;
use tidewire_connectors::socket::http::admin::Effect;

use crate::api_client::ApiClient;
use crate::cli::{LogArgs, TopicsArgs, TopicsVerb};
use crate::config::{Config, LogConfig};
use crate::process_exit::ProcessExit;
use crate::runtime::retry::{AttemptError, with_retries};
use crate::runtime::startup::START_LIMIT;
use crate::runtime::stop_signal::StopSignal;
use crate::runtime::storage::{self, TopicReport};
use crate::verbs::running_process::{self, AtListen, has_log, no_data};
use crate::{configure, terminal};

/// Runs the subcommand.
pub fn run(args: &TopicsArgs) -> Result<(), ProcessExit> {
    match &args.verb {
        TopicsVerb::Create(at) => create(at),
        TopicsVerb::List(at) => list(&reports(at)?),
        TopicsVerb::Describe { topic, at } => describe(topic, &reports(at)?),
    }
}

fn create(at: &LogArgs) -> Result<(), ProcessExit> {
    let config = configure::for_command(&at.settings)?;
    if let Some((url, reports)) = running(at, &config, Effect::Mutating)? {
        return terminal::print_line(&format!(
            "{url} runs on this log and has created its {} topics",
            reports.len()
        ));
    }
    let log = storage::open_log(&config)?;
    // Often started together with a broker, so it waits for the broker.
    let created = with_retries(START_LIMIT, &StopSignal::default(), || {
        storage::create_topics(&config, &*log)
    })?;
    let there = config.topology().specs().len() - created;
    terminal::print_line(&format!("{created} topics created, {there} existed"))
}

fn list(reports: &[TopicReport]) -> Result<(), ProcessExit> {
    if reports.is_empty() {
        return Err(ProcessExit::failed(
            "there are no topics; check topics.prefix, or run `tidewire topics create`",
        ));
    }
    terminal::print_line(&format!("{:24} {:>10} {:>14}  keeps", "topic", "partitions", "records"))?;
    for report in reports {
        let records: u64 = report.offsets.iter().map(|(start, end)| end - start).sum();
        let partitions = report.offsets.len();
        terminal::print_line(&format!(
            "{:24} {partitions:>10} {records:>14}  {}",
            report.topic, report.keeps
        ))?;
    }
    Ok(())
}

fn describe(topic: &str, reports: &[TopicReport]) -> Result<(), ProcessExit> {
    let Some(report) = reports.iter().find(|report| report.topic == topic) else {
        let known: Vec<&str> = reports.iter().map(|report| report.topic.as_str()).collect();
        return Err(ProcessExit::failed(format!(
            "there is no topic {topic}; there are: {}",
            known.join(", ")
        )));
    };
    terminal::print_line(&format!("{}, keeps {}", report.topic, report.keeps))?;
    terminal::print_line(&format!("{:>9} {:>14} {:>14}", "partition", "start", "end"))?;
    for (partition, (start, end)) in report.offsets.iter().enumerate() {
        terminal::print_line(&format!("{partition:>9} {start:>14} {end:>14}"))?;
    }
    Ok(())
}

fn reports(at: &LogArgs) -> Result<Vec<TopicReport>, ProcessExit> {
    let config = configure::for_command(&at.settings)?;
    if let Some((_, reports)) = running(at, &config, Effect::ReadOnly)? {
        return Ok(reports);
    }
    if config.log == LogConfig::Embedded && !has_log(&config.data.dir) {
        return Err(no_data(&config, &running_process::find(&config)?));
    }
    let log = storage::open_log(&config)?;
    let unanswered = storage::unreachable_message(&config);
    with_retries(Duration::ZERO, &StopSignal::default(), || {
        storage::topic_reports(&*log).map_err(|error| {
            AttemptError::of_log("could not list the topics".into(), &unanswered, error)
        })
    })
}

/// The report of a running process, if there is one; with `--url` there has to be.
fn running(
    at: &LogArgs,
    config: &Config,
    effect: Effect,
) -> Result<Option<(String, Vec<TopicReport>)>, ProcessExit> {
    let (url, stats) = match &at.url {
        Some(url) => (url.clone(), stats_at(url)?),
        None if config.log != LogConfig::Embedded => return Ok(None),
        None => match running_process::find(config)? {
            AtListen::Ours(running) => (running.url, running.stats),
            AtListen::Only(running) if effect == Effect::ReadOnly => (running.url, running.stats),
            AtListen::Nothing | AtListen::Only(_) | AtListen::Other { .. } => return Ok(None),
        },
    };
    match serde_json::from_value(stats["topics"].clone()) {
        Ok(reports) => Ok(Some((url, reports))),
        Err(error) => {
            let text = format!("{url} does not answer like Tidewire; check the URL");
            Err(ProcessExit::because(text, error))
        }
    }
}

fn stats_at(url: &str) -> Result<Value, ProcessExit> {
    ApiClient::new(url)?.get_json("/v1/stats")?.ok_or_else(|| {
        ProcessExit::failed(format!("nothing listens at {url}; check that the process runs"))
    })
}
