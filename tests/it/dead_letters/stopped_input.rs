//! Stopped ADMIT in the real process: it reports the stop everywhere, and is resumed.

use tidewire_engine::topology::Topology;
use tidewire_tests::server::Server;

use super::fixture::{append, check_delivered, event, input, key, open, read, wait_until};
use crate::replay::wait_for_outputs;

#[test]
fn poisoned_input_stops_admit_and_resume_continues_it() {
    let topology = Topology::default();
    let mut server = Server::start(&[]);
    server.stop();
    let log = open(&server.data_dir());
    // Nearly all records of the first minute are invalid.
    let poison: Vec<_> = (0..400).map(|n| input(&topology, &key(n), b"\xff poison")).collect();
    append(&*log, &poison);
    let good: Vec<_> = (0..100).map(|n| input(&topology, &key(n), &event(n))).collect();
    append(&*log, &good);
    drop(log);

    server.restart();
    let mut http = server.http();
    wait_until("ADMIT is stopped", || http.get("/readyz").expect("an answer").status == 503);
    let why = http.get("/readyz").expect("an answer").text();
    for part in ["stopped reading tw.in", "not_utf8", "tw.in/", "tidewire resume --url"] {
        assert!(why.contains(part), "{part:?}: {why}");
    }
    let metrics = http.get("/metrics").expect("an answer").text();
    assert!(metrics.contains("tidewire_admit_stopped{source=\"in\"} 1"), "{metrics}");
    assert!(metrics.contains("tidewire_admit_stopped{source=\"urgent\"} 0"), "{metrics}");
    assert!(!metrics.contains("tidewire_admit_rejected_total{"), "there are no dead letters");
    assert!(server.printed().contains("tidewire resume"), "{}", server.printed());
    let (status, listed) = server.run_verb(&["dead-letters", "list"], None);
    assert!(status.success() && listed.contains("no dead letter matches"), "{listed}");
    let posted = http.post("/v1/events", "application/json", &event(100)).expect("an answer");
    assert_eq!(posted.status, 202, "posted events wait in the log: {}", posted.text());

    let (status, output) = server.run_verb(&["resume"], None);
    assert!(status.success() && output.contains("ADMIT reads tw.in again"), "{output}");
    wait_until("it is ready again", || http.get("/readyz").expect("an answer").status == 200);
    wait_until("all are dead letters", || {
        let metrics = http.get("/metrics").expect("an answer").text();
        metrics.contains("tidewire_admit_rejected_total{reason=\"not_utf8\"} 400")
    });
    wait_for_outputs(&server, 303);
    let (status, output) = server.run_verb(&["resume"], None);
    assert!(status.success() && output.contains("nothing to resume"), "{output}");
    server.stop();
    let log = open(&server.data_dir());
    check_delivered(&*log, &topology, 101);
    assert_eq!(read(&*log, &topology, topology.dead_letters()).len(), 400);
}
