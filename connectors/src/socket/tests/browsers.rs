//! What browsers are told: response headers, CORS, methods, and the checks of a handshake.

use crate::socket::limits::ConnectionLimits;

use super::client::{RawClient, handshake};
use super::fixture::{GatewayFixture, LIMITS, LISTED_ORIGIN, wait_for};

fn connected() -> (GatewayFixture, RawClient) {
    let fixture = GatewayFixture::new(LIMITS);
    let client = RawClient::connect(fixture.address());
    (fixture, client)
}

#[test]
fn options_without_a_preflight_names_the_methods() {
    let (_fixture, mut client) = connected();
    for (path, allow) in [("/v1/sse", "GET,HEAD"), ("/v1/events", "POST"), ("/", "GET,HEAD")] {
        client.send(format!("OPTIONS {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"));
        let response = client.response();
        assert_eq!(response.status, 204, "{path}");
        assert!(response.head.contains(&format!("allow: {allow}\r\n")), "{}", response.head);
    }
    client.send("OPTIONS /v2/ws HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert_eq!(client.response().status, 404);
}

#[test]
fn every_response_tells_browsers_how_little_it_may_do() {
    let fixture = GatewayFixture::new(ConnectionLimits { connections: 4, ..LIMITS });
    let get =
        |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{more}\r\n");
    let mut heads = Vec::new();
    for request in [
        get("/", ""),
        get("/healthz", ""),
        get("/v2/ws", ""),
        get("/v1/ws", ""),
        get("/v1/sse?channels=posts:a", ""),
        get("/v1/sse", ""),
        get("/", "origin: http://a.b\r\n"),
        "OPTIONS / HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(),
        "HEAD /v1/sse?channels=posts:a HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(),
        "not http\r\n\r\n".to_owned(),
    ] {
        let mut client = RawClient::connect(fixture.address());
        client.send(request);
        heads.push(client.take_until("\r\n\r\n"));
        drop(client);
        wait_for(|| (fixture.gateway.connections() == 0).then_some(()));
    }
    let _held: Vec<RawClient> = (0..4)
        .map(|_| {
            let mut client = RawClient::connect(fixture.address());
            assert_eq!(client.get("/healthz").status, 200);
            client
        })
        .collect();
    heads.push(RawClient::connect(fixture.address()).get("/healthz").head);
    for head in heads {
        for line in [
            "content-security-policy: default-src 'none'; script-src 'self';",
            "x-content-type-options: nosniff\r\n",
            "referrer-policy: no-referrer\r\n",
        ] {
            assert!(head.contains(line), "{line} is not in {head}");
        }
        assert!(head.contains("frame-ancestors 'none'"), "{head}");
    }
}

#[test]
fn a_page_of_a_listed_origin_may_send_what_is_read_and_read_what_is_answered() {
    let fixture = GatewayFixture::new(LIMITS);
    let ask = |request: &str| {
        let mut client = RawClient::connect(fixture.address());
        client.send(format!("{request}origin: {LISTED_ORIGIN}\r\nhost: localhost\r\n\r\n"));
        client.take_until("\r\n\r\n")
    };
    let head = ask("OPTIONS /v1/events HTTP/1.1\r\naccess-control-request-method: POST\r\n\
         access-control-request-headers: cache-control,ce-id,tw-key,content-encoding,x-mine\r\n");
    for line in [
        "HTTP/1.1 204 ",
        "access-control-allow-origin: http://app.example\r\n",
        "access-control-allow-methods: GET, POST, DELETE\r\n",
        "access-control-allow-headers: cache-control, ce-id, tw-key, content-encoding\r\n",
        "access-control-max-age: 600\r\n",
        "vary: Access-Control-Request-Headers\r\n",
        "vary: Origin\r\n",
    ] {
        assert!(head.contains(line), "{line} is not in {head}");
    }
    assert!(!head.contains("allow-credentials"), "{head}");
    for request in ["GET /healthz HTTP/1.1\r\n", "GET /v1/sse HTTP/1.1\r\n", "PUT / HTTP/1.1\r\n"] {
        let head = ask(request);
        assert!(head.contains("access-control-expose-headers: retry-after, allow\r\n"), "{head}");
        assert!(head.contains("access-control-allow-origin: http://app.example\r\n"), "{head}");
    }
}

/// The server compares subprotocols with case, as RFC 6455 has it.
#[test]
fn a_subprotocol_in_another_case_is_another_subprotocol() {
    let (fixture, mut client) = connected();
    client.send(handshake("").replace("a, tidewire.v1", "tidewire.V1"));
    let head = client.take_until("\r\n\r\n");
    assert!(
        head.starts_with("HTTP/1.1 101 ") && !head.contains("sec-websocket-protocol"),
        "{head}"
    );
    let mut client = RawClient::connect(fixture.address());
    client.send(handshake("").replace("upgrade: websocket", "upgrade: WebSocket"));
    assert_eq!(client.response().status, 101, "the other tokens have no case");
}

#[test]
fn a_handshake_with_an_unknown_parameter_or_two_keys_is_refused() {
    let (fixture, _) = connected();
    for (query, status) in
        [("?user=ann&_=1", 101), ("?usr=ann", 400), ("?from=earliest", 400), ("?user=%ff", 400)]
    {
        let mut client = RawClient::connect(fixture.address());
        client.send(handshake(query));
        assert_eq!(client.response().status, status, "{query}");
    }
    let mut client = RawClient::connect(fixture.address());
    let key = "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nhost: localhost";
    client.send(handshake("").replace("host: localhost", key));
    assert_eq!(client.response().status, 400);
}
