//! Server-sent events through the whole gateway.

use std::time::Duration;

use crate::clock;

use super::client::RawClient;
use super::fixture::{GatewayFixture, LIMITS, wait_for};

fn open(fixture: &GatewayFixture, headers: &str) -> (RawClient, String) {
    let mut client = RawClient::connect(fixture.address());
    client.send(format!(
        "GET /v1/sse?channels=posts:alice HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n"
    ));
    let head = client.take_until("\r\n\r\n");
    (client, head)
}

#[test]
fn a_stream_has_the_head_browsers_and_proxies_need() {
    let fixture = GatewayFixture::new(LIMITS);
    let (mut client, head) = open(&fixture, "accept: text/event-stream\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    for line in [
        "content-type: text/event-stream",
        "cache-control: no-cache, no-transform",
        "x-accel-buffering: no",
    ] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{head}");
    }
    assert!(!head.contains("transfer-encoding"), "{head}");
    assert_eq!(client.take_until("\n\n"), "data: welcome\n\n");
    fixture.script.broadcast("news");
    assert_eq!(client.take_until("\n\n"), "data: news\n\n");
}

#[test]
fn a_client_that_disconnects_is_released() {
    let fixture = GatewayFixture::new(LIMITS);
    let (client, _) = open(&fixture, "");
    wait_for(|| (fixture.script.seen.lock().unwrap().opened == 1).then_some(()));
    drop(client);
    wait_for(|| (fixture.gateway.connections() == 0).then_some(()));
}

#[test]
fn a_client_that_never_stops_sending_is_closed() {
    let fixture = GatewayFixture::new(LIMITS);
    let (mut client, _) = open(&fixture, "");
    let talk = [b'x'; 32_768];
    let refused = (0..100).any(|_| {
        clock::pause(Duration::from_millis(10));
        std::io::Write::write_all(&mut client.stream, &talk).is_err()
    });
    assert!(refused);
    wait_for(|| (fixture.gateway.connections() == 0).then_some(()));
}

#[test]
fn bad_requests_are_answered_before_a_stream_is_opened() {
    let fixture = GatewayFixture::new(LIMITS);
    let mut client = RawClient::connect(fixture.address());
    for path in ["/v1/sse", "/v1/sse?channels=", "/v1/sse?channels=,"] {
        assert_eq!(client.get(path).status, 400, "{path}");
    }
    let many = vec!["posts:a"; 129].join(",");
    assert_eq!(client.get(&format!("/v1/sse?channels={many}")).code(), "invalid_channel");
    client.send("HEAD /v1/sse?channels=posts:a HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert!(client.take_until("\r\n\r\n").starts_with("HTTP/1.1 400"));
    assert_eq!(fixture.script.seen.lock().unwrap().opened, 0);
}

#[test]
fn draining_ends_the_stream() {
    let fixture = GatewayFixture::new(LIMITS);
    let (mut client, _) = open(&fixture, "");
    assert_eq!(client.take_until("\n\n"), "data: welcome\n\n");
    fixture.gateway.drain(Duration::ZERO);
    assert!(client.is_at_end());
    drop(client);
    fixture.gateway.join();
}
