//! Server-sent events through the whole gateway.

use std::collections::BTreeSet;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::clock;
use crate::socket::gateway::GatewayParts;
use crate::socket::http::state::AppHooks;
use crate::socket::limits::ConnectionLimits;
use crate::socket::stream::worker;

use super::client::RawClient;
use super::fixture::{GatewayFixture, LIMITS, LISTED_ORIGIN, hooks, memory, start_parts, wait_for};
use super::scripted_shard::ShardScript;

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
        "content-type: text/event-stream; charset=utf-8",
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

/// A client that shuts down its sending half, with its request or later, has said that it sends
/// nothing more. It is served on, and released with the first write after it is gone.
#[test]
fn a_client_that_ends_only_its_sending_half_is_served() {
    let fixture = GatewayFixture::new(LIMITS);
    for after_head in [false, true] {
        let mut client = RawClient::connect(fixture.address());
        client.send("GET /v1/sse?channels=posts:alice HTTP/1.1\r\nhost: localhost\r\n\r\n");
        if !after_head {
            client.stream.shutdown(Shutdown::Write).expect("an open connection");
        }
        assert!(client.take_until("\r\n\r\n").starts_with("HTTP/1.1 200"));
        client.take_until("data: welcome\n\n");
        if after_head {
            client.stream.shutdown(Shutdown::Write).expect("an open connection");
            clock::pause(Duration::from_millis(100));
        }
        for text in ["one", "two"] {
            fixture.script.broadcast(text);
            client.take_until(&format!("data: {text}\n\n"));
        }
        assert_eq!(fixture.gateway.connections(), 1);
        drop(client);
        // Nothing says so before the next write.
        wait_for(|| {
            fixture.script.broadcast("three");
            (fixture.gateway.connections() == 0).then_some(())
        });
    }
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
    for query in ["channels=posts:a&fron=earliest", "channels=posts:a&from=%ff", "channels=posts:%"]
    {
        assert_eq!(client.get(&format!("/v1/sse?{query}")).code(), "invalid_message", "{query}");
    }
    let ids = "last-event-id: AbHz3fEJAQcAAAAMjlKG\r\nlast-event-id: AbHz3fEJAQcAAQB7FvCV";
    for id in [ids.as_bytes(), b"last-event-id: AbHz3fEJAQcAAAAMjlKG\xff"] {
        let head = b"GET /v1/sse?channels=posts:a HTTP/1.1\r\nhost: localhost\r\n";
        client.send([head, id, b"\r\n\r\n"].concat());
        let refused = client.response();
        assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_message"));
        assert!(refused.json().to_string().contains("last-event-id"));
    }
    assert_eq!(fixture.script.seen.lock().unwrap().opened, 0);
}

#[test]
fn head_agrees_with_get_and_opens_nothing() {
    let fixture = GatewayFixture::new(LIMITS);
    let mut client = RawClient::connect(fixture.address());
    let mut head = |query: &str| {
        client.send(format!("HEAD /v1/sse?{query} HTTP/1.1\r\nhost: localhost\r\n\r\n"));
        client.take_until("\r\n\r\n")
    };
    let right = head("channels=posts:a");
    assert!(right.starts_with("HTTP/1.1 200 "), "{right}");
    assert!(right.contains("\r\ncontent-type: text/event-stream; charset=utf-8\r\n"), "{right}");
    assert!(!right.contains("content-length"), "that of a GET is another: {right}");
    assert!(head("channels=post:a").starts_with("HTTP/1.1 400 "));
    assert!(head("channels=posts:a&fron=1").starts_with("HTTP/1.1 400 "));
    assert_eq!(fixture.script.seen.lock().unwrap().opened, 0);
}

