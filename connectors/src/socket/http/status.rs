//! The handlers of `/healthz`, `/readyz`, `/metrics` and `/v1/stats`.
//!
//! Every role serves them. `/v1/stats` queries the log, which may block: it runs on a blocking
//! thread, and only so many run at once.

use axum::extract::State;
use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value, json};
use tidewire_engine::fanout::shard::ShardStats;

use super::response::{ErrorResponse, HttpErrorCode, json_response, text_response};
use super::state::{RouterState, STATS_AT_ONCE};

/// `GET /healthz`.
pub(super) async fn healthz() -> Response {
    text_response(StatusCode::OK, "text/plain; charset=utf-8", "ok\n")
}

/// `GET /readyz`.
pub(super) async fn readyz(State(state): State<RouterState>) -> Result<Response, ErrorResponse> {
    let lost = state.publish_handler().is_some_and(|handler| handler.ingest.has_lost_log());
    let ready = if lost { Err("the log is lost".to_owned()) } else { (state.hooks().ready)() };
    match ready {
        Ok(()) => Ok(text_response(StatusCode::OK, "text/plain; charset=utf-8", "ready\n")),
        Err(waits_for) => Err(ErrorResponse::new(HttpErrorCode::NotReady, waits_for)),
    }
}

/// `GET /metrics`.
pub(super) async fn metrics(State(state): State<RouterState>) -> Response {
    let mut response = text_response(StatusCode::OK, "text/plain", (state.hooks().metrics)());
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// `GET /v1/stats`.
pub(super) async fn stats(State(state): State<RouterState>) -> Result<Response, ErrorResponse> {
    let Some(permit) = state.try_stats_permit() else {
        let message = format!(
            "{STATS_AT_ONCE} requests for /v1/stats are in progress, which is the limit; repeat it \
             after Retry-After"
        );
        return Err(ErrorResponse::overloaded(message));
    };
    // The query goes on if the client leaves, and keeps its permit until it ends.
    let blocking = state.clone();
    let query = move || {
        let stats = (blocking.hooks().stats)();
        drop(permit);
        stats
    };
    let queried = tokio::task::spawn_blocking(query).await;
    let mut stats = queried.map_err(|_| ErrorResponse::stopping())?;
    if let Value::Object(fields) = &mut stats {
        fields.insert("uptime_seconds".to_owned(), json!(state.uptime().as_secs()));
        fields.insert("connections".to_owned(), json!(state.connections()));
        if state.worker_stats().has_workers() {
            add_streams(fields, state.worker_stats().total());
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
