//! What the server answers to which path, and what is checked before any of it.
//!
//! The one idea: everything a handler needs is in the [`RouterState`], made of values and closures
//! the wiring passes in. So this room knows no log, no hub and no settings, and the whole of it
//! runs in a test. Every request passes the guard first, and every refusal has the same JSON shape.
//! What a process has no part in, it has no path for: without workers no streams, without an intake
//! no events.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_TYPE, VARY,
};
use http::{HeaderValue, Method, Request, StatusCode};
use serde_json::{Map, Value, json};
use tidewire_engine::fanout::protocol::native::ErrorCode;
use tidewire_engine::fanout::shard::ShardStats;
use tokio::sync::Semaphore;

use super::admin::{self, ADMIN_AT_ONCE, AdminEndpoint};
use super::guard::{Guard, GuardError, RequestOrigin};
use super::publish::{self, PublishHandler};
use super::response::{ErrorResponse, HttpErrorCode, json_response, text_response};
use super::subscribe;
use crate::socket::limits::ConnectionLimiter;
use crate::socket::stream::worker::WorkerStats;
use crate::{clock, telemetry};

/// Requests for `/v1/stats` answered at once: each asks the log, which may take its time.
const STATS_AT_ONCE: usize = 4;

/// How long a subscriber is held at most while the process is starting.
pub const START_WAIT_MAX: Duration = Duration::from_secs(10);

/// How often it is looked whether the process has started.
const START_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The paths that a server answers to by itself. Those of operators' verbs and of files come from
/// the wiring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// Opens a WebSocket.
    WebSocket,
    /// Opens a stream of server-sent events.
    Sse,
    /// Takes events.
    Events,
    /// Says what the process does.
    Stats,
    /// Says that the process runs.
    Healthz,
    /// Says whether it can do its work.
    Readyz,
    /// Shows the metrics.
    Metrics,
}

impl Route {
    /// Every route.
    pub const ALL: [Self; 7] = [
        Self::WebSocket,
        Self::Sse,
        Self::Events,
        Self::Stats,
        Self::Healthz,
        Self::Readyz,
        Self::Metrics,
    ];

    /// Its path.
    pub fn path(self) -> &'static str {
        match self {
            Self::WebSocket => "/v1/ws",
            Self::Sse => "/v1/sse",
            Self::Events => "/v1/events",
            Self::Stats => "/v1/stats",
            Self::Healthz => "/healthz",
            Self::Readyz => "/readyz",
            Self::Metrics => "/metrics",
        }
    }

    fn handler(self) -> MethodRouter<RouterState> {
        match self {
            Self::WebSocket => get(subscribe::websocket),
            Self::Sse => get(subscribe::sse),
            Self::Events => post(publish::post),
            Self::Stats => get(stats),
            Self::Healthz => get(healthz),
            Self::Readyz => get(readyz),
            Self::Metrics => get(metrics_text),
        }
    }
}

/// A file of the web page.
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

/// What only the wiring knows, told by closures.
pub struct AppHooks {
    /// For `/readyz`.
    pub ready: Box<ReadinessCheck>,
    /// For `/metrics`: the text format of Prometheus.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// For `/v1/stats`: an object; what the gateway knows of its connections is added to it. It may
    /// block.
    pub stats: Box<dyn Fn() -> Value + Send + Sync>,
    /// Whether subscribers need not be held any longer: like `ready`, but an input that stands
    /// still is no reason to keep them waiting.
    pub accepts_subscribers: Box<dyn Fn() -> bool + Send + Sync>,
    /// What an operator's command line may ask for.
    pub admin_endpoints: Vec<AdminEndpoint>,
    /// The web page.
    pub assets: Vec<Asset>,
}

struct RouterStateInner {
    guard: Guard,
    hooks: AppHooks,
    publish_handler: Option<PublishHandler>,
    limiter: Arc<ConnectionLimiter>,
    worker_stats: WorkerStats,
    started: Instant,
    stats_permits: Arc<Semaphore>,
}

/// All that handlers share. Cheap to clone.
#[derive(Clone)]
pub struct RouterState(Arc<RouterStateInner>);

impl RouterState {
    /// A site of these parts; without an intake it takes no events.
    pub fn new(
        guard: Guard,
        hooks: AppHooks,
        publish_handler: Option<PublishHandler>,
        (limiter, worker_stats): (Arc<ConnectionLimiter>, WorkerStats),
    ) -> Self {
        let (started, stats_permits) = (clock::now(), Arc::new(Semaphore::new(STATS_AT_ONCE)));
        Self(Arc::new(RouterStateInner {
            guard,
            hooks,
            publish_handler,
            limiter,
            worker_stats,
            started,
            stats_permits,
        }))
    }

    /// What takes events, if this gateway does.
    pub fn publish_handler(&self) -> Option<&PublishHandler> {
        self.0.publish_handler.as_ref()
    }

    /// Holds a subscriber that comes while the process is starting: a browser's `EventSource` gives
    /// up for good on a refusal. Goes on after a while all the same.
    pub(super) async fn wait_until_started(&self) {
        let begun = clock::now();
        while !(self.0.hooks.accepts_subscribers)() && begun.elapsed() < START_WAIT_MAX {
            tokio::time::sleep(START_POLL_INTERVAL).await;
        }
    }

    /// Whether this process has a part in what a route is for.
    fn serves(&self, route: Route) -> bool {
        match route {
            Route::WebSocket | Route::Sse => self.0.worker_stats.has_workers(),
            Route::Events => self.0.publish_handler.is_some(),
            Route::Stats | Route::Healthz | Route::Readyz | Route::Metrics => true,
        }
    }

