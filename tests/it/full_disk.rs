//! The disk of the embedded log and of the state gets full under load.
//!
//! The process must report it and end, with the exit code of a lost log or, if the state is refused
//! first, of a failed process; after a restart with free space nothing that was acknowledged may be
//! missing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tidewire_connectors::embedded::{Config, EmbeddedLog};
use tidewire_engine::port::{Isolation, Log as _, ReadLimit};
use tidewire_engine::record::{Offset, Partition, TopicPartition};
use tidewire_engine::topology::Topology;
use tidewire_schemas::event::EventView;
use tidewire_tests::http::HttpClient;
use tidewire_tests::server::Server;
use tidewire_tests::small_disk::SmallDisk;
use tidewire_tests::wall_clock::SystemWallClock;

/// Exit codes of a process whose state failed, and of one that lost its log.
const FAILED: [i32; 2] = [1, 3];

/// How long anything may take on a machine under load.
const TIMEOUT: Duration = Duration::from_secs(120);

fn event(n: u64) -> String {
    format!(
        r#"{{"event_id":"d-{n}","event_type":"post.created","account_id":"a","data":{{"post_id":"p{n}","author_id":"u","text":"t"}}}}"#
    )
}

/// Posts event after event; returns the number of the first that was not acknowledged.
fn post_until_refused(server: &Server, mut n: u64, give_up: Instant) -> u64 {
    // It may have ended before it is asked.
    let Ok(mut http) = HttpClient::connect(server.addr()) else { return n };
    while Instant::now() < give_up {
        match http.post("/v1/events", "application/json", event(n).as_bytes()) {
            Ok(answer) if answer.status == 202 => n += 1,
            Ok(answer) => {
                assert!(answer.status >= 500, "{}: {}", answer.status, answer.text());
                break;
            }
            Err(_) => break,
        }
    }
    n
}

/// How often each number is in its author's channel.
fn delivered(server: &Server) -> BTreeMap<u64, u32> {
    let config = Config::new(server.data_dir().join("log"));
    let log = EmbeddedLog::open(config, Arc::new(SystemWallClock)).expect("the log opens");
    let topology = Topology::default();
    let mut times = BTreeMap::new();
    for partition in (0..topology.partitions()).map(Partition) {
        let at = TopicPartition::new(topology.out_stream(), partition);
        let end = log.bounds(&at, Isolation::Committed).expect("bounds").end;
        let mut reader = log.reader(Isolation::Committed).expect("a reader");
        let slot = reader.add(&at, Offset(0)).expect("a place");
        let mut records = Vec::new();
        while reader.position(slot).expect("a position") < end {
            let limit = ReadLimit { records: 1_000, bytes: 1 << 20 };
            reader.take(slot, limit, &mut records).expect("records");
        }
        for record in records.iter().filter(|r| r.body.key() == Some(b"posts:u")) {
            let event = EventView::decode(record.body.value().expect("a value")).expect("an event");
            *times.entry(event.event_id[2..].parse().expect("a number")).or_default() += 1;
        }
    }
    times
}

/// Waits until DERIVE has processed something, and then nothing more for five seconds: beside other
/// tests it may pause for one with a backlog left.
fn wait_until_still(server: &Server) {
    let taken = || server.metric("tidewire_derive_events_total{lane=\"normal\"}").unwrap_or(0.0);
    let (begun, mut last, mut since) = (Instant::now(), 0.0, Instant::now());
    while last < 10.0 || since.elapsed() < Duration::from_secs(5) {
        assert!(begun.elapsed() < TIMEOUT, "it goes on");
        thread::sleep(Duration::from_millis(20));
        let now = taken();
        if now > last {
            (last, since) = (now, Instant::now());
        }
    }
}

#[test]
fn a_full_disk_under_the_embedded_log_loses_nothing_that_was_acknowledged() {
    let mut server = Server::start(&[]);
    server.stop();
    let small = match SmallDisk::over(&server.data_dir()) {
        Ok(small) => small,
        Err(why) => {
            eprintln!("skipped, since nothing can be mounted: {why}");
            return;
        }
    };
    server.restart();
    let first = post_until_refused(&server, 0, Instant::now() + Duration::from_secs(2));
    assert!(first > 100, "it works");
    let ballast = small.fill();
    let refused = post_until_refused(&server, first, Instant::now() + TIMEOUT);
    let (code, printed) = server.ended(TIMEOUT);
    assert!(code.is_some_and(|code| FAILED.contains(&code)), "{code:?}: {printed}");
    assert!(printed.contains("is full; free some space"), "it says why:\n{printed}");
    std::fs::remove_file(ballast).expect("it is ours");

    server.restart();
    // A producer without a response sends again; the id tells whether the event was there already.
    let mut http = HttpClient::connect(server.addr()).expect("it listens");
    for n in refused..refused + 10 {
        let answer = http.post("/v1/events", "application/json", event(n).as_bytes());
        assert_eq!(answer.expect("an answer").status, 202);
    }
    wait_until_still(&server);
    server.stop();
    let times = delivered(&server);
    assert_eq!(times.len() as u64, refused + 10, "each was delivered");
    assert!(times.values().all(|times| *times == 1), "and only once");
    eprintln!("{refused} acknowledged before the disk was full");
    drop(small);
}
