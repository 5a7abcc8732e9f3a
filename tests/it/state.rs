//! The local state: restored with visible progress, refused if newer, removed on request.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use tidewire_connectors::embedded::{self, EmbeddedLog};
use tidewire_connectors::rocks::{Config, RocksStores};
use tidewire_engine::port::{Log as _, StoreBatch, Stores as _};
use tidewire_engine::record::{Body, Outgoing, Partition};
use tidewire_engine::topology::Topology;
use tidewire_tests::http::HttpClient;
use tidewire_tests::publisher::PostTarget;
use tidewire_tests::server::{Server, command};
use tidewire_tests::wall_clock::SystemWallClock;

use crate::dead_letters::fixture::wait_until;

/// Events whose ids are stored.
const EVENTS: u64 = 2_000;

/// Changes of a table that no build has, which a restore skips and counts: so many that its
/// progress can be observed.
const FOREIGN: u32 = 1_000_000;

/// The table of these changes.
const TABLE: u8 = 250;

/// How long anything may take on a machine under load.
const TIMEOUT: Duration = Duration::from_secs(120);

const DUPLICATES: &str = "tidewire_derive_duplicates_total{reason=\"id\"}";

fn target(server: &Server) -> PostTarget {
    let line = |n: u64, out: &mut Vec<u8>| {
        let author = n % 1_000;
        let event = serde_json::json!({
            "event_id": format!("s-{n}"), "event_type": "post.created", "account_id": "a",
            "data": {"post_id": format!("p{n}"), "author_id": format!("u{author}"), "text": "t"},
        });
        out.extend_from_slice(event.to_string().as_bytes());
    };
    PostTarget { addr: server.addr(), path: "/v1/events", line: Arc::new(line) }
}

fn taken(server: &Server) -> f64 {
    server.metric("tidewire_derive_events_total{lane=\"normal\"}").unwrap_or(0.0)
}

/// Events from before are duplicates: none of them is accepted twice.
fn check_remembered(server: &Server, events: u64) {
    let before = server.metric(DUPLICATES).unwrap_or(0.0);
    target(server).post_all(0, events).expect("posted");
    wait_until("the same events are duplicates", || {
        server.metric(DUPLICATES).unwrap_or(0.0) - before >= events as f64
    });
}

/// The output and exit code of `state rebuild` for this data folder.
fn rebuild(data_dir: &Path, further: &[&str]) -> (Option<i32>, String) {
    let mut command = command();
    command.args(["state", "rebuild", "--data-dir"]).arg(data_dir).args(further);
    let output = command.output().expect("the binary starts");
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&printed).into_owned())
}

/// Makes the changelog of one partition long.
fn lengthen(server: &Server) {
    let config = embedded::Config::new(server.data_dir().join("log"));
    let log = EmbeddedLog::open(config, Arc::new(SystemWallClock)).expect("the log opens");
    let mut appender = log.appender().expect("an appender");
    let topology = Topology::default();
    let mut records = Vec::new();
    for n in 0..FOREIGN {
        let key = [&[TABLE], &n.to_be_bytes()[..]].concat();
        let (topic, partition) = (topology.state().clone(), Partition(0));
        records.push(Outgoing { topic, partition, body: Body::new(Some(&key), Some(b"x"), &[]) });
        if records.len() == 1_000 {
            appender.append(&std::mem::take(&mut records)).expect("appended");
        }
    }
}

/// Polls until a restore is under way; returns its part of `/v1/stats`, and `/readyz`.
fn watch(addr: SocketAddr) -> Option<(Value, String)> {
    let begun = Instant::now();
    while begun.elapsed() < TIMEOUT {
        let Ok(mut http) = HttpClient::connect(addr) else { continue };
        while let Ok(stats) = http.get("/v1/stats") {
            let stats: Value = serde_json::from_str(&stats.text()).unwrap_or_default();
            let restores = stats["restoring"].as_array().cloned().unwrap_or_default();
            let Ok(ready) = http.get("/readyz") else { break };
            let body = ready.text();
            if ready.status == 200 {
                return None;
            }
            if !restores.is_empty() {
                return Some((restores.into(), body));
            }
        }
    }
    None
}

#[test]
fn removed_state_is_restored_with_visible_progress() {
    let mut server = Server::start(&[]);
    let (code, printed) = rebuild(&server.data_dir(), &[]);
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("in use by process"), "{printed}");
    target(&server).post_all(0, EVENTS).expect("posted");
    wait_until("everything is taken", || taken(&server) >= EVENTS as f64);
    let addr = server.addr();
    server.stop();
    lengthen(&server);

    let mistyped = server.data_dir().with_extension("x");
    let (code, printed) = rebuild(&mistyped, &[]);
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("there is no state in"), "{printed}");
    assert!(!mistyped.exists(), "it creates no folder");
    let (code, printed) = rebuild(&server.data_dir(), &["--partition", "99"]);
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("no state of partition 99"), "{printed}");
    let (code, printed) = rebuild(&server.data_dir(), &[]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.starts_with("removed the state of 8 tasks"), "{printed}");

    let watching = thread::spawn(move || watch(addr));
    server.restart_in_place();
    let (restores, body) = watching.join().expect("it watches").expect("a restore was seen");
    eprintln!("{restores}\n{body}");
    for restore in restores.as_array().expect("a list") {
        assert!(restore["total"].as_u64() >= restore["done"].as_u64(), "{restore}");
    }
    // Which reasons `/readyz` names depends on timing.
    assert!(body.contains("not_ready"), "{body}");
    check_remembered(&server, EVENTS);
}

#[test]
fn state_of_a_later_build_is_refused_until_it_is_removed() {
    let mut server = Server::start(&[]);
    target(&server).post_all(0, EVENTS).expect("posted");
    wait_until("everything is taken", || taken(&server) >= EVENTS as f64);
    server.stop();
    let stores = RocksStores::new(Config::new(server.data_dir().join("state")));
    let mut store = stores.open(Partition(3), &[]).expect("the store opens");
    let later = Bytes::from_static(&[200, 1, 2, 3]);
    store.hand_over(StoreBatch { writes: Vec::new(), progress: later }).expect("handed over");
    store.close().expect("closed");

    let mut command = command();
    command.args(["dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(server.data_dir());
    let refused = command.output().expect("the binary starts");
    let printed = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{printed}");
    assert!(printed.contains("the state of partition 3 was written by a later build"), "{printed}");
    assert!(printed.contains("`tidewire state rebuild`"), "{printed}");

    let (code, printed) = rebuild(&server.data_dir(), &["--partition", "3"]);
    assert_eq!(code, Some(0), "{printed}");
    server.restart();
    check_remembered(&server, EVENTS);
}
