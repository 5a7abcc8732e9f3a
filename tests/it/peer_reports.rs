//! Public bug reports of other servers and brokers' clients, tried here as black-box cases.
//!
//! Each test names the report it comes from. The reports were chosen because their input is what
//! an ordinary client or producer sends.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tidewire_tests::event_source::EventSource;
use tidewire_tests::http::ResponseHead;
use tidewire_tests::server::Server;

const LIMIT: Duration = Duration::from_secs(30);

/// The channel of [`event`].
const CHANNEL: &str = "/v1/sse?user=u&channels=posts:ann";

/// A post of ann with this id and text, as JSON.
fn event(id: &str, text: &str) -> String {
    json!({
        "event_type": "post.created", "account_id": "a", "event_id": id,
        "data": {"post_id": id, "author_id": "ann", "text": text},
    })
    .to_string()
}

fn post(server: &Server, body: &str) -> (u16, Value) {
    let answer = server.http().post("/v1/events", "application/x-ndjson", body.as_bytes());
    let answer = answer.expect("an answer");
    (answer.status, answer.json())
}

/// The head of the answer to a request with these further headers, each line with its end.
fn head(server: &Server, path: &str, headers: &str) -> ResponseHead {
    let mut stream = TcpStream::connect(server.addr()).expect("it listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a time limit");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", server.addr());
    stream.write_all(request.as_bytes()).expect("sent");
    ResponseHead::read(&mut BufReader::new(stream)).expect("an answer")
}

