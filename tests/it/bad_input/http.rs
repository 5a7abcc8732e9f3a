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
    assert!(response.contains("fewer than 10240 bytes of the body arrived"), "{response}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn announced_bodies_that_do_not_come_cause_no_503() {
    let server = Server::start(&[]);
    let good = br#"{"event_type":"custom.x","account_id":"a","data":{}}"#;
    let mut silent = Vec::new();
    for encoding in ["gzip", "zstd", "deflate", "identity"] {
        for _ in 0..8 {
            let mut stream = TcpStream::connect(server.addr()).expect("it listens");
            let head = format!(
                "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: \
                 application/json\r\ncontent-encoding: {encoding}\r\ncontent-length: \
                 4194304\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).expect("sent");
            stream.write_all(b"\x1f\x8b").expect("sent");
            silent.push(stream);
        }
        let mut http = server.http();
        for _ in 0..10 {
            let answer = http.post("/v1/events", "application/json", good).expect("an answer");
            assert_eq!(answer.status, 202, "{encoding}: {}", answer.text());
        }
    }
}

#[test]
fn a_request_that_is_not_http_is_answered_with_json() {
    let server = Server::start(&[]);
    for (request, status) in [
        ("GET /v1/stats\r\n\r\n".to_owned(), "400"),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(17_000)), "431"),
    ] {
        let mut stream = TcpStream::connect(server.addr()).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time limit");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("it is answered and closed");
        let (head, body) = response.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body["error"]["code"], "invalid_message", "{body}");
    }
}

#[test]
fn an_empty_batch_and_a_byte_order_mark_are_accepted_over_http() {
    let server = Server::start(&[]);
    let mut http = server.http();
    let batch = "application/cloudevents-batch+json";
    let answer = http.post("/v1/events", batch, b"[]").expect("an answer");
    assert_eq!((answer.status, answer.json()["accepted"].clone()), (202, 0.into()));
    let marked = "\u{feff}{\"event_type\":\"custom.x\",\"account_id\":\"a\",\"data\":{}}\n";
    for kind in ["application/json", "application/x-ndjson"] {
        let answer = http.post("/v1/events", kind, marked.as_bytes()).expect("an answer");
        assert_eq!(answer.status, 202, "{kind}: {}", answer.text());
    }
    let answer = http.post("/v1/events", batch, b"{}").expect("an answer");
    assert!(answer.text().contains("an array is expected"), "{}", answer.text());
}
