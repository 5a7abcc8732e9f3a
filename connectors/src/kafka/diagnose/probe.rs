//! Probes a broker address over raw TCP: DNS, port, Kafka or not, TLS, SASL.
//!
//! librdkafka retries a wrong address for ever and reports nearly the same for a broker that is
//! down, a port of another protocol and a listener with TLS. So each address is probed without it
//! first.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::LIMIT;
use super::security::Security;
use super::wire::{self, Apis, api};
use crate::clock;

/// The shortest timeout of a socket: zero would mean no timeout.
const WAIT_LEAST: Duration = Duration::from_millis(1);

/// Characters of an answer in another protocol that are shown.
const SHOWN_CHARS: usize = 24;

/// Kafka's error code for a SASL handshake on a listener without SASL.
const ILLEGAL_SASL_STATE: i16 = 34;

/// The result of a probe.
#[derive(Debug)]
pub(super) enum ProbeOutcome {
    /// The name could not be resolved.
    Unresolvable(String),
    /// Nothing listens on the port.
    Refused,
    /// The host can't be reached.
    Unreachable(String),
    /// It accepts the connection and does not answer.
    Silent,
    /// It closes the connection after any request.
    Closed,
    /// It answers in another protocol; the beginning of the answer.
    NotKafka(String),
    /// It uses TLS. Only a client with the right certificates can learn more.
    Tls,
    /// A Kafka listener without TLS.
    Kafka { apis: Apis, sasl: SaslSupport },
}

/// Whether a listener requires a login.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SaslSupport {
    /// It did not answer the handshake.
    Unknown,
    /// It has no SASL.
    None,
    /// It requires one of these SASL mechanisms.
    Mechanisms(Vec<String>),
}

/// Probes all addresses at once.
pub(super) fn probe_all(addresses: &[String], ours: &Security) -> Vec<ProbeOutcome> {
    thread::scope(|scope| {
        let probes: Vec<_> =
            addresses.iter().map(|address| scope.spawn(|| probe_address(address, ours))).collect();
        let done = |probe: thread::ScopedJoinHandle<'_, ProbeOutcome>| {
            probe.join().unwrap_or_else(|_| ProbeOutcome::Unreachable("the probe failed".into()))
        };
        probes.into_iter().map(done).collect()
    })
}

/// Probes one address. It takes at most twice the limit: once for the name, once for the rest.
fn probe_address(address: &str, ours: &Security) -> ProbeOutcome {
    let at = match resolve(address) {
        Ok(at) => at,
        Err(why) => return ProbeOutcome::Unresolvable(why),
    };
    let deadline = clock::now() + LIMIT;
    // With TLS configured, try TLS first. A listener of the other kind closes the connection at
    // once, and the other protocol is tried.
    let reply = if ours.tls {
        let half = clock::now() + LIMIT / 2;
        match exchange(&at, &wire::client_hello(), half) {
            Ok(ProbeReply::Tls) => return ProbeOutcome::Tls,
            Ok(_) => exchange(&at, &wire::api_versions(), deadline),
            Err(outcome) => return outcome,
        }
    } else {
        match exchange(&at, &wire::api_versions(), deadline) {
            Ok(ProbeReply::Closed) => match exchange(&at, &wire::client_hello(), deadline) {
                Ok(ProbeReply::Tls) => Ok(ProbeReply::Tls),
                _ => Ok(ProbeReply::Closed),
            },
            reply => reply,
        }
    };
    match reply {
        Err(outcome) => outcome,
        Ok(ProbeReply::Timeout) => ProbeOutcome::Silent,
        Ok(ProbeReply::Closed) => ProbeOutcome::Closed,
        Ok(ProbeReply::Tls) => ProbeOutcome::Tls,
        Ok(ProbeReply::NotKafka(text)) => ProbeOutcome::NotKafka(text),
        Ok(ProbeReply::Kafka(stream, answer)) => probe_sasl(stream, &answer, ours),
    }
}

/// Asks a Kafka listener for its SASL mechanisms.
fn probe_sasl(mut stream: ProbeStream, answer: &[u8], ours: &Security) -> ProbeOutcome {
    let Some(apis) = wire::read_api_versions(answer) else {
        return ProbeOutcome::NotKafka(printable(answer));
    };
    if !apis.contains_key(&api::SASL_HANDSHAKE) {
        return ProbeOutcome::Kafka { apis, sasl: SaslSupport::Unknown };
    }
    let mechanism = ours.mechanism.as_deref().unwrap_or("PLAIN");
    let handshake =
        stream.send(&wire::sasl_handshake(mechanism)).and_then(|()| stream.read_answer());
    let handshake = handshake.ok().and_then(|answer| wire::read_sasl_handshake(&answer));
    let sasl = match handshake {
        None => SaslSupport::Unknown,
        Some((ILLEGAL_SASL_STATE, _)) => SaslSupport::None,
        Some((_, mechanisms)) => SaslSupport::Mechanisms(mechanisms),
    };
    ProbeOutcome::Kafka { apis, sasl }
}

