//! WebSockets through the whole gateway: edge cases of RFC 6455, slow and dead clients, closes.

#![expect(clippy::disallowed_methods, reason = "clients need threads and pauses of their own")]

use std::time::Duration;

use crate::socket::memory::MemoryBudget;

use super::client::{RawClient, frame, handshake, text_frame};
use super::fixture::{GatewayFixture, LIMITS, wait_for};
use super::own_process;

fn connect(fixture: &GatewayFixture) -> RawClient {
    let mut client = RawClient::connect(fixture.address());
    client.send(handshake("?user=ann"));
    assert_eq!(client.response().status, 101);
    assert_eq!(client.frame(), (0x81, b"welcome".to_vec()));
    client
}

fn connected() -> (GatewayFixture, RawClient) {
    let fixture = GatewayFixture::new(LIMITS);
    let client = connect(&fixture);
    (fixture, client)
}

/// Sends bytes and expects to be closed with this code.
fn check_closed(bytes: &[u8], code: u16) {
    let (fixture, mut client) = connected();
    client.send(bytes);
    assert_eq!(client.close_frame().0, code);
    assert!(client.is_at_end());
    drop(client);
    wait_for(|| (fixture.gateway.connections() == 0).then_some(()));
    assert_eq!(fixture.script.seen.lock().unwrap().closed, 1);
}

#[test]
fn a_fragmented_message_with_a_ping_inside_is_one_message() {
    let (fixture, mut client) = connected();
    for part in [frame(0x01, b"echo he"), frame(0x89, b"?"), frame(0x00, b"l"), frame(0x80, b"lo")]
    {
        for byte in part {
            client.send([byte]);
        }
    }
    assert_eq!(client.frame(), (0x8a, b"?".to_vec()));
    assert_eq!(client.frame(), (0x81, b"hello".to_vec()));
    assert_eq!(fixture.script.seen.lock().unwrap().inputs, ["echo hello"]);
}

#[test]
fn a_protocol_violation_is_closed_with_its_code() {
    check_closed(&frame(0x82, b"binary"), 4009);
    check_closed(&[0x81, 1, b'x'], 1002);
    check_closed(&frame(0x81, &[0xc3, 0x28]), 1007);
    check_closed(&frame(0xf1, b"reserved bits"), 1002);
    check_closed(&frame(0x80, b"continues nothing"), 1002);
    check_closed(&frame(0x81, &[b'x'; 65_537]), 1009);
    check_closed(&[frame(0x01, &[b'x'; 40_000]), frame(0x80, &[b'x'; 40_000])].concat(), 1009);
}

#[test]
fn a_message_of_a_megabyte_is_answered_with_1009_and_not_with_a_reset() {
    for _ in 0..20 {
        let (_fixture, mut client) = connected();
        let mut sender = client.stream.try_clone().expect("a second handle");
        let sent = std::thread::spawn(move || {
            std::io::Write::write_all(&mut sender, &frame(0x81, &vec![b'x'; 1 << 20]))
        });
        assert_eq!(client.close_frame().0, 1009);
        sent.join().expect("it ends").expect("all of it is read");
        assert!(client.is_at_end());
    }
}

#[test]
fn bytes_sent_with_the_handshake_are_read() {
    let fixture = GatewayFixture::new(LIMITS);
    let mut client = RawClient::connect(fixture.address());
    client.send([handshake("?user=ann").into(), text_frame("echo early")].concat());
    assert_eq!(client.response().status, 101);
    let frames = [client.frame(), client.frame()].map(|(_, payload)| payload);
    assert!(frames.contains(&b"early".to_vec()), "{frames:?}");
}

#[test]
fn more_connections_than_ever_lingered_get_their_close_frame() {
    let (fixture, client) = connected();
    let mut clients = vec![client];
    clients.extend((0..1_200).map(|_| connect(&fixture)));
    fixture.gateway.drain(Duration::ZERO);
    for client in &mut clients {
        assert_eq!(client.close_frame().0, 1001);
    }
    drop(clients);
    fixture.gateway.join();
}

