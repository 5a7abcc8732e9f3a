//! A producer that leaves its transaction open delays its partition, which the metrics show.

use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tidewire_tests::broker;
use tidewire_tests::server::Server;

use super::fixture::{TIMEOUT, TopicNamespace, serve};

fn producer(at: TopicNamespace<'_>, transactional: Option<&str>) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", at.bootstrap).set("transaction.timeout.ms", "120000");
    if let Some(id) = transactional {
        config.set("transactional.id", id);
    }
    config.create().expect("a producer")
}

fn write(producer: &BaseProducer, at: TopicNamespace<'_>, id: &str) {
    let value = serde_json::json!({"event_id": id, "event_type": "post.created",
        "account_id": "acc", "data": {"post_id": "p", "author_id": "ann", "text": "t"}})
    .to_string();
    let topic = format!("{}in", at.prefix);
    let record = BaseRecord::<str, str>::to(&topic).partition(0).payload(&value);
    producer.send(record).map_err(|(error, _)| error).expect("there is room");
    producer.flush(TIMEOUT).expect("it is acknowledged");
}

/// Waits until a metric of the partition fulfils `is`.
fn await_metric(server: &Server, name: &str, is: impl Fn(f64) -> bool) {
    let line = format!("tidewire_{name}{{topic=\"open-txn.in\",partition=\"0\"}}");
    let give_up = Instant::now() + TIMEOUT;
    loop {
        let value = server.metric(&line);
        if value.is_some_and(&is) {
            return;
        }
        assert!(Instant::now() < give_up, "{line} is {value:?}");
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn an_open_transaction_shows_as_the_reason_of_the_lag_until_it_ends() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "open-txn.");
    let server = serve("dev", at, "only");
    let (open, plain) = (producer(at, Some("open-txn-producer")), producer(at, None));
    open.init_transactions(TIMEOUT).expect("initialised");
    open.begin_transaction().expect("begun");
    write(&open, at, "in-transaction");
    for n in 0..5 {
        write(&plain, at, &format!("behind-{n}"));
    }
    await_metric(&server, "admit_input_lag_records", |records| records == 6.0);
    await_metric(&server, "admit_input_transaction_wait_seconds", |wait| wait > 2.0);
    await_metric(&server, "admit_input_oldest_wait_seconds", |wait| wait > 2.0);
    let warned = || server.printed().contains("open-txn.in/0 waits at offset 0 for an open trans");
    let give_up = Instant::now() + TIMEOUT;
    while !warned() {
        assert!(Instant::now() < give_up, "{}", server.printed());
        thread::sleep(Duration::from_millis(200));
    }
    open.commit_transaction(TIMEOUT).expect("committed");
    await_metric(&server, "admit_input_lag_records", |records| records == 0.0);
    await_metric(&server, "admit_input_transaction_wait_seconds", |wait| wait == 0.0);
}
