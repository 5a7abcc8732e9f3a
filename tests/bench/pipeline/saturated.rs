//! The saturated phase: the mix of `tidewire generate` without pauses, to the last delivery.
//!
//! Subscribers follow `account:`, the channel that carries most of the mix. How many events they
//! must get is counted from the catalogue before anything is sent.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tidewire_schemas::catalogue::{Catalogue, Class};
use tidewire_schemas::envelope::{RecordOrigin, Writers, admit};
use tidewire_tests::http::HttpClient;
use tidewire_tests::process::usage;
use tidewire_tests::publisher::MAX_EVENTS_PER_POST;
use tidewire_tests::server::{Server, command};
use tidewire_tests::subscriber_pool::SubscriberPool;

use crate::{ACCOUNT, Arguments, endpoint, row, transactions};

/// Connections that post, so that one sends while the other waits for its response.
const POSTERS: usize = 2;

/// Subscribers that each must get everything.
const SUBSCRIBERS: usize = 2;

/// The seed of the events.
const SEED: &str = "1";

/// The text before an event's number in its id.
const SEQ_MARKER: &str = "\"event_id\":\"g1-";

pub(crate) fn run(arguments: &Arguments, server: &Server) -> io::Result<()> {
    let lines = Arc::new(generate(arguments.events)?);
    let channel = format!("account:{ACCOUNT}");
    let expected = expected_deliveries(&lines, &channel);
    let mut pool =
        SubscriberPool::connect(&endpoint(server, &channel, SEQ_MARKER), SUBSCRIBERS, SUBSCRIBERS)?;
    let committed = transactions::read(server)?;
    let before = usage(server.pid())?;
    let begin = Instant::now();
    let addr = server.addr();
    let posters: Vec<_> = (0..POSTERS)
        .map(|poster| {
            let lines = Arc::clone(&lines);
            thread::spawn(move || post(addr, &lines, poster))
        })
        .collect();
    let (delivered, last_arrival) = pool.collect(expected)?;
    let after = usage(server.pid())?;
    let posted: io::Result<Vec<Instant>> = posters
        .into_iter()
        .map(|poster| poster.join().expect("a poster returns its errors"))
        .collect();
    let posted = posted?.into_iter().max().unwrap_or(begin) - begin;
    report(arguments, last_arrival - begin, posted);
    row("CPU µs per event", (after.cpu - before.cpu).as_secs_f64() * 1e6 / lines.len() as f64);
    row("resident MiB after", after.resident_bytes as f64 / f64::from(1 << 20));
    transactions::report(server, &committed)?;
    row("expected", (expected * SUBSCRIBERS as u64) as f64);
    row("delivered", delivered as f64);
    match (delivered, pool.repeated()) == (expected * SUBSCRIBERS as u64, 0) {
        true => Ok(()),
        false => {
            Err(io::Error::other(format!("events were lost, or {} repeated", pool.repeated())))
        }
    }
}

fn report(arguments: &Arguments, delivered: Duration, posted: Duration) {
    println!("| saturated, the mix of `tidewire generate` | |");
    row("events/s, first post to last delivery", arguments.events as f64 / delivered.as_secs_f64());
    row("events/s, posted and answered", arguments.events as f64 / posted.as_secs_f64());
}

/// The first events of the history, a line each.
fn generate(events: u64) -> io::Result<Vec<String>> {
    let count = events.to_string();
    let arguments = ["generate", "--seed", SEED, "--account", ACCOUNT, "--count", &count];
    let output = command().args(arguments).output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let text = String::from_utf8(output.stdout).map_err(io::Error::other)?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// How many of these events the channel must carry, by the catalogue.
fn expected_deliveries(lines: &[String], channel: &str) -> u64 {
    let catalogue = Catalogue::builtin();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let append_time_ms = now.map_or(0, |now| now.as_millis() as i64);
    let origin = RecordOrigin {
        topic: "bench",
        partition: 0,
        offset: 0,
        append_time_ms,
        writers: Writers::Producers,
    };
    let carries = |line: &&String| {
        let admitted = admit(catalogue, Some(line.as_bytes()), &origin)
            .unwrap_or_else(|rejection| panic!("{line}: {rejection:?}"));
        let deliveries =
            catalogue.deliveries(&admitted.event.view()).expect("an admitted event has channels");
        deliveries
            .iter()
            .any(|delivery| delivery.class == Class::Stream && delivery.channel == channel)
    };
    lines.iter().filter(carries).count() as u64
}

/// Posts every second batch, or every nth with n posters; returns when the last was answered.
fn post(addr: std::net::SocketAddr, lines: &[String], poster: usize) -> io::Result<Instant> {
    let mut client = HttpClient::connect(addr)?;
    let batches = lines.chunks(MAX_EVENTS_PER_POST as usize);
    for batch in batches.skip(poster).step_by(POSTERS) {
        let body = batch.join("\n");
        loop {
            let response = client.post("/v1/events", "application/x-ndjson", body.as_bytes())?;
            match response.status {
                202 => break,
                // Full: a producer must wait and send again.
                429 | 503 => thread::sleep(Duration::from_millis(5)),
                status => return Err(io::Error::other(format!("{status}: {}", response.text()))),
            }
        }
    }
    Ok(Instant::now())
}
