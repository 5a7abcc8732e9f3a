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
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, CONTENT_SECURITY_POLICY, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use tidewire_engine::fanout::protocol::native::ErrorCode;
use tokio::sync::Semaphore;

use super::admin::{self, ADMIN_AT_ONCE};
use super::extensions::CheckedOrigin;
use super::guard::{GuardError, RequestOrigin};
use super::response::{ErrorResponse, HttpErrorCode, text_response};
use super::state::{Asset, RouterState};
use super::{publish, status, subscribe};
use crate::telemetry;

/// Headers that a page of a listed origin may send, beside those that begin with `ce-` or `tw-`.
const ALLOWED_HEADERS: [&str; 5] =
    ["authorization", "last-event-id", "cache-control", "content-type", "content-encoding"];

/// What the web page may load: its own files and streams. No other site may show it in a frame.
const PAGE_POLICY: &str = "default-src 'self'; img-src 'self' data:; object-src 'none'; \
                           base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The paths of the server itself. Those of admin endpoints and assets come from the wiring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// Opens a WebSocket.
    WebSocket,
    /// Opens a stream of server-sent events.
    Sse,
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

    /// Its handler; `None` if this process has no part in it.
    fn handler(self, state: &RouterState) -> Option<MethodRouter<RouterState>> {
        let has_workers = state.worker_stats().has_workers();
        match self {
            Self::WebSocket => has_workers.then(|| get(subscribe::websocket)),
            Self::Sse => has_workers.then(|| get(subscribe::sse)),
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

/// Runs before every handler: the guard and the CORS headers of allowed origins.
async fn check(
    State(state): State<RouterState>,
    mut request: Request<Body>,
    next: Next,
) -> Response {
    let checked = match state.guard().check(request.headers()) {
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
    let is_preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    request.extensions_mut().insert(CheckedOrigin(checked.clone()));
    let mut response = match is_preflight {
        true => preflight(request.headers()),
        false => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    if let RequestOrigin::Allowed(origin) = checked {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("retry-after"));
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }
    response
}

/// Allows what was asked for as far as handlers read it. There is no credentials header: no cookie
/// is ever read, so a page needs none.
fn preflight(asked: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE"));
    let names = asked.get_all(ACCESS_CONTROL_REQUEST_HEADERS).into_iter();
    let names = names.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let names = names.map(|name| name.trim().to_ascii_lowercase());
    let allowed: Vec<String> = names.filter(|name| is_allowed_header(name)).collect();
    if let Ok(allowed) = HeaderValue::from_str(&allowed.join(", "))
        && !allowed.is_empty()
    {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    }
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

/// Whether a page of a listed origin may send this header, in lower case.
fn is_allowed_header(name: &str) -> bool {
    ALLOWED_HEADERS.contains(&name) || name.starts_with("ce-") || name.starts_with("tw-")
}

async fn unknown_path(State(state): State<RouterState>, request: Request<Body>) -> ErrorResponse {
    let path: String = request.uri().path().chars().take(80).collect();
    let served = match (state.publish_handler(), state.worker_stats().has_workers()) {
        (Some(_), true) => "/v1/events, /v1/ws, /v1/sse, /v1/stats",
        _ => "/v1/stats, /metrics, /readyz, /healthz; events and subscribers go to a gateway",
    };
    let message = format!("this process does not serve {path}; it serves {served}");
    ErrorResponse::new(ErrorCode::NotFound, message)
}

/// axum adds the `Allow` header.
async fn wrong_method(request: Request<Body>) -> Result<StatusCode, ErrorResponse> {
    if request.method() == Method::OPTIONS {
        return Ok(StatusCode::NO_CONTENT);
    }
    let message = format!(
        "the method {} is not allowed here; the Allow header lists those that are",
        request.method()
    );
    Err(ErrorResponse::new(HttpErrorCode::MethodNotAllowed, message))
}
