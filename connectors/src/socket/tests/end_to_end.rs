//! The engine's fan-out behind real sockets, over the embedded log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tidewire_engine::fanout::catchup::lookup_worker::LookupWorker;
use tidewire_engine::fanout::catchup::sweeper::Sweeper;
use tidewire_engine::fanout::config::FanoutConfig;
use tidewire_engine::fanout::hub::Hub;
use tidewire_engine::fanout::reader::HubReader;
use tidewire_engine::port::{Appender, Clock, Log};
use tidewire_engine::record::{Body, Outgoing, Partition};
use tidewire_engine::topology::Topology;
use tidewire_schemas::Priority;
use tidewire_schemas::event::Event;
use tidewire_schemas::partition::partition_for;

use crate::clock;
use crate::embedded::{Config, EmbeddedLog};
use crate::socket::gateway::GatewayHandle;
use crate::socket::memory::{CONNECTIONS_BYTES, MemoryBudget};
use crate::socket::stream::worker::start_all;

use super::client::{RawClient, handshake, text_frame};
use super::fixture::{FixedClock, LIMITS, start, wait_for};
use super::own_process;

struct EndToEnd {
    gateway: Option<GatewayHandle>,
    memory: Arc<MemoryBudget>,
    appender: Box<dyn Appender>,
    topology: Topology,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    _dir: TempDir,
}

impl EndToEnd {
    fn new() -> Self {
        Self::with_limits(FanoutConfig::default(), CONNECTIONS_BYTES)
    }

    #[expect(clippy::disallowed_methods, reason = "joined when this is dropped")]
    fn with_limits(config: FanoutConfig, connections_bytes: usize) -> Self {
        let dir = TempDir::new().expect("a folder");
        let clock: Arc<dyn Clock> = Arc::new(FixedClock);
        let log = EmbeddedLog::open(Config::new(dir.path().join("log")), Arc::clone(&clock));
        let log = log.expect("a new log");
        let topology = Topology::new("tw.", 4);
        for spec in topology.specs() {
            log.create(&spec).expect("a new topic");
        }
        let hub = Hub::open(&*log, &topology, config).expect("a hub");
        let mut reader = HubReader::open(&*log, &hub).expect("a reader");
        let mut sweeper = Sweeper::open(&*log, &hub).expect("a sweeper");
        let mut lookups = LookupWorker::open(log.clone(), &hub).expect("a worker");
        let stop = Arc::new(AtomicBool::new(false));
        let wait = Duration::from_millis(100);
        let [until, also_until, lookups_until] = [(); 3].map(|()| Arc::clone(&stop));
        let threads = vec![
            std::thread::spawn(move || {
                while !until.load(Ordering::Relaxed) {
                    reader.turn(wait).expect("a log that can be read");
                }
            }),
            std::thread::spawn(move || {
                while !also_until.load(Ordering::Relaxed) {
                    sweeper.turn(clock::monotonic(), wait).expect("a log that can be swept");
                }
            }),
            std::thread::spawn(move || {
                while !lookups_until.load(Ordering::Relaxed) {
                    lookups.turn(clock::monotonic(), wait).expect("a log that can be asked");
                }
            }),
        ];
        wait_for(|| hub.warm().then_some(()));
        let memory = MemoryBudget::over_hub(connections_bytes, &hub);
        let workers = start_all(2, &memory, &hub).expect("threads");
        let gateway = Some(start(LIMITS, &Arc::default(), workers));
        let appender = log.appender().expect("a producer");
        Self { gateway, memory, appender, topology, stop, threads, _dir: dir }
    }

    fn gateway(&self) -> &GatewayHandle {
        self.gateway.as_ref().expect("it is taken only when this is dropped")
    }

