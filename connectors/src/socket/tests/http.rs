//! HTTP requests through the whole gateway: paths, limits, admin endpoints, and leaving HTTP.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use crate::clock;
use crate::socket::gateway::{GatewayHandle, GatewayParts};
use crate::socket::http::admin::{AdminEndpoint, Effect};
use crate::socket::http::response::{ErrorResponse, HttpErrorCode};
use crate::socket::http::state::{AppHooks, Asset};
use crate::socket::limits::ConnectionLimits;

use super::client::{RawClient, handshake, text_frame};
use super::fixture::{GatewayFixture, LIMITS, hooks, start_parts, wait_for};

fn connected() -> (GatewayFixture, RawClient) {
    let fixture = GatewayFixture::new(LIMITS);
    let client = RawClient::connect(fixture.address());
    (fixture, client)
}

#[test]
fn plain_pages_are_served_on_one_connection() {
    let (_fixture, mut client) = connected();
    assert_eq!(client.get("/healthz").body, b"ok\n");
    assert_eq!(client.get("/readyz").status, 200);
    assert!(client.get("/metrics").head.contains("version=0.0.4"));
    assert_eq!(client.get("/").body, b"<!doctype html>");
    let stats = client.get("/v1/stats").json();
    assert_eq!((&stats["heads"], &stats["connections"]), (&7.into(), &1.into()));
}

