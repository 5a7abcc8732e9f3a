//! A minimal HTTP/1.1 client: requests on a kept-alive connection, and response headers.
//!
//! It is not a library's, because a load generator must cost less than the server it measures, and
//! because the SSE client needs the bytes after the headers.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a response may take. No endpoint used here waits on purpose, so a minute means a hang.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Longest response body accepted, so that a wrong length can't fill the memory.
const MAX_BODY_BYTES: usize = 64 << 20;

/// A response.
#[derive(Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Status line and headers.
    pub head: ResponseHead,
    /// Body with transfer coding removed.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as text, for messages.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; panics with the body if it is not JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }
}

/// A response's status line and headers.
#[derive(Debug)]
pub struct ResponseHead {
    /// Status code.
    pub status: u16,
    headers: Vec<(String, String)>,
}

impl ResponseHead {
    /// Reads up to the blank line.
    pub fn read(reader: &mut impl BufRead) -> io::Result<Self> {
        let status_line = read_line(reader)?;
        let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| invalid(format!("status line {status_line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = read_line(reader)?;
            if line.is_empty() {
                return Ok(Self { status, headers });
            }
            let (name, value) = line.split_once(':').ok_or_else(|| invalid("header"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// The first header with this lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|header| header.0 == name);
        found.next().map(|header| header.1.as_str())
    }

    /// Whether the transfer coding is chunked.
    pub fn is_chunked(&self) -> bool {
        self.header("transfer-encoding").is_some_and(|coding| coding.contains("chunked"))
    }
}

/// One kept-alive connection.
#[derive(Debug)]
pub struct HttpClient {
    addr: SocketAddr,
    reader: BufReader<TcpStream>,
}

impl HttpClient {
    /// Connects to the server.
    pub fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, ANSWER_LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        Ok(Self { addr, reader: BufReader::new(stream) })
    }

    /// Fetches a path.
    pub fn get(&mut self, path: &str) -> io::Result<Response> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.addr);
        self.exchange(request.as_bytes())
    }

    /// Posts a body, with headers and body in one write so that neither waits for the other.
    pub fn post(&mut self, path: &str, content_type: &str, body: &[u8]) -> io::Result<Response> {
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: {content_type}\r\n\
             Content-Length: {}\r\n\r\n",
            self.addr,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.exchange(&request)
    }

    fn exchange(&mut self, request: &[u8]) -> io::Result<Response> {
        self.reader.get_mut().write_all(request)?;
        let head = ResponseHead::read(&mut self.reader)?;
        let mut body = Vec::new();
        if head.is_chunked() {
            while read_chunk(&mut self.reader, &mut body)? {}
        } else if let Some(length) = head.header("content-length") {
            let length: usize = length.parse().map_err(invalid)?;
            check_length(length)?;
            body.resize(length, 0);
            self.reader.read_exact(&mut body)?;
        }
        Ok(Response { status: head.status, head, body })
    }
}

/// Appends one chunk to `body`; false if it was the last, empty one.
pub fn read_chunk(reader: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<bool> {
    let size_line = read_line(reader)?;
    let size = size_line.split(';').next().unwrap_or_default().trim();
    let size = usize::from_str_radix(size, 16).map_err(invalid)?;
    let start = body.len();
    check_length(start.saturating_add(size))?;
    body.resize(start + size, 0);
    reader.read_exact(&mut body[start..])?;
    read_line(reader)?;
    Ok(size > 0)
}

fn check_length(bytes: usize) -> io::Result<()> {
    match bytes {
        0..=MAX_BODY_BYTES => Ok(()),
        _ => Err(invalid(format!("a body of {bytes} bytes"))),
    }
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.pop_if(|last| *last == b'\r');
    String::from_utf8(line).map_err(invalid)
}

fn invalid(why: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}
