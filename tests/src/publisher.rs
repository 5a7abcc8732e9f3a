//! Posts numbered events on a fixed schedule (open loop) or with a bounded window (closed loop).
//!
//! The open loop never waits for the server: its schedule is fixed before the first event, and
//! latency counts from the moment an event was due, so a server that stalls the publisher can't
//! hide the stall. The closed loop posts as fast as events arrive at the subscribers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::HttpClient;

/// Most events in one request of [`PostTarget::post_all`]; the server's own limit is 1,000.
pub const MAX_EVENTS_PER_POST: u64 = 500;

/// Most events in one request of the closed loop, so that its window moves in small steps.
const MAX_EVENTS_PER_STEP: u64 = 100;

/// How long the closed loop waits when its window is full: well below the time a window takes.
const WINDOW_FULL_PAUSE: Duration = Duration::from_micros(500);

/// Connections an open-loop schedule is spread over, so that one slow answer delays only every
/// fourth event.
const PACED_CONNECTIONS: u64 = 4;

/// Appends the event with this number, without a newline, to the body.
pub type LineEncoder = Arc<dyn Fn(u64, &mut Vec<u8>) + Send + Sync>;

/// Where events go and how they are encoded.
#[derive(Clone)]
pub struct PostTarget {
    /// The server.
    pub addr: SocketAddr,
    /// The path to post to.
    pub path: &'static str,
    /// The text of one event.
    pub line: LineEncoder,
}

impl PostTarget {
    /// Posts `count` events from `first` on in one request; any status but success is an error.
    fn post(&self, client: &mut HttpClient, first: u64, count: u64) -> io::Result<()> {
        let mut body = Vec::new();
        for seq in first..first + count {
            (self.line)(seq, &mut body);
            body.push(b'\n');
        }
        let response = client.post(self.path, "application/x-ndjson", &body)?;
        match response.status {
            200..=299 => Ok(()),
            status => Err(io::Error::other(format!("{status}: {}", response.text()))),
        }
    }

    /// Posts events `first..first + count` in as few requests as allowed.
    pub fn post_all(&self, first: u64, count: u64) -> io::Result<()> {
        let mut client = HttpClient::connect(self.addr)?;
        let mut done = 0;
        while done < count {
            let batch = MAX_EVENTS_PER_POST.min(count - done);
            self.post(&mut client, first + done, batch)?;
            done += batch;
        }
        Ok(())
    }
}

/// When each event is due.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Number of the first event.
    pub first_seq: u64,
    /// How many there are.
    pub count: u64,
    /// When the first is due.
    pub start: Instant,
    /// Time between two.
    pub interval: Duration,
}

impl Schedule {
    /// When the event with this number is due, if it belongs to the schedule.
    pub fn intended(&self, seq: u64) -> Option<Instant> {
        let index = seq.checked_sub(self.first_seq).filter(|index| *index < self.count)?;
        Some(self.start + self.interval * u32::try_from(index).ok()?)
    }

    /// When the last one is due.
    pub fn end(&self) -> Instant {
        self.start + self.interval * u32::try_from(self.count).unwrap_or(u32::MAX)
    }
}

/// Posts one event per request when it is due, late ones at once; returns when all are posted.
pub fn pace(target: &PostTarget, schedule: Schedule) -> io::Result<()> {
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..PACED_CONNECTIONS)
            .map(|lane| scope.spawn(move || pace_connection(target, schedule, lane)))
            .collect();
        let outcomes =
            lanes.into_iter().map(|lane| lane.join().expect("a lane returns its errors"));
        outcomes.collect()
    })
}

fn pace_connection(target: &PostTarget, schedule: Schedule, lane: u64) -> io::Result<()> {
    let mut client = HttpClient::connect(target.addr)?;
    let mut seq = schedule.first_seq + lane;
    while let Some(due) = schedule.intended(seq) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        target.post(&mut client, seq, 1)?;
        seq += PACED_CONNECTIONS;
    }
    Ok(())
}

/// The counters that both ends of a closed loop share.
#[derive(Debug, Default)]
pub struct PublishProgress {
    posted: AtomicU64,
    arrived: AtomicU64,
    stopped: AtomicBool,
}

impl PublishProgress {
    /// Events accepted by the server so far.
    pub fn posted(&self) -> u64 {
        self.posted.load(Ordering::Acquire)
    }

    /// Reports how many events have arrived at the slowest subscriber.
    pub fn arrived(&self, events: u64) {
        self.arrived.store(events, Ordering::Release);
    }

    /// Ends the loop after the current request.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    fn free_window(&self, window: u64) -> u64 {
        let in_flight = self.posted().saturating_sub(self.arrived.load(Ordering::Acquire));
        window.saturating_sub(in_flight)
    }
}

/// Posts from `first_seq` on with at most `window` events in flight, until stopped.
pub fn saturate(
    target: &PostTarget,
    first_seq: u64,
    window: u64,
    progress: &PublishProgress,
) -> io::Result<()> {
    let mut client = HttpClient::connect(target.addr)?;
    while !progress.stopped.load(Ordering::Acquire) {
        let count = progress.free_window(window).min(MAX_EVENTS_PER_STEP);
        if count == 0 {
            thread::sleep(WINDOW_FULL_PAUSE);
            continue;
        }
        target.post(&mut client, first_seq + progress.posted(), count)?;
        progress.posted.fetch_add(count, Ordering::AcqRel);
    }
    Ok(())
}
