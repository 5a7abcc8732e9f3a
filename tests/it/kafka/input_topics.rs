//! Input topics and lanes that are deleted, created again or extended while ADMIT and DERIVE run.

use std::thread;
use std::time::{Duration, Instant};

use futures_executor::block_on;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tidewire_tests::broker;

use super::failures::create_topics;
use super::fixture::{EventWriter, TIMEOUT, TopicNamespace, check, serve};

fn client<T: rdkafka::config::FromClientConfig>(at: TopicNamespace<'_>) -> T {
    ClientConfig::new().set("bootstrap.servers", at.bootstrap).create().expect("a client")
}

/// Deletes a topic and waits until the broker no longer knows it.
fn delete(at: TopicNamespace<'_>, topic: &str) {
    let admin: AdminClient<DefaultClientContext> = client(at);
    let name = format!("{}{topic}", at.prefix);
    block_on(admin.delete_topics(&[&name], &AdminOptions::new())).expect("the broker answers");
    let give_up = Instant::now() + TIMEOUT;
    loop {
        let consumer: BaseConsumer = client(at);
        let metadata = consumer.fetch_metadata(None, TIMEOUT).expect("the broker answers");
        if !metadata.topics().iter().any(|found| found.name() == name) {
            return;
        }
        assert!(Instant::now() < give_up, "{name} is not deleted");
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
    delete(at, "in");
    create_topics(at);
    let (code, printed) = server.ended(TIMEOUT);
    assert_eq!(code, Some(3), "{printed}");
    assert!(printed.contains("created again"), "{printed}");
    assert!(printed.contains("--delete-offsets"), "{printed}");
}

#[test]
fn lanes_that_are_created_again_end_derive_with_what_to_do() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "lane-again.");
    create_topics(at);
    let mut derive = serve("derive", at, "d1");
    delete(at, "lane.normal");
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
    delete(at, "in");
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
