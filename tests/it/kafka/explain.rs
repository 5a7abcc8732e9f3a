//! `tidewire explain` on Kafka, beside the running pipeline.

use tidewire_tests::broker;

use super::fixture::{TopicNamespace, serve};
use crate::dead_letters::fixture::wait_until;
use crate::explain::{explain, has_in_order};

const PREFIX: &str = "explain.";

const POST: &str = r#"{"event_id":"k-1","event_type":"post.created","account_id":"acme",
    "data":{"post_id":"p1","author_id":"ann","text":"hello","mentions":["bob"]}}"#;

#[test]
fn a_post_is_explained_on_kafka_beside_the_pipeline() {
    let bootstrap = broker::shared().bootstrap();
    let mut server = serve("dev", TopicNamespace::new(&bootstrap, PREFIX), "only");
    let posted = server.http().post("/v1/events", "application/json", POST.as_bytes());
    assert!((200..300).contains(&posted.expect("an answer").status));
    let folder = tempfile::tempdir().expect("a folder");
    let settings = folder.path().join("tidewire.toml");
    std::fs::write(&settings, format!("topics.prefix = \"{PREFIX}\"\n")).expect("written");
    let (settings, data) = (settings.to_str().expect("UTF-8"), folder.path().join("data"));
    let (log, data) = (format!("kafka://{bootstrap}"), data.to_str().expect("UTF-8").to_owned());
    let at = ["k-1", "--log", &log, "--config", settings, "--data-dir", &data];
    wait_until("the notification is delivered", || {
        explain(&at).1.contains("to channel notifications:bob")
    });
    let (code, printed) = explain(&at);
    let way = [
        "post.created k-1 of acme/ann, accepted",
        "copied to key bob for notify",
        "emitted notification.created op/notify/",
        "operator unread",
    ];
    assert!(code == Some(0) && has_in_order(&printed, &way), "{code:?} {printed}");
    server.stop();
}
