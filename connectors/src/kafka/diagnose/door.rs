//! What stands behind an address, found with bare sockets.
//!
//! librdkafka would try an address that is wrong for ever, and what it says meanwhile is nearly the
//! same for a broker that is down, a port of another kind and a listener with TLS. So each address
//! is asked first with bare words: is the name known, is the port open, is it Kafka, with TLS or
//! without, with a login or without?

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::LIMIT;
use super::security::Security;
use super::wire::{self, Apis, api};
use crate::clock;

/// The least a socket is waited for: none at all would mean for ever.
const WAIT_LEAST: Duration = Duration::from_millis(1);

/// Letters of a foreign answer that are shown.
const SHOWN_CHARS: usize = 24;

/// Kafka's code for a login on a listener that knows none.
const ILLEGAL_SASL_STATE: i16 = 34;

/// What was found.
#[derive(Debug)]
pub(super) enum Door {
    /// The name is not known, or could not be asked for.
    Nameless(String),
    /// The machine is there and nothing listens.
    Refused,
    /// The machine can't be reached.
    Unreachable(String),
    /// It takes the connection and says nothing.
    Silent,
    /// It ends the connection whatever is said.
    Closed,
    /// It answers in another protocol, beginning so.
    Foreign(String),
    /// It speaks TLS. What is behind that only a client with the right certificates sees.
    Tls,
    /// A Kafka listener without TLS.
    Kafka { apis: Apis, login: Login },
}

/// Whether a listener wants a login.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Login {
    /// It does not say.
    Unknown,
    /// It knows none.
    None,
    /// By one of these SASL mechanisms.
    By(Vec<String>),
}

/// Looks behind all of these addresses at once.
pub(super) fn look_at_all(addresses: &[String], ours: &Security) -> Vec<Door> {
    thread::scope(|scope| {
        let looks: Vec<_> =
            addresses.iter().map(|address| scope.spawn(|| look(address, ours))).collect();
        let done = |look: thread::ScopedJoinHandle<'_, Door>| {
            look.join().unwrap_or_else(|_| Door::Unreachable("looking there failed".into()))
        };
        looks.into_iter().map(done).collect()
    })
}

/// Looks behind one address. It takes twice the limit at most: for the name, and for the rest.
fn look(address: &str, ours: &Security) -> Door {
    let at = match resolve(address) {
        Ok(at) => at,
        Err(why) => return Door::Nameless(why),
    };
    let end = clock::now() + LIMIT;
    // Whoever expects TLS begins with it: a listener without it ends the connection at once, and
    // the other way round.
    let heard = if ours.tls {
        let half = clock::now() + LIMIT / 2;
        match hear(&at, (&wire::client_hello(), half)) {
            Ok(Heard::Tls) => return Door::Tls,
            Ok(_) => hear(&at, (&wire::api_versions(), end)),
            Err(door) => return door,
        }
    } else {
        match hear(&at, (&wire::api_versions(), end)) {
            Ok(Heard::End) => match hear(&at, (&wire::client_hello(), end)) {
                Ok(Heard::Tls) => Ok(Heard::Tls),
                _ => Ok(Heard::End),
            },
            heard => heard,
        }
    };
    match heard {
        Err(door) => door,
        Ok(Heard::Nothing) => Door::Silent,
        Ok(Heard::End) => Door::Closed,
        Ok(Heard::Tls) => Door::Tls,
        Ok(Heard::Foreign(text)) => Door::Foreign(text),
        Ok(Heard::Answer(line, answer)) => enter(line, &answer, ours),
    }
}

/// Asks a Kafka listener about its login.
fn enter(mut line: Line, answer: &[u8], ours: &Security) -> Door {
    let Some(apis) = wire::read_api_versions(answer) else {
        return Door::Foreign(shown(answer));
    };
    if !apis.contains_key(&api::SASL_HANDSHAKE) {
        return Door::Kafka { apis, login: Login::Unknown };
    }
    let mechanism = ours.mechanism.as_deref().unwrap_or("PLAIN");
    let handshake = line.ask(&wire::sasl_handshake(mechanism)).and_then(|()| line.answer());
    let handshake = handshake.ok().and_then(|answer| wire::read_sasl_handshake(&answer));
    let login = match handshake {
        None => Login::Unknown,
        Some((ILLEGAL_SASL_STATE, _)) => Login::None,
        Some((_, mechanisms)) => Login::By(mechanisms),
    };
    Door::Kafka { apis, login }
}

