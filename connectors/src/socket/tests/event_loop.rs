//! Tests of the time within which a message has to be whole.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::mpsc::sync_channel;

use bytes::Bytes;
use tidewire_engine::fanout::identity::{Accounts, Identity, Roles};
use tidewire_engine::fanout::protocol::native::{SnapshotWish, StartAt};
use tidewire_engine::fanout::shard::OpenRequest;

use super::*;
use crate::socket::http::takeover::Takeover;
use crate::socket::limits::{ConnectionLimiter, ConnectionLimits};
use crate::socket::memory::CONNECTIONS_BYTES;
use crate::socket::tests::client::{frame, text_frame};
use crate::socket::tests::scripted_shard::{ScriptedShard, ShardScript};

/// A loop with one WebSocket.
struct OneClient {
    event_loop: EventLoop<ScriptedShard>,
    script: ShardScript,
    client: std::net::TcpStream,
}

impl OneClient {
    fn new() -> Self {
        let poll = Poll::new().unwrap();
        let waker = mio::Waker::new(poll.registry(), WAKE_TOKEN).unwrap();
        let waker = Arc::new(WorkerWaker::new(waker));
        let (_, inbox) = sync_channel(1);
        let script = ShardScript::default();
        let shard = script.shard(Arc::clone(&waker) as Arc<dyn tidewire_engine::port::Wake>);
        let memory = MemoryBudget::new(CONNECTIONS_BYTES, || 0);
        let mut event_loop = EventLoop::new(shard, LoopParts { poll, inbox, waker, memory });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nodelay(true).unwrap();
        let (stream, address) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let limiter = ConnectionLimiter::new(ConnectionLimits::of_process());
        let permit = limiter.acquire(address.ip()).unwrap();
        let identity =
            Identity { user: "ann".into(), accounts: Accounts::All, roles: Roles::CLIENT };
        let open = OpenRequest {
            framing: Framing::WebSocket,
            identity: Arc::new(identity),
            channels: Vec::new(),
            start: StartAt::Latest,
            snapshot: SnapshotWish::Skip,
        };
        let takeover = Takeover { head: Vec::new(), open };
        event_loop.adopt(DetachedConnection { stream, read_ahead: Bytes::new(), takeover, permit });
        Self { event_loop, script, client }
    }

    /// Sends bytes, and turns the loop until `done` holds.
    fn send(&mut self, bytes: &[u8], done: impl Fn(&Self) -> bool) {
        self.client.write_all(bytes).unwrap();
        let mut events = Events::with_capacity(8);
        for _ in 0..200 {
            self.event_loop.poll.poll(&mut events, Some(Duration::from_millis(50))).unwrap();
            self.event_loop.turn(&events);
            if done(self) {
                return;
            }
        }
        panic!("the loop did not get there");
    }

    fn inputs(&self) -> usize {
        self.script.seen.lock().unwrap().inputs.len()
    }

    /// Since when the message has been unfinished.
    fn since(&self) -> Option<Instant> {
        let connection = self.event_loop.connections[0].as_ref()?;
        connection.unfinished.as_ref().map(|unfinished| unfinished.since)
    }
}

/// One message ends and the next one begins in every read.
#[test]
fn each_message_has_its_own_time() {
    let mut one = OneClient::new();
    let message = text_frame("hello");
    let (head, tail) = message.split_at(5);
    one.send(head, |one| one.since().is_some());
    let first = one.since().unwrap();
    one.send(&[tail, head].concat(), |one| one.inputs() == 1);
    let second = one.since().unwrap();
    assert!(second > first, "the second message has the time of the first");
    one.event_loop.end_unfinished(first + UNFINISHED_MESSAGE);
    assert_eq!(one.event_loop.count, 1, "closed although each message was sent at once");
    one.send(tail, |one| one.inputs() == 2);
    assert_eq!(one.since(), None);
}

/// Pings between the frames of a message do not prolong its time.
#[test]
fn a_message_in_fragments_has_one_time() {
    let mut one = OneClient::new();
    let ping = frame(0x89, b"?");
    one.send(&[frame(0x01, b"x"), ping[..3].to_vec()].concat(), |one| one.since().is_some());
    let first = one.since().unwrap();
    one.send(&[&ping[3..], &ping[..3]].concat(), |one| one.script.seen.lock().unwrap().alive == 1);
    assert_eq!(one.since(), Some(first));
    one.event_loop.end_unfinished(first + UNFINISHED_MESSAGE);
    assert_eq!(one.event_loop.count, 0);
}
