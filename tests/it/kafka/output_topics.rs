//! Output topics that are deleted, created again or extended while a gateway serves them.

use std::thread;
use std::time::{Duration, Instant};

use futures_executor::block_on;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use tidewire_schemas::Priority;
use tidewire_schemas::event::Event;
use tidewire_schemas::partition::partition_for;
use tidewire_tests::broker;
use tidewire_tests::event_source::EventSource;

use super::failures::create_topics;
use super::fixture::{TIMEOUT, TopicNamespace, serve};

const CHANNEL: &str = "posts:ann";
const OUTPUTS: [&str; 3] = ["out.urgent", "out.stream", "out.state"];
const PARTITIONS: u32 = 8;

fn client<T: rdkafka::config::FromClientConfig>(at: TopicNamespace<'_>) -> T {
    ClientConfig::new().set("bootstrap.servers", at.bootstrap).create().expect("a client")
}

/// Writes an event as DERIVE does.
fn write(at: TopicNamespace<'_>, id: &str) {
    let event = Event {
        event_id: id.to_owned(),
        event_type: "post.created".to_owned(),
        account_id: "demo".to_owned(),
        timestamp_ms: 0,
        correlation_id: id.to_owned(),
        priority: Priority::Normal,
        key: "ann".to_owned(),
        source: None,
        alias: None,
        data: r#"{"post_id":"p","author_id":"ann","text":"t"}"#.to_owned(),
    };
    let (topic, value) = (format!("{}out.stream", at.prefix), event.encode());
    let partition = partition_for(CHANNEL.as_bytes(), PARTITIONS);
    let producer: BaseProducer = client(at);
    let record = BaseRecord::to(&topic)
        .key(CHANNEL)
        .payload(&value)
        .partition(i32::try_from(partition).expect("few partitions"));
    producer.send(record).map_err(|(error, _)| error).expect("space in the queue");
    producer.flush(TIMEOUT).expect("the broker answers");
}

/// Deletes the output topics and waits until the broker no longer knows them.
fn delete_outputs(at: TopicNamespace<'_>) {
    let admin: AdminClient<DefaultClientContext> = client(at);
    let names = OUTPUTS.map(|name| format!("{}{name}", at.prefix));
    let refs: Vec<&str> = names.iter().map(String::as_str).collect();
    block_on(admin.delete_topics(&refs, &AdminOptions::new())).expect("the broker answers");
    let give_up = Instant::now() + TIMEOUT;
    loop {
        let consumer: BaseConsumer = client(at);
        let metadata = consumer.fetch_metadata(None, TIMEOUT).expect("the broker answers");
        if !metadata.topics().iter().any(|topic| refs.contains(&topic.name())) {
            return;
        }
        assert!(Instant::now() < give_up, "the topics are not deleted");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn topics_that_are_created_again_give_open_streams_a_gap_and_the_new_events() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "out-again.");
    create_topics(at);
    let gateway = serve("gateway", at, "g1");
    let path = format!("/v1/sse?channels={CHANNEL}");
    let mut stream = EventSource::open(gateway.addr(), &path, None, None).expect("a stream");
    for n in 0..20 {
        write(at, &format!("before-{n}"));
    }
    for n in 0..20 {
        let event = stream.next_event(TIMEOUT).expect("it goes on").expect("an event");
        assert_eq!(event.event_id, format!("before-{n}"));
    }
    let former = stream.last_event_id().to_owned();
    delete_outputs(at);
    create_topics(at);
    let gap = stream.next_message(TIMEOUT).expect("it goes on").expect("a gap");
    assert_eq!(gap.event, "gap", "{gap:?}");
    let data: Value = serde_json::from_str(&gap.data).expect("JSON");
    assert_eq!(data["reason"], "epoch");
    assert_ne!(stream.last_event_id(), former);
    for n in 0..30 {
        write(at, &format!("after-{n}"));
        thread::sleep(Duration::from_millis(200));
    }
    // The gateway may notice in two steps, that the log has ended early and that its topics are
    // others; then there is a second gap. Without one, nothing is skipped.
    let (mut next, mut is_gap) = (0, false);
    while next < 30 {
        let message = stream.next_message(TIMEOUT).expect("it goes on").expect("a message");
        if message.event == "gap" {
            is_gap = true;
            continue;
        }
        let event: Value = serde_json::from_str(&message.data).expect("JSON");
        let id = event["event_id"].as_str().and_then(|id| id.strip_prefix("after-"));
        let number: u32 = id.expect("a new event").parse().expect("a number");
        assert!(number == next || (is_gap && number > next), "{number} instead of {next}");
        (next, is_gap) = (number + 1, false);
    }
    let mut resumed =
        EventSource::open(gateway.addr(), &path, Some(&former), None).expect("a stream");
    let gap = resumed.next_message(TIMEOUT).expect("it goes on").expect("a gap");
    assert_eq!(gap.event, "gap", "{gap:?}");
}

#[test]
fn partitions_that_are_added_end_the_gateway_with_what_to_do() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "out-grown.");
    create_topics(at);
    let mut gateway = serve("gateway", at, "g1");
    let admin: AdminClient<DefaultClientContext> = client(at);
    let grown = NewPartitions::new("out-grown.out.stream", 12);
    let done = block_on(admin.create_partitions([&grown], &AdminOptions::new()));
    done.expect("the broker answers")[0].as_ref().expect("extended");
    let (code, printed) = gateway.ended(TIMEOUT);
    assert_eq!(code, Some(3), "{printed}");
    assert!(printed.contains("out-grown.out.stream has 12 partitions"), "{printed}");
    assert!(printed.contains("topics.prefix"), "{printed}");
}
