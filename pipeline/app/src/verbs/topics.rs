//! `tidewire topics`: created, listed, described.
//!
//! The embedded log belongs to one process. So the verbs ask the running one, and only if none
//! answers do they open the folder themselves. Kafka belongs to everybody and is asked directly.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::api_client::ApiClient;
use crate::cli::{LogArgs, TopicsArgs, TopicsVerb};
use crate::config::{Config, LogConfig};
use crate::process_exit::ProcessExit;
use crate::runtime::retry::{AttemptError, with_retries};
use crate::runtime::startup::START_LIMIT;
use crate::runtime::stop_signal::StopSignal;
use crate::runtime::storage::{self, TopicReport};
use crate::{configure, terminal};

/// Does what was asked for.
pub fn run(args: &TopicsArgs) -> Result<(), ProcessExit> {
    match &args.verb {
        TopicsVerb::Create(at) => create(at),
        TopicsVerb::List(at) => list(&reports(at)?),
        TopicsVerb::Describe { topic, at } => describe(topic, &reports(at)?),
    }
}

fn create(at: &LogArgs) -> Result<(), ProcessExit> {
    let config = configure::for_command(&at.settings)?;
    if let Some((url, reports)) = running(at, &config)? {
        return terminal::print_line(&format!(
            "{url} runs on this log and has created them: {} topics",
            reports.len()
        ));
    }
    let log = storage::open_log(&config)?;
    // This is often the first thing that is run beside a broker, and so it waits for it.
    let created = with_retries(START_LIMIT, &StopSignal::default(), || {
        storage::create_topics(&config, &*log)
    })?;
    let there = config.topology().specs().len() - created;
    terminal::print_line(&format!("{created} topics created, {there} were there"))
}

fn list(reports: &[TopicReport]) -> Result<(), ProcessExit> {
    if reports.is_empty() {
        return Err(ProcessExit::failed(
            "there are no topics yet; is topics.prefix another? `tidewire topics create` makes \
             them",
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
    if let Some((_, reports)) = running(at, &config)? {
        return Ok(reports);
    }
    let dir = &config.data.dir;
    if config.log == LogConfig::Embedded && fs::metadata(dir.join("log")).is_err() {
        return Err(ProcessExit::failed(format!(
            "there is no data in {}; `tidewire topics create` or `tidewire dev` makes it, \
             --data-dir names another folder, --url a running process, --log kafka://HOST:PORT \
             another log",
            dir.display()
        )));
    }
    let log = storage::open_log(&config)?;
    let unanswered = storage::unreachable_message(&config);
    with_retries(Duration::ZERO, &StopSignal::default(), || {
        storage::topic_reports(&*log).map_err(|error| {
            AttemptError::of_log("could not list the topics".into(), &unanswered, error)
        })
    })
}

/// What a running process says, if there is one; where one was named there must be.
fn running(
    at: &LogArgs,
    config: &Config,
) -> Result<Option<(String, Vec<TopicReport>)>, ProcessExit> {
    if at.url.is_none() && config.log != LogConfig::Embedded {
        return Ok(None);
    }
    let url = at.url.clone().unwrap_or_else(|| format!("http://{}", config.listen));
    let answer = ApiClient::new(&url)?.get_json("/v1/stats");
    let stats: Value = match (answer, &at.url) {
        (Ok(Some(stats)), _) => stats,
        (Err(error), Some(_)) => return Err(error),
        (Ok(None), Some(_)) => {
            return Err(ProcessExit::failed(format!("nothing listens at {url}; is it running?")));
        }
        // Something else may well listen there; then the folder is what is meant.
        (Ok(None) | Err(_), None) => return Ok(None),
    };
    match serde_json::from_value(stats["topics"].clone()) {
        Ok(reports) => Ok(Some((url, reports))),
        Err(_) if at.url.is_none() => Ok(None),
        Err(error) => {
            Err(ProcessExit::because(format!("{url} answers, but not as Tidewire does"), error))
        }
    }
}
