//! The paths the server answers, and the checks that run before every handler.
//!
//! A process has no path for what it has no part in: without workers no streams, without a publish
//! handler no events. Every request passes the guard first, and every refusal is an
//! [`ErrorResponse`], also for an unknown path or method.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, StatusCode};
use tidewire_engine::fanout::protocol::native::ErrorCode;
use tokio::sync::Semaphore;

use super::admin::{self, ADMIN_AT_ONCE};
use super::extensions::CheckedOrigin;
use super::guard::{GuardError, RequestOrigin};
use super::response::{ErrorResponse, HttpErrorCode, text_response};
use super::state::{Asset, RouterState};
use super::subscribe::{full_stream, limit_response};
use super::{channel_state, cors, publish, security_headers, status, subscribe};
use crate::socket::limits::LimitReached;
use crate::telemetry;

/// The paths of the server itself. Those of admin endpoints and assets come from the wiring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// Opens a WebSocket.
    WebSocket,
    /// Opens a stream of server-sent events.
    Sse,
    /// Shows the state of a channel.
    ChannelState,
    /// Accepts events.
    Events,
    /// Shows the state of the process.
    Stats,
    /// Liveness.
    Healthz,
    /// Readiness.
    Readyz,
    /// Metrics in Prometheus' text format.
    Metrics,
}

impl Route {
    /// Every route.
    pub const ALL: [Self; 8] = [
        Self::WebSocket,
        Self::Sse,
        Self::ChannelState,
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
            Self::ChannelState => "/v1/channels/{channel}",
            Self::Events => "/v1/events",
            Self::Stats => "/v1/stats",
            Self::Healthz => "/healthz",
            Self::Readyz => "/readyz",
            Self::Metrics => "/metrics",
        }
    }

    /// Its handler; `None` if this process has no part in it.
    fn handler(self, state: &RouterState) -> Option<MethodRouter<RouterState>> {
        let has_workers = state.worker_stats().has_workers();
        match self {
            Self::WebSocket => has_workers.then(|| get(subscribe::websocket)),
            Self::Sse => has_workers.then(|| get(subscribe::sse)),
            Self::ChannelState => state.hub().map(|_| get(channel_state::get)),
            Self::Events => {
                let handler = Arc::clone(state.publish_handler()?);
                Some(post(publish::post).with_state(handler))
            }
            Self::Stats => Some(get(status::stats)),
            Self::Healthz => Some(get(status::healthz)),
            Self::Readyz => Some(get(status::readyz)),
            Self::Metrics => Some(get(status::metrics)),
        }
    }
}

/// The router of a server with this state.
pub fn router(state: &RouterState) -> Router {
    let mut router = Router::new();
    for route in Route::ALL {
        if let Some(handler) = route.handler(state) {
            router = router.route(route.path(), handler);
        }
    }
    let permits = Arc::new(Semaphore::new(ADMIN_AT_ONCE));
    for endpoint in &state.hooks().admin_endpoints {
        router = router.route(endpoint.path, admin::route(endpoint, &permits));
    }
    for asset in &state.hooks().assets {
        let Asset { kind, content, .. } = asset.clone();
        router = router
            .route(&asset.path, get(async move || text_response(StatusCode::OK, kind, content)));
    }
    router
        .method_not_allowed_fallback(wrong_method)
        .fallback(unknown_path)
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(state.clone(), check))
        .with_state(state.clone())
}

/// The router for a connection that a limit refuses. It answers nothing else, and ends the
/// connection.
pub(super) fn refusal_router(state: &RouterState, full: LimitReached) -> Router {
    let mut router = Router::new().fallback(async move || closing(limit_response(full)));
    if state.worker_stats().has_workers() {
        router = router.route(Route::Sse.path(), get(async move || closing(full_stream(full))));
    }
    router
        .method_not_allowed_fallback(async move || closing(limit_response(full)))
        .layer(from_fn_with_state(state.clone(), check))
}

fn closing(response: impl IntoResponse) -> Response {
    let mut response = response.into_response();
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Runs around every handler: the guard, the CORS headers of allowed origins, and the headers of
/// every response.
async fn check(State(state): State<RouterState>, request: Request<Body>, next: Next) -> Response {
    let checked = state.guard().check(&request);
    let mut response = match &checked {
        Ok(origin) => respond(origin, request, next).await,
        Err(refused) => refuse(refused),
    };
    let headers = response.headers_mut();
    security_headers::insert(headers);
    if let Ok(RequestOrigin::Allowed(origin)) = &checked {
        cors::allow_origin(headers, origin);
    }
    response
}

async fn respond(origin: &RequestOrigin, mut request: Request<Body>, next: Next) -> Response {
    if cors::is_preflight(request.method(), request.headers()) {
        return cors::preflight(request.headers());
    }
    request.extensions_mut().insert(CheckedOrigin(origin.clone()));
    next.run(request).await
}

fn refuse(refused: &GuardError) -> Response {
    telemetry::connection_refused("guard");
    let code = match refused {
        GuardError::NoHost => ErrorCode::InvalidMessage,
        GuardError::Host(_) | GuardError::Origin(_) | GuardError::Site(_) => ErrorCode::Forbidden,
    };
    ErrorResponse::new(code, refused.to_string()).into_response()
}

async fn unknown_path(State(state): State<RouterState>, request: Request<Body>) -> ErrorResponse {
    let path: String = request.uri().path().chars().take(80).collect();
    let served = match (state.publish_handler(), state.worker_stats().has_workers()) {
        (Some(_), true) => "/v1/events, /v1/ws, /v1/sse, /v1/channels/CHANNEL, /v1/stats",
        _ => "/v1/stats, /metrics, /readyz, /healthz; events and subscribers go to a gateway",
    };
    let message = format!("this process does not serve {path}; it serves {served}");
    ErrorResponse::new(ErrorCode::NotFound, message)
}

/// `OPTIONS` of a known path, or a method that it does not have. The router adds `Allow`.
async fn wrong_method(request: Request<Body>) -> Response {
    if request.method() == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    let message = format!(
        "the method {} is not allowed here; the Allow header lists those that are",
        request.method()
    );
    ErrorResponse::new(HttpErrorCode::MethodNotAllowed, message).into_response()
}
