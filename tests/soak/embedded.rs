//! A soak round on the embedded log: one process is killed and restarted.
//!
//! A producer posts each event again until it is acknowledged.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tidewire_connectors::embedded::{Config, EmbeddedLog};
use tidewire_engine::port::{Isolation, Log as _, ReadLimit};
use tidewire_engine::record::{Offset, Partition, Record, Topic, TopicPartition};
use tidewire_engine::topology::Topology;
use tidewire_schemas::event::EventView;
use tidewire_tests::http::HttpClient;
use tidewire_tests::server::Server;
use tidewire_tests::test_rng::TestRng;
use tidewire_tests::wall_clock::SystemWallClock;

use crate::LIFE_MS_MAX;

/// Entity keys, so that some share a partition.
const KEYS: usize = 40;

/// Channels that carry one of the events.
const CHANNELS_PER_EVENT: usize = 3;

/// How long all outputs may take.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Kills this many times, checks the outputs and returns the number of events.
pub(crate) fn round(mut rng: TestRng, kills: usize) -> usize {
    let mut server = Server::start(&[]);
    let over = Arc::new(AtomicBool::new(false));
    let (stop, addr) = (Arc::clone(&over), server.addr());
    let posting = thread::spawn(move || post_until(&stop, addr));
    for _ in 0..kills {
        thread::sleep(Duration::from_millis(rng.below(LIFE_MS_MAX)));
        server.kill9();
        server.restart_in_place();
    }
    over.store(true, Ordering::Relaxed);
    let numbers = posting.join().expect("the producer ends well");
    assert!(numbers > kills, "there was load");
    let begun = Instant::now();
    loop {
        thread::sleep(Duration::from_millis(500));
        server.kill9();
        let outputs = outputs(&server);
        if outputs.len() >= numbers * CHANNELS_PER_EVENT || begun.elapsed() > TIMEOUT {
            check(&outputs, numbers);
            return numbers;
        }
        server.restart_in_place();
    }
}

/// Posts numbered events one after the other, each until it is acknowledged; returns how many.
fn post_until(over: &AtomicBool, addr: SocketAddr) -> usize {
    let (mut n, mut connection) = (0, None::<HttpClient>);
    loop {
        let mut http = match connection.take() {
            Some(http) => http,
            None => match HttpClient::connect(addr) {
                Ok(http) => http,
                Err(_) => {
                    thread::sleep(Duration::from_millis(2));
                    continue;
                }
            },
        };
        match http.post("/v1/events", "application/json", event(n).as_bytes()) {
            Ok(answer) if answer.status == 202 => {
                n += 1;
                if over.load(Ordering::Relaxed) {
                    return n;
                }
            }
            Ok(answer) if answer.status < 500 && answer.status != 429 => {
                panic!("{}: {}", answer.status, answer.text());
            }
            // The server is down, starting or stopping.
            _ => continue,
        }
        connection = Some(http);
    }
}

fn event(n: usize) -> String {
    let key = format!("k{}", n % KEYS);
    serde_json::json!({
        "event_id": format!("e-{n}"),
        "event_type": "post.created",
        "account_id": "acc",
        "priority": n / KEYS % 4,
        "key": key,
        "data": {"post_id": format!("p{n}"), "author_id": key, "text": n.to_string()},
    })
    .to_string()
}

/// Checks what a stopped process has delivered.
fn outputs(server: &Server) -> Vec<Record> {
    let config = Config::new(server.data_dir().join("log"));
    let log =
        EmbeddedLog::open(config, Arc::new(SystemWallClock)).expect("no other process has it open");
    let topology = Topology::default();
    assert!(read(&log, &topology, topology.dead_letters()).is_empty(), "there are dead letters");
    let mut all = read(&log, &topology, topology.out_urgent());
    all.extend(read(&log, &topology, topology.out_stream()));
    all
}

fn read(log: &EmbeddedLog, topology: &Topology, topic: &Topic) -> Vec<Record> {
    let mut reader = log.reader(Isolation::Committed).expect("a reader");
    let limit = ReadLimit { records: 10_000, bytes: 64 << 20 };
    let mut all = Vec::new();
    for partition in 0..topology.partitions() {
        let at = TopicPartition::new(topic, Partition(partition));
        let end = log.bounds(&at, Isolation::Committed).expect("bounds").end;
        let slot = reader.add(&at, Offset(0)).expect("from the start");
        while reader.position(slot).expect("a position") < end {
            reader.take(slot, limit, &mut all).expect("taken");
        }
    }
    all
}

/// Every number was delivered once to each of its channels, in order per channel, key and priority.
fn check(outputs: &[Record], numbers: usize) {
    let (mut times, mut last) = (BTreeMap::<(String, usize), u32>::new(), BTreeMap::new());
    for record in outputs {
        let channel = String::from_utf8_lossy(record.body.key().expect("a channel")).into_owned();
        let event = EventView::decode(record.body.value().expect("an event")).expect("an event");
        let n: usize = event.event_id[2..].parse().expect("a number");
        *times.entry((channel.clone(), n)).or_default() += 1;
        let order = (channel, event.key.to_owned(), event.priority.number());
        let before = last.insert(order, n);
        assert!(before.is_none_or(|before| before < n), "{n} comes after {before:?}");
    }
    let doubled: Vec<_> = times.iter().filter(|(_, times)| **times > 1).take(5).collect();
    assert!(doubled.is_empty(), "delivered more than once: {doubled:?}");
    let mut channels = vec![0; numbers];
    times.keys().for_each(|(_, n)| channels[*n] += 1);
    let missing = channels.iter().position(|channels| *channels != CHANNELS_PER_EVENT);
    assert_eq!(missing, None, "an event is missing in a channel; {numbers} events");
}
