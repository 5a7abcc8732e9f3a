//! Topics that are deleted, created again or extended while ADMIT and DERIVE read or write them.

use std::thread;
use std::time::{Duration, Instant};

use futures_executor::block_on;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tidewire_engine::topology::Lane;
use tidewire_tests::broker;

use super::failures::create_topics;
use super::fixture::{EventWriter, TIMEOUT, TopicNamespace, check, serve};

/// Of every topic.
const PARTITIONS: i32 = 8;

fn client<T: rdkafka::config::FromClientConfig>(at: TopicNamespace<'_>) -> T {
    ClientConfig::new().set("bootstrap.servers", at.bootstrap).create().expect("a client")
}

/// Deletes topics and waits until the broker no longer knows them.
fn delete(at: TopicNamespace<'_>, topics: &[&str]) {
    let admin: AdminClient<DefaultClientContext> = client(at);
    let names: Vec<String> = topics.iter().map(|topic| format!("{}{topic}", at.prefix)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    block_on(admin.delete_topics(&names, &AdminOptions::new())).expect("the broker answers");
    let give_up = Instant::now() + TIMEOUT;
    loop {
        let consumer: BaseConsumer = client(at);
        let metadata = consumer.fetch_metadata(None, TIMEOUT).expect("the broker answers");
        if !metadata.topics().iter().any(|found| names.contains(&found.name())) {
            return;
        }
        assert!(Instant::now() < give_up, "{names:?} are not deleted");
        thread::sleep(Duration::from_millis(100));
    }
}

fn extend(at: TopicNamespace<'_>, topic: &str, partitions: usize) {
    let admin: AdminClient<DefaultClientContext> = client(at);
    let name = format!("{}{topic}", at.prefix);
    let grown = NewPartitions::new(&name, partitions);
    let done = block_on(admin.create_partitions([&grown], &AdminOptions::new()));
    done.expect("the broker answers")[0].as_ref().expect("extended");
}

#[test]
fn partitions_added_to_the_input_end_admit_with_what_to_do() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "in-grown.");
    create_topics(at);
    let mut admit = serve("admit", at, "a1");
    extend(at, "in", 12);
    let (code, printed) = admit.ended(TIMEOUT);
    assert_eq!(code, Some(3), "{printed}");
    assert!(printed.contains("in-grown.in has 12 partitions"), "{printed}");
    assert!(printed.contains("topics.prefix"), "{printed}");
}

#[test]
fn an_input_that_is_created_again_ends_the_process_with_what_to_do() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "in-again.");
    create_topics(at);
    let mut server = serve("dev", at, "only");
    let writer = EventWriter::start(at, 200);
    thread::sleep(Duration::from_secs(2));
    let written = writer.finish();
    check(at, written);
    delete(at, &["in"]);
    create_topics(at);
    let (code, printed) = server.ended(TIMEOUT);
    assert_eq!(code, Some(3), "{printed}");
    assert!(printed.contains("created again"), "{printed}");
    assert!(printed.contains("--reset-offsets --to-earliest"), "{printed}");
}

/// The offsets that a group has committed in a topic, where it has any.
fn committed(at: TopicNamespace<'_>, group: &str, topic: &str) -> Vec<(i32, Offset)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", at.bootstrap)
        .set("group.id", format!("{}{group}", at.prefix))
        .create()
        .expect("a client");
    let mut ask = TopicPartitionList::new();
    ask.add_partition_range(&format!("{}{topic}", at.prefix), 0, PARTITIONS - 1);
    let found = consumer.committed_offsets(ask, TIMEOUT).expect("the broker answers");
    let elements = found.elements();
    let offsets = elements.iter().map(|element| (element.partition(), element.offset()));
    offsets.filter(|(_, offset)| *offset != Offset::Invalid).collect()
}

