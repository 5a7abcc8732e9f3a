//! Checks of each broker: how long it keeps the offsets of groups, and its clock.
//!
//! Brokers stamp events with the append time and timers run on this machine's clock, so the two
//! must agree. A broker shows its time only in an acknowledgement. So this check appends one record
//! without a value to the topic that keeps records for a minute and that nobody reads from its
//! start.

use std::time::Duration;

use rdkafka::message::Timestamp;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode as Code;
use tidewire_engine::topology::INPUT_RETENTION_MS;

use super::client_log::{CapturingContext, ClusterView};
use super::rights::{Operation, TopicRights};
use super::topics::find;
use super::{DoctorTarget, Finding, LIMIT};
use crate::clock;
use crate::kafka::admin::Admin;

const OFFSETS_RETENTION: &str = "offsets.retention.minutes";

/// Minutes the offsets of a group without members must be kept: as long as its input.
const OFFSETS_RETENTION_MIN: u64 = INPUT_RETENTION_MS / 60_000;

/// The key of the record.
const KEY: &[u8] = b"doctor";

/// Milliseconds by which two clocks may differ: more than with NTP, less than any timer that
/// involves two machines.
const SKEW_MAX_MS: i64 = 3_000;

/// The pause between two checks for an acknowledgement.
const ANSWER_GRAIN: Duration = Duration::from_millis(10);

/// Checks how long the offsets of groups without members are kept.
pub(super) fn check_retention(
    admin: &Admin,
    cluster: &ClusterView,
    report: &mut dyn FnMut(Finding),
) {
    let mut least = u64::MAX;
    for (id, _) in cluster.brokers() {
        match admin.broker_setting(id, OFFSETS_RETENTION) {
            Ok(Some(minutes)) => least = least.min(minutes.parse().unwrap_or(u64::MAX)),
            // A broker of another vendor, without this setting.
            Ok(None) => {}
            Err(code) => return report(unreadable_retention(code)),
        }
    }
    report(if least < OFFSETS_RETENTION_MIN {
        Finding::Fix(format!(
            "the brokers delete the offsets of a group {least} minutes after its last member left, \
             but its input is kept for {} days; set {OFFSETS_RETENTION}={OFFSETS_RETENTION_MIN} or \
             more in every broker's server.properties",
            INPUT_RETENTION_MS / 86_400_000
        ))
    } else {
        Finding::Ok("the brokers keep the offsets of groups for as long as their input".into())
    });
}

fn unreadable_retention(code: Code) -> Finding {
    match code {
        Code::ClusterAuthorizationFailed => Finding::Warn(format!(
            "{OFFSETS_RETENTION} was not checked, which needs DescribeConfigs on the cluster; make \
             sure that it is {OFFSETS_RETENTION_MIN} or more"
        )),
        code => Finding::Fix(format!(
            "reading {OFFSETS_RETENTION} of a broker failed ({code}); check its log"
        )),
    }
}

/// Compares the brokers' clocks with this machine's.
pub(super) fn check_clocks(
    target: &DoctorTarget<'_>,
    cluster: &ClusterView,
    rights: &TopicRights,
    report: &mut dyn FnMut(Finding),
) {
    let topic = target.topology.ephemeral().as_str();
    if !rights.allow(topic, Operation::Write) {
        return report(Finding::Warn(format!(
            "the clocks were not compared: {topic} does not exist, or this user can't write to it"
        )));
    }
    let mut settings = target.config.appender();
    settings.set("message.timeout.ms", LIMIT.as_millis().to_string());
    let producer: BaseProducer<CapturingContext> =
        match settings.create_with_context(CapturingContext::default()) {
            Ok(producer) => producer,
            Err(error) => {
                return report(Finding::Fix(format!(
                    "can't create a Kafka producer: {error}; check kafka.properties"
                )));
            }
        };
    let mut wrong = false;
    for (broker, partition) in led_partitions(cluster, topic) {
        match ahead_ms(target, &producer, topic, partition) {
            Ok(ahead) if ahead.abs() <= SKEW_MAX_MS => {}
            Ok(ahead) => {
                wrong = true;
                report(Finding::Fix(skew_problem(&broker, ahead)));
            }
            Err(why) => {
                wrong = true;
                report(Finding::Fix(format!(
                    "appending to {topic} on the broker {broker} failed ({why}); check its log"
                )));
                // Every broker that does not answer would take the whole time limit.
                break;
            }
        }
    }
    if !wrong {
        report(Finding::Ok(format!(
            "the clocks of the brokers are within {} s of this machine's",
            SKEW_MAX_MS / 1_000
        )));
    }
}

fn skew_problem(broker: &str, ahead_ms: i64) -> String {
    let seconds = ahead_ms.unsigned_abs().div_ceil(1_000);
    let how = if ahead_ms > 0 { "ahead of" } else { "behind" };
    format!(
        "the clock of the broker {broker} is {seconds} s {how} this machine's; synchronise both \
         with NTP"
    )
}

/// One partition of the topic for each broker that leads one, with the broker's address.
fn led_partitions(cluster: &ClusterView, topic: &str) -> Vec<(String, i32)> {
    let Some(found) = find(cluster, topic) else { return Vec::new() };
    let led_by = |id| found.partitions().iter().find(|p| p.leader() == id).map(|p| p.id());
    let brokers = cluster.brokers().into_iter();
    brokers.filter_map(|(id, at)| led_by(id).map(|partition| (at, partition))).collect()
}

/// How far a broker's clock is ahead of this machine's: by how much the append time of a record
/// lies outside the time between sending it and its acknowledgement.
fn ahead_ms(
    target: &DoctorTarget<'_>,
    producer: &BaseProducer<CapturingContext>,
    topic: &str,
    partition: i32,
) -> Result<i64, String> {
    let begun = clock::now();
    let before = target.clock.now().0;
    let record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition).key(KEY);
    producer.send(record).map_err(|(error, _)| error.to_string())?;
    loop {
        producer.poll(ANSWER_GRAIN);
        let after = target.clock.now().0;
        match producer.client().context().appended() {
            Some(Ok(Timestamp::LogAppendTime(at))) if at > after => return Ok(at - after),
            Some(Ok(Timestamp::LogAppendTime(at))) => return Ok((at - before).min(0)),
            // The topic has no append time, which its own check reports.
            Some(Ok(_)) => return Ok(0),
            Some(Err(code)) => return Err(code.to_string()),
            None if begun.elapsed() > LIMIT * 2 => return Err("no answer".into()),
            None => {}
        }
    }
}
