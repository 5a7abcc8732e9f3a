//! What the server answers to which path, and what is checked before any of it.
//!
//! The one idea: everything a handler needs is in the [`Site`], made of values and closures the
//! wiring passes in. So this room knows no log, no hub and no settings, and the whole of it runs in
//! a test. Every request passes the guard first, and every refusal has the same JSON shape. What a
//! process has no part in, it has no path for: without workers no streams, without an intake no
//! events.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_TYPE, VARY,
};
use http::{HeaderValue, Method, Request, StatusCode};
use serde_json::{Map, Value, json};
use tidewire_engine::fanout::shard::ShardStats;
use tokio::sync::Semaphore;

use super::answer::{Failure, json_answer, text_answer};
use super::events::{self, Intake};
use super::guard::{Caller, Guard, Refused};
use super::limits::Seats;
use super::open;
use super::verbs::{self, VERBS_AT_ONCE, Verb};
use super::worker::Sums;
use crate::{clock, telemetry};

/// Requests for `/v1/stats` answered at once: each asks the log, which may take its time.
const STATS_AT_ONCE: usize = 4;

/// How long a subscriber is held at most while the process is starting.
const HOLD_LIMIT: Duration = Duration::from_secs(10);

/// How often it is looked whether the process has started.
const HOLD_GRAIN: Duration = Duration::from_millis(20);

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
pub type Ready = dyn Fn() -> Result<(), String> + Send + Sync;

/// What only the wiring knows, told by closures.
pub struct Pages {
    /// For `/readyz`.
    pub ready: Box<Ready>,
    /// For `/metrics`: the text format of Prometheus.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// For `/v1/stats`: an object; what the gateway knows of its connections is added to it. It may
    /// block.
    pub stats: Box<dyn Fn() -> Value + Send + Sync>,
    /// Whether subscribers need not be held any longer: like `ready`, but an input that stands
    /// still is no reason to keep them waiting.
    pub serves: Box<dyn Fn() -> bool + Send + Sync>,
    /// What an operator's command line may ask for.
    pub verbs: Vec<Verb>,
    /// The web page.
    pub assets: Vec<Asset>,
}

struct Shared {
    guard: Guard,
    pages: Pages,
    intake: Option<Intake>,
    seats: Arc<Seats>,
    sums: Sums,
    started: Instant,
    asking: Arc<Semaphore>,
}

/// All that handlers share. Cheap to clone.
#[derive(Clone)]
pub struct Site(Arc<Shared>);

impl Site {
    /// A site of these parts; without an intake it takes no events.
    pub fn new(
        guard: Guard,
        pages: Pages,
        intake: Option<Intake>,
        (seats, sums): (Arc<Seats>, Sums),
    ) -> Self {
        let (started, asking) = (clock::now(), Arc::new(Semaphore::new(STATS_AT_ONCE)));
        Self(Arc::new(Shared { guard, pages, intake, seats, sums, started, asking }))
    }

    /// What takes events, if this gateway does.
    pub fn intake(&self) -> Option<&Intake> {
        self.0.intake.as_ref()
    }

    /// Holds a subscriber that comes while the process is starting: a browser's `EventSource` gives
    /// up for good on a refusal. Goes on after a while all the same.
    pub(super) async fn until_ready(&self) {
        let begun = clock::now();
        while !(self.0.pages.serves)() && begun.elapsed() < HOLD_LIMIT {
            tokio::time::sleep(HOLD_GRAIN).await;
        }
    }

