//! TLS and SASL through pass-through properties: delivery, and the error for a wrong password.

use std::time::Duration;

use tidewire_connectors::kafka::{Config, KafkaLog};
use tidewire_engine::port::{Log, LogError};
use tidewire_tests::broker::{Broker, secure};
use tidewire_tests::event_source::EventSource;
use tidewire_tests::server::Server;

/// How long one event may take on a busy machine.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(30);

/// The properties an administrator sets.
fn properties(broker: &Broker, password: &str) -> [(&'static str, String); 5] {
    let ca = broker.ca_pem().to_str().expect("a path of ours").to_owned();
    [
        ("security.protocol", "SASL_SSL".to_owned()),
        ("ssl.ca.location", ca),
        ("sasl.mechanism", "SCRAM-SHA-256".to_owned()),
        ("sasl.username", secure::OWNER.to_owned()),
        ("sasl.password", password.to_owned()),
    ]
}

#[test]
fn an_event_is_delivered_over_tls_and_scram_and_a_wrong_password_is_reported() {
    let broker = Broker::secure();
    let log = format!("kafka://{}", broker.secure_bootstrap());
    let given = properties(&broker, secure::PASSWORD);
    let variables: Vec<(String, &str)> = given
        .iter()
        .map(|(name, value)| {
            let name = name.replace('.', "_").to_uppercase();
            (format!("TIDEWIRE_KAFKA_PROPERTIES_{name}"), value.as_str())
        })
        .collect();
    let variables: Vec<(&str, &str)> =
        variables.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let server = Server::start_as("dev", &["--log", &log], &variables);
    let path = "/v1/sse?from=latest&channels=posts:ann";
    let mut subscriber = EventSource::open(server.addr(), path, None, None).expect("it serves");
    let event = br#"{"event_id":"s-1","event_type":"post.created","account_id":"demo",
        "data":{"post_id":"p1","author_id":"ann","text":"under lock"}}"#;
    let answer = server.http().post("/v1/events", "application/json", event).expect("it serves");
    assert_eq!(answer.status, 202, "{}", answer.text());
    let got = subscriber.next_event(ARRIVAL_LIMIT).expect("a stream").expect("the event");
    assert_eq!(got.event_id, "s-1");
    refused(&broker);
}

/// A wrong password is reported as refused by the broker, not as a time-out, and is not retried.
fn refused(broker: &Broker) {
    let mut config = Config::new(&broker.secure_bootstrap(), "tw.");
    for (name, value) in properties(broker, "not-the-password") {
        config.properties.insert(name.to_owned(), value);
    }
    let outcome = KafkaLog::open(config).expect("well formed").topics();
    let Err(LogError::Fatal(text, _)) = outcome else { panic!("not refused: {outcome:?}") };
    assert!(text.contains("authentication or TLS failed"), "{text}");
    assert!(!text.contains("not-the-password"), "{text}");
}
