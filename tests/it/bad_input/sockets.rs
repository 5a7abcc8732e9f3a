//! Subscribers with wrong positions, too many subscriptions, huge frames or half-open sockets.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidewire_schemas::position::{PartitionPosition, Position};
use tidewire_tests::server::Server;
use tidewire_tests::websocket::{ClientError, WebSocketClient};

const LIMIT: Duration = Duration::from_secs(30);

fn connect(server: &Server) -> WebSocketClient {
    WebSocketClient::connect(server.addr(), "u", None).expect("it listens")
}

/// The error of a subscription from a position.
fn refused(server: &Server, channel: &str, from: &str) -> Value {
    match connect(server).subscribe(channel, from) {
        Err(ClientError::Refused(frame)) => frame,
        other => panic!("{channel} from {from}: {other:?}"),
    }
}

#[test]
fn a_position_of_another_log_is_refused_or_reported_as_a_gap() {
    let server = Server::start(&[]);
    let mut client = connect(&server);
    client.subscribe("posts:ann", "latest").expect("subscribed");
    let token = client.positions()["posts:ann"].clone();
    let mine = Position::decode(&token).expect("a position");

    for forged in ["AAAA", "not a position", "", &token[1..], &format!("{token}A")] {
        let frame = refused(&server, "posts:ann", forged);
        assert_eq!(frame["code"], "invalid_position", "{forged}: {frame}");
    }
    let cut = PartitionPosition { partition: mine.partitions[0].partition, next: [1 << 40; 3] };
    let beyond = Position { partitions: vec![cut], ..mine.clone() };
    // The gateway might be behind, so it waits; then the position is one of other records.
    check_gap(&server, &beyond);
    let elsewhere = Position { epoch: mine.epoch.wrapping_add(1), ..mine };
    check_gap(&server, &elsewhere);
}

/// A subscription from this position gets a gap, and the connection stays.
fn check_gap(server: &Server, from: &Position) {
    let mut client = connect(server);
    client.subscribe("posts:ann", &from.encode()).expect("it continues with new events");
    let begun = Instant::now();
    while client.gaps().is_empty() && begun.elapsed() < LIMIT {
        client.next_event(Duration::from_millis(50)).expect("the connection stays");
    }
    assert_eq!(client.gaps()[0]["reason"], "epoch", "{:?}", client.gaps());
}

#[test]
fn unknown_channels_and_too_many_subscriptions_get_an_error_frame_each() {
    let server = Server::start(&[]);
    let frame = refused(&server, "psots:ann", "latest");
    assert_eq!(frame["code"], "invalid_channel", "{frame}");
    assert!(frame["message"].as_str().expect("text").contains("posts"), "{frame}");

    let mut client = connect(&server);
    let subscribe = |client: &mut WebSocketClient, n: usize| -> Result<Value, ClientError> {
        let channel = format!("posts:user-{n}");
        client.send(&json!({"op": "subscribe", "id": n, "channel": channel, "from": "latest"}))?;
        loop {
            match client.next_control(LIMIT)? {
                // A busy machine may take long enough for a keepalive.
                Some(frame) if frame["op"] == "welcome" || frame["op"] == "position" => {}
                Some(frame) => return Ok(frame),
                None => panic!("no answer to request {n}"),
            }
        }
    };
    // As fast as the limit of requests allows: all permitted subscriptions, and not one more.
    for n in 0..130 {
        let frame = subscribe(&mut client, n).expect("the connection stays");
        match n {
            0..128 => assert_eq!(frame["op"], "ok", "{n}: {frame}"),
            _ => assert_eq!(frame["code"], "too_many_subscriptions", "{n}: {frame}"),
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    // And faster: each gets an error, or the connection is closed.
    for n in 130..10_000 {
        match subscribe(&mut client, n) {
            Ok(frame) => assert_eq!(frame["op"], "error", "{frame}"),
            Err(ClientError::Cut(why)) => {
                assert!(why.contains("4029"), "{why}");
                break;
            }
            Err(refused) => panic!("{refused:?}"),
        }
    }
    assert_eq!(server.http().get("/readyz").expect("it lives").status, 200);
}

#[test]
fn a_frame_of_ten_megabytes_is_refused_before_it_is_read() {
    let server = Server::start(&[]);
    let mut client = connect(&server);
    let big = json!({"op": "ping", "id": "x".repeat(10 << 20)});
    // The connection may be closed while the frame is still being sent.
    let why = match client.send(&big) {
        Err(ClientError::Cut(why)) => why,
        _ => loop {
            match client.next_control(LIMIT) {
                Err(ClientError::Cut(why)) => break why,
                Ok(Some(frame)) if frame["op"] == "welcome" => {}
                other => panic!("{other:?}"),
            }
        },
    };
    assert!(why.contains("over 65536 bytes"), "{why}");
    assert_eq!(server.http().get("/readyz").expect("it lives").status, 200);
}

#[test]
fn half_open_clients_are_closed_and_do_not_affect_others() {
    let server = Server::start(&[]);
    // Some send nothing, some a part of a request, some shut down one direction.
    let mut idle = Vec::new();
    for n in 0..60 {
        let mut stream = TcpStream::connect(server.addr()).expect("it listens");
        match n % 3 {
            0 => {}
            1 => stream
                .write_all(b"GET /v1/sse?channels=posts:a HTTP/1.1\r\nhost: lo")
                .expect("sent"),
            _ => {
                let request = b"GET /v1/sse?channels=posts:a HTTP/1.1\r\nhost: localhost\r\n\r\n";
                stream.write_all(request).expect("sent");
                stream.shutdown(Shutdown::Write).expect("half of it");
            }
        }
        idle.push(stream);
    }
    let mut client = connect(&server);
    client.subscribe("posts:ann", "latest").expect("others are served");
    let post = br#"{"event_id":"e","event_type":"post.created","account_id":"a",
        "data":{"post_id":"p","author_id":"ann","text":"t"}}"#;
    let answer = server.http().post("/v1/events", "application/json", post).expect("an answer");
    assert_eq!(answer.status, 202);
    assert!(client.next_event(LIMIT).expect("connected").is_some());
    for (n, stream) in idle.iter_mut().enumerate().filter(|(n, _)| n % 3 == 1).take(2) {
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time limit");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap_or_else(|error| panic!("{n} is not closed: {error}"));
    }
}
