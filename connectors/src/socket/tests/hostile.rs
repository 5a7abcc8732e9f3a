//! Peers that send as much as they can of what costs a server the most, beside ordinary clients.
//!
//! Each kind runs on four connections, without end and from threads of their own. Meanwhile an
//! ordinary client measures how long an echo takes, and others connect. The server has one core and
//! all clients another, on which the hostile ones have the least priority: what is measured is how
//! the server divides its core, and not how the system divides one between clients and server.

#![expect(clippy::disallowed_methods, reason = "clients need threads and pauses of their own")]

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::setpriority_process;
use rustix::thread::{CpuSet, gettid, sched_setaffinity};

use super::client::{RawClient, frame, handshake, text_frame};
use super::fixture::{GatewayFixture, LIMITS};
use super::own_process;

/// Hostile connections of each kind.
const HOSTILE: usize = 4;

/// Echoes measured for each kind.
const ECHOES: usize = 300;

/// How much later than without them the slowest echo but 1 % may be. The goal is 5 ms on a machine
/// that does nothing else; other tests use the same two cores.
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

/// Lets the calling thread, and those it starts from now on, run on one core.
fn run_on(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    // With fewer cores the figures only get worse.
    let _ = sched_setaffinity(None, &cores);
}

/// Sends without end, connecting again when it is closed.
fn attack(fixture: &GatewayFixture, kind: &Hostile, stop: &AtomicBool) {
    let _ = setpriority_process(Some(gettid()), 19);
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
fn hostile_peers_of_every_kind_delay_others_by_little() {
    own_process::run(
        concat!(module_path!(), "::hostile_peers_of_every_kind_delay_others_by_little"),
        delays_of_others,
    );
}

#[expect(clippy::print_stdout, reason = "the figures are worth reading")]
fn delays_of_others() {
    for kind in kinds() {
        run_on(0);
        let fixture = GatewayFixture::new(LIMITS);
        run_on(1);
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
