//! Reserves loopback ports that stay reserved while a broker is down.
//!
//! A broker keeps its ports across restarts, so no other process may take them in between. They lie
//! below the range that the kernel uses for outgoing connections and `bind(0)`. Concurrent test
//! processes avoid each other's ports by a marker: a socket bound to the same port of another
//! loopback address, which the kernel releases however the process ends.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process;

use socket2::{Domain, Socket, Type};

/// The lowest port used.
const FIRST: u16 = 12_000;

/// The end of the range, where the kernel's own usually begins.
const END: u16 = 32_768;

/// Where the markers are bound: port N here means that port N of 127.0.0.1 is reserved.
const MARKER_HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A port of 127.0.0.1 that no other harness uses.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _marker: Socket,
}

impl Port {
    /// Reserves a free one.
    pub fn reserve() -> Self {
        let end = kernel_range_begin().unwrap_or(END).clamp(FIRST + 1_000, END);
        let count = end - FIRST;
        // Processes start at different ports, so that they seldom collide.
        let begin = u16::try_from(process::id() % u32::from(count)).expect("less than the count");
        (0..count)
            .map(|n| FIRST + (begin + n) % count)
            .find_map(Self::try_reserve)
            .expect("one of thousands of ports is free")
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    fn try_reserve(number: u16) -> Option<Self> {
        let marker = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket can be made");
        marker.bind(&SocketAddr::from((MARKER_HOST, number)).into()).ok()?;
        // A port in TIME_WAIT does not hinder a broker, so it must not hinder this check.
        TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
        Some(Self { number, _marker: marker })
    }
}

fn kernel_range_begin() -> Option<u16> {
    let range: io::Result<String> = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    range.ok()?.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_reserved_once_and_released() {
        let (a, b) = (Port::reserve(), Port::reserve());
        assert_ne!(a.number(), b.number());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, a.number()));
        listener.expect("a reserved port is free for the broker");
        // Other tests reserve from the other end.
        let last = (FIRST..END).rev().find_map(Port::try_reserve).expect("a free port");
        let number = last.number();
        assert!(Port::try_reserve(number).is_none(), "it is marked");
        drop(last);
        assert!(Port::try_reserve(number).is_some(), "its marker is released");
    }
}
