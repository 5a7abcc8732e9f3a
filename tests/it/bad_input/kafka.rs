//! The bad records written to Kafka by a plain client, between valid ones.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::Message as _;
use rdkafka::message::{Header, Headers as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tidewire_schemas::event::EventView;
use tidewire_tests::broker;

use super::samples::{BadRecord, records};
use crate::kafka::fixture::{OutputReader, TIMEOUT, TopicNamespace, serve};

/// The valid event with this number; all have one author, so their order is kept.
fn good(n: usize) -> String {
    serde_json::json!({"event_id": format!("good-{n}"), "event_type": "post.created",
        "account_id": "acc", "data": {"post_id": format!("p{n}"), "author_id": "ann",
        "text": n.to_string()}})
    .to_string()
}

fn send(producer: &BaseProducer, topic: &str, sample: &BadRecord) {
    let mut headers = OwnedHeaders::new();
    for (key, value) in &sample.headers {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(0).headers(headers);
    if let Some(value) = &sample.value {
        record = record.payload(value);
    }
    // An empty key is a key.
    producer.send(record.key(b"")).map_err(|(error, _)| error).expect("there is room");
}

#[test]
fn bad_records_are_dead_lettered_whole_and_good_ones_arrive_in_order() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "bad.");
    let server = serve("dev", at, "only");
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", at.bootstrap)
        .set("enable.idempotence", "true")
        .create()
        .expect("a producer");
    let (topic, samples) = ("bad.in", records());
    for (n, sample) in samples.iter().enumerate() {
        let value = good(n);
        let record = BaseRecord::<[u8], str>::to(topic).partition(0).payload(&value);
        producer.send(record).map_err(|(error, _)| error).expect("there is room");
        send(&producer, topic, sample);
    }
    producer.flush(Duration::from_secs(30)).expect("all are acknowledged");

    let mut dead_letters = OutputReader::open(at, &["dead-letters"]);
    assert!(
        dead_letters.read(samples.len(), TIMEOUT),
        "{} of {}",
        dead_letters.all.len(),
        samples.len()
    );
    for (n, sample) in samples.iter().enumerate() {
        let key = format!("{topic}/0/{}", 2 * n + 1);
        let dead_letter =
            dead_letters.all.iter().find(|dead_letter| dead_letter.key() == Some(key.as_bytes()));
        let dead_letter =
            dead_letter.unwrap_or_else(|| panic!("{}: no dead letter {key}", sample.what));
        let header = |name: &str| {
            let headers = dead_letter.headers().expect("headers");
            let header = headers.iter().find(|header| header.key == name)?;
            Some(String::from_utf8_lossy(header.value?).into_owned())
        };
        let (reason, detail) = (header("reason"), header("detail").expect("a detail"));
        assert_eq!(reason.as_deref(), Some(sample.reason), "{}: {detail}", sample.what);
        assert!(detail.contains(sample.detail), "{}: {detail}", sample.what);
        assert_eq!(dead_letter.payload(), sample.value.as_deref(), "{}", sample.what);
        for (name, value) in &sample.headers {
            let kept = format!("h-{name}");
            let headers = dead_letter.headers().expect("headers");
            let kept = headers.iter().find(|header| header.key == kept).expect("it is kept");
            assert_eq!(kept.value, Some(&value[..]), "{}", sample.what);
        }
    }
    let mut outputs = OutputReader::open(at, &["out.stream"]);
    assert!(outputs.read(3 * samples.len(), TIMEOUT), "{} events", outputs.all.len() / 3);
    let texts: Vec<String> = outputs
        .all
        .iter()
        .filter(|message| message.key() == Some(&b"posts:ann"[..]))
        .map(|message| {
            let event = EventView::decode(message.payload().expect("an event")).expect("an event");
            event.event_id.to_owned()
        })
        .collect();
    let expected: Vec<String> = (0..samples.len()).map(|n| format!("good-{n}")).collect();
    assert_eq!(texts, expected);
    assert_eq!(server.http().get("/readyz").expect("it lives").status, 200);
}
