//! The gateway's server as one value: start it, drain it, join it.
//!
//! It owns the tokio runtime of HTTP, the ingest thread and the workers; callers see none of them.
//! A drain has a fixed order: stop accepting, let responses finish, send move requests to
//! subscribers, close them, stop the threads. A thread that ends by itself, or a log that is lost,
//! is reported to the caller, which ends the process.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tidewire_engine::fanout::hub::Hub;
use tidewire_engine::fanout::shard::ShardStats;
use tidewire_engine::port::{Appender, Clock};
use tidewire_schemas::catalogue::Catalogue;
use tidewire_schemas::codec::Registry;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use super::http::accept::{Acceptor, listen};
use super::http::body_budget::BodyBudget;
use super::http::connection::HttpServer;
use super::http::guard::Guard;
use super::http::ingest::IngestQueue;
use super::http::publish::{IngestTopics, PublishHandler};
use super::http::routes;
use super::http::state::{AppHooks, RouterParts, RouterState};
use super::http::takeover::DetachedConnection;
use super::http::validation_slots::ValidationSlots;
use super::limits::{ConnectionLimiter, ConnectionLimits, RequestTimeouts};
use super::stream::worker::{WorkerHandle, WorkerStats};
use super::stream::worker_queue::WorkerQueue;
use crate::{clock, telemetry};

/// Threads of the HTTP runtime. Two are enough: streams leave it for the workers.
const HTTP_THREADS: usize = 2;

/// How long responses in progress may take once the gateway stops.
const HTTP_STOP: Duration = Duration::from_secs(1);

/// How long an append in progress may take after that. Its clients were answered with an error or
/// disconnected before; none was told that its events were accepted.
const INGEST_STOP: Duration = Duration::from_secs(1);

/// How often it is checked whether the ingest thread has ended.
const INGEST_STOP_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Settings of a gateway.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// How many connections may be open.
    pub limits: ConnectionLimits,
    /// Which hosts and origins are answered.
    pub guard: Guard,
    /// How long clients may take to send a request.
    pub timeouts: RequestTimeouts,
    /// The event types that are accepted and the channels that are served.
    pub catalogue: &'static Catalogue,
}

/// What a gateway needs to accept events.
pub struct PublishParts {
    /// Appends to the log; used by the ingest thread alone.
    pub appender: Box<dyn Appender>,
    /// The topics events are appended to.
    pub topics: IngestTopics,
    /// The wall clock, to reject timestamps too far ahead of it.
    pub clock: Arc<dyn Clock>,
    /// The schema registry, if one is configured.
    pub registry: Option<Arc<dyn Registry>>,
}

/// What a gateway is made of.
pub struct GatewayParts {
    /// Accepting events, if this process does.
    pub publish: Option<PublishParts>,
    /// What only the wiring knows.
    pub hooks: AppHooks,
    /// The threads that own the streams; see [`super::stream::worker::start_all`].
    pub workers: Vec<WorkerHandle>,
    /// Gives the state of channels, if this process serves them.
    pub hub: Option<Arc<Hub>>,
}

/// Starts gateways.
pub struct Gateway;

impl Gateway {
    /// Listens and serves. Fails if the address is in use or a thread can't be started.
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
                let (publish_handler, thread) = start_publish_handler(publish, &config)?;
                (Some(Arc::new(publish_handler)), Some(thread))
            }
            None => (None, None),
        };
        let ingest = publish_handler.as_ref().map(|handler| handler.ingest.clone());
        let worker_stats = WorkerStats::of(&parts.workers);
        let state = RouterState::new(RouterParts {
            guard: config.guard,
            catalogue: config.catalogue,
            hooks: parts.hooks,
            publish_handler,
            limiter: Arc::clone(&limiter),
            worker_stats: worker_stats.clone(),
            hub: parts.hub,
        });
        let listener = runtime.block_on(async { listen(config.listen) })?;
        let local_addr = listener.local_addr()?;
        let router = routes::router(&state);
        let server = HttpServer { router, timeouts: config.timeouts, draining };
        let queues: Vec<WorkerQueue> =
            parts.workers.iter().map(|worker| worker.queue.clone()).collect();
        let hand_over = Arc::new(move |detached| hand_over(&queues, detached));
        let acceptor = Acceptor { server, state, limiter: Arc::clone(&limiter), hand_over };
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

/// Gives a stream to a worker: round robin, skipping those whose queue is full.
fn hand_over(queues: &[WorkerQueue], detached: DetachedConnection) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let first = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut detached = Box::new(detached);
    for n in 0..queues.len() {
        match queues[first.wrapping_add(n) % queues.len()].send(detached) {
            Ok(()) => return,
            Err(back) => detached = back,
        }
    }
    // Dropping it closes the connection; the client reconnects.
    telemetry::connection_refused("workers_full");
}

fn start_publish_handler(
    publish: PublishParts,
    config: &GatewayConfig,
) -> io::Result<(PublishHandler, JoinHandle<()>)> {
    let (ingest, thread) = IngestQueue::start(publish.appender, config.timeouts.append)?;
    let publish_handler = PublishHandler {
        ingest,
        topics: publish.topics,
        catalogue: config.catalogue,
        registry: publish.registry,
        clock: publish.clock,
        refused: AtomicU64::new(0),
        budget: BodyBudget::new(&config.limits),
        slots: ValidationSlots::default(),
        timeouts: config.timeouts,
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

    /// Sums over all streams, at most about a second old.
    pub fn stats(&self) -> ShardStats {
        self.worker_stats.total()
    }

    /// Whether the log is lost: no append can succeed any more, and the process should end.
    pub fn has_lost_log(&self) -> bool {
        self.ingest.as_ref().is_some_and(IngestQueue::has_lost_log)
    }

    /// Whether a thread ended that should be running: a bug, and a reason to end the process.
    pub fn has_lost_a_thread(&self) -> bool {
        let stopped = self.ingest_thread.iter().chain(self.workers.iter().map(|w| &w.thread));
        !*self.drain.borrow() && stopped.into_iter().any(JoinHandle::is_finished)
    }

    /// Stops accepting, sends move requests to subscribers within `window`, then closes them.
    /// Returns at once.
    pub fn drain(&self, window: Duration) {
        self.drain.send_replace(true);
        for worker in &self.workers {
            worker.queue.waker.request_drain(window);
        }
    }

    /// Waits until everything has ended, at most a few seconds longer than the window of the drain.
    /// Without a drain before, all connections are closed at once.
    pub fn join(mut self) {
        if !*self.drain.borrow() {
            self.drain(Duration::ZERO);
        }
        self.runtime.shutdown_timeout(HTTP_STOP);
        for worker in self.workers.drain(..) {
            if worker.thread.join().is_err() {
                tracing::error!("a worker panicked; its connections were dropped");
            }
        }
        self.ingest = None;
        if let Some(thread) = self.ingest_thread.take() {
            end_ingest(thread);
        }
    }
}

/// Waits for the thread, but not for a log that does not answer.
fn end_ingest(thread: JoinHandle<()>) {
    let since = clock::now();
    while !thread.is_finished() {
        if since.elapsed() > INGEST_STOP {
            tracing::warn!(
                "the log does not answer: stopping without its last append, which no client was \
                 told is stored"
            );
            return;
        }
        clock::pause(INGEST_STOP_POLL_INTERVAL);
    }
    if thread.join().is_err() {
        tracing::error!("the ingest thread panicked");
    }
}
