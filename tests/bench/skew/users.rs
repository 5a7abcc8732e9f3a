//! The state of many users: how fast it is made, and the memory and disk that it takes.
//!
//! Each user follows the next one and the last the first. So each has one edge in `follows`, one
//! mark in `notify`, and one notification and a count in `unread`, whatever the number of users.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tidewire_tests::folder::bytes_in;
use tidewire_tests::process::usage;
use tidewire_tests::publisher::{LineEncoder, PostTarget};
use tidewire_tests::server::Server;

use crate::idle::wait_until_idle;
use crate::load::fill;

/// How often the server's counters are read.
const POLL: Duration = Duration::from_millis(250);

/// Nothing processed for this long means that everything is.
const QUIET: Duration = Duration::from_secs(3);

/// Records of the lanes per user: the follow, and its copy for the user who is followed. `unread`
/// runs for the notification where it is made.
const RECORDS_PER_USER: u64 = 2;

/// What making the state took.
pub(crate) struct StateOfUsers {
    users: u64,
    records: u64,
    /// From the first post to the last response.
    posted: Duration,
    /// From the first post until DERIVE had processed the last record.
    processed: Duration,
    cpu: Duration,
    resident_bytes: u64,
    store_bytes: u64,
    log_bytes: u64,
}

/// Makes the state of this many users.
pub(crate) fn make(server: &Server, users: u64) -> io::Result<StateOfUsers> {
    let target = PostTarget { addr: server.addr(), path: "/v1/events", line: follows(users) };
    let (begin, before) = (Instant::now(), usage(server.pid())?);
    let filler = thread::spawn(move || fill(&target, users).map(|()| begin.elapsed()));
    let mut last = (processed(server)?, Instant::now());
    while !filler.is_finished() || last.1.elapsed() < QUIET {
        thread::sleep(POLL);
        let now = processed(server)?;
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
    let posted = filler.join().expect("the filler returns its errors")?;
    let (records, end) = last;
    if records != users * RECORDS_PER_USER {
        let expected = users * RECORDS_PER_USER;
        let text = format!("expected {expected} records in the lanes, processed {records}");
        return Err(io::Error::other(text));
    }
    let cpu = usage(server.pid())?.cpu - before.cpu;
    wait_until_idle(server)?;
    Ok(StateOfUsers {
        users,
        records,
        posted,
        processed: end - begin,
        cpu,
        resident_bytes: usage(server.pid())?.resident_bytes,
        store_bytes: store_bytes(&server.data_dir().join("state"))?,
        log_bytes: bytes_in(&server.data_dir().join("log"))?,
    })
}

impl StateOfUsers {
    pub(crate) fn report(&self) {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let users = self.users as f64;
        println!("\nState of {} users, one edge and one unread notification each:\n", self.users);
        println!("| | |\n|---|---:|");
        row("events/s, posted and answered", users / self.posted.as_secs_f64());
        row("events/s, first post to last fact", users / self.processed.as_secs_f64());
        row("records of lanes/s", self.records as f64 / self.processed.as_secs_f64());
        row("CPU µs per event", self.cpu.as_secs_f64() * 1e6 / users);
        row("resident MiB, idle", mib(self.resident_bytes));
        row("MiB of the stores on disk", mib(self.store_bytes));
        row("bytes of the stores per user", self.store_bytes as f64 / users);
        row("MiB of the log on disk", mib(self.log_bytes));
    }
}

fn row(name: &str, value: f64) {
    println!("| {name} | {value:.0} |");
}

/// The follow of a user.
fn follows(users: u64) -> LineEncoder {
    Arc::new(move |n, body| {
        let next = (n + 1) % users;
        let event = format!(
            "{{\"event_id\":\"f-{n}\",\"event_type\":\"user.followed\",\"account_id\":\"load0\",\
             \"data\":{{\"user_id\":\"u{n}\",\"target_id\":\"u{next}\"}}}}"
        );
        body.extend_from_slice(event.as_bytes());
    })
}

/// The records of all lanes that DERIVE has processed.
fn processed(server: &Server) -> io::Result<u64> {
    let metrics = server.http().get("/metrics")?.text();
    let lanes = metrics.lines().filter_map(|line| {
        let (_, count) = line.strip_prefix("tidewire_derive_events_total{")?.rsplit_once(' ')?;
        count.parse::<u64>().ok()
    });
    Ok(lanes.sum())
}

/// Bytes of the tasks' stores, without copies of them for replays.
fn store_bytes(state: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(state)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("task-") {
            bytes += bytes_in(&entry.path())?;
        }
    }
    Ok(bytes)
}