/// The addresses of a name.
fn resolve(address: &str) -> Result<Vec<SocketAddr>, String> {
    let (sender, receiver) = mpsc::channel();
    let name = address.to_owned();
    #[expect(clippy::disallowed_methods, reason = "a resolver that hangs can't be joined")]
    thread::spawn(move || {
        // The receiver may have timed out.
        let _ = sender.send(name.to_socket_addrs().map(Vec::from_iter));
    });
    match receiver.recv_timeout(LIMIT) {
        Ok(Ok(at)) if at.is_empty() => Err("the name has no address".into()),
        Ok(Ok(at)) => Ok(at),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("the resolver did not answer in {} s", LIMIT.as_secs())),
    }
}

/// The first answer.
enum ProbeReply {
    Timeout,
    Closed,
    Tls,
    NotKafka(String),
    Kafka(ProbeStream, Vec<u8>),
}

/// Connects, sends a request and reads the answer.
fn exchange(
    at: &[SocketAddr],
    request: &[u8],
    deadline: Instant,
) -> Result<ProbeReply, ProbeOutcome> {
    let mut stream = ProbeStream { stream: connect(at, deadline)?, deadline };
    // If the peer has closed the connection, reading reports it.
    let _ = stream.send(request);
    let mut head = [0; 4];
    Ok(match stream.read(&mut head) {
        Err(error) if is_timeout(&error) => ProbeReply::Timeout,
        Ok(0) | Err(_) => ProbeReply::Closed,
        Ok(length) if wire::is_tls(&head[..length]) => ProbeReply::Tls,
        Ok(length) => match wire::announced_size(head).filter(|_| length == head.len()) {
            Some(size) => match stream.read_exact(size) {
                Ok(answer) => ProbeReply::Kafka(stream, answer),
                Err(error) if is_timeout(&error) => ProbeReply::Timeout,
                Err(_) => ProbeReply::Closed,
            },
            None => ProbeReply::NotKafka(stream.read_beginning(&head[..length])),
        },
    })
}

fn connect(at: &[SocketAddr], deadline: Instant) -> Result<TcpStream, ProbeOutcome> {
    let mut outcome = ProbeOutcome::Unreachable("the name has no address".into());
    for (n, one) in at.iter().enumerate() {
        let others = u32::try_from(at.len() - n).unwrap_or(u32::MAX);
        let within = (time_left(deadline) / others).max(WAIT_LEAST);
        match TcpStream::connect_timeout(one, within) {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                outcome = ProbeOutcome::Refused
            }
            Err(_) if matches!(outcome, ProbeOutcome::Refused) => {}
            Err(error) if is_timeout(&error) => {
                outcome = ProbeOutcome::Unreachable(format!("no answer in {} s", LIMIT.as_secs()));
            }
            Err(error) => outcome = ProbeOutcome::Unreachable(error.to_string()),
        }
    }
    Err(outcome)
}

/// A connection with a deadline.
struct ProbeStream {
    stream: TcpStream,
    deadline: Instant,
}

impl ProbeStream {
    fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(time_left(self.deadline)))?;
        self.stream.write_all(request)
    }

    /// Fills `into` with what arrives before the peer closes the connection.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            self.stream.set_read_timeout(Some(time_left(self.deadline)))?;
            match self.stream.read(&mut into[filled..]) {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Return what arrived before the error.
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn read_exact(&mut self, size: usize) -> io::Result<Vec<u8>> {
        let mut body = vec![0; size];
        match self.read(&mut body)? {
            all if all == size => Ok(body),
            _ => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    fn read_answer(&mut self) -> io::Result<Vec<u8>> {
        let head = self.read_exact(4)?;
        let size = head.try_into().ok().and_then(wire::announced_size);
        self.read_exact(size.ok_or(ErrorKind::InvalidData)?)
    }

    /// The beginning of an answer in another protocol.
    fn read_beginning(mut self, head: &[u8]) -> String {
        let mut more = [0; SHOWN_CHARS];
        let _ = self
            .stream
            .set_read_timeout(Some(time_left(self.deadline).min(LIMIT / 10).max(WAIT_LEAST)));
        let length = self.stream.read(&mut more).unwrap_or(0);
        printable(&[head, &more[..length]].concat())
    }
}

fn time_left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(clock::now()).max(WAIT_LEAST)
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// The first line of an answer, without control characters for a terminal.
fn printable(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let line = text.lines().next().unwrap_or_default();
    let replace_unprintable = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '.' };
    line.chars().take(SHOWN_CHARS).map(replace_unprintable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_answer_is_short_and_printable() {
        assert_eq!(printable(b"HTTP/1.1 400 Bad Request\r\nx"), "HTTP/1.1 400 Bad Request");
        assert_eq!(printable(b"\x1b[2Jboo\xff"), ".[2Jboo.");
        assert_eq!(printable(b""), "");
    }
}