    fn post(&mut self, author: &str, text: &str) {
        let channel = format!("posts:{author}");
        let event = Event {
            event_id: format!("event-{text}"),
            event_type: "post.created".to_owned(),
            account_id: "acc-1".to_owned(),
            timestamp_ms: FixedClock.now().0,
            correlation_id: "c".to_owned(),
            priority: Priority::Normal,
            key: author.to_owned(),
            source: None,
            alias: None,
            data: format!(r#"{{"post_id":"p","author_id":"{author}","text":"{text}"}}"#),
        };
        let record = Outgoing {
            topic: self.topology.out_stream().clone(),
            partition: Partition(partition_for(channel.as_bytes(), self.topology.partitions())),
            body: Body::new(Some(channel.as_bytes()), Some(&event.encode()), &[]),
        };
        self.appender.append(&[record]).expect("an open log");
    }

    fn subscribe(&self, channel: &str) -> RawClient {
        let mut client = RawClient::connect(self.gateway().local_addr());
        client.send(handshake("?user=ann"));
        assert_eq!(client.response().status, 101);
        assert_eq!(op(&mut client)["op"], "welcome");
        client.send(text_frame(&format!(r#"{{"op":"subscribe","id":1,"channel":"{channel}"}}"#)));
        let ok = op(&mut client);
        assert_eq!((&ok["op"], &ok["id"]), (&"ok".into(), &1.into()), "{ok}");
        client
    }

    fn stream(&self, query: &str, headers: &str) -> RawClient {
        let mut client = RawClient::connect(self.gateway().local_addr());
        client.send(format!("GET /v1/sse?{query} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n"));
        assert!(client.take_until("\r\n\r\n").starts_with("HTTP/1.1 200"));
        client
    }
}

impl Drop for EndToEnd {
    fn drop(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            gateway.join();
        }
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("no panic");
        }
    }
}

/// The next text frame that isn't a keepalive.
fn op(client: &mut RawClient) -> Value {
    loop {
        let (first, payload) = client.frame();
        let text = String::from_utf8(payload).expect("text");
        match first {
            0x81 if text.starts_with(r#"{"op":"position""#) => {}
            0x81 => return serde_json::from_str(&text).expect("JSON"),
            other => assert_eq!(other, 0x89, "{text:?}"),
        }
    }
}

/// The next event of a stream: its id and its data.
fn event(client: &mut RawClient) -> (String, Value) {
    loop {
        let block = client.take_until("\n\n");
        let line = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        if let Some(data) = line("data: ") {
            let id = line("id: ").expect("every event has an id").to_owned();
            return (id, serde_json::from_str(data).expect("JSON"));
        }
    }
}

#[test]
fn outputs_in_the_log_reach_websockets_and_sse_streams() {
    let mut end_to_end = EndToEnd::new();
    let mut socket = end_to_end.subscribe("posts:alice");
    let mut stream = end_to_end.stream("channels=posts:alice,posts:bob", "");
    // A stream misses nothing after its first position.
    stream.take_until("id: ");
    end_to_end.post("alice", "one");
    end_to_end.post("carol", "not for them");
    end_to_end.post("alice", "two");
    for text in ["one", "two"] {
        assert_eq!(op(&mut socket)["data"]["text"], text);
        assert_eq!(event(&mut stream).1["data"]["text"], text);
    }
}

#[test]
fn a_stream_resumes_at_its_last_event_id() {
    let mut end_to_end = EndToEnd::new();
    let mut first = end_to_end.stream("channels=posts:alice&from=earliest", "");
    end_to_end.post("alice", "one");
    let (id, seen) = event(&mut first);
    assert_eq!(seen["data"]["text"], "one");
    drop(first);
    end_to_end.post("alice", "two");
    end_to_end.post("alice", "three");
    let mut again = end_to_end.stream("channels=posts:alice", &format!("last-event-id: {id}\r\n"));
    for text in ["two", "three"] {
        assert_eq!(event(&mut again).1["data"]["text"], text);
    }
    let mut by_query = end_to_end.stream(&format!("channels=posts:alice&last_event_id={id}"), "");
    assert_eq!(event(&mut by_query).1["data"]["text"], "two");
}

#[test]
fn a_stream_that_can_not_be_opened_is_refused_with_an_http_status() {
    let end_to_end = EndToEnd::new();
    let mut client = RawClient::connect(end_to_end.gateway().local_addr());
    for (path, status, code) in [
        ("/v1/sse?channels=nonsense:a", 400, "invalid_channel"),
        ("/v1/sse?channels=feed:w1", 404, "not_found"),
        ("/v1/sse?channels=posts:a&from=yesterday", 400, "invalid_position"),
        ("/v1/sse?channels=posts:a&last_event_id=AAAA", 400, "invalid_position"),
    ] {
        let response = client.get(path);
        assert_eq!((response.status, response.code().as_str()), (status, code), "{path}");
    }
}

#[test]
fn a_stalled_client_catches_up_in_order() {
    let mut end_to_end = EndToEnd::new();
    let mut slow = end_to_end.subscribe("posts:alice");
    let padding = "x".repeat(2_000);
    let records = 8_000;
    for n in 0..records {
        end_to_end.post("alice", &format!("{n}-{padding}"));
    }
    for n in 0..records {
        let frame = op(&mut slow);
        let text = frame["data"]["text"].as_str().unwrap_or_else(|| panic!("{frame}"));
        assert!(text.starts_with(&format!("{n}-")), "{n}: {}", &text[..10]);
    }
}

/// Clients stop reading while events come. The one that reads gets everything, and so do those that
/// stopped, once they read again. Returns the most bytes that were in use.
fn most_bytes_for_stopped(clients: usize, events: (usize, usize), budget: usize) -> usize {
    let (events, event_bytes) = events;
    // A sweep keeps four steps with their frames, which the budget does not limit.
    let config = FanoutConfig {
        ring_max_bytes: 2 << 20,
        sweep_step_bytes: 32 << 10,
        ..FanoutConfig::default()
    };
    let mut end_to_end = EndToEnd::with_limits(config, budget);
    let mut stopped: Vec<RawClient> =
        (0..clients).map(|_| end_to_end.subscribe("posts:alice")).collect();
    let mut reading = end_to_end.subscribe("posts:alice");
    let padding = "x".repeat(event_bytes);
    let check = |client: &mut RawClient, n: usize| {
        let frame = op(client);
        let text = frame["data"]["text"].as_str().unwrap_or_else(|| panic!("{frame}"));
        assert!(text.starts_with(&format!("{n}-")), "{n}: {}", &text[..10]);
    };
    let mut most = 0;
    for n in 0..events {
        end_to_end.post("alice", &format!("{n}-{padding}"));
        check(&mut reading, n);
        most = most.max(end_to_end.memory.used_bytes());
    }
    stopped.truncate(3);
    for client in &mut stopped {
        (0..events).for_each(|n| check(client, n));
    }
    drop((stopped, reading));
    wait_for(|| (end_to_end.memory.used_bytes() < 10_000).then_some(()));
    most
}

#[test]
#[expect(clippy::print_stdout, reason = "the figure is worth reading")]
fn large_events_that_are_not_read_are_held_once() {
    let most = most_bytes_for_stopped(400, (24, 250_000), 64 << 20);
    println!("at most {most} bytes for 400 clients that do not read events of 250 kB");
    assert!(most < 3 << 20, "{most} bytes");
}

/// Small events are copied, so here the budget is full nearly all the time: everybody is served on,
/// one frame at a time, and nothing is lost.
#[test]
#[expect(clippy::print_stdout, reason = "the figure is worth reading")]
fn clients_that_stop_reading_share_one_budget_of_memory() {
    const BUDGET: usize = 1 << 10;
    // Without a limit 60 clients would keep a fill each, 2 MiB.
    let most = most_bytes_for_stopped(60, (700, 3_500), BUDGET);
    println!("at most {most} bytes for 60 clients that do not read, of {BUDGET}");
    assert!(most > BUDGET, "{most} bytes: it was never full");
    // One unfinished frame for each, one fill of each worker, a sweep's steps with their frames,
    // and segments that have just left the ring and that a worker has not let go of yet.
    assert!(most < BUDGET + (3 << 19), "{most} bytes");
}

#[test]
#[expect(clippy::print_stdout, reason = "the figure is worth reading")]
fn quiet_subscribers_use_little_memory() {
    own_process::run(concat!(module_path!(), "::quiet_subscribers_use_little_memory"), || {
        let (per_socket, per_stream) = bytes_per_subscriber();
        println!("{per_socket} bytes of memory per WebSocket, {per_stream} per SSE stream");
        assert!(per_socket < 5 * 1_024, "{per_socket} bytes per WebSocket");
        assert!(per_stream < 12 * 1_024, "{per_stream} bytes per SSE stream");
    });
}

/// Of a WebSocket and of an SSE stream that receive nothing.
fn bytes_per_subscriber() -> (usize, usize) {
    const COUNT: usize = 2_000;
    let end_to_end = EndToEnd::new();
    let _first: Vec<RawClient> =
        (0..50).map(|n| end_to_end.subscribe(&format!("posts:{n}"))).collect();
    let before = own_process::resident_bytes();
    let sockets: Vec<std::net::TcpStream> =
        (0..COUNT).map(|n| end_to_end.subscribe(&format!("posts:{}", n % 100)).stream).collect();
    let per_socket = own_process::resident_bytes().saturating_sub(before) / COUNT;
    let before = own_process::resident_bytes();
    let streams: Vec<std::net::TcpStream> = (0..COUNT)
        .map(|n| end_to_end.stream(&format!("channels=posts:{}", n % 100), "").stream)
        .collect();
    let per_stream = own_process::resident_bytes().saturating_sub(before) / COUNT;
    drop((sockets, streams));
    (per_socket, per_stream)
}
