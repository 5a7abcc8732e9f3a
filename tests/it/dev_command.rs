//! `tidewire dev` as a new user runs it, across a restart.
//!
//! It prints one ready line, the demo stream of that line delivers events, Ctrl-C ends it, and
//! after the next start the history is still there.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::time::Duration;

use rustix::process::Signal;
use tidewire_tests::event_source::EventSource;
use tidewire_tests::received_event::ReceivedEvent;
use tidewire_tests::server::Server;

/// How long the first events may take on a busy machine.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(30);

/// A start with history; the product's target of 3 s is for an otherwise idle machine.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How long Ctrl-C may take; it takes a third of a second on an idle machine.
const CTRL_C_LIMIT: Duration = Duration::from_secs(5);

/// The path and query of the SSE address in the ready line.
fn sse_path(ready_line: &str) -> String {
    let start = ready_line.find("/v1/sse").unwrap_or_else(|| panic!("no SSE URL: {ready_line}"));
    let path = ready_line[start..].split(|c: char| c.is_whitespace() || "'\")".contains(c)).next();
    path.expect("split gives at least one part").to_owned()
}

fn read(source: &mut EventSource, count: usize) -> Vec<ReceivedEvent> {
    let next = |_| source.next_event(ARRIVAL_LIMIT).unwrap().expect("the demo feed goes on");
    (0..count).map(next).collect()
}

#[test]
fn the_ready_line_names_a_demo_stream_whose_history_survives_ctrl_c() {
    let mut server = Server::start(&["--demo"]);
    let path = sse_path(server.ready_line());
    let seen = read(&mut EventSource::open(server.addr(), &path, None, None).unwrap(), 5);
    let took = server.stop_by(Signal::INT);
    assert!(took < CTRL_C_LIMIT, "Ctrl-C took {took:?}");

    server.restart();
    let start = server.starts()[1];
    assert!(start < START_LIMIT, "a second start took {start:?}");
    let resume = Some(seen[0].position.as_str());
    let mut source = EventSource::open(server.addr(), &path, resume, None).unwrap();
    let again = read(&mut source, 4);
    let ids =
        |events: &[ReceivedEvent]| events.iter().map(|e| e.event_id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&again), ids(&seen[1..]), "what followed the first event follows it again");
    server.stop();
}

#[test]
fn it_serves_health_stats_and_metrics_and_refuses_the_rest() {
    let server = Server::start(&[]);
    let mut http = server.http();
    for path in ["/healthz", "/readyz", "/v1/stats", "/metrics", "/"] {
        let response = http.get(path).unwrap();
        assert_eq!(response.status, 200, "{path}: {}", response.text());
    }
    assert_eq!(http.get("/nothing-here").unwrap().status, 404);
    let nonsense = br#"{"event_type":"post.created"}"#;
    let refused = http.post("/v1/events", "application/json", nonsense).unwrap();
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(refused.text().contains("missing_field"), "{}", refused.text());
}
