//! The metrics of the binary: one function per metric, and the table of their meanings.
//!
//! Call sites call a function of this file and nothing else, so that the catalogue is complete.
//! Rendering for `/metrics` is here too; the HTTP server of the process serves it.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit, counter, gauge,
};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use tidewire_engine::record::TopicPartition;

use crate::build_name::BUILD_NAME;
use crate::process_exit::ProcessExit;
use crate::runtime::stop_signal::StopSignal;

/// The first characters of every metric's name when it is rendered.
const PREFIX: &str = "tidewire_";

/// Bounds of histograms of time, from 0.1 ms to 5 s, which is a failure anywhere.
const SECONDS_BOUNDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];
/// Bounds of histograms of partitions: a transaction should write to sixteen at most.
const PARTITIONS_BOUNDS: &[f64] = &[2.0, 4.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0, 128.0];
/// Bounds of histograms of counts and sizes.
const COUNT_BOUNDS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1e3, 2.5e3, 1e4, 1e5, 1e6, 1e7];
/// How often recorded samples are moved into their histograms.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Name, kind, labels and meaning of every metric of this crate.
pub const CATALOGUE: &[(&str, &str, &[&str], &str)] = &[
    (
        "loop_rebuilds_total",
        "counter",
        &["thread"],
        "Loops dropped and created again after an error that may pass",
    ),
    (
        "admit_input_lag_records",
        "gauge",
        &["topic", "partition"],
        "Records of an input on Kafka not read yet; those at the stop while ADMIT is stopped",
    ),
    (
        "admit_input_oldest_wait_seconds",
        "gauge",
        &["topic", "partition"],
        "How long the next record of an input on Kafka has waited, by its time if that is known",
    ),
    (
        "admit_input_transaction_wait_seconds",
        "gauge",
        &["topic", "partition"],
        "How long an input on Kafka has waited for an open transaction of a producer; 0: none",
    ),
    ("demo_events_total", "counter", &[], "Synthetic events sent by the demo"),
    ("build_info", "gauge", &["version"], "1; the label is the version and a hash of the sources"),
];

/// What is recorded of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PartitionLag {
    /// Records not read yet.
    pub records: u64,
    /// How long the oldest of them has waited.
    pub wait: Duration,
    /// How long the partition has waited for an open transaction.
    pub transaction: Duration,
}

/// A loop is about to be created again.
pub fn loop_rebuilt(thread: &'static str) {
    counter!("loop_rebuilds_total", "thread" => thread).increment(1);
}

/// How far ADMIT is behind in a partition of its input.
pub fn input_lag(at: &TopicPartition, lag: PartitionLag) {
    let (topic, partition) = (at.topic.to_string(), at.partition.0.to_string());
    let labels = [("topic", topic), ("partition", partition)];
    gauge!("admit_input_lag_records", &labels).set(lag.records as f64);
    gauge!("admit_input_oldest_wait_seconds", &labels).set(lag.wait.as_secs_f64());
    gauge!("admit_input_transaction_wait_seconds", &labels).set(lag.transaction.as_secs_f64());
}

/// The demo sent this many events.
pub fn demo_events_sent(events: u64) {
    counter!("demo_events_total").increment(events);
}

/// Starts to collect every metric of the process; the handle renders them in Prometheus' text
/// format.
pub fn start() -> Result<PrometheusHandle, ProcessExit> {
    let collected = recorder()?;
    let handle = collected.handle();
    metrics::set_global_recorder(PrefixedRecorder(collected)).map_err(|_| {
        ProcessExit::failed("the metrics recorder was installed twice, which is a bug")
    })?;
    gauge!("build_info", "version" => BUILD_NAME).set(1.0);
    Ok(handle)
}

/// A recorder with fixed bounds for histograms, so that they can be added up over processes;
/// without bounds they would be summaries.
fn recorder() -> Result<PrometheusRecorder, ProcessExit> {
    let wrong = |error| ProcessExit::because("the bounds of the histograms are invalid", error);
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), SECONDS_BOUNDS)
        .and_then(|builder| {
            let partitions = Matcher::Suffix("_partitions".into());
            builder.set_buckets_for_metric(partitions, PARTITIONS_BOUNDS)
        })
        .and_then(|builder| builder.set_buckets(COUNT_BOUNDS));
    Ok(builder.map_err(wrong)?.build_recorder())
}

/// Moves recorded samples into the histograms regularly until asked to stop: otherwise every sample
/// would be kept in memory until `/metrics` is read.
pub fn run_upkeep(handle: &PrometheusHandle, stop: &StopSignal) {
    while !stop.is_requested() {
        handle.run_upkeep();
        stop.pause(UPKEEP_EVERY);
    }
}

/// Adds the prefix `tidewire_` to every name, so that call sites need not repeat it.
struct PrefixedRecorder(PrometheusRecorder);

fn prefixed_name(name: &str) -> KeyName {
    KeyName::from(format!("{PREFIX}{name}"))
}

fn prefixed_key(key: &Key) -> Key {
    Key::from_parts(prefixed_name(key.name()), key.labels())
}

impl Recorder for PrefixedRecorder {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.0.describe_counter(prefixed_name(name.as_str()), unit, text);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.0.describe_gauge(prefixed_name(name.as_str()), unit, text);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.0.describe_histogram(prefixed_name(name.as_str()), unit, text);
    }

    fn register_counter(&self, key: &Key, about: &Metadata<'_>) -> Counter {
        self.0.register_counter(&prefixed_key(key), about)
    }

    fn register_gauge(&self, key: &Key, about: &Metadata<'_>) -> Gauge {
        self.0.register_gauge(&prefixed_key(key), about)
    }

    fn register_histogram(&self, key: &Key, about: &Metadata<'_>) -> Histogram {
        self.0.register_histogram(&prefixed_key(key), about)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_rendered_with_prefix_and_labels() {
        let collected = PrometheusBuilder::new().build_recorder();
        let handle = collected.handle();
        metrics::with_local_recorder(&PrefixedRecorder(collected), || loop_rebuilt("derive"));
        let text = handle.render();
        assert!(text.contains("tidewire_loop_rebuilds_total{thread=\"derive\"} 1"), "{text}");
    }
}