    /// The router.
    pub fn router(&self) -> Router {
        let mut router = Router::new()
            .route("/v1/stats", get(stats))
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics_text));
        if self.0.intake.is_some() {
            router = router.route("/v1/events", post(events::post));
        }
        if self.0.sums.has_workers() {
            router = router.route("/v1/ws", get(open::websocket)).route("/v1/sse", get(open::sse));
        }
        let turns = Arc::new(Semaphore::new(VERBS_AT_ONCE));
        for verb in &self.0.pages.verbs {
            router = router.route(verb.path, verbs::route(verb, &turns));
        }
        for asset in &self.0.pages.assets {
            let Asset { kind, content, .. } = asset.clone();
            router = router
                .route(&asset.path, get(async move || text_answer(StatusCode::OK, kind, content)));
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
async fn check(State(site): State<Site>, mut request: Request<Body>, next: Next) -> Response {
    let caller = match site.0.guard.check(request.headers()) {
        Ok(caller) => caller,
        Err(refused) => {
            telemetry::connection_refused("guard");
            let (status, code) = match refused {
                Refused::NoHost => (StatusCode::BAD_REQUEST, "invalid_message"),
                Refused::Host(_) | Refused::Origin(_) => (StatusCode::FORBIDDEN, "forbidden"),
            };
            return Failure::new(status, code, refused.to_string()).into_response();
        }
    };
    let asks_first = request.method() == Method::OPTIONS
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    request.extensions_mut().insert(CallerOf(caller.clone()));
    let mut response = if asks_first { preflight() } else { next.run(request).await };
    if let Caller::Listed(origin) = caller {
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        response.headers_mut().append(VARY, HeaderValue::from_static("Origin"));
    }
    response
}

/// The guard's result, in every request's extensions.
#[derive(Clone, Debug)]
pub struct CallerOf(pub Caller);

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
    text_answer(StatusCode::OK, "text/plain; charset=utf-8", "ok\n")
}

async fn readyz(State(site): State<Site>) -> Result<Response, Failure> {
    let lost = site.intake().is_some_and(|intake| intake.ingest.has_lost_log());
    let ready = if lost { Err("the log is lost".to_owned()) } else { (site.0.pages.ready)() };
    match ready {
        Ok(()) => Ok(text_answer(StatusCode::OK, "text/plain; charset=utf-8", "ready\n")),
        Err(waits_for) => {
            Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", waits_for))
        }
    }
}

async fn metrics_text(State(site): State<Site>) -> Response {
    let mut response = text_answer(StatusCode::OK, "text/plain", (site.0.pages.metrics)());
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

async fn stats(State(site): State<Site>) -> Result<Response, Failure> {
    let shared = Arc::clone(&site.0);
    let Ok(turn) = Arc::clone(&shared.asking).try_acquire_owned() else {
        return Err(Failure::overloaded("the log is being asked already; ask again in a moment"));
    };
    // While it asks the log, the threads of this runtime are free for others. It goes on asking
    // even if the client has left, and keeps its turn.
    let ask = move || {
        let stats = (shared.pages.stats)();
        drop(turn);
        stats
    };
    let asked = tokio::task::spawn_blocking(ask).await;
    let mut stats = asked.map_err(|_| Failure::overloaded("the process is ending"))?;
    if let Value::Object(fields) = &mut stats {
        fields.insert("uptime_seconds".to_owned(), json!(site.0.started.elapsed().as_secs()));
        fields.insert("connections".to_owned(), json!(site.0.seats.taken()));
        if site.0.sums.has_workers() {
            add_streams(fields, site.0.sums.total());
        }
    }
    Ok(json_answer(StatusCode::OK, &stats))
}

fn add_streams(fields: &mut Map<String, Value>, sums: ShardStats) {
    for (name, value) in [
        ("websockets", json!(sums.websockets)),
        ("sse_streams", json!(sums.streams)),
        ("subscriptions", json!(sums.subscriptions)),
        ("channels", json!(sums.channels)),
        ("backlogged", json!(sums.backlogged)),
        ("behind", json!(sums.behind)),
        ("deliveries", json!(sums.deliveries)),
        ("delivered_bytes", json!(sums.bytes)),
    ] {
        fields.insert(name.to_owned(), value);
    }
}

async fn unknown_path(State(site): State<Site>, request: Request<Body>) -> Failure {
    let path: String = request.uri().path().chars().take(80).collect();
    let served = match (&site.0.intake, site.0.sums.has_workers()) {
        (Some(_), true) => "/v1/events, /v1/ws, /v1/sse, /v1/stats",
        _ => "/v1/stats, /metrics, /readyz, /healthz; sockets and events are the gateway's",
    };
    let message = format!("there is nothing at {path}; see {served}");
    Failure::new(StatusCode::NOT_FOUND, "not_found", message)
}

async fn wrong_method(request: Request<Body>) -> Failure {
    let message = format!("{} is not served here; see the Allow header", request.method());
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}
