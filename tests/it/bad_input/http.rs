//! The bad records posted over HTTP, one by one.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tidewire_tests::server::Server;

use super::samples::values;

#[test]
fn every_bad_event_gets_its_reason_and_the_next_event_is_accepted() {
    let server = Server::start(&[]);
    let mut http = server.http();
    for sample in values() {
        let value = sample.value.expect("a value");
        // One line is one event, whatever its content.
        if value.contains(&b'\n') {
            continue;
        }
        let good = r#"{"event_type":"custom.x","account_id":"a","data":{}}"#;
        let body = [&value[..], b"\n", good.as_bytes()].concat();
        let answer = http.post("/v1/events", "application/x-ndjson", &body).expect("an answer");
        assert_eq!(answer.status, 202, "{}: {}", sample.what, answer.text());
        let answer = answer.json();
        let error = &answer["events"][0]["error"];
        assert_eq!(error["reason"], sample.reason, "{}: {answer}", sample.what);
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains(sample.detail), "{}: {message}", sample.what);
        assert_eq!(answer["accepted"], 1, "{}", sample.what);
    }
}

#[test]
fn a_slow_post_blocks_nobody_and_is_ended() {
    let server = Server::start(&[]);
    let mut slow = TcpStream::connect(server.addr()).expect("it listens");
    slow.set_read_timeout(Some(Duration::from_secs(60))).expect("a time limit");
    let head = "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                content-length: 1000\r\n\r\n{";
    slow.write_all(head.as_bytes()).expect("sent");
    let begun = Instant::now();
    let good = br#"{"event_type":"custom.x","account_id":"a","data":{}}"#;
    let answer = server.http().post("/v1/events", "application/json", good).expect("an answer");
    assert_eq!(answer.status, 202);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let mut response = String::new();
    slow.read_to_string(&mut response).expect("it is answered and closed");
    assert!(response.starts_with("HTTP/1.1 408"), "{response}");
    assert!(response.contains("did not arrive within"), "{response}");
}