#[test]
fn the_largest_message_passes() {
    let (fixture, mut client) = connected();
    client.send(text_frame(&"x".repeat(65_536)));
    client.send(text_frame("echo after"));
    assert_eq!(client.frame(), (0x81, b"after".to_vec()));
    assert_eq!(fixture.script.seen.lock().unwrap().inputs.len(), 2);
}

#[test]
fn a_close_is_answered_and_the_server_closes_first() {
    let (_fixture, mut client) = connected();
    client.send(frame(0x88, &[0x0f, 0xa0, b'b', b'y', b'e']));
    assert_eq!(client.close_frame(), (4000, "bye".to_owned()));
    assert!(client.is_at_end());
}

#[test]
fn a_close_by_the_shard_has_its_code_and_reason() {
    let (_fixture, mut client) = connected();
    client.send([text_frame("echo last words"), text_frame("slow")].concat());
    assert_eq!(client.frame(), (0x81, b"last words".to_vec()));
    let (code, text) = client.close_frame();
    assert_eq!(code, 4008);
    assert!(text.contains("resume"), "{text}");
    assert!(client.is_at_end());
}

#[test]
fn a_pong_marks_the_connection_alive() {
    let (fixture, mut client) = connected();
    client.send(frame(0x8a, b""));
    wait_for(|| (fixture.script.seen.lock().unwrap().alive == 1).then_some(()));
}

#[test]
fn a_slow_reader_gets_every_frame_and_delays_no_other_client() {
    let (fixture, mut slow) = connected();
    // 20 MB, far more than the kernel takes for a client that doesn't read.
    slow.send(text_frame("frames 20000"));
    let mut quick = connect(&fixture);
    quick.send(text_frame("echo now"));
    assert_eq!(quick.frame(), (0x81, b"now".to_vec()));
    for n in 0..20_000 {
        assert_eq!(slow.frame(), (0x81, format!("{n:01000}").into_bytes()));
    }
    slow.send(text_frame("echo still here"));
    assert_eq!(slow.frame(), (0x81, b"still here".to_vec()));
}

#[test]
fn a_client_that_reads_no_answers_is_not_read() {
    let (fixture, client) = connected();
    let mut sender = client.stream.try_clone().expect("a second handle");
    sender.set_write_timeout(Some(Duration::from_millis(500))).expect("a timeout");
    let pings = frame(0x89, &[b'p'; 125]).repeat(1_000);
    // Its pongs are never read, so at some point its pings are no longer read either.
    let blocked = (0..2_000).any(|_| std::io::Write::write_all(&mut sender, &pings).is_err());
    assert!(blocked, "262 MB of pings were read");
    drop((client, sender));
    wait_for(|| (fixture.gateway.connections() == 0).then_some(()));
}

#[test]
fn a_client_that_reads_no_answers_to_its_requests_is_not_read() {
    let (fixture, client) = connected();
    let mut sender = client.stream.try_clone().expect("a second handle");
    sender.set_write_timeout(Some(Duration::from_millis(500))).expect("a timeout");
    let requests = text_frame(&format!("echo {}", "x".repeat(2_000))).repeat(100);
    let sent =
        (0..400).take_while(|_| std::io::Write::write_all(&mut sender, &requests).is_ok()).count();
    assert!(sent < 400, "80 MB of requests were read");
    // The answers that wait in this process, not in the kernel's buffers.
    let waiting = fixture.script.seen.lock().unwrap().most_waiting;
    assert!(waiting < 128 * 1_024, "{waiting} bytes of answers wait");
    drop((client, sender));
    wait_for(|| (fixture.gateway.connections() == 0).then_some(()));
}

#[test]
fn a_client_whose_answers_waited_is_read_again() {
    let (_fixture, mut client) = connected();
    let mut sender = client.stream.try_clone().expect("a second handle");
    let request = text_frame(&format!("echo {}", "x".repeat(2_000)));
    let sending = std::thread::spawn(move || {
        for _ in 0..10_000 {
            std::io::Write::write_all(&mut sender, &request).expect("it is read in the end");
        }
    });
    // Time for the buffers of both directions to be full.
    std::thread::sleep(Duration::from_millis(300));
    for n in 0..10_000 {
        assert_eq!(client.frame().1.len(), 2_000, "answer {n}");
    }
    sending.join().expect("no panic");
}