/// The addresses of a name.
fn resolve(address: &str) -> Result<Vec<SocketAddr>, String> {
    let (tell, told) = mpsc::channel();
    let name = address.to_owned();
    #[expect(clippy::disallowed_methods, reason = "nobody can wait for a resolver that hangs")]
    thread::spawn(move || {
        // Nobody may wait for it any more.
        let _ = tell.send(name.to_socket_addrs().map(Vec::from_iter));
    });
    match told.recv_timeout(LIMIT) {
        Ok(Ok(at)) if at.is_empty() => Err("it has no address".into()),
        Ok(Ok(at)) => Ok(at),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("the resolver did not answer in {} s", LIMIT.as_secs())),
    }
}

/// What came back first.
enum Heard {
    Nothing,
    End,
    Tls,
    Foreign(String),
    Answer(Line, Vec<u8>),
}

/// Connects, says something and listens.
fn hear(at: &[SocketAddr], (words, end): (&[u8], Instant)) -> Result<Heard, Door> {
    let mut line = Line { stream: connect(at, end)?, end };
    // A peer that has closed already is heard of by reading.
    let _ = line.ask(words);
    let mut head = [0; 4];
    Ok(match line.read(&mut head) {
        Err(error) if is_late(&error) => Heard::Nothing,
        Ok(0) | Err(_) => Heard::End,
        Ok(length) if wire::is_tls(&head[..length]) => Heard::Tls,
        Ok(length) => match wire::announced(head).filter(|_| length == head.len()) {
            Some(size) => match line.body(size) {
                Ok(answer) => Heard::Answer(line, answer),
                Err(error) if is_late(&error) => Heard::Nothing,
                Err(_) => Heard::End,
            },
            None => Heard::Foreign(line.rest_of(&head[..length])),
        },
    })
}

fn connect(at: &[SocketAddr], end: Instant) -> Result<TcpStream, Door> {
    let mut door = Door::Unreachable("it has no address".into());
    for (n, one) in at.iter().enumerate() {
        let others = u32::try_from(at.len() - n).unwrap_or(u32::MAX);
        let within = (left(end) / others).max(WAIT_LEAST);
        match TcpStream::connect_timeout(one, within) {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => door = Door::Refused,
            Err(_) if matches!(door, Door::Refused) => {}
            Err(error) if is_late(&error) => {
                door = Door::Unreachable(format!("no answer in {} s", LIMIT.as_secs()));
            }
            Err(error) => door = Door::Unreachable(error.to_string()),
        }
    }
    Err(door)
}

/// A connection that is given up at a time.
struct Line {
    stream: TcpStream,
    end: Instant,
}

impl Line {
    fn ask(&mut self, words: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(left(self.end)))?;
        self.stream.write_all(words)
    }

    /// Fills as much as comes before the other side ends.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            self.stream.set_read_timeout(Some(left(self.end)))?;
            match self.stream.read(&mut into[filled..]) {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // What came before counts.
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn body(&mut self, size: usize) -> io::Result<Vec<u8>> {
        let mut body = vec![0; size];
        match self.read(&mut body)? {
            all if all == size => Ok(body),
            _ => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    fn answer(&mut self) -> io::Result<Vec<u8>> {
        let head = self.body(4)?;
        let size = head.try_into().ok().and_then(wire::announced);
        self.body(size.ok_or(ErrorKind::InvalidData)?)
    }

    /// How an answer in another protocol begins.
    fn rest_of(mut self, head: &[u8]) -> String {
        let mut more = [0; SHOWN_CHARS];
        let _ = self.stream.set_read_timeout(Some(left(self.end).min(LIMIT / 10).max(WAIT_LEAST)));
        let length = self.stream.read(&mut more).unwrap_or(0);
        shown(&[head, &more[..length]].concat())
    }
}

fn left(end: Instant) -> Duration {
    end.saturating_duration_since(clock::now()).max(WAIT_LEAST)
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// The first line of an answer, without what a terminal would obey.
fn shown(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let line = text.lines().next().unwrap_or_default();
    let tame = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '.' };
    line.chars().take(SHOWN_CHARS).map(tame).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_an_answer_is_short_and_tame() {
        assert_eq!(shown(b"HTTP/1.1 400 Bad Request\r\nx"), "HTTP/1.1 400 Bad Request");
        assert_eq!(shown(b"\x1b[2Jboo\xff"), ".[2Jboo.");
        assert_eq!(shown(b""), "");
    }
}