#[test]
fn unknown_paths_and_methods_get_the_json_error_body() {
    let (_fixture, mut client) = connected();
    let response = client.get("/v2/ws");
    assert_eq!((response.status, response.code().as_str()), (404, "not_found"));
    client.send("DELETE /v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, response.code().as_str()), (405, "method_not_allowed"));
    assert!(response.head.contains("allow: POST"), "{}", response.head);
}

#[test]
fn a_role_without_clients_serves_only_the_endpoints_of_every_role() {
    let operators = AppHooks { assets: Vec::new(), ..hooks() };
    let parts = GatewayParts { publish: None, hooks: operators, workers: Vec::new(), hub: None };
    let gateway = start_parts(LIMITS, parts);
    let mut client = RawClient::connect(gateway.local_addr());
    for path in ["/healthz", "/readyz", "/metrics", "/v1/stats"] {
        assert_eq!(client.get(path).status, 200, "{path}");
    }
    let stats = client.get("/v1/stats").json();
    assert_eq!((&stats["heads"], &stats["websockets"]), (&7.into(), &serde_json::Value::Null));
    for path in ["/", "/v1/ws", "/v1/sse?channels=a:b", "/v1/events"] {
        let response = client.get(path);
        assert_eq!((response.status, response.code().as_str()), (404, "not_found"), "{path}");
        assert!(response.json().to_string().contains("go to a gateway"), "{path}");
    }
    gateway.join();
}

#[test]
fn a_slow_log_delays_only_requests_for_stats() {
    let (slow, released) = sync_channel::<()>(0);
    let (released, asked) = (Mutex::new(released), Arc::new(AtomicUsize::new(0)));
    let asking = Arc::clone(&asked);
    let stats = move || {
        asking.fetch_add(1, Ordering::SeqCst);
        // Ends with the test, when the sender is dropped.
        released.lock().unwrap().recv().ok();
        json!({})
    };
    let parts = GatewayParts {
        publish: None,
        hooks: AppHooks { stats: Box::new(stats), ..hooks() },
        workers: Vec::new(),
        hub: None,
    };
    let gateway = start_parts(LIMITS, parts);
    let ask = || {
        let mut client = RawClient::connect(gateway.local_addr());
        client.send("GET /v1/stats HTTP/1.1\r\nhost: localhost\r\n\r\n");
        client
    };
    let mut waiting: Vec<RawClient> = (0..4).map(|_| ask()).collect();
    wait_for(|| (asked.load(Ordering::SeqCst) == waiting.len()).then_some(()));
    let mut other = RawClient::connect(gateway.local_addr());
    let refused = other.get("/v1/stats");
    assert_eq!((refused.status, refused.code().as_str()), (503, "overloaded"));
    assert_eq!(other.get("/healthz").status, 200);
    drop(slow);
    for client in &mut waiting {
        assert_eq!(client.response().status, 200);
    }
    gateway.join();
}

#[test]
fn an_admin_endpoint_gets_its_query_and_a_mutating_one_needs_post() {
    let endpoint = |path, effect| AdminEndpoint {
        path,
        effect,
        parameters: &["id", "a"],
        run: Arc::new(|pairs: &[(String, String)]| match pairs.first() {
            Some(_) => Ok(json!({ "asked": pairs })),
            None => Err(ErrorResponse::new(HttpErrorCode::InvalidQuery, "say which")),
        }),
    };
    let admin_endpoints =
        vec![endpoint("/v1/look", Effect::ReadOnly), endpoint("/v1/change", Effect::Mutating)];
    let parts = GatewayParts {
        publish: None,
        hooks: AppHooks { admin_endpoints, ..hooks() },
        workers: Vec::new(),
        hub: None,
    };
    let gateway = start_parts(LIMITS, parts);
    let mut client = RawClient::connect(gateway.local_addr());
    let response = client.get("/v1/look?id=tw.in%2F1%2F2&id=b");
    assert_eq!(response.json(), json!({"asked": [["id", "tw.in/1/2"], ["id", "b"]]}));
    assert_eq!((client.get("/v1/look").status, client.get("/v1/change").status), (400, 405));
    assert_eq!(client.get("/v1/look?a=b=c&_=1").status, 200);
    for query in ["=", "&&", "%", "%ff=%fe", "id=%ff", "a;b", "a+b=%2", "a=1&all_open=true"] {
        let response = client.get(&format!("/v1/look?{query}"));
        assert!(response.head.contains("content-type: application/json"), "{query}");
        assert_eq!((response.status, response.code().as_str()), (400, "invalid_query"), "{query}");
    }
    client.send("POST /v1/change?a=1 HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(client.response().status, 200);
    let page = "POST /v1/change?a=1 HTTP/1.1\r\nhost: localhost\r\norigin: http://a.b\r\n\r\n";
    client.send(page);
    assert_eq!(client.response().status, 403, "a page of another origin must not change anything");
    client.send(page.replace("origin: http://a.b", "sec-fetch-site: cross-site"));
    assert_eq!(client.response().status, 403, "not even if its browser sends no origin");
    gateway.join();
}

#[test]
fn a_foreign_host_or_origin_is_refused_before_the_handler() {
    let (_fixture, mut client) = connected();
    client.send("GET /v1/stats HTTP/1.1\r\nhost: evil.example\r\n\r\n");
    assert_eq!(client.response().status, 403);
    client.send(handshake("").replace("host: localhost", "host: localhost\r\norigin: http://a.b"));
    assert_eq!(client.response().status, 403);
    client.send("GET http://evil.example/v1/stats HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert_eq!(client.response().status, 403, "the host of a whole URL counts");
    client.send("GET /v1/stats HTTP/1.0\r\n\r\n");
    assert_eq!(client.response().status, 200, "HTTP/1.0 has no Host");
}

#[test]
fn a_page_of_another_site_opens_no_stream() {
    let fixture = GatewayFixture::new(LIMITS);
    let image = "host: localhost\r\nsec-fetch-site: cross-site\r\nsec-fetch-mode: no-cors\r\n\
                 sec-fetch-dest: image";
    let stream = "GET /v1/sse?channels=posts:a HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for request in [stream.to_owned(), handshake("?user=ann")] {
        let mut client = RawClient::connect(fixture.address());
        client.send(request.replace("host: localhost", image));
        let response = client.response();
        assert_eq!((response.status, response.code().as_str()), (403, "forbidden"));
    }
    assert_eq!(fixture.script.seen.lock().unwrap().opened, 0);
}

#[test]
fn a_websocket_keeps_the_bytes_read_ahead_and_its_permit() {
    let (fixture, mut client) = connected();
    assert_eq!(client.get("/healthz").status, 200);
    client.send([handshake("?user=ann").as_bytes(), &text_frame("echo behind")].concat());
    let head = client.take_until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    assert!(head.contains("sec-websocket-protocol: tidewire.v1"), "{head}");
    assert_eq!(client.frame(), (0x81, b"welcome".to_vec()));
    assert_eq!(client.frame(), (0x81, b"behind".to_vec()));
    assert_eq!(fixture.gateway.connections(), 1);
    drop(client);
    wait_for(|| (fixture.gateway.connections() == 0).then_some(()));
}

#[test]
fn responses_to_pipelined_requests_come_before_the_stream() {
    let (_fixture, mut client) = connected();
    let first = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    client.send(first.to_owned() + &handshake(""));
    assert_eq!(client.response().status, 200);
    assert_eq!(client.response().status, 101);
    assert_eq!(client.frame(), (0x81, b"welcome".to_vec()));
}

#[test]
fn invalid_handshakes_are_refused_with_their_status() {
    let (_fixture, mut client) = connected();
    assert_eq!(client.get("/v1/ws").status, 426);
    for (whole, part, status) in [
        ("sec-websocket-version: 13", "sec-websocket-version: 8", 426),
        ("dGhlIHNhbXBsZSBub25jZQ==", "short", 400),
        ("connection: keep-alive, Upgrade", "connection: keep-alive", 400),
        ("upgrade: websocket\r\n", "upgrade: websocket\r\ncontent-length: 3\r\n", 400),
    ] {
        let mut client = RawClient::connect(_fixture.address());
        client.send(handshake("").replace(whole, part));
        assert_eq!(client.response().status, status, "{part}");
    }
}

#[test]
fn a_request_with_two_lengths_is_refused() {
    let (fixture, mut client) = connected();
    client.send(
        "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\n\
         host: localhost\r\n\r\n",
    );
    // 400 by either reading: as conflicting lengths, or as an empty chunked body.
    assert_eq!(client.response().status, 400);
    let mut client = RawClient::connect(fixture.address());
    client.send(
        "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n\
         content-length: 5\r\n\r\nabcde",
    );
    assert_eq!(client.response().status, 400);
}

#[test]
fn a_full_gateway_answers_with_retry_after() {
    let fixture = GatewayFixture::new(ConnectionLimits { connections: 1, ..LIMITS });
    let mut first = RawClient::connect(fixture.address());
    assert_eq!(first.get("/healthz").status, 200);
    let mut second = RawClient::connect(fixture.address());
    let response = second.get("/healthz");
    assert_eq!((response.status, response.code().as_str()), (503, "overloaded"));
    assert!(response.head.contains("retry-after: "), "{}", response.head);
    assert!(second.is_at_end());
    let mut socket = RawClient::connect(fixture.address());
    socket.send(handshake(""));
    assert_eq!(socket.response().status, 503);
    drop(first);
    wait_for(|| (fixture.gateway.connections() == 0).then_some(()));
    assert_eq!(RawClient::connect(fixture.address()).get("/healthz").status, 200);
}

#[test]
fn an_address_and_a_user_have_limits_when_loopback_is_not_exempt() {
    let limits = ConnectionLimits { per_address: 2, per_user: 1, loopback_exempt: false, ..LIMITS };
    let fixture = GatewayFixture::new(limits);
    let mut first = RawClient::connect(fixture.address());
    first.send(handshake("?user=ann"));
    assert_eq!(first.response().status, 101);
    let mut second = RawClient::connect(fixture.address());
    second.send(handshake("?user=ann"));
    assert_eq!(second.response().status, 429);
    assert_eq!(RawClient::connect(fixture.address()).get("/healthz").status, 429);
}

#[test]
fn a_head_that_trickles_in_ends_the_connection() {
    let (fixture, mut client) = connected();
    let begun = clock::now();
    let trickled = (0..2_000).any(|_| {
        clock::pause(Duration::from_millis(10));
        std::io::Write::write_all(&mut client.stream, b"G").is_err()
    });
    assert!(trickled, "still open after {:?}", begun.elapsed());
    wait_for(|| (fixture.gateway.connections() == 0).then_some(()));
}

#[test]
fn a_handler_that_works_for_longer_than_a_stall_is_answered() {
    let run = |_: &[(String, String)]| {
        // Twice as long as a client may be silent.
        clock::pause(Duration::from_secs(4));
        Ok(json!({"done": true}))
    };
    let endpoint = AdminEndpoint {
        path: "/v1/slow",
        effect: Effect::Mutating,
        parameters: &[],
        run: Arc::new(run),
    };
    let parts = GatewayParts {
        publish: None,
        hooks: AppHooks { admin_endpoints: vec![endpoint], ..hooks() },
        workers: Vec::new(),
        hub: None,
    };
    let gateway = start_parts(LIMITS, parts);
    let mut client = RawClient::connect(gateway.local_addr());
    client.send("POST /v1/slow HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, &response.json()["done"]), (200, &true.into()));
    assert_eq!(client.get("/healthz").status, 200, "the connection goes on");
    gateway.join();
}

/// A gateway with a file of 64 MiB at `/large`.
fn start_with_large_file() -> GatewayHandle {
    let large = Asset {
        path: "/large".to_owned(),
        kind: "text/plain",
        content: bytes::Bytes::from(vec![b'x'; 64 << 20]),
    };
    let parts = GatewayParts {
        publish: None,
        hooks: AppHooks { assets: vec![large], ..hooks() },
        workers: Vec::new(),
        hub: None,
    };
    start_parts(LIMITS, parts)
}

#[test]
fn a_client_that_does_not_read_its_response_is_dropped() {
    let gateway = start_with_large_file();
    let mut client = RawClient::connect(gateway.local_addr());
    client.send("GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n");
    wait_for(|| (gateway.connections() == 1).then_some(()));
    wait_for(|| (gateway.connections() == 0).then_some(()));
    gateway.join();
}

#[test]
fn a_client_that_reads_its_response_too_slowly_is_dropped() {
    let gateway = start_with_large_file();
    let mut client = RawClient::connect_narrow(gateway.local_addr());
    client.send("GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let begun = clock::now();
    while client.read_more() && begun.elapsed() < Duration::from_secs(10) {
        clock::pause(Duration::from_millis(50));
        if gateway.connections() == 0 {
            gateway.join();
            return;
        }
    }
    panic!("{} bytes were sent over 10 s", client.ahead.len());
}

#[test]
fn a_request_that_is_not_http_gets_the_json_error_body() {
    let fixture = GatewayFixture::new(LIMITS);
    let many: String = (0..70).map(|n| format!("x-{n}: 1\r\n")).collect();
    for (request, status, part) in [
        ("GET /\r\n\r\n".to_owned(), 400, "METHOD PATH HTTP/1.1"),
        ("\u{16}\u{3}\u{1}\0\0\r\n\r\n".to_owned(), 400, "TLS"),
        ("GET / HTTP/1.1\r\nhost localhost\r\n\r\n".to_owned(), 400, "NAME: VALUE"),
        (format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(20_000)), 431, "16384 bytes"),
        (format!("GET / HTTP/1.1\r\n{many}\r\n"), 431, "64 headers"),
    ] {
        let mut client = RawClient::connect(fixture.address());
        client.send(&request);
        let response = client.response();
        assert_eq!((response.status, response.code().as_str()), (status, "invalid_message"));
        assert!(response.head.contains("content-type: application/json"), "{}", response.head);
        assert!(response.head.contains("date: "), "{}", response.head);
        let message = response.json().to_string();
        assert!(message.contains(part), "{message}");
        assert!(client.is_at_end());
    }
    // Behind requests that were answered, in one piece with the last of them.
    let mut client = RawClient::connect(fixture.address());
    let good = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    client.send(format!("{good}{good}GARBAGE\r\n\r\n"));
    assert_eq!(client.response().body, b"ok\n");
    assert_eq!(client.response().body, b"ok\n");
    let response = client.response();
    assert_eq!((response.status, response.code().as_str()), (400, "invalid_message"));
    assert!(client.is_at_end());
}

#[test]
fn a_body_that_trickles_in_is_answered_with_408() {
    let (fixture, mut client) = connected();
    client.send(
        "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: 1000\r\n\r\n{",
    );
    let response = client.response();
    assert_eq!((response.status, response.code().as_str()), (408, "timeout"));
    assert!(client.is_at_end());
    // A byte now and then is not enough, and neither is a rate that would take for ever.
    let mut client = RawClient::connect(fixture.address());
    client.send(
        "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n",
    );
    let chunk = [b"100\r\n".to_vec(), vec![b' '; 0x100], b"\r\n".to_vec()].concat();
    let begun = clock::now();
    while begun.elapsed() < Duration::from_secs(4) {
        if std::io::Write::write_all(&mut client.stream, &chunk).is_err() {
            break;
        }
        clock::pause(Duration::from_millis(100));
    }
    let response = client.response();
    assert_eq!(response.status, 408);
    assert!(response.json().to_string().contains("within 2 s"), "{}", response.json());
}

#[test]
fn idle_connections_are_closed_when_the_gateway_drains() {
    let (fixture, mut client) = connected();
    assert_eq!(client.get("/healthz").status, 200);
    fixture.gateway.drain(Duration::ZERO);
    assert!(client.is_at_end());
    fixture.gateway.join();
}