/// While there is no memory, messages are read that arrive in several parts, and so are those that
/// a client sends without waiting for answers.
#[test]
fn without_memory_clients_that_read_are_served() {
    let fixture = GatewayFixture::with_memory(LIMITS, MemoryBudget::new(0, || 0));
    let mut client = connect(&fixture);
    let text = "y".repeat(60_000);
    let message = text_frame(&format!("echo {text}"));
    let (first, second) = message.split_at(30_000);
    client.send(first);
    std::thread::sleep(Duration::from_millis(50));
    client.send(second);
    assert_eq!(client.frame(), (0x81, text.into_bytes()));
    let many: Vec<Vec<u8>> = (0..100).map(|n| text_frame(&format!("echo {n:0100}"))).collect();
    client.send(many.concat());
    for n in 0..100 {
        assert_eq!(client.frame(), (0x81, format!("{n:0100}").into_bytes()));
    }
}

#[test]
fn a_connection_that_is_reset_is_released() {
    let (fixture, client) = connected();
    socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).expect("linger");
    drop(client);
    wait_for(|| (fixture.gateway.connections() == 0).then_some(()));
    assert_eq!(fixture.script.seen.lock().unwrap().closed, 1);
}

#[test]
fn a_stream_the_shard_refuses_is_closed_with_1013() {
    let fixture = GatewayFixture::new(LIMITS);
    fixture.script.seen.lock().unwrap().is_full = true;
    let mut client = RawClient::connect(fixture.address());
    client.send(handshake(""));
    assert_eq!(client.response().status, 101);
    assert_eq!(client.close_frame().0, 1013);
    assert!(client.is_at_end());
}

#[test]
fn draining_closes_all_with_1001_and_ends_the_threads() {
    let (fixture, mut client) = connected();
    fixture.gateway.drain(Duration::ZERO);
    assert_eq!(client.close_frame().0, 1001);
    assert!(client.is_at_end());
    drop(client);
    fixture.gateway.join();
}

#[test]
fn with_a_window_clients_get_move_frames_before_they_are_closed() {
    let (fixture, mut client) = connected();
    fixture.gateway.drain(Duration::from_millis(400));
    let (_, text) = client.frame();
    let text = String::from_utf8(text).expect("text");
    assert!(text.starts_with(r#"{"op":"move","within_ms":"#), "{text}");
    assert_eq!(client.close_frame().0, 1001);
    assert!(client.is_at_end());
    fixture.gateway.join();
}

#[test]
fn one_wake_delivers_to_all_connections() {
    let (fixture, first) = connected();
    let mut all = vec![first, connect(&fixture), connect(&fixture)];
    fixture.script.broadcast("news");
    for client in &mut all {
        assert_eq!(client.frame(), (0x81, b"news".to_vec()));
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "the figure is worth reading")]
fn quiet_connections_use_little_memory() {
    own_process::run(concat!(module_path!(), "::quiet_connections_use_little_memory"), || {
        let per_connection = bytes_per_quiet_connection();
        println!("{per_connection} bytes of memory per quiet WebSocket (streams not counted)");
        assert!(per_connection < 5 * 1_024, "{per_connection} bytes per connection");
    });
}

fn bytes_per_quiet_connection() -> usize {
    const COUNT: usize = 2_000;
    let fixture = GatewayFixture::new(LIMITS);
    // Memory that is needed only once, such as tables and stacks, is allocated before measuring.
    let _first: Vec<RawClient> = (0..50).map(|_| connect(&fixture)).collect();
    let before = own_process::resident_bytes();
    let all: Vec<_> = (0..COUNT).map(|_| connect(&fixture).stream).collect();
    let per_connection = own_process::resident_bytes().saturating_sub(before) / COUNT;
    assert_eq!(fixture.gateway.connections(), all.len() + 50);
    drop(all);
    per_connection
}
