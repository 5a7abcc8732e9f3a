//! What each broker must have: groups' offsets kept for long enough, and the right time.
//!
//! Whether events lie in the future is judged by the time a broker gives them, and timers run on
//! this machine's: so the two must agree. A broker tells its time only with an acknowledgement;
//! hence the one record this writes, without a value, into the topic that keeps a minute and that
//! nobody reads from its start.

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

/// Minutes a group's offsets must outlive its last member: as long as its input is kept.
const OFFSETS_RETENTION_MIN: u64 = INPUT_RETENTION_MS / 60_000;

/// The key of the record that asks for the time.
const KEY: &[u8] = b"doctor";

/// Milliseconds two clocks may differ: more than machines with NTP ever do, less than any timer of
/// ours that another machine sees.
const SKEW_MAX_MS: i64 = 3_000;

/// The rest between two looks for an answer.
const ANSWER_GRAIN: Duration = Duration::from_millis(10);

/// Looks at how long offsets of groups without members are kept.
pub(super) fn check_retention(
    admin: &Admin,
    cluster: &ClusterView,
    report: &mut dyn FnMut(Finding),
) {
    let mut least = u64::MAX;
    for (id, _) in cluster.brokers() {
        match admin.broker_setting(id, OFFSETS_RETENTION) {
            Ok(Some(minutes)) => least = least.min(minutes.parse().unwrap_or(u64::MAX)),
            // A broker of another make that keeps them by another rule.
            Ok(None) => {}
            Err(code) => return report(unreadable_retention(code)),
        }
    }
    report(if least < OFFSETS_RETENTION_MIN {
        Finding::Fix(format!(
            "the brokers forget where a group was {least} minutes after its last member left, and \
             the topics keep {} days to read; set {OFFSETS_RETENTION}={OFFSETS_RETENTION_MIN} or \
             more in every broker's server.properties",
            INPUT_RETENTION_MS / 86_400_000
        ))
    } else {
        Finding::Ok("the brokers remember groups for as long as the topics keep".into())
    });
}

fn unreadable_retention(code: Code) -> Finding {
    match code {
        Code::ClusterAuthorizationFailed => Finding::Ok(format!(
            "{OFFSETS_RETENTION} is not for this user to see (DescribeConfigs on the cluster); \
             whoever runs the brokers knows whether it is {OFFSETS_RETENTION_MIN} or more"
        )),
        code => Finding::Fix(format!(
            "asking a broker for {OFFSETS_RETENTION} failed ({code}); look at its log"
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
        return report(Finding::Ok(format!(
            "the clocks were not compared: it takes a record in {topic}, which can't be written"
        )));
    }
    let mut settings = target.config.appender();
    settings.set("message.timeout.ms", LIMIT.as_millis().to_string());
    let producer: BaseProducer<CapturingContext> =
        match settings.create_with_context(CapturingContext::default()) {
            Ok(producer) => producer,
            Err(error) => return report(Finding::Fix(format!("no producer can be made: {error}"))),
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
                    "appending to {topic} on the broker {broker} failed ({why}); look at its log"
                )));
                // Each that does not answer costs its time.
                break;
            }
        }
    }
    if !wrong {
        report(Finding::Ok("the brokers' clocks agree with this machine's".into()));
    }
}

fn skew_problem(broker: &str, ahead_ms: i64) -> String {
    let seconds = ahead_ms.unsigned_abs().div_ceil(1_000);
    let how = if ahead_ms > 0 { "ahead of" } else { "behind" };
    format!(
        "the clock of the broker {broker} is {seconds} s {how} this machine's; let NTP set both \
         (events get their time there, timers run here)"
    )
}

/// One partition of the topic for each broker that leads one, with where that broker is.
fn led_partitions(cluster: &ClusterView, topic: &str) -> Vec<(String, i32)> {
    let Some(found) = find(cluster, topic) else { return Vec::new() };
    let led_by = |id| found.partitions().iter().find(|p| p.leader() == id).map(|p| p.id());
    let brokers = cluster.brokers().into_iter();
    brokers.filter_map(|(id, at)| led_by(id).map(|partition| (at, partition))).collect()
}

/// How far a broker's clock is ahead of this machine's, by the time it gives a record that lies
/// between the two times noted here.
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
            // The topic's wrong setting was named before.
            Some(Ok(_)) => return Ok(0),
            Some(Err(code)) => return Err(code.to_string()),
            None if begun.elapsed() > LIMIT * 2 => return Err("no answer".into()),
            None => {}
        }
    }
}
