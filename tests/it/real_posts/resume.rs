//! Every subscriber gets every event once, however often it is cut and the server is killed.
//!
//! A writer posts the real posts a few at a time and repeats what was not acknowledged, as
//! producers do. Between its posts the server is killed with SIGKILL and started again on its data.
//! Subscribers are cut after a random number of bytes, mostly in the middle of a frame, and resume
//! from their last position.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use tidewire_tests::event_source::EventSource;
use tidewire_tests::http::HttpClient;
use tidewire_tests::received_event::{ReceivedEvent, query_escape};
use tidewire_tests::server::Server;
use tidewire_tests::test_rng::TestRng;
use tidewire_tests::websocket::{ClientError, WebSocketClient};

use super::mapper::{ACCOUNT, ExpectedEvent, real_posts};

/// Kills in one history.
const KILLS: usize = 4;

/// Most events in one of the writer's posts.
const MAX_BATCH: usize = 12;

/// Longest connection in bytes: a handful of these posts.
const MAX_CONNECTION_BYTES: usize = 24_000;

/// Cuts per subscriber; then one connection is not cut, so that the test ends.
const CUTS: usize = 25;

/// How long a subscriber may take to get everything, on a busy machine.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(120);

/// Pause before the next try while the server is down.
const RETRY: Duration = Duration::from_millis(20);

/// How long a subscriber waits for one event before it checks its deadline.
const EVENT_WAIT: Duration = Duration::from_millis(200);

/// The server's current address; it changes with every start.
type SharedAddress = Arc<RwLock<SocketAddr>>;

#[test]
fn random_cuts_and_kills_lose_and_duplicate_nothing() {
    for seed in [1, 2] {
        history(Server::start(&[]), seed);
    }
}

/// One history on this server, which has no real posts yet.
pub(crate) fn history(mut server: Server, seed: u64) {
    let expected = Arc::new(real_posts());
    let address: SharedAddress = Arc::new(RwLock::new(server.addr()));
    let channels = watched(&expected);
    let mut subscribers = Vec::new();
    for index in 0..4 {
        let subscriber = ResumingSubscriber {
            address: Arc::clone(&address),
            rng: TestRng::new(seed * 1_000 + index),
            channels: channels.clone(),
            got: ReceivedEvents::default(),
        };
        let expected = Arc::clone(&expected);
        subscribers.push(thread::spawn(move || match index % 2 {
            0 => subscriber.run_websocket(&expected),
            _ => subscriber.run_sse(&expected),
        }));
    }
    write_all(&mut server, &address, &expected, &mut TestRng::new(seed));
    for (index, subscriber) in subscribers.into_iter().enumerate() {
        if subscriber.join().is_err() {
            let printed = server.printed();
            panic!("subscriber {index} of seed {seed} failed, see above; the server:\n{printed}");
        }
    }
    server.stop();
}

/// The account, the timeline and the busiest authors.
fn watched(expected: &[ExpectedEvent]) -> Vec<String> {
    let mut posts: BTreeMap<&String, usize> = BTreeMap::new();
    for channel in expected.iter().flat_map(|event| &event.channels) {
        *posts.entry(channel).or_default() += 1;
    }
    let mut channels: Vec<_> = posts.into_iter().collect();
    channels.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let watched: Vec<String> = channels.into_iter().take(8).map(|(name, _)| name.clone()).collect();
    assert!(watched.contains(&format!("timeline:{ACCOUNT}")));
    watched
}

/// Posts everything in order, a few at a time, with kills between and during posts.
fn write_all(
    server: &mut Server,
    address: &SharedAddress,
    expected: &[ExpectedEvent],
    rng: &mut TestRng,
) {
    let mut kill_at: BTreeSet<usize> = (0..KILLS).map(|_| rng.index(expected.len())).collect();
    let mut sent = 0;
    while sent < expected.len() {
        let count = (1 + rng.index(MAX_BATCH)).min(expected.len() - sent);
        let batch = &expected[sent..sent + count];
        if kill_at.pop_first_below(sent + count) {
            post_and_kill(server, batch, rng);
            server.restart();
            *address.write().unwrap() = server.addr();
        }
        post_until_answered(server, batch);
        sent += count;
        thread::sleep(Duration::from_millis(rng.below(30)));
    }
}

trait PopBelow {
    /// Removes the first number if it is below `limit`; returns whether it was.
    fn pop_first_below(&mut self, limit: usize) -> bool;
}

impl PopBelow for BTreeSet<usize> {
    fn pop_first_below(&mut self, limit: usize) -> bool {
        self.first().is_some_and(|first| *first < limit) && self.pop_first().is_some()
    }
}

/// Kills the server during a post, or right after its response.
fn post_and_kill(server: &mut Server, batch: &[ExpectedEvent], rng: &mut TestRng) {
    let (addr, body) = (server.addr(), body_of(batch));
    let post = thread::spawn(move || {
        // Whether it was acknowledged does not matter: it is posted again.
        HttpClient::connect(addr)
            .and_then(|mut client| client.post("/v1/events", "application/x-ndjson", &body))
            .ok()
    });
    thread::sleep(Duration::from_micros(rng.below(8_000)));
    server.kill9();
    post.join().unwrap();
}

fn post_until_answered(server: &Server, batch: &[ExpectedEvent]) {
    let answer = server.http().post("/v1/events", "application/x-ndjson", &body_of(batch)).unwrap();
    assert_eq!(answer.status, 202, "{}", answer.text());
}

