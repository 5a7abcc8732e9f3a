//! ADMIT that is stopped at the poison limit does not report its input as read.

use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tidewire_tests::broker;

use super::failures::create_topics;
use super::fixture::{TIMEOUT, TopicNamespace, serve};

/// More than the poison limit needs.
const INVALID_RECORDS: usize = 400;

/// Longer than a sample of the lag takes, twice.
const SAMPLED: Duration = Duration::from_secs(5);

#[test]
fn the_lag_of_a_stopped_input_stays_and_its_wait_grows() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "stopped.");
    create_topics(at);
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", at.bootstrap).create().expect("a producer");
    for _ in 0..INVALID_RECORDS {
        let record = BaseRecord::<str, str>::to("stopped.in").partition(0).payload("no event");
        producer.send(record).map_err(|(error, _)| error).expect("there is room");
    }
    producer.flush(TIMEOUT).expect("all are acknowledged");
    let server = serve("dev", at, "only");
    let give_up = Instant::now() + TIMEOUT;
    while server.metric("tidewire_admit_stopped{source=\"in\"}") != Some(1.0) {
        assert!(Instant::now() < give_up, "ADMIT is not stopped");
        thread::sleep(Duration::from_millis(100));
    }
    thread::sleep(SAMPLED);
    let metric = |name: &str| {
        let line = format!("tidewire_{name}{{topic=\"stopped.in\",partition=\"0\"}}");
        server.metric(&line).expect("it is exported")
    };
    let records = metric("admit_input_lag_records");
    assert!(records > 0.0 && records <= INVALID_RECORDS as f64, "{records} records");
    let before = metric("admit_input_oldest_wait_seconds");
    thread::sleep(SAMPLED);
    let wait = metric("admit_input_oldest_wait_seconds");
    assert!(wait > before && metric("admit_input_lag_records") == records, "{before} s, {wait} s");
}
