//! Whether the broker that an error names accepts connections now, asked after a call without an
//! answer.
//!
//! librdkafka repeats an equal error of a broker only every 30 s, so the newest error may be that
//! of a broker which refused connections earlier and now accepts them. The caller is a loop that
//! processes records, so the answer for an address is kept for some seconds.

use std::collections::BTreeMap;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::context::lock;
use crate::clock;

/// The time limit of one connection.
const CONNECT_LIMIT: Duration = Duration::from_millis(500);

/// IP addresses of one name that are tried at most.
const ADDRESSES_MAX: usize = 3;

/// How long an answer is used again.
const ANSWER_KEPT: Duration = Duration::from_secs(5);

/// Words of an error that may be the broker's address: some begin with `GroupCoordinator: `.
const WORDS_MAX: usize = 3;

/// The answers of this process, by address.
#[derive(Default)]
struct ProbeAnswers(Mutex<BTreeMap<String, (Instant, bool)>>);

impl ProbeAnswers {
    fn get(&self, address: &str, probe: impl FnOnce(&str) -> bool) -> bool {
        let begun = clock::now();
        let kept = |at: Instant| begun.duration_since(at) < ANSWER_KEPT;
        if let Some((_, accepts)) = lock(&self.0).get(address).filter(|(at, _)| kept(*at)) {
            return *accepts;
        }
        let accepts = probe(address);
        let mut answers = lock(&self.0);
        answers.retain(|_, (at, _)| kept(*at));
        answers.insert(address.to_owned(), (clock::now(), accepts));
        accepts
    }
}

/// The address of the broker in an error of librdkafka: `[PROTOCOL://]HOST:PORT/ID: …`.
pub(super) fn address_in(error: &str) -> Option<&str> {
    error.split_whitespace().take(WORDS_MAX).find_map(|word| {
        let word = word.trim_end_matches(':');
        let word = word.split_once("://").map_or(word, |(_, rest)| rest);
        let address = word.split_once('/').map_or(word, |(address, _)| address);
        let (host, port) = address.rsplit_once(':')?;
        (!host.is_empty() && port.parse::<u16>().is_ok()).then_some(address)
    })
}

/// Whether an address accepts connections now, or did some seconds ago.
pub(super) fn accepts_connections(address: &str) -> bool {
    static ANSWERS: ProbeAnswers = ProbeAnswers(Mutex::new(BTreeMap::new()));
    ANSWERS.get(address, |address| {
        let found = address.to_socket_addrs().into_iter().flatten().take(ADDRESSES_MAX);
        let mut connections = found.map(|at| TcpStream::connect_timeout(&at, CONNECT_LIMIT));
        connections.any(|connected| connected.is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn the_address_of_the_broker_is_found_in_errors_of_librdkafka() {
        let refused = "127.0.0.1:9092/bootstrap: Connect to ipv4#127.0.0.1:9092 failed: refused";
        assert_eq!(address_in(refused), Some("127.0.0.1:9092"));
        let secure = "sasl_ssl://kafka-2.example.com:9093/2: SSL handshake failed";
        assert_eq!(address_in(secure), Some("kafka-2.example.com:9093"));
        let coordinator = "GroupCoordinator: kafka-1:9092: Disconnected";
        assert_eq!(address_in(coordinator), Some("kafka-1:9092"));
        assert_eq!(address_in("ssl://[::1]:9092/1: Disconnected"), Some("[::1]:9092"));
        assert_eq!(address_in("2/2 brokers are down"), None);
    }

    #[test]
    fn an_address_is_probed_once_in_some_seconds() {
        let answers = ProbeAnswers::default();
        assert!(answers.get("a:1", |_| true));
        assert!(answers.get("a:1", |_| panic!("it is known")));
        assert!(!answers.get("b:1", |_| false));
    }

    #[test]
    fn an_address_accepts_or_refuses() {
        let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let refusing = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = |of: &TcpListener| of.local_addr().expect("bound").to_string();
        let (silent_at, refusing_at) = (address(&silent), address(&refusing));
        drop(refusing);
        assert!(accepts_connections(&silent_at));
        assert!(!accepts_connections(&refusing_at));
    }
}