const HANDSHAKE: &str = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Firefox sends both tokens: <https://github.com/sirn-se/websocket-php/issues/39>.
#[test]
fn a_handshake_with_keep_alive_beside_upgrade_is_accepted() {
    let server = Server::start(&[]);
    for connection in ["keep-alive, Upgrade", "Upgrade, keep-alive", "upgrade"] {
        let headers = format!("{HANDSHAKE}Connection: {connection}\r\n");
        let head = head(&server, "/v1/ws?user=u", &headers);
        assert_eq!(head.status, 101, "{connection}");
        assert_eq!(head.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    }
}

/// RFC 7692 §5.1 lets a server decline an offer; the handshake goes on without it:
/// <https://github.com/apache/tomcat/pull/1019>.
#[test]
fn an_invalid_offer_of_compression_does_not_fail_the_handshake() {
    let server = Server::start(&[]);
    for offer in [
        "permessage-deflate; client_max_window_bits=16",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; client_max_window_bits, permessage-deflate",
        "x-unknown; a=\"b\"",
    ] {
        let headers =
            format!("{HANDSHAKE}Connection: Upgrade\r\nSec-WebSocket-Extensions: {offer}\r\n");
        let head = head(&server, "/v1/ws?user=u", &headers);
        assert_eq!(head.status, 101, "{offer}");
        assert_eq!(head.header("sec-websocket-extensions"), None, "{offer}");
    }
}

/// nginx buffers a stream unless it is told not to: <https://github.com/gin-gonic/gin/issues/1589>.
/// Some proxies compress it, which buffers too, unless `no-transform` forbids it.
#[test]
fn a_stream_tells_proxies_not_to_buffer_it() {
    let server = Server::start(&[]);
    let head = head(&server, CHANNEL, "Accept: text/event-stream\r\n");
    assert_eq!(head.status, 200);
    assert_eq!(head.header("x-accel-buffering"), Some("no"));
    let cache = head.header("cache-control").expect("a stream is not cached");
    assert!(cache.contains("no-cache") || cache.contains("no-store"), "{cache}");
    assert!(cache.contains("no-transform"), "{cache}");
}

/// A client that reconnects before it has received any event must not lose those in between:
/// <https://github.com/socketio/socket.io/issues/5538>.
#[test]
fn a_stream_that_was_cut_before_its_first_event_resumes() {
    let server = Server::start(&[]);
    let mut stream = EventSource::open(server.addr(), CHANNEL, None, None).expect("a stream");
    while stream.last_event_id().is_empty() {
        stream.next_message(Duration::from_millis(50)).expect("it is open");
    }
    let position = stream.last_event_id().to_owned();
    drop(stream);
    assert_eq!(post(&server, &event("between", "x")).0, 202);
    let mut resumed = EventSource::open(server.addr(), CHANNEL, Some(&position), None);
    let resumed = resumed.as_mut().expect("a stream");
    let event = resumed.next_event(LIMIT).expect("it is open").expect("the event in between");
    assert_eq!(event.event_id, "between");
}

/// One producer with a fast clock must not make the events of others late:
/// <https://github.com/laminardb/laminardb/pull/388>.
#[test]
fn an_event_of_the_far_future_delays_and_drops_no_other() {
    let server = Server::start(&[]);
    let mut stream = EventSource::open(server.addr(), CHANNEL, None, None).expect("a stream");
    let future = event("future", "x").replacen('{', r#"{"timestamp":"2999-01-01T00:00:00Z","#, 1);
    let body = [future, event("now", "x"), event("now", "x"), event("last", "x")].join("\n");
    let (status, answer) = post(&server, &body);
    assert_eq!(status, 202, "{answer}");
    let refused = answer["events"][0]["error"].is_object();
    let mut received = Vec::new();
    while received.last().is_none_or(|id| id != "last") {
        let event = stream.next_event(LIMIT).expect("it is open").expect("all are delivered");
        received.push(event.event_id);
    }
    let expected: &[&str] = if refused { &["now", "last"] } else { &["future", "now", "last"] };
    assert_eq!(received, expected, "the copy of `now` is dropped, nothing else is");
}

/// JavaScript writes half a surrogate pair as `\ud83d`, and not every parser reads it:
/// <https://github.com/serde-rs/json/issues/495>.
#[test]
fn half_a_surrogate_pair_fails_its_own_event_with_a_reason() {
    let server = Server::start(&[]);
    let broken = event("broken", "x").replace("\"x\"", r#""cut \ud83d""#);
    let (status, answer) = post(&server, &[broken, event("good", "x")].join("\n"));
    assert_eq!(status, 202, "{answer}");
    let error = &answer["events"][0]["error"];
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains("surrogate"), "the error says what is wrong: {answer}");
    assert_eq!(answer["accepted"], 1, "{answer}");
}

/// <https://github.com/kurrent-io/KurrentDB/issues/1541>
#[test]
fn numbers_arrive_with_the_digits_they_were_sent_with() {
    let server = Server::start(&[]);
    let mut stream = EventSource::open(server.addr(), CHANNEL, None, None).expect("a stream");
    let numbers = "[12345678901234567890,0.1234567890123456789,-0.0,7161093205057351174]";
    let sent =
        event("numbers", "x").replacen("\"text\":", &format!("\"n\":{numbers},\"text\":"), 1);
    let (status, answer) = post(&server, &sent);
    assert_eq!(status, 202, "{answer}");
    assert_eq!(answer["accepted"], 1, "{answer}");
    let message = loop {
        let message = stream.next_message(LIMIT).expect("it is open").expect("the event");
        if message.data.contains("event_id") {
            break message;
        }
    };
    assert!(message.data.contains(&format!("\"n\":{numbers}")), "{}", message.data);
    // A browser would read this one as infinity.
    let (_, answer) = post(&server, &event("huge", "x").replacen("\"x\"", "1e400", 1));
    let message = answer["events"][0]["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("range of a double"), "{answer}");
}

/// A name that comes twice in an envelope: one of its values would be dropped silently:
/// <https://github.com/confluentinc/kafka-rest/issues/126>.
#[test]
fn a_field_that_comes_twice_in_an_envelope_is_refused_by_name() {
    let server = Server::start(&[]);
    let twice = event("first", "x").replacen('{', r#"{"event_id":"second","#, 1);
    let (status, answer) = post(&server, &[twice, event("good", "x")].join("\n"));
    assert_eq!(status, 202, "{answer}");
    let message = answer["events"][0]["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("event_id"), "{answer}");
    assert_eq!(answer["accepted"], 1, "{answer}");
}

/// A position that this server never gave out gets an answer, and never a stream that is silent for
/// ever: <https://github.com/dunglas/mercure/issues/704>.
#[test]
fn an_unknown_event_id_is_answered_with_what_is_wrong() {
    let server = Server::start(&[]);
    for id in ["1665666647", "0", "urn:uuid:7c1e0d6e-0b7b-4a53-9f5a-2f6f9c2e5f3c"] {
        let mut stream = TcpStream::connect(server.addr()).expect("it listens");
        stream.set_read_timeout(Some(LIMIT)).expect("a time limit");
        let request = format!(
            "GET {CHANNEL} HTTP/1.1\r\nHost: h\r\nLast-Event-ID: {id}\r\nConnection: close\r\n\r\n"
        )
        .replace("Host: h", &format!("Host: {}", server.addr()));
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer, and the end");
        assert!(answer.starts_with("HTTP/1.1 400"), "{id}: {answer}");
        assert!(answer.contains("invalid_position"), "{id}: {answer}");
    }
}