/// Reads a refused stream: its head, and when to come back.
fn retry_of_full(fixture: &GatewayFixture) -> (String, u64) {
    let origin = format!("origin: {LISTED_ORIGIN}\r\n");
    let (mut client, head) = open(fixture, &origin);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("\r\ncontent-type: text/event-stream; charset=utf-8\r\n"), "{head}");
    assert!(head.contains(&format!("\r\naccess-control-allow-origin: {LISTED_ORIGIN}\r\n")));
    assert!(client.take_until("\n").contains("limit of connections"));
    let retry = client.take_until("\n");
    assert!(client.is_at_end(), "no block, and the end");
    let retry = retry.strip_prefix("retry: ").and_then(|text| text.trim().parse().ok());
    (head, retry.expect("a number"))
}

#[test]
fn a_stream_without_room_ends_with_the_time_after_which_a_browser_returns() {
    for limits in [
        ConnectionLimits { connections: 1, ..LIMITS },
        ConnectionLimits { per_address: 1, loopback_exempt: false, ..LIMITS },
    ] {
        let fixture = GatewayFixture::new(limits);
        let (first, _) = open(&fixture, "");
        let times: BTreeSet<u64> = (0..8).map(|_| retry_of_full(&fixture).1).collect();
        assert!(times.iter().all(|ms| (5_000..15_000).contains(ms)), "{times:?}");
        assert!(times.len() > 4, "they do not return together: {times:?}");
        drop(first);
        wait_for(|| (fixture.gateway.connections() == 0).then_some(()));
        let (mut client, _) = open(&fixture, "");
        assert_eq!(client.take_until("\n\n"), "data: welcome\n\n");
    }
}

#[test]
fn a_stream_that_the_worker_refuses_ends_with_the_time_to_return() {
    let fixture = GatewayFixture::new(LIMITS);
    fixture.script.seen.lock().unwrap().is_full = true;
    let (mut client, head) = open(&fixture, "");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(client.take_until("\n").starts_with("retry: "));
    assert!(client.is_at_end());
}

#[test]
fn a_user_with_too_many_streams_is_refused_for_good() {
    let limits = ConnectionLimits { per_user: 1, loopback_exempt: false, ..LIMITS };
    let fixture = GatewayFixture::new(limits);
    let _first = open(&fixture, "");
    let (_, head) = open(&fixture, "");
    assert!(head.starts_with("HTTP/1.1 429 "), "{head}");
}

#[test]
fn those_held_while_the_process_starts_are_checked_by_one_task_and_let_in_together() {
    const HELD: usize = 200;
    let (started, checks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (is_started, counted) = (Arc::clone(&started), Arc::clone(&checks));
    let accepts_subscribers = Box::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        is_started.load(Ordering::SeqCst)
    });
    let script = ShardScript::default();
    let worker = worker::start(0, memory(), |wake| script.shard(wake));
    let hooks = AppHooks { accepts_subscribers, ..hooks() };
    let workers = vec![worker.expect("a thread")];
    let gateway = start_parts(LIMITS, GatewayParts { publish: None, hooks, workers, hub: None });
    let mut held: Vec<RawClient> = (0..HELD)
        .map(|_| {
            let mut client = RawClient::connect(gateway.local_addr());
            client.send("GET /v1/sse?channels=posts:a HTTP/1.1\r\nhost: localhost\r\n\r\n");
            client
        })
        .collect();
    wait_for(|| (checks.load(Ordering::SeqCst) >= HELD).then_some(()));
    let begun = (clock::now(), checks.load(Ordering::SeqCst));
    clock::pause(Duration::from_millis(500));
    let checked = checks.load(Ordering::SeqCst) - begun.1;
    let most = begun.0.elapsed().as_millis() / 20 + 10;
    assert!((checked as u128) <= most, "{checked} checks for {HELD} clients, at most {most}");
    assert_eq!(script.seen.lock().unwrap().opened, 0);
    started.store(true, Ordering::SeqCst);
    for client in &mut held {
        assert!(client.take_until("\n\n").ends_with("data: welcome\n\n"));
    }
    drop(held);
    gateway.join();
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
