//! A blocking client that sends exactly the bytes it is given.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

pub(super) struct RawClient {
    pub(super) stream: TcpStream,
    /// Read from the socket and not used yet.
    pub(super) ahead: Vec<u8>,
}

pub(super) struct RawResponse {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl RawResponse {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    /// The code of an error response.
    pub(super) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().expect("a code").to_owned()
    }
}

impl RawClient {
    pub(super) fn connect(to: SocketAddr) -> Self {
        Self::of(TcpStream::connect(to).expect("a listener"))
    }

    /// A client whose connection holds few bytes that it has not read, on both sides.
    pub(super) fn connect_narrow(to: SocketAddr) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.expect("a socket");
        socket.set_recv_buffer_size(4_096).expect("a small buffer");
        socket.set_tcp_mss(536).expect("small segments");
        socket.connect(&to.into()).expect("a listener");
        Self::of(socket.into())
    }

    pub(super) fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self { stream, ahead: Vec::new() }
    }

    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("an open connection");
    }

    /// More bytes; `false` at the end.
    pub(super) fn read_more(&mut self) -> bool {
        let mut buffer = [0; 16_384];
        let read = self.stream.read(&mut buffer).expect("bytes or the end in time");
        self.ahead.extend_from_slice(&buffer[..read]);
        read > 0
    }

    /// Exactly this many bytes.
    pub(super) fn take(&mut self, count: usize) -> Vec<u8> {
        while self.ahead.len() < count {
            assert!(self.read_more(), "the connection ended after {:?}", self.ahead);
        }
        self.ahead.drain(..count).collect()
    }

    /// Up to and with `end`, as text.
    pub(super) fn take_until(&mut self, end: &str) -> String {
        loop {
            let found = self.ahead.windows(end.len()).position(|part| part == end.as_bytes());
            if let Some(at) = found {
                let taken = self.ahead.drain(..at + end.len()).collect();
                return String::from_utf8(taken).expect("text");
            }
            assert!(self.read_more(), "the connection ended after {:?}", self.ahead);
        }
    }

    /// Whether the server has closed the connection and nothing else came.
    pub(super) fn is_at_end(&mut self) -> bool {
        self.ahead.is_empty() && !self.read_more()
    }

    pub(super) fn response(&mut self) -> RawResponse {
        let head = self.take_until("\r\n\r\n");
        let status = head[9..12].parse().expect("a status");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let body = self.take(length.map_or(0, |text| text.parse().expect("a number")));
        RawResponse { status, head, body }
    }

    /// The next frame: its first byte and its payload.
    pub(super) fn frame(&mut self) -> (u8, Vec<u8>) {
        let head = self.take(2);
        assert_eq!(head[1] & 0x80, 0, "a server masks nothing");
        let length = match head[1] {
            126 => self.take(2).iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
            127 => self.take(8).iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
            short => usize::from(short),
        };
        (head[0], self.take(length))
    }

    /// The code and text of the close frame that has to come next.
    pub(super) fn close_frame(&mut self) -> (u16, String) {
        let (first, payload) = self.frame();
        assert_eq!(first, 0x88, "a close frame, not {payload:?}");
        let text = String::from_utf8(payload[2..].to_vec()).expect("text");
        (u16::from_be_bytes([payload[0], payload[1]]), text)
    }

    pub(super) fn get(&mut self, path: &str) -> RawResponse {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"));
        self.response()
    }

    pub(super) fn post(&mut self, kind: &str, body: &str) -> RawResponse {
        self.send(format!(
            "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ));
        self.response()
    }
}

/// A handshake request for the native protocol.
pub(super) fn handshake(query: &str) -> String {
    format!(
        "GET /v1/ws{query} HTTP/1.1\r\nhost: localhost\r\nconnection: keep-alive, Upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: a, tidewire.v1\r\n\
         \r\n"
    )
}

/// A masked client frame.
pub(in crate::socket) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [7, 77, 177, 17];
    let mut out = vec![first];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]));
    out
}

/// A masked text frame.
pub(in crate::socket) fn text_frame(text: &str) -> Vec<u8> {
    frame(0x81, text.as_bytes())
}
