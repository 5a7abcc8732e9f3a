//! Tests with a real browser: Chromium's `EventSource` and `WebSocket`, and our page.
//!
//! Our own clients may share our reading of the standards; a browser reconnects by its own rules.
//! So a page with nothing but the platform's objects reads the real posts, while the server is
//! killed in one test and the page closes its connection in the other.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails there")]

mod page;

use std::collections::{BTreeMap, VecDeque};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidewire_tests::browser::Browser;
use tidewire_tests::event_source::EventSource;
use tidewire_tests::received_event::{ReceivedEvent, query_escape};
use tidewire_tests::server::Server;

use super::real_posts::delivery::{author_channels, check, post};
use super::real_posts::mapper::{ACCOUNT, ExpectedEvent, real_posts};

/// How long one step may take on a busy machine.
const STEP_LIMIT: Duration = Duration::from_secs(60);

/// How often the page is polled.
const POLL: Duration = Duration::from_millis(20);

/// Channels besides the whole account and timeline: proxies refuse an address with more.
const AUTHORS: usize = 18;

/// Events in one request.
const BATCH: usize = 12;

/// Batches during which the server is killed, and for how long it stays down: once for longer
/// than the browser waits before it reconnects, so that a connection is refused too.
const KILLS: [(usize, Duration); 3] =
    [(3, Duration::ZERO), (8, Duration::from_millis(1_500)), (13, Duration::ZERO)];

/// Events after which the page closes its socket.
const CUT_EVERY: usize = 40;

/// Reads with an `EventSource` and leaves everything else to it.
const EVENT_SOURCE: &str = r"
    const [path, types] = arguments;
    const source = new EventSource(path);
    const connections = [];
    const received = [];
    source.onopen = () => connections.push(0);
    for (const type of types) {
        source.addEventListener(type, (message) => {
            received.push([message.data, message.lastEventId]);
            connections[connections.length - 1] += 1;
        });
    }
    const isClosed = () => source.readyState === EventSource.CLOSED;
    const failure = () => (isClosed() ? 'it stopped reconnecting' : null);
    window.listener = { received, connections, failure };
";

/// Reads with a `WebSocket` that it closes every so often, keeps one position per channel, and
/// subscribes again from there.
const WEB_SOCKET: &str = r"
    const [path, channels, cutEvery] = arguments;
    const received = [];
    const connections = [];
    const positions = new Map();
    let refused = null;
    function connect() {
        const socket = new WebSocket(`ws://${location.host}${path}`, 'tidewire.v1');
        const say = (message) => socket.send(JSON.stringify(message));
        let events = 0;
        socket.onopen = () => {
            connections.push(socket.protocol);
            channels.forEach((channel, id) => {
                say({ op: 'subscribe', id, channel, from: positions.get(channel) || 'earliest' });
            });
        };
        socket.onmessage = ({ data }) => {
            const frame = JSON.parse(data);
            if (frame.op === 'error' || frame.op === 'gap') refused = data;
            if (frame.op !== 'event') return;
            received.push([data, frame.position]);
            positions.set(frame.channel, frame.position);
            events += 1;
            if (events === cutEvery) socket.close();
        };
        socket.onclose = () => setTimeout(connect, 20);
    }
    connect();
    window.listener = { received, connections, failure: () => refused };
";

#[test]
fn a_browser_event_source_reconnects_and_gets_every_event_once() {
    real_posts_through_event_source(&mut Server::start(&[]));
}

#[test]
fn a_page_that_closes_its_web_socket_resumes_by_position_and_gets_every_event_once() {
    real_posts_through_web_socket(&Server::start(&[]));
}

/// Delivers the real posts to a browser's `EventSource` while the server is killed and started
/// again. The server must be new: its log holds nothing else in these channels.
pub(crate) fn real_posts_through_event_source(server: &mut Server) {
    let expected = real_posts();
    let channels = watched(&expected);
    let path = sse_path(&channels);
    let browser = Browser::start();
    let mut page = Page::open(&browser, server);
    browser.run(EVENT_SOURCE, json!([path, types(&expected)]));

    let mut kills = KILLS.iter().enumerate().peekable();
    for (index, batch) in expected.chunks(BATCH).enumerate() {
        if let Some((life, (_, away))) = kills.next_if(|(_, kill)| kill.0 == index) {
            browser.wait_for(&format!("return listener.connections[{life}] > 0;"), STEP_LIMIT);
            post(server, batch);
            server.kill9();
            thread::sleep(*away);
            server.restart_in_place();
        }
        post(server, batch);
    }

    check(&expected, &channels, |limit| page.next(limit));
    let connections = browser.run("return listener.connections.length;", json!([]));
    assert_eq!(connections, 1 + KILLS.len(), "it opened once and reconnected after each kill");
    page.compare_order(server, &channels);
}