fn body_of(batch: &[ExpectedEvent]) -> Vec<u8> {
    let lines: Vec<String> = batch.iter().map(|event| format!("{}\n", event.envelope)).collect();
    lines.concat().into_bytes()
}

/// What a subscriber received, in order.
#[derive(Default)]
struct ReceivedEvents {
    events: BTreeMap<(String, String), String>,
    order: BTreeMap<String, Vec<String>>,
}

impl ReceivedEvents {
    fn take(&mut self, event: ReceivedEvent) {
        let text = event.data_str("text").to_owned();
        let key = (event.channel.clone(), event.event_id.clone());
        let earlier = self.events.insert(key, text);
        assert!(earlier.is_none(), "delivered twice: {event:?}");
        self.order.entry(event.channel).or_default().push(event.event_id);
    }
}

struct ResumingSubscriber {
    address: SharedAddress,
    rng: TestRng,
    channels: Vec<String>,
    got: ReceivedEvents,
}

impl ResumingSubscriber {
    fn run_websocket(mut self, expected: &[ExpectedEvent]) {
        let mut positions: BTreeMap<String, String> = BTreeMap::new();
        let expected_count = self.expected_count(expected);
        let deadline = Instant::now() + ARRIVAL_LIMIT;
        let mut connection = 0;
        while self.got.events.len() < expected_count && Instant::now() < deadline {
            let cut_after = self.cut_after(connection);
            let Ok(mut client) = WebSocketClient::connect(self.addr(), "reader", cut_after) else {
                thread::sleep(RETRY);
                continue;
            };
            connection += 1;
            let end = self.read_websocket(&mut client, &positions, expected_count, deadline);
            positions.extend(client.positions().clone());
            assert!(
                client.gaps().is_empty(),
                "nothing was old enough to be gone: {:?}",
                client.gaps()
            );
            if let Err(ClientError::Refused(frame)) = end {
                panic!("refused: {frame}, positions {positions:?}");
            }
        }
        self.compare(expected);
    }

    fn read_websocket(
        &mut self,
        client: &mut WebSocketClient,
        positions: &BTreeMap<String, String>,
        expected_count: usize,
        deadline: Instant,
    ) -> Result<(), ClientError> {
        for channel in &self.channels.clone() {
            // There is no position before the first frame, and the history began with this test.
            let from = positions.get(channel).map_or("earliest", String::as_str);
            let subscribed = client.subscribe(channel, from);
            self.take_waiting(client);
            subscribed?;
        }
        while self.got.events.len() < expected_count && Instant::now() < deadline {
            match client.next_event(EVENT_WAIT) {
                Ok(Some(event)) => self.got.take(event),
                Ok(None) => {}
                Err(broken) => {
                    self.take_waiting(client);
                    return Err(broken);
                }
            }
        }
        Ok(())
    }

    /// A position advances when its event is read from the socket, so every read event must be
    /// kept.
    fn take_waiting(&mut self, client: &mut WebSocketClient) {
        while let Some(event) = client.pop_waiting() {
            self.got.take(event);
        }
    }

    fn run_sse(mut self, expected: &[ExpectedEvent]) {
        let mut last_event_id = String::new();
        let expected_count = self.expected_count(expected);
        let deadline = Instant::now() + ARRIVAL_LIMIT;
        let channels = query_escape(&self.channels.join(","));
        let path = format!("/v1/sse?from=earliest&channels={channels}");
        let mut connection = 0;
        while self.got.events.len() < expected_count && Instant::now() < deadline {
            let cut_after = self.cut_after(connection);
            let resume = Some(last_event_id.as_str()).filter(|id| !id.is_empty());
            let Ok(mut source) = EventSource::open(self.addr(), &path, resume, cut_after) else {
                thread::sleep(RETRY);
                continue;
            };
            connection += 1;
            while self.got.events.len() < expected_count && Instant::now() < deadline {
                match source.next_event(EVENT_WAIT) {
                    Ok(Some(event)) => self.got.take(event),
                    Ok(None) => {}
                    Err(_) => break,
                }
            }
            source.last_event_id().clone_into(&mut last_event_id);
        }
        self.compare(expected);
    }

    fn addr(&self) -> SocketAddr {
        *self.address.read().unwrap()
    }

    fn cut_after(&mut self, connection: usize) -> Option<usize> {
        (connection < CUTS).then(|| 100 + self.rng.index(MAX_CONNECTION_BYTES))
    }

    fn expected_count(&self, expected: &[ExpectedEvent]) -> usize {
        let channels = expected.iter().flat_map(|event| &event.channels);
        channels.filter(|channel| self.channels.contains(channel)).count()
    }

    fn compare(self, expected: &[ExpectedEvent]) {
        for channel in &self.channels {
            let carried = expected.iter().filter(|event| event.channels.contains(channel));
            for event in carried.clone() {
                let key = (channel.clone(), event.event_id.clone());
                let text = self.got.events.get(&key);
                assert_eq!(text, Some(&event.text), "{channel} {}", event.event_id);
            }
            if channel.starts_with("posts:") {
                let sent: Vec<&String> = carried.map(|event| &event.event_id).collect();
                let got = &self.got.order[channel];
                assert!(got.iter().eq(sent.iter().copied()), "{channel}: {got:?}, sent {sent:?}");
            }
        }
        assert_eq!(self.got.events.len(), self.expected_count(expected), "more than was sent");
    }
}
