//! The state that all HTTP handlers share, and the closures through which the wiring fills it.
//!
//! Handlers see the log and the settings only as values and closures, so a test can run the whole
//! server without any of them. Without workers there are no streams, without a
//! [`PublishHandler`] no events are accepted.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use tidewire_engine::fanout::hub::Hub;
use tidewire_schemas::catalogue::Catalogue;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::admin::AdminEndpoint;
use super::guard::Guard;
use super::publish::PublishHandler;
use crate::clock;
use crate::socket::limits::ConnectionLimiter;
use crate::socket::stream::worker::WorkerStats;

/// Requests for `/v1/stats` answered at once: each queries the log, which may be slow.
pub(super) const STATS_AT_ONCE: usize = 4;

/// How long a subscriber is held at most while the process starts.
pub const START_WAIT_MAX: Duration = Duration::from_secs(10);

/// How often it is checked whether the process has started, for all held subscribers together.
const START_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A file that is served as it is.
#[derive(Clone, Debug)]
pub struct Asset {
    /// Its path, `/` for the page itself.
    pub path: String,
    /// Its media type.
    pub kind: &'static str,
    /// Its content.
    pub content: Bytes,
}

/// Whether the process can do its work now; the text says what it waits for.
pub type ReadinessCheck = dyn Fn() -> Result<(), String> + Send + Sync;

/// What only the wiring knows, as closures and values.
pub struct AppHooks {
    /// For `/readyz`.
    pub ready: Box<ReadinessCheck>,
    /// For `/metrics`: the text format of Prometheus.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// For `/v1/stats`: an object, to which the server adds the figures of its connections. May
    /// block.
    pub stats: Box<dyn Fn() -> Value + Send + Sync>,
    /// Whether subscribers are served: like `ready`, but true while ADMIT is stopped, since
    /// outputs are still delivered then.
    pub accepts_subscribers: Box<dyn Fn() -> bool + Send + Sync>,
    /// The admin endpoints of this process.
    pub admin_endpoints: Vec<AdminEndpoint>,
    /// The web page and the descriptions of the interface.
    pub assets: Vec<Asset>,
}

/// What a [`RouterState`] is made of.
pub struct RouterParts {
    /// Which hosts and origins are answered.
    pub guard: Guard,
    /// The channels that are served.
    pub catalogue: &'static Catalogue,
    /// What only the wiring knows.
    pub hooks: AppHooks,
    /// Accepts events; without it there is no `/v1/events`.
    pub publish_handler: Option<Arc<PublishHandler>>,
    /// Counts the connections.
    pub limiter: Arc<ConnectionLimiter>,
    /// The figures of the workers; without workers there are no streams.
    pub worker_stats: WorkerStats,
    /// Gives the state of channels; without it there is no `/v1/channels`.
    pub hub: Option<Arc<Hub>>,
}

struct SharedState {
    parts: RouterParts,
    started: Instant,
    stats_permits: Arc<Semaphore>,
    /// Notified when the process has started, or nobody checks any more.
    start_checked: Notify,
    /// Whether a task checks if the process has started.
    checks_start: AtomicBool,
}

/// What all handlers share. Cheap to clone.
#[derive(Clone)]
pub struct RouterState(Arc<SharedState>);

impl RouterState {
    /// The state of one server; its uptime begins here.
    pub fn new(parts: RouterParts) -> Self {
        let (started, stats_permits) = (clock::now(), Arc::new(Semaphore::new(STATS_AT_ONCE)));
        let (start_checked, checks_start) = (Notify::new(), AtomicBool::new(false));
        let shared = SharedState { parts, started, stats_permits, start_checked, checks_start };
        Self(Arc::new(shared))
    }

    /// Which hosts and origins are answered.
    pub fn guard(&self) -> &Guard {
        &self.0.parts.guard
    }

    /// The channels that are served.
    pub fn catalogue(&self) -> &'static Catalogue {
        self.0.parts.catalogue
    }

    /// What only the wiring knows.
    pub fn hooks(&self) -> &AppHooks {
        &self.0.parts.hooks
    }

    /// Accepts events, if this process does.
    pub fn publish_handler(&self) -> Option<&Arc<PublishHandler>> {
        self.0.parts.publish_handler.as_ref()
    }

    /// Connections of any kind now.
    pub fn connections(&self) -> usize {
        self.0.parts.limiter.connections()
    }

    /// The figures of the workers.
    pub fn worker_stats(&self) -> &WorkerStats {
        &self.0.parts.worker_stats
    }

    /// Gives the state of channels, in a process that serves them.
    pub(super) fn hub(&self) -> Option<&Arc<Hub>> {
        self.0.parts.hub.as_ref()
    }

    /// How long the server has run.
    pub fn uptime(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// The right to answer a request for `/v1/stats`; `None` if enough of them are running.
    pub(super) fn try_stats_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.stats_permits).try_acquire_owned().ok()
    }

    /// Holds a subscriber that comes while the process starts, because a browser's `EventSource`
    /// does not reconnect after a refusal. Returns after [`START_WAIT_MAX`] in any case.
    ///
    /// One task checks for all who are held, and notifies them: thousands may come back at once.
    pub(super) async fn wait_until_started(&self) {
        let begun = clock::now();
        loop {
            let mut checked = pin!(self.0.start_checked.notified());
            // Counts as waiting from here on, so that no notification is missed.
            checked.as_mut().enable();
            let left = START_WAIT_MAX.saturating_sub(begun.elapsed());
            if (self.hooks().accepts_subscribers)() || left.is_zero() {
                return;
            }
            self.check_start();
            // Timed out or notified: the loop looks at both.
            let _ = tokio::time::timeout(left, checked).await;
        }
    }

    /// Makes one task check whether the process has started, unless one does. It ends after
    /// [`START_WAIT_MAX`] and those who are still held start the next one.
    fn check_start(&self) {
        if self.0.checks_start.swap(true, Ordering::SeqCst) {
            return;
        }
        let state = self.clone();
        tokio::spawn(async move {
            let begun = clock::now();
            while !(state.hooks().accepts_subscribers)() && begun.elapsed() < START_WAIT_MAX {
                tokio::time::sleep(START_POLL_INTERVAL).await;
            }
            state.0.checks_start.store(false, Ordering::SeqCst);
            state.0.start_checked.notify_waiters();
        });
    }
}