#[test]
fn topics_that_are_created_again_together_are_all_named_and_get_no_old_offsets() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "all-again.");
    create_topics(at);
    let mut server = serve("dev", at, "only");
    let writer = EventWriter::start(at, 200);
    thread::sleep(Duration::from_secs(2));
    let written = writer.finish();
    check(at, written);
    assert!(!committed(at, "admit", "in").is_empty(), "ADMIT has committed");
    assert!(!committed(at, "derive", "lane.high").is_empty(), "DERIVE has committed");
    delete(at, &["in", "lane.high", "order"]);
    create_topics(at);
    let (code, printed) = server.ended(TIMEOUT);
    assert_eq!(code, Some(3), "{printed}");
    for part in [
        "topics all-again.in and all-again.lane.high were deleted and created again",
        "--execute --group all-again.admit --topic all-again.in`",
        "--execute --group all-again.derive --topic all-again.lane.high`",
        "topic all-again.order was deleted and created again",
        "copies of events of the last 24 h may be delivered again",
    ] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    assert_eq!(committed(at, "admit", "in"), []);
    assert_eq!(committed(at, "derive", "lane.high"), []);
    assert!(!committed(at, "derive", "lane.normal").is_empty(), "this topic is the same");
}

/// Commits offset 0 in these topics, as `--reset-offsets --to-earliest` does.
fn reset_offsets(at: TopicNamespace<'_>, group: &str, topics: &[&str]) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", at.bootstrap)
        .set("group.id", format!("{}{group}", at.prefix))
        .create()
        .expect("a client");
    let mut offsets = TopicPartitionList::new();
    for topic in topics {
        let topic = format!("{}{topic}", at.prefix);
        for partition in 0..PARTITIONS {
            let added = offsets.add_partition_offset(&topic, partition, Offset::Offset(0));
            added.expect("an offset");
        }
    }
    // The members that ended are static: the group waits for them until their session is over.
    let give_up = Instant::now() + TIMEOUT;
    while let Err(error) = consumer.commit(&offsets, CommitMode::Sync) {
        assert!(Instant::now() < give_up, "the group is still active: {error}");
        thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn lanes_that_are_created_again_are_read_from_their_beginning_once_the_offsets_are_reset() {
    let lanes = Lane::ALL.map(|lane| format!("lane.{}", lane.name()));
    let lanes = lanes.each_ref().map(String::as_str);
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "lane-reset.");
    create_topics(at);
    let mut server = serve("dev", at, "only");
    let writer = EventWriter::start(at, 200);
    thread::sleep(Duration::from_secs(1));
    let before = writer.finish();
    check(at, before);
    delete(at, &lanes);
    create_topics(at);
    let (code, printed) = server.ended(TIMEOUT);
    assert_eq!(code, Some(3), "{printed}");
    assert!(printed.contains("--execute --group lane-reset.derive --topic"), "{printed}");
    reset_offsets(at, "derive", &lanes);
    let _server = serve("dev", at, "only");
    // The same events again, which are duplicates, and further ones.
    let writer = EventWriter::start(at, 200);
    while writer.written() < before + 200 {
        thread::sleep(Duration::from_millis(50));
    }
    check(at, writer.finish());
}

#[test]
fn outputs_that_stay_deleted_end_derive_with_what_to_do() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "out-deleted.");
    create_topics(at);
    let mut derive = serve("derive", at, "d1");
    delete(at, &["out.stream", "dead-letters"]);
    let (code, printed) = derive.ended(TIMEOUT);
    assert_eq!(code, Some(3), "{printed}");
    let named = "topics out-deleted.out.stream and out-deleted.dead-letters were deleted while";
    assert!(printed.contains(named), "{printed}");
    assert!(printed.contains("tidewire topics create"), "{printed}");
}

#[test]
fn lanes_that_are_created_again_end_derive_with_what_to_do() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "lane-again.");
    create_topics(at);
    let mut derive = serve("derive", at, "d1");
    delete(at, &["lane.normal"]);
    create_topics(at);
    let (code, printed) = derive.ended(TIMEOUT);
    assert_eq!(code, Some(3), "{printed}");
    assert!(printed.contains("lane-again.lane.normal was deleted and created"), "{printed}");
}

#[test]
fn a_deleted_input_is_not_ready_at_once_and_ends_the_process() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "in-deleted.");
    create_topics(at);
    let mut admit = serve("admit", at, "a1");
    delete(at, &["in"]);
    let give_up = Instant::now() + TIMEOUT;
    loop {
        let answer = admit.http().get("/readyz").expect("an answer");
        if answer.status == 503 {
            assert!(answer.text().contains("in-deleted.in"), "{}", answer.text());
            break;
        }
        assert!(Instant::now() < give_up, "it is ready");
        thread::sleep(Duration::from_millis(100));
    }
    let (code, printed) = admit.ended(TIMEOUT);
    assert_eq!(code, Some(3), "{printed}");
    assert!(printed.contains("tidewire topics create"), "{printed}");
}
