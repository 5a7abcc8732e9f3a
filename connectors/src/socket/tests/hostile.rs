//! Peers that send as much as they can of what costs a server the most, beside ordinary clients.
//!
//! Each kind runs on four connections, without end and from threads of their own. Meanwhile an
//! ordinary client measures how long an echo takes, and others connect.

#![expect(clippy::disallowed_methods, reason = "clients need threads and pauses of their own")]

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::client::{RawClient, frame, handshake, text_frame};
use super::fixture::{GatewayFixture, LIMITS};

/// Hostile connections of each kind.
const HOSTILE: usize = 4;

/// Echoes measured for each kind.
const ECHOES: usize = 300;

/// How much later than without them the slowest echo but 1 % may be. The hostile threads share the
/// machine's cores with the server, so the product's goal of 5 ms is measured elsewhere.
const LATER_MAX: Duration = Duration::from_millis(80);

fn connect(fixture: &GatewayFixture) -> RawClient {
    let mut client = RawClient::connect(fixture.address());
    client.send(handshake("?user=ann"));
    assert_eq!(client.response().status, 101);
    assert_eq!(client.frame(), (0x81, b"welcome".to_vec()));
    client
}

/// The slowest echo but 1 %.
fn p99(client: &mut RawClient) -> Duration {
    let mut took = Vec::with_capacity(ECHOES);
    for n in 0..ECHOES {
        let begun = Instant::now();
        client.send(text_frame(&format!("echo {n}")));
        assert_eq!(client.frame(), (0x81, n.to_string().into_bytes()));
        took.push(begun.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    took.sort_unstable();
    took[ECHOES * 99 / 100]
}

/// What a hostile peer sends: once, then again and again.
struct Hostile {
    name: &'static str,
    first: Vec<u8>,
    repeated: Vec<u8>,
}

fn kinds() -> Vec<Hostile> {
    let kind = |name, first: Vec<u8>, repeated: Vec<u8>| Hostile { name, first, repeated };
    vec![
        kind("empty fragments", frame(0x01, b""), frame(0x00, b"").repeat(200)),
        kind("fragments of a byte", frame(0x01, b"x"), frame(0x00, b"x").repeat(200)),
        kind("empty messages", vec![], frame(0x81, b"").repeat(200)),
        kind("pings", vec![], frame(0x89, b"").repeat(200)),
        kind("pongs", vec![], frame(0x8a, &[b'x'; 125]).repeat(200)),
        kind("large messages", vec![], frame(0x81, &[b'x'; 65_000])),
        kind("single bytes", vec![], frame(0x8a, b"")),
    ]
}

/// Sends without end, connecting again when it is closed.
fn attack(fixture: &GatewayFixture, kind: &Hostile, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let mut client = connect(fixture);
        client.stream.set_write_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        drain(&client.stream);
        let _ = client.stream.write_all(&kind.first);
        while !stop.load(Ordering::Relaxed) {
            let piece = if kind.name == "single bytes" { 1 } else { kind.repeated.len() };
            if kind.repeated.chunks(piece).any(|bytes| client.stream.write_all(bytes).is_err()) {
                break;
            }
        }
        let _ = client.stream.shutdown(Shutdown::Both);
    }
}

/// Reads and forgets what comes, until the end.
fn drain(stream: &TcpStream) {
    let mut stream = stream.try_clone().expect("a second handle");
    std::thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
}

#[test]
#[expect(clippy::print_stdout, reason = "the figures are worth reading")]
fn hostile_peers_of_every_kind_delay_others_by_little() {
    for kind in kinds() {
        let fixture = GatewayFixture::new(LIMITS);
        let mut ordinary = connect(&fixture);
        let alone = p99(&mut ordinary);
        let stop = AtomicBool::new(false);
        let beside = std::thread::scope(|scope| {
            for _ in 0..HOSTILE {
                scope.spawn(|| attack(&fixture, &kind, &stop));
            }
            std::thread::sleep(Duration::from_millis(50));
            let beside = p99(&mut ordinary);
            let others: Vec<RawClient> = (0..10).map(|_| connect(&fixture)).collect();
            stop.store(true, Ordering::Relaxed);
            drop(others);
            beside
        });
        println!("{}: p99 {alone:?} alone, {beside:?} beside them", kind.name);
        let limit = (2 * alone).max(alone + LATER_MAX);
        assert!(beside <= limit, "{}: {beside:?} beside, {alone:?} alone", kind.name);
    }
}