    /// The router.
    pub fn router(&self) -> Router {
        let mut router = Router::new();
        for route in Route::ALL.into_iter().filter(|route| self.serves(*route)) {
            router = router.route(route.path(), route.handler());
        }
        let permits = Arc::new(Semaphore::new(ADMIN_AT_ONCE));
        for endpoint in &self.0.hooks.admin_endpoints {
            router = router.route(endpoint.path, admin::route(endpoint, &permits));
        }
        for asset in &self.0.hooks.assets {
            let Asset { kind, content, .. } = asset.clone();
            router = router.route(
                &asset.path,
                get(async move || text_response(StatusCode::OK, kind, content)),
            );
        }
        router
            .method_not_allowed_fallback(wrong_method)
            .fallback(unknown_path)
            .layer(DefaultBodyLimit::disable())
            .layer(from_fn_with_state(self.clone(), check))
            .with_state(self.clone())
    }
}

/// Runs before every handler: the guard, and what browsers of listed origins need to be told.
async fn check(
    State(state): State<RouterState>,
    mut request: Request<Body>,
    next: Next,
) -> Response {
    let checked = match state.0.guard.check(request.headers()) {
        Ok(checked) => checked,
        Err(refused) => {
            telemetry::connection_refused("guard");
            let code = match refused {
                GuardError::NoHost => ErrorCode::InvalidMessage,
                GuardError::Host(_) | GuardError::Origin(_) => ErrorCode::Forbidden,
            };
            return ErrorResponse::new(code, refused.to_string()).into_response();
        }
    };
    let asks_first = request.method() == Method::OPTIONS
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    request.extensions_mut().insert(CheckedOrigin(checked.clone()));
    let mut response = if asks_first { preflight() } else { next.run(request).await };
    if let RequestOrigin::Allowed(origin) = checked {
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        response.headers_mut().append(VARY, HeaderValue::from_static("Origin"));
    }
    response
}

/// The guard's result, in every request's extensions.
#[derive(Clone, Debug)]
pub struct CheckedOrigin(pub RequestOrigin);

fn preflight() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    let allowed = HeaderValue::from_static("authorization, content-type, last-event-id");
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

async fn healthz() -> Response {
    text_response(StatusCode::OK, "text/plain; charset=utf-8", "ok\n")
}

async fn readyz(State(state): State<RouterState>) -> Result<Response, ErrorResponse> {
    let lost = state
        .publish_handler()
        .is_some_and(|publish_handler| publish_handler.ingest.has_lost_log());
    let ready = if lost { Err("the log is lost".to_owned()) } else { (state.0.hooks.ready)() };
    match ready {
        Ok(()) => Ok(text_response(StatusCode::OK, "text/plain; charset=utf-8", "ready\n")),
        Err(waits_for) => Err(ErrorResponse::new(HttpErrorCode::NotReady, waits_for)),
    }
}

async fn metrics_text(State(state): State<RouterState>) -> Response {
    let mut response = text_response(StatusCode::OK, "text/plain", (state.0.hooks.metrics)());
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

async fn stats(State(state): State<RouterState>) -> Result<Response, ErrorResponse> {
    let shared = Arc::clone(&state.0);
    let Ok(permit) = Arc::clone(&shared.stats_permits).try_acquire_owned() else {
        return Err(ErrorResponse::overloaded(
            "the log is being asked already; ask again in a moment",
        ));
    };
    // While it asks the log, the threads of this runtime are free for others. It goes on asking
    // even if the client has left, and keeps its turn.
    let ask = move || {
        let stats = (shared.hooks.stats)();
        drop(permit);
        stats
    };
    let asked = tokio::task::spawn_blocking(ask).await;
    let mut stats = asked.map_err(|_| ErrorResponse::overloaded("the process is ending"))?;
    if let Value::Object(fields) = &mut stats {
        fields.insert("uptime_seconds".to_owned(), json!(state.0.started.elapsed().as_secs()));
        fields.insert("connections".to_owned(), json!(state.0.limiter.connections()));
        if state.0.worker_stats.has_workers() {
            add_streams(fields, state.0.worker_stats.total());
        }
    }
    Ok(json_response(StatusCode::OK, &stats))
}

fn add_streams(fields: &mut Map<String, Value>, total: ShardStats) {
    for (name, value) in [
        ("websockets", json!(total.websockets)),
        ("sse_streams", json!(total.streams)),
        ("subscriptions", json!(total.subscriptions)),
        ("channels", json!(total.channels)),
        ("backlogged", json!(total.backlogged)),
        ("behind", json!(total.behind)),
        ("deliveries", json!(total.deliveries)),
        ("delivered_bytes", json!(total.bytes)),
    ] {
        fields.insert(name.to_owned(), value);
    }
}

async fn unknown_path(State(state): State<RouterState>, request: Request<Body>) -> ErrorResponse {
    let path: String = request.uri().path().chars().take(80).collect();
    let served = match (&state.0.publish_handler, state.0.worker_stats.has_workers()) {
        (Some(_), true) => "/v1/events, /v1/ws, /v1/sse, /v1/stats",
        _ => "/v1/stats, /metrics, /readyz, /healthz; sockets and events are the gateway's",
    };
    let message = format!("there is nothing at {path}; see {served}");
    ErrorResponse::new(ErrorCode::NotFound, message)
}

async fn wrong_method(request: Request<Body>) -> ErrorResponse {
    let message = format!("{} is not served here; see the Allow header", request.method());
    ErrorResponse::new(HttpErrorCode::MethodNotAllowed, message)
}
