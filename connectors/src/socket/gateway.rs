//! The gateway as one value: started, drained, joined.
//!
//! It owns a small tokio runtime for HTTP and one thread per shard for streams; nothing of either
//! is visible outside. The order of an end is fixed: stop accepting, let answers finish, tell
//! streams to move on, close them, stop the threads.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tidewire_engine::fanout::shard::ShardStats;
use tidewire_engine::port::{Appender, Clock};
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::codec::Registry;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use super::accept::{Acceptor, listen};
use super::events::{IngestTopics, Intake};
use super::guard::Guard;
use super::ingest::Ingest;
use super::limits::{Limits, Patience, Seats};
use super::routes::{Pages, Site};
use super::serve::{Departure, Server};
use super::waking::{Command, WorkerDoor};
use super::worker::{Sums, WorkerHandle};
use crate::{clock, telemetry};

/// Threads of the HTTP runtime. Streams don't live there, so two serve many.
const HTTP_THREADS: usize = 2;

/// How long answers under way may take once the gateway stops.
const HTTP_STOP: Duration = Duration::from_secs(1);

/// How long an append under way may take then. Who is waiting for it has been answered or cut off
/// by now, and was never told that its events were taken.
const INGEST_STOP: Duration = Duration::from_secs(1);

/// How often it is looked whether that thread has ended.
const INGEST_STOP_GRAIN: Duration = Duration::from_millis(10);

/// Settings of a gateway.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Who may come in.
    pub limits: Limits,
    /// Which hosts and origins are answered.
    pub guard: Guard,
    /// How long clients may take to say what they want.
    pub patience: Patience,
}

/// What a gateway needs to take events.
pub struct Ingress {
    /// A producer of its own.
    pub appender: Box<dyn Appender>,
    /// Where events go.
    pub topics: IngestTopics,
    /// The wall clock, for timestamps ahead of it.
    pub clock: Arc<dyn Clock>,
    /// Whom to ask for schemas, if there is somebody.
    pub registry: Option<Arc<dyn Registry>>,
}

/// What a gateway is made of.
pub struct GatewayParts {
    /// Taking events, if this gateway does.
    pub ingress: Option<Ingress>,
    /// What only the wiring knows.
    pub pages: Pages,
    /// The threads that hold streams; see [`super::worker::start_all`].
    pub workers: Vec<WorkerHandle>,
}

/// Starts gateways.
pub struct Gateway;

impl Gateway {
    /// Listens and serves. Fails if the address is taken or threads can't be made.
    pub fn start(config: GatewayConfig, parts: GatewayParts) -> io::Result<GatewayHandle> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(HTTP_THREADS)
            .thread_name("http")
            .enable_all()
            .build()?;
        let (drain, draining) = watch::channel(false);
        let seats = Seats::new(config.limits);
        let (intake, ingest_thread) = match parts.ingress {
            Some(ingress) => {
                let (intake, thread) = intake(ingress, config.patience)?;
                (Some(intake), Some(thread))
            }
            None => (None, None),
        };
        let ingest = intake.as_ref().map(|intake| intake.ingest.clone());
        let sums = Sums::of(&parts.workers);
        let site = Site::new(config.guard, parts.pages, intake, (Arc::clone(&seats), sums.clone()));
        let listener = runtime.block_on(async { listen(config.listen) })?;
        let local_addr = listener.local_addr()?;
        let server = Server { router: site.router(), patience: config.patience, draining };
        let doors: Vec<WorkerDoor> =
            parts.workers.iter().map(|worker| worker.door.clone()).collect();
        let hand_over = Arc::new(move |departure| hand_over(&doors, departure));
        let acceptor = Acceptor { server, seats: Arc::clone(&seats), hand_over };
        runtime.spawn(acceptor.run(listener));
        let workers = parts.workers;
        Ok(GatewayHandle {
            local_addr,
            drain,
            seats,
            sums,
            workers,
            ingest,
            ingest_thread,
            runtime,
        })
    }
}

/// Gives a stream to a worker: the next in turn by slot in the process, or any other with room.
fn hand_over(doors: &[WorkerDoor], departure: Departure) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let first = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut command = Command::Adopt(Box::new(departure));
    for n in 0..doors.len() {
        match doors[first.wrapping_add(n) % doors.len()].give(command) {
            Ok(()) => return,
            Err(back) => command = back,
        }
    }
    // Dropping it closes the connection: the client comes back, perhaps elsewhere.
    telemetry::connection_refused("workers_full");
}

fn intake(ingress: Ingress, patience: Patience) -> io::Result<(Intake, JoinHandle<()>)> {
    let (ingest, thread) = Ingest::start(ingress.appender, patience.append)?;
    let intake = Intake {
        ingest,
        topics: ingress.topics,
        catalogue: Catalogue::builtin(),
        registry: ingress.registry,
        clock: ingress.clock,
        refused: AtomicU64::new(0),
        body_timeout: patience.body,
    };
    Ok((intake, thread))
}

/// A running gateway.
pub struct GatewayHandle {
    local_addr: SocketAddr,
    drain: watch::Sender<bool>,
    seats: Arc<Seats>,
    sums: Sums,
    workers: Vec<WorkerHandle>,
    ingest: Option<Ingest>,
    ingest_thread: Option<JoinHandle<()>>,
    runtime: Runtime,
}

impl GatewayHandle {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Connections of any kind now.
    pub fn connections(&self) -> usize {
        self.seats.taken()
    }

    /// Sums over all streams, a moment old.
    pub fn stats(&self) -> ShardStats {
        self.sums.total()
    }

    /// Whether appending failed for good: the process has lost its log and should end with it.
    pub fn has_lost_log(&self) -> bool {
        self.ingest.as_ref().is_some_and(Ingest::has_lost_log)
    }

    /// Whether a thread has ended that should be running: a bug, and a reason to end the process.
    pub fn has_lost_a_thread(&self) -> bool {
        let stopped = self.ingest_thread.iter().chain(self.workers.iter().map(|w| &w.thread));
        !*self.drain.borrow() && stopped.into_iter().any(JoinHandle::is_finished)
    }

    /// Stops accepting, tells streams to move on within `window`, then closes them. Returns at
    /// once.
    pub fn drain(&self, window: Duration) {
        self.drain.send_replace(true);
        for worker in &self.workers {
            if worker.door.give(Command::Drain(window)).is_err() {
                tracing::warn!("a worker took no command to drain");
            }
        }
    }

    /// Waits until everything has ended, at most a few seconds longer than the window of the drain;
    /// without one, everyone is closed at once.
    pub fn join(mut self) {
        if !*self.drain.borrow() {
            self.drain(Duration::ZERO);
        }
        self.runtime.shutdown_timeout(HTTP_STOP);
        for worker in self.workers.drain(..) {
            if worker.thread.join().is_err() {
                tracing::error!("a worker of streams panicked");
            }
        }
        self.ingest = None;
        if let Some(thread) = self.ingest_thread.take() {
            end_ingest(thread);
        }
    }
}

/// Waits for the thread, unless the log keeps it waiting.
fn end_ingest(thread: JoinHandle<()>) {
    let since = clock::now();
    while !thread.is_finished() {
        if since.elapsed() > INGEST_STOP {
            tracing::warn!(
                "the log does not answer; what it has not confirmed was promised to nobody"
            );
            return;
        }
        clock::pause(INGEST_STOP_GRAIN);
    }
    if thread.join().is_err() {
        tracing::error!("the ingest thread panicked");
    }
}
