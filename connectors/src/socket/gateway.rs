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

use super::http::accept::{Acceptor, listen};
use super::http::connection::HttpServer;
use super::http::guard::Guard;
use super::http::ingest::IngestQueue;
use super::http::publish::{IngestTopics, PublishHandler};
use super::http::routes;
use super::http::state::{AppHooks, RouterParts, RouterState};
use super::http::takeover::DetachedConnection;
use super::limits::{ConnectionLimiter, ConnectionLimits, RequestTimeouts};
use super::stream::worker::{WorkerHandle, WorkerStats};
use super::stream::worker_queue::{WorkerCommand, WorkerQueue};
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
    pub limits: ConnectionLimits,
    /// Which hosts and origins are answered.
    pub guard: Guard,
    /// How long clients may take to say what they want.
    pub timeouts: RequestTimeouts,
}

/// What a gateway needs to take events.
pub struct PublishParts {
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
    pub publish: Option<PublishParts>,
    /// What only the wiring knows.
    pub hooks: AppHooks,
    /// The threads that hold streams; see [`super::stream::worker::start_all`].
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
        let limiter = ConnectionLimiter::new(config.limits);
        let (publish_handler, ingest_thread) = match parts.publish {
            Some(publish) => {
                let (publish_handler, thread) = start_publish_handler(publish, config.timeouts)?;
                (Some(Arc::new(publish_handler)), Some(thread))
            }
            None => (None, None),
        };
        let ingest = publish_handler.as_ref().map(|handler| handler.ingest.clone());
        let worker_stats = WorkerStats::of(&parts.workers);
        let state = RouterState::new(RouterParts {
            guard: config.guard,
            hooks: parts.hooks,
            publish_handler,
            limiter: Arc::clone(&limiter),
            worker_stats: worker_stats.clone(),
        });
        let listener = runtime.block_on(async { listen(config.listen) })?;
        let local_addr = listener.local_addr()?;
        let router = routes::router(&state);
        let server = HttpServer { router, timeouts: config.timeouts, draining };
        let queues: Vec<WorkerQueue> =
            parts.workers.iter().map(|worker| worker.queue.clone()).collect();
        let hand_over = Arc::new(move |detached| hand_over(&queues, detached));
        let acceptor = Acceptor { server, limiter: Arc::clone(&limiter), hand_over };
        runtime.spawn(acceptor.run(listener));
        let workers = parts.workers;
        Ok(GatewayHandle {
            local_addr,
            drain,
            limiter,
            worker_stats,
            workers,
            ingest,
            ingest_thread,
            runtime,
        })
    }
}

/// Gives a stream to a worker: the next in turn by slot in the process, or any other with room.
fn hand_over(queues: &[WorkerQueue], detached: DetachedConnection) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let first = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut command = WorkerCommand::Adopt(Box::new(detached));
    for n in 0..queues.len() {
        match queues[first.wrapping_add(n) % queues.len()].send(command) {
            Ok(()) => return,
            Err(back) => command = back,
        }
    }
    // Dropping it closes the connection: the client comes back, perhaps elsewhere.
    telemetry::connection_refused("workers_full");
}

fn start_publish_handler(
    publish: PublishParts,
    timeouts: RequestTimeouts,
) -> io::Result<(PublishHandler, JoinHandle<()>)> {
    let (ingest, thread) = IngestQueue::start(publish.appender, timeouts.append)?;
    let publish_handler = PublishHandler {
        ingest,
        topics: publish.topics,
        catalogue: Catalogue::builtin(),
        registry: publish.registry,
        clock: publish.clock,
        refused: AtomicU64::new(0),
        body_timeout: timeouts.body,
    };
    Ok((publish_handler, thread))
}

/// A running gateway.
pub struct GatewayHandle {
    local_addr: SocketAddr,
    drain: watch::Sender<bool>,
    limiter: Arc<ConnectionLimiter>,
    worker_stats: WorkerStats,
    workers: Vec<WorkerHandle>,
    ingest: Option<IngestQueue>,
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
        self.limiter.connections()
    }

    /// Sums over all streams, a moment old.
    pub fn stats(&self) -> ShardStats {
        self.worker_stats.total()
    }

    /// Whether appending failed for good: the process has lost its log and should end with it.
    pub fn has_lost_log(&self) -> bool {
        self.ingest.as_ref().is_some_and(IngestQueue::has_lost_log)
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
            if worker.queue.send(WorkerCommand::Drain(window)).is_err() {
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
