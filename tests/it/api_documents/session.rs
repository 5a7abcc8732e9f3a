//! Replays the sessions of `docs/protocol.md` against a server, line by line.
//!
//! A session's positions, connection names and remaining times are those of the server it was
//! recorded from. Each position of the page must always stand for the same one of this server; the
//! others are not compared.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;
use tidewire_tests::server::Server;

use super::raw_socket::{Incoming, RawSocket, TIMEOUT};

/// Fields whose values differ from server to server.
const VOLATILE: [&str; 2] = ["connection", "within_ms"];

/// Fields that hold a position.
const POSITIONS: [&str; 3] = ["position", "from", "to"];

/// The position of this server for each position of the page.
#[derive(Default)]
struct Positions(BTreeMap<String, String>);

impl Positions {
    /// The page's frame with this server's values; positions that occur first are taken from
    /// `real`.
    fn translate(&mut self, shown: &Value, real: Option<&Value>) -> Value {
        let mut out = shown.clone();
        for name in POSITIONS {
            let Some(position) = shown[name].as_str().filter(|text| text.starts_with("Ab")) else {
                continue;
            };
            if let Some(real) = real.and_then(|real| real[name].as_str()) {
                self.0.entry(position.to_owned()).or_insert(real.to_owned());
            }
            let known = self.0.get(position);
            out[name] =
                known.unwrap_or_else(|| panic!("{position} was not seen before")).clone().into();
        }
        out
    }
}

/// The lines of the code block that holds `mark`.
fn block(mark: &str) -> Vec<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md");
    let page = fs::read_to_string(page).expect("the page is text");
    let mut blocks = page
        .split("```text\n")
        .skip(1)
        .map(|rest| rest.split_once("\n```").expect("a code block has an end").0);
    let found = blocks.find(|block| block.contains(mark)).expect("the page has the session");
    found.lines().map(str::to_owned).collect()
}

fn post(server: &Server, body: &str) {
    let answer = server.http().post("/v1/events", "application/json", body.as_bytes());
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, 202, "{}", answer.text());
}

/// The next frame that is not a keepalive.
fn next_frame(socket: &mut RawSocket) -> Incoming {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match socket.next(deadline.saturating_duration_since(Instant::now())) {
            Incoming::Text(text) if text.starts_with(r#"{"op":"position""#) => {}
            other => return other,
        }
    }
}

fn expect(socket: &mut RawSocket, shown: &str, positions: &mut Positions) {
    let got = next_frame(socket);
    if let Some(close) = shown.strip_prefix("close ") {
        let (code, reason) = close.split_once(' ').expect("code and reason");
        let code = code.parse().expect("a number");
        assert_eq!(got, Incoming::Closed(code, reason.to_owned()), "{shown}");
        return;
    }
    let Incoming::Text(text) = got else { panic!("{got:?}, the page says {shown}") };
    let real: Value = serde_json::from_str(&text).expect("frames are JSON");
    let shown: Value = serde_json::from_str(shown).expect("the page's frames are JSON");
    let mut right = positions.translate(&shown, Some(&real));
    for name in VOLATILE {
        if shown.get(name).is_some() && real.get(name).is_some() {
            right[name] = real[name].clone();
        }
    }
    assert_eq!(real, right);
}

#[test]
fn the_sessions_of_the_protocol_page_are_what_a_server_answers() {
    let mut server = Server::start(&[]);
    let mut positions = Positions::default();
    let (mut socket, mut stopped) = (None, false);
    let lines = block("connect /v1/ws");
    for line in &lines {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "connect" => socket = Some(RawSocket::connect(server.addr(), rest)),
            "cut" => socket = None,
            "post" => post(&server, rest),
            "stop" => {
                play_stream(&server, &mut positions);
                server.stop();
                stopped = true;
            }
            ">" => {
                let shown: Value = serde_json::from_str(rest).expect("JSON");
                let sent = positions.translate(&shown, None).to_string();
                socket.as_mut().expect("connected").send(&sent);
            }
            "<" => expect(socket.as_mut().expect("connected"), rest, &mut positions),
            _ => panic!("the page says {line:?}, which is not understood"),
        }
    }
    assert!(stopped && lines.len() > 15, "{lines:?}");
}

/// The SSE session, on the server that holds the events of the other session.
fn play_stream(server: &Server, positions: &mut Positions) {
    let lines = block("GET /v1/sse");
    let path = lines[0].strip_prefix("GET ").expect("a request");
    let mut shown: Vec<String> = Vec::new();
    for line in &lines[2..] {
        let right = match line.split_once(": ") {
            Some(("id", id)) => {
                format!("id: {}", positions.0.get(id).expect("a position of the other session"))
            }
            _ => line.clone(),
        };
        shown.push(right);
    }
    let mut stream = TcpStream::connect(server.addr()).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a time limit");
    let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", server.addr());
    stream.write_all(request.as_bytes()).expect("sent");
    let wanted = shown.join("\n");
    let (retry, wanted) = wanted.split_once('\n').expect("a first block");
    assert!(retry.starts_with("retry: "), "{retry}");
    let (mut got, deadline) = (Vec::new(), Instant::now() + TIMEOUT);
    loop {
        let text = String::from_utf8_lossy(&got);
        if let Some((_, body)) = text.split_once("\r\n\r\n")
            && let Some((delay, body)) = body.split_once('\n')
            && (body.len() >= wanted.len() || Instant::now() > deadline)
        {
            // It differs from stream to stream.
            assert_eq!(delay.len(), retry.len(), "{delay}");
            // A comment would come after 15 s; this reads for a fraction of a second.
            assert_eq!(body.trim_end(), wanted);
            return;
        }
        assert!(Instant::now() < deadline, "{text}");
        let mut buffer = [0; 4_096];
        let count = stream.read(&mut buffer).unwrap_or_default();
        got.extend_from_slice(&buffer[..count]);
    }
}
