//! `tidewire topics`: created, listed, described.
//!
//! The data belongs to one process. So the verbs ask the running one, and only if none answers do
//! they open the folder themselves.

use std::fs;

use serde_json::Value;

use crate::cli::{TopicsArgs, TopicsVerb, TopicsWhere};
use crate::config::Config;
use crate::data::{self, TopicReport};
use crate::ending::Ending;
use crate::remote::Remote;
use crate::{start, terminal};

/// Does what was asked for.
pub fn run(args: &TopicsArgs) -> Result<(), Ending> {
    match &args.verb {
        TopicsVerb::Create(at) => create(at),
        TopicsVerb::List(at) => list(&reports(at)?),
        TopicsVerb::Describe { topic, at } => describe(topic, &reports(at)?),
    }
}

fn create(at: &TopicsWhere) -> Result<(), Ending> {
    let config = start::configure(&at.settings)?;
    if let Some((url, reports)) = running(at, &config)? {
        return terminal::say(&format!(
            "{url} runs on this log and has created them: {} topics",
            reports.len()
        ));
    }
    let topology = data::topology(&config);
    let created = data::create_topics(&*data::open_log(&config.data)?, &topology)?;
    let there = topology.specs().len() - created;
    terminal::say(&format!("{created} topics created, {there} were there"))
}

fn list(reports: &[TopicReport]) -> Result<(), Ending> {
    terminal::say(&format!("{:24} {:>10} {:>14}  keeps", "topic", "partitions", "records"))?;
    for report in reports {
        let records: u64 = report.offsets.iter().map(|(start, end)| end - start).sum();
        let partitions = report.offsets.len();
        terminal::say(&format!(
            "{:24} {partitions:>10} {records:>14}  {}",
            report.topic, report.keeps
        ))?;
    }
    Ok(())
}

fn describe(topic: &str, reports: &[TopicReport]) -> Result<(), Ending> {
    let Some(report) = reports.iter().find(|report| report.topic == topic) else {
        let known: Vec<&str> = reports.iter().map(|report| report.topic.as_str()).collect();
        return Err(Ending::failed(format!(
            "there is no topic {topic}; there are: {}",
            known.join(", ")
        )));
    };
    terminal::say(&format!("{}, keeps {}", report.topic, report.keeps))?;
    terminal::say(&format!("{:>9} {:>14} {:>14}", "partition", "start", "end"))?;
    for (partition, (start, end)) in report.offsets.iter().enumerate() {
        terminal::say(&format!("{partition:>9} {start:>14} {end:>14}"))?;
    }
    Ok(())
}

fn reports(at: &TopicsWhere) -> Result<Vec<TopicReport>, Ending> {
    let config = start::configure(&at.settings)?;
    if let Some((_, reports)) = running(at, &config)? {
        return Ok(reports);
    }
    let dir = &config.data.dir;
    if fs::metadata(dir.join("log")).is_err() {
        return Err(Ending::failed(format!(
            "there is no data in {}; `tidewire topics create` or `tidewire dev` makes it, \
             --data-dir names another folder, --url a running process",
            dir.display()
        )));
    }
    let log = data::open_log(&config.data)?;
    data::report(&*log).map_err(|error| Ending::of_log("could not list the topics".into(), error))
}

/// What a running process says, if there is one; where one was named there must be.
fn running(
    at: &TopicsWhere,
    config: &Config,
) -> Result<Option<(String, Vec<TopicReport>)>, Ending> {
    let url = at.url.clone().unwrap_or_else(|| format!("http://{}", config.listen));
    let answer = Remote::new(&url)?.ask("/v1/stats");
    let stats: Value = match (answer, &at.url) {
        (Ok(Some(stats)), _) => stats,
        (Err(error), Some(_)) => return Err(error),
        (Ok(None), Some(_)) => {
            return Err(Ending::failed(format!("nothing listens at {url}; is it running?")));
        }
        // Something else may well listen there; then the folder is what is meant.
        (Ok(None) | Err(_), None) => return Ok(None),
    };
    match serde_json::from_value(stats["topics"].clone()) {
        Ok(reports) => Ok(Some((url, reports))),
        Err(_) if at.url.is_none() => Ok(None),
        Err(error) => {
            Err(Ending::because(format!("{url} answers, but not as Tidewire does"), error))
        }
    }
}
