//! The time an event spends in each stage on Kafka, by the broker's append times.
//!
//! From `in` to its lane is ADMIT; from there to its output is DERIVE, up to the append and without
//! the commit. The rest is the post, the commit, the hub and the sockets.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientConfig, Message};
use tidewire_schemas::event::EventView;

use crate::row;

/// How long the broker may take to respond.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Nothing for this long means that everything has been read.
const QUIET: Duration = Duration::from_secs(2);

/// Append times in milliseconds, by event id.
type AppendTimes = BTreeMap<String, i64>;

pub(crate) fn report(bootstrap: &str, prefix: &str) -> io::Result<()> {
    let by_json = |value: &[u8]| {
        let value: serde_json::Value = serde_json::from_slice(value).ok()?;
        Some(value["event_id"].as_str()?.to_owned())
    };
    let by_event = |value: &[u8]| Some(EventView::decode(value).ok()?.event_id.to_owned());
    let times = |topics: &[&str], id: &dyn Fn(&[u8]) -> Option<String>| {
        let topics: Vec<String> = topics.iter().map(|topic| format!("{prefix}{topic}")).collect();
        read(bootstrap, &topics, id).map_err(io::Error::other)
    };
    let input = times(&["in"], &by_json)?;
    let lanes = times(&["lane.critical", "lane.high", "lane.normal", "lane.low"], &by_event)?;
    let outputs = times(&["out.urgent", "out.stream"], &by_event)?;
    row("of it in → lane, mean ms", mean(&input, &lanes)?);
    row("of it lane → output, mean ms", mean(&lanes, &outputs)?);
    Ok(())
}

/// The mean time between the same events in two topics.
fn mean(from: &AppendTimes, to: &AppendTimes) -> io::Result<f64> {
    let spans: Vec<i64> = from.iter().filter_map(|(id, at)| Some(to.get(id)? - at)).collect();
    if spans.len() < from.len() {
        return Err(io::Error::other(format!("{} of {} events", spans.len(), from.len())));
    }
    Ok(spans.iter().sum::<i64>() as f64 / spans.len() as f64)
}

fn read(
    bootstrap: &str,
    topics: &[String],
    id: &dyn Fn(&[u8]) -> Option<String>,
) -> Result<AppendTimes, KafkaError> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "bench")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .create()?;
    let mut all = TopicPartitionList::new();
    for topic in topics {
        let metadata = consumer.fetch_metadata(Some(topic), ANSWER_LIMIT)?;
        for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
            all.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
        }
    }
    consumer.assign(&all)?;
    let mut times = AppendTimes::new();
    while let Some(message) = consumer.poll(QUIET) {
        let message = message?;
        let at = message.timestamp().to_millis();
        if let (Some(id), Some(at)) = (message.payload().and_then(id), at) {
            times.entry(id).or_insert(at);
        }
    }
    Ok(times)
}
