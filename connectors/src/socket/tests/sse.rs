//! Server-sent events through the whole gateway.

use std::time::Duration;

use crate::clock;

use super::client::Client;
use super::site::{LIMITS, TestSite, wait_for};

fn open(site: &TestSite, headers: &str) -> (Client, String) {
    let mut client = Client::connect(site.address());
    client.send(format!(
        "GET /v1/sse?channels=posts:alice HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n"
    ));
    let head = client.take_until("\r\n\r\n");
    (client, head)
}

#[test]
fn a_stream_has_the_head_browsers_and_proxies_need() {
    let site = TestSite::new(LIMITS);
    let (mut client, head) = open(&site, "accept: text/event-stream\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    for line in
        ["content-type: text/event-stream", "cache-control: no-cache", "x-accel-buffering: no"]
    {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{head}");
    }
    assert!(!head.contains("transfer-encoding"), "{head}");
    assert_eq!(client.take_until("\n\n"), "data: welcome\n\n");
    site.script.say("news");
    assert_eq!(client.take_until("\n\n"), "data: news\n\n");
}

#[test]
fn a_client_that_leaves_is_forgotten() {
    let site = TestSite::new(LIMITS);
    let (client, _) = open(&site, "");
    wait_for(|| (site.script.seen.lock().unwrap().opened == 1).then_some(()));
    drop(client);
    wait_for(|| (site.gateway.connections() == 0).then_some(()));
}

#[test]
fn a_client_that_talks_without_end_is_closed() {
    let site = TestSite::new(LIMITS);
    let (mut client, _) = open(&site, "");
    let talk = [b'x'; 32_768];
    let refused = (0..100).any(|_| {
        clock::pause(Duration::from_millis(10));
        std::io::Write::write_all(&mut client.stream, &talk).is_err()
    });
    assert!(refused);
    wait_for(|| (site.gateway.connections() == 0).then_some(()));
}

#[test]
fn bad_requests_are_answered_before_a_stream_is_opened() {
    let site = TestSite::new(LIMITS);
    let mut client = Client::connect(site.address());
    for path in ["/v1/sse", "/v1/sse?channels=", "/v1/sse?channels=,"] {
        assert_eq!(client.get(path).status, 400, "{path}");
    }
    let many = vec!["posts:a"; 129].join(",");
    assert_eq!(client.get(&format!("/v1/sse?channels={many}")).code(), "invalid_channel");
    client.send("HEAD /v1/sse?channels=posts:a HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert!(client.take_until("\r\n\r\n").starts_with("HTTP/1.1 400"));
    assert_eq!(site.script.seen.lock().unwrap().opened, 0);
}

#[test]
fn draining_ends_the_stream() {
    let site = TestSite::new(LIMITS);
    let (mut client, _) = open(&site, "");
    assert_eq!(client.take_until("\n\n"), "data: welcome\n\n");
    site.gateway.drain(Duration::ZERO);
    assert!(client.is_at_end());
    drop(client);
    site.gateway.join();
}
