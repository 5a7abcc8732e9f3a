//! What an operator's command line asks of a running process: letters listed and resolved, a line
//! that stands still taken on.
//!
//! They show what events say and change what becomes of them, and this server can't tell an
//! operator from anybody else yet. So only this very machine is answered, whatever else may reach
//! the door. What a verb does is the wiring's; here is who may, and that the threads of HTTP don't
//! wait for it.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use http::StatusCode;
use serde_json::Value;
use tidewire_engine::fanout::protocol::native::ErrorCode;
use tokio::sync::Semaphore;

use super::extensions::ClientAddress;
use super::response::{ErrorResponse, HttpErrorCode, json_response};
use crate::telemetry;

/// Verbs at work at once: each asks the log, which may take its time.
pub(super) const ADMIN_AT_ONCE: usize = 4;

/// What a verb does with what was asked: the pairs of the query, a name possibly more than once. It
/// may block.
pub type AdminHandler = dyn Fn(&[(String, String)]) -> Result<Value, ErrorResponse> + Send + Sync;

/// Whether a verb changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It only looks: `GET`.
    ReadOnly,
    /// It changes something: `POST`.
    Mutating,
}

/// A verb of an operator.
#[derive(Clone)]
pub struct AdminEndpoint {
    /// Where.
    pub path: &'static str,
    /// By which method.
    pub effect: Effect,
    /// What it does.
    pub run: Arc<AdminHandler>,
}

/// The route of a verb.
pub(super) fn route<S: Clone + Send + Sync + 'static>(
    endpoint: &AdminEndpoint,
    permits: &Arc<Semaphore>,
) -> MethodRouter<S> {
    let (run, permits) = (Arc::clone(&endpoint.run), Arc::clone(permits));
    let handler = async move |Extension(from): Extension<ClientAddress>, query: QueryPairs| {
        respond(from, query, run, permits).await
    };
    match endpoint.effect {
        Effect::ReadOnly => get(handler),
        Effect::Mutating => post(handler),
    }
}

/// A result, so that a rejected query gets the JSON error body and not axum's plain text.
type QueryPairs = Result<Query<Vec<(String, String)>>, QueryRejection>;

async fn respond(
    from: ClientAddress,
    query: QueryPairs,
    run: Arc<AdminHandler>,
    permits: Arc<Semaphore>,
) -> Result<Response, ErrorResponse> {
    if !is_local(from) {
        telemetry::connection_refused("not_local");
        let message = "verbs of an operator are answered to this machine only; run them on the \
                       host of this process, or on Kafka from anywhere with --log kafka://…";
        return Err(ErrorResponse::new(ErrorCode::Forbidden, message));
    }
    let Query(pairs) = query.map_err(invalid_query)?;
    let Ok(permit) = permits.try_acquire_owned() else {
        return Err(ErrorResponse::overloaded("other verbs are at work; ask again in a moment"));
    };
    // It goes on even if the client has left, and keeps its turn.
    let work = move || {
        let done = run(&pairs);
        drop(permit);
        done
    };
    let done = tokio::task::spawn_blocking(work).await;
    let answer = done.map_err(|_| ErrorResponse::overloaded("the process is ending"))??;
    Ok(json_response(StatusCode::OK, &answer))
}

fn invalid_query(rejection: QueryRejection) -> ErrorResponse {
    ErrorResponse::new(HttpErrorCode::InvalidQuery, rejection.body_text())
}

fn is_local(from: ClientAddress) -> bool {
    from.0.is_some_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use http::header::CONTENT_TYPE;

    use super::*;

    #[test]
    fn only_this_machine_is_answered() {
        let here = |text: &str| is_local(ClientAddress(Some(text.parse().expect("an address"))));
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(here(address), "{address}");
        }
        for address in ["10.0.0.1", "192.168.0.9", "::ffff:10.0.0.1", "fe80::1", "0.0.0.0"] {
            assert!(!here(address), "{address}");
        }
        assert!(!is_local(ClientAddress(None)));
    }

    #[test]
    fn a_rejected_query_is_answered_with_the_json_of_every_error() {
        let uri = "/v1/dead-letters?limit=many".parse().expect("a URI");
        let rejection = Query::<Vec<(String, u64)>>::try_from_uri(&uri).expect_err("no number");
        let text = rejection.body_text();
        let error = invalid_query(rejection);
        assert_eq!((error.code, &error.message), (HttpErrorCode::InvalidQuery, &text));
        let response = error.into_response();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
    }
}
