//! Server-sent events through the whole gateway.

use std::time::Duration;

use tidewire_engine::fanout::protocol::native::StartAt;

use crate::clock;
use crate::socket::limits::ConnectionLimits;

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
    let head = client.take_until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/event-stream"), "{head}");
    assert_eq!(fixture.script.seen.lock().unwrap().opened, 0);
}

/// The status of a stream that is asked for with these header lines and this end of the query.
fn asked(headers: &[u8], query: &str) -> (String, GatewayFixture) {
    let fixture = GatewayFixture::new(LIMITS);
    let mut client = RawClient::connect(fixture.address());
    let start = format!("GET /v1/sse?channels=posts:alice{query} HTTP/1.1\r\nhost: localhost\r\n");
    client.send([start.as_bytes(), headers, b"connection: close\r\n\r\n"].concat());
    let mut answer = client.take_until("\r\n\r\n");
    if !answer.starts_with("HTTP/1.1 200") {
        while client.read_more() {}
        answer.push_str(&String::from_utf8_lossy(&client.ahead));
    }
    (answer, fixture)
}

const TOKEN: &str = "earliest";

#[test]
fn a_position_in_a_header_is_read_or_refused_and_never_guessed() {
    let check = |headers: &[u8], query: &str, expected: &str| {
        let (answer, fixture) = asked(headers, query);
        match expected {
            "" => {
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                let starts = fixture.script.seen.lock().unwrap().starts.clone();
                assert_eq!(starts, [StartAt::Earliest], "{}", headers.escape_ascii());
            }
            part => {
                assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
                assert!(answer.contains(part), "{answer}");
            }
        }
    };
    check(b"last-event-id: earliest\r\n", "", "");
    check(b"last-event-id: earliest\xff\r\n", "", "last-event-id");
    check(b"last-event-id: \r\n", &format!("&last_event_id={TOKEN}"), "");
    check(b"last-event-id:\r\nlast-event-id: earliest\r\n", "", "");
    check(b"last-event-id: latest\r\nlast-event-id: earliest\r\n", "", "different values");
    check(b"last-event-id: earliest\r\nlast-event-id: earliest\r\n", "", "");
    check(b"last-event-id: earliest\r\n", "&last_event_id=latest", "");
    check(b"", "&lastEventId=earliest", "");
    check(b"", "&fron=earliest", "did you mean `from`?");
}

#[test]
fn a_page_of_a_listed_origin_may_send_what_handlers_read() {
    let fixture = GatewayFixture::new(LIMITS);
    let mut client = RawClient::connect(fixture.address());
    client.send(
        "OPTIONS /v1/sse HTTP/1.1\r\nhost: localhost\r\naccess-control-request-method: GET\r\n\
         access-control-request-headers: Cache-Control, ce-id,x-other, TW-Key,last-event-id\r\n\
         \r\n",
    );
    let head = client.take_until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 204"), "{head}");
    let allowed = "access-control-allow-headers: cache-control, ce-id, tw-key, last-event-id\r\n";
    assert!(head.contains(allowed), "{head}");
    client.send("OPTIONS /v1/sse HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let head = client.take_until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 204") && head.contains("allow: GET,HEAD"), "{head}");
}

#[test]
fn every_response_forbids_frames_and_guessing_of_types() {
    let fixture = GatewayFixture::new(LIMITS);
    let mut client = RawClient::connect(fixture.address());
    for path in ["/", "/healthz", "/nothing"] {
        let head = client.get(path).head;
        assert!(head.contains("frame-ancestors 'none'"), "{head}");
        assert!(head.contains("x-content-type-options: nosniff"), "{head}");
        assert!(head.contains("referrer-policy: no-referrer"), "{head}");
    }
}

#[test]
fn a_stream_beyond_a_limit_is_told_to_come_again() {
    let fixture = GatewayFixture::new(ConnectionLimits { connections: 1, ..LIMITS });
    let _first = open(&fixture, "");
    let mut times = Vec::new();
    for _ in 0..3 {
        let (mut client, head) = open(&fixture, "");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("text/event-stream"), "{head}");
        let retry = client.take_until("\n\n");
        let after: u32 = retry.trim().strip_prefix("retry: ").unwrap().parse().unwrap();
        assert!((5_000..10_000).contains(&after), "{after}");
        assert!(client.is_at_end());
        times.push(after);
    }
    assert!(times[0] != times[1] && times[1] != times[2], "{times:?}");
    let mut other = RawClient::connect(fixture.address());
    assert_eq!(other.get("/healthz").status, 503, "other requests are refused as before");
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
