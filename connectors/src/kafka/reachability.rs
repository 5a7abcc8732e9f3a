//! Whether the addresses of the settings accept connections, asked after a call without an answer.
//!
//! librdkafka repeats an equal error of a broker only every 30 s, so the newest error may be that
//! of a broker which refused connections earlier and now accepts them and stays silent.

use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// The time limit of one connection.
const CONNECT_LIMIT: Duration = Duration::from_millis(500);

/// Addresses that are tried at most.
const ADDRESSES_MAX: usize = 3;

/// The first address that accepts a connection; `None`: none does.
pub(super) fn accepting_address(bootstrap: &str) -> Option<&str> {
    let accepts = |address: &&str| {
        let found = address.to_socket_addrs().into_iter().flatten().take(ADDRESSES_MAX);
        let mut connections = found.map(|at| TcpStream::connect_timeout(&at, CONNECT_LIMIT));
        connections.any(|connected| connected.is_ok())
    };
    bootstrap.split(',').map(str::trim).take(ADDRESSES_MAX).find(accepts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn an_address_that_accepts_is_found_behind_one_that_refuses() {
        let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let refusing = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = |of: &TcpListener| of.local_addr().expect("bound").to_string();
        let (silent_at, refusing_at) = (address(&silent), address(&refusing));
        drop(refusing);
        let both = format!("{refusing_at},{silent_at}");
        assert_eq!(accepting_address(&both), Some(silent_at.as_str()));
        assert_eq!(accepting_address(&refusing_at), None);
    }
}
