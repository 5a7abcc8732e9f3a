//! A broker that refused connections and then accepts them without an answer is reported as both.

use std::error::Error;
use std::net::TcpListener;
use std::sync::Arc;

use tidewire_connectors::kafka::{Config, KafkaLog};
use tidewire_engine::port::Log;

/// The error of a question and its causes.
fn error_of(log: &Arc<KafkaLog>) -> String {
    let error = log.topics().expect_err("nobody answers");
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    format!("{error}: {cause}")
}

#[test]
fn a_broker_that_is_silent_now_is_reported_as_accepting_behind_its_newest_error() {
    let first = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = first.local_addr().expect("bound");
    drop(first);
    let log = KafkaLog::open(Config::new(&address.to_string(), "silent.")).expect("well formed");
    let refused = error_of(&log);
    assert!(refused.contains("refused"), "{refused}");
    assert!(!refused.contains("accepts connections"), "{refused}");
    let _silent = TcpListener::bind(address).expect("still free");
    let silent = error_of(&log);
    assert!(silent.contains("the newest error was: "), "{silent}");
    assert!(silent.contains(&format!("{address} accepts connections now")), "{silent}");
}