/// Delivers the real posts to a browser's `WebSocket` that the page closes again and again. The
/// server must be new, as above.
pub(crate) fn real_posts_through_web_socket(server: &Server) {
    let expected = real_posts();
    let channels = watched(&expected);
    let browser = Browser::start();
    let mut page = Page::open(&browser, server);
    browser.run(WEB_SOCKET, json!(["/v1/ws?user=reader", channels, CUT_EVERY]));

    for batch in expected.chunks(BATCH) {
        post(server, batch);
    }

    check(&expected, &channels, |limit| page.next(limit));
    let connections = browser.run("return listener.connections;", json!([]));
    let connections = connections.as_array().unwrap();
    assert_eq!(connections.len(), 1 + page.seen.len() / CUT_EVERY, "one connection more than cuts");
    assert!(
        connections.iter().all(|protocol| protocol == "tidewire.v1"),
        "agreed on: {connections:?}"
    );
    page.compare_order(server, &channels);
    assert_eq!(browser.console_errors(), [""; 0]);
}

/// The account, the timeline and some authors.
fn watched(expected: &[ExpectedEvent]) -> Vec<String> {
    let whole = [format!("timeline:{ACCOUNT}"), format!("account:{ACCOUNT}")];
    whole.into_iter().chain(author_channels(expected).into_iter().take(AUTHORS)).collect()
}

fn sse_path(channels: &[String]) -> String {
    format!("/v1/sse?from=earliest&channels={}", query_escape(&channels.join(",")))
}

/// All message types: an `EventSource` receives only those it has a listener for.
fn types(expected: &[ExpectedEvent]) -> Vec<&str> {
    let mut types: Vec<&str> = expected.iter().map(|event| event.canonical).collect();
    types.sort_unstable();
    types.dedup();
    types.extend(["gap", "message"]);
    types
}

/// A page's `listener`, and what it has received so far.
struct Page<'a> {
    browser: &'a Browser,
    waiting: VecDeque<ReceivedEvent>,
    /// Channel and id, in the order they came.
    seen: Vec<(String, String)>,
}

impl<'a> Page<'a> {
    /// Opens the server's own page, so that its connections have the same origin.
    fn open(browser: &'a Browser, server: &Server) -> Self {
        browser.open(&format!("http://{}/", server.addr()));
        Self { browser, waiting: VecDeque::new(), seen: Vec::new() }
    }

    fn next(&mut self, limit: Duration) -> Option<ReceivedEvent> {
        let deadline = Instant::now() + limit;
        loop {
            self.ask();
            if let Some(event) = self.waiting.pop_front() {
                self.seen.push((event.channel.clone(), event.event_id.clone()));
                return Some(event);
            }
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(POLL);
        }
    }

    fn ask(&mut self) {
        if !self.waiting.is_empty() {
            return;
        }
        let script = "return [listener.failure(), listener.received.splice(0)];";
        let state = self.browser.run(script, json!([]));
        assert_eq!(state[0], Value::Null, "{:#?}", self.browser.console_errors());
        for received in state[1].as_array().unwrap() {
            let (text, position) = (received[0].as_str().unwrap(), received[1].as_str());
            self.waiting.push_back(ReceivedEvent::parse(text, position));
        }
    }

    /// Reads the channels again with our own client: from the first to the last event that the page
    /// saw of a channel, the log must have the same events in the same order.
    fn compare_order(&self, server: &Server, channels: &[String]) {
        let mut seen: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (channel, id) in &self.seen {
            seen.entry(channel).or_default().push(id);
        }
        assert_eq!(seen.len(), channels.len(), "something on each of {channels:?}");
        let mut log: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let mut again = EventSource::open(server.addr(), &sse_path(channels), None, None).unwrap();
        let mut missing = seen.clone();
        while !missing.is_empty() {
            let event = again.next_event(STEP_LIMIT).unwrap();
            let event = event.unwrap_or_else(|| panic!("not in the log: {missing:#?}"));
            let Some((channel, ids)) = missing.remove_entry(event.channel.as_str()) else {
                continue;
            };
            if ids.last() != Some(&event.event_id.as_str()) {
                missing.insert(channel, ids);
            }
            log.entry(channel).or_default().push(event.event_id);
        }
        for (channel, ids) in seen {
            let log = &log[channel];
            let same = &log[log.len().saturating_sub(ids.len())..];
            assert!(same == ids, "{channel}: the page saw {ids:#?}, the log has {log:#?}");
        }
    }
}
