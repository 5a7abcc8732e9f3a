//! The real posts through Kafka, from a plain producer to WebSocket, SSE and a browser.
//!
//! Connections are cut and the server is killed; subscribers resume by position.

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tidewire_tests::broker;

use super::fixture::{TIMEOUT, TopicNamespace, serve};
use crate::browser::{real_posts_through_event_source, real_posts_through_web_socket};
use crate::real_posts::delivery::check_subscribers;
use crate::real_posts::mapper::ExpectedEvent;
use crate::real_posts::resume::history;

#[test]
fn posts_of_a_plain_producer_reach_websocket_and_sse_unchanged() {
    let bootstrap = broker::shared().bootstrap();
    let at = TopicNamespace::new(&bootstrap, "posts-plain.");
    check_subscribers(&serve("dev", at, "plain"), |_, expected| write(at, expected));
}

/// Writes each post to `in`, keyed by its author as a producer that wants order would.
fn write(at: TopicNamespace<'_>, expected: &[ExpectedEvent]) {
    let TopicNamespace { bootstrap, prefix } = at;
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().expect("a producer");
    let topic = format!("{prefix}in");
    for event in expected {
        let key = event.envelope["data"]["author_id"].as_str().expect("an author");
        let value = event.envelope.to_string();
        let record = BaseRecord::to(&topic).key(key).payload(&value);
        producer.send(record).map_err(|(error, _)| error).expect("taken");
    }
    producer.flush(TIMEOUT).expect("acknowledged");
}

#[test]
fn cuts_and_kills_on_kafka_lose_and_duplicate_nothing() {
    let bootstrap = broker::shared().bootstrap();
    history(serve("dev", TopicNamespace::new(&bootstrap, "posts-cut."), "cut"), 3);
}

#[test]
fn a_browser_event_source_and_web_socket_get_every_post_once() {
    let bootstrap = broker::shared().bootstrap();
    real_posts_through_event_source(&mut serve(
        "dev",
        TopicNamespace::new(&bootstrap, "posts-sse."),
        "sse",
    ));
    real_posts_through_web_socket(&serve(
        "dev",
        TopicNamespace::new(&bootstrap, "posts-ws."),
        "ws",
    ));
}
