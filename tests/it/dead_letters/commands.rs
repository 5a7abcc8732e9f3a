//! `tidewire dead-letters` against a running process and on the folder of a stopped one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tidewire_engine::topology::Topology;
use tidewire_tests::server::Server;
use tidewire_tests::test_rng::TestRng;

use super::fixture::{
    append, check_delivered, dead_letter_record, event, input, open, read, run, wait_until,
};
use crate::replay::wait_for_outputs;

/// How far ahead a timestamp may be, and how far beyond that the test's timestamps are.
const AHEAD_MS: u128 = 600_000;
const BEYOND_MS: u128 = 3_000;

fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis()
}

fn listed(server: &Server, args: &[&str]) -> Vec<Value> {
    let args = [&["dead-letters", "list", "--json"], args].concat();
    let (status, out) = server.run_verb(&args, None);
    assert!(status.success(), "{out}");
    let lines = out.lines().filter(|line| line.starts_with('{'));
    lines.map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn id(dead_letter: &Value) -> &str {
    dead_letter["id"].as_str().expect("an id")
}

/// A server with three kinds of dead letters: two posted with a time too far ahead, one posted and
/// one in the log that can never become events.
fn prepared() -> Server {
    let topology = Topology::default();
    let mut server = Server::start(&[]);
    server.stop();
    let log = open(&server.data_dir());
    append(&*log, &[input(&topology, "k1", b"\xff\x1b[2J not text")]);
    drop(log);
    server.restart();
    let mut http = server.http();
    for n in 0..2 {
        let mut early: Value = serde_json::from_slice(&event(n)).expect("JSON");
        early["timestamp"] = json!(u64::try_from(now_ms() + AHEAD_MS + BEYOND_MS).expect("soon"));
        let body = early.to_string();
        let refused = http.post("/v1/events", "application/json", body.as_bytes());
        assert_eq!(refused.expect("an answer").status, 422);
    }
    let refused = http.post("/v1/events", "application/x-ndjson", b"no event\n");
    assert_eq!(refused.expect("an answer").status, 422);
    wait_until("four letters", || listed(&server, &[]).len() == 4);
    server
}

#[test]
fn dead_letters_are_listed_shown_requeued_and_dropped_by_filter() {
    let mut server = prepared();
    let (_, table) = server.run_verb(&["dead-letters", "list"], None);
    for part in ["time", "detail", "timestamp_future", "not_json", "not_utf8", "open", "http/"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    assert_eq!(listed(&server, &["--reason", "not_json", "--reason", "not_utf8"]).len(), 2);
    let by_log = listed(&server, &["--source", "in"]);
    assert_eq!((by_log.len(), &by_log[0]["reason"]), (1, &json!("not_utf8")));
    assert_eq!(listed(&server, &["--source", "http", "--limit", "2"]).len(), 2);
    assert_eq!(listed(&server, &["--until", "2020-01-01T00:00:00Z"]).len(), 0);
    assert_eq!(listed(&server, &["--since", "1577836800000"]).len(), 4);

    let (status, shown) = server.run_verb(&["dead-letters", "show", id(&by_log[0])], None);
    assert!(status.success(), "{shown}");
    for part in ["not_utf8", "key        k1", "header     trace: t1", "in hex:\nff1b5b324a"] {
        assert!(shown.contains(part), "{part:?}: {shown}");
    }
    let (status, output) = server.run_verb(&["dead-letters", "show", "tw.in/9/9"], None);
    assert!(!status.success() && output.contains("list --all"), "{output}");

    let (_, output) = server
        .run_verb(&["dead-letters", "requeue", "--reason", "timestamp_future", "--dry-run"], None);
    assert!(output.contains("would requeue 2 dead letters: timestamp_future 2"), "{output}");
    std::thread::sleep(Duration::from_millis(BEYOND_MS as u64 + 500));
    let again = ["dead-letters", "requeue", "--reason", "timestamp_future"];
    let (_, output) = server.run_verb(&again, None);
    assert!(output.contains("requeued 2 dead letters: timestamp_future 2"), "{output}");
    let (_, output) = server.run_verb(&again, None);
    assert!(output.contains("requeued 0 dead letters"), "{output}");
    let drop = ["dead-letters", "drop", id(&by_log[0]), "--because", "a scan of ports"];
    let (status, output) = server.run_verb(&drop, None);
    assert!(status.success() && output.contains("dropped 1 dead letter: not_utf8 1"), "{output}");
    let (status, output) = server.run_verb(&drop, None);
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("or not matched by the other filters: tw.in/"), "{output}");
    let (_, shown) = server.run_verb(&["dead-letters", "show", id(&by_log[0])], None);
    assert!(shown.contains("dropped    2") && shown.contains(": a scan of ports"), "{shown}");
    assert_eq!((listed(&server, &[]).len(), listed(&server, &["--all"]).len()), (1, 4));
    let metrics = server.http().get("/metrics").expect("an answer").text();
    for line in [
        "tidewire_dead_letters_requeued_total{reason=\"timestamp_future\"} 2",
        "tidewire_dead_letters_dropped_total{reason=\"not_utf8\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    wait_for_outputs(&server, 6);

    // Without a URL the folder is meant, and the process that has it open answers.
    let data = server.data_dir();
    let data = data.to_str().expect("a path of text");
    let listen = server.addr().to_string();
    let at = ["--data-dir", data, "--listen", &listen];
    let found = run(&[&["dead-letters", "list", "--json"], &at[..]].concat());
    assert_eq!((found.code, found.out.lines().count()), (Some(0), 1), "{}", found.err);
    server.stop();
    let topology = Topology::default();
    check_delivered(&*open(&server.data_dir()), &topology, 2);

    // The folder of a stopped process gives the same answers, raw bytes too.
    let at = ["--data-dir", data, "--listen", "127.0.0.1:1"];
    let left = run(&[&["dead-letters", "list", "--json"], &at[..]].concat());
    assert_eq!((left.code, left.out.lines().count()), (Some(0), 1), "{}", left.err);
    let left: Value = serde_json::from_str(&left.out).expect("JSON");
    let raw = run(&[&["dead-letters", "show", id(&left), "--raw"], &at[..]].concat());
    assert_eq!(raw.out, "no event");
}

#[test]
fn a_verb_without_a_filter_changes_nothing() {
    for verb in ["requeue", "drop"] {
        let done = run(&["dead-letters", verb]);
        assert_eq!(done.code, Some(2), "{}", done.err);
        assert!(done.err.contains("--all-open) for every open one"), "{}", done.err);
        let done = run(&["dead-letters", verb, "--all-open", "--source", "http"]);
        assert_eq!(done.code, Some(2), "{}", done.err);
        let done = run(&["dead-letters", verb, "--reason", "no_jason"]);
        assert!(done.err.contains("give one of empty_value, not_utf8"), "{}", done.err);
    }
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("absent");
    let data = data.to_str().expect("a path of text");
    let done = run(&["dead-letters", "list", "--data-dir", data, "--listen", "127.0.0.1:1"]);
    assert_eq!(done.code, Some(1));
    assert!(done.err.contains("give another --data-dir"), "{}", done.err);
}

#[test]
fn a_large_requeue_killed_repeatedly_and_run_twice_at_once_delivers_once() {
    const DEAD_LETTERS: usize = 50_000;
    const KILLS: usize = 8;
    const QUIET: Duration = Duration::from_secs(3);
    let seed = std::env::var("TIDEWIRE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    eprintln!("repeat with TIDEWIRE_SEED={seed}");
    let mut rng = TestRng::new(seed);
    let topology = Topology::default();
    let mut server = Server::start(&[]);
    server.stop();
    let log = open(&server.data_dir());
    append(&*log, &(0..DEAD_LETTERS).map(|n| dead_letter_record(&topology, n)).collect::<Vec<_>>());
    drop(log);
    server.restart();
    let requeue = ["dead-letters", "requeue", "--all-open"];
    let mut went_back = 0;
    for _ in 0..KILLS {
        let wait = Duration::from_millis(rng.below(400));
        std::thread::scope(|scope| {
            let asked = [0, 1].map(|_| scope.spawn(|| server.run_verb(&requeue, None)));
            std::thread::sleep(Duration::from_millis(100) + wait);
            rustix::process::kill_process(
                rustix::process::Pid::from_raw(server.pid() as i32).expect("a process"),
                rustix::process::Signal::KILL,
            )
            .expect("it is our child");
            for verb in asked {
                verb.join().expect("the verb ends");
            }
        });
        server.kill9();
        let log = open(&server.data_dir());
        let back = read(&*log, &topology, topology.input()).len();
        eprintln!("{back} of {DEAD_LETTERS} requeued so far");
        assert!(back >= went_back);
        went_back = back;
        drop(log);
        server.restart();
    }
    let (status, output) = server.run_verb(&requeue, None);
    assert!(status.success(), "{output}");
    let (_, output) = server.run_verb(&requeue, None);
    assert!(output.contains("requeued 0 dead letters"), "{output}");
    let mut http = server.http();
    // Finished: nothing more is validated or derived for a while. A counter is absent as long as it
    // is zero, as after a kill that came when everything was derived.
    let mut counters = || {
        let metrics = http.get("/metrics").expect("an answer").text();
        let names = ["tidewire_admit_events_total", "tidewire_derive_outputs_total"];
        let counts = |line: &&str| names.iter().any(|name| line.starts_with(name));
        metrics.lines().filter(counts).map(str::to_owned).collect::<Vec<_>>()
    };
    wait_until("everything is processed", || {
        let before = counters();
        std::thread::sleep(QUIET);
        before == counters()
    });
    server.stop();
    check_delivered(&*open(&server.data_dir()), &topology, DEAD_LETTERS);
}
